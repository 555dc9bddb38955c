"""Makes report.html of experiment=scaling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.output.report import tables
from bench.output.report.charts import BELOW, GREY, UPRIGHT, figure, log_axis, shown
from bench.output.report.page import render
from bench.output.tables.comparison import Comparison
from bench.output.tables.scaling import drawn, logarithmic

if TYPE_CHECKING:
    import plotly.graph_objects as go

Values = dict[str, Any]


def write(v: Values, made: Comparison, directory: Path) -> Path:
    """Writes the report beside the results.

    Args:
        v: the values of the record. made: its table. directory: where results.json is.
    """
    figures = {f"axis_{i}": chart(one) for i, one in enumerate(v["axes"])}
    given = {
        "v": v,
        "axes": [(f"axis_{i}", one["title"]) for i, one in enumerate(v["axes"])],
        "title": made.title,
        "rows": (made.head, made.rows),
        "settings": tables.settings(v),
        "environment": tables.environment(v),
    }
    return render("scaling.html.jinja", v, figures, given, directory)


def chart(one: Values) -> go.Figure:
    """Milliseconds an image along an axis, a line for each rival, quartiles as whiskers."""
    import plotly.graph_objects as go

    traces = []
    for name in dict.fromkeys(row["name"] for row in one["rows"]):
        line = [row for row in one["rows"] if row["name"] == name]
        y = [row["ms"] for row in line]
        ends = [row["ms_quartiles"] for row in line]
        traces.append(
            go.Scatter(
                x=[row["value"] for row in line],
                y=y,
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - ms for ms, (_, high) in zip(y, ends)],
                    "arrayminus": [ms - low for ms, (low, _) in zip(y, ends)],
                },
                mode="lines+markers",
                name=shown(name),
            )
        )
    least = {row["value"]: row["products_ms"] for row in one["rows"] if row["products_ms"]}
    if least:
        traces.append(
            go.Scatter(
                x=list(least),
                y=list(least.values()),
                mode="lines",
                line={"dash": "dash", "color": GREY},
                name="products alone, at the registers' peak",
            )
        )
    scale = {"title": "ms an image", "rangemode": "tozero"}
    if logarithmic(one):
        scale = log_axis("ms an image, logarithmic", drawn(one))
    return figure(
        traces,
        380 + 22 * len(traces),
        showlegend=True,
        legend=BELOW | {"orientation": "v"},
        xaxis={
            "title": shown(one["title"]),
            "tickvals": sorted({row["value"] for row in one["rows"]}),
            "autotickangles": UPRIGHT,
        },
        yaxis=scale | {"automargin": True},
    )
