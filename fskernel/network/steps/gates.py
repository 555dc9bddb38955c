"""The step that multiplies two maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.neuron import GRADED_LIMIT
from fskernel.network.steps.step import Step, array_of
from fskernel.network.stored.fields import Fields
from fskernel.network.stored.step_fields import common_of, info_of, tensor_of


class GateStep(Step):
    """The product of two maps, and neurons behind it, or (code.K == 0) graded values.

    The second of `sources` has as many pixels as the first, or one for the whole map, and as many
    channels, or one for all of them.

    Args:
        zeros: the codes of zero of what it reads.
        m: float32 [C], what a product of two codes is worth, in units of the output's step.
        bias: float32 [C], the code of zero of words with the 0.5 of rounding "nearest"; of graded
            values 0.
        info: alpha and rounding, for the report.
    """

    op = "gate"
    # As of a ConvStep; needed to compare words with the float network, not to run.
    channel_scale: Tensor | None = None

    def __init__(
        self, name, sources, code, fused, zeros: Sequence[int], m: Tensor, bias: Tensor, info: dict
    ):
        super().__init__(name, sources, code, fused)
        self.zeros = tuple(zeros)
        self.register_buffer("m", m)
        self.register_buffer("bias", bias)
        self.info = dict(info)

    @classmethod
    def of_codes(
        cls,
        name: str,
        sources: list[str],
        code: Code,
        fused: tuple[str, ...],
        reads: tuple[Code, Code],
        channels: int,
        *,
        offset: float = 0.0,
        scale: Tensor | None = None,
        info: dict | None = None,
    ) -> GateStep:
        """The step whose m and bias are right for these codes, each rounded to float32 once.

        Args:
            reads: what the codes mean that it multiplies.
            channels: of the first of them.
            offset: of the rounding of words, 0.5 for "nearest".
            scale: float64 [C], what conversion multiplied channels of the first map by, times what
                it multiplied those of the second by, over what it multiplies these by; None: 1.
        """
        worth = reads[0].step * reads[1].step / code.step
        m = torch.full((channels,), worth, dtype=torch.float64)
        if scale is not None:
            m = m / scale
        bias = torch.full_like(m, code.zero + offset if code.K else 0.0)
        zeros = (reads[0].zero, reads[1].zero)
        return cls(
            name, sources, code, fused, zeros, m.float(), bias.float(), {"notes": []} | (info or {})
        )

    @property
    def out_channels(self) -> int:
        """Products at one position."""
        return len(self.m)

    @property
    def spiking(self) -> bool:
        """Whether it has neurons; else it gives graded values."""
        return self.code.K > 0

    @property
    def limit(self) -> int:
        """Of graded output."""
        return GRADED_LIMIT if self.spiking else self.code.x_max

    def gate_ops(self, size: tuple[int, int]) -> int:
        """Products for an output of this size."""
        return self.out_channels * math.prod(size)

    def run(self, inputs, backend, *, plane_bits=0, halo=None):
        return backend.gate(*inputs, self.zeros, self.m, self.bias, K=self.code.K, limit=self.limit)

    def meeting(self, sizes: list[tuple[int, int]]) -> set[tuple[int, int]]:
        return set(sizes[:1] if sizes[1] == (1, 1) else sizes)

    def kind(self) -> str:
        if not self.spiking:
            return "gate, graded values"
        return "gate, FS neurons" + (" with an offset" if self.code.zero else "")

    def why_no_spikes(self) -> str:
        return (
            "gives graded values, the products of two maps, and no spikes; "
            'converted with bottleneck="spiking" it has neurons'
        )

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        m = array_of(self.m, torch.float32, f"m of '{self.name}'")
        bias = array_of(self.bias, torch.float32, f"bias of '{self.name}'")
        return plan.gate(self.name, *inputs, *self.zeros, m, bias, self.code.K, self.limit)

    def spec(self) -> dict:
        return super().spec() | {"zeros": list(self.zeros), "info": self.info}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> GateStep:
        common, zeros = common_of(fields), fields.take_list("zeros", int, 2)
        m, bias = (tensor_of(tensors, name, fields.place) for name in ("m", "bias"))
        return cls(*common, zeros, m, bias, info_of(fields))
