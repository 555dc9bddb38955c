"""Other programs, each with a log and a limit, ended with all that they started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from bench import ROOT

# What CUDA and its libraries say of an error; a log may have thousands of such lines.
WORDS = re.compile(
    r"CUDA (driver |runtime )?error|cuda(Error|_error)[A-Z]?|CUDA_ERROR|CUBLAS_STATUS|CUDNN_STATUS|"
    r"illegal (memory access|instruction)|misaligned address|unspecified launch failure|"
    r"device-side assert|out of memory|\bXid\b|no kernel image"
)
MOST_WORDS, GRACE = 5, 3.0


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit status, negative for a signal; None: it was ended at its limit.
        seconds: that it took.
    """

    code: int | None
    seconds: float

    @property
    def told(self) -> str:
        """In words; empty where it ended well."""
        if self.code is None:
            return f"ended at its limit, after {self.seconds:.0f} s"
        if self.code < 0:
            with suppress(ValueError):
                return f"ended by {signal.Signals(-self.code).name}"
        return f"exit {self.code}" if self.code else ""


def run(
    command: Sequence[str | Path],
    log: Path,
    seconds: float,
    *,
    env: Mapping[str, str] | None = None,
    first: signal.Signals = signal.SIGTERM,
) -> Ended:
    """Runs a program from the root of the repository, its output in a file.

    Args:
        command: its words.
        log: is written anew.
        seconds: its limit; then it and all that it started get `first`, and soon SIGKILL. The same
            happens when this process is interrupted.
        env: variables beside those of this process.
        first: SIGINT for what then writes its results.

    Raises:
        OSError: it cannot be started.
    """
    begin = monotonic()
    with log.open("w") as out:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            code = None
            _end(child, first)
        except BaseException:
            _end(child, signal.SIGKILL)
            raise
    with suppress(ProcessLookupError, PermissionError):  # what it left behind
        os.killpg(child.pid, signal.SIGKILL)
    return Ended(code, monotonic() - begin)


def _end(child: subprocess.Popen, first: signal.Signals) -> None:
    for number in (first, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        # A process inside the driver may outlive even SIGKILL for a while: it is left behind.
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)


def cuda_words(log: Path) -> list[str]:
    """What CUDA said of errors in a log: the first lines of each kind, at most five."""
    found: dict[str, None] = {}
    for line in lines(log):
        if WORDS.search(line):
            found.setdefault(line.strip()[:300])
        if len(found) == MOST_WORDS:
            break
    return list(found)


def lines(log: Path) -> list[str]:
    """Of a log, which may hold anything or not be there."""
    with suppress(OSError):
        return log.read_text(errors="replace").splitlines()
    return []


def last_line(log: Path) -> str:
    """The last line with text in it."""
    return next((line.strip()[:300] for line in reversed(lines(log)) if line.strip()), "")
