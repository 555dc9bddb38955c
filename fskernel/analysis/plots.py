"""Figures of spikes, words and neurons, and of what K buys; every function returns a Figure.

They need matplotlib (pip install matplotlib), which is imported when a figure is made. Figures do
not depend on pyplot, so there is no window and no state: `figure.savefig("spikes.png")`, or .svg,
or .pdf; a notebook shows what a cell returns. They look alike whatever rcParams say, and leave
those as they are. `title` is what stands over a figure in bold print, such as the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fskernel.analysis import style
from fskernel.codes.neuron import FSNeuron, check_K, check_words
from fskernel.network import schedule
from fskernel.network.stats import RunStats
from fskernel.spikes import FittedSpikes, SpikeTensor, decode, encode
from fskernel.timeline.schedule_run import ScheduleRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fskernel.network.network import FSNetwork

AXES = {
    "spikes_per_image": "spikes/image",
    "latency_steps": "latency, time steps",
    "images_per_s": "images/s",
    "agreement": "same answer as the ANN",
    "top1": "top-1 accuracy",
    "logit_error": "relative logit error",
}
SHARES = ("agreement", "top1")
LESS_IS_BETTER = ("spikes_per_image", "latency_steps", "logit_error")


@style.styled
def raster(
    spikes: SpikeTensor | FittedSpikes,
    image: int = 0,
    every: int = 1,
    *,
    title: str | None = None,
) -> Figure:
    """The spikes of one layer over its K time steps: a point for each.

    Args:
        spikes: of one layer, images first, e.g. `stats.recorded[name]` of `net.run(record=...)`.
        image: whose.
        every: show every nth neuron.
        title: see the module.

    Returns:
        A figure with the time step to the right, 1..K, and the neurons upwards, from 0 in the order
        of the words' dimensions (channel, row, column). The axis at the top has the threshold of
        each step: it halves from one to the next, but for fitted neurons.

    Raises:
        TypeError: spikes is no SpikeTensor and no FittedSpikes.
        IndexError: there is no such image.
        ValueError: every < 1.
    """
    _check_every(every)
    steps, neurons = _points(spikes, image)
    neuron, count = spikes.neuron, spikes.words[image].numel()
    drawn = neurons % every == 0
    figure = style.new()
    axes = figure.subplots()
    size = min(7.0, max(1.0, 120 * every / max(count, 1)))
    axes.plot(steps[drawn], neurons[drawn], "s", markersize=size, color=style.BLUE)
    axes.set(
        xlim=(0.5, neuron.K + 0.5),
        ylim=(-0.5 * every, count - 0.5 * every),
        xticks=range(1, neuron.K + 1),
        xlabel="time step",
        ylabel="neuron",
    )
    axes.yaxis.get_major_locator().set_params(integer=True)
    style.counts(axes.yaxis)
    top = axes.secondary_xaxis("top")
    if isinstance(spikes, FittedSpikes):
        numbers = neuron.thresholds
    else:
        numbers = [neuron.alpha / 2**step for step in range(1, neuron.K + 1)]
    thresholds = [f"{number:.3g}" for number in numbers]
    top.set_xticks(range(1, neuron.K + 1), thresholds, fontsize=style.SMALL)
    top.set_xlabel("threshold of the step", fontsize=8)
    facts = f"One image, K={neuron.K}: {len(steps):,} spikes of {count:,} neurons"
    style.head(figure, title, facts + _left_out(every))
    return figure


@style.styled
def latency_raster(
    net: FSNetwork, stats: RunStats, image: int = 0, every: int = 1, *, title: str | None = None
) -> Figure:
    """The spikes of all recorded layers over the time steps from an image to its logits.

    A layer fires for its K steps once the layers it reads have fired, so with one K for all it is
    in the steps `(d - 1)*K + 1` to `d*K`, where d layers of neurons are on the longest path to it,
    itself counted; the readout takes the last K, which are shaded.

    Args:
        net: the network. stats: of `net.run(images, record="all")`, or of some layers.
        image: whose spikes.
        every: show every nth neuron of each layer, so that big networks can be drawn.
        title: see the module.

    Returns:
        A figure with the time steps to the right and the neurons upwards, layer over layer in
        execution order, each layer in a colour of its own.

    Raises:
        ValueError: nothing is recorded, other layers than the network's are, or every < 1.
        IndexError: there is no such image.
    """
    _check_every(every)
    if not stats.recorded:
        raise ValueError('stats holds no recorded spikes: use net.run(images, record="all")')
    ends = schedule.ends(net.steps)
    foreign = [name for name in stats.recorded if name not in ends]
    if foreign:
        raise ValueError(f"stats has a layer '{foreign[0]}', which net has not: give its own stats")
    figure = style.new(8.0, 5.2)
    axes = figure.subplots()
    last = net.latency_steps
    counts = {name: prod(spikes.shape[1:]) for name, spikes in stats.recorded.items()}
    rows = sum(-(-count // every) for count in counts.values())
    # A spike is a dash as wide and high as its cell, in points, but for what cannot be seen.
    dash = {"markersize": max(1.0, 430 / last), "markeredgewidth": max(0.9, 290 / rows)}
    colours = style.gradient(len(counts))
    base, total, middles = 0, 0, {}
    for colour, (name, spikes) in zip(colours, stats.recorded.items(), strict=True):
        steps, neurons = _points(spikes, image)
        shown = neurons % every == 0
        steps = steps[shown] + ends[name] - spikes.neuron.K
        axes.plot(steps, base + neurons[shown] // every, "_", color=colour, **dash)
        drawn = -(-counts[name] // every)
        middles[base + drawn / 2] = name, colour
        base, total = base + drawn, total + len(neurons)
    heard = max(ends[name] for name in net.steps[-1].sources)
    axes.axvspan(heard + 0.5, last + 0.5, color=style.PALE, alpha=0.5, linewidth=0)
    axes.text(
        (heard + last + 1) / 2,
        rows * 0.98,
        "readout",
        rotation=90,
        ha="center",
        va="top",
        fontsize=8,
    )
    axes.set_xticks(range(0, last + 1, net.K * max(1, round(net.depth / 10))))
    axes.set(
        xlim=(0.5, last + 0.5),
        ylim=(-0.5, rows - 0.5),
        xlabel=f"time step ({net.depth} layers x K={net.K}, the last one the readout)",
        ylabel="neurons, layer over layer",
    )
    axes.grid(False, axis="y")
    facts = f"One image, K={net.K}: {total:,} spikes of {sum(counts.values()):,} neurons"
    style.head(figure, title, facts + _left_out(every))
    _name_layers(axes, middles, rows / 34)
    return figure


@style.styled
def pipeline_raster(run: ScheduleRun, every: int = 1, *, title: str | None = None) -> Figure:
    """The spikes of images that follow each other through a network, over global time.

    Args:
        run: of `fskernel.schedule`.
        every: show every nth neuron of each layer, so that big networks can be drawn.
        title: see the module.

    Returns:
        A figure with the time steps to the right, from the entry of the first image, and the
        neurons upwards, layer over layer in execution order. Every image has a colour. The bars at
        the top are the readout, which listens to an image and then is read out.

    Raises:
        TypeError: run is no ScheduleRun.
        ValueError: every < 1.
    """
    if not isinstance(run, ScheduleRun):
        raise TypeError(f"run is a {type(run).__name__}: give what fskernel.schedule returns")
    _check_every(every)
    readout = list(run.windows.values())[-1]
    drawn = {name: -(-count // every) for name, count in run.neurons.items()}
    rows, last = sum(drawn.values()), readout[-1].last
    figure = style.new(8.0, 5.2)
    axes = figure.subplots()
    dash = {"markersize": max(1.0, 430 / last), "markeredgewidth": max(0.9, 290 / rows)}
    colours = [style.IMAGES[i % len(style.IMAGES)] for i in range(len(readout))]
    base, middles = 0, {}
    for name, spikes in run.spikes.items():
        shown = spikes[spikes[:, 2] % every == 0]
        for image, colour in enumerate(colours):
            steps, _, neurons = shown[shown[:, 1] == image].T
            axes.plot(steps, base + neurons // every, "_", color=colour, **dash)
        middles[base + drawn[name] / 2] = name, style.GREY
        base += drawn[name]
    high = rows / 30
    for window, colour in zip(readout, colours, strict=True):
        width = window.last - window.first + 1
        axes.barh(
            rows + high, width, high, window.first - 0.5, color=colour, alpha=0.5, align="edge"
        )
    axes.set(
        xlim=(-0.5, last + 0.5),
        ylim=(-0.5, rows + 2.5 * high),
        xlabel="time step from the entry of the first image",
        ylabel="neurons, layer over layer",
    )
    axes.set_xticks(range(0, last + 1, run.interval_steps * (1 + last // run.interval_steps // 16)))
    axes.grid(False, axis="y")
    middles[rows + 1.5 * high] = list(run.windows)[-1], style.GREY
    labels = [f"image {i}" for i in range(min(len(colours), len(style.IMAGES)))]
    handles = [axes.plot([], [], "s", color=colour)[0] for colour in colours[: len(labels)]]
    axes.legend(handles, labels, loc="lower right")
    count = "One image" if len(colours) == 1 else f"{len(colours)} images"
    facts = f"{count}, one every {run.interval_steps} time steps; latency "
    style.head(figure, title, f"{facts}{run.latency_steps} steps{_left_out(every)}")
    _name_layers(axes, middles, rows / 34)
    return figure


def _name_layers(axes: Axes, middles: dict[float, tuple[str, str]], apart: float) -> None:
    """Writes the layers' names at their middles, each in its colour, but for those that collide."""
    shown, below = {}, -apart
    for middle, named in middles.items():
        if middle - below >= apart:
            shown[middle], below = named, middle
    axes.set_yticks(list(shown), [name for name, _ in shown.values()], fontsize=style.SMALL)
    axes.tick_params(axis="y", length=0)
    for label, (_, colour) in zip(axes.get_yticklabels(), shown.values(), strict=True):
        label.set_color(colour)


