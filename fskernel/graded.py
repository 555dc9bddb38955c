"""Graded values: signed integers of one step size, for what is not a neuron."""

from __future__ import annotations

import torch
from torch import Tensor

from fskernel.steps import Code


class GradedTensor:
    """Integers that stand for integer*step, such as the output of an average-pool on spikes.

    Args:
        integers: int16 [N, C, H, W] (kept channels_last) or [N, F].
        code: step and declared range; see `fskernel.steps.Code`.
    """

    def __init__(self, integers: Tensor, code: Code):
        if not isinstance(integers, Tensor) or integers.dtype != torch.int16:
            raise TypeError(f"integers is {getattr(integers, 'dtype', type(integers))}: not int16")
        if integers.dim() == 4:
            integers = integers.contiguous(memory_format=torch.channels_last)
        self.integers, self.code = integers, code

    @property
    def shape(self) -> torch.Size:
        """Shape of the integers."""
        return self.integers.shape

    def values(self) -> Tensor:
        """integer*step in float64, rounded to float32."""
        return (self.integers.to(torch.float64) * self.code.step).to(torch.float32)

    def __repr__(self) -> str:
        return f"GradedTensor(shape={tuple(self.shape)}, step={self.code.step:g})"
