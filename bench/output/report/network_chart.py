"""The chart of a network: its layers as a graph, coloured by what they cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.output.report.charts import figure, short, shown
from bench.output.tables.numbers import number

if TYPE_CHECKING:
    import plotly.graph_objects as go

Values = dict[str, Any]
ARC = 0.5  # how high a connection that passes layers by goes around them
COLOURS = "Viridis"
COLUMN, LANE = 24, 56  # pixels that a layer needs to the right, and downwards


def network(v: Values) -> go.Figure:
    """Layers from left to right by the longest path to them, with all their connections.

    The figure's `meta` names what they can be coloured by, each with a value a layer, of which the
    page shows one; and the width in pixels below which it would be crowded. With random weights
    only time means something.
    """
    import plotly.graph_objects as go

    rows, graph = {row["layer"]: row for row in v["fs.layers"]}, v["inside.graph"]
    at = places(graph)
    nodes = go.Scatter(
        x=[at[name][0] for name in rows],
        y=[at[name][1] for name in rows],
        mode="markers",
        marker={
            "size": 17,
            "line": {"width": 1, "color": "#888888"},
            "colorscale": COLOURS,
            "showscale": True,
            "colorbar": {
                "orientation": "h",
                "y": 1,
                "yanchor": "bottom",
                "x": 0,
                "xanchor": "left",
                "len": 320,
                "lenmode": "pixels",
                "thickness": 10,
            },
        },
        text=[facts(row, not v["random_weights"]) for row in rows.values()],
        hovertemplate="%{text}<extra></extra>",
    )
    first = {x: name for name, (x, y) in reversed(at.items()) if y == 0}
    return figure(
        [connections(graph, at), nodes],
        290 + LANE * deepest(at),
        meta={"colourings": colourings(v), "width": COLUMN * (1 + max(x for x, _ in at.values()))},
        margin={"l": 8, "r": 8, "t": 72, "b": 128},
        hovermode="closest",
        xaxis={
            "tickvals": sorted(first),
            "ticktext": [short(first[x]) for x in sorted(first)],
            "tickangle": -90,
            "showgrid": False,
            "zeroline": False,
        },
        yaxis={"visible": False, "range": [-0.3 - deepest(at), 0.75]},
    )


def colourings(v: Values) -> list[dict]:
    """What layers can be coloured by: a name, the title of the scale, and a value for each."""
    rows = v["fs.layers"]
    found = [("time", "milliseconds a batch", [row["milliseconds"] for row in rows])]
    if not v["random_weights"]:
        spikes = [
            row["spikes_per_image"] / row["neurons"] if row["neurons"] else None for row in rows
        ]
        found.append(("spikes", "spikes a neuron", spikes))
        errors = [row["error"] for row in rows]
        found.append(("error", "relative error against the ANN's layer", errors))
    return [{"name": name, "title": title, "values": values} for name, title, values in found]


def facts(row: Values, meaningful: bool) -> str:
    """What a layer's label says."""
    lines = [f"<b>{shown(row['layer'])}</b>", shown(row["kind"])]
    lines.append(f"{number(row['milliseconds'])} ms a batch")
    if row["neurons"]:
        lines.append(f"{number(row['neurons'])} neurons")
    if meaningful and row["neurons"]:
        lines.append(f"{row['spikes_per_image'] / row['neurons']:.3f} spikes a neuron")
    if meaningful and row["error"] is not None:
        lines.append(f"relative error {number(row['error'])}")
    return "<br>".join(lines)


def places(graph: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """Where each layer stands: its column, by the longest path to it, and its row in there.

    Args:
        graph: the layers that each layer reads, in execution order.
    """
    column: dict[str, int] = {}
    taken: Counter[int] = Counter()
    found = {}
    for name, sources in graph.items():
        column[name] = max((column[source] + 1 for source in sources), default=0)
        found[name] = (column[name], -taken[column[name]])
        taken[column[name]] += 1
    return found


def deepest(at: dict[str, tuple[int, int]]) -> int:
    """How many rows there are below the first."""
    return -min(y for _, y in at.values())


def connections(graph: dict[str, list[str]], at: dict[str, tuple[int, int]]) -> go.Scatter:
    """Lines; those between layers of the first row that pass others by go around them."""
    import plotly.graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    for name, sources in graph.items():
        for source in sources:
            (left, low), (right, high) = at[source], at[name]
            detour = right - left > 1 and low == high
            x += [left, *([(left + right) / 2] if detour else []), right, None]
            y += [low, *([low + ARC] if detour else []), high, None]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"shape": "spline", "width": 1.5, "color": "#888888"},
        hoverinfo="skip",
    )
