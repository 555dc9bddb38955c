"""How figures look: one style for all that is drawn here, whatever the user's own settings are.

matplotlib is imported when a figure is made or saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, ParamSpec

from fskernel.files import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

# Okabe and Ito's colours, which the colour-blind tell apart too.
BLUE, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
IMAGES = (BLUE, ORANGE, GREEN, PINK, SKY)  # for images that are seen at the same time
INK, GREY, PALE = "#222222", "#6B6B6B", "#D9D9D9"
SMALL = 7.5  # points: the smallest print
STYLE = {
    "figure.dpi": 200,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": "figure",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "axes.titlesize": 9,
    "axes.titlecolor": GREY,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": PALE,
    "grid.linewidth": 0.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "fskernel",  # else the same figure has other names inside every time
}
# What a file would say of the day and the program, so that the same data give the same file.
SILENT = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
Given = ParamSpec("Given")


@contextmanager
def applied() -> Iterator[None]:
    """The style, for what is drawn and saved inside; what the user has set holds again behind it.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure  # noqa: F401
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install matplotlib") from error
    with style.context(["default", STYLE]):
        yield


def styled(draw: Callable[Given, Figure]) -> Callable[Given, Figure]:
    """Decorates a function that draws a figure."""

    @wraps(draw)
    def drawn(*arguments: Given.args, **named: Given.kwargs) -> Figure:
        with applied():
            figure = draw(*arguments, **named)
            figure.draw_without_rendering()  # ticks are made now, in this style
        return figure

    return drawn


def new(width: float = 6.4, height: float = 4.0) -> Figure:
    """An empty figure of so many inches that needs neither a window nor pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def head(figure: Figure, title: str | None, facts: str) -> None:
    """The lines over a figure: what it is of, in bold print, and what it shows.

    A line of the facts is at most twice as wide as the first panel: else that is made wider.
    """
    from matplotlib.transforms import blended_transform_factory

    axes = figure.axes[0]
    if title is not None:
        wide = int(9 * figure.get_figwidth())  # characters that a line has room for
        lines = [part for line in title.splitlines() for part in wrap(line, wide)]
        figure.suptitle("\n".join(lines), x=0.01, horizontalalignment="left")
    line = axes.set_title(facts, loc="left", x=0.01)
    place = blended_transform_factory(figure.transFigure, axes.transAxes)
    line.set_transform(place + axes.titleOffsetTrans)  # begins where the title does


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure, in the format of the path's ending; the same data give the same file."""
    with applied():
        write_figure(figure, path, metadata=SILENT.get(path.suffix[1:]))
    return path


def counts(axis: Axis, bins: int | None = None) -> None:
    """Labels an axis with numbers written out, 12,000 or 0.05, in at most so many bins."""
    axis.set_major_formatter(lambda value, _: written(value))
    if bins is not None:
        axis.get_major_locator().set_params(nbins=bins)


def sparse_decades(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times the powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())


def written(value: float) -> str:
    """A number with separators and without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 9):,.9g}"


def percents(axis: Axis) -> None:
    """Labels an axis of shares, from 0 to 1, in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def spread_ticks(axes: Axes, places: Sequence[float]) -> None:
    """Ticks at the ends and at those of the places between whose labels do not run together."""
    figure = axes.figure
    axes.set_xticks(list(places), [written(place) for place in places])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    gap = 4 * figure.dpi / 72
    shown = [len(places) - 1]
    for i in range(len(places) - 2, -1, -1):
        free = boxes[i].x1 + gap < boxes[shown[-1]].x0
        if free and (i == 0 or boxes[i].x0 - gap > boxes[0].x1):
            shown.append(i)
    axes.set_xticks([places[i] for i in shown], [written(places[i]) for i in shown])


def gradient(count: int) -> list[str]:
    """So many colours in an order that is seen, dark enough for a white ground."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.72 * i / max(1, count - 1))) for i in range(count)]


def name_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """Writes a name beside each point, where it covers no other name, point or line if it can.

    Args:
        axes: whose limits are set.
        points, names: of equal number.
        lines: each from point to point, which names shall not cover.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # where points lie is known once the figure is laid out
    unit = figure.dpi / 72  # a typographic point in pixels
    window = axes.get_window_extent().extents
    centres = axes.transData.transform(points)
    drawn = [box for line in lines for box in _along(axes.transData.transform(line), unit)]
    placed = [text.get_window_extent().extents for text in axes.texts]
    for i, (point, name) in enumerate(zip(points, names, strict=True)):
        text = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=8)
        others = [_around(*centre, 15 * unit) for k, centre in enumerate(centres) if k != i]
        found = []
        for place in PLACES:
            _put(text, place)
            box = text.get_window_extent().extents
            outside = _shared(box, box) - _shared(box, window)
            covers = (sum(_shared(box, b) for b in boxes) for boxes in (placed, drawn, others))
            found.append((sum(w * c for w, c in zip((9, 3, 1), covers)) + 9 * outside, box))
        best = min(range(len(PLACES)), key=lambda k: found[k][0])
        _put(text, PLACES[best])
        placed.append(found[best][1])


# Where a name may stand: points away from what it names, right and up; the first ones if they can.
SIDES = ((1, -1), (-1, 1), (1, 1), (-1, -1), (0, -1), (0, 1), (1, 0), (-1, 0))
PLACES = [(far, right, up) for far in (5, 11, 18, 26) for right, up in SIDES]


def _put(text: Annotation, place: tuple[int, int, int]) -> None:
    far, right, up = place
    text.set_position((far * right, far * up))
    text.set_horizontalalignment({-1: "right", 0: "center", 1: "left"}[right])
    text.set_verticalalignment({-1: "top", 0: "center", 1: "bottom"}[up])


def _around(x: float, y: float, half: float) -> tuple[float, float, float, float]:
    return x - half, y - half, x + half, y + half


def _along(ends: Sequence[Sequence[float]], unit: float) -> list:
    """Small boxes (left, bottom, right, top), in pixels, that cover a line."""
    boxes = []
    for (x0, y0), (x1, y1) in zip(ends, ends[1:]):
        parts = 1 + int(math.hypot(x1 - x0, y1 - y0) / (3 * unit))
        for part in (i / parts for i in range(parts + 1)):
            boxes.append(_around(x0 + part * (x1 - x0), y0 + part * (y1 - y0), unit))
    return boxes


def _shared(a: Sequence[float], b: Sequence[float]) -> float:
    """The area that two boxes have in common."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
