"""What all steps have in common."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.kernels.byte_maps import ByteMap, Halo
from fskernel.network.watched import Watched


class Step(Watched):
    """Common to all steps: a name, the names of the steps it reads, the code it gives."""

    op: str
    spiking = False  # it has neurons, and gives their words
    affine = False  # it has synapses: a convolution, or the readout
    averages = False  # it sums windows, which stand for their means
    on_tensor_cores = False  # of a GPU, which read byte maps

    def __init__(self, name: str, sources: list[str], code: Code | None, fused: tuple[str, ...]):
        super().__init__()
        self.name, self.sources, self.code, self.fused = name, list(sources), code, tuple(fused)

    @property
    def heard(self) -> list[str]:
        """What it reads but for that whose size alone it looks at."""
        return self.sources

    def spec(self) -> dict:
        """What, beside the tensors, makes this step (JSON)."""
        return {
            "op": self.op,
            "name": self.name,
            "sources": self.sources,
            "code": asdict(self.code) if self.code else None,
            "fused": list(self.fused),
        }

    def run(
        self, inputs: list, backend, *, plane_bits: int = 0, halo: Halo | None = None
    ) -> tuple[Tensor | ByteMap, Tensor | None]:
        """The output, and the spikes of each image, None where the step counts none.

        Args:
            inputs: what it reads; the encoder, the images.
            backend: `fskernel.ops` or an oracle.
            plane_bits, halo: of `ops.conv`, for those that have them.
        """
        return self(inputs[0], backend), None

    def output_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        """Rows and columns of the output, for those of what it reads."""
        return sizes[0]

    def meeting(self, sizes: list[tuple[int, int]]) -> set[tuple[int, int]]:
        """Sizes of the maps that meet in it, which have to be one, for those of what it reads."""
        return set(sizes)

    def kind(self) -> str:
        """What it is, for the report."""
        raise NotImplementedError

    def why_no_spikes(self) -> str:
        """Behind its name: why it cannot be recorded."""
        return "passes graded values on, which are no spikes"

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        """Adds it to a native plan; its number there.

        Args:
            inputs: numbers of what it reads. in_channels: of the images.
            kept: arrays that the plan reads until it is registered.
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.name!r}, sources={self.sources}"


def array_of(tensor: Tensor, dtype: torch.dtype, what: str) -> np.ndarray:
    """The tensor's own memory as an array, which brings its length along."""
    if tensor.dtype != dtype:
        raise ValueError(f"{what} is {tensor.dtype}: expected {dtype}")
    return tensor.contiguous().numpy()
