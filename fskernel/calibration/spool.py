"""Calibration images that can be gone through several times without filling the memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

IN_MEMORY = 2**30  # bytes; batches beyond that go to temporary files


class Spool:
    """Batches of float tensors in their order: in memory at first, then in temporary files.

    Args:
        items: tensors to keep, read once.
        limit: bytes kept in memory.
    """

    def __init__(self, items: Iterable[Tensor] = (), limit: int = IN_MEMORY):
        self._kept: list[Tensor | Path] = []
        self._limit, self._bytes = limit, 0
        self._folder: tempfile.TemporaryDirectory | None = None
        for item in items:
            self.append(item)

    def append(self, item: Tensor) -> None:
        """Keeps one batch."""
        size = item.numel() * item.element_size()
        if self._bytes + size <= self._limit:
            self._bytes += size
            self._kept.append(item)
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="fskernel-")
        path = Path(self._folder.name) / f"{len(self._kept)}.pt"
        with path.open("wb") as file:  # given a path, torch does not say that the disk is full
            torch.save(item, file)
        self._kept.append(path)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Tensor]:
        for item in self._kept:
            yield item if isinstance(item, Tensor) else torch.load(item, weights_only=True)
