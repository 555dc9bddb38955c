"""What a spike stands for in each layer of a rate-coded network: its threshold, from images."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from fskernel.calibration.ranges import Ranges, batches
from fskernel.graph import Graph, Layer

NORMALISATIONS = ("percentile", "max", "robust", "balanced")
MOST_BALANCED = 256  # time steps; finer ones than the bins below can tell apart
_BINS = 1024  # of the activations of a channel, up to its largest
_CANDIDATES = 80  # thresholds that are tried, from 5 to 100 % of the largest activation


def layer_scales(
    graph: Graph, ranges: Ranges, normalise: str, percentile: float
) -> dict[str, float]:
    """The value of a spike a step in the output of each layer of neurons, one for all channels.

    The largest activation ("max"), the percentile of the positive ones ("percentile") or of all,
    zeros included ("robust": the largest one where that is 0), and 1 where all were 0. It is the
    largest of those that are concatenated with it, but never more than its ceiling: one spike a
    step is the most a neuron can fire, so it saturates at its scale, and a ReLU6 must not pass 6
    because its neighbour does.
    """

    def seen(name: str) -> float:
        if normalise == "max":
            return ranges.largest[name]
        if normalise == "robust":
            return ranges.percentile(name, percentile, zeros=True) or ranges.largest[name]
        return ranges.percentile(name, percentile)

    scales: dict[str, float] = {}
    for name, tied in graph.tied().items():
        layer = graph[name]
        if layer.kind == "neuron":
            scale = max(map(seen, tied)) or 1.0
            scales[name] = scale if layer.ceiling is None else min(scale, layer.ceiling)
    return scales


def balanced_scales(graph: Graph, calibration: Tensor | Iterable, T: int) -> dict[str, Tensor]:
    """Thresholds of each channel, float64 [C], whose rates after T steps are closest to the ANN.

    A neuron that starts half a threshold high and gets the current x at every step has after T
    steps the rate theta/T * clip(floor(x*T/theta + 1/2), 0, T). Of 80 candidates from 5 to 100 % of
    the channel's largest activation, theta is the one with the least mean square of rate - x on
    the calibration images. A silent channel has the largest threshold of its layer, a silent layer
    1; and none exceeds its layer's ceiling.

    Args:
        graph: the float network.
        calibration: images, as `fskernel.convert` takes them; they are gone through twice.
        T: time steps, 1 to 256.
    """
    graph = graph.to(torch.float32)
    largest: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}

    def find_largest(layer: Layer, y: Tensor) -> None:
        if layer.kind == "neuron":
            top = y.amax((0, 2, 3)).double()
            largest[layer.name] = top.maximum(largest.get(layer.name, top))

    def count(layer: Layer, y: Tensor) -> None:
        if layer.kind == "neuron":
            found = _histogram(y, largest[layer.name])
            counts[layer.name] = counts.get(layer.name, 0) + found

    for observe in (find_largest, count):
        for batch in batches(calibration):
            if len(batch):
                x = batch.contiguous(memory_format=torch.channels_last)
                graph.forward(x, observe=observe)
    scales = {}
    for name, top in largest.items():
        share = _least_error(counts[name].double(), T)
        scale = share * top
        silent = top == 0
        scale[silent] = scale.max() if bool(scale.max() > 0) else 1.0
        ceiling = graph[name].ceiling
        scales[name] = scale if ceiling is None else scale.clamp(max=ceiling)
    return scales


def _histogram(y: Tensor, largest: Tensor) -> Tensor:
    """How often positive activations y [N, C, H, W] lie in each bin of a channel, int64 [C, _BINS].

    Integers, so that the sum over batches does not depend on how the images are batched.
    """
    y = y.transpose(0, 1).flatten(1)  # [C, N*H*W]
    top = torch.where(largest > 0, largest, 1.0)[:, None]
    at = (y / top * _BINS).long().clamp_(max=_BINS - 1)
    at += torch.arange(len(y))[:, None] * _BINS
    return torch.bincount(at[y > 0], minlength=len(y) * _BINS).view(len(y), _BINS)


def _least_error(counts: Tensor, T: int) -> Tensor:
    """The best threshold of each channel as a share of its largest activation, float64 [C].

    Args:
        counts: how many activations lie in each bin, float64 [C, _BINS].
        T: time steps.
    """
    x = (torch.arange(_BINS, dtype=torch.float64) + 0.5) / _BINS
    best = torch.full((len(counts),), math.inf, dtype=torch.float64)
    share = torch.ones_like(best)
    for i in range(_CANDIDATES):
        theta = 0.05 + 0.95 * i / (_CANDIDATES - 1)
        rate = (x * T / theta + 0.5).floor().clamp(max=T) * (theta / T)
        error = counts @ (rate - x).square()
        better = error < best
        best[better], share[better] = error[better], theta
    return share


def channel_scales(graph: Graph, scales: dict[str, float | Tensor]) -> dict[str, Tensor]:
    """The value of one spike a step in every channel of each layer, float64 [C].

    That of the layer of neurons which the channel comes from, through whatever passes it on; 1
    where values are not scaled.
    """

    def own(layer: Layer, width: int) -> Tensor:
        return torch.as_tensor(scales.get(layer.name, 1.0), dtype=torch.float64).expand(width)

    return graph.along_channels(own)


def shuffled_alike(graph: Graph, scales: dict[str, float | Tensor]) -> dict[str, float | Tensor]:
    """The scales, the same for channels that a pixel shuffle spreads over one: their largest.

    A channel has one scale, and so have all of its pixels. None exceeds a ceiling of its layers.

    Args:
        scales: of layers of neurons, or of their channels, float64 [C].
    """
    shuffles = [layer for layer in graph.layers if layer.move and layer.move.kind == "shuffle"]
    if not shuffles:
        return scales
    widths, numbers, own, ceilings = graph.widths(), {}, [], []  # of all channels of the network
    for layer in graph.layers:
        width = widths[layer.name]
        numbers[layer.name] = torch.arange(len(own), len(own) + width)
        given = torch.as_tensor(scales.get(layer.name, 1.0), dtype=torch.float64)
        own += given.expand(width).tolist()
        ceilings += [math.inf if layer.ceiling is None else layer.ceiling] * width
    held = graph.along_channels(lambda layer, _: numbers[layer.name])
    alike = torch.arange(len(own))  # the first of all channels that have one scale
    while True:
        last = alike
        for layer in shuffles:
            pixels = held[layer.source].view(-1, layer.move.numbers[0] ** 2)
            first = alike[pixels].amin(1, keepdim=True).expand_as(pixels)
            alike = alike.scatter_reduce(0, pixels.flatten(), first.flatten(), "amin")
        if torch.equal(alike, last):
            break
    each, most = (torch.tensor(n, dtype=torch.float64) for n in (own, ceilings))
    largest = each.scatter_reduce(0, alike, each, "amax")
    scale = largest.minimum(most.scatter_reduce(0, alike, most, "amin"))[alike]
    found: dict[str, float | Tensor] = {}
    for name, before in scales.items():
        now = scale[numbers[name]]
        one = not isinstance(before, Tensor) and bool((now == now[0]).all())
        found[name] = float(now[0]) if one else now
    return found