def _check_every(every: int) -> None:
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every={every!r}: give 1 to show all neurons, n to show every nth")


def _left_out(every: int) -> str:
    return "" if every == 1 else f"; one neuron in {every:,} is drawn"


def _points(spikes: SpikeTensor | FittedSpikes, image: int) -> tuple[Tensor, Tensor]:
    """The time step, from 1, and the neuron of every spike of an image: int64 on the CPU."""
    if not isinstance(spikes, (SpikeTensor, FittedSpikes)):
        raise TypeError(
            f"spikes is a {type(spikes).__name__}: give a SpikeTensor, e.g. "
            "stats.recorded[name] of net.run(images, record=[name])"
        )
    images = len(spikes.words)
    if not 0 <= image < images:
        raise IndexError(f"image={image}: there are {images} images, counted from 0")
    steps, neurons = spikes.of_image(image).spikes().nonzero(as_tuple=True)
    return steps + 1, neurons


@style.styled
def spikes_per_layer(stats: RunStats, *, K: int | None = None, title: str | None = None) -> Figure:
    """Spikes of every layer of neurons, and per neuron, as means over the images of a run.

    Args:
        stats: of `net.run`.
        K: time steps of the neurons, which is the most they can spike: drawn as a line.
        title: see the module.

    Raises:
        TypeError: stats is no RunStats.
        ValueError: the run saw no image, or the network has no neurons.
    """
    if not isinstance(stats, RunStats):
        raise TypeError(f"stats is a {type(stats).__name__}: give the second result of net.run(x)")
    if not stats.images or not stats.spikes:
        raise ValueError("stats holds no spikes: give those of net.run on at least one image")
    counts = {name: float(stats.spikes[name].double().mean()) for name in stats.spikes}
    each = [count / stats.neurons[name] for name, count in counts.items()]
    figure = style.new(8.0, max(3.2, 1.2 + 0.15 * len(counts)))
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(counts))
    left.barh(places, list(counts.values()), color=style.BLUE)
    left.set(xlabel="spikes per image")
    left.set_yticks(places, list(counts), fontsize=style.SMALL)
    left.set_ylim(len(counts) - 0.4, -0.6)  # the first layer at the top
    style.counts(left.xaxis, bins=4)
    right.barh(places, each, color=style.ORANGE)
    right.set(xlabel="spikes per neuron")
    if K is not None:
        right.axvline(K, color=style.INK, linestyle="--", linewidth=1)
        right.set_xlabel(f"spikes per neuron (dashed: the most, K={K})")
    for axes in (left, right):
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
    images = "one image" if stats.images == 1 else f"mean of {stats.images:,} images"
    facts = f"{sum(counts.values()):,.0f} spikes per image, {images}"
    style.head(figure, title, facts if K is None else f"K={K}: {facts}")
    return figure


