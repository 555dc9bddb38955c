"""The trained weights that come with the package, and their model cards."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

FOLDER = Path(__file__).parent / "weights"
CLASSES = {"cifar10": 10}  # what the weights were trained on, and its number of classes


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


def load(module: nn.Module, name: str, weights: str, num_classes: int) -> None:
    """Loads shipped weights, stored as float16, into a float32 module.

    Args:
        module: the network, as the function `name` builds it.
        name: of the network.
        weights: which ones; "cifar10".
        num_classes: of the module.

    Raises:
        ValueError: unknown weights, weights for another number of classes, or none shipped.
    """
    if weights not in CLASSES:
        raise ValueError(
            f"weights={weights!r} is unknown: use {', '.join(map(repr, CLASSES))}, or None for "
            "random ones"
        )
    if num_classes != CLASSES[weights]:
        raise ValueError(
            f"num_classes={num_classes}: weights={weights!r} are for {CLASSES[weights]} classes; "
            "leave one of the two out"
        )
    from safetensors.torch import load_file  # as in fskernel/storage.py

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
