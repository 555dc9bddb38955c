"""Which sizes of images a network takes: one, or all that meet some conditions."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# How what a network reads is called, by the number of its dimensions with that of the batch.
SHAPES = {2: "[N, F]", 3: "[N, C, L]", 4: "[N, C, H, W]"}
_MOST_TEXT = 2000  # characters of a condition
_MOST_NESTED = 100  # operations inside of each other
_BINARY = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARED = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_Function = Callable[[int, int], int]  # of h and w


def as_maps(x: Tensor) -> Tensor:
    """Vectors [N, F] and sequences [N, C, L] as maps [N, C, H, W] of one row; maps as they are."""
    if x.dim() == 2:
        return x[:, :, None, None]
    return x[:, :, None, :] if x.dim() == 3 else x


@functools.cache
def _read(condition: str) -> _Function:
    """A condition as a function of h and w.

    Raises:
        ValueError: it is not made of comparisons of whole numbers, h and w.
    """
    try:
        if len(condition) > _MOST_TEXT:
            raise SyntaxError("too long")
        return _function(ast.parse(condition, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        raise ValueError(
            f"{condition[:80]!r} is no condition on h and w, the rows and columns of an image"
        ) from error


def _function(node: ast.expr, depth: int = 0) -> _Function:
    """Made of functions, not compiled: whatever is in a text, nothing else can run.

    Raises:
        SyntaxError: it holds something else.
    """
    if depth > _MOST_NESTED:
        raise SyntaxError("nested too deeply")

    def all_of(nodes: list[ast.expr]) -> list[_Function]:
        return [_function(n, depth + 1) for n in nodes]

    match node:
        case ast.Name(id="h"):
            return lambda h, w: h
        case ast.Name(id="w"):
            return lambda h, w: w
        case ast.Constant(value=bool() | int() as number):
            return lambda h, w: number
        case ast.UnaryOp(op=ast.USub()):
            (value,) = all_of([node.operand])
            return lambda h, w: -value(h, w)
        case ast.UnaryOp(op=ast.Not()):
            (value,) = all_of([node.operand])
            return lambda h, w: not value(h, w)
        case ast.BinOp() if type(node.op) in _BINARY:
            left, right = all_of([node.left, node.right])
            compute = _BINARY[type(node.op)]
            return lambda h, w: compute(left(h, w), right(h, w))
        case ast.BoolOp():
            parts, joined = all_of(node.values), all if isinstance(node.op, ast.And) else any
            return lambda h, w: joined(part(h, w) for part in parts)
        case ast.Compare() if all(type(op) in _COMPARED for op in node.ops):
            terms, compares = all_of([node.left, *node.comparators]), node.ops
            pairs = [(_COMPARED[type(c)], *terms[i : i + 2]) for i, c in enumerate(compares)]
            return lambda h, w: all(c(a(h, w), b(h, w)) for c, a, b in pairs)
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=[_, _, *_], keywords=[]):
            parts, pick = all_of(node.args), min if name == "min" else max
            return lambda h, w: pick([part(h, w) for part in parts])
    raise SyntaxError(type(node).__name__)


def holds(condition: str, height: int, width: int) -> bool:
    """Whether images of this size meet a condition such as "h // 8 >= 3".

    Raises:
        ValueError: it is no comparison of whole numbers, h (rows) and w (columns).
    """
    return _holds(_read(condition), height, width)


def _holds(condition: _Function, height: int, width: int) -> bool:
    try:
        return bool(condition(height, width))
    except ZeroDivisionError:
        return False


def is_condition(text: str) -> bool:
    """Whether a text is one that `holds` can read."""
    try:
        _read(text)
    except ValueError:
        return False
    return True


def _names(condition: str) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(condition)) if isinstance(n, ast.Name)}


def smallest(conditions: tuple[str, ...], size: tuple[int, int]) -> tuple[int, int]:
    """The fewest rows and columns from which on all sizes up to `size` meet the conditions."""

    def fewest(most: int, fits) -> int:
        return next((n + 1 for n in range(most - 1, 0, -1) if not fits(n)), 1)

    height, width = size
    rows = fewest(height, lambda h: all(holds(c, h, width) for c in conditions))
    return rows, fewest(width, lambda w: all(holds(c, height, w) for c in conditions))


def simplified(conditions: tuple[str, ...], size: tuple[int, int]) -> tuple[str, ...]:
    """The least rows and columns, and of the conditions those that then say something more.

    Whether they do is tried on sizes of all kinds, not proven: whoever reads the conditions gets
    those that torch has written where they are no simple bounds.

    Args:
        size: that meets all of them.
    """
    # Of one axis alone: what is asked of both is no bound of either.
    rows, columns = smallest(tuple(c for c in conditions if not set("hw") <= _names(c)), size)
    bounds = tuple(f"{name} >= {n}" for name, n in (("h", rows), ("w", columns)) if n > 1)
    some = [*range(300), *(2**i + d for i in range(8, 16) for d in (-1, 0, 1, 37))]
    tried = [(rows + n, columns) for n in some] + [(rows, columns + n) for n in some]
    tried += [(rows + n, columns + m) for n, m in zip(some, reversed(some), strict=True)]
    tried += [(max(rows, columns) + n,) * 2 for n in some]
    more = tuple(
        c for c in conditions if c not in bounds and not all(holds(c, *size) for size in tried)
    )
    return bounds + more


@dataclass(frozen=True)
class ImageSizes:
    """Which sizes of images a network takes.

    Attributes:
        fixed: (H, W), if it is for images of one size; else None.
        conditions: on h and w (`holds`), if it is for many.
        rank: dimensions of what it reads: 4, or 3 for sequences [N, C, L], which are maps of one
            row, or 2 for vectors [N, F], which are maps of one pixel.
    """

    fixed: tuple[int, int] | None = None
    conditions: tuple[str, ...] = ()
    rank: int = 4

    def __post_init__(self) -> None:
        if self.rank not in SHAPES:
            raise ValueError(f"rank is {self.rank!r}: expected one of {[*SHAPES]}")
        read = tuple(map(_read, self.conditions))
        object.__setattr__(self, "_functions", read)  # torch.compile follows these

    def __reduce__(self):  # functions made here cannot be pickled
        return type(self), (self.fixed, self.conditions, self.rank)

    def check(self, x: Tensor) -> None:
        """Refuses images [N, C, H, W] (or sequences, or vectors) of a size that is not taken.

        Raises:
            ValueError: naming their size, and what is taken.
        """
        height, width = (1, 1, *x.shape[2:])[-2:]
        if self.fixed is not None and (height, width) != self.fixed:
            raise ValueError(
                f"x has images of {height}x{width} pixels, but the structure of this network "
                f"depends on their size and was made for {self.fixed[0]}x{self.fixed[1]} (it "
                "flattens a map, has an adaptive pool or ceil_mode, or computes with sizes): use "
                "that size, or convert it for the other"
            )
        for condition, function in zip(self.conditions, self._functions, strict=True):
            if not _holds(function, height, width):
                raise ValueError(
                    f"x has images of {height}x{width} pixels, but this network is for images "
                    f"with {condition} (h rows, w columns), beyond which the module that was "
                    "converted computes something else or nothing: use such a size, or convert it "
                    "for this one"
                )

    def least(self, size: tuple[int, int]) -> tuple[int, int]:
        """The fewest rows and columns from which on all sizes up to `size` are taken."""
        return self.fixed or smallest(self.conditions, size)
