"""Torch's settings, put to their defaults for as long as something is converted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_inside = 0  # of how many calls, of all threads: the default dtype is one for all of them
_theirs = torch.float32


@contextlib.contextmanager
def neutral() -> Iterator[None]:
    """No autocast, no gradients, float32 and the CPU as defaults; then the caller's own again.

    What is converted must not depend on the caller's. A function decorated with it runs like that.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_default_dtype())
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # a mode that slows every call down
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.no_grad())
        yield


@contextlib.contextmanager
def _default_dtype() -> Iterator[None]:
    """Float32 until the last thread leaves, which puts back what the first one found."""
    global _inside, _theirs
    with _lock:
        if not _inside:
            _theirs = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                torch.set_default_dtype(_theirs)
