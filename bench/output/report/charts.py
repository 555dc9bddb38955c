"""The charts of one run, as figures of plotly.

A figure says what is drawn, and nothing of colours where it can: the page gives it a theme, light
or dark, see themes.py. Names of layers and networks go through `shown`, because plotly reads some
HTML in texts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.output.tables.numbers import number, rounded

if TYPE_CHECKING:
    import plotly.graph_objects as go

Values = dict[str, Any]
OFF_THE_SCALE = 12  # times the fastest: who is slower would make the bars of the others dots
LONGEST = 16  # characters of a layer's name on an axis
LABELS = 24  # layers that are named on an axis
ROW = 44  # pixels of a bar
GREY = "#888888"  # of lines that are no measurement, on light and dark ground
UPRIGHT = [0, 90]  # degrees of numbers on an axis, where they have room and where not
# The ticks of a logarithmic axis in a decade, by how many times the largest value is the smallest.
TICKS = ((30, (1, 2, 5)), (1000, (1, 3)), (math.inf, (1,)))


def shown(text: str) -> str:
    """A text in which plotly finds no HTML."""
    return html.escape(text, quote=False)


def short(name: str) -> str:
    """A layer's name for an axis: its end, which tells it from others, stays."""
    return shown(name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}")


def figure(traces: Sequence, height: int, **layout: Any) -> go.Figure:
    """A figure with what all of them have."""
    import plotly.graph_objects as go

    fixed = {"height": height, "margin": {"l": 8, "r": 16, "t": 16, "b": 48}, "showlegend": False}
    return go.Figure(traces, fixed | layout)


