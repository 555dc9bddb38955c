"""From an image file's pixels to what a network reads, and the names of what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

    from fskernel.network.stored.fields import Fields

PIXELS = 2**26  # of the largest image that is decoded; few bytes of a file may stand for more
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # as Pillow's
MODES = {1: "L", 3: "RGB"}  # what Pillow calls images of so many channels
LONGEST_LABEL = 500  # characters


class Unreadable(ValueError):
    """What a file holds cannot be used as an image, and why."""


@dataclass(frozen=True)
class Preprocessing:
    """How images are made ready for a network, and what its classes are called.

    An image is resized, the middle is cut out, and pixels from 0 to 1 become (pixel - mean) / std,
    bit for bit as torchvision's transforms do it. Called with an image of Pillow's, it gives
    float32 [C, H, W].

    Attributes:
        size: (H, W) of what the network reads, in pixels.
        resize: what comes before the middle is cut out: pixels of the shorter side, or (H, W),
            which bends the proportions.
        mean, std: of each channel: one of them for grey images, three for colours.
        interpolation: of resizing: "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos".
        labels: names of the classes, in the order of the logits, or None.

    Raises:
        ValueError: a field that makes no sense, named.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    labels: tuple[str, ...] | None = None

    def __post_init__(self):
        for name in ("size", "resize", "mean", "std", "labels"):  # equal, whatever they came as
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        if not _is_size(self.size):
            self._refuse("size", f"expected (H, W), with 1 to {PIXELS:,} pixels")
        alone = type(self.resize) is int
        sides = (self.resize, self.resize) if alone else self.resize
        if not _is_size(sides) or any(r < s for r, s in zip(sides, self.size)):
            self._refuse("resize", f"expected pixels, no fewer than size={self.size}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            right = isinstance(values, tuple) and len(values) in MODES
            if not right or not all(type(v) is float and math.isfinite(v) for v in values):
                self._refuse(name, "expected one number for grey images, three for colours")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            self._refuse("std", f"expected {len(self.mean)} positive number(s), as many as mean")
        if self.interpolation not in INTERPOLATIONS:
            self._refuse("interpolation", f"use one of {', '.join(INTERPOLATIONS)}")
        if self.labels is not None and not (
            isinstance(self.labels, tuple) and all(map(_is_label, self.labels))
        ):
            self._refuse("labels", f"expected texts of 1 to {LONGEST_LABEL} printable characters")

    def _refuse(self, name: str, expected: str) -> None:
        text = repr(getattr(self, name))
        text = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(f"preprocessing.{name} is {text}: {expected}")

    @property
    def channels(self) -> int:
        """Of the images that it gives."""
        return len(self.mean)

    def __call__(self, image: Image.Image) -> Tensor:
        """An image of Pillow's, of any mode and size, as float32 [C, H, W].

        Raises:
            Unreadable: its grey levels have no fixed range, or it would be resized to more than
                2^26 pixels.
        """
        from PIL import Image

        image = eight_bits(image).convert(MODES[self.channels])
        if isinstance(self.resize, int):
            width, height = resized_size(image.size, self.resize)
        else:
            height, width = self.resize
        refuse_size((width, height))
        image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        rows, columns = self.size
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        image = image.crop((left, top, left + columns, top + rows))
        pixels = torch.from_numpy(np.array(image)).reshape(rows, columns, self.channels)
        x = pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format) / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (x - mean) / std

    def check(self, channels: int, fixed_size: tuple[int, int] | None, classes: int | None) -> None:
        """Refuses to belong to a network.

        Args:
            channels: that it reads. fixed_size: (H, W) of its images, where it depends on that.
            classes: its logits; None if it has several outputs.

        Raises:
            ValueError: what does not fit.
        """
        if self.channels != channels:
            self._refuse("mean", f"the network reads {channels} channel(s)")
        if fixed_size is not None and self.size != tuple(fixed_size):
            self._refuse("size", f"the network reads images of {fixed_size} alone")
        if self.labels is not None and classes is not None and len(self.labels) != classes:
            raise ValueError(
                f"preprocessing.labels names {len(self.labels)} classes: the network has {classes}"
            )

    def spec(self) -> dict:
        """What a file says of it."""
        resize = self.resize if isinstance(self.resize, int) else list(self.resize)
        lists = {name: list(getattr(self, name)) for name in ("size", "mean", "std")}
        labels = None if self.labels is None else list(self.labels)
        return lists | {"resize": resize, "interpolation": self.interpolation, "labels": labels}

    @staticmethod
    def from_fields(fields: Fields) -> Preprocessing:
        """What a file says.

        Raises:
            ValueError: a field that is missing, unknown, or makes no sense.
        """
        made = Preprocessing(
            size=tuple(fields.take_list("size", int, 2)),
            resize=fields.take("resize", int, list),
            mean=tuple(fields.take_list("mean", float)),
            std=tuple(fields.take_list("std", float)),
            interpolation=fields.take("interpolation", str),
            labels=fields.take("labels", list, None),
        )
        fields.end()
        return made


def _is_size(value: object) -> bool:
    right = isinstance(value, tuple) and len(value) == 2 and all(type(n) is int for n in value)
    return right and min(value) > 0 and value[0] * value[1] <= PIXELS


def _is_label(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= LONGEST_LABEL and text.isprintable()


def eight_bits(image: Image.Image) -> Image.Image:
    """An image whose grey levels have 8 bits: Pillow itself cuts longer ones off at 255.

    Raises:
        Unreadable: its pixels have no fixed range.
    """
    if image.mode.startswith("I;16"):
        return image.point(lambda level: level / 256, "L")
    if image.mode in ("I", "F"):
        raise Unreadable("pixels of 32 bits have no fixed range: save them as 8 or 16 bits")
    return image


def refuse_size(size: tuple[int, int]) -> None:
    """Raises Unreadable for a size (width, height) without pixels, or with more than PIXELS."""
    width, height = size
    if not 0 < width * height <= PIXELS:
        raise Unreadable(
            f"it has, or would be resized to, {width}x{height} pixels: 1 to {PIXELS:,} are decoded"
        )


def resized_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """The size (width, height) of an image once its shorter side has so many pixels."""
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter
