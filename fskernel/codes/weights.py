"""Integer weights and what makes membranes of their sums: scales, multipliers, biases."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fskernel.graph import Group
    from fskernel.network.synapses import Synapses

INT32_LIMIT = 2**31


class QuantisedWeights(NamedTuple):
    """Integer weights of one synapse group: value = weight * scale[output channel]."""

    weight: Tensor  # int8 or int16, [O, I/groups, kh, kw]
    scale: Tensor  # float64, [O], positive
    effective_bits: Tensor  # float64, [O]: 1 + log2 of the largest magnitude a weight may have


def quantise_weights(weight: Tensor, bits: int, x_min: int, x_max: int) -> QuantisedWeights:
    """Round float weights to symmetric integers whose sums provably fit 32 bits.

    Args:
        weight: float [O, I/groups, kh, kw], finite.
        bits: 8 (at most 127 in magnitude) or 16 (32767).
        x_min, x_max: declared range of the input codes. The contract's bound, per output channel:
            x_max*sum(w+) + |x_min|*sum(|w-|) < 2^31 and its mirror. Where full-scale weights would
            break it the channel's scale is raised, which costs it bits.

    Returns:
        The integers, their scales and the effective bits. An all-zero channel has scale 1.

    Raises:
        ValueError: bits other than 8 or 16, or weights with NaN or infinity.
    """
    if bits not in (8, 16):
        raise ValueError(f"weight_bits={bits!r} is not supported: use 8 or 16")
    w = weight.detach().to(torch.float64)
    if not torch.isfinite(w).all():
        bad = int((~torch.isfinite(w)).sum())
        raise ValueError(
            f"weight has {bad} value(s) that are NaN or infinite: repair the checkpoint before "
            "converting it"
        )
    top = 2 ** (bits - 1) - 1
    flat = w.reshape(len(w), -1)
    largest = flat.abs().amax(1) if flat.shape[1] else flat.new_zeros(len(w))
    limit = torch.full_like(largest, float(top))
    silent = largest == 0
    safe = torch.where(silent, torch.ones_like(largest), largest)
    while True:
        scale = torch.where(silent, torch.ones_like(largest), safe / limit)
        # A denormal maximum would divide by a scale of zero.
        scale = torch.clamp(scale, min=torch.finfo(torch.float64).tiny)
        ints = torch.clamp(torch.round(flat / scale[:, None]), -top, top)
        worst = largest_sum(ints, x_min, x_max)
        over = worst >= INT32_LIMIT
        if not over.any():
            break
        # Shrink by the excess, and a little more, because rounding may add half a unit a weight.
        shrunk = torch.floor(limit * (INT32_LIMIT - 1) / worst) - 1
        limit = torch.where(over, torch.minimum(shrunk, limit - 1), limit)
        if (limit < 1).any():
            raise ValueError(
                f"no weight scale keeps the sum of {flat.shape[1]} synapses with inputs in "
                f"[{x_min}, {x_max}] below 2^31: use a smaller K"
            )
    dtype = torch.int8 if bits == 8 else torch.int16
    effective = 1 + torch.log2(limit + 1)
    return QuantisedWeights(ints.to(dtype).reshape(w.shape), scale, effective)


def largest_sum(weight: Tensor, x_min: int, x_max: int) -> Tensor:
    """Largest magnitude, per output channel, that sum(weight*x) can take for x in the range."""
    flat = weight.reshape(len(weight), -1)
    plus = flat.clamp(min=0).sum(1, dtype=torch.float64)
    minus = -flat.clamp(max=0).sum(1, dtype=torch.float64)
    low, high = max(0, -x_min), max(0, x_max)
    return torch.maximum(high * plus + low * minus, high * minus + low * plus)


def multiplier(scale: Tensor, step_in: float, step_out: float) -> Tensor:
    """M of the contract: weight_scale*step_in/step_out in float64, rounded to float32 once."""
    return (scale.to(torch.float64) * step_in / step_out).to(torch.float32)


def threshold_bias(bias: Tensor, step_out: float, offset: float | Tensor) -> Tensor:
    """B of the contract: bias/step_out + offset in float64, rounded to float32 once."""
    return (bias.to(torch.float64) / step_out + offset).to(torch.float32)


def ratio(step_residual: float, step_out: float) -> Tensor:
    """R of the contract, float32 [1]."""
    value = step_residual / step_out
    if not math.isfinite(value):
        raise ValueError(f"the residual's step {step_residual} over {step_out} is not finite")
    return torch.tensor([value], dtype=torch.float64).to(torch.float32)


def group_macs(group: Group | Synapses, positions: int) -> int:
    """Multiply-accumulates of the dense network that a synapse group stands for, in one image.

    Those that meet padding are counted. A group that only passes channels on, scaled or not
    (identity branches, option-A shortcuts, a batch norm of its own), has none.
    """
    return 0 if group.one_to_one else group.weight.numel() * positions


def fold_batch_norm(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """A batch norm with running statistics as scale and shift, y = scale*x + shift: float64 [C]."""
    scale = (var.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()
