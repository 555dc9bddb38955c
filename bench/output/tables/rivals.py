"""The tables of experiment=rivals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.output.tables.comparison import EMPTY, Cell, Column, Comparison
from bench.output.tables.fitting import Fitting
from bench.output.tables.numbers import count, factor, number, rounded, share, spread
from bench.output.tables.runs import Job, labels, notes

Values = dict[str, Any]
MIB = 2**20


def comparison(jobs: Sequence[Job]) -> Comparison:
    """A row for each rival of each job; several jobs are told apart by a first column."""
    references = {job.values.get("reference") for job in jobs}
    reference = references.pop() if len(references) == 1 else "FS of the run's K"
    columns = [
        Column("rival", ""),
        Column("ms", "ms\nan image"),
        Column("images_per_s", "images/s"),
        Column("reference_to_it", f"{reference}\nis"),
        Column("memory_mib", "memory,\nMiB"),
        Column("top1", "top-1"),
        Column("gate", "gate"),
        Column("agreement", "same answer\nas the ANN"),
        Column("spikes_per_image", "spikes\nan image"),
        Column("rounds", "rounds"),
        Column("remark", "remark"),
    ]
    rows = []
    several = len(jobs) > 1
    for label, job in zip(labels([job.name for job in jobs]), jobs):
        for row in job.values.get("rivals", ()):
            name = f"{label}: {row['name']}" if several else row["name"]
            rows.append([Cell(name, name), *cells(row, job.values)])
    faults = {
        f"{row['name']}: {row['reason']}": None
        for job in jobs
        for row in job.values.get("rivals", ())
        if row["reason"] and row["reason"].startswith("failed")
    }
    return Comparison(title([job.values for job in jobs]), columns, rows, [*faults, *notes(jobs)])


def title(runs: Sequence[Values]) -> str:
    """What was compared, on what."""
    v = runs[0]
    models = ", ".join(dict.fromkeys(run["model"] for run in runs))
    height, width = v["input"]
    place = v["machine"].get("gpu") or f"{count(v['threads'], 'thread')} of {v['machine']['cpu']}"
    shown = f"; {v['data.shown']}" if "data.shown" in v else ""
    batch = "" if len(runs) > 1 else f", batch {v['batch']}"
    return (
        f"{models}, weights {Path(v['weights']).name}, {height}x{width}{batch}, {place}, kernels "
        f"{v['fs.isa']}, torch {v['versions']['torch']}{shown}. In one process, in a new random "
        "order every round; medians (quartiles); ratios are taken within a round [95 % interval]"
    )


def cells(row: Values, v: Values) -> list[Cell]:
    """What is known of a rival."""
    if row["reason"]:
        cure = row["reason"].partition(": ")[2]  # it has room where the whole sentence has not
        short = "failed, see below" if row["reason"].startswith("failed") else cure
        return [*[EMPTY] * 9, Cell(short, row["reason"])]
    timed = "ms" in row
    memory = row["memory_bytes"]
    seen = row.get("images", 0)
    top1, same = row.get("accuracy"), row.get("agreement")
    gate = {True: "valid", False: "not valid", None: None}[row.get("gate_passed")]
    spikes = row.get("spikes_per_image")
    fewer = f"{seen} images" if seen and seen < v.get("images", 0) else None
    remark = "; ".join(filter(None, [row["per"] and f"timed: {row['per']}", fewer]))
    show = rounded if v["data.kind"] == "samples" else number
    return [
        Cell(spread(row["ms"], row["ms_quartiles"]), row["ms"], row["ms_quartiles"])
        if timed
        else EMPTY,
        Cell(rounded(1000 / row["ms"]), 1000 / row["ms"]) if timed else EMPTY,
        ratio(row) if "ratio" in row else Cell("1", 1) if row["name"] == v["reference"] else EMPTY,
        EMPTY if memory is None else Cell(rounded(memory / MIB), memory / MIB),
        Cell(share(top1, seen, row.get("accuracy_interval")), top1, row.get("accuracy_interval")),
        EMPTY if gate is None else Cell(gate, gate),
        Cell(share(same, seen, row.get("agreement_interval")), same, row.get("agreement_interval")),
        EMPTY if spikes is None else Cell(show(spikes), spikes),
        Cell(str(row["rounds"]), row["rounds"]) if timed else EMPTY,
        Cell(remark or "-", remark or None),
    ]


def ratio(row: Values) -> Cell:
    """How many times as fast as this rival the reference is; CSV has the number."""
    times, how, _, ends = in_words(row)
    return Cell(f"{times} {how}{ends}", row["ratio"], row["ratio_interval"])


def sentence(row: Values) -> str:
    """The same with the rival's name: 3.1x faster than torch [2.9, 3.2]."""
    times, how, conjunction, ends = in_words(row)
    return f"{times} {how} {conjunction} {row['name']}{ends}"


def in_words(row: Values) -> tuple[str, str, str, str]:
    """How fast the reference is beside a rival: ("3.1x", "faster", "than", " [2.9, 3.2]")."""
    middle, ends = row["ratio"], row["ratio_interval"]
    times, how = factor(middle, "faster", "slower").split()
    if not ends:
        return times, how, "than", ""
    if ends[0] <= 1 <= ends[1]:  # nobody knows who is faster
        times, how, shown, digits = f"{rounded(middle)}x", "as fast", ends, 3
    else:
        shown = sorted(ends if middle >= 1 else [1 / end for end in ends])
        digits = 3 if shown[0] < 2 else 2
    between = ", ".join(rounded(end, digits) for end in shown)
    return times, how, "as" if how == "as fast" else "than", f" [{between}]"


def goals(v: Values) -> Iterator[Fitting]:
    """Goals, and what was reached; nothing where none is judged."""
    found = [row for row in v.get("goals", ()) if row["met"] is not None]
    if found:
        rows = [
            [
                row["goal"],
                f"{row['wanted']:.2f}x",
                f"{row['ratio']:.2f}x ({'–'.join(f'{q:.2f}' for q in row['quartiles'])})",
                "met" if row["met"] else "MISSED",
            ]
            for row in found
        ]
        yield Fitting("goals", ["", "wanted", "reached (quartiles)", ""], rows)
