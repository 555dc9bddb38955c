"""Oracle (d): the paper's neuron in real numbers, the yardstick of fidelity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fskernel.codes.neuron import ROUNDINGS, check_K


def paper_neuron(
    v: Tensor,
    K: int,
    alpha: float,
    rounding: str = "floor",
    *,
    strict: bool = False,
    return_spikes: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Eqs. (1) to (3) of the paper in real numbers, oracle (d), the yardstick of fidelity.

    At t = 1..K: `z(t) = v(t) >= T(t)`, `v(t+1) = v(t) - T(t)*z(t)`, output `sum_t T(t)*z(t)`, with
    `T(t) = alpha*2^-t`.

    Args:
        v: float64 membranes v(1), any shape, in the units of alpha.
        K: time steps, 1..15.
        alpha: range of the neuron.
        rounding: "floor" is the paper; "nearest" starts the membrane alpha*2^-(K+1) higher.
        strict: compare with > as the authors' loop does.
        return_spikes: also return the trains.

    Returns:
        The output, float64 of v's shape; with return_spikes also z, bool [K, ...].

    Raises:
        TypeError: v is not float64, K not an integer.
        ValueError: K outside 1..15, alpha not positive and finite, unknown rounding.
    """
    if not isinstance(v, Tensor) or v.dtype != torch.float64:
        raise TypeError("v is not a float64 tensor: the yardstick must not round")
    K = check_K(K)
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha={alpha} must be positive and finite")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r} is unknown: use one of {ROUNDINGS}")
    if rounding == "nearest":
        v = v + alpha * 2.0 ** -(K + 1)
    output = torch.zeros_like(v)
    train = []
    for t in range(1, K + 1):
        threshold = alpha * 2.0**-t
        fires = v > threshold if strict else v >= threshold
        v = torch.where(fires, v - threshold, v)
        output = torch.where(fires, output + threshold, output)
        train.append(fires)
    return (output, torch.stack(train)) if return_spikes else output
