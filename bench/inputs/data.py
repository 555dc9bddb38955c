"""Images: sample photographs, folders with labels, CIFAR-10, digits; the unreadable are counted."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from bench.errors import UserError
from bench.inputs import cifar, digits
from bench.inputs.in_memory import InMemory
from fskernel.image_files import FORMATS, opened
from fskernel.preprocessing import Unreadable, eight_bits, refuse_size, resized_size

SAMPLES = 16  # crops of sample photographs evaluated where no number is given
MOST_SAMPLES = 600  # crops in all, of those that calibrate too
TRAINABLE = ("cifar10", "digits")  # kinds of data with a training and a test split
# Colour photographs inside scikit-image's wheel; its others are downloaded when asked for.
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
)


@dataclass
class Item:
    """Where one image comes from."""

    path: Path
    label: int | None = None
    variant: int = 0  # sample photographs: 0 is the centre crop, others are random crops
    pixels: Tensor | None = None  # uint8 [H, W, C], where the image is decoded already


@dataclass
class Images:
    """Images in a seeded order, read when they are needed."""

    items: list[Item]
    resize: int
    crop: int
    mean: list[float]
    std: list[float]
    seed: int
    classes: int | None = None  # number of class folders, where there are some
    skipped: dict[str, str] = field(default_factory=dict)  # path: reason
    others: Counter = field(default_factory=Counter)  # files with other endings, by ending
    _at: int = 0

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be measured."""
        return self.items[0].label is not None

    def shown(self, count: int) -> str:
        """What the first `count` of them are, in words."""
        if self.labelled:
            return "one image" if count == 1 else f"{count:,} images"
        photographs = len({item.path for item in self.items[:count]})
        return f"{count} crops of {photographs} photographs"

    def split(self, evaluated: int | None, calibration: int) -> tuple[Images, Images, bool]:
        """Images to evaluate and to calibrate on, and whether they are different ones.

        Without a number all that do not calibrate are evaluated, if they are at least as many.
        """
        evaluated = calibration if evaluated is None else evaluated
        apart = len(self.items) >= evaluated + calibration
        if not apart:
            return replace(self), replace(self), False
        # The first ones calibrate: which these are does not depend on how many are evaluated.
        evaluating, calibrating = self.items[calibration:], self.items[:calibration]
        return replace(self, items=evaluating), replace(self, items=calibrating), True

    def read(self, item: Item) -> Tensor:
        """Float32 [3, crop, crop], normalised.

        Raises:
            Unreadable: the file is no image, or one of a size that cannot be shown.
        """
        # Here, because it takes seconds, for which no command shall wait that reads no image.
        from torchvision.transforms import functional as TF

        mode = "RGB" if len(self.mean) == 3 else "L"
        if item.pixels is not None:
            grey = item.pixels.shape[2] == 1
            pixels = item.pixels.squeeze(2) if grey else item.pixels
            image = Image.fromarray(pixels.numpy()).convert(mode)
        else:
            with opened(item.path) as image:
                image = eight_bits(image).convert(mode)
        if item.variant == 0:
            refuse_size(resized_size(image.size, self.resize))
            image = TF.resize(image, self.resize, antialias=True)
            image = TF.center_crop(image, [self.crop, self.crop])
        else:
            image = self._random_crop(image, item)
        return TF.normalize(TF.to_tensor(image), self.mean, self.std)

    def first_name(self) -> str:
        """The name of the first image that could be read."""
        item = next(item for item in self.items if str(item.path) not in self.skipped)
        return item.path.name + (f", crop {item.variant}" if item.variant else "")

    def pixels_of(self, x: Tensor) -> Tensor:
        """An image as `read` gives it, as a person sees it: float32 [crop, crop, 3], 0 to 1."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x * std + mean).clamp(0, 1).permute(1, 2, 0)

    def _random_crop(self, image: Image.Image, item: Item) -> Image.Image:
        """A square of 40 to 100 % of the shorter side, mirrored for every second variant."""
        from torchvision.transforms import functional as TF

        dice = random.Random(f"{self.seed} {item.path.name} {item.variant}")
        side = int(min(image.size) * dice.uniform(0.4, 1.0))
        left = dice.randint(0, image.width - side)
        top = dice.randint(0, image.height - side)
        image = TF.resized_crop(image, top, left, side, side, [self.crop, self.crop])
        return TF.hflip(image) if item.variant % 2 else image

    def take(self, count: int) -> Iterator[tuple[Tensor, int | None]]:
        """The next `count` readable images with their labels, fewer at the end of the data."""
        while count > 0 and self._at < len(self.items):
            item = self.items[self._at]
            self._at += 1
            try:
                pixels = self.read(item)
            except Unreadable as error:
                self.skipped[str(item.path)] = str(error)
                continue
            count -= 1
            yield pixels, item.label

    def batches(self, count: int, batch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The next `count` images as channels_last [n <= batch, 3, H, W] with labels [n]."""
        pixels: list[Tensor] = []
        labels: list[int | None] = []
        for image, label in self.take(count):
            pixels.append(image)
            labels.append(label)
            if len(pixels) == batch:
                yield _stack(pixels, labels)
                pixels, labels = [], []
        if pixels:
            yield _stack(pixels, labels)


