"""What fitted neurons say of membranes: of the layers of a graph, before there are steps."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fskernel.calibration.fitted_choice import neuron_of
from fskernel.calibration.ranges import Ranges
from fskernel.codes.code import Code
from fskernel.codes.fitted import FittedNeuron, fire_fitted, quantised
from fskernel.graph import Graph, Layer
from fskernel.progress import progress_bar


@dataclass(frozen=True)
class Trains:
    """The fitted neurons of one layer.

    Attributes:
        code: of what they say, shared with the layers that are concatenated with it.
        lines: float32 [3, K] of T, h and whole d.
        rms: by how much they miss the layer's function where they were fitted; NaN: not known.
    """

    code: Code
    lines: Tensor
    rms: float

    def values(self, v: Tensor) -> Tensor:
        """What the trains of membranes v stand for, of v's shape and dtype."""
        codes, _ = fire_fitted(v.to(torch.float32), self.lines, self.code.zero, self.code.bits)
        return (codes.to(v.dtype) - self.code.zero) * self.code.step


def fitted_layers(graph: Graph) -> frozenset[str]:
    """The layers of neurons that can be fitted: those with a function that is no ReLU.

    And what is concatenated with one, as it shares its code. Where a function differs from channel
    to channel, no table of T, h and d serves the layer: neither it nor what shares its code is one.
    """
    found = set()
    for name, tied in graph.tied().items():
        own = [a for n in tied if (a := graph[n].activation) is not None]
        if own and not any(activation.per_channel for activation in own):
            found.add(name)
    return frozenset(found)


def trains_of(
    graph: Graph,
    names: Collection[str],
    K: Mapping[str, int],
    ranges: Ranges,
    rounding: str,
    progress: bool = False,
) -> dict[str, Trains]:
    """The fitted neurons of these layers (`fitted_layers`), for the membranes that were seen.

    Args:
        K: time steps of each; the same of those that are concatenated.
        ranges: measured on images. rounding: of ReLUs among them.
        progress: shows a bar.

    Raises:
        ValueError: as `codes.fitted.quantised`.
    """
    tied, found = graph.tied(), {}
    with progress_bar("choosing fitted neurons", len(names), progress) as advance:
        for layer in graph.layers:
            if layer.name not in names or layer.name in found:
                continue
            group = tied[layer.name]
            neurons = [_neuron(graph[name], K[name], ranges, rounding) for name in group]
            code, lines = quantised(neurons)
            for name, neuron, own in zip(group, neurons, lines, strict=True):
                found[name] = Trains(code, own, neuron.rms)
                advance(name)
    return found


def _neuron(layer: Layer, K: int, ranges: Ranges, rounding: str) -> FittedNeuron:
    if layer.activation is None:
        return relu_neuron(K, ranges.largest[layer.name], rounding)
    low, high = ranges.membranes[layer.name]
    if not low < high:  # the same everywhere
        low, high = low - 1.0, high + 1.0
    return neuron_of(layer.activation, K, low, high, torch.cat(ranges.drawn[layer.name]))


def relu_neuron(K: int, largest: float, rounding: str) -> FittedNeuron:
    """The FS neuron of a ReLU whose K spikes all together stand for `largest`, as a fitted one.

    Rounding "nearest" begins half a last threshold higher, so that thresholds are lower by it.
    """
    largest = largest if largest > 0 else 1.0
    step = largest / (2.0**K - 1)
    worth = [math.ldexp(step, K - t) for t in range(1, K + 1)]
    offset = step / 2 if rounding == "nearest" else 0.0
    thresholds = [x - offset for x in worth]
    rms = step * (12.0**-0.5 if offset else 3.0**-0.5)
    return FittedNeuron(thresholds, worth, worth, "ReLU", 0.0, largest, rms, step)
