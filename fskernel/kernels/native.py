"""The compiled library: whether it is there, what it was built for, what of it is used."""

from __future__ import annotations

import logging
import os
from types import ModuleType

import torch
from torch import Tensor

from fskernel.torch_rules.forking import refuse_waiting

_log = logging.getLogger(__name__)
_told: set[str] = set()  # instruction sets whose choice was logged
_forced_isa: str | None = None

import_error: Exception | None = None
try:
    from fskernel import _C
except (ImportError, OSError) as error:  # explained when a kernel is first asked for
    _C, import_error = None, error


def compiled() -> ModuleType:
    """The compiled library.

    Raises:
        RuntimeError: it is missing or does not load, with the reason.
    """
    if _C is None:
        raise RuntimeError(
            f"fskernel's compiled library is missing or does not load ({import_error}): build it "
            "with `make` or `pip install -e . --no-build-isolation` in the repository, with the "
            "torch that you run"
        ) from import_error
    return _C


# What kernels on the CPU read and write.
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def runs_on(x: Tensor) -> bool:
    """Whether this library has kernels for where x is; where not, encoding is left to torch."""
    if _C is None or torch.compiler.is_compiling():
        return False
    return x.is_cpu or (x.is_cuda and cuda_state() is not None)


def built_isas() -> list[str]:
    """Instruction sets that kernels were built for, the newest first."""
    return compiled().built_isas()


def supported_isas() -> list[str]:
    """Of the built instruction sets, those that this processor can run."""
    return compiled().supported_isas()


def current_isa() -> str:
    """The instruction set that the next call will use.

    Raises:
        ValueError: FSKERNEL_ISA names one that was not built or is not supported here.
    """
    return compiled().current_isa()


def set_isa(name: str | None) -> None:
    """Forces an instruction set; None returns to FSKERNEL_ISA or, if unset, the newest supported.

    Raises:
        ValueError: if it was not built, or this processor does not support it.
    """
    global _forced_isa
    compiled().set_isa(name)
    _forced_isa = name
    _told.clear()


def tell_isa(isa: str) -> None:
    """Logs, where weights are first packed for an instruction set, which it is and why."""
    if isa in _told or not _log.isEnabledFor(logging.INFO):
        return
    _told.add(isa)
    if _forced_isa is not None:
        why = "set_isa asked for it"
    elif os.environ.get("FSKERNEL_ISA"):
        why = "FSKERNEL_ISA asks for it"
    else:
        why = "the newest that was built and that this processor supports"
    built, here = ", ".join(built_isas()), ", ".join(supported_isas())
    _log.info("kernels: %s, %s (built: %s; supported here: %s)", isa, why, built, here)


def last_kernel() -> str:
    """What ran last, as "isa/operator" or "isa/conv/operands"; "" before the first call."""
    return compiled().last_kernel()


def covered_isas() -> list[str]:
    """Instruction sets whose convolution has run in this process."""
    return compiled().covered_isas()


def cuda_state() -> dict | None:
    """What there is of CUDA here: runtime, driver (0: none), devices, words; None if not built."""
    return compiled().cuda_state()


def cuda_kernels() -> tuple[str, ...]:
    """Convolution kernels for GPUs: tiles on tensor cores, and "direct" without them."""
    return compiled().cuda_kernels


def set_cuda_kernel(name: str | None) -> None:
    """Forces a convolution kernel on GPUs; None: the one that the tile model expects to be fastest.

    A layer that it does not fit refuses it.

    Raises:
        ValueError: no such kernel, or built without CUDA kernels.
    """
    if name is not None and name not in cuda_kernels():
        raise ValueError(f"there is no CUDA kernel {name!r}: there are {', '.join(cuda_kernels())}")
    if cuda_state() is None:
        raise ValueError("this fskernel was built without CUDA kernels")
    global _forced_cuda_kernel
    compiled().set_cuda_kernel(name or "")
    _forced_cuda_kernel = name


_forced_cuda_kernel: str | None = None


def keeps_maps(x: Tensor) -> bool:
    """Whether convolutions that follow from x may leave byte maps for each other."""
    return x.is_cuda and _forced_cuda_kernel != "direct"


def cuda_device(index: int) -> tuple[str, int, int, int, int]:
    """Of a GPU: name, compute capability (two numbers), multiprocessors, bytes of memory."""
    return compiled().cuda_device(index)


def operators():
    """The operators that it registered with torch; refused where they would wait for ever."""
    compiled()
    refuse_waiting()
    return torch.ops.fskernel


def peak_macs(operands: str) -> float:
    """Multiply-accumulates a second that one core reaches with every operand in a register.

    What no convolution on this instruction set can exceed. Measured anew at every call, in some
    milliseconds; 0.0 where the instruction set has no such product.

    Args:
        operands: "u8s8" or "s16s16".

    Raises:
        ValueError: other operands.
    """
    if operands not in ("u8s8", "s16s16"):
        raise ValueError(f"operands={operands!r}: expected 'u8s8' or 's16s16'")
    return compiled().peak_macs(operands == "u8s8")
