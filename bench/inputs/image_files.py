"""Images in files: what is opened at all, and how much of it is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

# By the ending of a name. Others are not opened whatever their name: Pillow starts a program for
# some of them.
FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
PIXELS = 2**26  # of the largest image that is decoded; few bytes of a file may stand for more


class Unreadable(ValueError):
    """What a file holds cannot be used as an image, and why."""


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[Image.Image]:
    """An image whose header was read; its pixels are decoded where they are first used.

    Raises:
        Unreadable: it is larger than PIXELS, or damaged, also where the body uses it.
    """
    try:
        with Image.open(source, formats=tuple(FORMATS.values())) as image:
            refuse_size(image.size)
            yield image
    except Unreadable:
        raise
    except Exception as error:  # a damaged image raises many types
        raise Unreadable(str(error) or type(error).__name__) from error


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
    scale = shorter / min(size)
    return round(width * scale), round(height * scale)