@style.styled
def word_histogram(
    words: Tensor | SpikeTensor, K: int | None = None, *, title: str | None = None
) -> Figure:
    """How many neurons emitted each of the 2^K spike words, on a logarithmic scale.

    Word 0, of the neurons that stay silent, is the bar left of the others.

    Args:
        words: spike words of any shape, uint8 (K <= 8) or int16, or a SpikeTensor.
        K: their time steps; a SpikeTensor knows them.
        title: see the module.

    Raises:
        TypeError: words is neither, or has not the dtype of words of K steps.
        ValueError: no words, or one outside 0..2^K - 1; K contradicts the SpikeTensor.
    """
    if isinstance(words, SpikeTensor):
        if K is not None and K != words.neuron.K:
            raise ValueError(f"K={K}, but the words have {words.neuron.K} time steps: leave K out")
        words, K = words.words, words.neuron.K
    if K is None:
        raise TypeError("K is missing: bare words do not know their time steps")
    K = check_K(K)
    check_words(words, K)
    if not words.numel():
        raise ValueError("words is empty: give the words of at least one neuron")
    counts = torch.bincount(words.cpu().flatten().long(), minlength=2**K)
    figure = style.new()
    axes = figure.subplots()
    silent, counts[0] = int(counts[0]), 0
    edges = torch.arange(2**K + 1) - 0.5
    axes.stairs(counts, edges, fill=True, color=style.BLUE)
    gap = max(0.6, 2**K / 40)
    axes.bar(-0.5 - gap, silent, width=gap, color=style.ORANGE)
    axes.set_yscale("symlog", linthresh=1)
    most = max(silent, int(counts.max()))
    axes.set(
        xlim=(-0.5 - 2 * gap, 2**K - 0.5 + gap / 4),
        ylim=(0, 2.5 * most),
        xlabel=f"spike word, 0 to {2**K - 1:,}",
        ylabel="neurons",
    )
    style.counts(axes.xaxis)
    style.counts(axes.yaxis)
    share = silent / words.numel()
    axes.annotate(
        "silent: word 0",
        (-0.5 - 1.5 * gap, max(silent, 1)),
        (0, 3),
        textcoords="offset points",
        fontsize=8,
        color=style.ORANGE,
    )
    facts = f"K={K}: {words.numel():,} neurons, {share:.1%} of them silent"
    style.head(figure, title, facts)
    return figure


