"""Where the numbers of a view, a slice, a permutation, a pad or a repetition come from.

Such operations compute nothing. They are run on a tensor that holds, in the place of every number,
which number it is; what comes out is read as moves that layers can make. So there is one reading
of them all, whatever they are called and in whatever order they come.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ZERO = -1  # in the place of a number that is padded on

MOVES = {
    "view", "flatten", "unflatten", "permute", "transpose", "t", "numpy_T", "mT", "movedim",
    "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "unsqueeze",
    "squeeze", "expand", "repeat", "repeat_interleave", "tile", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "native_channel_shuffle", "flip", "roll", "constant_pad_nd", "pad",
    "upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "index", "index_select", "rot90", "swapaxes", "swapdims",
    "getitem", "tensor_split", "hsplit", "vsplit", "dsplit",
}  # fmt: skip

# Of a map of one pixel these are moves, too: whatever they average is that pixel.
AVERAGING = {"upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"}


def is_move(op: str, size: tuple[int, ...]) -> bool:
    """Whether an operation on a map of a size [H, W] moves numbers and computes nothing."""
    return op in MOVES or op in AVERAGING and all(n == 1 for n in size)


@dataclass(frozen=True)
class Axis:
    """How rows (or columns) of a map are taken from those of another, with n of them.

    Attributes:
        pad: zeros in front and behind. first: the first one that is taken. step: every how many.
        repeat: how often each is repeated. count: how many are taken, repetitions apart.
    """

    pad: tuple[int, int] = (0, 0)
    first: int = 0
    step: int = 1
    repeat: int = 1
    count: int = 0


@dataclass(frozen=True)
class Moves:
    """A map [C', H', W'] out of a map [C, H, W], in this order.

    Attributes:
        unshuffle: pixels of r x r that become channels (torch's pixel_unshuffle); 1: none.
        channels: of which channel each comes, int64 [C' r r], ZERO for channels of zeros.
        shuffle: channels that become pixels of r x r (torch's pixel_shuffle); 1: none.
        rows, columns: how these are taken.
    """

    unshuffle: int
    channels: Tensor
    shuffle: int
    rows: Axis
    columns: Axis


def fresh(channels: int, height: int, width: int) -> Tensor:
    """For two maps: which number of both stands where, int64 [2, C, H, W]."""
    return torch.arange(2 * channels * height * width).view(2, channels, height, width)


def moves(index: Tensor, size: tuple[int, int, int]) -> Moves | None:
    """What an index says of a map [2, C', H', W'] out of maps [2, C, H, W]; None: no such moves."""
    channels, height, width = size
    first = _of_each_image(index, channels * height * width)
    if first is None or first.dim() != 3:
        return None
    return _separable(first, size) or _shuffled(first, size) or _unshuffled(first, size)


def _of_each_image(index: Tensor, numbers: int) -> Tensor | None:
    """The index within one image, if images are apart."""
    if index.dim() < 2 or len(index) != 2:
        return None
    first, second = index
    same = torch.where(second == ZERO, ZERO, second - numbers)
    if not torch.equal(first, same) or bool((first >= numbers).any()):
        return None
    return first


def _separable(index: Tensor, size: tuple[int, int, int]) -> Moves | None:
    """Channels, rows and columns that are taken each by themselves."""
    _, height, width = size
    taken = _axes(index, height, width)
    if taken is None:
        return None
    channels, ys, xs = taken
    rows, columns = _axis(ys), _axis(xs)
    if rows is None or columns is None:
        return None
    return Moves(1, channels, 1, rows, columns)


def _axes(index: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Which channel, row and column each comes from, ZERO where all of it is zeros."""
    if not index.numel() or not bool((index >= 0).any()):
        return None
    c = torch.where(index < 0, ZERO, index // (height * width)).amax((1, 2))
    y = torch.where(index < 0, ZERO, index // width % height).amax((0, 2))
    x = torch.where(index < 0, ZERO, index % width).amax((0, 1))
    again = (c[:, None, None] * height + y[:, None]) * width + x
    zeros = (c[:, None, None] < 0) | (y[:, None] < 0) | (x < 0)
    return (c, y, x) if torch.equal(torch.where(zeros, ZERO, again), index) else None


def _axis(taken: Tensor) -> Axis | None:
    """Rows or columns as a step, repetitions and zeros around them."""
    inside = (taken >= 0).nonzero().flatten()
    front, end = int(inside[0]), int(inside[-1]) + 1
    pad = (front, len(taken) - end)
    part = taken[front:end]
    if bool((part < 0).any()):
        return None
    values, counts = torch.unique_consecutive(part, return_counts=True)
    repeat = int(counts[0])
    if bool((counts != repeat).any()):
        return None
    step = int(values[1] - values[0]) if len(values) > 1 else 1
    if step < 1 or bool((values.diff() != step).any()):
        return None
    return Axis(pad, int(values[0]), step, repeat, len(values))


def _shuffled(index: Tensor, size: tuple[int, int, int]) -> Moves | None:
    """Channels that became pixels, of which some of the last rows and columns may be left out.

    Of r x s pixels, too, where one is a multiple of the other: more of them than are taken.
    """
    _, height, width = size
    rows, columns = index.shape[1:]
    r, s = -(-rows // height), -(-columns // width)
    most = max(r, s)
    if most < 2 or most % r or most % s or bool((index < 0).any()):
        return None
    filled = index.repeat_interleave(most // r, 1).repeat_interleave(most // s, 2)
    behind = (0, most * width - filled.shape[2], 0, most * height - filled.shape[1])
    filled = F.pixel_unshuffle(F.pad(filled, behind, value=ZERO)[None], most)[0]
    channels = (filled // (height * width)).amax((1, 2))  # ZERO // n is ZERO
    every = (channels[:, None, None] * height + torch.arange(height)[:, None]) * width
    every = every + torch.arange(width)
    if not torch.equal(torch.where(filled < 0, ZERO, every), filled):
        return None
    down, across = Axis(step=most // r, count=rows), Axis(step=most // s, count=columns)
    return Moves(1, channels, most, down, across)


def _unshuffled(index: Tensor, size: tuple[int, int, int]) -> Moves | None:
    """Pixels that became channels."""
    channels, height, width = size
    r = height // max(index.shape[1], 1)
    if r < 2 or height % r or width % r or index.shape[1:] != (height // r, width // r):
        return None
    every = torch.arange(channels * height * width).view(1, channels, height, width)
    order = F.pixel_unshuffle(every, r)[0]  # [C r r, H/r, W/r]
    place = torch.empty_like(every.flatten())
    place[order.flatten()] = torch.arange(order.numel())  # where each number is by then
    size = (channels * r * r, height // r, width // r)
    inner = _separable(torch.where(index < 0, ZERO, place[index.clamp(min=0)]), size)
    if inner is None or inner.rows != whole(size[1]) or inner.columns != whole(size[2]):
        return None
    return Moves(r, inner.channels, 1, inner.rows, inner.columns)


def whole(size: int) -> Axis:
    """All rows or columns as they are."""
    return Axis(count=size)


def run(target, arguments: dict, index: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """An operation on an index in place of the numbers.

    Args:
        target: the operator. arguments: by the schema's names; the first is replaced.
    """
    names = [a.name for a in target._schema.arguments]
    given = dict(zip(names, arguments.values(), strict=True))
    given[names[0]] = index.contiguous()  # a view of it is one of the numbers in their order
    kept = {a.name for a in target._schema.arguments if a.kwarg_only}
    return target(*(given[n] for n in names if n not in kept), **{n: given[n] for n in kept})
