"""Latency and interval in time steps: of a small network by running them, of others by formula."""

from __future__ import annotations

from torch import Tensor

import fskernel as fs
from bench.output.progress import console, say

MOST_MACS = 2e9  # of all time steps of all images: float64 convolutions of a few seconds
IMAGES = 2  # the least that can be in each other's way


def by_formula(net: fs.FSNetwork) -> dict[str, object]:
    """Latency and interval for the record; None for what only an execution tells."""
    return {
        "steps": "formula",
        "latency_steps": net.latency_steps,
        "interval_steps": net.interval_steps,
        "complete_steps": None,
        "least_interval_steps": None,
        "delay_bits": None,
    }


def executed(net: fs.FSNetwork, images: Tensor) -> dict[str, object]:
    """The same of a pipeline that was run; of a network that cannot be run so, by formula.

    Args:
        net: on the CPU.
        images: float32 [N, C, H, W], of which the first two are shown.

    Raises:
        ScheduleError: the pipeline does not give the network's own words.
        RuntimeError: it took other steps than the formulas say.
    """
    x = images[:IMAGES]
    formula = by_formula(net)
    if net.fitted:
        say("fitted neurons are not run time step by time step: their steps are by formula")
        return formula
    macs = sum(fs.energy.dense_macs(net, *x.shape[2:]).values()) * net.K * len(x)
    if macs > MOST_MACS:
        say("the network is too large to be run time step by time step: its steps are by formula")
        return formula
    run = fs.schedule(net, x, progress=console.is_terminal)
    found = {
        "steps": "executed",
        "latency_steps": run.latency_steps,
        "interval_steps": run.interval_steps,
        "complete_steps": run.complete_steps,
        "least_interval_steps": run.least_interval,
        "delay_bits": run.peak_bits,
    }
    for name in ("latency_steps", "interval_steps"):
        if found[name] != formula[name]:
            raise RuntimeError(
                f"{name} of the network that was run is {found[name]}, by formula "
                f"{formula[name]}. Please report this with python -m fskernel"
            )
    say(f"its time steps were run, too, with the same words: latency {run.latency_steps} steps")
    return found
