"""The jobs of a series as a Markdown table: one row a job."""

from __future__ import annotations

from pathlib import Path

from bench.report import number

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
        _line(COLUMNS),
        _line("---" for _ in COLUMNS),
    ]
    shown: set = set()
    for name, v in jobs:
        # The ANN stands once, above the jobs that show it the same pictures.
        ann = (v["model"], v["images"], v["accuracy.ann"])
        if ann not in shown:
            title = f"ANN fp32, {v['images']} pictures"
            lines.append(_line([title, _share(v, "ann"), *[""] * (len(COLUMNS) - 2)]))
            shown.add(ann)
        lines.append(
            _line(
                [
                    f"`{name}`",
                    _share(v, "fs"),
                    _share(v, "agreement"),
                    _interval(v, "logit_error", lambda x: f"{x:.3f}"),
                    number(v["fs.spikes_per_image"]),
                    f"{v['fs.spikes_per_neuron']:.3f}",
                    number(v["fs.latency_steps"]),
                ]
            )
        )
    notes = dict.fromkeys(note for _, v in jobs for note in v["notes"])
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |"


def _share(v: dict, key: str) -> str:
    return _interval(v, key, lambda x: f"{x:.1%}")


def _interval(v: dict, key: str, show) -> str:
    value, interval = v[f"accuracy.{key}"], v[f"accuracy.{key}_interval"]
    if value is None:
        return "-"
    if interval is None:
        return show(value)
    return f"{show(value)} [{show(interval[0])}, {show(interval[1])}]"
