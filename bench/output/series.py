"""Several jobs in one process: the rows of an experiment, or a sweep (-m)."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.output.faults import curable, sentence
from bench.output.loggers.interface import SeriesLogger
from bench.output.markdown import accuracy, table, with_interval
from bench.output.progress import console, say
from bench.output.report import series_page
from bench.output.report.leave import NAME, leave
from bench.output.report.series_page import Job
from bench.output.terminal import number
from fskernel.files import write_text

COLUMNS = (
    "options",
    "top-1",
    "same answer as the ANN",
    "relative logit error",
    "spikes/image",
    "spikes/neuron",
    "latency, steps",
)


class Series:
    """Runs jobs one after the other; one that fails does not stop the next.

    Args:
        directory: where table.md and report.html go, rewritten after every job.
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
            text = page(self.finished, self.command)
            write_text(self.directory / "table.md", text)
            if self.report:
                leave(partial(series_page.write, self.finished, self.command, self.directory))

    def _fail(self, name: str, reason: str) -> None:
        self.failed.append((name, reason))
        console.print(f"error: {reason}", style="bold red", markup=False, soft_wrap=True)

    def close(self) -> int:
        """Says what became of the jobs; returns the exit code."""
        self.logger.close()
        say(f"{len(self.finished)} job(s) finished, {len(self.failed)} failed")
        if self.finished:
            for what, name in (("table", "table.md"), ("report", NAME)):
                if (self.directory / name).exists():
                    say(f"{what}: {self.directory / name}")
        for name, reason in self.failed:
            console.print(f"failed: {name}: {reason}", style="red", markup=False, soft_wrap=True)
        return 1 if self.failed else 0


def page(jobs: Sequence[Job], command: str) -> str:
    """The command, the machine and a row for each job."""
    first = jobs[0].values
    weights, versions = Path(first["weights"]).name, first["versions"]
    lines = [
        f"`{command}`",
        "",
        f"{first['model']}, weights {weights}; {first['machine']['cpu']}, kernels "
        f"{first['fs.isa']}; Python {versions['python']}, torch {versions['torch']}, fskernel "
        f"{versions['fskernel']} ({versions['commit']}). Intervals are 95 %.",
        "",
    ]
    rows: list[list[str]] = []
    shown: set = set()
    for name, _, v in jobs:
        # The ANN stands once, above the jobs that show it the same images.
        ann = (v["model"], v["images"], v["accuracy.ann"])
        if ann not in shown:
            title = f"ANN fp32, {v['images']} images"
            rows.append([title, accuracy(v, "ann"), *[""] * (len(COLUMNS) - 2)])
            shown.add(ann)
        rows.append(
            [
                f"`{name}`",
                accuracy(v, "fs"),
                accuracy(v, "agreement"),
                with_interval(
                    v["accuracy.logit_error"],
                    v["accuracy.logit_error_interval"],
                    lambda x: f"{x:.3f}",
                ),
                number(v["fs.spikes_per_image"]),
                f"{v['fs.spikes_per_neuron']:.3f}",
                number(v["fs.latency_steps"]),
            ]
        )
    notes = dict.fromkeys(note for _, _, v in jobs for note in v["notes"])
    lines += [*table(COLUMNS, rows), "", *(f"- {note}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"
