"""Operations that move elements: reshaping, cutting, joining, padding.

Shapes, axes and positions may be constants or numbers that are computed from the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fskernel.onnx_files.nodes import Node, tensor
from fskernel.onnx_files.windows import flat

_NEGATIVE = "Use positive steps; a flip of the image belongs into the preprocessing"


def reshape(node: Node) -> nn.Module:
    """0 keeps a dimension.

    So does the input's own first dimension, written as a constant: the number of images of a file
    that was exported for one.
    """
    shape, operand = node.constant(1), node.operand(0)
    keeps = not node.get("allowzero", 0)
    if shape is not None and keeps and shape.size and operand is not None and operand.shape:
        if shape[0] > 0 and operand.shape[0] == shape[0]:
            return node.apply(partial(_reshape, keeps, shape=[0, *shape[1:].tolist()]), reads=(0,))
    return node.apply(partial(_reshape, keeps), numbers=(1,))


def _reshape(keeps: bool, x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.reshape(
        [x.shape[i] if keeps and isinstance(n, int) and n == 0 else n for i, n in enumerate(shape)]
    )


def flatten(node: Node) -> nn.Module:
    """As a matrix; from axis 1 on it is torch's own."""
    axis = node.get("axis", 1)
    return nn.Flatten() if axis == 1 else node.apply(partial(_flatten, axis))


def _flatten(axis: int, x: Tensor) -> Tensor:
    rows = 1
    for n in x.shape[:axis]:
        rows = rows * n
    return x.reshape(rows, -1)


def transpose(node: Node) -> nn.Module:
    """Dimensions in another order; without one, reversed."""
    return node.apply(partial(_transpose, node.get("perm")))


def _transpose(order: Sequence[int] | None, x: Tensor) -> Tensor:
    return x.permute(list(order) if order else list(range(x.dim()))[::-1])


def squeeze(node: Node) -> nn.Module:
    """Axes of one element go, all of them where none is named."""
    return node.apply(partial(_squeeze, node.setting("axes", 1)), reads=(0,))


def _squeeze(axes: Sequence[int] | None, x: Tensor) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(node: Node) -> nn.Module:
    """Axes of one element, counted in the result."""
    return node.apply(partial(_unsqueeze, node.setting("axes", 1)), reads=(0,))


def _unsqueeze(axes: Sequence[int], x: Tensor) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def concat(node: Node) -> nn.Module:
    """Side by side."""
    return node.apply(partial(_concat, node.get("axis")))


def _concat(axis: int, *parts: Tensor) -> Tensor:
    return torch.cat(parts, axis)


def split(node: Node) -> nn.Module:
    """In parts of given sizes, or a part for each output; the last may be smaller."""
    axis = node.get("axis", 0)
    sizes = node.setting("split", 1)
    return node.apply(partial(_split, axis, sizes, len(node.outputs)), reads=(0,))


def _split(axis: int, sizes: Sequence[int] | None, parts: int, x: Tensor) -> Tensor:
    return x.split(list(sizes) if sizes else -(-x.shape[axis] // parts), axis)


def cut(node: Node) -> nn.Module:
    """The Slice node."""
    if "starts" in node.attributes:
        starts, ends, axes = (node.get(name) for name in ("starts", "ends", "axes"))
        return node.apply(partial(_cut, starts=starts, ends=ends, axes=axes))
    steps = node.constant(4)
    if steps is not None and (steps < 0).any():
        node.refuse(f"its steps are {steps.tolist()}", _NEGATIVE)
    return node.apply(_cut, numbers=(1, 2, 3, 4))


def _cut(x: Tensor, starts, ends, axes=None, steps=None) -> Tensor:
    where = [slice(None)] * x.dim()
    axes = range(len(starts)) if axes is None else axes
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts)):
        where[axis] = slice(start, end, step)
    return x[tuple(where)]


def gather(node: Node) -> nn.Module:
    """Constant positions of one axis, or those that follow from sizes."""
    axis, indices = node.get("axis", 0), node.constant(1)
    if indices is None:
        if node.operand(1).kind == "sizes":
            return node.apply(partial(_gather, axis), numbers=(1,))
        node.refuse("its indices depend on the image", "Use constant indices")
    if indices.ndim <= 1:
        return node.apply(partial(_gather, axis), numbers=(1,))
    return node.apply(partial(_gather_block, axis))


