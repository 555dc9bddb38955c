"""Pools and averages: which of them are exact on spike words and graded values, in which form."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fskernel.codes.geometry import Geometry, pool_fault
from fskernel.codes.windows import Windows
from fskernel.graph import Layer
from fskernel.image_sizes import as_maps
from fskernel.tracing import moved
from fskernel.tracing.module.nodes import Node
from fskernel.tracing.values import Read, Ready, Values


class Pools(Values):
    """What pools of an exported module do to the float layers."""

    def max_pool(
        self, node: Node, input, kernel_size, stride, padding, dilation, ceil_mode
    ) -> Ready:
        kernel = both(kernel_size)
        if self.average and kernel != (1, 1):
            if both(dilation) != (1, 1):
                self.refuse(node, "a dilated max-pool has no average form", "Use a plain max-pool")
            self.averaged.append(node.name)
            return self.avg_pool(node, input, kernel_size, stride, padding, ceil_mode, True, None)
        geometry = self._geometry(node, kernel, stride, padding, dilation)
        if kernel == (1, 1) and not any(geometry.padding):
            return self.subsample(node, input, geometry.stride)
        read = self.read(input, node, "padding")
        if any(read.padding) and not self._no_zeros_show(read, geometry, ceil_mode):
            read = self.read(input, node)
        if ceil_mode:
            geometry = self._ceiling(node, read, geometry)
        more = zip(geometry.padding, read.padding, strict=True)
        geometry = geometry._replace(padding=tuple(a + b for a, b in more))
        return self._emitted_pool(node, read, "max_pool", geometry=geometry)

    def avg_pool(
        self,
        node: Node,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    ) -> Ready:
        kernel = both(kernel_size)
        geometry = self._geometry(node, kernel, stride, padding, 1)
        if divisor_override not in (None, kernel[0] * kernel[1]):
            self.refuse(node, f"divisor_override={divisor_override}", "Remove it")
        if kernel == (1, 1) and not any(geometry.padding):
            return self.subsample(node, input, geometry.stride)
        inner = self.read(input, node, "padding")
        height, width = inner.size[1:]
        if (height, width) == kernel and not any(geometry.padding) and not any(inner.padding):
            pool = Layer(node.name, "avg_pool", source=inner.layer, geometry=geometry)
            return Ready((inner.layer,), (inner.size[0], 1, 1), averaged=True, pool=pool)
        varies = any(geometry.padding) and not count_include_pad
        if ceil_mode:
            reaches = any(
                (n + sum(p) - k) % s
                for n, p, k, s in zip(
                    _padded(inner), _sides(geometry.padding), kernel, geometry.stride, strict=True
                )
            )
            varies = varies or reaches
            if not varies:
                self.depends_on_size()
        if varies:
            read = self.read(input, node)
            windows = Windows(
                "clipped", geometry=geometry, ceil_mode=ceil_mode, include_pad=count_include_pad
            )
            return self._emitted_pool(node, read, "mean_pool", windows=windows)
        padding = tuple(a + b for a, b in zip(geometry.padding, inner.padding, strict=True))
        if max(padding[:2]) >= kernel[0] or max(padding[2:]) >= kernel[1]:  # windows of zeros alone
            inner, padding = self.read(input, node), geometry.padding
        geometry = geometry._replace(padding=padding)
        return self._emitted_pool(node, inner, "avg_pool", geometry=geometry)

    def adaptive_average(self, node: Node, input, output_size) -> Ready:
        """An adaptive average-pool: to one pixel, in equal windows, or in windows that vary."""
        want = both(output_size)
        value = self.ready(input, node)
        if want == (1, 1):
            if value.averaged:
                return value
            return self.mean_over(node, input, tuple(range(2, len(input.shape))), True)
        read = self.read(input, node)
        have = read.size[1:]
        if want == have:
            self.depends_on_size()
            return self.values[input]
        self.depends_on_size()
        if any(h % w for h, w in zip(have, want, strict=True)):
            windows = Windows("adaptive", output=want)
            return self._emitted_pool(node, read, "mean_pool", windows=windows)
        kernel = (have[0] // want[0], have[1] // want[1])
        geometry = Geometry(kernel, kernel)
        return self._emitted_pool(node, read, "avg_pool", geometry=geometry)

    def adaptive_max(self, node: Node, input, output_size) -> Ready:
        want, read = both(output_size), self.read(input, node)
        have = read.size[1:]
        if any(h % w for h, w in zip(have, want, strict=True)):
            self.refuse(
                node,
                f"an adaptive max-pool from {have} to {want} has windows of several sizes",
                "Use an image size that is divisible",
            )
        self.depends_on_size()
        kernel = (have[0] // want[0], have[1] // want[1])
        if kernel == (1, 1):
            return self.values[input]
        return self._emitted_pool(node, read, "max_pool", geometry=Geometry(kernel, kernel))

    def largest_over(self, node: Node, input, dim, keepdim=False) -> Ready:
        """The largest number over both axes of a map."""
        if len(input.shape) != 4 or not dim or sorted(d % 4 for d in dim) != [2, 3]:
            self.refuse(
                node,
                f"it takes the largest number over dimensions {tuple(dim or ())} of a map",
                "Take it over both axes of the map, (2, 3)",
            )
        value = self.adaptive_max(node, input, (1, 1))
        if keepdim:
            return value
        return replace(value, index=self.index_of(value, input).view(node.shape))

    def mean_over(self, node: Node, input, dim, keepdim) -> Ready:
        """The mean over dimensions, which have to be the rows and columns of a map."""
        value = self.ready(input, node)
        rank = len(input.shape)
        axes = sorted({d % rank for d in dim}) if dim else list(range(rank))
        rest = [d for d in range(rank) if d not in axes]
        index = self.index_of(value, input)
        area = value.size[1] * value.size[2]
        windows = index.permute(*rest, *axes)
        numbers = windows.flatten(len(rest))
        channel = numbers.div(area, rounding_mode="floor")[..., :1]
        whole = torch.equal(numbers.sort(-1)[0], channel * area + torch.arange(area))
        if 0 in axes or len(rest) != 2 and not whole:
            self.refuse(
                node,
                f"it averages over dimensions {tuple(dim or range(rank))} of {rank}",
                "Average over both axes of the map, (2, 3)",
            )
        if not whole:  # of a part of the map, or of zeros, too
            read = self.read_as(replace(value, index=windows), node)
            value = Ready((read.layer,), read.size)
            channel = torch.arange(2 * read.size[0]).view(2, -1, 1)
        means = channel.squeeze(-1)
        for axis in axes if keepdim else ():
            means = means.unsqueeze(axis)
        layers = value.layers if value.averaged else (self.joined(value),)
        if node.leaf:
            self.absorbed.append(node.name)
        return Ready(layers, (value.size[0], 1, 1), means, True, value.pool, node.name)

    def subsample(self, node: Node, input: Node, stride: tuple[int, int]) -> Ready:
        """Every stride-th row and column, from the first on."""
        if stride == (1, 1):
            return self.ready(input, node)
        value = self.ready(input, node)
        index = as_maps(self.index_of(value, input))[:, :, :: stride[0], :: stride[1]]
        if len(input.shape) == 3:
            index = index.squeeze(2)
        return Ready(value.layers, value.size, index, value.averaged, value.pool, node.name)

    def index_of(self, value: Ready, node: Node) -> Tensor:
        """Which number of the layers' maps stands where in a value; made if there is none yet."""
        if value.index is not None:
            return value.index
        return moved.fresh(*value.size).view(node.shape)

    def _geometry(self, node: Node, kernel, stride, padding, dilation) -> Geometry:
        ph, pw = both(padding, 0)
        stride = kernel if stride in (None, []) else both(stride)
        geometry = Geometry(kernel, stride, (ph, ph, pw, pw), both(dilation))
        reason = pool_fault(geometry)
        if reason:
            self.refuse(node, reason, "Pad less")
        return geometry

    def _emitted_pool(self, node: Node, read: Read, kind: str, **fields) -> Ready:
        name = self.unique(node.name)
        self.emit(Layer(name, kind, source=read.layer, **fields))
        return Ready((name,), map_size(node.shape), name=name)

    def _ceiling(self, node: Node, read: Read, g: Geometry) -> Geometry:
        """ceil_mode as more padding at the bottom and the right.

        Windows that begin inside the map may reach beyond it: with stride - 1 more rows, rounding
        down counts them. A window that begins in that padding would have to be dropped, which
        depends on the size of the map unless padding <= kernel - stride.
        """
        reach = [d * (k - 1) + 1 for k, d in zip(g.kernel, g.dilation, strict=True)]
        top, bottom, left, right = g.padding
        if bottom > reach[0] - g.stride[0] or right > reach[1] - g.stride[1]:
            self.depends_on_size()
            rows, columns = map_size(node.shape)[1:]
            height, width = _padded(read)
            more = (rows - 1) * g.stride[0] + reach[0] - height - top
            aside = (columns - 1) * g.stride[1] + reach[1] - width - left
            return g._replace(padding=(top, max(more, 0), left, max(aside, 0)))
        more = (top, bottom + g.stride[0] - 1, left, right + g.stride[1] - 1)
        return g._replace(padding=more)

    def _no_zeros_show(self, read: Read, g: Geometry, ceil_mode: bool) -> bool:
        """Whether a max-pool that pads itself is the same as one of a map padded with zeros.

        It is where nothing is below zero and no window lies in the padding as a whole.
        """
        pads = [a + b for a, b in zip(g.padding, read.padding, strict=True)]
        reach = max(pads[:2]) - g.kernel[0], max(pads[2:]) - g.kernel[1]
        inside = max(reach) < 0 and g.dilation == (1, 1) and not ceil_mode
        return inside and self.within(read.layer)


def both(value, one: int = 1) -> tuple[int, int]:
    """A number for both axes, two numbers, or one for the columns of a map of a single row."""
    if isinstance(value, int):
        return (value, value)
    if len(value) == 1:
        return (one, int(value[0]))
    return int(value[0]), int(value[1])


def map_size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, rows and columns of a map, sequence or vector with this shape, batch included."""
    if len(shape) == 2:
        return (shape[1], 1, 1)
    return (shape[1], 1, shape[2]) if len(shape) == 3 else (shape[1], shape[2], shape[3])


def _padded(read: Read) -> tuple[int, int]:
    top, bottom, left, right = read.padding
    return read.size[1] + top + bottom, read.size[2] + left + right


def _sides(padding: tuple[int, int, int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    return padding[:2], padding[2:]
