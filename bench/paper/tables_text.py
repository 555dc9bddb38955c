"""What bench/tables.py writes, as Markdown, made from records and curves alone."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable

from bench.output.markdown import accuracy, share
from bench.output.markdown import table as table_of
from bench.output.tables.numbers import number
from bench.paper import rate_curve
from bench.paper.published import (
    PAPER,
    SETTINGS,
    SPIKES_CLAIM,
    THROUGHPUT_CLAIMS,
    TITLES,
    is_cifar,
)
from bench.paper.rate_curve import Curve
from fskernel.models import shipped

NAMES = {"default": "our default", "paper": "the paper's setting"}
WIDTH = 116  # of a line of prose
SHOWN_T = (8, 16, 32, 64, 128, 256, 512, 550, 1000, 2000)
COLUMNS = (
    "network",
    "run as",
    "neurons",
    "top-1",
    "spikes/image",
    "spikes/neuron",
    "latency, steps",
    "interval, steps",
)


def table(records: dict[str, dict[str, dict]]) -> list[str]:
    """Rows for every network: the ANN, the FS networks, the paper.

    Args:
        records: the records' values by network and setting.
    """
    rows = (row for name, settings in records.items() for row in network_rows(name, settings))
    return table_of(COLUMNS, rows)


def network_rows(name: str, settings: dict[str, dict]) -> list[list[str]]:
    """The rows of one network; its name and neurons stand in the first."""
    rows: list[list[str]] = []
    anns: set[float] = set()
    for v in settings.values():
        if v["accuracy.ann"] not in anns:
            pools = ", average-pools" if v["neuron.average_pool"] else ""
            anns.add(v["accuracy.ann"])
            rows.append([f"ANN{pools}, {v['images']:,} images", accuracy(v, "ann"), *["-"] * 4])
    for setting, v in settings.items():
        rows.append(
            [
                f"FS, {NAMES[setting]}",
                accuracy(v, "fs"),
                number(v["fs.spikes_per_image"]),
                f"{v['fs.spikes_per_neuron']:.3f}",
                number(v["fs.latency_steps"]),
                number(v["fs.interval_steps"]),
            ]
        )
    neurons = next(iter(settings.values()))["neurons"]
    paper = PAPER.get(name)
    if paper is not None:
        rows.append(
            [
                "*the paper's own*",
                f"{paper.fs:.2f} % (ANN {paper.ann:.2f} %)",
                number(round(paper.spikes)),
                f"{paper.spikes / paper.neurons:.3f}",
                number(settings["paper"]["fs.latency_steps"]),  # it counts the same way
                number(settings["paper"]["fs.interval_steps"]),
            ]
        )
    heads = [(TITLES[name], number(neurons)), *[("", "")] * (len(rows) - 1)]
    return [[title, r[0], count, *r[1:]] for (title, count), r in zip(heads, rows)]


def described(setting: str, v: dict) -> str:
    """A setting in words."""
    return (
        f"**{NAMES[setting]}**: K={v['K']}, alpha {v['neuron.alpha']}, rounding "
        f'"{v["neuron.rounding"]}", {v["neuron.weight_bits"]}-bit weights'
    )


def curve_rows(curve: Curve) -> list[str]:
    """Accuracy and spikes of rate coding after some numbers of steps."""
    rows = []
    for T in SHOWN_T:
        if T in curve.T:
            spikes = number(round(curve.spikes_per_image(T)))
            rows.append((number(T), share(*curve.accuracy(T)), spikes))
    return table_of(("T", "top-1", "spikes/image"), rows)


def reading(curve: Curve, setting: str) -> str:
    """Where rate coding reaches an FS network on the same images, in a few sentences."""
    rival = curve.rivals[setting]
    mine = rival.spikes / curve.images
    who = (
        f"**FS, {NAMES[setting]} (K={rival.K})**: top-1 {share(rival.right / curve.images)}, "
        f"{mine:,.0f} spikes, a new image every {rival.interval_steps} steps, an answer after "
        f"{rival.latency_steps}."
    )
    T = curve.reached(rival.right)
    if T is None:
        best = share(max(curve.right) / curve.images)
        return f"{who} Rate coding does not reach it within {curve.T[-1]:,} steps (best: {best})."
    theirs = curve.spikes_per_image(T)
    strict, loose = (curve.reached(rival.right, t) for t in (0, 2 * rate_curve.TOLERANCE))
    return (
        f"{who} Rate coding reaches it at T={T:,} ({share(curve.accuracy(T)[0])}) with "
        f"{theirs:,.0f} spikes. That is {T / rival.interval_steps:.1f} times the interval, "
        f"{T / rival.latency_steps:.1f} times the latency and {theirs / mine:.1f} times the "
        f"spikes of the FS network. With a tolerance of 0 points: {from_step(strict)}; of "
        f"{points(2 * rate_curve.TOLERANCE)}: {from_step(loose)}."
    )


def from_step(T: int | None) -> str:
    """Since when an accuracy is reached."""
    return "never" if T is None else f"from T={T:,} on"


def points(part: float) -> str:
    """A difference of shares, in percentage points."""
    value = f"{100 * part:.2g}"
    return f"{value} point{'' if value == '1' else 's'}"


def curve_section(title: str, curve: Curve) -> list[str]:
    """The table of one curve and what it says."""
    return [
        f"#### {title}, {rate_curve.KINDS[curve.thresholds]} thresholds, up to T={curve.T[-1]:,}",
        "",
        f"On the first {curve.images} of the test images above, where the ANN's top-1 is "
        f"{share(curve.ann_right / curve.images)}; one image is {points(1 / curve.images)}.",
        "",
        *curve_rows(curve),
        "",
        *(f"* {reading(curve, setting)}" for setting in SETTINGS),
        "",
    ]


def section(
    records: dict[str, dict[str, dict]],
    curves: dict[str, list[Curve]],
    missing: dict[str, str],
    command: str,
    plot: str | None,
) -> str:
    """All of it as Markdown."""
    runs = [v for settings in records.values() for v in settings.values()]
    last = max(runs, key=lambda v: v["date"])
    asked = [described(name, s[name]) for name in SETTINGS for s in records.values()]
    lines = [
        f"Measured on {last['date']}; processor: {last['machine']['cpu']}. Intervals are 95 % "
        "(Wilson's). The FS network has two settings:",
        "",
        *(f"* {setting}" for setting in dict.fromkeys(asked)),
        "",
        f"```\n{command}\n```",
        "",
        *table(records),
        "",
    ]
    notes = [f"{TITLES[name]} is missing: {reason}." for name, reason in missing.items()]
    if any(map(is_cifar, records)):
        notes += cifar_notes(records)
    for name, settings in records.items():
        found = dict.fromkeys(n for v in settings.values() for n in v["notes"])
        notes += [f"{TITLES[name]}: {note}." for note in found if not is_cifar(name)]
    lines += [*(f"* {note}" for note in notes), ""]
    if curves:
        lines += rate_section(curves, plot)
    lines.append(small_print(last, {v["versions"]["commit"] for v in runs}))
    return "\n".join(wrapped(lines))


def small_print(v: dict, commits: set[str | None]) -> str:
    """What the figures were made with."""
    versions = v["versions"]
    return (
        f"<small>Kernels {v['fs.isa']}; Python {versions['python']}, torch {versions['torch']}, "
        f"fskernel {versions['fskernel']} (commits {', '.join(sorted(map(str, commits)))}).</small>"
    )


def trained_for(epochs: dict[str, int]) -> str:
    """How long networks were trained, by their titles: what most have, then those that differ."""
    usual = Counter(epochs.values()).most_common(1)[0][0]
    apart = [f"{title}: {n}" for title, n in epochs.items() if n != usual]
    return f"{usual} epochs" + (f" ({', '.join(apart)})" if apart else "")


def cifar_notes(records: dict[str, dict[str, dict]]) -> list[str]:
    """What differs from the paper."""
    cards = {name: shipped.card(name) for name in records if is_cifar(name)}
    training = separated(next(iter(cards.values()))["data"]["training"])
    epochs = trained_for({TITLES[name]: card["epochs"] for name, card in cards.items()})
    images = next(v["images"] for name in cards for v in records[name].values())
    calibration = next(v["calibration"] for name in cards for v in records[name].values())
    return [
        f"The CIFAR-10 networks are not the paper's: ours were trained on {training} (the zip "
        f"holds JPEG files, which costs accuracy) for {epochs}, and {images:,} test images are "
        "scored. So compare FS with the ANN, and our spikes with the paper's. "
        "Accuracies that were measured on other images are not comparable.",
        f"Alpha of our default and the range of the image were measured on {calibration} training "
        "images.",
        "The number of neurons equals the paper's: the command stops if it does not.",
    ]


def rate_section(curves: dict[str, list[Curve]], plot: str | None) -> list[str]:
    """The curves of rate coding, and the paper's claims beside what is read off them."""
    lines = [
        "### Rate coding over its time steps",
        "",
        "The same networks, [rate-coded](rate-coding.md) on the kernels of the CPU with 8-bit "
        "weights: their integrate-and-fire neurons are reset by subtraction. Weak thresholds are "
        "the 99.9th percentile of each layer's activations on the same calibration images, strong "
        "ones are balanced channel by channel. "
        f"Their answers are read every {rate_curve.EVERY} steps. Rate coding has reached an "
        "accuracy at the first T from which on it is never more than "
        f"{points(rate_curve.TOLERANCE)} below.",
        "",
    ]
    if plot is not None:
        lines += [f"![Accuracy of rate coding over time steps]({plot})", ""]
    low, high = THROUGHPUT_CLAIMS
    lines += [
        f"The paper claims {low} and {high} times the throughput of rate coding and {SPIKES_CLAIM} "
        "times fewer spikes. It compares with published networks, each of a fixed T. A pipeline of "
        "FS neurons takes a new image every 2K steps and rate coding takes one every T steps, so "
        "the gain in throughput is T/(2K). We measure both codes on the same network and the same "
        "images: once at the T where rate coding has reached the accuracy of the FS network, and "
        "once after all simulated steps. Seconds are those of both programs on this processor, "
        "batch by batch in turn: how much longer rate coding takes for the same images. Neither is "
        "pipelined there. Strong thresholds give every channel a scale of its own; the layers that "
        "add an identity branch then run in torch, which takes a large part of their seconds.",
        "",
        *claims(curves),
        "",
    ]
    for name, found in curves.items():
        for curve in found:
            lines += curve_section(TITLES[name], curve)
    return lines


