"""Windows of convolutions and pools: kernel, stride, dilation; padding, which may follow sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fskernel.onnx_files.nodes import Node

Pads = list[tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """The geometry of one node, a number for each axis of the image.

    Attributes:
        begin, end: padding. same: "UPPER" or "LOWER" where it depends on the size instead, such
            that the output has the input's size over the stride; the odd one goes to that end.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    same: str | None = None

    @classmethod
    def of(cls, node: Node, kernel: Sequence[int]) -> Window:
        """The window of a node with a kernel of this size."""
        n = len(kernel)
        stride = tuple(node.get("strides", [1] * n))
        dilation = tuple(node.get("dilations", [1] * n))
        pads = list(node.get("pads", [0] * 2 * n))
        auto = node.get("auto_pad", "NOTSET")
        if len(stride) != n or len(dilation) != n or len(pads) != 2 * n:
            node.refuse(
                f"its strides, dilations and pads do not fit a kernel of {n} dimensions",
                "Export the network again",
            )
        if min(pads, default=0) < 0:
            node.refuse(f"its pads {pads} are negative", "Cut the map in front of it, by a Slice")
        found = cls(tuple(kernel), stride, dilation, tuple(pads[:n]), tuple(pads[n:]))
        if auto == "NOTSET":
            return found
        zeros = (0,) * n
        if auto == "VALID":
            return cls(found.kernel, stride, dilation, zeros, zeros)
        if auto not in ("SAME_UPPER", "SAME_LOWER"):
            node.refuse(f"auto_pad={auto} is unknown", "Use explicit pads")
        same = cls(found.kernel, stride, dilation, zeros, zeros, auto.removeprefix("SAME_"))
        if any(s > 1 and reach > 1 for s, reach in zip(stride, same.reach)):
            return same
        fixed = same.pads(stride)  # of a stride of 1, and of single pixels, whatever the size
        return cls(
            found.kernel, stride, dilation, tuple(p for p, _ in fixed), tuple(p for _, p in fixed)
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """How many pixels a window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation))

    @property
    def symmetric(self) -> bool:
        """Whether the padding is the same at both ends, for every size."""
        return self.same is None and self.begin == self.end

    def pads(self, sizes: Sequence[int]) -> Pads:
        """The padding of a map, (begin, end) for each axis; sizes may be symbolic."""
        if self.same is None:
            return list(zip(self.begin, self.end))
        found = []
        for size, stride, reach in zip(sizes, self.stride, self.reach):
            outputs = (size + stride - 1) // stride
            total = (outputs - 1) * stride + reach - size
            if reach < stride:  # else it is not negative, and an exporter need not ask
                total = torch.sym_max(total, 0)
            less = total // 2
            more = total - less
            found.append((less, more) if self.same == "UPPER" else (more, less))
        return found

    def covering(self, sizes: Sequence[int]) -> Pads:
        """Padding for the outputs of `ceil_mode`; no window begins in the end's padding."""
        found = []
        axes = zip(sizes, self.pads(sizes), self.stride, self.reach)
        for size, (begin, end), stride, reach in axes:
            outputs = -((reach - size - begin - end) // stride) + 1
            if (outputs - 1) * stride >= size + begin:
                outputs -= 1
            found.append((begin, (outputs - 1) * stride + reach - size - begin))
        return found


def flat(pads: Pads) -> list[int]:
    """As torch.nn.functional.pad wants them: the last axis first."""
    return [number for pair in reversed(pads) for number in pair]
