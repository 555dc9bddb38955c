"""Shared by the tests of the probe: its programs, how they run, and what they write."""

import functools
import json
import os
import subprocess

import numpy as np

from bench.emulated import build
from fskernel.files import Lock

FOLDER = build.ROOT / "build" / "probe_tests"
MAKEFILE = "csrc/cuda/probe/Makefile"
SHAPES = (8, 64, 128, 208, 224, 240, 256)


def make(target, *variables):
    """A program, made anew where its sources changed."""
    folder = FOLDER / ("cuda" if target == "probe" else "host")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["make", "-f", MAKEFILE, "-j2", f"OUT={folder}", *variables, str(folder / target)]
    with Lock(FOLDER / "make.lock", wait=True):
        done = subprocess.run(command, capture_output=True, text=True, cwd=build.ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / target, done.stdout + done.stderr


@functools.cache
def host():
    return make("probe_host", "FLAGS=-O1")[0]


def run(program, *options, fault=None):
    env = {k: v for k, v in os.environ.items() if k != "FSKERNEL_FAKE_CARD"}
    if fault:
        env["FSKERNEL_FAKE_CARD"] = fault
    return subprocess.run([program, *options], capture_output=True, text=True, env=env, timeout=60)


def rows(folder):
    return {row["name"]: row for row in json.loads((folder / "probe.json").read_text())["rows"]}


def calls(path):
    """What a golden file holds: one dictionary a call, arrays as arrays."""
    line, _, blob = path.read_bytes().partition(b"\n")
    found = json.loads(line)["calls"]
    for call in found:
        for name, value in call.items():
            if isinstance(value, dict):
                part = blob[value["at"] : value["at"] + value["bytes"]]
                call[name] = np.frombuffer(part, value["type"])
    return found


CONVOLUTIONS = {  # kernel, stride, dilation, padding
    "3x3": (3, 1, 1, 1),
    "3x3,stride=2": (3, 2, 1, 1),
    "3x3,dilation=2": (3, 1, 2, 2),
    "3x3,stride+dilation=2": (3, 2, 2, 2),
    "3x3,no-padding": (3, 1, 1, 0),
    "7x7,stride=2": (7, 2, 1, 3),
    "1x1,stride=2": (1, 2, 1, 0),
    **{
        name: (3, 1, 1, 1)
        for name in (
            *("swizzle=32", "swizzle=64", "swizzle=128", "ragged-channels"),
            *("small,patched", "small,unpatched", "multicast"),
        )
    },
}
