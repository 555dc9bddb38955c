"""Markdown: the jobs of a series as a table, one row a job, and text between marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from bench.errors import UserError
from bench.output.terminal import number, percent
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


def table(jobs: list[tuple[str, dict]], command: str) -> str:
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
        line(COLUMNS),
        line("---" for _ in COLUMNS),
    ]
    shown: set = set()
    for name, v in jobs:
        # The ANN stands once, above the jobs that show it the same pictures.
        ann = (v["model"], v["images"], v["accuracy.ann"])
        if ann not in shown:
            title = f"ANN fp32, {v['images']} pictures"
            lines.append(line([title, share(v, "ann"), *[""] * (len(COLUMNS) - 2)]))
            shown.add(ann)
        lines.append(
            line(
                [
                    f"`{name}`",
                    share(v, "fs"),
                    share(v, "agreement"),
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
        )
    notes = dict.fromkeys(note for _, v in jobs for note in v["notes"])
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def line(cells: Iterable[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(cells)} |"


def share(v: dict, key: str) -> str:
    """One of a record's accuracies in percent, with its interval."""
    return with_interval(v[f"accuracy.{key}"], v[f"accuracy.{key}_interval"], percent)


def with_interval(value: float | None, interval: list[float] | None, show: Callable) -> str:
    """A value, and its interval in brackets where there is one."""
    if value is None or interval is None:
        return "-" if value is None else show(value)
    return f"{show(value)} [{show(interval[0])}, {show(interval[1])}]"


def put(path: Path, name: str, text: str) -> None:
    """Replaces what stands between the comments `NAME: begin` and `NAME: end` of a document.

    Raises:
        UserError: the document is missing or has no such pair.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text() if path.is_file() else ""
    before, found, rest = old.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path}: there are no lines {begin} and {end} to write between")
    write_text(path, f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
