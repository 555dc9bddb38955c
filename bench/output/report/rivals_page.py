"""Makes report.html of experiment=rivals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.output.report import charts, tables
from bench.output.report.page import render
from bench.output.tables import rivals
from bench.output.tables.comparison import Comparison
from bench.output.tables.numbers import count

if TYPE_CHECKING:
    import plotly.graph_objects as go

Values = dict[str, Any]


def write(v: Values, made: Comparison, directory: Path) -> Path:
    """Writes the report beside the results.

    Args:
        v: the values of the record. made: its table. directory: where results.json is.
    """
    timed = sorted((row for row in v["rivals"] if "ms" in row), key=lambda row: row["ms"])
    figures: dict[str, go.Figure] = {}
    slow: list[tuple] = []
    if timed:
        bars = [(row["name"], row["ms"], row["ms_quartiles"]) for row in timed]
        near, slow = charts.off_the_scale(bars)
        figures["times"] = charts.bars(near)
    absent = [f"{row['name']}: {row['reason']}" for row in v["rivals"] if row.get("reason")]
    given = {
        "v": v,
        "said": said(v, timed),
        "slow": slow,
        "rows": (made.head, made.rows),
        "goals": list(rivals.goals(v)),
        "notes_of_all": [*made.notes, *absent],
        "settings": tables.settings(v),
        "environment": tables.environment(v),
    }
    return render("rivals.html.jinja", v, figures, given, directory)


def said(v: Values, timed: list[Values]) -> str:
    """How fast the FS network is beside the fastest of each kind."""
    others = [row for row in timed if "ratio" in row and row["kind"] not in ("few spikes",)]
    best: dict[str, Values] = {}
    for row in others:
        best.setdefault(row["kind"], row)
    if not best:
        return f"{count(len(timed), 'rival was', 'rivals were')} timed."
    parts = ", ".join(rivals.sentence(row) for row in best.values())
    known = any(row["ratio_interval"] for row in best.values())
    ends = ", with 95 % intervals" if known else ""
    return f"{v['reference']} is {parts}: the fastest of each kind{ends}. {gate(v)}"


def gate(v: Values) -> str:
    """Whether the FS network is accurate enough for its speed to count."""
    row = next(row for row in v["rivals"] if row["name"] == v["reference"])
    share = f"{v['gate.least']:.0%} of the dense network's top-1 accuracy"
    passed = row.get("gate_passed")
    if passed is None:
        return f"Whether it keeps {share} is not known."
    return (
        f"It keeps at least {share}."
        if passed
        else f"It does not keep {share}: its speed does not count."
    )
