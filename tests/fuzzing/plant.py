"""Faults on purpose, to see that each is noticed: every seventh file that loads has one."""

from __future__ import annotations

import os
import signal
import time

import torch

from fskernel import ops, storage

PLANTS = ("logits", "spikes", "refusal", "error", "crash", "hang")


def plant(what: str) -> None:
    """Lets plans (or `load`) do what they must not, now and then."""
    runs = [0]
    real_plan, real_load = ops.run_plan, storage.load

    def due() -> bool:
        runs[0] += 1
        return runs[0] % 7 == 0

    def run_plan(*args, **kwargs):
        logits, counts = real_plan(*args, **kwargs)
        if due():
            if what == "logits":
                logits.view(torch.int32)[-1, -1] ^= 1
            elif what == "spikes":
                counts[..., -1:] += 1
            elif what == "refusal":
                raise ValueError("planted")
            elif what == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif what == "hang":
                time.sleep(1000)
        return logits, counts

    def load(path):
        net = real_load(path)
        if due():
            raise KeyError("planted")
        return net

    if what == "error":
        import fskernel

        fskernel.load = load
    else:
        ops.run_plan = run_plan
