"""Several jobs in one process: the rows of an experiment, or a sweep (-m)."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from bench.output.faults import curable, sentence
from bench.output.markdown import accuracy, table, with_interval
from bench.output.progress import console, say
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
            text = page(self.finished, self.command)
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


def page(jobs: list[tuple[str, dict]], command: str) -> str:
    """The command, the machine and a row for each job (its options, its record's values)."""
    first = jobs[0][1]
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
    for name, v in jobs:
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
    notes = dict.fromkeys(note for _, v in jobs for note in v["notes"])
    lines += [*table(COLUMNS, rows), "", *(f"- {note}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"
