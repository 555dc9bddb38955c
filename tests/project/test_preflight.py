"""Risk: `make` starts on a machine that lacks what it needs, or refuses one that has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from toolchains import executable

from bench import ROOT


def preflight(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / ".ci" / "preflight"), *arguments],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_preflight_accepts_the_machine_the_tests_run_on() -> None:
    done = preflight(sys.executable, "0")
    assert done.returncode == 0, done.stderr


def test_preflight_names_everything_that_is_missing_at_once(tmp_path: Path) -> None:
    done = preflight("no-such-python", str(10**12), CXX="no-such-compiler")
    assert done.returncode == 1
    assert "no-such-python" in done.stderr and "no-such-compiler" in done.stderr
    assert "disk space" in done.stderr
    assert "sudo apt-get install python3 g++" in done.stderr


def test_preflight_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    # It fails the version question and answers the one for its name.
    old = executable(
        tmp_path / "python3.6",
        '#!/bin/sh\ncase "$2" in *platform*) echo 3.6.9;; *) exit 1;; esac\n',
    )
    done = preflight(str(old), "0")
    assert done.returncode == 1 and "Python 3.6.9" in done.stderr
