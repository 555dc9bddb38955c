"""How windows walk over maps: of convolutions and pools, and as torch's modules say it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Geometry(NamedTuple):
    """How a convolution or pool walks over its input (padding as top, bottom, left, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output for an input of `height` x `width`."""
        top, bottom, left, right = self.padding
        rows = height + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1
        cols = width + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1
        if rows < 0 or cols < 0:
            raise ValueError(
                f"a kernel of {self.kernel} with dilation {self.dilation} does not fit into an "
                f"input of {height}x{width} with padding {self.padding}: use a larger image"
            )
        return rows // self.stride[0] + 1, cols // self.stride[1] + 1

    def as_ints(self, pad_code: int = 0) -> list[int]:
        """The form the operators take: kernel, stride, padding, dilation, groups, pad code."""
        return [
            *self.kernel,
            *self.stride,
            *self.padding,
            *self.dilation,
            self.groups,
            pad_code,
        ]

    def taps(self, height: int, width: int) -> tuple[list[list[int]], list[list[int]]]:
        """For every input row (then column): the output rows (columns) it is connected to.

        The connections are a product of the two, so a synapse from (y, x) to (oy, ox) exists
        exactly if oy is in taps[0][y] and ox in taps[1][x]; positions in the padding have none.
        """
        sizes = self.output_size(height, width)

        def axis(size: int, out: int, i: int) -> list[list[int]]:
            reached: list[set[int]] = [set() for _ in range(size)]
            for o in range(out):
                for k in range(self.kernel[i]):
                    at = o * self.stride[i] + k * self.dilation[i] - self.padding[2 * i]
                    if 0 <= at < size:
                        reached[at].add(o)
            return [sorted(r) for r in reached]

        return axis(height, sizes[0], 0), axis(width, sizes[1], 1)


class Walk(Protocol):
    """Windows over a map, as the product of what they do with its rows and its columns."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output for an input of `height` x `width`."""

    def taps(self, height: int, width: int) -> tuple[list[list[int]], list[list[int]]]:
        """For every input row (then column): the output rows (columns) it is connected to."""


MOST_WINDOW = 2**24  # of each number of a geometry


def check_geometry(geometry: Geometry, place: str) -> None:
    """Refuses numbers that are no geometry.

    Raises:
        ValueError: beginning with `place`, and naming the number.
    """
    for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        values = getattr(geometry, name)
        if not all(least <= value <= MOST_WINDOW for value in values):
            raise ValueError(f"{place}.{name} is {values}: expected {least} to {MOST_WINDOW}")
    if not 1 <= geometry.groups <= MOST_WINDOW:
        raise ValueError(f"{place}.groups is {geometry.groups}: expected 1 to {MOST_WINDOW}")


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """(v, v) for a number, the tuple itself for two numbers."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def conv_geometry(conv: nn.Conv2d) -> Geometry:
    """Geometry of an nn.Conv2d, its padding resolved to four numbers.

    Raises:
        ValueError: padding_mode other than zeros.
    """
    if conv.padding_mode != "zeros":
        raise ValueError(f"padding_mode={conv.padding_mode!r} is not supported: use 'zeros'")
    kernel, dilation = pair(conv.kernel_size), pair(conv.dilation)
    padding = resolve_padding(conv.padding, kernel, dilation)
    return Geometry(kernel, pair(conv.stride), padding, dilation, conv.groups)


def resolve_padding(
    padding: str | int | tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Torch's padding argument ("same", "valid", one or two numbers) as top, bottom, left, right.

    Like torch, "same" puts the odd one at the bottom and the right.
    """
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    if padding == "valid":
        return (0, 0, 0, 0)
    ph, pw = pair(padding)
    return (ph, ph, pw, pw)


def pool_fault(g: Geometry) -> str | None:
    """Why a pool may have windows without a single value in them, or None."""
    if 2 * g.padding[0] > g.kernel[0] or 2 * g.padding[2] > g.kernel[1]:
        return f"padding {g.padding[0], g.padding[2]} is more than half of the kernel {g.kernel}"
    if any(g.padding) and g.dilation != (1, 1):
        return f"padding with dilation {g.dilation} makes windows without a value on small maps"
    return None


def pool_geometry(pool: nn.MaxPool2d | nn.AvgPool2d, dilation: int | tuple[int, int]) -> Geometry:
    """Geometry of a pool module.

    Raises:
        ValueError: ceil_mode.
    """
    if pool.ceil_mode:
        raise ValueError("ceil_mode=True is not supported on spikes: use ceil_mode=False")
    ph, pw = pair(pool.padding)
    kernel = pair(pool.kernel_size)
    geometry = Geometry(kernel, pair(pool.stride), (ph, ph, pw, pw), pair(dilation))
    reason = pool_fault(geometry)
    if reason:
        raise ValueError(f"{reason}: pad less")
    return geometry


def fan_out(chain: list[Walk], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Output rows and columns that each input row and column reaches through linear maps in turn.

    Args:
        chain: walks in order, e.g. of an average-pool and of the convolution that reads it.

    Returns:
        int64 [height] and int64 [width]; their product is the number of output positions that a
        pixel has a synapse to, each counted once.
    """
    reach: tuple[list[set[int]], list[set[int]]] = (
        [{i} for i in range(height)],
        [{i} for i in range(width)],
    )
    size = (height, width)
    for walk in chain:
        taps = walk.taps(*size)
        for axis in (0, 1):
            for i, at in enumerate(reach[axis]):
                reach[axis][i] = set().union(*(taps[axis][j] for j in at))
        size = walk.output_size(*size)
    return (
        torch.tensor([len(r) for r in reach[0]], dtype=torch.int64),
        torch.tensor([len(r) for r in reach[1]], dtype=torch.int64),
    )
