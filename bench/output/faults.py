"""What ends a command in one sentence and exit code 2: what the user can put right."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from typing import TypeVar

from bench.errors import UserError
from bench.output import interrupt
from bench.output.progress import console

# What else is told, by package. Safetensors says so that the disk refuses; a file that cannot be
# read is told as UserError where it is read.
OTHERS = {"fskernel.errors": "ConversionError", "safetensors": "SafetensorError"}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Result = TypeVar("Result")


def curable() -> tuple[type[Exception], ...]:
    """The errors that end a command in one sentence.

    Those of packages which are not imported cannot have come: nobody waits for torch to know them.
    """
    found = (getattr(sys.modules.get(package), name, None) for package, name in OTHERS.items())
    return (UserError, OSError, *filter(None, found))


def fail(error: Exception, option: str) -> int:
    """Says it in one sentence; returns the exit code.

    Args:
        error: one of `curable`.
        option: the setting of the command that says where results go.
    """
    text = f"error: {sentence(error, option)}"
    console.print(text, style="bold red", markup=False, soft_wrap=True)
    return 2


def sentence(error: Exception, option: str) -> str:
    """What is wrong, and the cure; arguments as those of `fail`."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    cure = "make room there" if error.errno in FULL else "put that right"
    return f"{what}: {cure}, or, if results go there, name another place with {option}"


def in_one_sentence(option: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Decorates the main function of a command: a fault or Ctrl-C ends the process.

    Args:
        option: as that of `fail`.
    """

    def decorate(main: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(main)
        def told(*arguments: object) -> Result:
            try:
                return main(*arguments)
            except curable() as error:
                sys.exit(fail(error, option))
            except KeyboardInterrupt as error:
                console.print("interrupted")
                sys.exit(interrupt.code(error))

        return told

    return decorate
