"""The tiles of the tensor-core kernels, and what their main loops consist of in machine code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT
from bench.gpu_model import sass


@dataclass(frozen=True)
class Tile:
    """A row of configs.inc, and what its main loop consists of in machine code."""

    name: str
    pixels: int
    channels: int
    warp_pixels: int
    warp_channels: int
    stages: int
    blocks: int  # that fit a multiprocessor
    wide: bool
    groups: int
    plane_bits: int
    rate: bool
    percent: int
    imma: int = 0
    ldsm: int = 0
    ldgsts: int = 0
    other: int = 0
    code: int = 0  # instructions of the whole kernel

    @property
    def warps(self) -> int:
        """Of a block."""
        return self.pixels // self.warp_pixels * (self.channels // self.warp_channels)

    @property
    def issued(self) -> int:
        """Instructions of a warp in a k-step."""
        return self.imma + self.ldsm + self.ldgsts + self.other

    @property
    def macs_per_byte(self) -> float:
        """Multiply-accumulates for each byte from the L2 cache."""
        return self.pixels * self.channels / (self.pixels + self.channels)


_ROW = re.compile(r"^FS_TENSOR_CONV\((.*)\)\s*$", re.M)
_MANGLED = re.compile(r"ConvConfigI((?:L[ib]\d+E)+)E")


def tiles(library: Path, arch: int) -> list[Tile]:
    """The tensor-core kernels with the instruction counts of the built library.

    Raises:
        RuntimeError: cuobjdump is missing, or the library holds no kernels for the architecture.
    """
    command = [cuobjdump(), "-sass", "-arch", f"sm_{arch}", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    loops, code = {}, {}
    for name, instructions in sass.kernels(done.stdout).items():
        if found := _MANGLED.search(name):
            numbers = tuple(map(int, re.findall(r"L[ib](\d+)E", found[1])))
            loops[numbers] = [sass.counts(loop) for loop in sass.main_loops(instructions)]
            code[numbers] = len(instructions)
    if not loops:
        raise RuntimeError(
            f"{library} holds no kernels for sm_{arch}: build it with FSKERNEL_CUDA=1 and "
            f"FSKERNEL_CUDA_ARCHS={arch} ({done.stderr.strip() or 'nothing found'})"
        )
    return rows(loops, code)


def rows(
    loops: Mapping[tuple[int, ...], list[Counter]] | None = None,
    code: Mapping[tuple[int, ...], int] | None = None,
) -> list[Tile]:
    """The rows of configs.inc.

    Args:
        loops: instructions of main loops, by the kernel's numbers; code: those of whole kernels.
    """
    loops, code = loops or {}, code or {}
    found = []
    for row in _ROW.findall((ROOT / "csrc" / "cuda" / "kernel" / "configs.inc").read_text()):
        name, *cells = (cell.strip() for cell in row.split(","))
        values = [c == "true" if c in ("true", "false") else int(c) for c in cells]
        # A wide kernel has one loop for every product of signed and unsigned bytes: the longest.
        numbers = tuple(map(int, values[:-1]))
        kind = max(loops.get(numbers, [Counter()]), key=Counter.total)
        counted = {"imma": kind["IMMA"], "ldsm": kind["LDSM"], "ldgsts": kind["LDGSTS"]}
        counted["other"] = kind.total() - sum(counted.values())
        found.append(Tile(name.strip('"'), *values, **counted, code=code.get(numbers, 0)))
    return found


def cuobjdump() -> str:
    """The disassembler's path: of the environment's package, or on PATH.

    Raises:
        RuntimeError: there is none.
    """
    for folder in map(Path, sys.path):
        for found in sorted(folder.glob("nvidia/*/bin/cuobjdump")):
            return str(found)
    found = shutil.which("cuobjdump")
    if not found:
        raise RuntimeError(
            "cuobjdump is missing: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
        )
    return found
