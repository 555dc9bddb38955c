"""GPUs of the model: peaks from data sheets, and what is assumed of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """Peaks from the data sheet, and what is assumed because nobody here could measure it."""

    name: str
    arch: int
    multiprocessors: int
    ghz: float
    int8_macs: float  # a clock and multiprocessor
    memory: float  # bytes/s
    imma_clocks: float  # assumed: of one m16n8k32 product in one of the four sub-cores
    l2_bytes: float  # assumed: a clock and multiprocessor

    @property
    def int8_peak(self) -> float:
        """Multiply-accumulates a second."""
        return self.int8_macs * self.multiprocessors * self.ghz * 1e9


GPUS = {
    "a100": Gpu("A100 SXM", 80, 108, 1.41, 2048, 2.039e12, 8.0, 33.0),
    # mma.sync is said to reach 62 % of the peak that wgmma has; L2 5.5 TB/s.
    "h100": Gpu("H100 SXM", 90, 132, 1.755, 4096, 3.35e12, 4 / 0.62, 23.7),
}
