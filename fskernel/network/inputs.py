"""The images that a network is shown: what is refused, and what lies beyond its range."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from fskernel import clipping
from fskernel.image_sizes import SHAPES, ImageSizes, as_maps
from fskernel.kernels.device import check_device
from fskernel.torch_rules.float_environment import in_float_environment
from fskernel.torch_rules.gradient import refuse_gradient


def check_images(x: object, channels: int, sizes: ImageSizes) -> None:
    """Refuses what are no images for a network.

    Args:
        channels: that it reads. sizes: which it takes.

    Raises:
        TypeError, ValueError: what is wrong with x.
    """
    if not isinstance(x, Tensor):
        shape = SHAPES[sizes.rank]
        raise TypeError(f"x is a {type(x).__name__}: expected a float tensor {shape}")
    if not x.is_floating_point():
        raise TypeError(
            f"x is {x.dtype}: expected float images, normalised as for the ANN "
            "(x.float() / 255, minus mean, over deviation)"
        )
    if x.dim() != sizes.rank:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected {SHAPES[sizes.rank]}")
    if x.shape[1] != channels:
        raise ValueError(
            f"x has {x.shape[1]} channels (shape {tuple(x.shape)}): the network reads {channels}"
        )
    if 0 in x.shape[2:]:
        raise ValueError(
            f"x is too small: its images have no pixel (shape {tuple(x.shape)}), so windows "
            "would lie in padding alone"
        )
    sizes.check(x)


def as_input(x: object, channels: int, sizes: ImageSizes, device: torch.device) -> Tensor:
    """X as float32 maps [N, C, H, W] on a network's device, without a gradient.

    Args:
        channels, sizes: as of `check_images`. device: that the network is on.

    Raises:
        TypeError, ValueError, RuntimeError: what is wrong with x, or that its gradient is asked.
    """
    check_images(x, channels, sizes)
    check_device(x.device, "x is on")
    if x.device != device:
        check_device(device, "the network is on")
        raise ValueError(
            f"x is on {x.device}, but the network is on {device}: use x.to('{device}') or "
            f"net.to('{x.device}')"
        )
    if x.layout != torch.strided:
        raise TypeError(f"x has layout {x.layout}: expected a dense tensor (x.to_dense())")
    refuse_gradient(x=x)
    if x.requires_grad:
        x = x.detach()
    x = as_maps(x)
    return x if x.dtype == torch.float32 else _to_float32(x)


@in_float_environment
def _to_float32(x: Tensor) -> Tensor:
    return x.to(torch.float32)


class Encoder(Protocol):
    """What has encoded images and knows how many values it clipped."""

    def encoded(self, x: Tensor) -> tuple[int, int]:
        """How many values were encoded, and how many of them lay beyond the range."""


class InputRange:
    """The range of a network's images, and whether somebody was told that theirs is larger.

    Args:
        steps: of a network; the first encodes the images.
    """

    def __init__(self, steps: nn.ModuleList):
        self._steps = steps
        self._told = False

    def judge(self, x: Tensor, encoder: Encoder) -> None:
        """Says, once, that many values of the images lie beyond their range."""
        if self._told or torch.compiler.is_compiling():
            return
        values, beyond = encoder.encoded(x)
        if beyond <= clipping.MOST * values:
            return
        self._told = True
        code = self._steps[0].code
        clipping.warn(
            "the network",
            beyond,
            values,
            f"the range of its images, +-{code.x_max * code.step:.4g},",
            "normalise them as those of the calibration, or convert with a larger input_range",
        )

    def saturated(self, x: Tensor) -> float:
        """Fraction of the pixels of x that lie beyond the range."""
        code = self._steps[0].code
        return float((x.abs() > code.step * (code.x_max + 0.5)).double().mean())
