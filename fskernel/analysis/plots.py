"""Figures of spikes, words and neurons, and of what K buys; every function returns a Figure.

They need matplotlib (pip install matplotlib), which is imported when a figure is made. Figures do
not depend on pyplot, so there is no window and no state: `figure.savefig("spikes.png")`; a notebook
shows what a cell returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fskernel.codes.neuron import FSNeuron, check_K, check_words
from fskernel.network import schedule
from fskernel.network.stats import RunStats
from fskernel.spikes import SpikeTensor, decode, encode

if TYPE_CHECKING:
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
LESS_IS_BETTER = ("spikes_per_image", "latency_steps", "logit_error")


def _figure(width: float = 6.4, height: float = 4.0) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def raster(spikes: SpikeTensor, image: int = 0) -> Figure:
    """The spikes of one layer over its K time steps: a point for each.

    Args:
        spikes: of one layer, images first, e.g. `stats.recorded[name]` of `net.run(record=...)`.
        image: whose.

    Returns:
        A figure with the time step to the right, 1..K, and the neurons upwards, from 0 in the order
        of the words' dimensions (channel, row, column).

    Raises:
        TypeError: spikes is not a SpikeTensor.
        IndexError: there is no such image.
    """
    steps, neurons = _points(spikes, image)
    K, count = spikes.neuron.K, spikes.words[image].numel()
    figure = _figure()
    axes = figure.subplots()
    axes.plot(steps, neurons, "s", markersize=min(6, max(1, 200 / max(count, 1))), color="C0")
    axes.set(
        xlim=(0.5, K + 0.5),
        ylim=(-0.5, count - 0.5),
        xticks=range(1, K + 1),
        xlabel="time step",
        ylabel="neuron",
        title=f"{len(steps):,} spikes of {count:,} neurons",
    )
    return figure


def latency_raster(net: FSNetwork, stats: RunStats, image: int = 0, every: int = 1) -> Figure:
    """The spikes of all recorded layers over the time steps from an image to its logits.

    A layer fires for its K steps once the layers it reads have fired, so with one K for all it is
    in the steps (d - 1)*K + 1 to d*K, where d layers of neurons are on the longest path to it,
    itself counted; the readout takes the last K.

    Args:
        net: the network. stats: of `net.run(images, record="all")`, or of some layers.
        image: whose spikes.
        every: show every so-manieth neuron of each layer, so that big networks can be drawn.

    Returns:
        A figure with the time steps to the right and the neurons upwards, layer over layer in
        execution order.

    Raises:
        ValueError: nothing is recorded, other layers than the network's are, or every < 1.
        IndexError: there is no such image.
    """
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every={every!r}: give 1 to show all neurons, n to show every nth")
    if not stats.recorded:
        raise ValueError('stats holds no recorded spikes: use net.run(images, record="all")')
    ends = schedule.ends(net.steps)
    foreign = [name for name in stats.recorded if name not in ends]
    if foreign:
        raise ValueError(f"stats has a layer '{foreign[0]}', which net has not: give its own stats")
    figure = _figure(8.0, 5.0)
    axes = figure.subplots()
    base, total, middles = 0, 0, {}
    for name, spikes in stats.recorded.items():
        steps, neurons = _points(spikes, image)
        shown = neurons % every == 0
        steps = steps[shown] + ends[name] - spikes.neuron.K
        axes.plot(steps, base + neurons[shown] // every, ",", color="C0")
        count = -(-spikes.words[image].numel() // every)
        middles[base + count / 2] = name
        base, total = base + count, total + len(steps)
    last = net.latency_steps
    axes.set_xticks(range(0, last + 1, net.K * max(1, round(net.depth / 10))))
    axes.set(
        xlim=(0.5, last + 0.5),
        ylim=(-0.5, base - 0.5),
        xlabel=f"time step ({net.depth} layers x K={net.K}, the last one the readout)",
        ylabel="neuron, layer over layer",
        title=f"{total:,} spikes of {base:,} neurons"
        + ("" if every == 1 else f", one in {every} of each layer"),
    )
    named, below = {}, -base
    for middle, name in middles.items():  # those that do not hide each other
        if middle - below > base / 40:
            named[middle], below = name, middle
    axes.secondary_yaxis("right").set_yticks(list(named), list(named.values()), fontsize=6)
    return figure


def _points(spikes: SpikeTensor, image: int) -> tuple[Tensor, Tensor]:
    """The time step, from 1, and the neuron of every spike of an image: int64 on the CPU."""
    if not isinstance(spikes, SpikeTensor):
        raise TypeError(
            f"spikes is a {type(spikes).__name__}: give a SpikeTensor, e.g. "
            "stats.recorded[name] of net.run(images, record=[name])"
        )
    images = len(spikes.words)
    if not 0 <= image < images:
        raise IndexError(f"image={image}: there are {images} images, counted from 0")
    train = SpikeTensor(spikes.words[image].cpu().flatten(), spikes.neuron, check=False).spikes()
    steps, neurons = train.nonzero(as_tuple=True)
    return steps + 1, neurons


def spikes_per_layer(stats: RunStats) -> Figure:
    """Spikes of every layer of neurons, and per neuron, as means over the images of a run.

    Args:
        stats: of `net.run`.

    Raises:
        ValueError: the run saw no image, or the network has no neurons.
    """
    if not stats.images or not stats.spikes:
        raise ValueError("stats holds no spikes: give those of net.run on at least one image")
    names = list(stats.spikes)
    counts = [float(stats.spikes[name].double().mean()) for name in names]
    each = [count / stats.neurons[name] for count, name in zip(counts, names, strict=True)]
    figure = _figure(max(6.4, 0.2 * len(names)), 5.0)
    upper, lower = figure.subplots(2, sharex=True)
    places = range(len(names))
    upper.bar(places, counts)
    upper.set(ylabel="spikes/image", title=f"{sum(counts):,.0f} spikes/image")
    lower.bar(places, each, color="C1")
    lower.set(ylabel="spikes/neuron")
    lower.set_xticks(places, names, rotation=90, fontsize=6)
    return figure


def word_histogram(words: Tensor | SpikeTensor, K: int | None = None) -> Figure:
    """How many neurons emitted each of the 2^K spike words, on a logarithmic scale.

    Args:
        words: spike words of any shape, uint8 (K <= 8) or int16, or a SpikeTensor.
        K: their time steps; a SpikeTensor knows them.

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
    figure = _figure()
    axes = figure.subplots()
    edges = torch.arange(2**K + 1) - 0.5
    axes.stairs(counts, edges, fill=True)
    axes.set_yscale("symlog", linthresh=1)
    silent = float(counts[0]) / words.numel()
    axes.set(
        xlim=(-0.5, 2**K - 0.5),
        ylim=(0, None),
        xlabel=f"spike word, 0 to 2^{K} - 1",
        ylabel="neurons",
        title=f"{words.numel():,} neurons, {silent:.1%} of them silent",
    )
    return figure


