"""CIFAR-10 in memory: out of zip files of JPEGs, or the folder that torchvision downloads."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError
from bench.inputs import zips
from bench.inputs.in_memory import InMemory
from bench.output.progress import bar, say
from fskernel.files import replacing
from fskernel.image_files import opened
from fskernel.models.shipped import LABELS
from fskernel.preprocessing import Unreadable

CLASSES = LABELS["cifar10"]
SHAPE = (32, 32, 3)
BATCHES = "cifar-10-batches-py"  # torchvision's folder
ZIPS = {"train": ("train.zip",), "test": ("test.zip", "test-even.zip")}  # the first there is
CACHE = Path("outputs/cache")


def decoded(images: Tensor, labels: Tensor, name: str) -> InMemory:
    """Images of CIFAR-10, uint8 [N, 32, 32, 3]; training shifts and mirrors them."""
    return InMemory(images, labels, name, len(CLASSES), shift=4, mirrored=True)


def load(root: str | None, split: str, cache: Path = CACHE) -> InMemory:
    """The images of `split` ("train" or "test") under `root`.

    Args:
        root: folder with train.zip and test.zip or test-even.zip (CLASS/NAME.jpg of 32x32 pixels
            inside), or with torchvision's cifar-10-batches-py, or that folder itself.
        split: "train" or "test".
        cache: folder that keeps what was decoded; it is found again by the content of the zip.

    Raises:
        UserError: no such folder, none of these files in it, or images that are no CIFAR-10.
    """
    if not root:
        raise UserError(
            "CIFAR-10 needs a folder: say data.root=DIR, or set the environment variable "
            "FSKERNEL_DATA"
        )
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"data.root={root}: there is no such folder")
    for name in ZIPS[split]:
        if (folder / name).is_file():
            return from_zip(folder / name, cache)
    for place in (folder, folder.parent):
        if (place / BATCHES).is_dir() and (place == folder or folder.name == BATCHES):
            return from_batches(place, split)
    raise UserError(
        f"data.root={root}: holds neither {' nor '.join(ZIPS[split])} nor {BATCHES}; put one of "
        "them there"
    )


def from_batches(place: Path, split: str) -> InMemory:
    """The original pixels, as torchvision reads them; nothing is downloaded.

    The files are pickles, which may run code: torchvision opens them only if their checksums are
    those of the published ones.
    """
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(str(place), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"data.root: {place / BATCHES} is incomplete or damaged, as checksums tell: unpack "
            f"{CIFAR10.filename} anew"
        ) from error
    pixels = torch.from_numpy(np.ascontiguousarray(data.data))
    return decoded(pixels, torch.tensor(data.targets), f"CIFAR-10 {split}, original pixels")


def from_zip(path: Path, cache: Path) -> InMemory:
    """Decodes a zip of JPEGs once; later calls read the cache."""
    kept = cache / f"{path.stem}-{fingerprint(path)[:16]}.pt"
    name = f"CIFAR-10 {path.name}"
    if kept.is_file():
        found = read_cache(kept)
        if found is not None:
            return decoded(*found, name)
        say(f"{kept} is damaged: decoding again")
    with bar(f"decoding {path.name}", None) as advance:
        images, labels = decode(path, advance)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as part, open(part, "wb") as file:
            torch.save({"images": images, "labels": labels}, file)
    except OSError as error:
        say(f"{path.name} will be decoded again next time: {cache}: {error.strerror}")
    return decoded(images, labels, name)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file: size and date may stay the same while the content changes."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    except OSError as error:
        raise UserError(f"data.root: {path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def read_cache(path: Path) -> tuple[Tensor, Tensor] | None:
    """Images and labels that were decoded before; None if the file holds something else."""
    try:
        saved = torch.load(path, weights_only=True)
        images, labels = saved["images"], saved["labels"]
        good = (
            all(x.device.type == "cpu" and x.is_contiguous() for x in (images, labels))
            and (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
            and images.shape == (len(labels), *SHAPE)
            and labels.shape == (len(labels),)
            and 0 <= labels.min() <= labels.max() < len(CLASSES)
        )
    except Exception:  # a damaged file raises many types
        return None
    return (images, labels) if good else None


def decode(path: Path, advance: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """Images and labels in the order of their names."""
    images, labels = [], []
    for name, content in zips.read(path):
        kind = name.split("/")[-2] if "/" in name else ""
        if kind not in CLASSES:
            raise UserError(
                f"data.root: {path} holds {name}: expected CLASS/NAME.jpg with one of "
                f"{', '.join(CLASSES)}"
            )
        images.append(_pixels(content, f"{name} in {path}"))
        labels.append(CLASSES.index(kind))
        if len(labels) % 1000 == 0:
            advance(1000)
    if not images:
        raise UserError(f"data.root: {path} holds no images")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def _pixels(content: bytes, name: str) -> np.ndarray:
    """Uint8 [32, 32, 3]; another size is refused before it is decoded."""
    height, width, _ = SHAPE
    try:
        with opened(io.BytesIO(content)) as image:
            size = image.size
            pixels = np.asarray(image.convert("RGB")) if size == (width, height) else None
    except Unreadable as error:
        raise UserError(f"data.root: {name} cannot be read as an image: {error}") from error
    if pixels is None:
        raise UserError(
            f"data.root: {name} has {size[0]}x{size[1]} pixels: CIFAR-10 has {width}x{height}"
        )
    return pixels
