"""Labelled images in memory: how a network reads them, and how training varies them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class InMemory:
    """Images of one split, decoded."""

    images: Tensor  # uint8 [N, H, W, C]
    labels: Tensor  # int64 [N]
    name: str  # which images they are, in words
    classes: int
    shift: int  # training shifts an image by up to so many pixels
    mirrored: bool  # and whether it shows half of them mirrored

    def __len__(self) -> int:
        return len(self.labels)


def normalised(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """Float32 [N, C, H, W], channels_last, out of uint8 [N, H, W, C]: as torchvision does it."""
    x = images.permute(0, 3, 1, 2).float().div(255)
    shape = (1, len(mean), 1, 1)
    return x.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))


def augmented(
    images: Tensor, generator: torch.Generator, shift: int = 4, mirror: bool = True
) -> Tensor:
    """Each image shifted by up to `shift` pixels, with black beyond the border, half mirrored.

    Args:
        images: uint8 [N, H, W, C].
        generator: where the dice come from.
        shift: pixels.
        mirror: whether half of them are mirrored.
    """
    n, height, width, channels = images.shape
    padded = torch.zeros(n, height + 2 * shift, width + 2 * shift, channels, dtype=torch.uint8)
    padded[:, shift : shift + height, shift : shift + width] = images
    shifts = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=generator)
    columns = torch.arange(width)
    if mirror:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    y = shifts[0] + torch.arange(height)
    x = shifts[1] + columns
    return padded[torch.arange(n)[:, None, None], y[:, :, None], x[:, None, :]]


def shrunk(x: Tensor, side: int) -> Tensor:
    """Float32 [N, C, H, W] as images of side x side pixels, each the mean of those that it covers.

    Images that are no larger stay as they are.
    """
    if side >= min(x.shape[2:]):
        return x
    return functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
