"""C++ that is compiled when it is first needed, once for each state of its sources."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from bench import ROOT
from fskernel.files import Lock, replacing

FOLDER = ROOT / "build" / "emulated"
# Unoptimised fibers would be several times slower.
FLAGS = "-std=c++20 -O2 -g1 -Wall -Wextra -Icsrc"
# The library's; behind all others, because of flags that contradict each other the last one counts.
FLOAT_FLAGS = (ROOT / "csrc" / "float.flags").read_text().split()


def build(name: str, sources: Iterable[str], *flags: str, reads: Iterable[str]) -> Path:
    """Compiles a program or library into build/emulated/, where its sources have changed.

    Args:
        name: of the file; the state of its sources is put into it.
        sources: paths below the root of the repository.
        flags: beside FLAGS.
        reads: patterns below the root, of all that the sources include.

    Returns:
        The file's path.

    Raises:
        RuntimeError: the compiler refuses it, in the compiler's words.
    """
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    command = [*compiler, *FLAGS.split(), *flags, *FLOAT_FLAGS, *sources]
    state = hashlib.sha256(" ".join(command).encode())
    found = {p for pattern in (*sources, *reads) for p in ROOT.glob(pattern) if p.is_file()}
    for path in sorted(found):
        state.update(path.name.encode() + path.read_bytes())
    stem, suffix = os.path.splitext(name)
    path = FOLDER / f"{stem}-{state.hexdigest()[:16]}{suffix}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Lock(FOLDER / f"{stem}.lock", wait=True):  # of several processes, one builds
        if not path.exists():
            with replacing(path) as part:
                done = subprocess.run(
                    [*command, "-o", part], capture_output=True, text=True, cwd=ROOT
                )
                if done.returncode:
                    raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")
                for old in FOLDER.glob(f"{stem}-*{suffix}"):
                    old.unlink()
    return path


def module(name: str, sources: Iterable[str], *flags: str, reads: Iterable[str]) -> ModuleType:
    """The pybind11 module of that name; arguments and errors as those of `build`."""
    import pybind11

    include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    flags = (*flags, *include, "-shared", "-fPIC", "-fvisibility=hidden")
    path = build(f"{name}.so", sources, *flags, reads=reads)
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
