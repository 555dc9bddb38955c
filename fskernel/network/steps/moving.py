"""The steps that only move codes: side by side, or to other pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fskernel.codes.moves import Move, Run, side_by_side
from fskernel.network.steps.step import Step
from fskernel.network.stored.fields import Fields
from fskernel.network.stored.step_fields import common_of, move_of, runs_of


class ConcatStep(Step):
    """Codes of one step size, side by side along the channels.

    Args:
        runs: which channels of which source, in the order of the output; empty: all of them.
    """

    op = "concat"
    runs: tuple[Run, ...] = ()  # here, as older pickles hold none

    def __init__(self, name, sources, code, fused, runs: Sequence[Run] = ()):
        super().__init__(name, sources, code, fused)
        self.runs = tuple(runs)

    def forward(self, *inputs: Tensor) -> Tensor:
        return side_by_side(inputs, self.runs, 3)

    def run(self, inputs, backend, *, plane_bits=0, halo=None):
        return self(*inputs), None

    def kind(self) -> str:
        what = "words" if self.code.kind == "words" else "values"
        return f"concatenation of {what}" if len(self.sources) > 1 else f"channels of {what}"

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        return plan.concat(self.name, inputs, self.runs)

    def spec(self) -> dict:
        # Only where there are any: a version that knows no runs refuses the file.
        return super().spec() | ({"runs": [list(run) for run in self.runs]} if self.runs else {})

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> ConcatStep:
        return cls(*common_of(fields), runs_of(fields))


class MoveStep(Step):
    """Codes at other pixels, or several times; the second source, if any, only has a size."""

    op = "move"

    def __init__(self, name, sources, code, fused, move: Move):
        super().__init__(name, sources, code, fused)
        self.move = move

    @property
    def heard(self) -> list[str]:
        return self.sources[:1]

    def forward(self, *inputs: Tensor, zero: int | None = None) -> Tensor:
        size = self.output_size([tuple(x.shape[1:3]) for x in inputs])
        return self.moved(inputs[0], size, self.code.zero if zero is None else zero)

    def moved(self, x: Tensor, size: tuple[int, int], zero: int) -> Tensor:
        """The map x [N, H, W, C], of any integers, moved.

        Args:
            size: of the output. zero: what stands for zero in x.
        """
        moved = self.move.apply(x.permute(0, 3, 1, 2), zero, size)
        return moved.permute(0, 2, 3, 1).contiguous()

    def run(self, inputs, backend, *, plane_bits=0, halo=None):
        return self(*inputs), None

    def output_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        return self.move.output_size(*sizes[0], sizes[-1])

    def meeting(self, sizes: list[tuple[int, int]]) -> set[tuple[int, int]]:
        return set()

    def kind(self) -> str:
        what = "words" if self.code.kind == "words" else "values"
        names = {
            "upsample": f"upsampling of {what}",
            "shuffle": "pixel shuffle",
            "unshuffle": "pixel unshuffle",
            "pad": "padding",
            "crop": "part of a map",
            "expand": "one pixel for a whole map",
        }
        return names[self.move.kind]

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        return plan.move(self.name, inputs, self.move.kind, self.move.numbers, self.code.zero)

    def spec(self) -> dict:
        return super().spec() | {"move": self.move._asdict()}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> MoveStep:
        return cls(*common_of(fields), move_of(fields))
