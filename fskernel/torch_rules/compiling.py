"""What torch.compile shall call while it looks on, instead of looking inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

R = TypeVar("R", bound=Callable[..., object])


def constant_in_graphs(function: R) -> R:
    """Has torch.compile call the function, and keep what it returns as a constant.

    As torch.compiler.assume_constant_result, which imports torch's compiler: that takes seconds,
    and most programs never compile.
    """
    function._dynamo_marked_constant = True
    return function


def constant(value: float) -> float:
    """The number, which the graph then holds for only: dynamic=True would make it a variable."""
    return torch.fx.experimental.symbolic_shapes.guard_scalar(value)


@constant_in_graphs
def float32(value: float) -> float:
    """The number, rounded to float32."""
    return float(torch.tensor(value, dtype=torch.float32))
