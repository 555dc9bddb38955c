"""The figures of experiment=rivals and experiment=scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.output.tables.numbers import count, rounded
from bench.output.tables.scaling import logarithmic
from fskernel.analysis import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = dict[str, Any]
COLOURS = {
    "few spikes": style.BLUE,
    "float": style.GREY,
    "integers": style.GREEN,
    "one by one": style.PINK,
    "rate coding": style.ORANGE,
}
COLUMNS = 3  # of panels


@style.styled
def rivals(v: Values) -> Figure:
    """Milliseconds an image of everyone who was timed, the fastest at the top."""
    timed = sorted((row for row in v["rivals"] if "ms" in row), key=lambda row: -row["ms"])
    figure = style.new(7.0, 1.6 + 0.26 * len(timed))
    axes = figure.subplots()
    for at, row in enumerate(timed):
        low, high = row["ms_quartiles"]
        colour = COLOURS[row["kind"]]
        axes.plot([low, high], [at, at], color=colour, linewidth=5, alpha=0.4)
        axes.plot(row["ms"], at, "o", color=colour)
        axes.annotate(
            f"{rounded(row['ms'])} ms",
            (high, at),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=style.SMALL,
        )
    axes.set_yticks(range(len(timed)), [row["name"] for row in timed])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:,g}")
    axes.margins(x=0.15)
    axes.set_xlabel("ms an image, logarithmic")
    axes.grid(axis="y", visible=False)
    handles = [
        axes.plot([], [], "o", color=colour, label=kind)[0]
        for kind, colour in COLOURS.items()
        if any(row["kind"] == kind for row in timed)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    place = v["machine"].get("gpu") or f"{count(v['threads'], 'thread')} of {v['machine']['cpu']}"
    height, width = v["input"]
    style.head(
        figure,
        f"{v['model']} in other runtimes and simulators",
        f"{height}x{width} pixels, batch {v['batch']}, {place}.\n"
        "Medians and quartiles of rounds in one process.",
    )
    return figure


@style.styled
def scaling(v: Values) -> Figure:
    """Milliseconds an image along each axis, a panel an axis and a line a rival."""
    axes = v["axes"]
    rows = -(-len(axes) // COLUMNS)
    figure = style.new(9.5, 1.4 + 2.4 * rows)
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    names = list(dict.fromkeys(row["name"] for one in axes for row in one["rows"]))
    colours = dict(zip(names, _colours(len(names))))
    for panel, one in zip(panels, axes):
        for name in names:
            line = [row for row in one["rows"] if row["name"] == name]
            if not line:
                continue
            x, colour = [row["value"] for row in line], colours[name]
            low, high = zip(*(row["ms_quartiles"] for row in line))
            panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            panel.plot(x, [row["ms"] for row in line], "o-", color=colour, label=name)
        least = {row["value"]: row["products_ms"] for row in one["rows"] if row["products_ms"]}
        if least:
            panel.plot(
                list(least),
                list(least.values()),
                "--",
                color=style.INK,
                label="FS: the products alone, at the registers' peak",
            )
        panel.set_xlabel(one["title"])
        _scale(panel, one)
        style.spread_ticks(panel, sorted({row["value"] for row in one["rows"]}))
    for panel in panels[len(axes) :]:
        panel.remove()
    found: dict[str, Any] = {}
    for panel in panels[: len(axes)]:
        handles, texts = panel.get_legend_handles_labels()
        found |= dict(zip(texts, handles))
    figure.legend(found.values(), found.keys(), loc="outside lower left", ncols=2)
    place = v["machine"].get("gpu") or v["machine"]["cpu"]
    height, width = v["input"]
    style.head(
        figure,
        f"How the time of {v['model']} grows",
        f"K={v['K']}, {height}x{width} pixels, batch {v['batch']} and "
        f"{count(v['threads'], 'thread')} where the axis says nothing else.\n"
        f"Median and quartiles; {place}, kernels {v['fs.isa']}",
    )
    return figure


def _scale(panel: Axes, one: Values) -> None:
    """The axis of times: from zero, or logarithmic where slow rivals would hide the others."""
    if logarithmic(one):
        panel.set_yscale("log")
        style.sparse_decades(panel.yaxis)
        style.counts(panel.yaxis)
        panel.set_ylabel("ms an image, logarithmic")
    else:
        panel.set_ylim(bottom=0)
        panel.set_ylabel("ms an image")


def _colours(n: int) -> Sequence[str]:
    return [style.IMAGES[i % len(style.IMAGES)] for i in range(n)]
