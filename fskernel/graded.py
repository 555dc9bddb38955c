"""Graded values: signed integers of one step size, for what is not a neuron."""

from __future__ import annotations

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.torch_rules.float_environment import in_float_environment


class GradedTensor:
    """Integers that stand for integer*step, such as the output of an average-pool on spikes.

    Args:
        integers: int16 [N, C, H, W] (kept channels_last) or [N, F].
        code: step and declared range; see `fskernel.steps.Code`.
        check: compare every integer with the range; off only for what is right by construction.

    Raises:
        TypeError: integers not an int16 tensor, code not a Code.
        ValueError: an integer outside the declared range, which kernels rely on.
    """

    def __init__(self, integers: Tensor, code: Code, *, check: bool = True):
        if not isinstance(integers, Tensor) or integers.dtype != torch.int16:
            raise TypeError(f"integers is {getattr(integers, 'dtype', type(integers))}: not int16")
        if not isinstance(code, Code):
            raise TypeError(f"code is a {type(code).__name__}: give a fskernel.steps.Code")
        if check and integers.numel():
            low, high = (int(v) for v in torch.aminmax(integers))
            if low < code.x_min or high > code.x_max:
                raise ValueError(
                    f"integers reach from {low} to {high}, outside the declared range "
                    f"[{code.x_min}, {code.x_max}]"
                )
        if integers.dim() == 4:
            integers = integers.contiguous(memory_format=torch.channels_last)
        self.integers, self.code = integers, code

    @property
    def shape(self) -> torch.Size:
        """Shape of the integers."""
        return self.integers.shape

    @in_float_environment
    def values(self) -> Tensor:
        """integer*step in float64, rounded to float32."""
        return (self.integers.to(torch.float64) * self.code.step).to(torch.float32)

    def __repr__(self) -> str:
        return f"GradedTensor(shape={tuple(self.shape)}, step={self.code.step:g})"
