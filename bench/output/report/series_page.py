"""Makes report.html of a sweep or of the rows of an experiment: all runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.output.report import curves, tables
from bench.output.report.leave import NAME
from bench.output.report.page import render
from bench.output.tables.comparison import Comparison
from bench.output.tables.numbers import count, hundredths, number, rounded
from bench.output.tables.runs import Job, labels

Values = dict[str, Any]


def write(jobs: Sequence[Job], made: Comparison, command: str, directory: Path) -> Path:
    """Writes the report of a series.

    Args:
        jobs: those that are finished. made: their table. command: what was typed.
        directory: of the series.
    """
    named = list(zip(labels([job.name for job in jobs]), jobs))
    runs = [
        curves.Run(label, job.values) for label, job in named if "ratio.fs_to_ann" in job.values
    ]
    first = jobs[0].values
    figures = curves.figures(runs) if runs else {}
    given = {
        "command": command,
        "jobs": jobs,
        "said": sentence(runs) if runs else made.title,
        "rows": (made.head, made.rows),
        "links": {label: link(job, directory) for label, job in named},
        "notes_of_all": made.notes,
        "models": ", ".join(dict.fromkeys(job.values["model"] for job in jobs)),
        "environment": tables.environment(first),
    }
    data = [
        {
            "options": job.name,
            "directory": relative(job.directory, directory),
            "results": job.values,
        }
        for job in jobs
    ]
    return render("series.html.jinja", data, figures, given, directory)


def relative(folder: Path, directory: Path) -> str:
    """A run's folder as seen from that of the series; elsewhere, its own path."""
    folder, directory = folder.absolute(), directory.absolute()
    return str(folder.relative_to(directory)) if directory in folder.parents else str(folder)


def link(job: Job, directory: Path) -> str | None:
    """Where a run's report is, None if it has none or lies elsewhere."""
    inside = directory.absolute() in job.directory.absolute().parents
    there = inside and (job.directory / NAME).exists()
    return f"{relative(job.directory, directory)}/{NAME}" if there else None


def sentence(runs: Sequence[curves.Run]) -> str:
    """What the series comes to: the fewest time steps that pass the gate, where it is known."""
    known = [run for run in runs if run.values["gate.passed"] is not None]
    least = known[0].values["gate.least"] if known else None
    if not known:
        return (
            "No gate: the accuracy is not known, because there are no labels or the weights are "
            "random. The runs are compared by what was measured."
        )
    passed = [run for run in known if run.values["gate.passed"]]
    share = f"{least:.0%} of the dense network's accuracy"
    if not passed:
        return f"None of {count(len(known), 'run')} keeps {share}."
    best = min(passed, key=lambda run: (run.values["K"], run.values["fs.spikes_per_image"]))
    v = best.values
    named = f"K={v['K']}"
    which = named if best.label == named else f"{named} ({best.label})"
    return (
        f"The fewest time steps that keep {share} are {which}: top-1 "
        f"{hundredths(v['accuracy.fs'])} % of {hundredths(v['accuracy.ann'])} %, "
        f"{number(v['fs.spikes_per_image'])} spikes an image, {rounded(v['ratio.fs_to_ann'])} "
        f"times as fast as the dense network. {len(passed)} of {count(len(known), 'run')} "
        f"keep{'s' if len(known) == 1 else ''} it."
    )
