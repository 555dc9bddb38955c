"""The steps that pool windows."""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry
from fskernel.codes.windows import Windows
from fskernel.network.steps.step import Step
from fskernel.network.stored.fields import Fields
from fskernel.network.stored.step_fields import common_of, geometry_of, windows_of


class PoolStep(Step):
    """Max-pool on codes, or the sum that stands for an average pool."""

    def __init__(self, name, sources, code, fused, geometry: Geometry, kind: str):
        super().__init__(name, sources, code, fused)
        self.geometry, self.op = geometry, kind
        self.averages = kind == "sum_pool"

    @property
    def walk(self) -> Geometry:
        """How its windows walk over the map."""
        return self.geometry

    def forward(self, x: Tensor, backend) -> Tensor:
        pool = backend.sum_pool if self.averages else backend.max_pool
        return pool(x, self.geometry)

    def output_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        return self.geometry.output_size(*sizes[0])

    def kind(self) -> str:
        return "average-pool" if self.averages else "max-pool on words"

    def why_no_spikes(self) -> str:
        if self.averages:
            return "holds the sums of an average-pool, which are graded values and no spikes"
        return super().why_no_spikes()

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        return plan.pool(self.name, inputs[0], self.geometry.as_ints(), not self.averages)

    def spec(self) -> dict:
        return super().spec() | {"geometry": self.geometry._asdict()}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> PoolStep:
        return cls(*common_of(fields), geometry_of(fields), fields.op)


class MeanPoolStep(Step):
    """Means over windows of several sizes, or of more pixels than 16 bits can sum: graded values.

    Args:
        reads: what the codes mean that it averages.
    """

    op = "mean_pool"
    averages = True

    def __init__(self, name, sources, code, fused, windows: Windows, reads: Code):
        super().__init__(name, sources, code, fused)
        self.windows, self.reads = windows, reads

    @property
    def walk(self) -> Windows:
        """How its windows walk over the map."""
        return self.windows

    def forward(self, x: Tensor, backend) -> Tensor:
        return backend.mean_pool(x, self.windows, self.reads, self.code)

    def output_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        return self.windows.output_size(*sizes[0])

    def kind(self) -> str:
        return "average-pool, rounded"

    def why_no_spikes(self) -> str:
        return "holds the means of an average-pool, which are graded values and no spikes"

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        w = self.windows
        output = [n or 0 for n in w.output] if w.kind == "adaptive" else []
        return plan.mean_pool(
            self.name,
            inputs[0],
            output,
            w.geometry.as_ints(),
            w.ceil_mode,
            w.include_pad,
            self.reads.zero,
            self.reads.step,
            self.code.step,
            self.code.x_max,
        )

    def spec(self) -> dict:
        windows = self.windows._asdict() | {"geometry": self.windows.geometry._asdict()}
        return super().spec() | {"windows": windows, "reads": asdict(self.reads)}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> MeanPoolStep:
        common, windows = common_of(fields), windows_of(fields)
        reads = Fields(fields.take("reads", dict), f"{fields.place}.reads")
        return cls(*common, windows, Code.from_fields(reads))
