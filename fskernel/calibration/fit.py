"""Fitting T(t), h(t) and d(t) of a fitted FS neuron to a function (fskernel/codes/fitted.py)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fskernel.codes.fitted import FittedNeuron
from fskernel.progress import progress_bar

_SAMPLES = 600  # membranes at which a function is looked at
_RIDGE = 1e-6  # keeps the weights of steps that hardly ever fire small


def fit_neuron(
    function: Callable[[Tensor], Tensor],
    K: int,
    range: tuple[float, float],
    *,
    sweeps: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> FittedNeuron:
    """A fitted FS neuron of K time steps that gives nearly what a function gives.

    Args:
        function: elementwise, of a float64 tensor.
        K: time steps, 1..16.
        range: low and high membrane.
        sweeps: over the steps, each of which tries other thresholds and resets for every step.
        seed: of what is tried.
        progress: shows a bar.
    """
    low, high = range
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(low, high, _SAMPLES, dtype=torch.float64)
    y = function(x).float()
    x = x.float()
    late = min(K - 1, 3)
    halves = max(high, high - low) * 2.0 ** -torch.arange(1.0, K - late + 1)
    T = torch.cat([halves, low * torch.rand(late, generator=generator) / 2])
    h = torch.cat([halves, torch.randn(late, generator=generator) * abs(low) / 4])
    with progress_bar("fitting", sweeps, progress) as told:
        best, d = math.inf, torch.zeros(K)
        for sweep in torch.arange(sweeps).tolist():
            for i in torch.randperm(K, generator=generator).tolist():
                T, h, d, best = _tried(T, h, d, best, x, y, i, generator)
            told(f"rms {best**0.5:.3g}, sweep {sweep + 1}")
    name = getattr(function, "name", getattr(function, "__name__", ""))
    neuron = FittedNeuron(tuple(T.tolist()), tuple(h.tolist()), tuple(d.tolist()), name, low, high)
    missed = neuron(x) - y
    rms, worst = float(missed.square().mean().sqrt()), float(missed.abs().max())
    return FittedNeuron(neuron.thresholds, neuron.resets, neuron.weights, name, low, high, rms, worst)


def _tried(T, h, d, best, x, y, i, generator, proposals=32):
    """The best of some random changes of step i, if it is better."""
    Ts, hs = T.repeat(proposals, 1), h.repeat(proposals, 1)
    scale = float(x[-1] - x[0]) * 10 ** (-4.0 * torch.rand(proposals, generator=generator))
    change = scale * torch.randn(proposals, generator=generator)
    kind = torch.randint(3, (proposals,), generator=generator)
    Ts[:, i] += change * (kind != 1)
    hs[:, i] += change * (kind != 0)
    if math.isinf(best):
        Ts[0], hs[0] = T, h
    v, trains = x.expand(proposals, -1), []
    for t in torch.arange(Ts.shape[1]).tolist():
        fires = (v >= Ts[:, t : t + 1]).float()
        v = v - fires * hs[:, t : t + 1]
        trains.append(fires)
    Z = torch.stack(trains, 2)
    gram = Z.mT @ Z / len(x) + _RIDGE * torch.eye(Ts.shape[1])
    ds = torch.linalg.solve(gram, Z.mT @ y / len(x))
    errors = ((Z @ ds[..., None])[..., 0] - y).square().mean(1)
    j = int(errors.argmin())
    if float(errors[j]) < best:
        return Ts[j], hs[j], ds[j], float(errors[j])
    return T, h, d, best
