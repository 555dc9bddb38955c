"""Maps [N, C, H, W] as torch keeps them, and [N, H, W, C] as kernels do."""

from __future__ import annotations

from torch import Tensor


def nhwc(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H, W, C], contiguous (free for channels_last)."""
    return x.permute(0, 2, 3, 1).contiguous()


def nchw(x: Tensor) -> Tensor:
    """[N, H, W, C] -> [N, C, H, W], channels_last, free."""
    return x.permute(0, 3, 1, 2)


def channels_last(t: Tensor) -> bool:
    """Whether the channels of t [N, C, H, W] lie last in memory, and not also second."""
    return t.shape[1] > 1 and t.stride(1) == 1 and not t.is_contiguous()
