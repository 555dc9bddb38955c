"""The kernels of rate-coded neurons on the CPU: up to 8 time steps in one call.

A spike train is a uint8 tensor [N, H, W, C]: bit s of a byte says whether the neuron fired at step
s of the call. All sums are exact, and what follows them is float32 in a fixed order, so that every
instruction set and both paths give the same bits. Wrong arguments raise ValueError, naming the
argument, its value and the cure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fskernel.codes.geometry import Geometry
from fskernel.kernels.native import operators
from fskernel.kernels.ops import conv_arguments
from fskernel.torch_rules.gradient import refuse_gradient

if TYPE_CHECKING:
    from fskernel.network.synapses import Synapses

MOST_STEPS = 8  # the bits of a byte
PATHS = ("auto", "dense", "events")
MOST_GATED = 511  # inputs of a max-pool's window
MOST_TOTAL = 2**20  # spikes of a neuron that a max-pool compares


def pack_rows(groups: Sequence[Synapses]) -> tuple[Tensor, ...] | None:
    """The weights of a layer's groups as the path "events" reads them: one row for each input.

    They belong to the current instruction set.

    Returns:
        One uint8 tensor a group; None where there are no such rows: convolutions in groups.
    """
    if any(s.geometry.groups > 1 for s in groups):
        return None
    inputs = max(s.weight[0].numel() for s in groups)
    return tuple(operators().pack_rows(s.weight, s.geometry.as_ints(), inputs) for s in groups)


def integrate_and_fire(
    groups: Sequence[tuple[Tensor, Synapses]],
    bias: Tensor,
    membrane: Tensor,
    *,
    steps: int,
    rows: Sequence[Tensor] | None = None,
    residual: tuple[Tensor, Tensor] | None = None,
    path: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Several time steps of a layer of rate-coding integrate-and-fire neurons.

    Every step is one of `ops.integrate_and_fire`: the current is v = fma(acc, m, bias), then the
    second group and the residual; membrane += v, one float32 addition; a neuron whose membrane is
    1 or more fires, and its membrane loses 1 (reset by subtraction).

    Args:
        groups: one or two (spike trains [N, H, W, I], Synapses).
        bias: float32 [O], in units of the threshold and of a time step.
        membrane: float32 [N, OH, OW, O], contiguous; updated by all steps.
        steps: 1 to 8.
        rows: what `pack_rows` made of the groups; None: the dense path alone.
        residual: (spike trains [N, OH, OW, O], float32 tensor of one element), or None.
        path: how sums are computed. "dense": by the multiplications of FS layers, whose time does
            not depend on the spikes. "events": by adding the weights of each spike. "auto": by
            whichever is expected to be faster, from the share of the inputs that spike.

    Returns:
        Spike trains [N, OH, OW, O], and the spikes of each step and image, int64 [steps, N].
    """
    first, second = (*(rows or ()), None, None)[:2]
    return operators().integrate_and_fire_trains(
        *conv_arguments(groups, bias, residual), first, second, membrane, steps, path
    )


def integrate_current(current: Tensor, membrane: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    """Several time steps of neurons whose input current does not change.

    Args:
        current: float32 [N, H, W, C], in units of the threshold.
        membrane: float32 of the same shape, contiguous; updated by all steps.
        steps: 1 to 8.

    Returns:
        Spike trains [N, H, W, C], and the spikes of each step and image, int64 [steps, N].
    """
    refuse_gradient(current=current)
    return operators().integrate_and_fire_current(current, membrane, steps)


def gate_pool(x: Tensor, totals: Tensor, geometry: Geometry, *, steps: int) -> Tensor:
    """Max-pool of spikes: of each window, those of the input that has fired most so far.

    The step at hand is included, and of several such inputs the first one counts.

    Args:
        x: spike trains [N, H, W, C].
        totals: int32 [N, H, W, C], contiguous: spikes of all steps before, at most `MOST_TOTAL`;
            updated.
        geometry: of the window, of at most `MOST_GATED` inputs; its groups are ignored.
        steps: 1 to 8.

    Returns:
        Spike trains [N, OH, OW, C].
    """
    return operators().gate_pool(x, totals, geometry.as_ints(), steps)


def at_step(trains: Tensor, step: int) -> Tensor:
    """The spikes of one step, 0 or 1, uint8 of the same shape."""
    return trains.bitwise_right_shift(step).bitwise_and_(1)


def of_steps(spikes: Sequence[Tensor]) -> Tensor:
    """The trains of the spikes, uint8 0 or 1, of one step after another."""
    trains = torch.zeros_like(spikes[0])
    for step, z in enumerate(spikes):
        trains.bitwise_or_(z.bitwise_left_shift(step))
    return trains
