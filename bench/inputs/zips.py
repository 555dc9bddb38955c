"""Zip files of small files from anywhere: what they claim is checked before anything is read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from bench.errors import UserError

ENTRIES = 100_000
BYTES = 2**16  # of one entry; an image of CIFAR-10 has 1,000 as JPEG, 3,000 as pixels
TOTAL = 2**30
RATIO = 100  # of all that is in it to the file itself
# The others unpack any amount at once, whatever was asked for.
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a zip, in the order of their names.

    Raises:
        UserError: it is damaged, or claims or holds more than small files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [info for info in archive.infolist() if not info.is_dir()]
            check(path, entries)
            for info in sorted(entries, key=lambda info: info.filename):
                with archive.open(info) as file:
                    # Of an entry that is longer than it claims no more than this is unpacked.
                    content = file.read(BYTES)
                yield info.filename, content
    except UserError:
        raise
    except Exception as error:  # a damaged file raises many types
        reason = str(error) or type(error).__name__
        raise UserError(f"data.root: {path} cannot be read: {reason}") from error


def check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raises UserError for claims that no zip of small files makes."""
    if len(entries) > ENTRIES:
        raise UserError(f"data.root: {path} holds {len(entries):,} files: at most {ENTRIES:,}")
    for info in entries:
        if info.compress_type not in METHODS:
            raise UserError(
                f"data.root: {info.filename} in {path} is packed by method {info.compress_type}: "
                f"pack it {' or '.join(METHODS.values())}"
            )
        if info.file_size > BYTES:
            raise UserError(
                f"data.root: {info.filename} in {path} has {info.file_size:,} bytes unpacked: a "
                f"image here has at most {BYTES:,}"
            )
    total, most = sum(info.file_size for info in entries), RATIO * path.stat().st_size
    if total > min(TOTAL, most):
        raise UserError(
            f"data.root: {path} claims to unpack to {total:,} bytes: at most {TOTAL:,}, and "
            f"{RATIO} times its own size, are read"
        )
