"""The charts of a series of runs: accuracy, spikes and time over K, or run by run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.output.report.charts import BELOW, bars, figure, gate_line, shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

Values = dict[str, Any]
Point = tuple[float, list[float] | None]


class Run(NamedTuple):
    """A run by what tells it from the others, and what its results.json holds."""

    label: str
    values: Values


def figures(runs: Sequence[Run]) -> dict[str, go.Figure]:
    """Accuracy or agreement, spikes and time over K, as far as they mean something.

    Where all runs have one K: their times as bars.
    """
    if len({run.values["K"] for run in runs}) == 1:
        return {"times": bars([(f"FS {run.label}", *milliseconds(run.values)) for run in runs])}
    found = {}
    meaningful = [run for run in runs if not run.values["random_weights"]]
    if meaningful:
        labelled = all(run.values["accuracy.fs"] is not None for run in meaningful)
        of, title = ("fs", "top-1 accuracy") if labelled else ("agreement", "the ANN's answer")
        found["accuracy_over_k"] = over_K(
            meaningful, lambda v: (v[f"accuracy.{of}"], v[f"accuracy.{of}_interval"]), title, ".0%"
        )
        if labelled:
            add_gates(found["accuracy_over_k"], meaningful)
        found["spikes_over_k"] = over_K(
            meaningful, lambda v: (v["fs.spikes_per_image"], None), "spikes an image"
        )
    found["time_over_k"] = over_K(runs, milliseconds, "milliseconds an image")
    return found


def milliseconds(v: Values) -> Point:
    """Of an image, and the quartiles."""
    slow, fast = v["fs.images_per_s_iqr"]
    return 1000 / v["fs.images_per_s"], [1000 / fast, 1000 / slow]


def over_K(
    runs: Sequence[Run], value: Callable[[Values], Point], title: str, form: str | None = None
) -> go.Figure:
    """One quantity over K, a line for runs that differ in K alone; whiskers where there are ends.

    Args:
        runs: what is drawn.
        value: of a run's values, and the ends of its interval.
        title: of the quantity. form: of its ticks, as d3 writes it.
    """
    import plotly.graph_objects as go

    lines: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.values["K"]):
        rest = re.sub(r"(^| )(neuron\.)?K=\d+", "", run.label).strip()
        lines.setdefault(rest, []).append(run)
    traces = []
    for name, line in lines.items():
        points = [value(run.values) for run in line]
        ends = [interval or [middle] * 2 for middle, interval in points]
        traces.append(
            go.Scatter(
                x=[run.values["K"] for run in line],
                y=[middle for middle, _ in points],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - middle for (middle, _), (_, high) in zip(points, ends)],
                    "arrayminus": [middle - low for (middle, _), (low, _) in zip(points, ends)],
                },
                mode="lines+markers",
                marker={"size": 9},
                name=shown(name) or "Few Spikes",
                text=[shown(run.label) for run in line],
                hovertemplate="%{text}: %{y}<extra></extra>",
            )
        )
    return figure(
        traces,
        360 + 22 * len(traces),
        showlegend=len(traces) > 1,
        legend=BELOW | {"orientation": "v"},
        xaxis={"title": "K, time steps of a neuron", "dtick": 1},
        yaxis={
            "title": title,
            "automargin": True,
            "tickformat": form,
            "rangemode": "normal" if form else "tozero",  # a share is compared with the gate
        },
    )


def add_gates(drawn: go.Figure, runs: Sequence[Run]) -> None:
    """Draws the accuracy that has to be kept, once for every dense network among the runs."""
    K = [run.values["K"] for run in runs]
    for ann, v in {run.values["accuracy.ann"]: run.values for run in runs}.items():
        drawn.add_trace(gate_line([min(K), max(K)], ann, v))
    drawn.update_layout(showlegend=True)
