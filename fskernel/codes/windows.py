"""Windows of averages that need not be alike: cut at the borders, or dividing a map of any size."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.geometry import MOST_WINDOW, Geometry, check_geometry
from fskernel.codes.weights import INT32_LIMIT

KINDS = ("adaptive", "clipped")


class Spans(NamedTuple):
    """The windows along one axis: those over a map are the product of its rows' and columns'.

    Attributes:
        start, stop: int64 [outputs], the inputs [start, stop) of every output.
        divisor: int64 [outputs], its share of the number that the sum is divided by.
    """

    start: Tensor
    stop: Tensor
    divisor: Tensor


class Windows(NamedTuple):
    """Windows over a map whose sums are divided by numbers of their own.

    Attributes:
        kind: "adaptive", as torch's adaptive_avg_pool2d has them, or "clipped", as avg_pool2d.
        output: of "adaptive", rows and columns of the output; None: as many as the map has.
        geometry: of "clipped"; its groups and dilation are 1.
        ceil_mode, include_pad: of "clipped", torch's ceil_mode and count_include_pad.
    """

    kind: str
    output: tuple[int | None, int | None] = (None, None)
    geometry: Geometry = Geometry((1, 1))
    ceil_mode: bool = False
    include_pad: bool = True

    def check(self, place: str) -> None:
        """Refuses what are no windows, or may be without a pixel in them.

        Raises:
            ValueError: beginning with `place`, and naming the field.
        """
        if self.kind not in KINDS:
            raise ValueError(f"{place}.kind is {self.kind!r}: expected one of {KINDS}")
        sizes = [n for n in self.output if n is not None]
        if len(self.output) != 2 or not all(
            type(n) is int and 1 <= n <= MOST_WINDOW for n in sizes
        ):
            raise ValueError(
                f"{place}.output is {self.output}: expected rows and columns, None or 1 to "
                f"{MOST_WINDOW}"
            )
        check_geometry(self.geometry, f"{place}.geometry")
        g = self.geometry
        if g.dilation != (1, 1) or g.groups != 1:
            raise ValueError(f"{place}.geometry is {g}: expected no dilation and no groups")
        if max(g.padding[:2]) >= g.kernel[0] or max(g.padding[2:]) >= g.kernel[1]:
            raise ValueError(
                f"{place}.geometry.padding is {g.padding}: windows of {g.kernel} would lie beside "
                "the map, pad less"
            )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output.

        Raises:
            ValueError: no window fits into the map.
        """
        size = self._outputs(height, 0), self._outputs(width, 1)
        if min(height, width, *size) < 1:
            raise ValueError(
                f"windows of {self.geometry.kernel} do not fit into a map of {height}x{width} "
                f"pixels with padding {self.geometry.padding}: use a larger image"
            )
        return size

    def _outputs(self, size: int, axis: int) -> int:
        if self.kind == "adaptive":
            given = self.output[axis]
            return size if given is None else given
        g = self.geometry
        stride, (before, after) = g.stride[axis], g.padding[2 * axis : 2 * axis + 2]
        last = size + before + after - g.kernel[axis]  # where the last window may begin
        if not self.ceil_mode:
            return last // stride + 1
        outputs = -(-last // stride) + 1
        return outputs - 1 if (outputs - 1) * stride >= size + before else outputs

    def spans(self, size: int, axis: int, device: torch.device | str = "cpu") -> Spans:
        """The windows along one axis of a map, computed on the device.

        Args:
            size: rows, if axis is 0, or columns, if it is 1.
        """
        i = torch.arange(self._outputs(size, axis), device=device)
        return Spans(*self._window(i, size, axis, torch.clamp_max, torch.clamp_min))

    def _window(self, i, size: int, axis: int, at_most=min, at_least=max) -> tuple:
        """Start, stop and divisor of window i, which is a number or a tensor of numbers."""
        if self.kind == "adaptive":
            outputs = self._outputs(size, axis)
            start, stop = i * size // outputs, ((i + 1) * size + outputs - 1) // outputs
            return start, stop, stop - start
        g = self.geometry
        before, after = g.padding[2 * axis : 2 * axis + 2]
        first = i * g.stride[axis] - before
        end = at_most(first + g.kernel[axis], size + after)
        start, stop = at_least(first, 0), at_most(end, size)
        return start, stop, end - first if self.include_pad else stop - start

    def largest(self, height: int, width: int) -> int:
        """Pixels of the map that the largest window may have."""
        return self._longest(height, 0) * self._longest(width, 1)

    def check_sums(self, height: int, width: int, reads: Code) -> None:
        """Refuses a map whose codes, summed over a window, might not fit 32 bits.

        Args:
            reads: what the codes mean.

        Raises:
            ValueError: naming the pixels of a window, and how many there may be.
        """
        low, high, zero = reads.x_min, reads.x_max, reads.zero
        largest, pixels = max(high, -low, high - zero, zero - low), self.largest(height, width)
        if pixels * largest >= INT32_LIMIT:
            raise ValueError(
                f"windows of {pixels} pixels would be summed: at most "
                f"{(INT32_LIMIT - 1) // largest} codes up to {largest} fit 32 bits, use a smaller "
                "image"
            )

    def _longest(self, size: int, axis: int) -> int:
        if self.kind == "clipped":
            return min(size, self.geometry.kernel[axis])
        outputs = self._outputs(size, axis)
        whole, rest = divmod(size, outputs)
        # Windows begin at multiples of size/outputs, rounded down, and end at them, rounded up.
        return whole + (rest > 0) + (rest > math.gcd(rest, outputs))

    def taps(self, height: int, width: int) -> tuple[list[list[int]], list[list[int]]]:
        """For every input row (then column): the output rows (columns) whose windows it is in."""

        def along(size: int, axis: int) -> list[list[int]]:
            reached: list[list[int]] = [[] for _ in range(size)]
            for o in range(self._outputs(size, axis)):
                start, stop, _ = self._window(o, size, axis)
                for i in range(start, stop):
                    reached[i].append(o)
            return reached

        return along(height, 0), along(width, 1)

    def means(self, x: Tensor) -> Tensor:
        """The means of float maps x [N, C, H, W]."""
        height, width = x.shape[2:]
        rows, cols = self.output_size(height, width)
        if self.kind == "adaptive":
            return F.adaptive_avg_pool2d(x, (rows, cols))
        g = self.geometry
        top, left = g.padding[0], g.padding[2]
        # Zeros as far as the windows reach, or less of the map where they do not reach its end.
        bottom = (rows - 1) * g.stride[0] + g.kernel[0] - height - top
        right = (cols - 1) * g.stride[1] + g.kernel[1] - width - left
        x = F.pad(x, (left, right, top, bottom))
        sums = F.avg_pool2d(x, g.kernel, g.stride, divisor_override=1)
        down, across = (
            self.spans(n, axis, x.device).divisor for axis, n in enumerate((height, width))
        )
        return sums / (down[:, None] * across).to(x.dtype)
