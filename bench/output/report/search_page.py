"""Makes report.html of a search for the fewest time steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.output.report import tables
from bench.output.report.charts import BELOW, figure, gate_line, shown
from bench.output.report.page import render
from bench.output.tables.comparison import Cell
from bench.output.tables.numbers import (
    count,
    hundredths,
    interval,
    number,
    rounded,
    two_digits,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

Values = dict[str, Any]
SHARES = (("same answer, %", "agreement"), ("top-1, %", "top1"))


def write(v: Values, directory: Path) -> Path:
    """Writes the report of a search beside its results; with random weights only what is exact.

    Args:
        v: the values of a complete record. directory: where its results.json is.
    """
    figures = {} if v["random_weights"] else {"pareto": pareto(v)}
    given = {
        "v": v,
        "said": sentence(v),
        "rows": rows(v),
        "environment": tables.environment(v),
    }
    return render("search.html.jinja", v, figures, given, directory)


def sentence(v: Values) -> str:
    """What was found."""
    K = v["search.K"]
    found = f"K={K} for all layers" if isinstance(K, int) else "a K for each layer"
    chosen = next(row for row in v["search.rows"] if row["K"] == K)
    steps = f"{number(chosen['latency_steps'])} time steps to an answer"
    if v["random_weights"]:
        return (
            f"The weights are random, so that the search means nothing. It took {found}, {steps}."
        )
    return (
        f"The fewest time steps with {v['search.criterion']} within {v['search.budget']:g} are "
        f"{found}: {steps}, {number(chosen['spikes_per_image'])} spikes an image, the dense "
        f"network's answer on {hundredths(chosen['agreement'])} % of "
        f"{count(v['search.images'], 'calibration image')}."
    )


def rows(v: Values) -> tuple[list[str], list[list[Cell]]]:
    """Every setting that was tried: the columns' names, and cells that can be sorted."""
    head, found = [], []
    for row in v["search.rows"]:
        chosen = " (chosen)" if row["K"] == v["search.K"] else ""
        cells = {"setting": Cell(row["label"] + chosen, row["label"])}
        if not v["random_weights"]:
            for title, key in SHARES:
                text = interval(row[key], row[f"{key}_interval"], hundredths)
                cells[title] = Cell(text, row[key])
            cells["logit error"] = Cell(two_digits(row["logit_error"]), row["logit_error"])
            cells["spikes an image"] = Cell(
                number(row["spikes_per_image"]), row["spikes_per_image"]
            )
        for title, key in (
            ("latency, steps", "latency_steps"),
            ("interval, steps", "interval_steps"),
        ):
            cells[title] = Cell(number(row[key]), row[key])
        cells["images/s"] = Cell(rounded(row["images_per_s"]), row["images_per_s"])
        head = list(cells)
        found.append(list(cells.values()))
    kept = [i for i in range(len(head)) if any(row[i].value is not None for row in found)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in found]


def pareto(v: Values) -> go.Figure:
    """The share of answers over spikes, of every setting, the one that was chosen, and the gate."""
    import plotly.graph_objects as go

    labelled = v["search.ann_top1"] is not None
    key = "top1" if labelled else "agreement"
    traces = []
    for chosen, name, symbol in ((False, "tried", "circle"), (True, "chosen", "diamond")):
        own = [row for row in v["search.rows"] if (row["K"] == v["search.K"]) == chosen]
        spread = [(row[f"{key}_interval"], row[key]) for row in own]
        traces.append(
            go.Scatter(
                x=[row["spikes_per_image"] for row in own],
                y=[row[key] for row in own],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - middle for (_, high), middle in spread],
                    "arrayminus": [middle - low for (low, _), middle in spread],
                },
                mode="markers",
                marker={"size": 13 if chosen else 9, "symbol": symbol},
                name=name,
                text=[shown(row["label"]) for row in own],
                hovertemplate="%{text}: %{y}<extra></extra>",
            )
        )
    if labelled:
        spikes = [row["spikes_per_image"] for row in v["search.rows"]]
        traces.append(gate_line([min(spikes), max(spikes)], v["search.ann_top1"], v))
    return figure(
        traces,
        400,
        showlegend=True,
        legend=BELOW,
        xaxis={"title": "spikes an image", "nticks": 6},
        yaxis={
            "title": "top-1 accuracy" if labelled else "same answer as the ANN",
            "tickformat": ".1%",
            "automargin": True,
        },
    )
