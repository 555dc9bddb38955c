"""What bench/scaling.py varies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One network and how it is called."""

    size: int = 224
    width: int = 64  # channels of a bottleneck's 3x3 in the first stage; ResNet50 has 64
    K: int = 8
    batch: int = 1
    threads: int = 1


SIZES = (64, 96, 128, 160, 224, 288, 384, 448)
WIDTHS = (16, 32, 64, 96, 128)
STEPS = (1, 2, 4, 6, 8, 9, 10, 12, 15)
BATCHES = (1, 2, 4, 8, 16)
# What one axis is called, and its settings.
AXES: dict[str, Callable[[int], list[Setting]]] = {
    "image": lambda cores: [Setting(size=n) for n in SIZES],
    "width": lambda cores: [Setting(width=n) for n in WIDTHS],
    "K": lambda cores: [Setting(K=n) for n in STEPS],
    "batch": lambda cores: [Setting(batch=n) for n in BATCHES],
    "threads, batch 1": lambda cores: [Setting(threads=n) for n in range(1, cores + 1)],
    "threads, batch 8": lambda cores: [Setting(threads=n, batch=8) for n in range(1, cores + 1)],
}
NAMES = {"image": "size", "threads, batch 1": "threads", "threads, batch 8": "threads"}
