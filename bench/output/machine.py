"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench.output.cores import usable_cores
from fskernel import build_info
from fskernel.kernels import ops

PACKAGES = (
    "fskernel",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "hydra-core",
    "rich",
    "scikit-image",
    "scikit-learn",
    "pillow",
    "efficientnet-lite-pytorch",
    "onnxruntime",
    "openvino",
    "nncf",
    "spikingjelly",
    "wandb",
)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Facts that decide how fast a kernel is, and what else the machine is doing."""
    return {
        "cpu": build_info()["cpu"],
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "memory_gib": memory_gib(),
        "os": platform.platform(),
        "load_average": list(os.getloadavg()),
        "torch_threads": torch.get_num_threads(),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **(gpu(device) if device.startswith("cuda") else {}),
    }


def measured_by(command: str) -> dict[str, Any]:
    """What a file of figures begins with: the command, the kernels, the machine, the versions."""
    return {
        "command": command,
        "started": now(),
        "isa": ops.current_isa(),
        "machine": machine(),
        "versions": versions(),
    }


def now() -> str:
    """Date and time in UTC, as texts that sort by time: 2026-11-28T16:43:05+00:00."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def gpu(device: str) -> dict[str, Any]:
    """Name, size and versions of a GPU."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_multiprocessors": properties.multi_processor_count,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda_driver": ops.cuda_state()["driver"],
        "cuda_torch": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def memory_gib() -> float | None:
    """Physical memory in GiB, None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def versions() -> dict[str, str | None]:
    """Versions of Python and the packages, None where one is missing, and the commit."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["commit"] = commit()
    return found


def command(script: str, given: Sequence[str] | None = None) -> str:
    """What was typed, without the folders of this machine.

    Args:
        script: as it is called from the repository's root.
        given: its arguments; None: those of this process.
    """
    words = []
    for word in sys.argv[1:] if given is None else given:
        key = word.partition("=")[0]
        words.append(f"{key}=DIR" if key in ("data.root", "out") else shlex.quote(word))
    return " ".join([f"python {script}", *words])


def commit() -> str | None:
    """The repository's commit, with '+' where files differ from it; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
