"""One image through the emulator, compared with the CPU."""

from __future__ import annotations

import time

import torch
from rich.table import Table
from torch import Tensor

from bench.emulated.backend import Emulated
from fskernel.analysis.energy import dense_macs
from fskernel.network.network import FSNetwork

MOST_MACS = 20e9  # for `compare`: some minutes


@torch.inference_mode()
def compare(net: FSNetwork, x: Tensor) -> list[dict[str, object]]:
    """Runs images x through the emulator and the CPU; a row of what happened for every step.

    Raises:
        ValueError: the network is too large to wait for.
        RuntimeError: a layer differs, which is named.
    """
    work = len(x) * sum(dense_macs(net, *x.shape[2:]).values())
    if work > MOST_MACS:
        raise ValueError(
            f"backend=emulated: {work / 1e6:.0f} million multiply-accumulates take the emulator "
            "too long; choose a small network (model=cifar_resnet8)"
        )
    wanted: dict[str, Tensor] = {}
    net.execute(x, observe=lambda step, _, y, __: wanted.update({step.name: y}))
    backend, rows = Emulated("random"), []
    clock = time.perf_counter()

    def observe(step, inputs, y, counts) -> None:
        nonlocal clock
        seconds, clock = time.perf_counter() - clock, time.perf_counter()
        if not torch.equal(y, wanted[step.name]):
            raise RuntimeError(
                f"layer '{step.name}' differs from the CPU in "
                f"{int((y != wanted[step.name]).sum())} of {y.numel()} values, in kernel "
                f"{backend.last}"
            )
        kernel = "torch" if step.op in ("concat", "move") else backend.last
        spikes = None if counts is None else int(counts.sum())
        rows.append(
            {
                "layer": step.name,
                "kernel": kernel,
                "equal": True,
                "values": y.numel(),
                "spikes": spikes,
                "seconds": seconds,
            }
        )

    net.execute(x, backend, observe)
    return rows


def table(rows: list[dict[str, object]]) -> Table:
    """What `compare` found, to be printed."""
    out = Table(title="the CUDA kernels in the emulator, against the CPU")
    for column in ("layer", "kernel", "values, all equal", "spikes", "seconds emulated"):
        out.add_column(column, justify="left" if column in ("layer", "kernel") else "right")
    for row in rows:
        spikes = "" if row["spikes"] is None else f"{row['spikes']:,}"
        out.add_row(
            row["layer"], row["kernel"], f"{row['values']:,}", spikes, f"{row['seconds']:.2f}"
        )
    return out
