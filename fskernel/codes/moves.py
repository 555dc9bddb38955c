"""Connections that only move values: channels picked and put side by side, maps made larger.

Torch's own operators on maps [N, C, H, W] of any type and device, so that the float network, codes
and spikes are moved by the same lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Channels [first, first + count) of one of several maps: which map, first, count.
Run = tuple[int, int, int]

MOST_NUMBER = 2**24  # of each number of a move
# How many numbers a kind has, and the least that they may be.
_KINDS = {
    "upsample": (2, 1),
    "shuffle": (1, 1),
    "unshuffle": (1, 1),
    "pad": (4, 0),
    "crop": (4, 0),
    "expand": (0, 0),
}


class Move(NamedTuple):
    """Where the values of a map go.

    Attributes:
        kind: "upsample" (nearest, by whole factors of rows and columns), "shuffle" and "unshuffle"
            (torch's pixel_shuffle and pixel_unshuffle, by a factor), "pad" (zeros at the top, the
            bottom, the left and the right), "crop" (so many rows and columns less) or "expand" (a
            map of one pixel, to the size of another).
        numbers: those that stand in brackets, in this order.
    """

    kind: str
    numbers: tuple[int, ...] = ()

    def check(self, place: str) -> None:
        """Refuses what is no move.

        Raises:
            ValueError: beginning with `place`, and naming the field.
        """
        if self.kind not in _KINDS:
            raise ValueError(
                f"{place}.kind is {self.kind!r}: expected one of {', '.join(map(repr, _KINDS))}"
            )
        count, least = _KINDS[self.kind]
        whole = all(type(n) is int and least <= n <= MOST_NUMBER for n in self.numbers)
        if len(self.numbers) != count or not whole:
            raise ValueError(
                f"{place}.numbers is {self.numbers}: expected {count} numbers from {least} to "
                f"{MOST_NUMBER}"
            )

    def output_size(
        self, height: int, width: int, like: tuple[int, int] | None = None
    ) -> tuple[int, int]:
        """Rows and columns of the output.

        Args:
            height, width: of the map. like: those of the map whose size "expand" takes.

        Raises:
            ValueError: the map does not fit.
        """
        if self.kind == "upsample":
            return height * self.numbers[0], width * self.numbers[1]
        if self.kind == "shuffle":
            return height * self.numbers[0], width * self.numbers[0]
        if self.kind == "unshuffle":
            r = self.numbers[0]
            if height % r or width % r:
                raise ValueError(
                    f"a map of {height}x{width} pixels cannot be cut into squares of {r}x{r}: use "
                    "another image size"
                )
            return height // r, width // r
        if self.kind == "pad":
            top, bottom, left, right = self.numbers
            return height + top + bottom, width + left + right
        if self.kind == "crop":
            top, bottom, left, right = self.numbers
            size = height - top - bottom, width - left - right
            if min(size) < 1:
                raise ValueError(
                    f"of a map of {height}x{width} pixels {self.numbers} are cut off at the top, "
                    "the bottom, the left and the right: use a larger image"
                )
            return size
        if (height, width) != (1, 1):
            raise ValueError(
                f"a map of {height}x{width} pixels is spread over another, which only one pixel "
                "can be: use another image size"
            )
        return like

    def channel_factor(self) -> Fraction:
        """Channels of the output over those of the map."""
        squares = {"shuffle": -2, "unshuffle": 2}
        return Fraction(*self.numbers[:1] or (1,)) ** squares.get(self.kind, 0)

    def of_channels(self, values: Tensor) -> Tensor:
        """A value for each channel of the output, for one of each channel of the map, [C].

        Where "shuffle" spreads several channels over the pixels of one, they have the same value.
        """
        if self.kind == "shuffle":
            return values[:: self.numbers[0] ** 2]
        if self.kind == "unshuffle":
            return values.repeat_interleave(self.numbers[0] ** 2)
        return values

    def apply(self, x: Tensor, zero: int = 0, size: tuple[int, int] | None = None) -> Tensor:
        """The map x [N, C, H, W], moved.

        Args:
            zero: what stands for zero, for "pad". size: of the output, for "expand".
        """
        if self.kind == "upsample":
            rows, cols = self.numbers
            n, c, h, w = x.shape
            x = x[:, :, :, None, :, None].expand(n, c, h, rows, w, cols)
            return x.reshape(n, c, h * rows, w * cols)
        if self.kind == "shuffle":  # not torch's, which leaves empty batches as they are
            r, (n, c, h, w) = self.numbers[0], x.shape
            x = x.reshape(n, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3)
            return x.reshape(n, c // r**2, h * r, w * r)
        if self.kind == "unshuffle":
            r, (n, c, h, w) = self.numbers[0], x.shape
            x = x.reshape(n, c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4)
            return x.reshape(n, c * r**2, h // r, w // r)
        if self.kind == "pad":
            top, bottom, left, right = self.numbers
            return F.pad(x, (left, right, top, bottom), value=zero)
        if self.kind == "crop":
            top, bottom, left, right = self.numbers
            return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
        return x.expand(*x.shape[:2], *size)


def side_by_side(maps: Sequence[Tensor], runs: Sequence[Run], dim: int = 1) -> Tensor:
    """Runs of channels of several maps in one map; without runs, all channels of every map.

    Args:
        maps: of one size. dim: the dimension of the channels.
    """
    parts = [maps[i].narrow(dim, first, count) for i, first, count in runs] if runs else maps
    return torch.cat(tuple(parts), dim)
