"""The trained weights that come with the package, and their model cards."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from fskernel.preprocessing import Preprocessing

FOLDER = Path(__file__).parent / "weights"
# By what weights were trained on: its classes, and (H, W) of its images.
LABELS = {
    "cifar10": tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    "digits": tuple("0123456789"),
}
SIZES = {"cifar10": (32, 32), "digits": (8, 8)}
# What those of a network were, by the first word of its name.
TRAINED_ON = {"cifar": "cifar10", "digits": "digits"}


def names() -> list[str]:
    """The networks whose weights are here, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def card(name: str) -> dict:
    """What is known about shipped weights: data, seed, epochs, accuracy in percent, command.

    Args:
        name: of the network, "cifar_resnet20".

    Raises:
        ValueError: no weights are shipped for this name.
    """
    return json.loads(_file(name, ".json").read_text())


def trained_on(name: str) -> str:
    """What the weights of a network were trained on: "cifar10" for "cifar_resnet20"."""
    return TRAINED_ON[name.partition("_")[0]]


def preprocessing(name: str) -> Preprocessing:
    """How images are made ready for a network with its shipped weights, and its classes.

    Args:
        name: of the network, "cifar_resnet20".

    Raises:
        ValueError: no weights are shipped for this name.
    """
    data, on = card(name)["data"], trained_on(name)
    size = SIZES[on]
    return Preprocessing(size, min(size), data["mean"], data["std"], labels=LABELS[on])


def load(module: nn.Module, name: str, weights: str, num_classes: int) -> None:
    """Loads shipped weights, stored as float16, into a float32 module.

    Args:
        module: the network, as the function `name` builds it.
        name: of the network.
        weights: which ones; "cifar10" for the CIFAR networks.
        num_classes: of the module.

    Raises:
        ValueError: unknown weights, weights for another number of classes, or none shipped.
    """
    if weights != trained_on(name):
        raise ValueError(
            f"weights={weights!r} is unknown: use {trained_on(name)!r}, or None for random ones"
        )
    classes = len(LABELS[weights])
    if num_classes != classes:
        raise ValueError(
            f"num_classes={num_classes}: weights={weights!r} are for {classes} classes; "
            "leave one of the two out"
        )
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError("trained weights need safetensors: pip install safetensors") from error
    # It holds no num_batches_tracked, which is of no use here: torch leaves those as they are.
    module.load_state_dict(load_file(_file(name, ".safetensors")))


def _file(name: str, suffix: str) -> Path:
    path = FOLDER / f"{name}{suffix}"
    if name not in names() or not path.is_file():
        raise ValueError(
            f"{name}: no trained weights come with this fskernel ({path} is missing); there are "
            f"some for {', '.join(names()) or 'no network'}"
        )
    return path
