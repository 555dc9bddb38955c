"""Faults on purpose, to see that each is noticed: of 12 files in a row, the first few have one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from unittest import mock

import torch

import fskernel as fs
from fskernel.kernels import ops

from .judge import Verdict, judge

PLANTS = ("logits", "spikes", "refusal", "error", "nameless", "crash", "hang")


def planted(path: Path, number: int) -> Verdict:
    """As `judge`; for some files, plans or `fskernel.load` do what they must not."""
    what = dict(enumerate(PLANTS)).get(number % 12)
    run_plan, load = ops.run_plan, fs.load

    def bad_plan(*args, **kwargs):
        logits, counts = run_plan(*args, **kwargs)
        if what == "logits":
            logits.view(torch.int32)[-1:, -1:] ^= 1
        elif what == "spikes":
            counts[..., -1:] += 1
        elif what == "refusal":
            raise ValueError("planted")
        elif what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif what == "hang":
            time.sleep(1000)
        return logits, counts

    def bad_load(path):
        net = load(path)
        if what == "error":
            raise KeyError("planted")
        if what == "nameless":
            raise ValueError("planted")
        return net

    with mock.patch.object(ops, "run_plan", bad_plan), mock.patch.object(fs, "load", bad_load):
        return judge(path, number)
