"""Pools: which of them are exact on spike words and graded values, and in which form."""

from __future__ import annotations

from torch import fx

from fskernel.codes.geometry import Geometry, pair, pool_fault
from fskernel.graph import Layer
from fskernel.tracing.values import Ready, Values


class Pools(Values):
    """What pools of a traced module do to the float layers."""

    def max_pool(self, node: fx.Node, source: fx.Node, args: tuple) -> Ready:
        kernel, stride, padding, dilation, ceil_mode, indices = args
        if indices:
            self.refuse(node, "return_indices=True", "Spikes carry no indices")
        if self.average and pair(kernel) != (1, 1):
            if pair(dilation) != (1, 1):
                self.refuse(node, "a dilated max-pool has no average form", "Use a plain max-pool")
            self.averaged.append(self.name(node))
            return self.avg_pool(node, source, (kernel, stride, padding, ceil_mode, True), None)
        return self.pool(node, source, "max_pool", kernel, stride, padding, dilation, ceil_mode)

    def whole_windows(self, node: fx.Node, source: fx.Node, g: Geometry) -> None:
        """Refuses ceil_mode of an average-pool unless no window reaches beyond the map.

        Smaller windows at the border divide by another number. Whether there are any depends on the
        size of the map.
        """
        shape, cure = self.shape(source), "Use ceil_mode=False, or an image size that is divisible"
        if shape is None:
            self.refuse(
                node,
                "whether ceil_mode=True makes smaller windows at the border, which divide by "
                "another number, depends on the size of the image",
                "Pass calibration images or input_size=(N, C, H, W), or use ceil_mode=False",
            )
        pads = (sum(g.padding[:2]), sum(g.padding[2:]))
        for i in (0, 1):
            if (shape[i - 2] + pads[i] - g.kernel[i]) % g.stride[i]:
                self.refuse(
                    node,
                    f"ceil_mode=True makes smaller windows at the border of a map of {shape[-2]}x"
                    f"{shape[-1]}, which divide by another number",
                    cure,
                )
        self.depends_on_size()

    def ceiling(self, node: fx.Node, g: Geometry) -> Geometry:
        """ceil_mode as more padding at the bottom and the right.

        Windows that begin inside the map may reach beyond it: with stride - 1 more rows, rounding
        down counts them. A window that begins in that padding would have to be dropped, which
        depends on the size of the map unless padding <= kernel - stride.
        """
        reach = [d * (k - 1) + 1 for k, d in zip(g.kernel, g.dilation, strict=True)]
        top, bottom, left, right = g.padding
        if bottom > reach[0] - g.stride[0] or right > reach[1] - g.stride[1]:
            self.refuse(
                node,
                "ceil_mode=True with this padding drops windows depending on the size of the map",
                "Use ceil_mode=False",
            )
        more = (top, bottom + g.stride[0] - 1, left, right + g.stride[1] - 1)
        return g._replace(padding=more)

    def avg_pool(self, node: fx.Node, source: fx.Node, args: tuple, divisor: int | None) -> Ready:
        kernel, stride, padding, ceil_mode, include_pad = args
        if divisor is not None and divisor != pair(kernel)[0] * pair(kernel)[1]:
            self.refuse(node, f"divisor_override={divisor}", "Remove it")
        if not include_pad and any(pair(padding)):
            self.refuse(
                node,
                "count_include_pad=False with padding divides by a number that varies over the map",
                "Use count_include_pad=True or no padding",
            )
        return self.pool(node, source, "avg_pool", kernel, stride, padding, 1, ceil_mode)

    def pool(self, node, source, kind, kernel, stride, padding, dilation, ceil_mode) -> Ready:
        ph, pw = pair(padding)
        kernel = pair(kernel)
        stride = kernel if stride is None or stride == [] else pair(stride)
        if kernel == (1, 1) and (ph, pw) == (0, 0) and not ceil_mode:
            return self.subsample(node, source, stride)
        value = self.spatial(source, node, padded=True)
        geometry = Geometry(kernel, stride, (ph, ph, pw, pw), pair(dilation))
        reason = pool_fault(geometry)
        if reason:
            self.refuse(node, reason, "Pad less")
        if kind == "max_pool" and any(value.padding):
            self.zeros_beside(node, value, geometry, ceil_mode)
        if ceil_mode:
            if kind == "max_pool":
                geometry = self.ceiling(node, geometry)
            else:
                self.whole_windows(node, source, geometry)
        if any(value.padding):
            more = zip(geometry.padding, value.padding, strict=True)
            geometry = geometry._replace(padding=tuple(a + b for a, b in more))
            value = Ready(value.layer, value.channels)
        if kind == "max_pool":
            return self.emit_pool(value, self.name(node), kind, geometry)
        shape = self.shape(source)
        covers = shape is not None and tuple(shape[-2:]) == kernel and not any(geometry.padding)
        pooling = Layer(self.name(node), kind, geometry=geometry)
        return Ready(value.layer, value.channels, pooling=pooling, pools_all=covers)

    def zeros_beside(self, node: fx.Node, value: Ready, g: Geometry, ceil_mode: bool) -> None:
        """Refuses a max-pool of a map with zeros padded on, unless a pool that pads is the same.

        It is where nothing is below zero and no window lies in the padding as a whole.
        """
        layer = self.unpooled(value.layer)
        if any(self.unpooled(n).kind != "neuron" for n in layer.sources or (layer.name,)):
            self.refuse(
                node,
                "it takes the largest values of a map with zeros padded on, where values below "
                "zero count for nothing",
                "Pool what a ReLU gives; or pad in the pool (padding=...), whose padding is less "
                "than any value, if that is meant",
            )
        pads = [a + b for a, b in zip(g.padding, value.padding, strict=True)]
        reach = max(pads[:2]) - g.kernel[0], max(pads[2:]) - g.kernel[1]
        if max(reach) >= 0 or g.dilation != (1, 1) or ceil_mode:
            self.refuse(
                node,
                "some of its windows may hold nothing but the zeros that are padded on",
                "Pad less than the kernel, without dilation and ceil_mode",
            )

    def whole_pool(self, value: Ready) -> Ready:
        """An average-pool that covers the map, and is not emitted yet, as what it is."""
        if not value.pools_all:
            return value
        self.absorbed.append(value.pooling.name)
        self.depends_on_size()
        return Ready(value.layer, value.channels, averaged=True)

    def adaptive(self, node: fx.Node, source: fx.Node, size: object) -> Ready:
        out = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        value = self.ready(source, node)
        if value.pools_all and out == (1, 1):  # of one pixel
            return self.whole_pool(value)
        value = self.spatial(source, node)
        if out == (1, 1):
            return Ready(value.layer, value.channels, averaged=True)
        shape = self.shape(source)
        if shape is None:
            self.refuse(
                node,
                f"an adaptive pool to {size} depends on the size of the image",
                "Pass calibration images or input_size=(N, C, H, W)",
            )
        self.depends_on_size()
        have = shape[-2:]
        want = tuple(h if o is None else o for h, o in zip(have, out, strict=True))
        if want == have:
            return value
        if any(h % w for h, w in zip(have, want, strict=True)):
            self.refuse(
                node,
                f"an adaptive pool from {have} to {want} has windows of several sizes",
                "Use an image size that is divisible",
            )
        kernel = (have[0] // want[0], have[1] // want[1])
        return self.pool(node, source, "avg_pool", kernel, kernel, 0, 1, False)
