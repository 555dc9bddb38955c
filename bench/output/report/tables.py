"""The tables of a report that the terminal does not have."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.output.tables.comparison import Cell
from bench.output.tables.numbers import count, number, percent, rounded
from bench.output.tables.runs import words

Values = dict[str, Any]


class Column(NamedTuple):
    """A column of the table of layers: its title, the key of its values, and how they look.

    counted: whether it means something with trained weights only.
    """

    title: str
    key: str
    show: Callable[[Any], str] = str
    counted: bool = False


LAYERS = (
    Column("layer", "layer"),
    Column("K", "K"),
    Column("alpha", "alpha", number),
    Column("bits", "weight_bits"),
    Column("ms", "milliseconds", rounded),
    Column("share", "share", percent),
    Column("neurons", "neurons", number),
    Column("spikes an image", "spikes_per_image", number, True),
    Column("spikes a neuron", "spikes_per_neuron", rounded, True),
    Column("SOPs an image", "sops_per_image", number, True),
    Column("error", "error", rounded, True),
    Column("kind", "kind"),
)


def layers(v: Values) -> tuple[list[str], list[list[Cell]]]:
    """The columns' names, and a row for each layer in execution order."""
    shown = [column for column in LAYERS if not (column.counted and v["random_weights"])]
    total = sum(row["milliseconds"] for row in v["fs.layers"]) or 1.0
    rows = []
    for layer in v["fs.layers"]:
        neurons = layer["neurons"] or None
        row = layer | {
            "share": layer["milliseconds"] / total,
            "neurons": neurons,
            "spikes_per_image": layer["spikes_per_image"] if neurons else None,
            "spikes_per_neuron": layer["spikes_per_image"] / neurons if neurons else None,
            "sops_per_image": layer["sops_per_image"] or None,
        }
        rows.append([cell(column, row[column.key]) for column in shown])
    return [column.title for column in shown], rows


def cell(column: Column, value: Any) -> Cell:
    """One of its cells."""
    return Cell("–" if value is None else column.show(value), value)


def environment(v: Values) -> list[tuple[str, str]]:
    """What a run was measured on and with."""
    machine, versions = v["machine"], v["versions"]
    found = {
        "started": f"{v['started'][:19].replace('T', ' ')} UTC" if "started" in v else None,
        "processor": machine["cpu"],
        "GPU": machine.get("gpu"),
        "cores": f"{machine['cores_usable']} of {machine['cores']} usable",
        "memory": f"{machine['memory_gib']} GiB" if machine["memory_gib"] else None,
        "system": machine["os"],
        "load before the run": ", ".join(f"{load:.2f}" for load in machine["load_average"]),
        "threads": v.get("threads"),
        "kernels": v.get("fs.isa"),
        "commit": versions["commit"],
        "versions": ", ".join(
            f"{name} {version}"
            for name, version in versions.items()
            if version is not None and name != "commit"
        ),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def settings(v: Values) -> list[tuple[str, str]]:
    """What decides a run's figures."""
    found = {
        "network": v["model"],
        "weights": v.get("weights"),
        "images": v.get("data.shown"),
        "calibration": count(v["calibration"], "image") if "calibration" in v else None,
        "batch": v.get("batch"),
        "timed": count(v["rounds"], "round") if "rounds" in v else None,
        "seed": v.get("seed"),
        **{f"neuron.{k}": v.get(f"neuron.{k}") for k in ("K", "alpha", "rounding")},
        **{f"neuron.{k}": v.get(f"neuron.{k}") for k in ("weight_bits", "correct", "bottleneck")},
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def against_previous(v: Values) -> tuple[list[str], list[list[str]]]:
    """This run beside the previous one: the columns' names, and the rows."""
    before = v["previous"]
    rows = []
    for title, key in (
        ("Few Spikes, images/s", "fs.images_per_s"),
        ("dense network, images/s", "ann.images_per_s"),
        ("Few Spikes / dense network", "ratio.fs_to_ann"),
    ):
        rows.append(
            [
                title,
                *(
                    f"{rounded(values[key])} ({'–'.join(map(rounded, values[f'{key}_iqr']))})"
                    for values in (before, v)
                ),
                rounded(v[key] / before[key]),
            ]
        )
    if v["accuracy.fs"] is not None and before["accuracy.fs"] is not None:
        change = 100 * (v["accuracy.fs"] - before["accuracy.fs"])
        shares = [percent(values["accuracy.fs"]) for values in (before, v)]
        rows.append(["top-1 of Few Spikes", *shares, f"{change:+.1f} points"])
    return ["", "then (quartiles)", "now (quartiles)", "now / then"], rows


OWN = ("K=", "hydra.", "experiment=k_sweep", "-m", "--multirun")  # of a command: not for a sweep


def sweep(v: Values) -> str:
    """The command that runs the same with several K."""
    given = words(v["command"] or "python bench/run.py")
    kept = [shlex.quote(word) for word in given if not word.startswith(OWN)]
    return " ".join([*kept, "-m", "K=3,4,5,6,8"])


def assumptions(v: Values) -> tuple[list[str], list[list[str]]]:
    """The numbers that the estimates of energy rest on."""
    rows = [
        [one["what"], f"{one['value']:.3g} {one['unit']}", one["source"]]
        for one in v["energy.constants"].values()
    ]
    return ["", "value", "source"], rows


def emulated(v: Values) -> tuple[list[str], list[list[str]]]:
    """What the emulator did, step by step."""
    rows = [
        [row["layer"], row["kernel"], number(row["values"]), number(row["spikes"])]
        for row in v["fs.emulated"]
    ]
    return ["step", "kernel", "values, all equal", "spikes"], rows
