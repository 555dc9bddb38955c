"""Resize and Upsample, as far as torch's interpolation is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from fskernel.onnx_files.nodes import Node

_HALF = ("half_pixel", "pytorch_half_pixel")
_MODES = {
    "linear": {3: "linear", 4: "bilinear", 5: "trilinear"},
    "cubic": {4: "bicubic"},
}
_CURE = (
    "Export it as torch.nn.functional.interpolate does it: nearest, or linear and cubic with half "
    "pixels or aligned corners"
)


@dataclass(frozen=True)
class Manner:
    """How torch interpolates.

    Attributes:
        mode: torch's, or "linear" or "cubic", whose names there depend on the number of axes.
        corners: `align_corners`.
        whole: it is the same only where sizes grow by whole numbers.
        axes: those that the scales or sizes are of; None: all.
    """

    mode: str
    corners: bool | None = None
    whole: bool = False
    axes: tuple[int, ...] | None = None

    def spatial(self, numbers: Sequence, x: Tensor, same: Sequence) -> list:
        """The numbers of all axes behind the channels, `same` being those of axes left out."""
        found = list(same)
        for axis, number in zip(range(x.dim()) if self.axes is None else self.axes, numbers):
            found[axis] = number
        return found[2:]

    def interpolated(self, x: Tensor, **target) -> Tensor:
        mode = _MODES[self.mode][x.dim()] if self.mode in _MODES else self.mode
        return F.interpolate(x, mode=mode, align_corners=self.corners, **target)


def upsample(node: Node) -> nn.Module:
    """Before opset 10."""
    mode = node.get("mode", "nearest")
    if mode != "nearest":
        node.refuse(f"its mode {mode} aligns the pixels in a way that torch does not", _CURE)
    return _by_scales(node, Manner("nearest"), node.setting("scales", 1))


def resize(node: Node) -> nn.Module:
    """To sizes or by scales, constant or computed."""
    manner = _manner(node)
    if node.opset >= 11 and node.given(3):
        return node.apply(partial(_to_sizes, manner), reads=(0, 3), numbers=(3,))
    at = 1 if node.opset < 11 else 2
    if node.varies(at):
        return node.apply(partial(_to_scales, manner), reads=(0, at), numbers=(at,))
    return _by_scales(node, manner, node.setting("scales", at))


def _manner(node: Node) -> Manner:
    mode = node.get("mode", "nearest")
    place, rounding = "asymmetric", "floor"
    if node.opset >= 11:
        place = node.get("coordinate_transformation_mode", "half_pixel")
        rounding = node.get("nearest_mode", "round_prefer_floor")
    for name, usual in (
        ("antialias", 0),
        ("exclude_outside", 0),
        ("keep_aspect_ratio_policy", "stretch"),
        ("cubic_coeff_a", -0.75),
    ):
        if node.get(name, usual) != usual:
            node.refuse(f"{name} is {node.get(name)}", _CURE)
    manner = None
    if mode != "nearest":
        if place in (*_HALF, "align_corners"):
            manner = Manner(mode, place == "align_corners")
    elif (place, rounding) == ("asymmetric", "floor"):
        manner = Manner("nearest")
    elif (place, rounding) == ("tf_half_pixel_for_nn", "floor"):
        manner = Manner("nearest-exact")
    elif place in _HALF and rounding == "round_prefer_ceil":
        manner = Manner("nearest-exact")
    elif place in _HALF and rounding == "round_prefer_floor":
        manner = Manner("nearest", whole=True)
    if manner is None:
        how = f"{mode}, {rounding}" if mode == "nearest" else mode
        node.refuse(f"{how}, with the pixels at {place}, is nothing that torch computes", _CURE)
    axes, rank = node.get("axes"), node.rank()
    if axes is None:
        return manner
    if min(axes) < 0 and rank is None:
        node.refuse(
            "how many dimensions its input has is not known",
            "Infer the shapes: onnx.shape_inference.infer_shapes(model)",
        )
    return replace(manner, axes=tuple(axis % rank if axis < 0 else axis for axis in axes))


def _by_scales(node: Node, manner: Manner, scales: list[float] | None) -> nn.Module:
    """Of constant scales."""
    if not scales:
        node.refuse("it has neither scales nor sizes", "Export the network again")
    axes = range(len(scales)) if manner.axes is None else manner.axes
    if any(axis < 2 and scale != 1 for axis, scale in zip(axes, scales)):
        node.refuse("it resizes other axes than those behind the channels", "Transpose around it")
    if manner.whole and not all(scale == int(scale) for scale in scales):
        node.refuse(
            f"half pixels, rounded down, and the scales {scales} are nothing of torch's", _CURE
        )
    return node.apply(partial(_to_scales, manner, scales=scales), reads=(0,))


def _to_scales(manner: Manner, x: Tensor, scales: Sequence[float]) -> Tensor:
    spatial = manner.spatial(scales, x, [1.0] * x.dim())
    if all(isinstance(s, float) and s == int(s) for s in spatial):
        size = [n * int(s) for n, s in zip(x.shape[2:], spatial)]
        return manner.interpolated(x, size=size)
    return manner.interpolated(x, scale_factor=spatial)


def _to_sizes(manner: Manner, x: Tensor, sizes: Sequence[int]) -> Tensor:
    size = manner.spatial(sizes, x, x.shape)
    if manner.whole and any(n % own != 0 for n, own in zip(size, x.shape[2:])):
        raise ValueError(
            f"a map of {list(x.shape[2:])} is resized to {size}: with half pixels that are rounded "
            "down, only whole multiples are the same in torch; give another image size"
        )
    return manner.interpolated(x, size=size)


OPERATORS = {"Upsample": upsample, "Resize": resize}
