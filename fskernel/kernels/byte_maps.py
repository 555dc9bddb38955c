"""Byte maps: how convolutions on a GPU's tensor cores leave their output for each other.

The tensor-core kernel multiplies bytes and reads the padding from memory, so it wants its input as
planes of bytes, high bytes first, with a halo around every image (csrc/cuda/byte_map.h). A
dense tensor has to be brought into that form, in a pass through memory of its own; a layer whose
readers all want it so writes it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from fskernel.codes.neuron import word_dtype
from fskernel.kernels import native

if TYPE_CHECKING:
    from fskernel.network.synapses import Synapses


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
        return ByteMap(data, size, word_dtype(K).itemsize, halo)

    @staticmethod
    def of_image(data: Tensor, x: Tensor, halo: Halo) -> ByteMap:
        """What the encoder of graded values left of x [N, C, H, W]."""
        n, c, h, w = x.shape
        return ByteMap(data, (n, h, w, c), 2, halo)


def numbers_of(x: Tensor | ByteMap | None) -> tuple[Tensor | None, list[int]]:
    """What the operators take: memory, and for a map the numbers that say what it is."""
    if isinstance(x, ByteMap):
        return x.data, [*x.size, x.planes, *x.halo]
    return x, []


def map_bytes(size: Sequence[int], planes: int, halo: Sequence[int]) -> int:
    """Bytes of the map of codes [N, H, W, C]."""
    return native.compiled().cuda_kept_bytes(list(halo), tuple(size), planes)


def kept_maps(steps: Sequence) -> dict[str, Halo]:
    """The layers that leave a byte map, by name: all their readers are on tensor cores.

    The encoder of graded values is one of them. Those stay dense whose tensor is a map already, and
    those whose readers want different maps. The image's size does not matter.
    """
    readers: dict[str, list] = {step.name: [] for step in steps}
    for step in steps:
        for name in set(step.sources):
            readers[name].append(step)
    found = {}
    for step in steps:
        writes = step.on_tensor_cores or not step.sources  # the encoder
        if writes and readers[step.name] and all(r.on_tensor_cores for r in readers[step.name]):
            halo = _halo(step, readers[step.name])
            if halo is not None:
                found[step.name] = halo
    return found


def _halo(step, readers: Sequence) -> Halo | None:
    groups = [
        group
        for reader in readers
        for name, group in zip(reader.sources, reader.groups, strict=False)
        if name == step.name
    ]
    if not groups:  # a residual alone
        return None
    planes, channels = word_dtype(step.code.bits).itemsize, groups[0].in_channels
    if any(native.compiled().cuda_planes(g.x_min, g.x_max) != planes for g in groups):
        return None
    if channels <= 8 and step.affine:  # which would write them one by one
        return None
    ints = [g.geometry.as_ints() for g in groups]
    narrow = {native.compiled().cuda_stored_channels(i, channels) == 8 for i in ints}
    paddings = [g.geometry.padding for g in groups]
    if len(narrow) > 1 or (True in narrow and len({left % 2 for _, _, left, _ in paddings}) > 1):
        return None  # pixels of 8 bytes are read from every second one on
    if all(
        native.compiled().cuda_reads_dense(i, channels, g.x_min, g.x_max, planes)
        for i, g in zip(ints, groups, strict=True)
    ):
        return None
    codes = {g.pad_code for g, p in zip(groups, paddings, strict=True) if any(p)}
    if len(codes) > 1:
        return None
    sides = (max(side) for side in zip(*paddings, strict=True))
    return Halo(*sides, codes.pop() if codes else 0, 8 if narrow.pop() else 0)