def transfer_curve(K: int, alpha: float, rounding: str = "nearest", points: int = 2001) -> Figure:
    """What an FS neuron makes of its membrane potential, against ReLU (the paper's Fig. 2).

    Args:
        K, alpha, rounding: of the neuron, see FSNeuron.
        points: membranes, from -alpha/4 to 5*alpha/4, at which it is evaluated.

    Raises:
        TypeError, ValueError: no such neuron, or points < 2.
    """
    if not isinstance(points, int) or points < 2:
        raise ValueError(f"points={points!r}: give at least 2 points of the curve")
    neuron = FSNeuron(K, alpha, rounding)
    v = torch.linspace(-0.25, 1.25, points, dtype=torch.float64) * neuron.alpha
    v = v.to(torch.float32)
    spikes = encode(v, neuron)
    figure = _figure(6.4, 5.0)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot(v, v.relu(), "--", color="gray", label="ReLU")
    upper.plot(v, decode(spikes), color="C0", label=f"FS neuron, K={neuron.K}")
    upper.set(ylabel="output", title=f"K={neuron.K}, alpha={neuron.alpha:g}, {neuron.rounding}")
    upper.legend()
    lower.plot(v, spikes.count(), color="C1", drawstyle="steps-mid")
    lower.set(xlabel="membrane potential", ylabel="spikes", ylim=(0, neuron.K + 0.5))
    return figure


def pareto(rows: Sequence[dict], x: str = "spikes_per_image", y: str | None = None) -> Figure:
    """What every K costs and gives, with a line through the rows that no other row beats.

    Args:
        rows: one a network, with "K" and the figures named by x and y.
        x, y: "spikes_per_image", "latency_steps", "images_per_s", "agreement", "top1" or
            "logit_error". y None: "top1" where every row has it, else "agreement".

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
    figure = _figure()
    axes = figure.subplots()
    axes.plot([row[x] for row in rows], [row[y] for row in rows], "o", color="C0")
    best = _unbeaten([(row[x], row[y]) for row in rows], x, y)
    axes.plot([p[0] for p in best], [p[1] for p in best], color="C0", alpha=0.5)
    for row in rows:
        axes.annotate(
            f"K={row['K']}", (row[x], row[y]), (4, -10), textcoords="offset points", fontsize=8
        )
    axes.set(xlabel=AXES[x], ylabel=AXES[y])
    axes.grid(alpha=0.3)
    axes.margins(0.1)
    return figure


def _unbeaten(points: list[tuple[float, float]], x: str, y: str) -> list[tuple[float, float]]:
    """The points that no other point equals or surpasses in both, sorted."""
    signs = [-1 if key in LESS_IS_BETTER else 1 for key in (x, y)]

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        better = [s * (p - q) for s, p, q in zip(signs, a, b, strict=True)]
        return min(better) >= 0 and max(better) > 0

    return sorted({p for p in points if not any(beats(q, p) for q in points)})
