"""Images in files: what is opened at all, and how much of it is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from fskernel.preprocessing import Unreadable, refuse_size

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


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[Image.Image]:
    """An image whose header was read; its pixels are decoded where they are first used.

    Raises:
        Unreadable: it has more than 2^26 pixels, or is damaged, also where the body uses it.
    """
    try:
        with Image.open(source, formats=tuple(FORMATS.values())) as image:
            refuse_size(image.size)
            yield image
    except Unreadable:
        raise
    except Exception as error:  # a damaged image raises many types
        raise Unreadable(str(error) or type(error).__name__) from error
