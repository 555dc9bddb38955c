"""What a run says at its end, made from the record alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bench.output.report.leave import NAME

Values = dict[str, Any]
SLOWEST = 8  # layers shown; the record has all of them
READINGS = 6  # of the curves of rate coding that are shown, each after twice the time
WIDE = 10_000  # columns that no table needs


def number(value: float | None) -> str:
    """Four digits, or a count with separators; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def rounded(value: float | None, digits: int = 3) -> str:
    """So many digits that mean something, with separators and without an exponent."""
    if value is None or not value:
        return "-" if value is None else "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def percent(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{value:.1%}"


def hundredths(value: float) -> str:
    """A share in percent, where the unit stands elsewhere."""
    return f"{100 * value:.1f}"


def two_digits(value: float) -> str:
    """A figure that is not known better."""
    return rounded(value, 2)


def size(count: int | None) -> str:
    """Bytes in binary units."""
    return "-" if count is None else f"{count / 2**20:.2f} MiB"


def factor(ratio: float | None, more: str, less: str) -> str:
    """A ratio in words: "3.1x faster", or with the inverse "860x slower"."""
    if not ratio:
        return "-"
    return f"{rounded(max(ratio, 1 / ratio), 2)}x {more if ratio >= 1 else less}"


def count(n: int, one: str, many: str | None = None) -> str:
    """A number of things in words."""
    return f"{'one' if n == 1 else f'{n:,}'} {one if n == 1 else many or one + 's'}"


class Fitting:
    """A table; where the terminal is too narrow for it, a line for every cell: no digit is cut.

    Args:
        title: what stands above it.
        head: the columns' names; the first column is that of the rows' names.
        rows: as many texts each. A column of nothing but dashes is left out.
    """

    def __init__(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]):
        known = [i for i in range(len(head)) if i == 0 or any(row[i] != "-" for row in rows)]
        self.title = title
        self.head = [head[i] for i in known]
        self.rows = [[row[i] for i in known] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
        for i, name in enumerate(self.head):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        yield Text(self.title, style="bold")
        if Measurement.get(console, options.update(max_width=WIDE), table).maximum <= (
            options.max_width
        ):
            yield table
            yield Text()
            return
        for name, *cells in self.rows:
            yield Text(name or self.head[0])
            for title, cell in zip(self.head[1:], cells, strict=True):
                if cell != "-":
                    yield Text(f"  {' '.join(title.split())}: {cell}")
        yield Text()


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
        ["ANN fp32", *pace(v, "ann"), "1", "-", "-"],
        [
            f"FS, K={v['K']}",
            *pace(v, "fs"),
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


def pace(v: Values, network: str) -> list[str]:
    """Milliseconds of an image with their quartiles, and images in a second."""
    speed, (slow, fast) = v[f"{network}.images_per_s"], v[f"{network}.images_per_s_iqr"]
    return [
        f"{milliseconds(speed)} ({milliseconds(fast)}–{milliseconds(slow)})",
        rounded(speed),
    ]


def milliseconds(speed: float) -> str:
    """Of an image, from images in a second."""
    return rounded(1000 / speed) if speed <= 1000 else f"{1000 / speed:.3f}"


def answers(v: Values) -> Fitting:
    """Right answers and spikes of the networks, on the same images."""
    equal = v["rate.equal_T"]
    head = ["", "ANN fp32", f"FS, K={v['K']}"]
    if v["rate.T"] is not None:
        head.append(f"rate, T={equal or v['rate.T']}{'*' if v['rate.extrapolated_from'] else ''}")

    def within(key: str | None) -> str:
        return "-" if key is None else interval(v[key], v[f"{key}_interval"], hundredths)

    def plain(key: str | None, show: Callable = number) -> str:
        return "-" if key is None else show(v[key])

    rate = "rate.equal" if equal else "accuracy.rate"
    fewer = v["rate.images"] not in (None, v["images"])  # images that rate coding was shown
    spikes = "rate.equal_" if equal else "rate."
    same = None if equal else "accuracy.rate_agreement"
    rows = [
        [
            "top-1, %",
            within("accuracy.ann"),
            within("accuracy.fs"),
            within(None if fewer else rate),
        ],
        ["top-5, %", within("accuracy.ann_top5"), within("accuracy.fs_top5"), "-"],
        [
            "same answer, %",
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
        of = f"of {v['rate.images']}, %"
        top = [within(f"accuracy.rate_{name}") for name in ("ann", "fs")]
        rows.insert(2, [f"top-1 {of}", *top, within(rate)])
        rows.insert(4, [f"same {of}", "-", within("accuracy.rate_fs_agreement"), within(same)])
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
        cells = [f"{hundredths(r['share'])} ({number(r['spikes_per_image'])})" for r in found]
        rows.append([str(T), *cells])
    known = v["accuracy.ann"] is not None
    what = "top-1, % (spikes an image)" if known else "same answer as the ANN, % (spikes an image)"
    title = f"rate coding over its time steps on {count(v['rate.images'], 'image')}: {what}"
    yield Fitting(title, ["T", *(f"{name} thresholds" for name in curves)], rows)


def interval(value: float | None, ends: list[float] | None, show: Callable) -> str:
    """A value, and its interval in brackets where there is one."""
    if value is None or ends is None:
        return "-" if value is None else show(value)
    return f"{show(value)} [{', '.join(map(show, ends))}]"


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
    counted = not v["random_weights"]
    found = [
        [
            row["layer"],
            f"{row['milliseconds']:.2f}",
            f"{row['milliseconds'] / total:.0%}",
            number(row["neurons"]),
            number(row["spikes_per_image"]) if counted else "-",
            ("graded" if row["graded_macs"] else number(row["sops_per_image"])) if counted else "-",
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
        "same answer": percent(v["fidelity.agreement"]),
        "relative logit error": rounded(v["fidelity.logit_error"]),
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
    """Where the record, the report and the figures of a run are, a line each."""
    yield f"results: {path}"
    report = path.with_name(NAME)
    if report.exists():
        yield f"report: {report}"
    if v.get("figures"):
        names = ", ".join(Path(name).name for name in v["figures"])
        yield f"figures: {path.parent / Path(v['figures'][0]).parent}: {names}"
