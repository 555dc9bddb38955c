"""What the oracles refuse, and the two bounds that make their arithmetic exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fskernel.codes.neuron import check_K
from fskernel.codes.shape import SEGMENTS

if TYPE_CHECKING:
    from fskernel.network.synapses import Synapses

CODE_DTYPES = (torch.uint8, torch.int16)


def check_exact(largest: int, weight: Tensor) -> None:
    """float64 sums of integers are exact while the magnitudes add up to less than 2^53."""
    if weight.numel():
        most = float(weight.flatten(1).to(torch.float64).abs().sum(1).max()) * largest
        if most >= 2.0**53:
            raise ValueError(f"sums may reach {most:.3g}, beyond 2^53: too many synapses a neuron")


def within_int32(acc: Tensor) -> Tensor:
    """The sums themselves, if each is an int32, as the bound on the weights promises."""
    if acc.numel():
        low, high = (int(bound) for bound in torch.aminmax(acc))
        if low < -(2**31) or high >= 2**31:
            worst = high if high >= 2**31 else low
            raise ValueError(f"a sum is {worst}, outside int32: raise the weight scale")
    return acc


def check_codes(name: str, x: Tensor) -> None:
    """Activations are uint8 or int16 with four dimensions."""
    if x.dtype not in CODE_DTYPES or x.dim() != 4:
        raise TypeError(f"{name} is {x.dtype} {tuple(x.shape)}: give uint8 or int16 [N, H, W, C]")


def check_range(x: Tensor, x_min: int, x_max: int) -> None:
    """Activations lie in the range that was declared to their reader."""
    if x.numel():
        low, high = (int(bound) for bound in torch.aminmax(x))
        if low < x_min or high > x_max:
            raise ValueError(
                f"x holds codes {low}..{high}, outside the declared range {x_min}..{x_max} of what "
                "reads it"
            )


def check_vector(name: str, value: Tensor, length: int) -> None:
    """Multipliers and biases are float32, one for each output channel."""
    if value.dtype != torch.float32 or value.shape != (length,):
        raise ValueError(
            f"{name} is {value.dtype} {tuple(value.shape)}: give float32 [{length}], one for each "
            "output channel"
        )


def check_top(top: Tensor, channels: int, K: int) -> None:
    """Largest words are whole numbers from 0 to 2^K - 1, one for each output channel."""
    check_vector("top", top, channels)
    if not bool(((top >= 0) & (top <= 2**K - 1) & (top == top.floor())).all()):
        raise ValueError(f"top is {top.tolist()}: give whole numbers from 0 to {2**K - 1}")


def check_table(
    table: Tensor, channels: int, K: int, top: Tensor | None, step: float | None
) -> None:
    """Tables of shaped neurons are finite float32, one for all channels or one for each."""
    shape = tuple(table.shape)
    fits = len(shape) == 3 and shape[0] in (1, channels) and shape[1] == 2
    if table.dtype != torch.float32 or not fits or shape[2] not in SEGMENTS:
        raise ValueError(
            f"table is {table.dtype} {shape}: give float32 [1, 2, S] or [{channels}, 2, S] with "
            f"S one of {SEGMENTS}"
        )
    if not bool(torch.isfinite(table).all()):
        raise ValueError("table holds NaN or infinite values: give finite slopes and offsets")
    if K < 1 or top is not None or step is not None:
        raise ValueError(
            f"table is given with K={K}, top={top} and step={step}: shaped neurons have K of 1 to "
            "15, stop where their table ends, and give words"
        )


def check_layer(
    groups: Sequence[tuple[Tensor, Synapses]],
    bias: Tensor,
    K: int,
    residual: tuple[Tensor, Tensor] | None,
    plane_bits: int,
    fitted: bool = False,
) -> None:
    """The parts of a layer must fit together, and its codes lie in their declared range."""
    if len(groups) not in (1, 2):
        raise ValueError(f"groups has {len(groups)} entries: a layer has one or two synapse groups")
    if K != 0 and not fitted:
        check_K(K)
    if plane_bits not in (0, 1, 2, 4, 8):
        raise ValueError(f"plane_bits={plane_bits} is none of 0, 1, 2, 4, 8")
    sizes = []
    for x, synapses in groups:
        check_codes("x", x)
        check_vector("bias", bias, len(synapses.weight))
        inputs = synapses.weight.shape[1] * synapses.geometry.groups
        if x.shape[3] != inputs:
            raise ValueError(f"x has {x.shape[3]} channels, the synapses expect {inputs}")
        check_range(x, synapses.x_min, synapses.x_max)
        sizes.append((x.shape[0], *synapses.geometry.output_size(*x.shape[1:3])))
    if len(set(sizes)) != 1:
        raise ValueError(f"the synapse groups give [N, OH, OW] of {sizes}: they must agree")
    if residual is not None:
        check_codes("residual", residual[0])
        if residual[1].dtype != torch.float32 or residual[1].numel() != 1:
            raise ValueError("the residual's r must be one float32 number")
