"""Pools over windows and over whole maps, and other reductions of axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fskernel.onnx_files.nodes import Node
from fskernel.onnx_files.windows import Pads, Window, flat

_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAX_MODULES = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_MODULES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_GLOBAL_MODULES = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


def _window(node: Node) -> tuple[Window, bool, bool]:
    """The window, whether `ceil_mode` is set, and whether torch's own padding does."""
    kernel = node.get("kernel_shape", ())
    if not 1 <= len(kernel) <= 3:
        node.refuse(
            f"its kernel has {len(kernel)} dimensions",
            "Pools over one, two and three axes are read",
        )
    window = Window.of(node, kernel)
    ceil = bool(node.get("ceil_mode", 0)) and window.same is None
    usual = all(2 * pad <= k for pad, k in zip(window.begin, window.kernel))
    return window, ceil, window.symmetric and usual


def max_pool(node: Node) -> nn.Module:
    """A module of torch where torch's own padding does."""
    node.only_output("indices")
    window, ceil, plain = _window(node)
    axes = len(window.kernel)
    if plain:
        return _MAX_MODULES[axes - 1](
            window.kernel, window.stride, window.begin, window.dilation, ceil_mode=ceil
        )
    return node.apply(partial(_max_pool, window, ceil))


def _pads(window: Window, ceil: bool, x: Tensor) -> Pads:
    sizes = x.shape[2:]
    return window.covering(sizes) if ceil else window.pads(sizes)


def _max_pool(window: Window, ceil: bool, x: Tensor) -> Tensor:
    x = F.pad(x, flat(_pads(window, ceil, x)), value=float("-inf"))
    pool = _MAX[len(window.kernel) - 1]
    return pool(x, window.kernel, window.stride, 0, window.dilation)


def average_pool(node: Node) -> nn.Module:
    """A module of torch where torch's own padding does."""
    window, ceil, plain = _window(node)
    axes = len(window.kernel)
    if any(d != 1 for d in window.dilation):
        node.refuse("its window is dilated", "Use a convolution with constant weights")
    counts = bool(node.get("count_include_pad", 0))
    if plain:
        return _AVERAGE_MODULES[axes - 1](
            window.kernel, window.stride, window.begin, ceil_mode=ceil, count_include_pad=counts
        )
    return node.apply(partial(_average_pool, window, ceil, counts))


def _average_pool(window: Window, ceil: bool, counts: bool, x: Tensor) -> Tensor:
    """The mean of what a window has of the map, or, with `counts`, of map and padding."""
    pool = partial(
        _AVERAGE[len(window.kernel) - 1], kernel_size=window.kernel, stride=window.stride
    )
    pads = _pads(window, ceil, x)
    mean = pool(F.pad(x, flat(pads)))
    if counts and not ceil:
        return mean
    ones = torch.ones_like(x[:1, :1])
    if counts:
        own = window.pads(x.shape[2:])
        ones = F.pad(ones, flat(own), value=1.0)
        pads = [(0, end - there) for (_, end), (_, there) in zip(pads, own)]
    return mean / pool(F.pad(ones, flat(pads)))


def global_average(node: Node) -> nn.Module:
    """The mean of each channel's map."""
    rank = node.rank()
    if rank is not None and 3 <= rank <= 5:
        return _GLOBAL_MODULES[rank - 3](1)
    return node.apply(partial(_over_map, torch.mean))


def global_max(node: Node) -> nn.Module:
    """The maximum of each channel's map."""
    return node.apply(partial(_over_map, torch.amax))


def _over_map(reduce: Callable, x: Tensor) -> Tensor:
    return reduce(x, dim=list(range(2, x.dim())), keepdim=True)


def _reduction(function: Callable) -> Callable[[Node], nn.Module]:
    def build(node: Node) -> nn.Module:
        axes = node.setting("axes", 1)
        if not axes and node.get("noop_with_empty_axes", 0):
            return nn.Identity()
        keep = bool(node.get("keepdims", 1))
        return node.apply(partial(_reduce, function, axes, keep), reads=(0,))

    return build


def _reduce(function: Callable, axes: Sequence[int] | None, keep: bool, x: Tensor) -> Tensor:
    return function(x, dim=list(axes or range(x.dim())), keepdim=keep)


def arg_max(node: Node) -> nn.Module:
    """Where the first of the largest elements is."""
    if node.get("select_last_index", 0):
        node.refuse("it takes the last of equal elements", "Take the first: select_last_index=0")
    keep = bool(node.get("keepdims", 1))
    return node.apply(partial(torch.argmax, dim=node.get("axis", 0), keepdim=keep))


OPERATORS = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMin": _reduction(torch.amin),
    "ArgMax": arg_max,
}
