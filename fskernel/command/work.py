"""The one place where a command that was understood loads torch, and fskernel with it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable

# What does the work of each command: a module of fskernel.cli, and a function of the same name.
WORK = ("convert", "info", "run", "search", "fidelity")


def of(command: str) -> Callable[..., None]:
    """What does a command's work; loads torch where that is not there yet.

    Ctrl-C ends the process on the spot until it is there: inside an import, an exception may be
    swallowed, and there is nothing to keep.
    """
    if command not in WORK:
        raise ValueError(f"command={command!r} has no work: use one of {', '.join(WORK)}")
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if "torch" not in sys.modules and sys.stderr.isatty():
        print("loading torch", file=sys.stderr, flush=True)
    if ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        module = importlib.import_module(f"fskernel.cli.{command}")
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return getattr(module, command)


def _leave(number: int, _) -> None:
    os.write(2, b"\ninterrupted\n")  # print() may be what was interrupted
    os._exit(128 + number)
