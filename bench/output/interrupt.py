"""Ctrl-C and signals like it: one sentence, an exit code; what is told before torch is there.

A command calls `start` before it imports anything that is not Python's own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import ROOT

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []


class Interrupted(KeyboardInterrupt):
    """One of SIGNALS came."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def code(error: KeyboardInterrupt) -> int:
    """What shells expect: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + getattr(error, "number", signal.SIGINT)


def came() -> int | None:
    """The exit code of the signal that was raised; None: there was none.

    For what keeps its results where the exception comes, and ends when they are written.
    """
    return 128 + _came[0] if _came else None


def start() -> None:
    """What a command does first: there is nothing to keep yet, and packages may be missing."""
    leave_at_once()
    sys.excepthook = _tell_missing


def _tell_missing(kind, error, trace) -> None:
    """A package that this Python lacks is a sentence; all else is a traceback."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not issubclass(kind, ModuleNotFoundError) or package in ("", "bench", "fskernel"):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {missing(package, Path(sys.argv[0]))}", file=sys.stderr, flush=True)
    os._exit(2)


def missing(package: str, script: Path) -> str:
    """That this Python lacks a package, and what to type."""
    own = ROOT / ".venv"
    typed = f".venv/bin/python bench/{script.name}"
    if script.name == "run.py":
        typed += ", or make run ARGS=..."
    cure = f"use {typed}"
    if not own.exists():
        cure = f"make setup makes an environment that has it; then {cure}"
    elif Path(sys.prefix).absolute() == own.absolute():
        cure = "make setup installs it"
    return f"{sys.executable} has no package {package}: {cure}"


def leave_at_once() -> None:
    """From here on these signals end the process on the spot.

    For times when there is nothing to keep: inside an import an exception may be swallowed.
    """
    _handle(_leave)


def tell(what: str) -> None:
    """What a command does before it has anything to say; on stderr, as others may read stdout."""
    print(what, file=sys.stderr, flush=True)


@contextmanager
def importing() -> Iterator[None]:
    """While a command imports torch and what needs it, which takes seconds: it says so first.

    A command that began with `leave_at_once` is as after `raise_once` when this ends: from then on
    there may be something to keep.
    """
    if "torch" not in sys.modules:
        tell("loading torch and fskernel")
    ours = [number for number in SIGNALS if signal.getsignal(number) in (_leave, _raise)]
    for number in ours:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _leave if _came else _raise)


def raise_once() -> None:
    """The next of these signals raises KeyboardInterrupt, so that what was measured is kept.

    One more ends the process on the spot, whatever is being put in order then.
    """
    _handle(_raise)


def _handle(handler) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and background jobs have it
            signal.signal(number, handler)


def _raise(number: int, _) -> None:
    _handle(_leave)
    _came.append(number)
    raise Interrupted(number)


def _leave(number: int, _) -> None:
    os.write(2, b"\ninterrupted\n")  # print() may be what was interrupted
    os._exit(128 + number)
