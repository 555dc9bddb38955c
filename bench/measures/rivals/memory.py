"""The memory that a rival needs, in a process of its own.

What is told is the most memory that process had while the rival answered a batch, less what it had
when Python, torch, fskernel and the rival's own packages were loaded and no network was. On a CPU
that is resident memory, on a GPU the device memory that became used, by whomever.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from bench import ROOT
from bench.measures.rivals.listed import listed
from bench.measures.rivals.rival import Rival, kept

RESET_PEAK = "5"  # what Linux takes, in clear_refs, for: forget the largest resident size
CALLS = 3
LONGEST = 600  # seconds of a process


def needed(rival: Rival, folder: Path) -> int | None:
    """Bytes that a rival needs; None where its process fails, or the system does not tell.

    Args:
        rival: one of `listed`. folder: where `Setting.keep` has left everything.
    """
    paths = [str(ROOT), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.measures.rivals.memory", str(folder), rival.name],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return None
    words = done.stdout.strip().rpartition("\n")[2]
    with suppress(ValueError, TypeError, KeyError):
        return json.loads(words)["bytes"] if done.returncode == 0 else None
    return None


def measured(folder: Path, name: str) -> int | None:
    """The same, in this process."""
    s = kept(folder)
    torch.set_num_threads(s.threads)
    (rival,) = [r for r in listed(s.K, s.first, s.T, s.device.type) if r.name == name]
    for package in rival.packages:
        if importlib.util.find_spec(package):
            import_module(package)
    if s.device.type == "cuda":
        torch.zeros(1, device=s.device)  # its context is not the rival's
        before = torch.cuda.mem_get_info(s.device)[0]
        runner = rival.build(s)
        for _ in range(CALLS):
            runner.call()
        torch.cuda.synchronize(s.device)
        return before - torch.cuda.mem_get_info(s.device)[0]
    before = status("VmRSS")
    runner = rival.build(s)
    if not rival.slow:
        runner.call()  # what only the first call needs, such as a compiler
    s.given = None
    s.__dict__.pop("model", None)
    s.nets.clear()  # a rival keeps what it needs
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    if not forget_peak():
        return None
    for _ in range(1 if rival.slow else CALLS):
        runner.call()
    peak = status("VmHWM")
    return None if before is None or peak is None else peak - before


def status(key: str) -> int | None:
    """Bytes of a line of /proc/self/status; None where there is none."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return 1024 * int(line.split()[1])
    return None


def forget_peak() -> bool:
    """Sets the largest resident size to the present one; whether the system does that."""
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps({"bytes": measured(Path(sys.argv[1]), sys.argv[2])}))
