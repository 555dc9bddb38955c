"""Byte maps: how convolutions on a GPU's tensor cores leave their output for each other.

The tensor-core kernel multiplies bytes and reads the padding from memory, so it wants its input as
planes of bytes, high bytes first, with a halo around every image (csrc/cuda/tensor_layout.h). A
dense tensor has to be brought into that form, in a pass through memory of its own; a layer whose
readers all want it so writes it at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from fskernel.synapses import Synapses

try:
    from fskernel import _C
except ImportError:  # explained when a kernel is first asked for
    _C = None

_SLACK = 64  # bytes behind a map: kernels may read, but not use, so many


class Halo(NamedTuple):
    """Rows and pixels around every image of a map, and the code that stands there.

    `stored` is the number of channels of a pixel in the map; 0: the next multiple of 16.
    """

    top: int
    bottom: int
    left: int
    right: int
    pad_code: int
    stored: int = 0


class ByteMap(NamedTuple):
    """Codes [N, H, W, C] as bytes [planes, N, rows, cols, channels], halo included, and slack.

    Attributes:
        data: uint8, one dimension.
        size: N, H, W and C.
        planes: 1, or 2: high bytes (signed), low bytes.
        halo: around every image.
    """

    data: Tensor
    size: tuple[int, int, int, int]
    planes: int
    halo: Halo

    @staticmethod
    def of_output(
        data: Tensor, x: Tensor | ByteMap, group: Synapses, K: int, halo: Halo
    ) -> ByteMap:
        """What a convolution of x by its first synapse group left in `data`."""
        n, h, w = (x.size if isinstance(x, ByteMap) else x.shape)[:3]
        size = (n, *group.geometry.output_size(h, w), group.out_channels)
        return ByteMap(data, size, 1 if 1 <= K <= 8 else 2, halo)

    @staticmethod
    def of_picture(data: Tensor, x: Tensor, halo: Halo) -> ByteMap:
        """What the encoder of graded values left of x [N, C, H, W]."""
        n, c, h, w = x.shape
        return ByteMap(data, (n, h, w, c), 2, halo)


def numbers_of(x: Tensor | ByteMap | None) -> tuple[Tensor | None, list[int]]:
    """What the operators take: memory, and for a map the numbers that say what it is."""
    if isinstance(x, ByteMap):
        return x.data, [*x.size, x.planes, *x.halo]
    return x, []


def map_bytes(size: Sequence[int], planes: int, halo: Sequence[int]) -> int:
    """Bytes of the map of codes [N, H, W, C]: kept_map of csrc/cuda/tensor_layout.cpp."""
    n, h, w, c = size
    top, bottom, left, right, _, stored = halo
    stored = stored or _round_up(c, 16)
    columns = _round_up(left + w + right, 16 // math.gcd(stored, 16))  # rows begin at 16 bytes
    return planes * n * (h + top + bottom) * columns * stored + _SLACK


def _round_up(n: int, to: int) -> int:
    return (n + to - 1) // to * to


def on_tensor_cores(step) -> bool:
    """Whether a step is a convolution on tensor cores: pack_header of csrc/cuda/pack.cpp."""
    return step.op == "conv" and all(g.geometry.groups == 1 for g in step.groups)


def kept_maps(steps: Sequence) -> dict[str, Halo]:
    """The layers that leave a byte map, by name: all their readers are on tensor cores.

    The encoder of graded values is one of them. Those stay dense whose tensor is a map already, and
    those whose readers want different maps. The picture's size does not matter.
    """
    readers: dict[str, list] = {step.name: [] for step in steps}
    for step in steps:
        for name in set(step.sources):
            readers[name].append(step)
    found = {}
    for step in steps:
        writes = on_tensor_cores(step) or (step.op == "encode" and step.code.K == 0)
        if writes and readers[step.name] and all(map(on_tensor_cores, readers[step.name])):
            halo = _halo(step, readers[step.name])
            if halo is not None:
                found[step.name] = halo
    return found


def _planes(group: Synapses) -> int:
    """Of the map that the group reads: byte_map of csrc/cuda/tensor_layout.cpp."""
    if group.x_min < 0:
        return 1 if group.x_min >= -128 and group.x_max <= 127 else 2
    return 1 if group.x_max <= 255 else 2


def _halo(step, readers: Sequence) -> Halo | None:
    groups = [
        group
        for reader in readers
        for name, group in zip(reader.sources, reader.groups, strict=False)
        if name == step.name
    ]
    if not groups:  # a residual alone
        return None
    planes, channels = 1 if 1 <= step.code.K <= 8 else 2, groups[0].in_channels
    if any(_planes(g) != planes for g in groups):
        return None
    if channels <= 8 and step.op == "conv":  # which would write them one by one
        return None
    narrow = {_C.cuda_stored_channels(g.geometry.as_ints(), channels) == 8 for g in groups}
    paddings = [g.geometry.padding for g in groups]
    if len(narrow) > 1 or (True in narrow and len({left % 2 for _, _, left, _ in paddings}) > 1):
        return None  # pixels of 8 bytes are read from every second one on
    is_one = planes == 1 and channels % 64 == 0  # without padding: is_byte_map of tensor_layout.cpp
    if all(is_one and not any(p) for p in paddings):
        return None
    codes = {g.pad_code for g, p in zip(groups, paddings, strict=True) if any(p)}
    if len(codes) > 1:
        return None
    sides = (max(side) for side in zip(*paddings, strict=True))
    return Halo(*sides, codes.pop() if codes else 0, 8 if narrow.pop() else 0)