def _gather(axis: int, x: Tensor, indices) -> Tensor:
    if not isinstance(indices, list):
        return x.select(axis, indices)
    n = len(indices)
    if n and indices == list(range(indices[0], indices[0] + n)) and indices[0] >= 0:
        return x.narrow(axis, indices[0], n)
    positive = [i if i >= 0 else i + x.shape[axis] for i in indices]
    return x.index_select(axis, torch.tensor(positive, device=x.device))


def _gather_block(axis: int, x: Tensor, indices: Tensor) -> Tensor:
    axis %= x.dim()
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    picked = x.index_select(axis, indices.flatten())
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def expand(node: Node) -> nn.Module:
    """Repeats dimensions of 1."""
    return node.apply(_expand, numbers=(1,))


def _expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A dimension of 1 in the shape keeps that of x."""
    new = max(len(shape) - x.dim(), 0)
    shape = [1] * (x.dim() - len(shape)) + list(shape)
    own = [1] * new + list(x.shape)
    return x.expand([there if n == 1 else n for n, there in zip(shape, own)])


def full(node: Node) -> nn.Module:
    """The ConstantOfShape node, of a shape that depends on the image's size."""
    value = node.get("value")
    value = torch.zeros(1) if value is None else tensor(value)
    function = partial(_full, value.flatten()[0].item(), value.dtype)
    return node.apply(function, numbers=(0,))


def _full(value: float, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    return torch.full(list(shape), value, dtype=dtype)


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(node: Node) -> nn.Module:
    """Numbers around the map, or pixels of its own."""
    mode = node.get("mode", "constant")
    if mode not in _MODES:
        node.refuse(f"its mode is {mode}", f"Use one of {', '.join(_MODES)}")
    value = node.setting("value", 2)
    value = value[0] if value else 0.0
    axes = node.setting("axes", 3)
    function = partial(_pad, _MODES[mode], value, axes)
    if "pads" in node.attributes:
        return node.apply(partial(function, pads=node.get("pads")), reads=(0,))
    return node.apply(function, reads=(0, 1), numbers=(1,))


def _pad(mode: str, value: float, axes: Sequence[int] | None, x: Tensor, pads) -> Tensor:
    rank, n = x.dim(), len(pads) // 2
    ends = [(0, 0)] * rank
    for axis, begin, end in zip(range(rank) if axes is None else axes, pads[:n], pads[n:]):
        ends[axis] = (begin, end)
    padded = [axis for axis in range(rank) if not _is_zero(ends[axis])]
    if mode == "constant":
        first = padded[0] if padded else rank
        return F.pad(x, flat(ends[first:]), mode, value) if padded else x
    # torch reflects the last axes, all but the first two: what is padded goes there.
    still = [axis for axis in range(rank) if axis not in padded]
    if not padded:
        return x
    order = [*still[:2], *sorted([*padded, *still[2:]])]
    turned = F.pad(x.permute(order), flat([ends[axis] for axis in order[2:]]), mode)
    return turned.permute([order.index(axis) for axis in range(rank)])


def _is_zero(ends: tuple) -> bool:
    """Whether it is known that nothing is padded; sizes are not asked."""
    return all(isinstance(n, int) and n == 0 for n in ends)


def depth_to_space(node: Node) -> nn.Module:
    """Channels become pixels; CRD is torch's order."""
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return nn.PixelShuffle(block)
    return node.apply(partial(_depth_to_space, block))


def _depth_to_space(block: int, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(node: Node) -> nn.Module:
    """Pixels become channels."""
    return node.apply(partial(_space_to_depth, node.get("blocksize")))


def _space_to_depth(block: int, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


def identity(node: Node) -> nn.Module:
    """Does nothing."""
    return nn.Identity()


def dropout(node: Node) -> nn.Module:
    """Does nothing but in training."""
    training = node.constant(2)
    if node.varies(2) or (training is not None and training.item()):
        node.refuse("it is in training mode", "Export the network in eval mode")
    node.only_output("mask")
    return nn.Dropout()


OPERATORS = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Gather": gather,
    "Expand": expand,
    "ConstantOfShape": full,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Identity": identity,
    "Dropout": dropout,
}
