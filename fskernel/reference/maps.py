"""Maps of integers as the oracles see them: with padding around, in windows, through synapses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from fskernel.codes.geometry import Geometry


def pad_map(x: Tensor, g: Geometry, code: int) -> Tensor:
    """The map [N, H, W, C] with `code` around it, as far as the geometry says."""
    n, h, w, c = x.shape
    g.output_size(h, w)  # refuses a window that does not fit
    top, bottom, left, right = g.padding
    if not any(g.padding):
        return x
    padded = x.new_full((n, h + top + bottom, w + left + right, c), code)
    padded[:, top : top + h, left : left + w] = x
    return padded


def window_view(padded: Tensor, g: Geometry) -> Tensor:
    """View [N, OH, OW, C, kh, kw] of the windows of a padded map."""
    span = [d * (k - 1) + 1 for k, d in zip(g.kernel, g.dilation)]
    windows = padded.unfold(1, span[0], g.stride[0]).unfold(2, span[1], g.stride[1])
    return windows[..., :: g.dilation[0], :: g.dilation[1]]


def current(padded: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """What reaches each neuron through integer weights: a convolution, exact below 2^53.

    Args:
        padded: integers [N, H, W, I], such as the spikes of one time step, padding included.
        weight: int8 or int16 [O, I/groups, kh, kw].

    Returns:
        int64 [N, OH, OW, O].
    """
    x = padded.to(torch.float64).permute(0, 3, 1, 2)
    y = F.conv2d(x, weight.to(torch.float64), None, g.stride, 0, g.dilation, g.groups)
    return y.to(torch.int64).permute(0, 2, 3, 1)


def bit_planes(x: Tensor, x_min: int, x_max: int) -> Iterator[tuple[int, Tensor]]:
    """The bit-planes of codes in [x_min, x_max] and what a 1 in each is worth.

    The most significant comes first. Codes that may be negative are taken in two's complement,
    where a 1 in the top plane counts negative.
    """
    bits = x_max.bit_length()
    if x_min < 0:
        bits = max(bits, (-x_min - 1).bit_length()) + 1
    codes = x.to(torch.int32)
    for k in reversed(range(max(bits, 1))):
        worth = -(2**k) if x_min < 0 and k == bits - 1 else 2**k
        yield worth, (codes >> k) & 1
