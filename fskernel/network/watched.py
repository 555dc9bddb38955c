"""Changes of modules and tensors, counted for those who keep what was made of them."""

from __future__ import annotations

from torch import Tensor, nn


def changes(tensor: Tensor) -> int:
    """How often torch saw this tensor change in place (inference tensors are not counted)."""
    return 0 if tensor.is_inference() else tensor._version


class Watched(nn.Module):
    """A module that counts its exchanges: of attributes, tensors and hooks, of all such modules.

    Whoever keeps something that was made of them looks closer only when the count has moved. What
    is written into a tensor in place is counted by torch (`changes`), not here.
    """

    exchanges = 0

    def __setattr__(self, name, value):
        Watched.exchanges += 1
        super().__setattr__(name, value)

    def _apply(self, fn, recurse=True):
        """As torch's, for the device alone: `.half()` and `.double()` leave all tensors alone.

        The contract fixes their types. At no time does one of another type stand in their place:
        other threads may be calling.
        """
        Watched.exchanges += 1

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)

    def register_forward_hook(self, *args, **kwargs):
        """As torch's, and counted."""
        Watched.exchanges += 1
        return super().register_forward_hook(*args, **kwargs)

    def register_forward_pre_hook(self, *args, **kwargs):
        """As torch's, and counted."""
        Watched.exchanges += 1
        return super().register_forward_pre_hook(*args, **kwargs)
