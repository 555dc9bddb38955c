"""Ctrl-C at any time: one sentence, no traceback, exit code 130."""

from __future__ import annotations

import os
import signal

CODE = 130  # what shells expect after SIGINT


def leave_at_once() -> None:
    """From here on Ctrl-C ends the process on the spot.

    For times when there is nothing to keep: inside an import an exception may be swallowed.
    """
    _handle(_leave)


def raise_once() -> None:
    """The next Ctrl-C raises KeyboardInterrupt, so that what was measured is kept.

    One more ends the process on the spot, whatever is being put in order then.
    """
    _handle(_raise)


def _handle(handler) -> None:
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as nohup and background jobs have it
        signal.signal(signal.SIGINT, handler)


def _raise(*_) -> None:
    _handle(_leave)
    raise KeyboardInterrupt


def _leave(*_) -> None:
    os.write(2, b"\ninterrupted\n")  # print() may be what was interrupted
    os._exit(CODE)
