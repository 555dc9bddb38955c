"""What goes wrong in a command: one sentence on stderr and an exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec

from fskernel.cli.terminal import printable, say
from fskernel.errors import BudgetError, ConversionError

FAILED, USAGE, INTERRUPTED = 1, 2, 130

P = ParamSpec("P")


class Failure(Exception):
    """What could not be done, why, and what would help."""


class Usage(Exception):
    """What was typed that makes no sense, and what does."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, where there is more to say: its text."""


def in_one_sentence(work: Callable[P, None]) -> Callable[P, None]:
    """Work whose faults, warnings and interrupts are sentences; others are bugs: a traceback."""

    @wraps(work)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            try:
                work(*args, **kwargs)
            except Usage as error:
                _end(f"error: {error}", USAGE)
            except BrokenPipeError:  # of a reader that has seen enough: typer's business
                raise
            except (Failure, ConversionError, BudgetError, OSError) as error:
                _end(f"error: {error}", FAILED)
            except KeyboardInterrupt as error:
                _end("; ".join(["interrupted", *map(str, error.args)]), INTERRUPTED)

    return told


@contextmanager
def of_arguments() -> Iterator[None]:
    """What fskernel refuses inside is what was typed.

    Raises:
        Usage: for a ValueError or TypeError; a network that cannot be converted, or a search
            without result, keep their own.
    """
    try:
        yield
    except (ConversionError, BudgetError):
        raise
    except (ValueError, TypeError) as error:
        raise Usage(str(error)) from error


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    say(f"warning: {message}")


def _end(text: str, code: int) -> NoReturn:
    say(printable(text))
    sys.exit(code)
