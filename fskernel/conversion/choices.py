"""What the layers of a graph become, before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fskernel.calibration.ranges import Ranges


@dataclass(frozen=True)
class Choices:
    """What the layers of a graph become: what was asked for, and what images have said since.

    Attributes:
        K: time steps by the layer's name, and of the others by "default".
        alpha: a policy (`fskernel.convert`), or alphas by the layer's name.
        rounding, bottleneck, input_range: as of `fskernel.convert`. bits: of weights, or "auto".
        ranges: measured on images, or None.
        channels: alphas [C] of layers whose channels have their own.
        int8: under "auto", the layers whose weights have 8 bits; None: all.
    """

    K: Mapping[str, int]
    alpha: object
    rounding: str
    bits: int | str
    bottleneck: str
    input_range: float | None
    ranges: Ranges | None = None
    channels: Mapping[str, Tensor] = field(default_factory=dict)
    int8: Collection[str] | None = None
