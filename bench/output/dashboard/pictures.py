"""What the panels show, drawn from runs that were logged: for the documentation.

Panels of times are left out, which would differ at every drawing, and so are tables and images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.output.dashboard.sections import SECTIONS, Panel, Section
from bench.output.loggers.interface import metric
from bench.output.loggers.wandb_file import Logged
from bench.output.terminal import number
from fskernel.analysis import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIMED = ("milliseconds/", "ratio/", "layers/milliseconds", "over_K/fs/images_per_s", "machine/")
DRAWN = {"bars", "line"}
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PINK)
SHARES = ("accuracy", "gate", "share")


def pictures(runs: Sequence[Logged]) -> dict[str, Figure]:
    """A figure for each section that has something to draw, by the name of its file.

    Args:
        runs: of one project, in the order of the legend; the curves of their series among them.
    """
    found = {}
    for section in SECTIONS:
        panels = [panel for panel in section.panels if drawable(panel)]
        if panels:
            name = section.title.lower().removeprefix("the ").replace(" ", "_")
            found[f"dashboard_{name}"] = picture(section, panels, runs)
    return found


def drawable(panel: Panel) -> bool:
    """Whether it is drawn here."""
    return panel.kind in DRAWN and not any(key.startswith(TIMED) for key in panel.keys)


@style.styled
def picture(section: Section, panels: Sequence[Panel], runs: Sequence[Logged]) -> Figure:
    """The panels of a section, two in a row."""
    rows = -(-len(panels) // 2)
    figure = style.new(8, 0.7 + 2.9 * rows)
    places = figure.subplots(rows, 2, squeeze=False).flat
    for panel, axes in zip(panels, places):
        {"bars": bars, "line": lines}[panel.kind](axes, panel, runs)
        axes.text(0, 1.03, panel.title, transform=axes.transAxes, weight="bold")
    for axes in list(places)[len(panels) :]:
        axes.set_axis_off()
    names = ", ".join(run.name.rpartition(" ")[0] for run in runs if run.job_type != "curve")
    style.head(figure, f"Dashboard: {section.title}", f"{names}\n")  # a line for the panels' titles
    return figure


def bars(axes: Axes, panel: Panel, runs: Sequence[Logged]) -> None:
    """The last value of each key, a bar for each run."""
    shown = [(run, key) for key in panel.keys for run in runs if run.summary.get(key) is not None]
    labels = [f"{key}, K={run.summary['K']}" for run, key in shown]
    colours = [COLOURS[panel.keys.index(key)] for _, key in shown]
    drawn = axes.barh(labels, [run.summary[key] for run, key in shown], color=colours)
    texts = [number(run.summary[key]) for run, key in shown]
    axes.bar_label(drawn, texts, padding=2, fontsize=style.SMALL)
    style.counts(axes.xaxis, 4)
    axes.invert_yaxis()
    axes.margins(x=0.2)


def lines(axes: Axes, panel: Panel, runs: Sequence[Logged]) -> None:
    """Each key over the axis, a line for each run that has it."""
    several = len(panel.keys) > 1
    for i, key in enumerate(panel.keys):
        for j, run in enumerate(runs):
            x, y = run.curve(panel.axis, key)
            if not x:
                continue
            points = sorted(zip(x, y))
            label = key.partition("/")[2] if several else run.name.rpartition(" ")[0]
            colour = COLOURS[(i if several else j) % len(COLOURS)]
            axes.plot(*zip(*points), "o-", ms=3, color=colour, label=label)
    if panel.log:
        axes.set_xscale("log")
        style.sparse_decades(axes.xaxis)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    style.counts(axes.xaxis)
    if any(part in metric(key) for key in panel.keys for part in SHARES):
        style.percents(axes.yaxis)
    else:
        style.counts(axes.yaxis)
    axes.margins(y=0.15)  # for the legend
    axes.set_xlabel(panel.axis)
    axes.legend()
