"""Makes report.html of a sweep or of the rows of an experiment: all runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.output.report import curves, tables
from bench.output.report.leave import NAME
from bench.output.report.page import render
from bench.output.terminal import count, hundredths, interval, number, rounded, two_digits

Values = dict[str, Any]


class Job(NamedTuple):
    """A finished run: its options as they were typed, its folder, what its results.json holds."""

    name: str
    directory: Path
    values: Values


def write(jobs: Sequence[Job], command: str, directory: Path) -> Path:
    """Writes the report of a series.

    Args:
        jobs: those that are finished. command: what was typed. directory: of the series.
    """
    timed = [job for job in jobs if "ratio.fs_to_ann" in job.values]
    runs = [
        curves.Run(label, job.values) for label, job in zip(labels([j.name for j in timed]), timed)
    ]
    links = [link(job, directory) for job in timed]
    first = jobs[0].values
    figures = curves.figures(runs) if runs else {}
    given = {
        "command": command,
        "jobs": jobs,
        "said": sentence(runs),
        "rows": rows(runs, links),
        "links": dict(zip((run.label for run in runs), links)),
        "notes_of_all": list(dict.fromkeys(note for job in jobs for note in job.values["notes"])),
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


def labels(names: Sequence[str]) -> list[str]:
    """Runs by what differs between them: options that all have in common are left out."""
    split = [tables.words(name) for name in names]
    common = set.intersection(*map(set, split)) if len(split) > 1 else set()
    short = [" ".join(word for word in words if word not in common) for words in split]
    return [label or name for label, name in zip(short, names)]


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
    return (
        f"The fewest time steps that keep {share} are K={v['K']} ({best.label}): top-1 "
        f"{hundredths(v['accuracy.fs'])} % of {hundredths(v['accuracy.ann'])} %, "
        f"{number(v['fs.spikes_per_image'])} spikes an image, {rounded(v['ratio.fs_to_ann'])} "
        f"times as fast as the dense network. {len(passed)} of {count(len(known), 'run')} "
        f"keep{'s' if len(known) == 1 else ''} it."
    )


HEAD = ("run", "K", "gate", "top-1, %", "same answer, %", "logit error", "spikes an image")
HEAD_OF_TIME = ("ms an image", "against the ANN", "latency, steps")


def rows(runs: Sequence[curves.Run], links: Sequence[str | None]) -> tuple[list, list]:
    """The table of runs: the columns' names, and cells that can be sorted."""
    head, found = [*HEAD, *HEAD_OF_TIME], []
    for run in runs:
        v = run.values
        passed = {True: "passed", False: "failed", None: "–"}[v["gate.passed"]]
        counted = [tables.Cell(passed, None if v["gate.passed"] is None else passed)]
        for key, show in (
            ("fs", hundredths),
            ("agreement", hundredths),
            ("logit_error", two_digits),
        ):
            value, ends = v[f"accuracy.{key}"], v[f"accuracy.{key}_interval"]
            counted.append(tables.Cell(interval(value, ends, show), value))
        spikes = v["fs.spikes_per_image"]
        counted.append(tables.Cell(number(spikes), spikes))
        if v["random_weights"]:
            counted = [tables.Cell("–", None)] * len(counted)
        ms = 1000 / v["fs.images_per_s"]
        slow, fast = v["fs.images_per_s_iqr"]
        found.append(
            [
                tables.Cell(run.label, run.label),
                tables.Cell(str(v["K"]), v["K"]),
                *counted,
                tables.Cell(f"{rounded(ms)} ({rounded(1000 / fast)}–{rounded(1000 / slow)})", ms),
                tables.Cell(f"{rounded(v['ratio.fs_to_ann'])}x", v["ratio.fs_to_ann"]),
                tables.Cell(number(v["fs.latency_steps"]), v["fs.latency_steps"]),
            ]
        )
    kept = [i for i in range(len(head)) if any(row[i].value is not None for row in found)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in found]
