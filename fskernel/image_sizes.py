"""Which sizes of images a network takes: one, or all that meet some conditions."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass

from torch import Tensor

# How what a network reads is called, by the number of its dimensions with that of the batch.
SHAPES = {2: "[N, F]", 3: "[N, C, L]", 4: "[N, C, H, W]"}
_MOST_TEXT = 2000  # characters of a condition
_ALLOWED = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.USub, ast.Not,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.Load,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


def as_maps(x: Tensor) -> Tensor:
    """Vectors [N, F] and sequences [N, C, L] as maps [N, C, H, W] of one row; maps as they are."""
    if x.dim() == 2:
        return x[:, :, None, None]
    return x[:, :, None, :] if x.dim() == 3 else x


def as_given(x: Tensor, rank: int) -> Tensor:
    """Maps [N, C, H, W] of one row as the vectors or sequences they stand for, of `rank`."""
    return x.flatten(1) if rank == 2 else x.squeeze(2) if rank == 3 else x


@functools.cache
def _compiled(condition: str):
    """A condition as a function of h and w.

    Raises:
        ValueError: it is not made of comparisons of whole numbers, h and w.
    """
    try:
        if len(condition) > _MOST_TEXT:
            raise SyntaxError("too long")
        tree = ast.parse(condition, mode="eval")
        called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                known = isinstance(node.func, ast.Name) and node.func.id in ("min", "max")
                known = known and len(node.args) > 1 and not node.keywords
            elif isinstance(node, ast.Name):
                known = node.id in ("h", "w") or id(node) in called
            elif isinstance(node, ast.Constant):
                known = type(node.value) in (int, bool)
            else:
                known = isinstance(node, _ALLOWED)
            if not known:
                raise SyntaxError(type(node).__name__)
        code = compile(tree, "<size of an image>", "eval")
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        raise ValueError(
            f"{condition[:80]!r} is no condition on h and w, the rows and columns of an image"
        ) from error
    names = {"__builtins__": {}, "min": min, "max": max}
    return lambda h, w: bool(eval(code, names, {"h": h, "w": w}))  # nothing else is left in it


def holds(condition: str, height: int, width: int) -> bool:
    """Whether images of this size meet a condition such as "h // 8 >= 3".

    Raises:
        ValueError: it is no comparison of whole numbers, h (rows) and w (columns).
    """
    try:
        return _compiled(condition)(height, width)
    except ZeroDivisionError:
        return False


def is_condition(text: str) -> bool:
    """Whether a text is one that `holds` can read."""
    try:
        _compiled(text)
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
        for condition in self.conditions:
            _compiled(condition)

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
        for condition in self.conditions:
            if not holds(condition, height, width):
                raise ValueError(
                    f"x has images of {height}x{width} pixels, but this network is for images "
                    f"with {condition} (h rows, w columns), beyond which the module that was "
                    "converted computes something else or nothing: use such a size, or convert it "
                    "for this one"
                )

    def least(self, size: tuple[int, int]) -> tuple[int, int]:
        """The fewest rows and columns from which on all sizes up to `size` are taken."""
        return self.fixed or smallest(self.conditions, size)
