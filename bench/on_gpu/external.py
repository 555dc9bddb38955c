"""The parts that run other programs: the probe, the tests, the sanitizer."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from bench import ROOT
from bench.on_gpu.process import cuda_words, last_line, lines, run
from bench.on_gpu.session import Session

PYTEST = (sys.executable, "-m", "pytest")
FILE_LIMIT = 120.0  # seconds of the tests of one file
FOR_A_GPU = re.compile(r"needs_gpu|backends\(\)|mark\.gpu")
OUTCOME = re.compile(r"^(tests/\S+?\.py::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
FOUND = re.compile(r"(ERROR|RACECHECK) SUMMARY: .*")
CASES, SEED = "10", "1"  # of the launchers' test, under a sanitizer


def tool(name: str) -> str | None:
    """A program of the CUDA toolkit, from PATH or from where the toolkit usually is."""
    places = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *(f"{p}/bin" for p in places if p)])
    return shutil.which(name, path=path)


# ---- the probe ----------------------------------------------------------------------------------


def probe(session: Session) -> None:
    """Asks the hardware what the kernels and the tile model assume of it."""
    session.keep("probe", _probe(session))


def _probe(session: Session) -> dict[str, object]:
    program = ROOT / "build/probe/probe"
    extra: list[str] = []
    if session.rehearsal:
        program, extra = ROOT / "build/probe/probe_host", ["--emulated"]
        if not program.exists():
            return {"skipped": "a rehearsal, without build/probe/probe_host: would run the probe"}
    elif not program.exists():
        makefile = ROOT / "csrc/cuda/probe/Makefile"
        why = _built(session, makefile, "", "probe_build.log")
        if why or not program.exists():
            return {"skipped": why or f"{makefile.relative_to(ROOT)} made no build/probe/probe"}
    folder, log = session.folder / "probe", session.folder / "probe.log"
    folder.mkdir(exist_ok=True)
    seconds = max(1, int(min(60, session.left - 2)))
    command = [program, *extra, "--out", folder.resolve(), "--seconds", str(seconds)]
    ended = run(command, log, session.left)
    value: dict[str, object] = {"log": "probe.log", "exit": ended.code, "wall_s": ended.seconds}
    if ended.told:
        value["error"] = f"{ended.told}: {last_line(log)}"
        value["cuda"] = cuda_words(log)
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads((folder / "probe.json").read_text())
        value["rows"] = list(told["rows"])
    return value


def _built(session: Session, makefile: Path, target: str, log: str) -> str | None:
    """Builds by make; why it did not, or None."""
    name = makefile.relative_to(ROOT)
    if not makefile.exists():
        return f"there is no {name} to build it by"
    nvcc = tool("nvcc")
    if nvcc is None:
        return "it is not built, and there is no nvcc on PATH or in CUDA_HOME"
    path = f"{Path(nvcc).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = ["make", "-f", str(name), *([target] if target else [])]
    ended = run(command, session.folder / log, session.left - 5, env={"PATH": path})
    if not ended.told:
        return None
    return f"`{' '.join(command)}`: {ended.told}; {last_line(session.folder / log)} ({log})"


# ---- the tests ----------------------------------------------------------------------------------


def gpu_files() -> list[str]:
    """The files with tests for a GPU."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(f.relative_to(ROOT)) for f in files if FOR_A_GPU.search(f.read_text())]


def tests(session: Session) -> None:
    """The tests that need a GPU, file by file: one illegal address spoils one file."""
    for file in gpu_files():
        value = _tests(session, file)
        session.keep("tests", value, file)
        said = value.get("skipped") or value.get("error") or ""
        counts = ", ".join(f"{n} {word}" for word, n in value.get("counts", {}).items())
        print(f"  {file}: {'; '.join(filter(None, [counts, str(said)]))}", flush=True)


def _tests(session: Session, file: str) -> dict[str, object]:
    limit = min(FILE_LIMIT, session.left - 3)
    if limit < 5:
        return {"skipped": f"{max(0.0, session.left):.0f} s were left"}
    folder = session.folder / "tests"
    folder.mkdir(exist_ok=True)
    stem = Path(file).stem
    log = folder / f"{stem}.log"
    command = [*PYTEST, "-m", "gpu", "-v", "-rA", "--tb=short", "-p", "no:cacheprovider"]
    command += [f"--junitxml={(folder / stem).resolve()}.xml", file]
    # Plugins that happen to be installed there are none of ours: one that fails would end it all.
    environment = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "COLUMNS": "200",
    }
    # After SIGINT pytest still writes what it knows.
    ended = run(command, log, limit, env=environment, first=signal.SIGINT)
    outcomes: dict[str, str] = {}
    for line in lines(log):
        if found := OUTCOME.match(line):
            outcomes.setdefault(found[1], found[2].lower())
    value: dict[str, object] = {
        "counts": dict(Counter(outcomes.values())),
        "outcomes": outcomes,
        "exit": ended.code,
        "wall_s": ended.seconds,
        "log": f"tests/{stem}.log",
    }
    if ended.code not in (0, 1, 5):  # 1: a test failed; 5: none was for a GPU
        value["error"] = f"{ended.told}; {_running(log, outcomes) or last_line(log)}"
    if ended.code not in (0, 5):
        value["cuda"] = cuda_words(log)
    return value


def _running(log: Path, outcomes: dict[str, str]) -> str:
    """The test that was running when the process ended."""
    for line in lines(log):
        name = line.split(" ")[0]
        if name.startswith("tests/") and "::" in name and name not in outcomes:
            if not any(known.startswith(name) for known in outcomes):
                return f"in {name}"
    return ""


# ---- the sanitizer ------------------------------------------------------------------------------


def sanitizer(session: Session) -> None:
    """Memcheck and racecheck over the launchers, without torch; or the program by itself."""
    program = ROOT / "build/launch/launch_test"
    name = str(program.relative_to(ROOT))
    if session.rehearsal:
        why = f"a rehearsal: would run {name} {CASES} {SEED} under memcheck and racecheck"
        return session.keep("sanitizer", {"skipped": why})
    if not program.exists():
        why = _built(session, ROOT / "tests/cpp/Makefile", name, "launch_build.log")
        if why or not program.exists():
            return session.keep("sanitizer", {"skipped": why or f"make made no {name}"})
    checker = tool("compute-sanitizer")
    if checker is None:
        value = _checked(session, [program, "100", SEED], "plain", session.left)
        value["note"] = "there is no compute-sanitizer on PATH or in the CUDA toolkit"
        return session.keep("sanitizer", value, "plain")
    for i, check in enumerate(("memcheck", "racecheck")):
        command = [checker, "--tool", check, "--error-exitcode", "9", program, CASES, SEED]
        value = _checked(session, command, check, session.left / (2 - i))
        session.keep("sanitizer", value, check)
    return None


def _checked(session: Session, command: list, check: str, seconds: float) -> dict[str, object]:
    if seconds < 2:
        return {"skipped": f"{max(0.0, seconds):.0f} s were left"}
    log = session.folder / f"sanitizer_{check}.log"
    ended = run(command, log, seconds)
    said = [found[0] for line in lines(log) if (found := FOUND.search(line))]
    value: dict[str, object] = {
        "exit": ended.code,
        "says": said[-1] if said else last_line(log),
        "wall_s": ended.seconds,
        "log": log.name,
    }
    if ended.told:
        value["error"] = ended.told
        value["cuda"] = cuda_words(log)
    return value
