"""The tables of shaped neurons: a function in straight segments that the membrane passes first.

A shaped neuron fires the K-bit expansion of f(x) in place of that of x: before its first step, its
membrane is given to a piecewise-linear table of f. Membranes are in segments from the left end of
the table, so that

    u = clip(v, 0, largest float32 below S),  i = trunc(u),  w = fma(u, slope[i], offset[i])

and w, in units of the last threshold with the word for zero and the rounding added, is what the
neuron fires. Beyond its ends the table goes on with the values at its ends; NaN lies at the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fskernel.codes.code import Code

SEGMENTS = (32, 64, 128, 256)  # that a table may have
# In units of the last threshold: a table with this error is taken, one that has TOO_MUCH refused.
ENOUGH, TOO_MUCH = 0.3, 0.5
_FINE = 64  # places in a segment at which the error is measured
_FAR = 1e4  # in what is looked at of a function, beside what its layer was seen to need


# Of float64 [M], giving [R, M]: one function for all channels, or one of each.
Functions = Callable[[Tensor], Tensor]


class Table(NamedTuple):
    """A function in segments, or one of each channel, for one code.

    lines: float32 [R, 2, S], slopes and offsets in units of the last threshold.
    low: where it begins. width: of a segment. error: the largest, in units of the last threshold.
    """

    lines: Tensor
    low: float
    width: float
    error: float


def table_of(functions: Functions, code: Code, rounding_offset: float, reach: float) -> Table:
    """The smallest table of a function that is exact enough for words of this code.

    Args:
        functions: what shall be tabulated.
        code: of the words, with their code of zero.
        rounding_offset: 0.5 for rounding "nearest", else 0.
        reach: the largest magnitude of membranes that is expected, in the function's units. A table
            goes on until the words do not change any more; if it cannot, it ends here.

    Raises:
        ValueError: the function gives NaN, or no table of 256 segments comes within half of the
            last threshold; with the error, and what would help.
    """
    best = _best(functions, code, rounding_offset, _ends(functions, code, reach))
    if not best.error < TOO_MUCH:
        best = _best(functions, code, rounding_offset, (-reach, reach))
    if not best.error < TOO_MUCH:
        raise ValueError(
            f"a table of {SEGMENTS[-1]} segments misses its function by {best.error:.2g} last "
            f"thresholds, and has to stay below {TOO_MUCH}: use a smaller K (it is {code.K}), or a "
            "smoother function"
        )
    return best


def _best(
    functions: Functions, code: Code, rounding_offset: float, ends: tuple[float, float]
) -> Table:
    """The smallest table between these ends that is exact enough, else the most exact one."""
    best: Table | None = None
    for segments in SEGMENTS:
        for low, high in _grids(ends, segments):
            table = _fitted(functions, code, rounding_offset, low, high, segments)
            if best is None or table.error < best.error:
                best = table
        if best.error <= ENOUGH:
            break
    return best


def _values(functions: Functions, x: Tensor, code: Code, beyond: float = 0.0) -> Tensor:
    """What the functions give at x [M], as words that are not rounded: [R, M].

    Args:
        beyond: how far outside the range of words, in ranges. The neuron cuts off what is; a line
            that ends there has no corner inside.
    """
    y = functions(x)
    if bool(y.isnan().any()):
        where = float(x[y.isnan().any(0)][0])
        raise ValueError(
            f"its function gives NaN at {where:g}: give one that is defined everywhere"
        )
    return (y / code.step + code.zero).clamp(-beyond * code.x_max, (1 + beyond) * code.x_max)


def _ends(functions: Functions, code: Code, reach: float) -> tuple[float, float]:
    """Between which places the words change by more than a small part of the last threshold."""
    near = torch.linspace(-1, 1, 2001, dtype=torch.float64) * reach
    far = torch.logspace(math.log10(reach), math.log10(reach * _FAR), 1001, dtype=torch.float64)
    x = torch.cat([-far.flip(0), near, far])
    y = _values(functions, x, code)
    ends = []
    for side in (0, -1):
        outer = y[:, [side]]

        def differ(y: Tensor, outer: Tensor = outer) -> Tensor:
            return ((y - outer).abs() > ENOUGH / 4).any(0)

        places = differ(y).nonzero().squeeze(1)
        if len(places) == 0:  # the same word everywhere
            return -reach, reach
        at = int(places[side])
        same = at - 1 if side == 0 else at + 1
        if not 0 <= same < len(x):
            return -reach, reach
        inside, outside = float(x[at]), float(x[same])
        while abs(outside - inside) > 1e-9 * reach:
            middle = (inside + outside) / 2
            found = _values(functions, x.new_tensor([middle]), code)
            inside, outside = (middle, outside) if bool(differ(found)) else (inside, middle)
        ends.append(outside)
    return ends[0], ends[1]


def _grids(ends: tuple[float, float], segments: int) -> list[tuple[float, float]]:
    """Ends of tables to try: as they are, and with borders of segments on 0 and on whole numbers.

    Functions have corners there: LeakyReLU at 0, hardswish at -3 and 3.
    """
    low, high = ends
    grids = [(low, high)]
    if low < 0 < high:
        left = min(max(round(-low / (high - low) * segments), 1), segments - 1)
        width = max(-low / left, high / (segments - left))
        grids.append((-width * left, width * (segments - left)))
    width = (high - low) / segments
    for parts in range(1, 65):  # segments to 1
        if 1.0 / parts < width:
            break
        first = math.floor(low * parts) / parts
        if first + segments / parts >= high:
            grids.append((first, first + segments / parts))
    return grids


def _fitted(
    functions: Functions,
    code: Code,
    rounding_offset: float,
    low: float,
    high: float,
    segments: int,
) -> Table:
    """Straight lines through a grid, each with the least largest error."""
    width = (high - low) / segments
    u = torch.arange(segments * _FINE + 1, dtype=torch.float64) / _FINE
    y = _values(functions, low + u * width, code, beyond=1.0)
    inside = torch.arange(_FINE + 1) + torch.arange(segments)[:, None] * _FINE  # both ends of each
    us, ys = u[inside], y[:, inside]  # [S, places], [R, S, places]
    slope = ys[..., -1] - ys[..., 0]
    rest = ys - slope[..., None] * us
    offset = (rest.amin(-1) + rest.amax(-1)) / 2  # the chord, in the middle of the curve
    lines = torch.stack([slope, offset + rounding_offset], 1).to(torch.float32)
    made = lines[:, 0, :, None].double() * us + lines[:, 1, :, None].double() - rounding_offset
    error = float((made.clamp(0, code.x_max) - ys.clamp(0, code.x_max)).abs().max())
    return Table(lines, low, width, error)
