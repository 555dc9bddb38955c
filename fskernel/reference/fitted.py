"""Fitted neurons, as the oracles compute them: one time step after the other, and as numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def fitted_by_steps(v: Tensor, fitted: Tensor, zero: int) -> tuple[Tensor, Tensor]:
    """What trains of fitted neurons say, zero + sum_t d(t)*z(t), each step in float32.

    Args:
        v: float32 membranes [N, H, W, C].
        fitted: float32 [3, K] of T, h and d.
        zero: the code of zero.

    Returns:
        int64 of v's shape, not clipped; and the spikes of each image, int64 [N].
    """
    says = torch.full_like(v, zero, dtype=torch.int64)
    spikes = torch.zeros(len(v), dtype=torch.int64)
    for threshold, reset, worth in fitted.T:
        fires = v >= threshold
        v = torch.where(fires, v - reset, v)
        says = torch.where(fires, says + int(worth), says)
        spikes = spikes + fires.sum(dim=(1, 2, 3))
    return says, spikes


def fitted_by_numbers(v: Tensor, fitted: Tensor, zero: int) -> tuple[Tensor, Tensor]:
    """The same in float64, where a spike is the number 1 and no choice is made.

    A difference of float32 numbers that is rounded to float64 and then to float32 is the one that
    is rounded once, because 53 >= 2*24 + 2: so membranes are what float32 makes them.
    """
    T, h, d = fitted.double()
    u, train = v.flatten().double(), torch.zeros(len(T), v.numel(), dtype=torch.float64)
    for threshold, reset, z in zip(T, h, train, strict=True):
        z.copy_(u >= threshold)
        u = (u - z * reset).float().double()
    says = (d @ train).to(torch.int64).view(v.shape)
    return says + zero, train.view(len(T), len(v), -1).sum((0, 2)).to(torch.int64)


def check_fitted(
    fitted: Tensor | None,
    zero: int,
    K: int,
    top: Tensor | None,
    table: Tensor | None,
    step: float | None,
) -> None:
    """Fitted neurons have finite T and h, and whole d, for each of 1 to 16 time steps."""
    if fitted is None:
        if zero != 0:
            raise ValueError(f"zero={zero} is of fitted neurons: give fitted, or leave it out")
        return
    shape = tuple(fitted.shape)
    if fitted.dtype != torch.float32 or len(shape) != 2 or shape[0] != 3 or not 1 <= shape[1] <= 16:
        raise ValueError(f"fitted is {fitted.dtype} {shape}: give float32 [3, K] with K of 1 to 16")
    d = fitted[2]
    if not bool(torch.isfinite(fitted).all() & (d == d.round()).all() & (d.abs() <= 2**15).all()):
        raise ValueError(
            f"fitted is {fitted.tolist()}: give finite T and h, and whole d of at most 2^15"
        )
    if not 1 <= K <= 16:
        raise ValueError(f"K={K}: the codes of fitted neurons have 1 to 16 bits")
    if not 0 <= zero < 2**K:
        raise ValueError(f"zero={zero}: give a code of {K} bits, 0 to {2**K - 1}")
    if top is not None or table is not None or step is not None:
        raise ValueError(
            f"fitted is given with top={top}, table={table} and step={step}: fitted neurons stop "
            "where their codes end, have no table, and give codes"
        )
