"""Builds C++ of the emulator for the tests, once for each state of its sources."""

import fcntl
import hashlib
import importlib.util
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build" / "simt"
SOURCES = (
    "csrc/*.h",
    *(
        f"csrc/cuda/{name}"
        for name in ("conv*", "integrate.cuh", "configs.inc", "calls.h", "gpu.h")
    ),
    "csrc/simt/*",
    "tests/simt/*.h",
    "tests/simt/*.cpp",
)
# Unoptimised fibers would be several times slower; the float rules are the library's.
FLAGS = "-std=c++20 -O2 -g1 -Wall -Wextra -ffp-contract=off"


def build(name, sources, *flags, extra=""):
    """Compiles `sources` into build/simt/, named by the content of all that it may include.

    extra: what else decides about the result.
    """
    compiler = os.environ.get("CXX", "g++")
    command = [*shlex.split(compiler), *FLAGS.split(), "-Icsrc", "-Itests/simt", *flags, *sources]
    state = hashlib.sha256(" ".join([*command, extra]).encode())
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            state.update(path.name.encode() + path.read_bytes())
    stem, suffix = os.path.splitext(name)
    path = FOLDER / f"{stem}-{state.hexdigest()[:16]}{suffix}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f"{stem}.lock", "w") as lock:  # of several test processes, one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(".new")
            done = subprocess.run(
                [*command, "-o", str(unfinished)], capture_output=True, text=True, cwd=ROOT
            )
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
            for old in FOLDER.glob(f"{stem}-*{suffix}"):
                old.unlink()
            unfinished.rename(path)
    return path


def module(name, *sources, extra=""):
    """The pybind11 module of that name."""
    include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    path = build(
        f"{name}.so", sources, *include, "-shared", "-fPIC", "-fvisibility=hidden", extra=extra
    )
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
