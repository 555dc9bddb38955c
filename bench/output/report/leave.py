"""A report beside results that are safe already: its failure is told, and costs nothing else."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from bench.output.progress import console

NAME = "report.html"


def leave(write: Callable[[], Path]) -> None:
    """Writes a report; where that fails, says so and goes on."""
    try:
        write()
    except OSError as error:
        _tell(f"{error.filename or NAME}: {error.strerror or error}")
    except Exception as error:  # a mistake of ours: shown in full
        traceback.print_exc()
        _tell(f"{type(error).__name__}: {error}")


def _tell(reason: str) -> None:
    text = f"no report: {reason}; the results are complete, and report=false leaves it out"
    console.print(text, style="bold red", markup=False, soft_wrap=True)
