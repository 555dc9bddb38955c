"""What a session runs on. Everything is asked for by itself: what fails is left out, with why."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from importlib import metadata

import torch

PACKAGES = ("torch", "torchvision", "triton", "tensorrt", "numpy", "pytest", "hypothesis")
CARD = (
    "name,driver_version,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit,power.draw,"
    "temperature.gpu,persistence_mode,mig.mode.current,ecc.mode.current,compute_mode,"
    "pcie.link.gen.current,vbios_version"
)
NOW = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"


def gathered(device: torch.device) -> dict[str, object]:
    """Facts about the machine; "fault" is why fskernel cannot run on the device, or None."""
    asked: dict[str, Callable[[], object]] = {
        "time": lambda: datetime.now().isoformat(timespec="seconds"),
        "rehearsal": lambda: device.type != "cuda",
        "device": lambda: str(device),
        "python": platform.python_version,
        "platform": platform.platform,
        "cores": lambda: len(os.sched_getaffinity(0)),
        "versions": lambda: {name: _version(name) for name in PACKAGES},
        "torch_cuda": lambda: torch.version.cuda,
        "commit": _commit,
        "nvidia_smi": lambda: smi(CARD, device) if device.type == "cuda" else None,
        "nvcc": lambda: _last_line(["nvcc", "--version"]),
        "cudnn": lambda: torch.backends.cudnn.version() if device.type == "cuda" else None,
        "gpu": lambda: _gpu(device),
        "fskernel": _build,
        "fault": lambda: _fault(device),
    }
    found: dict[str, object] = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except Exception as error:
            found[name] = f"unknown ({type(error).__name__}: {error})"[:300]
    return found


def clocks(device: torch.device) -> dict[str, str] | None:
    """Clocks, power and temperature at this moment, and why clocks are held down."""
    return smi(NOW, device) if device.type == "cuda" else None


def smi(query: str, device: torch.device) -> dict[str, str] | None:
    """What nvidia-smi says of the device, by the names of the query; None: there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, f"--id={device.index or 0}", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = done.stdout.strip().splitlines()[:1]
    if done.returncode or not values:
        return None
    return dict(zip(query.split(","), map(str.strip, values[0].split(",")), strict=False))


def _gpu(device: torch.device) -> dict[str, object] | None:
    if device.type != "cuda":
        return None
    p = torch.cuda.get_device_properties(device)
    return {
        "name": p.name,
        "capability": f"{p.major}.{p.minor}",
        "multiprocessors": p.multi_processor_count,
        "memory_gib": round(p.total_memory / 2**30, 1),
        "l2_mib": round(p.L2_cache_size / 2**20, 1),
    }


def _fault(device: torch.device) -> str | None:
    try:
        from fskernel.kernels.device import cuda_fault
    except Exception as error:
        return f"fskernel cannot be imported ({type(error).__name__}: {error}): build it"
    return cuda_fault(device) if device.type == "cuda" else None


def _build() -> dict[str, object]:
    import fskernel

    return dict(fskernel.build_info())


def _commit() -> str | None:
    from bench.output.machine import commit

    return commit()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _last_line(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return (done.stdout.strip().splitlines() or [None])[-1]
