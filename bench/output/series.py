"""Several jobs in one process: the rows of an experiment, or a sweep (-m)."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from bench.output import markdown
from bench.output.faults import curable, sentence
from bench.output.progress import console, say
from fskernel.files import write_text


class Series:
    """Runs jobs one after the other; one that fails does not stop the next.

    Args:
        directory: where table.md goes, rewritten after every job.
        command: what the user typed, for the table.
        option: the setting that names the directory, for messages.
    """

    def __init__(self, directory: Path, command: str, option: str):
        self.directory, self.command, self.option = directory, command, option
        self.finished: list[tuple[str, dict]] = []
        self.failed: list[tuple[str, str]] = []

    def attempt(self, name: str, job: Callable[[], dict]) -> None:
        """Runs one job, which returns its record's values."""
        try:
            self.finished.append((name, job()))
        except curable() as error:
            self._fail(name, sentence(error, self.option))
        except Exception as error:  # a mistake of ours: shown in full, but the others still count
            traceback.print_exc()
            self._fail(name, f"{type(error).__name__}: {error}")
        if self.finished:
            text = markdown.table(self.finished, self.command)
            write_text(self.directory / "table.md", text)

    def _fail(self, name: str, reason: str) -> None:
        self.failed.append((name, reason))
        console.print(f"error: {reason}", style="bold red", markup=False, soft_wrap=True)

    def close(self) -> int:
        """Says what became of the jobs; returns the exit code."""
        say(f"{len(self.finished)} job(s) finished, {len(self.failed)} failed")
        if self.finished:
            say(f"table: {self.directory / 'table.md'}")
        for name, reason in self.failed:
            console.print(f"failed: {name}: {reason}", style="red", markup=False, soft_wrap=True)
        return 1 if self.failed else 0