@style.styled
def transfer_curve(
    K: int,
    alpha: float,
    rounding: str = "nearest",
    points: int = 2001,
    *,
    title: str | None = None,
) -> Figure:
    """What an FS neuron makes of its membrane potential, against ReLU (the paper's Fig. 2).

    Args:
        K, alpha, rounding: of the neuron, see FSNeuron.
        points: membranes, from -alpha/4 to 5*alpha/4, at which it is evaluated.
        title: see the module.

    Returns:
        A figure with the output above and the spikes it takes below. Where steps are too fine to be
        seen, K > 5, an inset magnifies some of them.

    Raises:
        TypeError, ValueError: no such neuron, or points < 2.
    """
    if not isinstance(points, int) or points < 2:
        raise ValueError(f"points={points!r}: give at least 2 points of the curve")
    neuron = FSNeuron(K, alpha, rounding)
    figure = style.new(6.4, 5.0)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    v, spikes = _answers(neuron, -0.25, 1.25, points)
    upper.plot(v, v.relu(), "--", color=style.GREY, label="ReLU")
    upper.plot(v, decode(spikes), color=style.BLUE, label=f"FS neuron, K={neuron.K}")
    upper.set(ylabel="output")
    upper.legend(loc="upper left")
    lower.fill_between(v, spikes.count(), step="mid", color=style.ORANGE, alpha=0.3, linewidth=0)
    lower.plot(v, spikes.count(), color=style.ORANGE, drawstyle="steps-mid", linewidth=0.8)
    lower.set(xlabel="membrane potential", ylabel="spikes", ylim=(0, neuron.K + 0.5))
    lower.yaxis.get_major_locator().set_params(integer=True)
    if neuron.K > 5:
        _magnify(upper, neuron)
    facts = f"K={neuron.K}, alpha={neuron.alpha:g}, rounding {neuron.rounding}: {2**neuron.K:,}"
    style.head(figure, title, facts + f" levels, {neuron.step:.3g} apart")
    return figure


def _answers(
    neuron: FSNeuron, first: float, last: float, points: int
) -> tuple[Tensor, SpikeTensor]:
    """Membranes between two multiples of alpha, float32, and the spikes they become."""
    v = torch.linspace(first, last, points, dtype=torch.float64) * neuron.alpha
    v = v.to(torch.float32)
    return v, encode(v, neuron)


