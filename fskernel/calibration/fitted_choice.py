"""Which fitted neuron stands for an activation in a layer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fskernel.activations import Activation
from fskernel.calibration.fit import fit_neuron, tuned
from fskernel.codes.fitted import FittedNeuron

SHIPPED = Path(__file__).parent / "fitted_neurons.json"
# Which part of what a function gives in a layer it may still change by beyond a neuron's ends.
_SAME = 3e-3
_PER_OCTAVE = 4  # ends of what is fitted here are rounded outwards, so that layers share neurons
_ROUNDS = 1000  # of a fit while a network is converted
_NEARLY = {"gelu_tanh": "gelu"}  # activations that differ by far less than neurons do
_fitted: dict[tuple[Activation, int, float, float], FittedNeuron] = {}


def neuron_of(
    activation: Activation,
    K: int,
    low: float,
    high: float,
    seen: Tensor | None = None,
    progress: bool = False,
) -> FittedNeuron:
    """The fitted neuron for a layer with this activation, whose membranes were seen in [low, high].

    Args:
        activation: one function for all channels.
        K: time steps, 1..16.
        low, high: finite, low < high.
        seen: some of the membranes, of one dimension; the neuron is then made better for them.
        progress: shows a bar while one is fitted.

    Returns:
        The neuron, in the units of the activation: the shipped one with the smallest range that
        holds where the function changes in [low, high]; if there is none, one that is fitted for
        this range, once in a process. With `seen` whichever misses them least, tuned to them.

    Raises:
        ValueError: bounds that are not that, or an activation with a function for each channel.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low={low}, high={high}: give two finite numbers, the smaller one first")
    if activation.per_channel:
        raise ValueError(
            f"activation={activation.text()} has a function for each channel, and channels of a "
            'layer share one fitted neuron: convert with another neuron than "fitted"'
        )
    low, high = _needed(activation, low, high)
    found = _shipped_for(activation, K, low, high)
    if found is None:
        found = _fitted_for(activation, K, low, high, progress)
    if seen is None:
        return found
    others = shipped().get((activation.name, K), []) if found.function == activation.text() else []
    return tuned(list(dict.fromkeys([found, *others])), activation, seen, low, high)


def _fitted_for(
    activation: Activation, K: int, low: float, high: float, progress: bool
) -> FittedNeuron:
    """The one that is fitted for this range, once in a process."""
    low, high = _outwards(low, -1), _outwards(high, 1)
    key = (activation, K, low, high)
    if key not in _fitted:
        _fitted[key] = fit_neuron(activation, K, (low, high), rounds=_ROUNDS, progress=progress)
    return _fitted[key]


@cache
def shipped() -> dict[tuple[str, int], list[FittedNeuron]]:
    """The neurons that the package has, by the name of the activation and K, narrow ones first."""
    neurons: dict[tuple[str, int], list[FittedNeuron]] = {}
    for entry in json.loads(SHIPPED.read_text()):
        numbers = (tuple(entry[name]) for name in ("thresholds", "resets", "weights"))
        rest = (entry[name] for name in ("low", "high", "rms", "worst"))
        neuron = FittedNeuron(*numbers, Activation(entry["function"]).text(), *rest)
        neurons.setdefault((entry["function"], entry["K"]), []).append(neuron)
    for found in neurons.values():
        found.sort(key=lambda neuron: neuron.high)
    return neurons


def _shipped_for(activation: Activation, K: int, low: float, high: float) -> FittedNeuron | None:
    """The narrowest of them that does for [low, high]."""
    if activation.numbers or activation.function is not None:
        return None
    for neuron in shipped().get((_NEARLY.get(activation.name, activation.name), K), []):
        ends = torch.tensor([low, high, neuron.low, neuron.high], dtype=torch.float64)
        y = activation(torch.cat([ends, torch.linspace(low, high, 101, dtype=torch.float64)]))
        missed = [
            abs(float(y[i] - y[i + 2]))
            for i, outside in enumerate((low < neuron.low, high > neuron.high))
            if outside
        ]
        if max(missed, default=0.0) <= _SAME * float(y[4:].max() - y[4:].min()):
            return neuron
    return None


def _needed(function: Callable, low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] outside which the function changes little."""
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    y = function(x)
    tolerance = _SAME * float(y.max() - y.min())
    if tolerance == 0:
        return low, high
    first = int(((y - y[0]).abs() > tolerance).nonzero()[0])
    last = int(((y - y[-1]).abs() > tolerance).nonzero()[-1])
    return float(x[max(first - 1, 0)]), float(x[min(last + 1, len(x) - 1)])


def _outwards(end: float, side: int) -> float:
    """The next power of 2^(1/4) away from zero, or towards it for an end on the other side."""
    if end == 0:
        return 0.0
    octaves = math.log2(abs(end)) * _PER_OCTAVE
    whole = math.ceil(octaves - 1e-9) if side * end > 0 else math.floor(octaves + 1e-9)
    return math.copysign(2.0 ** (whole / _PER_OCTAVE), end)
