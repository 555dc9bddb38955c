"""Builds the wheels: one for each Python that is at hand, with and without CUDA kernels.

    make wheels                             # or: python .ci/wheels.py [--cpu-only] [--out dist]

A wheel needs torch at run time and none of one release: the library asks for torch's stable ABI
alone. So the torch of the Python that runs this gives headers for all. Names of Pythons may be
given; else python3.10 to python3.13 are looked for on PATH and among pyenv's.

Leaves in dist/ the wheels, tagged for the oldest glibc that they work with, those without CUDA
kernels labelled +cpu, and the sdist. Prints a table; fails if a wheel exceeds the size that is
promised or holds what it should not.
"""

from __future__ import annotations

import argparse
import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "wheels"
MINORS = range(10, 14)
LIMIT = 40e6  # bytes of a wheel
# Libraries that torch brings and that are loaded before ours.
OF_TORCH = ("libtorch_cpu.so", "libtorch.so", "libc10.so")
# What may lie in a wheel beside Python files: weights with their cards, fitted neurons, the marker
# of types.
KNOWN = re.compile(
    r"fskernel/.*\.py|fskernel/_C\.[\w-]+\.so|fskernel/py\.typed"
    r"|fskernel/calibration/fitted_neurons\.json"
    r"|fskernel/models/weights/\w+\.(json|safetensors)"
    r"|fskernel-[^/]+\.(dist-info/.+|data/scripts/fskernel)"
)


def run(*command: object, **environ: str) -> str:
    """Runs a command; its words are shown only if it fails."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{' '.join(map(str, command))} failed")
    return done.stdout


def pythons(names: list[str]) -> dict[str, str]:
    """Interpreters by their version, "3.10" to "3.13": the named ones, or those at hand."""
    found: dict[str, str] = {}
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for name in names or [
        place
        for minor in MINORS
        for place in (
            *sorted(glob.glob(f"{pyenv}/versions/3.{minor}.*/bin/python")),
            f"python3.{minor}",
        )
    ]:
        try:
            done = subprocess.run(
                [name, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            done = None
        if done is not None and done.returncode == 0:
            found.setdefault(done.stdout.strip(), name)
        elif names:
            raise SystemExit(f"{name} is no Python with the module venv")
    return found


def environment(version: str, python: str) -> str:
    """The Python of an environment that holds what a build needs, less torch."""
    folder = WORK / f"python{version}"
    made = str(folder / "bin" / "python")
    if not (folder / "ready").is_file():
        run(python, "-m", "venv", "--clear", folder)
        constraints = ROOT / "constraints.txt"
        needed = ("setuptools", "pybind11", "ninja", "wheel")
        run(made, "-m", "pip", "install", "-q", "-c", constraints, *needed)
        (folder / "ready").touch()
    return made


def build(python: str, out: Path, **environ: str) -> Path:
    """Builds and repairs one wheel; returns its path in `out`."""
    raw = WORK / "raw"
    # setuptools would put into a wheel what an earlier build left behind.
    for stale in (raw, *ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*")):
        shutil.rmtree(stale, ignore_errors=True)
    command = (python, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(*command, "-w", raw, ROOT, **environ)
    (made,) = raw.glob("*.whl")
    before = set(out.glob("*.whl"))
    exclude = [word for name in OF_TORCH for word in ("--exclude", name)]
    tools = Path(sys.executable).parent
    run(
        *(sys.executable, "-m", "auditwheel", "repair", *exclude, "-w", out, made),
        PATH=os.pathsep.join([str(tools), os.environ.get("PATH", "")]),
    )
    (repaired,) = set(out.glob("*.whl")) - before
    return repaired


def check(wheel: Path) -> None:
    """Refuses a wheel that is too large or holds what does not belong into it."""
    size = wheel.stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{wheel.name} has {size / 1e6:.1f} MB: at most {LIMIT / 1e6:.0f} wanted")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    strange = [name for name in names if not KNOWN.fullmatch(name)]
    if strange:
        raise SystemExit(f"{wheel.name} holds {', '.join(strange[:5])}")
    if sum(name.endswith(".so") for name in names) != 1 or "fskernel/_build.py" not in names:
        raise SystemExit(f"{wheel.name} holds not exactly one library and what it was built with")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pythons", nargs="*", help="interpreters; default: 3.10 to 3.13 at hand")
    parser.add_argument("--out", default="dist", help="folder of the wheels (default: dist)")
    parser.add_argument("--cpu-only", action="store_true", help="only those without CUDA kernels")
    args = parser.parse_args()
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this Python has no torch, whose headers the wheels need: make wheels")
    torch = str(Path(spec.submodule_search_locations[0]))
    found = pythons(args.pythons)
    missing = [f"3.{minor}" for minor in MINORS if f"3.{minor}" not in found]
    if missing and not args.pythons:
        print(f"no wheel for Python {', '.join(missing)}: not found here")
    out = ROOT / args.out
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("fskernel-*.whl"), *out.glob("fskernel-*.tar.gz")):
        old.unlink()
    kinds = [{"FSKERNEL_CUDA": "0", "FSKERNEL_LABEL": "cpu"}]
    if not args.cpu_only:
        kinds.insert(0, {"FSKERNEL_CUDA": "1"})
    for version, name in found.items():
        python = environment(version, name)
        for kind in kinds:
            wheel = build(python, out, FSKERNEL_TORCH=torch, **kind)
            check(wheel)
            print(f"{wheel.stat().st_size / 1e6:6.1f} MB  {wheel.name}", flush=True)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT)
    (sdist,) = out.glob("fskernel-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    lacking = {"csrc/module.cpp", "csrc/float.flags", "setup.py", "LICENSE"} - names
    if lacking:
        raise SystemExit(f"{sdist.name} lacks {', '.join(sorted(lacking))}")
    print(f"{sdist.stat().st_size / 1e6:6.1f} MB  {sdist.name}")


if __name__ == "__main__":
    main()