def claims(curves: dict[str, list[Curve]]) -> list[str]:
    """The ratios of rate coding to FS at equal accuracy and after all steps."""
    ratio = ("throughput", "spikes", "seconds")
    head = ("network", "thresholds", "FS", "equal accuracy: T", *ratio, "all steps: T", *ratio)
    rows = []
    for name, found in curves.items():
        for curve in found:
            for setting in SETTINGS:
                title = f"{TITLES[name]}, {curve.images} images"
                T = curve.reached(curve.rivals[setting].right)
                cells = ["not reached", "-", "-", "-"]
                if T:
                    cells = [number(T), *ratios(curve, setting, T)]
                last = curve.T[-1]
                all_steps = [number(last), *ratios(curve, setting, last)]
                rows.append(
                    [title, rate_curve.KINDS[curve.thresholds], setting, *cells, *all_steps]
                )
    return table_of(head, rows)


def ratios(curve: Curve, setting: str, T: int) -> list[str]:
    """How many times as many time steps, spikes and seconds of an image rate coding takes."""
    rival = curve.rivals[setting]
    spikes = curve.spikes_per_image(T) / (rival.spikes / curve.images)
    seconds = T * curve.step_seconds() / (rival.seconds / curve.images)
    return [f"{T / rival.interval_steps:.1f}x", f"{spikes:.1f}x", f"{seconds:,.0f}x"]


