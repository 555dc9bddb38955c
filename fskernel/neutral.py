"""Torch's settings of a thread, put to their defaults for as long as something is converted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def neutral() -> Iterator[None]:
    """No autocast, no gradients, float32 and the CPU as defaults; then the caller's own again.

    What is converted must not depend on the caller's. A function decorated with it runs like that.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with contextlib.ExitStack() as stack:
            for kind in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(torch.device("cpu"))
            stack.enter_context(torch.no_grad())
            yield
    finally:
        torch.set_default_dtype(dtype)
