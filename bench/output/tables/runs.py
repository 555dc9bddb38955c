"""The comparison of the runs of a sweep, or of the rows of an experiment."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.output.tables.comparison import EMPTY, Cell, Column, Comparison
from bench.output.tables.numbers import (
    count,
    factor,
    interval,
    milliseconds,
    number,
    rounded,
    share,
    two_digits,
)

Values = dict[str, Any]
COLUMNS = (
    Column("run", "run"),
    Column("K", "K"),
    Column("gate", "gate"),
    Column("top1", "top-1"),
    Column("agreement", "same answer\nas the ANN"),
    Column("logit_error", "logit\nerror"),
    Column("spikes_per_image", "spikes\nan image"),
    Column("spikes_per_neuron", "spikes\na neuron"),
    Column("ms", "ms\nan image"),
    Column("images_per_s", "images/s"),
    Column("fs_to_ann", "against\nthe ANN"),
    Column("interval_steps", "an image\nevery"),
    Column("latency_steps", "answer\nafter"),
)


class Job(NamedTuple):
    """A finished run: its options as they were typed, its folder, what its results.json holds."""

    name: str
    directory: Path
    values: Values


def words(text: str) -> list[str]:
    """The words of a command; of one that no shell would take, what stands between spaces."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def labels(names: Sequence[str]) -> list[str]:
    """Runs by what differs between them: options that all have in common are left out."""
    split = [words(name) for name in names]
    common = set.intersection(*map(set, split)) if len(split) > 1 else set()
    short = [" ".join(word for word in given if word not in common) for given in split]
    return [label or name for label, name in zip(short, names)]


def comparison(jobs: Sequence[Job]) -> Comparison:
    """A row for each run, and one for each dense network above the runs that it is shown with."""
    rows, shown = [], set()
    for label, (_, _, v) in zip(labels([job.name for job in jobs]), jobs):
        if "ratio.fs_to_ann" not in v:  # in the emulator, where nothing is timed
            rows.append([Cell(label, label), Cell(str(v["K"]), v["K"]), *[EMPTY] * 11])
            continue
        ann = (v["model"], v["images"], v["accuracy.ann"], v["batch"], v.get("threads"))
        if ann not in shown:
            shown.add(ann)
            rows.append(of_ann(v))
        rows.append(of_run(label, v))
    return Comparison(title([job.values for job in jobs]), COLUMNS, rows, notes(jobs))


def notes(jobs: Sequence[Job]) -> list[str]:
    """What the records say besides, each sentence once; behind their names what is true of some."""
    runs: dict[str, list[str]] = {}
    for label, job in zip(labels([job.name for job in jobs]), jobs):
        for note in dict.fromkeys(job.values["notes"]):
            runs.setdefault(note, []).append(label)
    return [
        note if len(named) == len(jobs) else f"{', '.join(named)}: {note}"
        for note, named in runs.items()
    ]


def title(runs: Sequence[Values]) -> str:
    """What was compared, on what."""
    v = runs[0]
    models = ", ".join(dict.fromkeys(run["model"] for run in runs))
    place = v["machine"].get("gpu") or v["machine"]["cpu"]
    images = dict.fromkeys(run["data.shown"] for run in runs if "data.shown" in run)
    weights = ", ".join(dict.fromkeys(Path(run["weights"]).name for run in runs))
    versions = v["versions"]
    return (
        f"{models}, weights {weights}; {', '.join([*images, place])}, kernels {v['fs.isa']}; "
        f"Python {versions['python']}, torch {versions['torch']}, fskernel {versions['fskernel']} "
        f"({versions['commit']}). Times: medians (quartiles). Shares and errors: [95 % intervals]"
    )


def of_ann(v: Values) -> list[Cell]:
    """The row of the dense network."""
    name = "ANN fp32, in the run below"
    top1 = v["accuracy.ann"] if not v["random_weights"] else None
    ends = v["accuracy.ann_interval"]
    empty = [EMPTY] * 2
    return [
        Cell(name, name),
        *empty,
        Cell(share(top1, v["images"], ends), top1, ends),
        *[EMPTY] * 4,
        *pace(v, "ann"),
        Cell("1", 1),
        *empty,
    ]


def of_run(label: str, v: Values) -> list[Cell]:
    """The row of a Few-Spikes network. With random weights no count means anything."""
    passed = v["gate.passed"]
    gate = EMPTY if passed is None else Cell(*["valid" if passed else "not valid"] * 2)
    show = counted(v)
    if v["random_weights"]:
        found = [EMPTY] * 6
    else:
        found = [
            gate,
            answer(v, "fs"),
            answer(v, "agreement"),
            with_ends(v, "accuracy.logit_error", two_digits),
            Cell(show(v["fs.spikes_per_image"]), v["fs.spikes_per_image"]),
            Cell(rounded(v["fs.spikes_per_neuron"]), v["fs.spikes_per_neuron"]),
        ]
    ratio = v["ratio.fs_to_ann"]
    return [
        Cell(label, label),
        Cell(str(v["K"]), v["K"]),
        *found,
        *pace(v, "fs"),
        Cell(factor(ratio, "faster", "slower"), ratio),
        *(steps(v[f"fs.{name}_steps"]) for name in ("interval", "latency")),
    ]


def steps(n: int) -> Cell:
    """Time steps."""
    return Cell(count(n, "step"), n)


def answer(v: Values, key: str) -> Cell:
    """A share of right answers, or of the ANN's."""
    value, ends = v[f"accuracy.{key}"], v[f"accuracy.{key}_interval"]
    return Cell(share(value, v["images"], ends), value, ends)


def with_ends(v: Values, key: str, show: Callable[[float], str]) -> Cell:
    """A value of a record with its interval."""
    value, ends = v[key], v[f"{key}_interval"]
    return Cell(interval(value, ends, show), value, ends)


def pace(v: Values, network: str) -> list[Cell]:
    """Milliseconds of an image with their quartiles, and images in a second."""
    speed, (slow, fast) = v[f"{network}.images_per_s"], v[f"{network}.images_per_s_iqr"]
    text = f"{milliseconds(speed)} ({milliseconds(fast)}–{milliseconds(slow)})"
    return [
        Cell(text, 1000 / speed, [1000 / fast, 1000 / slow]),
        Cell(rounded(speed), speed),
    ]


def counted(v: Values) -> Callable[[float | None], str]:
    """How a mean count over the images is shown: that of a few photographs has three digits."""
    return rounded if v["data.kind"] == "samples" else number
