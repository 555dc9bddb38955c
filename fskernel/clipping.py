"""What is said when values lie beyond the range that they are encoded for."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

from fskernel.text import percent

MOST = 1e-3  # share of a tensor's values that may be clipped without a word
_INSIDE = tuple(str(Path(module.__file__).parent) for module in (sys.modules[__package__], torch))


class ClippingWarning(UserWarning):
    """More than 0.1 % of the values that a layer or a network reads lie beyond its range."""


def warn(reader: str, beyond: int, values: int, range_: str, cure: str) -> None:
    """Warns, as from the first frame that is neither fskernel's nor torch's.

    Args:
        reader: what reads the values.
        beyond, values: how many of how many are clipped.
        range_, cure: the range, and what helps.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(_INSIDE):
        frame, level = frame.f_back, level + 1
    share = percent(beyond / values)
    warnings.warn(
        f"{reader}: {share} % of the values that it reads are beyond {range_} and are clipped to "
        f"it: {cure}",
        ClippingWarning,
        stacklevel=level,
    )
