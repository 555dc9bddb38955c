"""What tells one network from another: a hash of its description and its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a description and of every tensor's name, type, shape and bytes, in hex.

    Args:
        text: what, beside the tensors, makes the network.
        tensors: on the CPU, of any type.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