def _magnify(axes: Axes, neuron: FSNeuron) -> None:
    """Eight steps in the middle of the range, in the empty corner below the curve."""
    inset = axes.inset_axes([0.6, 0.1, 0.38, 0.42])
    half = 4 / 2**neuron.K
    v, spikes = _answers(neuron, 0.5 - half, 0.5 + half, 801)
    inset.plot(v, v, "--", color=style.GREY)
    inset.plot(v, decode(spikes), color=style.BLUE)
    inset.set(xlim=(float(v[0]), float(v[-1])), ylim=(float(v[0]), float(v[-1])))
    for axis in (inset.xaxis, inset.yaxis):
        axis.get_major_locator().set_params(nbins=3)
    inset.tick_params(labelsize=style.SMALL)
    inset.set_title("eight of the steps", fontsize=8)
    for label in (*inset.get_xticklabels(), *inset.get_yticklabels()):
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    first, last = inset.get_xlim()
    axes.indicate_inset([first, first, last - first, last - first], edgecolor=style.INK, alpha=1)


@style.styled
def pareto(
    rows: Sequence[dict],
    x: str = "spikes_per_image",
    y: str | None = None,
    *,
    least: float | None = None,
    title: str | None = None,
    facts: str = "The line joins what no other row beats",
) -> Figure:
    """What every K costs and gives, with a line through the rows that no other row beats.

    Args:
        rows: one a network, with "K" and the figures named by x and y; "top1_interval" and the
            like, where there are any, are drawn as bars.
        x, y: "spikes_per_image", "latency_steps", "images_per_s", "agreement", "top1" or
            "logit_error". y None: "top1" where every row has it, else "agreement".
        least: what a network must reach in y (of an error: not exceed); drawn as a line.
        title: see the module.
        facts: the line of small print under it.

    Raises:
        TypeError: a row is not a mapping.
        ValueError: no rows, an unknown figure, or a row that has not got it.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("rows is empty: give at least one row")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"rows[{i}] is a {type(row).__name__}: give a dict with K, {x}, ...")
    if y is None:
        y = "top1" if all(row.get("top1") is not None for row in rows) else "agreement"
    for argument, key in (("x", x), ("y", y)):
        if key not in AXES:
            raise ValueError(f"{argument}={key!r} is unknown: use one of {', '.join(AXES)}")
    for key in ("K", x, y):
        lacking = [i for i, row in enumerate(rows) if row.get(key) is None]
        if lacking:
            raise ValueError(
                f"rows[{lacking[0]}] has no {key}: leave the row out, or choose another x or y"
            )
    figure = style.new()
    axes = figure.subplots()
    points = [(row[x], row[y]) for row in rows]
    axes.plot([p[0] for p in points], [p[1] for p in points], "o", color=style.BLUE, zorder=3)
    best = _unbeaten(points, x, y)
    axes.plot([p[0] for p in best], [p[1] for p in best], color=style.BLUE, alpha=0.5)
    known = [(p, row[f"{y}_interval"]) for p, row in zip(points, rows) if row.get(f"{y}_interval")]
    for (at, _), (low, high) in known:
        axes.vlines(at, low, high, color=style.BLUE, alpha=0.5, linewidth=1)
    axes.set(xlabel=AXES[x], ylabel=AXES[y])
    if known:
        axes.set_ylabel(f"{AXES[y]}, 95 % interval")
    axes.margins(0.1)
    for key, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if key == "logit_error" and all(row[key] > 0 for row in rows):
            axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            style.sparse_decades(axis)
        (style.percents if key in SHARES else style.counts)(axis)
    if least is not None:
        axes.axhline(least, color=style.ORANGE, linestyle="--", linewidth=1)
        place = axes.get_yaxis_transform()
        axes.annotate(
            "budget",
            (1, least),
            (0, 3),
            xycoords=place,
            textcoords="offset points",
            horizontalalignment="right",
            fontsize=8,
            color=style.ORANGE,
        )
    style.head(figure, title, facts)
    lines = [best, *([(at, low), (at, high)] for (at, _), (low, high) in known)]
    if least is not None:
        lines.append([(end, least) for end in axes.get_xlim()])
    style.name_points(axes, points, [f"K={row['K']}" for row in rows], lines)
    return figure


def _unbeaten(points: list[tuple[float, float]], x: str, y: str) -> list[tuple[float, float]]:
    """The points that no other point equals or surpasses in both, sorted."""
    signs = [-1 if key in LESS_IS_BETTER else 1 for key in (x, y)]

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        better = [s * (p - q) for s, p, q in zip(signs, a, b, strict=True)]
        return min(better) >= 0 and max(better) > 0

    return sorted({p for p in points if not any(beats(q, p) for q in points)})
