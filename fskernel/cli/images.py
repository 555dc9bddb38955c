"""The image files that a command is given: which they are, their classes, their pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fskernel.cli.faults import Failure, Usage
from fskernel.cli.terminal import printable, say, watched
from fskernel.image_files import FORMATS, opened
from fskernel.preprocessing import Preprocessing, Unreadable
from fskernel.progress import progress_bar

BATCH = 16


def find(places: Sequence[Path]) -> list[Path]:
    """The image files of folders, with their subfolders, sorted, and of files, in the given order.

    Hidden files and folders are left out, and files whose names do not end like an image's.

    Raises:
        Usage: a place does not exist, is a file of another kind, or there is no image at all.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(_inside(place))
        elif not place.exists():
            raise Usage(f"{place}: there is no such file or folder")
        elif place.suffix.lower() not in FORMATS:
            raise Usage(f"{place} is no image: its name must end in one of {', '.join(FORMATS)}")
        else:
            found.append(place)
    if not found:
        places_ = ", ".join(map(str, places))
        raise Usage(f"{places_}: there is no image, no file that ends in {', '.join(FORMATS)}")
    return found


def _inside(folder: Path) -> Iterator[Path]:
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in FORMATS:
                yield Path(at) / name


def evenly(count: int | None, n: int) -> list[int]:
    """At most `count` of n positions, at even distances; None: all."""
    if count is None or count >= n:
        return list(range(n))
    return [i * n // count for i in range(count)]


def classes_of(paths: Sequence[Path], labels: Sequence[str] | None, classes: int) -> list[int]:
    """The class of each image, by the folder that it is in.

    Args:
        labels: of the network, or None. classes: its logits.

    Raises:
        Usage: the folders are neither labels of the network nor as many as its classes.
    """
    names = sorted({path.absolute().parent.name for path in paths})
    if labels is not None and set(names) <= set(labels):
        position = {name: labels.index(name) for name in names}
    elif len(names) == classes:
        position = {name: i for i, name in enumerate(names)}
    else:
        raise Usage(
            f"--labelled: the images are in {len(names)} folder(s), {', '.join(names[:3])}..., "
            f"which are neither labels of the network nor as many as its {classes} classes"
        )
    return [position[path.absolute().parent.name] for path in paths]


@dataclass
class Reader:
    """Reads image files; those that cannot be read are named on stderr and left out.

    Attributes:
        preprocessing: of the network.
        unreadable: the reason, by path.
    """

    preprocessing: Preprocessing
    unreadable: dict[Path, str] = field(default_factory=dict)

    def read(self, path: Path) -> Tensor | None:
        """Float32 [C, H, W], or None."""
        try:
            with opened(path) as image:
                return self.preprocessing(image)
        except Unreadable as error:
            self.unreadable[path] = str(error)
            say(f"{printable(str(path))} cannot be read and is left out: {printable(str(error))}")
            return None

    def batches(
        self, paths: Sequence[Path], batch: int, advance: Callable[[str], None] = lambda name: None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Positions among the paths, and float32 [n <= batch, C, H, W], of those that can be read.

        Args:
            advance: called after each file.
        """
        at: list[int] = []
        pixels: list[Tensor] = []
        for i, path in enumerate(paths):
            x = self.read(path)
            advance("")
            if x is not None:
                at.append(i)
                pixels.append(x)
            if len(pixels) == batch:
                yield at, torch.stack(pixels).contiguous(memory_format=torch.channels_last)
                at, pixels = [], []
        if pixels:
            yield at, torch.stack(pixels).contiguous(memory_format=torch.channels_last)


def gathered(
    paths: Sequence[Path], preprocessing: Preprocessing
) -> tuple[list[tuple[list[int], Tensor]], int]:
    """All readable images in memory, as `Reader.batches` gives them, and their number.

    Raises:
        Failure: none can be read.
    """
    with progress_bar("reading images", len(paths), watched()) as advance:
        batches = list(Reader(preprocessing).batches(paths, BATCH, advance))
    count = sum(len(at) for at, _ in batches)
    if not count:
        raise Failure(f"none of the {len(paths)} images can be read")
    return batches, count
