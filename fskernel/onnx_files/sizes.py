"""Arithmetic on the sizes of an image, in Python's numbers, which an exporter may make symbolic.

A value is a number or a list of them. Nothing here is a module: no data pass through it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fskernel.onnx_files.nodes import Node

Numbers = Any  # int, float, bool, torch.SymInt, ..., or a list of them


@dataclass
class Bound:
    """A function with the constants among its arguments; the others are those of a call."""

    function: Callable
    constants: list[Numbers | None]
    read: list[int]

    def __call__(self, *given: Numbers) -> Numbers:
        arguments = list(self.constants)
        for i, value in zip(self.read, given):
            arguments[i] = value
        return self.function(*arguments)


def computed(node: Node) -> Bound | None:
    """What a node makes of numbers; None: it makes no numbers, or not of numbers alone."""
    build = _builder(node)
    if build is None:
        return None
    constants = [None if o is None or o.value is None else o.value.tolist() for o in node.operands]
    read = [i for i in range(len(node.operands)) if node.varies(i)]
    return Bound(build(node), constants, read)


def _builder(node: Node) -> Callable[[Node], Callable] | None:
    first = node.operand(0)
    if node.operator in MEASURES:
        return MEASURES[node.operator]
    present = [o for o in node.operands if o is not None]
    if first is None or any(o.kind == "tensor" for o in present):
        return None
    if node.operator == "ConstantOfShape":
        value = node.get("value")
        if value is None or value.dtype.kind == "f" or first.shape != (1,):
            return None
    if node.operator in MOVES:
        return MOVES[node.operator] if first.kind == "sizes" else None
    vectors = all(o.value is None or o.value.ndim <= 1 for o in present)
    return ARITHMETIC.get(node.operator) if vectors else None


def shape(node: Node) -> Callable[[Any], list]:
    """Some of the dimensions, or all."""
    return partial(_shape, node.get("start", 0), node.get("end"))


def _shape(start: int, end: int | None, x: Tensor | Numbers) -> list:
    """Of a tensor, or of numbers."""
    found = [len(x)] if isinstance(x, list) else list(getattr(x, "shape", ()))
    return found[start:end]


def size(node: Node) -> Callable[[Any], Numbers]:
    """How many elements there are."""
    return _size


def _size(x: Tensor | Numbers) -> Numbers:
    return reduce(operator.mul, _shape(0, None, x), 1)


def _each(function: Callable) -> Callable[[Node], Callable]:
    """An operation on numbers, element by element."""

    def build(node: Node) -> Callable:
        return partial(_elementwise, function)

    return build


def _elementwise(function: Callable, *operands: Numbers) -> Numbers:
    lengths = {len(o) for o in operands if isinstance(o, list)}
    if not lengths:
        return function(*operands)
    n = max(lengths)
    lists = [o if isinstance(o, list) else [o] for o in operands]
    return [function(*(o[i % len(o)] for o in lists)) for i in range(n)]


def _chain(function: Callable) -> Callable[[Node], Callable]:
    def build(node: Node) -> Callable:
        return partial(_reduced, function)

    return build


def _reduced(function: Callable, *operands: Numbers) -> Numbers:
    return reduce(partial(_elementwise, function), operands)


def _divide(a, b):
    """Sizes are not negative, so that rounding down is cutting off."""
    whole = all(isinstance(n, (int, torch.SymInt)) for n in (a, b))
    return a // b if whole else a / b


def _same(number):
    return number


def _pick(condition, a, b):
    return a if condition else b


def cast(node: Node) -> Callable:
    """Between integers, floats and truth values."""
    import onnx

    kind = onnx.helper.tensor_dtype_to_np_dtype(node.get("to")).kind
    to = {"f": torch.sym_float, "b": bool}.get(kind, torch.sym_int)
    return partial(_elementwise, to)


def concat(node: Node) -> Callable:
    """Lists in a row."""
    return _concat


def _concat(*parts: list) -> list:
    return [number for part in parts for number in part]


def gather(node: Node) -> Callable:
    """One of the numbers, or several."""
    return _gather


def _gather(numbers: list, where: Numbers) -> Numbers:
    return [numbers[i] for i in where] if isinstance(where, list) else numbers[where]


def cut(node: Node) -> Callable:
    """The Slice node."""
    if "starts" in node.attributes:
        starts, ends = (node.get(name) for name in ("starts", "ends"))
        return partial(_cut, starts=starts, ends=ends)
    return _cut


def _cut(numbers: list, starts, ends, axes=None, steps=None) -> list:
    """There is but one axis. Backwards, an end far below 0 is one before the first."""
    step = steps[0] if steps else 1
    end = None if step < 0 and ends[0] < -len(numbers) else ends[0]
    return numbers[starts[0] : end : step]


def squeeze(node: Node) -> Callable:
    """A list of one number becomes the number."""
    return _squeeze


def _squeeze(numbers: Numbers, axes=None) -> Numbers:
    return numbers[0] if isinstance(numbers, list) and len(numbers) == 1 else numbers


def unsqueeze(node: Node) -> Callable:
    """A number becomes a list."""
    operand = node.operand(0)
    if operand is not None and operand.rank:
        node.refuse("it makes a matrix of sizes", "Export shapes that are lists of sizes")
    return _unsqueeze


def _unsqueeze(number: Numbers, axes=None) -> list:
    return [number]


def reshape(node: Node) -> Callable:
    """To a list or to a number."""
    to = node.constant(1)
    if to is None or to.size > 1:
        node.refuse("it makes a matrix of sizes", "Export shapes that are lists of sizes")
    return partial(_reshape, bool(to.size))


def _reshape(to_list: bool, numbers: Numbers, to=None) -> Numbers:
    if to_list:
        return numbers if isinstance(numbers, list) else [numbers]
    return _squeeze(numbers)


def full(node: Node) -> Callable:
    """The ConstantOfShape node, of a list of as many numbers as there are dimensions."""
    value = node.get("value")
    return partial(_full, 0.0 if value is None else np.asarray(value).flatten()[0].item())


def _full(value: Numbers, numbers: list) -> list:
    return [value] * numbers[0]


def product(node: Node) -> Callable:
    """The ReduceProd node."""
    return partial(_product, bool(node.get("keepdims", 1)))


def _product(keep: bool, numbers: list, axes=None) -> Numbers:
    found = reduce(operator.mul, numbers, 1)
    return [found] if keep else found


# What is read of a tensor: its shape alone.
MEASURES = {"Shape": shape, "Size": size}
# What becomes of numbers, the first input being those; other inputs may be constants.
MOVES = {
    "Cast": cast,
    "ConstantOfShape": full,
    "Gather": gather,
    "Identity": _each(_same),
    "ReduceProd": product,
    "Reshape": reshape,
    "Slice": cut,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
}
# What takes any of its inputs from numbers and constants.
ARITHMETIC = {
    "Add": _each(operator.add),
    "Sub": _each(operator.sub),
    "Mul": _each(operator.mul),
    "Div": _each(_divide),
    "Neg": _each(operator.neg),
    "Floor": _each(math.floor),
    "Ceil": _each(math.ceil),
    "Sqrt": _each(torch.sym_sqrt),
    "Max": _chain(torch.sym_max),
    "Min": _chain(torch.sym_min),
    "Equal": _each(operator.eq),
    "Greater": _each(operator.gt),
    "Less": _each(operator.lt),
    "Not": _each(operator.not_),
    "Where": _each(_pick),
    "Concat": concat,
}
