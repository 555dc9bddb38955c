"""What the layers of a graph become, before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fskernel.calibration.fitted_trains import Trains
from fskernel.calibration.ranges import Ranges

MOST = 15  # time steps of neurons that are not fitted
FEWER = 8  # that they have where more are asked for


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
        fitted: the layers whose neurons are fitted to their function.
        trains: these neurons, once membranes have been measured.
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
    fitted: Collection[str] = frozenset()
    trains: Mapping[str, Trains] = field(default_factory=dict)

    def asked(self, names: Iterable[str]) -> int:
        """K of layers that are concatenated, the largest of what was asked for."""
        return max(self.K.get(name, self.K.get("default", 0)) for name in names)

    def time_steps(self, names: Collection[str]) -> int:
        """The same, but no more than their neurons can have."""
        K = self.asked(names)
        return K if K <= MOST or any(name in self.fitted for name in names) else FEWER
