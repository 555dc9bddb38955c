"""Spikes have no gradient: what asks for one is refused."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def refuse_gradient(**tensors: Tensor | None) -> None:
    """Refuses tensors, by their names, with which a derivative would silently be zero.

    Raises:
        RuntimeError: one requires grad in grad mode, or carries a tangent (torch.func.jvp), which
            torch.no_grad() does not take away.
    """
    # Asked in a run of tensors without both, so it must cost little.
    forward_mode = forward_ad._current_level >= 0
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{name} requires grad, but spikes have no gradient: run under torch.no_grad() or "
                f"detach {name}"
            )
        if forward_mode and forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(
                f"{name} carries a tangent (torch.func.jvp, forward_ad), but spikes have no "
                f"gradient: detach {name}"
            )
