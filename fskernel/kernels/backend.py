"""What a backend is: the functions by which a network of FS neurons is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import GRADED_LIMIT
from fskernel.codes.windows import Windows
from fskernel.kernels.byte_maps import ByteMap, Halo

if TYPE_CHECKING:
    from fskernel.network.synapses import Synapses


@runtime_checkable
class Backend(Protocol):
    """What `FSNetwork.execute` runs a network on.

    `fskernel.ops` is one, the oracles of `fskernel.reference` are, and so is any object with these
    functions. Their meaning is documented there. A backend that keeps no maps is never given one,
    and never asked for one: `halo` is None.
    """

    def conv(
        self,
        groups: Sequence[tuple[Tensor | ByteMap, Synapses]],
        bias: Tensor,
        *,
        K: int,
        limit: int = GRADED_LIMIT,
        residual: tuple[Tensor | ByteMap, Tensor] | None = None,
        plane_bits: int = 0,
        halo: Halo | None = None,
        top: Tensor | None = None,
        step: float | None = None,
        count: bool = True,
        table: Tensor | None = None,
        fitted: Tensor | None = None,
        zero: int = 0,
    ) -> tuple[Tensor | ByteMap, Tensor]:
        """One layer, and the spikes of each image."""

    def max_pool(self, x: Tensor, geometry: Geometry) -> Tensor:
        """The largest code of each window."""

    def sum_pool(self, x: Tensor, geometry: Geometry) -> Tensor:
        """The sum of each window."""

    def mean_pool(self, x: Tensor, windows: Windows, reads: Code, gives: Code) -> Tensor:
        """The mean of each window, rounded."""

    def gate(
        self,
        a: Tensor,
        b: Tensor,
        zeros: tuple[int, int],
        m: Tensor,
        bias: Tensor,
        *,
        K: int,
        limit: int = GRADED_LIMIT,
        count: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """The product of two maps, and the spikes of each image."""

    def readout(self, x: Tensor, weight: Tensor, m: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
        """Logits."""

    def encode(
        self, x: Tensor, inv_step: float, *, limit: int = GRADED_LIMIT, halo: Halo | None = None
    ) -> Tensor | ByteMap:
        """Graded values of images."""

    def keeps_maps(self, x: Tensor) -> bool:
        """Whether convolutions that follow from x may leave byte maps for each other."""
