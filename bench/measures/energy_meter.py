"""Energy that the machine itself counts: RAPL of a processor, NVML of a GPU.

Both count all that the chip takes: idle power and whatever else runs there are in it. RAPL's zones
are packages and, beside them, memory; `psys`, the zones of cores and those of a graphics unit are
parts or sums of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bench.measures.stats import median_iqr
from bench.measures.timing import MOST_QUEUED, clock_of, repeats, replayable

POWERCAP = Path("/sys/class/powercap")
SECONDS = 1.0  # of a sample: counters are renewed some ten to a thousand times a second
PIECE = 0.1  # seconds of calls between two looks at the clock


class Meter(Protocol):
    """A counter of energy; `name` says which."""

    name: str

    def read(self) -> tuple[int, ...]:
        """What the counters show now."""

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Between two readings, which lie less than a round of the counters apart."""


class Missing(NamedTuple):
    """Why there is no meter, in words for behind "not measured: "."""

    why: str


class Rapl:
    """Counters of processors and their memory, in microjoules; they start anew at their range.

    Args:
        zones: pairs of the folder of a zone and its name.
    """

    def __init__(self, zones: Sequence[tuple[Path, str]]):
        self.name = f"RAPL ({', '.join(name for _, name in zones)})"
        self._files = [folder / "energy_uj" for folder, _ in zones]
        self._ranges = [number(folder / "max_energy_range_uj") for folder, _ in zones]

    def read(self) -> tuple[int, ...]:
        """Microjoules of each zone."""
        return tuple(map(number, self._files))

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """A counter that is smaller than before has started anew."""
        spent = 0
        for a, b, around in zip(before, after, self._ranges, strict=True):
            spent += b - a if b >= a else b - a + around
        return spent / 1e6


class Nvml:
    """The counter of a GPU, in millijoules since its driver was loaded."""

    def __init__(self, nvml, handle, name: str):
        self.name = f"NVML ({name})"
        self._read = partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)

    def read(self) -> tuple[int, ...]:
        """Millijoules."""
        return (self._read(),)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """It never starts anew."""
        return (after[0] - before[0]) / 1e3


def find(device: str, root: Path = POWERCAP) -> Meter | Missing:
    """The meter of the device that networks run on, "cpu" or "cuda:N"; or why there is none.

    Args:
        root: where Linux shows the counters of processors.
    """
    return gpu(device) if device.startswith("cuda") else processor(root)


def processor(root: Path) -> Meter | Missing:
    """Of the processors and their memory."""
    if not root.is_dir():
        return Missing(f"this system has no {root}, as virtual machines have none")
    zones = []
    for folder in sorted(root.glob("intel-rapl*:*")):  # of AMD's processors, too
        try:
            name = (folder / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                number(folder / "energy_uj"), number(folder / "max_energy_range_uj")
                zones.append((folder, name))
        except PermissionError:
            return Missing(f"{folder}/energy_uj may be read by root alone: sudo chmod a+r on it")
        except (OSError, ValueError):  # a zone that is switched off
            continue
    if not zones:
        return Missing(f"{root} has no counter of a processor (intel-rapl:0)")
    return Rapl(zones)


def gpu(device: str) -> Meter | Missing:
    """Of one GPU."""
    try:
        import pynvml
    except ImportError:
        return Missing("nvidia-ml-py is not installed: pip install nvidia-ml-py")
    properties = torch.cuda.get_device_properties(device)
    try:
        pynvml.nvmlInit()
        meter = Nvml(
            pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}"), properties.name
        )
        meter.read()
    except pynvml.NVMLError as error:
        return Missing(f"NVML tells no energy of {properties.name} ({error})")
    return meter


def number(path: Path) -> int:
    """What a counter shows."""
    return int(path.read_text())


@torch.inference_mode()
def measure(
    meter: Meter,
    networks: dict[str, nn.Module],
    buffers: list[Tensor],
    rounds: int,
    advance: Callable[[int], None],
    seconds: float = SECONDS,
) -> dict[str, object]:
    """Joules an image of networks in turn, so that a busy phase of the machine meets all.

    Args:
        meter: of where the networks run. networks: by name.
        buffers: batches of images. rounds: samples of each network.
        advance: is told how many samples were taken.
        seconds: of a sample, at least.

    Returns:
        meter, and for each network measured_NAME_j and its quartiles.
    """
    device, batch = buffers[0].device, len(buffers[0])
    clock = clock_of(device)
    calls = {name: replayable(partial(net, buffers[0]), device) for name, net in networks.items()}
    found: dict[str, list[float]] = {name: [] for name in networks}
    once = {}
    for name, call in calls.items():
        clock(call, 1)
        once[name] = repeats(clock(call, 1), PIECE, MOST_QUEUED)
    for i in range(rounds):
        for name in list(calls)[:: 1 if i % 2 == 0 else -1]:
            spent, images, before = 0.0, 0, meter.read()
            while spent < seconds:
                spent += clock(calls[name], once[name])
                images += once[name] * batch
            found[name].append(meter.joules(before, meter.read()) / images)
            advance(1)
    group: dict[str, object] = {"meter": meter.name, "not_measured": None}
    for name, values in found.items():
        group[f"measured_{name}_j"], group[f"measured_{name}_j_iqr"] = median_iqr(values)
    return group


def nothing(why: str) -> dict[str, object]:
    """The same keys where nothing was measured."""
    keys = (f"measured_{name}_j{end}" for name in ("ann", "fs") for end in ("", "_iqr"))
    return {"meter": None, "not_measured": why} | dict.fromkeys(keys)
