"""Several jobs in one process: the rows of an experiment, or a sweep (-m)."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.output.faults import curable, sentence
from bench.output.loggers.interface import SeriesLogger
from bench.output.progress import console, say
from bench.output.report import series_page
from bench.output.report.leave import NAME, leave
from bench.output.tables import rivals, runs, scaling
from bench.output.tables.comparison import Comparison
from bench.output.tables.runs import Job

OF = {
    "networks": runs.comparison,
    "rivals": rivals.comparison,
    "scaling": scaling.comparison,
}


class Series:
    """Runs jobs one after the other; one that fails does not stop the next.

    Args:
        directory: where the tables and report.html go, rewritten after every job.
        command: what the user typed, for the table.
        option: the setting that names the directory, for messages.
        report: whether there is to be a report.
        logger: what else is told of every finished run.
    """

    def __init__(
        self,
        directory: Path,
        command: str,
        option: str,
        report: bool,
        logger: SeriesLogger | None = None,
    ):
        self.directory, self.command, self.option = directory, command, option
        self.report, self.logger = report, logger or SeriesLogger()
        self.finished: list[Job] = []
        self.failed: list[tuple[str, str]] = []
        self.tables: list[Path] = []

    def attempt(self, name: str, directory: Path, job: Callable[[], dict]) -> None:
        """Runs one job, which returns its record's values.

        Args:
            name: its options. directory: where its files go. job: what is called.
        """
        try:
            self.finished.append(Job(name, directory, job()))
            self.logger.add(name, self.finished[-1].values)
        except curable() as error:
            self._fail(name, sentence(error, self.option))
        except Exception as error:  # a mistake of ours: shown in full, but the others still count
            traceback.print_exc()
            self._fail(name, f"{type(error).__name__}: {error}")
        if self.finished:
            made = self._comparison()
            self.tables = made.write(self.directory, self.command)
            if self.report:
                given = self.finished, made, self.command, self.directory
                leave(partial(series_page.write, *given))

    def _comparison(self) -> Comparison:
        """Of the finished jobs; those that measure something else than the first are left out."""
        what = measure_of(self.finished[0])
        return OF[what]([job for job in self.finished if measure_of(job) == what])

    def _fail(self, name: str, reason: str) -> None:
        self.failed.append((name, reason))
        console.print(f"error: {reason}", style="bold red", markup=False, soft_wrap=True)

    def close(self) -> int:
        """Compares the finished jobs, says what became of all; returns the exit code."""
        self.logger.close()
        if self.finished:
            console.print(self._comparison().fitting())
        say(f"{len(self.finished)} job(s) finished, {len(self.failed)} failed")
        if self.tables:
            first, *others = self.tables
            say(f"table: {first}" + "".join(f", {path.name}" for path in others))
        if (self.directory / NAME).exists():
            say(f"report: {self.directory / NAME}")
        for name, reason in self.failed:
            console.print(f"failed: {name}: {reason}", style="red", markup=False, soft_wrap=True)
        return 1 if self.failed else 0


def measure_of(job: Job) -> str:
    """What a job has measured."""
    return job.values.get("measure", "networks")