def by_depth(name: str) -> tuple[str, int]:
    """Sorts networks by family and number of layers."""
    family, layers = re.fullmatch(r"(.*?)(\d*)", name).groups()
    return family, int(layers or 0)


def cards_table() -> str:
    """The trained weights that ship, from their cards."""
    rows, data = [], {}
    for name in sorted(shipped.names(), key=by_depth):
        c = shipped.card(name)
        top1, interval = c["top1_percent"] / 100, [end / 100 for end in c["interval_95_percent"]]
        # The number of epochs is said, whatever the command's default is today.
        epochs = "" if "epochs=" in c["command"] else f" epochs={c['epochs']}"
        command = f"`{c['command']}{epochs}`"
        rows.append((name, share(top1, interval), c["epochs"], c["seed"], command))
        data.setdefault((c["data"]["training"], c["data"]["test"]), []).append(name)
    lines = table_of(("network", "top-1", "epochs", "seed", "command"), rows)
    lines.append("")
    for (training, test), names in data.items():
        lines.append(f"* {', '.join(names)}: trained on {training}; scored on {test}.")
    return separated("\n".join(wrapped(lines)))


def separated(text: str) -> str:
    """Numbers of images as they are written elsewhere: 50,000."""
    return re.sub(r"\d+(?= images)", lambda found: f"{int(found[0]):,}", text)


def wrapped(lines: Iterable[str]) -> list[str]:
    """Lines of prose broken where they are long; tables, code, images and headings as they are."""
    return [line if line.startswith(("|", "```", "!", "#")) else broken(line) for line in lines]


def broken(line: str) -> str:
    """A line of prose as several; a number stays with its percent sign."""
    text = textwrap.fill(
        line.replace(" %", "\0%"),
        WIDTH,
        subsequent_indent="  " if line.startswith("* ") else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.replace("\0", " ")
