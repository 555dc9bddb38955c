"""Calls of a layer that differ from the last one in the values alone, as most calls do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fskernel.kernels import ops
from fskernel.network.watched import changes
from fskernel.torch_rules.forking import refuse_waiting

if TYPE_CHECKING:
    from fskernel.drop_in.layers import FSConv2d, FSLinear
    from fskernel.network.steps import ConvStep

_log = logging.getLogger(__name__)


class Settled:
    """What one float call on the CPU found out and the next one need not.

    It holds as long as the layer's attributes are not set, which drops it, its weights are not
    written to or exchanged and the instruction set stays. A small layer computes for 50 us, and
    looking at everything anew would take as long.
    """

    __slots__ = ("_arguments", "_isa", "_operator", "_weights")

    def __init__(self, layer: FSConv2d | FSLinear, encoder: ops.Encoder, step: ConvStep):
        group = step.groups[0]
        self._weights = tuple(
            (name, p, p.data_ptr(), changes(p))
            for name, p in layer._parameters.items()
            if p is not None
        )
        self._isa = ops.current_isa()
        self._arguments = (
            *encoder, group.packed(), group.m, group.as_ints(), step.bias, None, step.code.K,
            step.code.step, layer.plane_bits,
        )  # fmt: skip
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s: what its calls on the CPU have in common is settled", layer)

    def __reduce__(self):
        return type(None), ()  # not part of a copy: it is found out again

    def holds(self, layer: FSConv2d | FSLinear, x: object, rank: int, channels: int) -> bool:
        """Whether x is a plain tensor that the layer, as it is now, reads like the last one."""
        if (
            type(x) is not Tensor
            or not x.is_cpu
            or x.dtype not in ops.FLOATS
            or x.layout is not torch.strided
            or x.requires_grad
            or torch._C._is_tracing()
            or torch._C._functorch.is_batchedtensor(x)
            or forward_ad._current_level >= 0
            or self._isa != ops.current_isa()
        ):
            return False
        shape = x.shape
        if len(shape) != rank or shape[1] != channels:
            return False
        parameters = layer._parameters
        for name, parameter, pointer, changed in self._weights:
            if (
                parameters.get(name) is not parameter
                or parameter.data_ptr() != pointer
                or changes(parameter) != changed
            ):
                return False
        return True

    def __call__(
        self, x: Tensor, count: bool, channels_last: bool
    ) -> tuple[Tensor, Tensor, list[float]]:
        """As `ops.conv_floats`; what the encoder met as numbers."""
        refuse_waiting()
        y, counts, seen = torch.ops.fskernel.conv_floats.default(
            x, *self._arguments, count, not channels_last
        )
        return y.permute(0, 3, 1, 2) if channels_last else y, counts, seen.tolist()