def _stack(pixels: list[Tensor], labels: list[int | None]) -> tuple[Tensor, Tensor | None]:
    x = torch.stack(pixels).contiguous(memory_format=torch.channels_last)
    return x, None if labels[0] is None else torch.tensor(labels)


def open_images(data: DictConfig, size: DictConfig, wanted: int, seed: int) -> Images:
    """The images that `data` describes; of the sample photographs `wanted` crops.

    `size.resize` may be missing: 256 for a crop of 224, and in proportion for others.

    Raises:
        UserError: the folder is not given, does not exist or holds no such images.
    """
    skipped: dict[str, str] = {}
    others: Counter = Counter()
    classes = None
    if data.kind == "samples":
        items = sample_photographs(wanted)
    elif data.kind == "imagefolder":
        items, classes = class_folders(_root(data), others)
    elif data.kind in TRAINABLE:
        found = load_split(data, "test")
        items, classes = of_memory(found), found.classes
    else:
        items = wnid_files(_root(data), skipped, others)
    if data.kind != "samples":
        random.Random(seed).shuffle(items)
    resize = size.resize or round(size.crop * 256 / 224)
    mean, std = list(size.mean), list(size.std)
    return Images(items, resize, size.crop, mean, std, seed, classes, skipped, others)


def load_split(data: DictConfig, split: str) -> InMemory:
    """The images of a split, "train" or "test", of data that have two.

    Raises:
        UserError: they are not there.
    """
    return cifar.load(data.root, split) if data.kind == "cifar10" else digits.load(split)


def of_memory(found: InMemory) -> list[Item]:
    """Decoded images one by one, in the order of their file."""
    return [
        Item(Path(f"{found.name}, number {i}"), label, pixels=pixels)
        for i, (pixels, label) in enumerate(zip(found.images, found.labels.tolist(), strict=True))
    ]


def sample_photographs(wanted: int) -> list[Item]:
    """`wanted` crops of the photographs that scikit-image ships; nothing is downloaded."""
    try:
        import skimage
    except ImportError as error:
        raise UserError(
            "the sample photographs are those of scikit-image: pip install scikit-image, or use "
            "images of yours: data=imagefolder data.root=DIR data.calibrate_on=same"
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    paths = [folder / name for name in PHOTOGRAPHS if (folder / name).exists()]
    if not paths:
        raise UserError(
            f"data=samples: this scikit-image ({skimage.__version__}) ships none of "
            f"{', '.join(PHOTOGRAPHS)}; use data=imagefolder data.root=DIR"
        )
    return [Item(paths[i % len(paths)], None, i // len(paths)) for i in range(wanted)]


def class_folders(root: Path, others: Counter) -> tuple[list[Item], int]:
    """Images of root/CLASS/**; a label is the position of CLASS among the sorted names.

    Hidden folders, as editors and file managers make them, are no classes, and nothing of a class.
    """
    folders = [entry.name for entry in os.scandir(root) if entry.is_dir()]
    classes = sorted(name for name in folders if not name.startswith("."))
    items = [
        Item(path, label)
        for label, name in enumerate(classes)
        for path in _files(_shown(root / name), others)
    ]
    if not items:
        raise UserError(
            f"data.root={root}: expected class folders with images "
            f"({', '.join(sorted(FORMATS))}); for a flat folder of INDEX_WNID.jpg say "
            "data=wnid_files"
        )
    return items, len(classes)


def wnid_files(root: Path, skipped: dict[str, str], others: Counter) -> list[Item]:
    """Images root/INDEX_WNID.jpg; files with other names are added to `skipped`."""
    items = []
    for path in _files(root.iterdir(), others):
        match = re.fullmatch(r"(\d+)_n\d{8}", path.stem)
        if match:
            items.append(Item(path, int(match.group(1))))
        else:
            skipped[str(path)] = "the name is not INDEX_WNID, like 0002_n01484850.jpg"
    if not items:
        raise UserError(
            f"data.root={root}: no image named INDEX_WNID.jpg, like 0002_n01484850.jpg; for "
            "class folders say data=imagefolder"
        )
    return items


def _shown(folder: Path) -> Iterator[Path]:
    """All files below a folder but those in hidden folders."""
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at) / name for name in files)


def _files(paths: Iterable[Path], others: Counter) -> list[Path]:
    """The images among the paths, sorted; other files, if not hidden, are counted."""
    images = []
    for path in sorted(paths):
        suffix = path.suffix.lower()
        if not path.is_file() or path.name.startswith("."):
            continue
        if suffix in FORMATS:
            images.append(path)
        else:
            others[suffix or "without an ending"] += 1
    return images


def _root(data: DictConfig) -> Path:
    if not data.root:
        raise UserError(
            f"data={data.kind} needs a folder: say data.root=DIR, or set the environment variable "
            "FSKERNEL_DATA"
        )
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise UserError(f"data.root={data.root}: there is no such folder")
    return root
