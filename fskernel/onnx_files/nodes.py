"""A node of an ONNX file on its way to a module: attributes, and what is known of its inputs.

A value is of one of three kinds. A "constant" is known when the file is read. "sizes" are numbers
that are computed from the shape of the image alone: Python's, one or a list, so that an exporter
sees sizes and no data. A "tensor" depends on the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from fskernel.errors import ConversionError


@dataclass
class Operand:
    """One input of a node.

    Attributes:
        name: in the file. kind: "constant", "sizes" or "tensor". value: of a constant.
        shape: None where unknown, and None for a dimension that is. dtype: numpy's, or None.
    """

    name: str
    kind: str
    value: np.ndarray | None = None
    shape: tuple[int | None, ...] | None = None
    dtype: np.dtype | None = None

    @property
    def rank(self) -> int | None:
        """How many dimensions it has, if that is known."""
        return None if self.shape is None else len(self.shape)


@dataclass
class Node:
    """What the functions that build operators are given.

    Attributes:
        path: the name of its module. operands: its inputs, None for one that is left out.
        outputs: its names, "" for one that is left out. needed: which of them are read.
        opset: the version of the operator set.
    """

    path: str
    operator: str
    opset: int
    attributes: dict[str, Any]
    operands: list[Operand | None]
    outputs: list[str]
    needed: list[bool]

    def refuse(self, reason: str, cure: str) -> NoReturn:
        raise ConversionError(self.path, f"{self.operator}: {reason}", cure)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def operand(self, i: int) -> Operand | None:
        return self.operands[i] if 0 <= i < len(self.operands) else None

    def given(self, i: int) -> bool:
        return self.operand(i) is not None

    def constant(self, i: int) -> np.ndarray | None:
        """The value of an input, if it is there and known."""
        operand = self.operand(i)
        return None if operand is None else operand.value

    def rank(self, i: int = 0) -> int | None:
        operand = self.operand(i)
        return None if operand is None else operand.rank

    def integer(self, i: int = 0) -> bool:
        """Whether an input is known to be of integers."""
        operand = self.operand(i)
        return operand is not None and operand.dtype is not None and operand.dtype.kind in "iu"

    def weight(self, i: int, what: str) -> Tensor | None:
        """A constant input as a tensor, None where it is left out; one that varies is refused."""
        if not self.given(i):
            return None
        value = self.constant(i)
        if value is None:
            self.refuse(
                f"its {what} depends on the image", "Export a network whose weights are constants"
            )
        return tensor(value)

    def setting(self, name: str, i: int | None = None) -> list | None:
        """Numbers that are an attribute in older opsets and a constant input in newer ones."""
        if name in self.attributes:
            found = self.attributes[name]
            return list(found) if isinstance(found, Sequence) else [found]
        if i is None or not self.given(i):
            return None
        value = self.constant(i)
        if value is None:
            self.refuse(f"its {name} depend on the image", f"Export it with constant {name}")
        return value.reshape(-1).tolist()

    def only_output(self, what: str) -> None:
        """Refuses a node of which more than the first output is read."""
        if any(self.needed[1:]):
            self.refuse(f"its {what} are read, too", "Use what it computes from the image alone")

    def apply(
        self,
        function: Callable,
        reads: Sequence[int] | None = None,
        numbers: Sequence[int] = (),
        scalars: bool = False,
    ) -> Operation:
        """A module that calls `function` with inputs of this node, None for one left out.

        Args:
            reads: which inputs; default: all.
            numbers: those of them that are Python numbers, one or a list: shapes, axes, pads.
            scalars: constants of one element are numbers, too.
        """
        if reads is None:
            reads = range(len(self.operands))
        for i in numbers:
            operand = self.operand(i)
            if operand is not None and operand.kind == "tensor":
                self.refuse(
                    f"its input '{operand.name}' depends on the pixels of the image",
                    "Export a network whose shapes depend on sizes alone",
                )
        ranks = [o.rank for i in reads if (o := self.operand(i)) and o.kind == "tensor"]
        slots: list[Slot] = []
        for i in reads:
            operand = self.operand(i)
            if operand is None:
                slots.append(Slot("fixed", None))
            elif operand.value is None:
                as_tensor = operand.kind == "sizes" and i not in numbers
                slots.append(Slot("sizes" if as_tensor else "read"))
            elif i in numbers:
                slots.append(Slot("fixed", operand.value.tolist()))
            elif scalars and operand.value.size == 1 and _no_higher(operand.value.ndim, ranks):
                slots.append(Slot("fixed", operand.value.item()))
            else:
                slots.append(Slot("buffer", tensor(operand.value)))
        return Operation(function, slots, [i for i in reads if self.varies(i)])

    def varies(self, i: int) -> bool:
        """Whether an input is there and no constant."""
        operand = self.operand(i)
        return operand is not None and operand.value is None


def _no_higher(rank: int, ranks: list[int | None]) -> bool:
    """Whether an operand of one element leaves the rank of the result alone."""
    return rank == 0 or any(r is not None and r >= rank for r in ranks)


@dataclass
class Slot:
    """An argument of an operation's function.

    kind is "read" (handed to forward), "sizes" (the same, a list of numbers that the function wants
    as a tensor), "fixed" (`value`) or "buffer" (the tensor `value`, which moves with the module).
    """

    kind: str
    value: Any = None


class Operation(nn.Module):
    """One node of an ONNX file that no module of torch stands for.

    Attributes:
        reads: which of the node's inputs are the arguments of forward.
    """

    def __init__(self, function: Callable, slots: list[Slot], reads: Sequence[int] = (0,)):
        super().__init__()
        self.function, self.slots, self.reads = function, slots, tuple(reads)
        for i, slot in enumerate(slots):
            if slot.kind == "buffer":
                self.register_buffer(f"operand_{i}", slot.value)
                slot.value = None  # kept once

    def forward(self, *given):
        """What the function makes of the values that depend on the image, and of its constants."""
        values = iter(given)
        arguments = []
        for i, slot in enumerate(self.slots):
            if slot.kind == "buffer":
                arguments.append(getattr(self, f"operand_{i}"))
            elif slot.kind == "fixed":
                arguments.append(slot.value)
            elif slot.kind == "sizes":
                numbers = next(values)
                arguments.append(torch.tensor(numbers) if isinstance(numbers, list) else numbers)
            else:
                arguments.append(next(values))
        return self.function(*arguments)

    def extra_repr(self) -> str:
        function = getattr(self.function, "func", self.function)  # of a partial
        return getattr(function, "__name__", repr(function)).strip("_")


def tensor(value: np.ndarray) -> Tensor:
    """A constant as torch's, with memory of its own."""
    if value.dtype.name == "bfloat16":  # numpy has none of its own, and torch reads no other's
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(value, order="C"))


def filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """A module that was made on the device "meta", which costs nothing, with these tensors."""
    for name, value in tensors.items():
        if value is not None:
            parameter = name in dict(module.named_parameters(recurse=False))
            setattr(module, name, nn.Parameter(value) if parameter else value)
    return module
