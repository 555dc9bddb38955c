"""What a run says at its end, made from the record alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from bench.output.report.leave import NAME
from bench.output.tables.fitting import Fitting
from bench.output.tables.numbers import (
    count,
    factor,
    interval,
    milliseconds,
    number,
    percent,
    rounded,
    share,
    size,
    two_digits,
)
from bench.output.tables.runs import counted, pace

Values = dict[str, Any]
SLOWEST = 8  # layers shown; the record has all of them
READINGS = 6  # of the curves of rate coding that are shown, each after twice the time


def render(v: Values) -> Group:
    """The details of a complete record, then what there is to remember."""
    meaningful = not v["random_weights"]
    parts: list[Any] = [slowest(v), sizes(v)]
    if meaningful:
        parts += [energy(v), *fidelity(v), *over_time(v), answers(v)]
    parts += measured_energy(v)
    parts += [speed(v), *lines(v)]
    return Group(*parts)


def speed(v: Values) -> Fitting:
    """How fast the networks are, in milliseconds and in time steps."""
    rows = [
        ["ANN fp32", *(cell.text for cell in pace(v, "ann")), "1", "-", "-"],
        [
            f"FS, K={v['K']}",
            *(cell.text for cell in pace(v, "fs")),
            factor(v["ratio.fs_to_ann"], "faster", "slower"),
            f"{v['fs.interval_steps']} steps",
            f"{v['fs.latency_steps']} steps",
        ],
    ]
    if v["rate.T"] is not None:
        equal = v["rate.equal_T"]
        T = equal or v["rate.T"]
        speed = v["rate.equal_images_per_s"] if equal else v["rate.images_per_s"]
        rows.append(
            [
                f"rate, T={T}{'*' if v['rate.extrapolated_from'] else ''}",
                milliseconds(speed),
                rounded(speed),
                factor(speed / v["ann.images_per_s"], "faster", "slower"),
                *[f"{T} steps"] * 2,
            ]
        )
    height, width = v["input"]
    where = v["machine"].get("gpu") or f"{count(v['threads'], 'thread')} of {v['machine']['cpu']}"
    title = (
        f"{v['model']}, {height}x{width}, batch {v['batch']}, {where}, kernels {v['fs.isa']}, "
        f"torch {v['versions']['torch']}; {v['data.shown']}; medians of "
        f"{count(v['rounds'], 'round')} (quartiles)"
    )
    head = ["", "ms\nan image", "images/s", "against\nthe ANN", "an image\nevery"]
    return Fitting(title, [*head, "answer\nafter"], rows)


def answers(v: Values) -> Fitting:
    """Right answers and spikes of the networks, on the same images."""
    equal = v["rate.equal_T"]
    head = ["", "ANN fp32", f"FS, K={v['K']}"]
    if v["rate.T"] is not None:
        head.append(f"rate, T={equal or v['rate.T']}{'*' if v['rate.extrapolated_from'] else ''}")

    def within(key: str | None, images: int = v["images"]) -> str:
        return "-" if key is None else share(v[key], images, v[f"{key}_interval"])

    def plain(key: str, show: Callable | None = None) -> str:
        return (show or counted(v))(v[key])

    rate = "rate.equal" if equal else "accuracy.rate"
    fewer = v["rate.images"] not in (None, v["images"])  # images that rate coding was shown
    spikes = "rate.equal_" if equal else "rate."
    same = None if equal else "accuracy.rate_agreement"
    rows = [
        [
            "top-1",
            within("accuracy.ann"),
            within("accuracy.fs"),
            within(None if fewer else rate),
        ],
        ["top-5", within("accuracy.ann_top5"), within("accuracy.fs_top5"), "-"],
        [
            "same answer",
            "-",
            within("accuracy.agreement"),
            within(None if fewer else same),
        ],
        [
            "logit error",
            "-",
            interval(v["accuracy.logit_error"], v["accuracy.logit_error_interval"], two_digits),
            "-",
        ],
        ["spikes an image", "-", plain("fs.spikes_per_image"), plain(f"{spikes}spikes_per_image")],
        [
            "spikes a neuron",
            "-",
            plain("fs.spikes_per_neuron", rounded),
            plain(f"{spikes}spikes_per_neuron", rounded),
        ],
        ["SOPs an image", "-", plain("fs.sops_per_image"), "-"],
    ]
    if fewer and v["accuracy.rate_agreement"] is not None:
        n = v["rate.images"]
        top = [within(f"accuracy.rate_{name}", n) for name in ("ann", "fs")]
        rows.insert(2, [f"top-1, first {n}", *top, within(rate, n)])
        both = [within(key, n) for key in ("accuracy.rate_fs_agreement", same)]
        rows.insert(4, [f"same, first {n}", "-", *both])
    rows = [row[: len(head)] for row in rows if any(cell != "-" for cell in row[1:])]
    found = v["accuracy.agreement_interval"]
    title = f"answers and spikes on {v['data.shown']}" + ("; [95 % interval]" if found else "")
    return Fitting(title, head, rows)


def over_time(v: Values) -> Iterator[Fitting]:
    """Right answers of rate coding after some of its readings, for each kind of thresholds."""
    if not v["rate.further"]:
        return
    curves = {v["rate.normalise"]: v["rate.curve"]}
    curves |= {name: found["curve"] for name, found in v["rate.further"].items()}
    readings = [row["T"] for row in v["rate.curve"]]
    wanted = [readings[-1] / 2**i for i in reversed(range(READINGS))]
    shown = sorted({min(readings, key=lambda T: abs(T - at)) for at in wanted})
    rows = []
    for T in shown:
        found = [curve[readings.index(T)] for curve in curves.values()]
        rows.append([str(T), *(reading(v, r) for r in found)])
    what = "same answer as the ANN" if v["accuracy.ann"] is None else "top-1"
    title = f"rate coding over its time steps: {what} (spikes an image)"
    yield Fitting(title, ["T", *(f"{name} thresholds" for name in curves)], rows)


def reading(v: Values, row: Values) -> str:
    """What rate coding has answered, and how many spikes that took."""
    right = share(row["share"], v["rate.images"], row["share_interval"])
    return f"{right} ({counted(v)(row['spikes_per_image'])})"


def sizes(v: Values) -> Fitting:
    """What the networks consist of."""
    rows = [
        ["weights, as saved", size(v["ann.weight_bytes"]), size(v["fs.weight_bytes"])],
        ["activations of an image", *(size(v[f"{n}.activation_bytes"]) for n in ("ann", "fs"))],
        ["neurons", "-", number(v["neurons"])],
        ["MACs an image, FS: on graded values", number(v["ann.macs"]), number(v["fs.graded_macs"])],
    ]
    return Fitting("size", ["", "ANN fp32", f"FS, K={v['K']}"], rows)


def slowest(v: Values) -> Fitting:
    """Where the time of the FS network goes."""
    rows = sorted(v["fs.layers"], key=lambda row: -row["milliseconds"])
    total = sum(row["milliseconds"] for row in rows) or 1.0
    shown, others = rows[:SLOWEST], rows[SLOWEST:]
    meaningful, show = not v["random_weights"], counted(v)
    found = [
        [
            row["layer"],
            f"{row['milliseconds']:.2f}",
            f"{row['milliseconds'] / total:.0%}",
            number(row["neurons"]),
            show(row["spikes_per_image"]) if meaningful else "-",
            ("graded" if row["graded_macs"] else show(row["sops_per_image"]))
            if meaningful
            else "-",
        ]
        for row in shown
    ]
    if others:
        rest = sum(row["milliseconds"] for row in others)
        title = count(len(others), "other", "others")
        found.append([title, f"{rest:.2f}", f"{rest / total:.0%}", *["-"] * 3])
    head = ["layer", "ms", "share", "neurons", "spikes\nan image", "SOPs\nan image"]
    first = "the layers" if not others else f"the {SLOWEST} slowest of {len(rows)} layers"
    return Fitting(f"FS: {first}, one batch", head, found)


def energy(v: Values) -> Fitting:
    """The estimates of energy side by side."""
    rows = []
    for one in v["energy.estimates"]:
        ann, fs = (v[f"energy.{one['name']}_{network}_uj"] for network in ("ann", "fs"))
        uses = factor(fs / ann if ann else None, "more", "less")
        rows.append([one["title"], number(ann), number(fs), uses])
    title = "energy of an image in uJ at 45 nm: estimates, not measured (docs/energy.md)"
    return Fitting(title, ["compared with", "ANN", "FS", "FS uses"], rows)


def measured_energy(v: Values) -> Iterator[Fitting | Text]:
    """What the machine counted itself, or why it did not."""
    if v["energy.meter"] is None:
        yield Text(f"energy is not measured: {v['energy.not_measured']}")
        yield Text()
        return
    ann, fs = v["energy.measured_ann_j"], v["energy.measured_fs_j"]
    cells = []
    for name in ("ann", "fs"):
        low, high = map(rounded, v[f"energy.measured_{name}_j_iqr"])
        cells.append(f"{rounded(v[f'energy.measured_{name}_j'])} ({low}–{high})")
    uses = factor(fs / ann if ann else None, "more", "less")
    title = f"energy of an image in joules, measured by {v['energy.meter']}, idle power included"
    yield Fitting(
        f"{title} (quartiles)",
        ["", "ANN fp32", f"FS, K={v['K']}", "FS uses"],
        [["measured", *cells, uses]],
    )


def fidelity(v: Values) -> Iterator[Fitting]:
    """How far rounding the weights and exact integers lie from the equations in float64."""
    if v["fidelity.images"] is None:
        return
    shown = {
        "words that differ": percent(v["fidelity.words_changed"]),
        "spikes, of those there": percent(v["fidelity.spikes_ratio"]),
        "same answer": share(v["fidelity.agreement"], v["fidelity.images"]),
        "relative logit error": two_digits(v["fidelity.logit_error"]),
        "effective bits of the weights": rounded(v["fidelity.effective_bits"], 2),
    }
    title = (
        f"against the paper's equations in float64 with float weights, on "
        f"{count(v['fidelity.images'], 'image')}: words differ because weights are rounded"
    )
    yield Fitting(title, ["", "FS"], [list(row) for row in shown.items()])


def lines(v: Values) -> Iterator[Text]:
    """Whether the kernels are exact, and what the reader must know."""
    exact = {
        True: "exact: all words of one image equal the oracle's, bit for bit",
        None: "exact: not compared with the oracle (check=false)",
    }
    yield Text(exact[v["exact"]], style="green" if v["exact"] else "yellow")
    if not v["random_weights"]:
        yield Text(f"weights: {Path(v['weights']).name}")
    for note in v["notes"]:
        yield Text(f"{'*' if 'extrapolated' in note else '!'} {note}", style="yellow")


def files(path: Path, v: Values) -> Iterator[str]:
    """Where the record, the tables, the report and the figures of a run are, a line each."""
    yield f"results: {path}"
    if v.get("tables"):
        first, *others = v["tables"]
        yield ", ".join([f"table: {path.parent / first}", *others])
    report = path.with_name(NAME)
    if report.exists():
        yield f"report: {report}"
    if v.get("figures"):
        names = ", ".join(Path(name).name for name in v["figures"])
        yield f"figures: {path.parent / Path(v['figures'][0]).parent}: {names}"