def log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis that holds these values, with so many ticks as a phone has room for."""
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = next(steps for reach, steps in TICKS if high / low <= reach)
    ticks = [float(f"{n}e{decade}") for decade in decades for n in steps]
    return {
        "type": "log",
        "title": title,
        "tickvals": ticks,
        "ticktext": [f"{tick:,g}" for tick in ticks],
        "range": [math.log10(low) - 0.08, math.log10(high) + 0.08],
    }


def times(v: Values) -> list[tuple[str, float, list[float] | None]]:
    """Of the networks of a run: name, milliseconds an image, and the quartiles where known."""
    found = []
    for name, key in (("dense network (ANN), fp32", "ann"), (f"Few Spikes, K={v['K']}", "fs")):
        slow, fast = v[f"{key}.images_per_s_iqr"]
        middle = 1000 / v[f"{key}.images_per_s"]
        found.append((name, middle, [1000 / fast, 1000 / slow]))
    if v["rate.T"] is not None:
        equal = v["rate.equal_T"]
        speed = v["rate.equal_images_per_s"] if equal else v["rate.images_per_s"]
        found.append((f"rate coding, T={equal or v['rate.T']}", 1000 / speed, None))
    return found


def raced(race: Values) -> list[tuple[str, float, list[float] | None]]:
    """The same of a race of runtimes, the fastest first."""
    rows = [(name, t["median"], t["quartiles"]) for name, t in race["milliseconds"].items()]
    return sorted(rows, key=lambda row: row[1])


def off_the_scale(rows: Sequence[tuple]) -> tuple[list[tuple], list[tuple]]:
    """Those that a linear scale can show together, and those that are too slow for it."""
    most = OFF_THE_SCALE * min(row[1] for row in rows)
    return [row for row in rows if row[1] <= most], [row for row in rows if row[1] > most]


def bars(rows: Sequence[tuple[str, float, list[float] | None]]) -> go.Figure:
    """Milliseconds an image as bars, with the quartiles as whiskers; Few Spikes in its colour."""
    import plotly.graph_objects as go

    labels = []
    for name, middle, quartiles in rows:
        between = f" ({rounded(quartiles[0])}–{rounded(quartiles[1])})" if quartiles else ""
        labels.append(f"{shown(name)}<br><b>{rounded(middle)} ms</b>{between}")
    traces = []
    for ours in (False, True):
        own = [i for i, row in enumerate(rows) if row[0].startswith(("FS", "Few Spikes")) == ours]
        spread = [rows[i][2] or [rows[i][1]] * 2 for i in own]
        traces.append(
            go.Bar(
                x=[rows[i][1] for i in own],
                y=[labels[i] for i in own],
                orientation="h",
                hoverinfo="skip",
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - rows[i][1] for i, (_, high) in zip(own, spread)],
                    "arrayminus": [rows[i][1] - low for i, (low, _) in zip(own, spread)],
                },
            )
        )
    return figure(
        traces,
        ROW * len(rows) + 64,
        barmode="overlay",
        bargap=0.35,
        xaxis={"title": "ms an image", "rangemode": "tozero", "autotickangles": UPRIGHT},
        yaxis={
            "categoryorder": "array",
            "categoryarray": labels[::-1],
            "automargin": True,
            "showgrid": False,
        },
    )


def answers_over_time(v: Values) -> go.Figure:
    """The share of right answers of rate coding over its time steps, Few Spikes, and the gate."""
    import plotly.graph_objects as go

    curve = v["rate.curve"]
    T = [row["T"] for row in curve]
    low, high = (list(ends) for ends in zip(*(row["share_interval"] for row in curve)))
    known = v["accuracy.rate_ann"] is not None
    reach = [*T, v["fs.latency_steps"]]
    # In the order of their colours: dense, Few Spikes, rate coding.
    traces = [
        gate_line([min(reach), max(reach)], v["accuracy.rate_ann"] if known else None, v),
        go.Scatter(
            x=[v["fs.latency_steps"]],
            y=[v["rate.curve_fs"]],
            mode="markers",
            marker={"size": 13, "symbol": "diamond"},
            name=f"Few Spikes, K={v['K']}",
            zorder=1,
        ),
        go.Scatter(x=T, y=[row["share"] for row in curve], mode="lines", name="rate coding"),
        go.Scatter(x=T, y=low, mode="lines", line_width=0, showlegend=False, hoverinfo="skip"),
        go.Scatter(
            x=T,
            y=high,
            mode="lines",
            line_width=0,
            fill="tonexty",
            fillcolor="rgba(120, 120, 120, 0.25)",
            name="95 % interval",
            hoverinfo="skip",
        ),
    ]
    return figure(
        traces,
        360,
        showlegend=True,
        legend=BELOW,
        xaxis=log_axis("time steps until the answer", reach),
        yaxis={
            "title": "top-1 accuracy" if known else "same answer as the ANN",
            "tickformat": ".0%",
            "rangemode": "tozero",
            "automargin": True,
        },
    )


BELOW = {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"}


def gate_line(x: Sequence[float], ann: float | None, v: Values) -> go.Scatter:
    """The accuracy that a network has to keep, between two x; nothing where the ANN has none."""
    import plotly.graph_objects as go

    least = v["gate.least"]
    return go.Scatter(
        x=list(x),
        y=[None if ann is None else least * ann] * len(x),
        mode="lines",
        line={"dash": "dash", "width": 2},
        name=f"gate: {least:.0%} of the ANN's",
        showlegend=ann is not None,
    )


def raster(v: Values) -> go.Figure:
    """The spikes of some neurons of each layer over the time steps from the image to the logits."""
    import plotly.graph_objects as go

    base, names = 0, {}
    points: list[tuple[list, list, list]] = [([], [], []), ([], [], [])]  # layers in turn
    for i, row in enumerate(v["inside.raster"]):
        x, y, text = points[i % 2]
        for neuron, word in enumerate(row["words"]):
            for t in range(row["K"]):
                if word >> (row["K"] - 1 - t) & 1:
                    x.append(row["first"] + t)
                    y.append(base + neuron)
                    text.append(shown(row["layer"]))
        names[base + len(row["words"]) / 2] = short(row["layer"])
        base += len(row["words"])
    ticks = apart(list(names), base / LABELS)
    last = v["fs.latency_steps"]
    dash = min(9.0, max(2.0, 500 / last))  # pixels: about a time step
    traces = [
        go.Scatter(
            x=x,
            y=y,
            text=text,
            mode="markers",
            marker={"symbol": "line-ew-open", "size": dash, "line": {"width": 2}},
            hovertemplate="%{text}<br>time step %{x}<extra></extra>",
        )
        for x, y, text in points
    ]
    return figure(
        traces,
        560,
        xaxis={
            "title": "time step since the image",
            "range": [0.5, last + 0.5],
            "dtick": v["K"] * max(1, round(v["fs.depth"] / 8)),
            "tick0": 0,
        },
        yaxis={
            "tickvals": ticks,
            "ticktext": [names[tick] for tick in ticks],
            "range": [-0.5, base - 0.5],
            "automargin": True,
            "showgrid": False,
        },
    )


def apart(places: Sequence[float], least: float) -> list[float]:
    """Of ascending places those that are far enough from the one taken before."""
    taken: list[float] = []
    for place in places:
        if not taken or place - taken[-1] >= least:
            taken.append(place)
    return taken


def energy(v: Values) -> go.Figure:
    """What an image costs as ANN and as FS network, by three estimates, on one axis."""
    import plotly.graph_objects as go

    estimates = v["energy.estimates"]
    names = [one["title"].replace(", ", ",<br>") for one in estimates]
    found = {
        network: [v[f"energy.{one['name']}_{network}_uj"] for one in estimates]
        for network in ("ann", "fs")
    }
    x, y = [], []
    for name, ann, fs in zip(names, found["ann"], found["fs"]):
        x += [ann, fs, None]
        y += [name, name, None]
    titles = {"ann": "dense network (ANN)", "fs": f"Few Spikes, K={v['K']}"}
    dots = [
        go.Scatter(
            x=found[network],
            y=names,
            mode="markers",
            marker={"size": 14, "symbol": symbol},
            name=titles[network],
            text=[number(value) for value in found[network]],
            hovertemplate="%{text} µJ<extra>" + titles[network] + "</extra>",
        )
        for network, symbol in (("ann", "circle"), ("fs", "diamond"))
    ]
    between = go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"width": 2, "color": GREY},
        hoverinfo="skip",
        showlegend=False,
    )
    return figure(
        [*dots, between],
        70 * len(names) + 120,
        showlegend=True,
        legend=BELOW | {"y": -0.3},
        xaxis=log_axis("µJ an image, at 45 nm", [*found["ann"], *found["fs"]]),
        yaxis={"range": [len(names) - 0.5, -0.5], "automargin": True, "showgrid": False},
    )
