"""Which fitted neuron stands for an activation in a layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from fskernel.activations import Activation
from fskernel.calibration.fit import fit_neuron
from fskernel.codes.fitted import FittedNeuron

# By how much of what it gives a function may still change beyond the ends of what is fitted.
_SAME = 1e-3
_PER_OCTAVE = 4  # ends of intervals are rounded outwards, so that layers share neurons
_cache: dict[tuple[Activation, int, float, float], FittedNeuron] = {}


def neuron_of(
    activation: Activation, K: int, low: float, high: float, progress: bool = False
) -> FittedNeuron:
    """The fitted neuron for a layer with this activation, whose membranes were seen in [low, high].

    Args:
        activation: one function for all channels.
        K: time steps, 1..16.
        low, high: finite, low < high.
        progress: shows a bar while one is fitted.

    Returns:
        The neuron, in the units of the activation. One is fitted once in a process.

    Raises:
        ValueError: bounds that are not that, or an activation with a function for each channel.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low={low}, high={high}: give two finite numbers, the smaller one first")
    if activation.per_channel:
        raise ValueError(
            f"activation={activation.text()} has a function for each channel, and channels of a "
            "layer share one fitted neuron: convert with another neuron than \"fitted\""
        )
    low, high = _needed(activation, low, high)
    key = (activation, K, low, high)
    if key not in _cache:
        _cache[key] = fit_neuron(activation, K, (low, high), sweeps=4, progress=progress)
    return _cache[key]


def _needed(function: Callable, low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] outside which the function changes little, rounded outwards."""
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    y = function(x)
    tolerance = _SAME * float(y.max() - y.min())
    if tolerance == 0:
        return _outwards(low, -1), _outwards(high, 1)
    first = int(((y - y[0]).abs() > tolerance).nonzero()[0])
    last = int(((y - y[-1]).abs() > tolerance).nonzero()[-1])
    low, high = float(x[max(first - 1, 0)]), float(x[min(last + 1, len(x) - 1)])
    return _outwards(low, -1), _outwards(high, 1)


def _outwards(end: float, side: int) -> float:
    """The next power of 2^(1/4) away from zero, or towards it for an end on the other side."""
    if end == 0:
        return 0.0
    octaves = math.log2(abs(end)) * _PER_OCTAVE
    whole = math.ceil(octaves - 1e-9) if side * end > 0 else math.floor(octaves + 1e-9)
    return math.copysign(2.0 ** (whole / _PER_OCTAVE), end)
