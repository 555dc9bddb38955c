"""Shared by the tests of building: stand-ins for compilers and toolkits, a build in a copy."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from bench import ROOT


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def toolkit(root: Path, compile: str = "exit 1") -> Path:
    """A mock CUDA toolkit: its nvcc answers a dry run as NVIDIA's does, else it runs `compile`."""
    executable(
        root / "bin" / "nvcc",
        '#!/bin/sh\nif [ "$1" = --dryrun ]; then\n'
        'printf "#\\$ _SPACE_= \\n#\\$ _HERE_=%s\\n#\\$ TOP=..\\n" "$(dirname "$0")" >&2\n'
        f"else\n{compile}\nfi\n",
    )
    (root / "lib64").mkdir(exist_ok=True)
    (root / "lib64" / "libcudart_static.a").touch()
    return root


def run_python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_setup(
    root: Path, compiler: str, log: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """A whole build in a copy of the repository, by a compiler that compiles nothing.

    log: every command line of the compiler is written there.
    """
    stand_in = executable(
        root.parent / "stand-in",
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {shlex.quote(str(log))}\nout= dep= last=\n'
        'for a; do case "$last" in -o) out=$a;; -MF) dep=$a;; esac; last=$a; done\n'
        'case "$*" in *-MMD*) : > "$dep"; '
        f'exec {compiler} -fPIC -x c++ -c /dev/null -o "$out";; esac\nexec {compiler} "$@"\n',
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc", "fskernel"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__", "_build.py")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            root.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", *(arguments or ["build_ext", "--inplace"])],
        env={**os.environ, "FSKERNEL_CUDA": "0", "CXX": f"env A=b {stand_in}", **environ},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
