"""What torch.compile shall call while it looks on, instead of looking inside: packing, rounding.

Imported only then, because torch's compiler takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.fx.experimental.symbolic_shapes import guard_scalar

from fskernel.exporting import refuse_onnx
from fskernel.steps import Code

if TYPE_CHECKING:
    from fskernel.layers import FSConv2d, FSLinear
    from fskernel.network import FSNetwork


def constant(value: float) -> float:
    """The number, which the graph then holds for only: dynamic=True would make it a variable."""
    return guard_scalar(value)


@torch.compiler.assume_constant_result
def pack(layer: FSConv2d | FSLinear, *code: str | float) -> None:
    """Packs a layer for inputs of a code, given by its fields: numbers are what can be passed."""
    refuse_onnx(layer)
    layer._pack(Code(*code))


@torch.compiler.assume_constant_result
def plan(net: FSNetwork) -> None:
    """Lays a network out."""
    refuse_onnx(net)
    net._made_plan()


@torch.compiler.assume_constant_result
def float32(value: float) -> float:
    """The number, rounded to float32."""
    return float(torch.tensor(value, dtype=torch.float32))
