"""The steps that give a network's floats where they are no logits of one readout."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.network.steps.affine import ConvStep
from fskernel.network.steps.step import Step
from fskernel.network.stored.fields import Fields
from fskernel.network.stored.step_fields import common_of, tensor_of
from fskernel.network.synapses import Synapses


class MapReadoutStep(ConvStep):
    """An affine layer whose membranes, in units of 1, are the output: float32 [N, O, H, W].

    Args:
        groups, bias, r, info: as of a ConvStep.
    """

    op = "map_readout"
    spiking = False

    def __init__(self, name, sources, fused, groups: list[Synapses], bias, r, info: dict):
        super().__init__(name, sources, None, fused, groups, bias, r, info)

    def run(self, inputs, backend, *, plane_bits=0, halo=None):
        n = len(self.groups)
        residual = (inputs[n], self.r) if self.r is not None else None
        y, _ = backend.conv(
            list(zip(inputs[:n], self.groups, strict=True)),
            self.bias,
            K=0,
            residual=residual,
            plane_bits=plane_bits,
            step=Code.real().step,
            count=False,
        )
        return y.permute(0, 3, 1, 2), None

    def kind(self) -> str:
        return "readout of every pixel" + ("" if self.r is None else ", residual")

    def why_no_spikes(self) -> str:
        return "is read out as floats, and has no spikes"

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        raise ValueError(f"'{self.name}' is read out pixel by pixel, which no native plan does")

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> MapReadoutStep:
        name, sources, _, fused = common_of(fields, code=False)
        groups, bias, r, info, *neurons = cls.parts_of(fields, tensors)
        if any(tensor is not None for tensor in neurons):
            raise ValueError(f"{fields.place}.ceilings, shaped, fitted: a readout has no neurons")
        return cls(name, sources, fused, groups, bias, r, info)


class OutputStep(Step):
    """What a layer gives, as the floats that its integers stand for: float32 [N, C, H, W].

    Args:
        reads: what the integers mean.
        scale: float64 [C], what its channels' membranes were multiplied by; None: 1.
    """

    op = "output"

    def __init__(self, name, sources, fused, reads: Code, scale: Tensor | None = None):
        super().__init__(name, sources, None, fused)
        self.reads = reads
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor, backend) -> Tensor:
        y = (x.double() - self.reads.zero) * self.reads.step
        if self.scale is not None:
            y = y / self.scale
        return y.to(torch.float32).permute(0, 3, 1, 2)

    def kind(self) -> str:
        return "output, as floats"

    def why_no_spikes(self) -> str:
        return "shows the spikes of the layer before it"

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        raise ValueError(f"'{self.name}' shows a layer's output, which no native plan does")

    def spec(self) -> dict:
        scaled = {} if self.scale is None else {"scaled": True}
        return super().spec() | {"reads": asdict(self.reads)} | scaled

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> OutputStep:
        name, sources, _, fused = common_of(fields, code=False)
        reads = Code.from_fields(Fields(fields.take("reads", dict), f"{fields.place}.reads"))
        scaled = fields.optional("scaled", bool)
        scale = tensor_of(tensors, "scale", fields.place) if scaled else None
        return cls(name, sources, fused, reads, scale)
