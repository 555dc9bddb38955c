"""What bench/tables.py writes, as Markdown, made from records and curves alone."""

from __future__ import annotations

from bench.output.markdown import share, with_interval
from bench.output.markdown import table as table_of
from bench.output.terminal import number, percent
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

SHOWN_T = (8, 16, 32, 64, 128, 256, 512, 550, 1000, 2000)
COLUMNS = (
    "network",
    "",
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
            rows.append([f"ANN{pools}, {v['images']:,} images", share(v, "ann"), *["-"] * 4])
    for setting, v in settings.items():
        rows.append(
            [
                f"FS, {described(setting, v)}",
                share(v, "fs"),
                number(v["fs.spikes_per_image"]),
                f"{v['fs.spikes_per_neuron']:.3f}",
                number(v["fs.latency_steps"]),
                number(v["fs.interval_steps"]),
            ]
        )
    neurons = next(iter(settings.values()))["neurons"]
    paper = PAPER.get(name)
    if paper is not None:
        accuracies = [
            f"{net} {value} %"
            for net, value in (("ANN", paper.ann), ("FS", paper.fs))
            if value is not None
        ]
        rows.append(
            [
                "*the paper's own*",
                ", ".join(accuracies) or "not at hand",
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
    title = {"paper": "the paper's setting", "default": "our default"}[setting]
    return (
        f"{title}: K={v['K']}, alpha {v['neuron.alpha']}, {v['neuron.rounding']}, "
        f"{v['neuron.weight_bits']}-bit weights"
    )


def curve_rows(curve: Curve) -> list[str]:
    """Accuracy and spikes of rate coding after some numbers of steps."""
    rows = []
    for T in SHOWN_T:
        if T in curve.T:
            shown = with_interval(*curve.accuracy(T), percent)
            rows.append((T, shown, number(round(curve.spikes_per_image(T)))))
    return table_of(("T", "top-1", "spikes/image"), rows)


def reading(curve: Curve, setting: str) -> str:
    """Where rate coding reaches an FS network on the same images, in a sentence."""
    rival = curve.rivals[setting]
    share_of = percent(rival.right / curve.images)
    mine = rival.spikes / curve.images
    who = (
        f"FS, {setting} (K={rival.K}): {share_of}, {mine:,.0f} spikes, an image every "
        f"{rival.interval_steps} steps, latency {rival.latency_steps}"
    )
    T = curve.reached(rival.right)
    if T is None:
        best = max(curve.right) / curve.images
        return (
            f"{who}. Rate coding does not reach it within {curve.T[-1]} steps (best: "
            f"{percent(best)})."
        )
    theirs = curve.spikes_per_image(T)
    others = ", ".join(
        f"{'never' if found is None else f'T={found}'} within {100 * tolerance:g}"
        for tolerance in (0, 2 * rate_curve.TOLERANCE)
        for found in [curve.reached(rival.right, tolerance)]
    )
    return (
        f"{who}. Rate coding reaches it at T={T} ({percent(curve.accuracy(T)[0])}; {others} "
        f"points) with {theirs:,.0f} spikes: {T / rival.interval_steps:.1f} times the interval, "
        f"{T / rival.latency_steps:.1f} times the latency, {theirs / mine:.1f} times the spikes."
    )


def curve_section(title: str, curve: Curve) -> list[str]:
    """The table of one curve and what it says."""
    ann = percent(curve.ann_right / curve.images)
    return [
        f"{title}, up to T={curve.T[-1]}, the first {curve.images} of the test images above "
        f"(ANN: {ann}; one image is {100 / curve.images:.2g} points):",
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
    last = max((v for s in records.values() for v in s.values()), key=lambda v: v["date"])
    versions = last["versions"]
    commits = {v["versions"]["commit"] for s in records.values() for v in s.values()}
    lines = [
        f"{last['date']}, {last['machine']['cpu']}, kernels {last['fs.isa']}; Python "
        f"{versions['python']}, torch {versions['torch']}, fskernel {versions['fskernel']} "
        f"({', '.join(sorted(map(str, commits)))}). Intervals are 95 % (Wilson).",
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
    return "\n".join(lines)


def cifar_notes(records: dict[str, dict[str, dict]]) -> list[str]:
    """What differs from the paper."""
    cards = {name: shipped.card(name) for name in records if is_cifar(name)}
    training = next(iter(cards.values()))["data"]["training"]
    epochs = ", ".join(sorted({str(c["epochs"]) for c in cards.values()}))
    images = next(v["images"] for name in cards for v in records[name].values())
    calibration = next(v["calibration"] for name in cards for v in records[name].values())
    return [
        f"What differs from the paper for CIFAR-10: the weights were trained on {training} (a zip "
        f"holds JPEG files, which cost accuracy) and shortly, for {epochs} epochs; {images:,} test "
        "images are scored. Compare FS with the ANN, and spikes with the paper's; accuracies on "
        "other images tell nothing.",
        f"Our alpha and the image's range were measured on {calibration} training images.",
        "Where the paper's accuracy is not at hand, its row says so.",
        "Neurons equal the paper's, or the command stops.",
    ]


def rate_section(curves: dict[str, list[Curve]], plot: str | None) -> list[str]:
    """The curves of rate coding, and the paper's claims beside what is read off them."""
    low, high = THROUGHPUT_CLAIMS
    lines = [
        "### Rate coding over its time steps",
        "",
        "`fskernel.RateNetwork`: integrate-and-fire neurons with reset by subtraction, weights "
        "scaled by the 99.9th percentile of each layer's activations on the same calibration "
        f"images, answers read every {rate_curve.EVERY} steps. It has reached an accuracy where "
        f"it is at most {100 * rate_curve.TOLERANCE} points below, there and at all later steps. "
        "Nothing here was timed.",
        "",
    ]
    if plot is not None:
        lines += [f"![Accuracy of rate coding over time steps]({plot})", ""]
    for name, found in curves.items():
        for curve in found:
            lines += curve_section(TITLES[name], curve)
    return [
        *lines,
        f"The paper claims {low} and {high} times the throughput of rate coding and {SPIKES_CLAIM} "
        "times fewer spikes, compared with published networks of a fixed T. A pipeline of FS "
        "neurons takes a new image every 2K steps, rate coding one every T. Measured on the same "
        "network and images, at equal accuracy and after all steps of the simulation:",
        "",
        *claims(curves),
        "",
    ]


def claims(curves: dict[str, list[Curve]]) -> list[str]:
    """The ratios of rate coding to FS at equal accuracy and after all steps."""
    low, high = THROUGHPUT_CLAIMS
    head = (
        "network",
        "FS",
        "T at equal accuracy",
        f"T/(2K), claimed {low} to {high}",
        f"spikes, claimed {SPIKES_CLAIM}",
        "T of all steps",
        "T/(2K)",
        "spikes",
    )
    rows = []
    for name, found in curves.items():
        for curve in found:
            for setting in SETTINGS:
                title = f"{TITLES[name]}, {curve.images} images"
                T = curve.reached(curve.rivals[setting].right)
                cells = [str(T), *ratios(curve, setting, T)] if T else ["not reached", "-", "-"]
                last = curve.T[-1]
                all_steps = [str(last), *ratios(curve, setting, last)]
                rows.append([title, setting, *cells, *all_steps])
    return table_of(head, rows)


def ratios(curve: Curve, setting: str, T: int) -> list[str]:
    """Time steps and spikes of an image, rate coding over FS."""
    rival = curve.rivals[setting]
    spikes = curve.spikes_per_image(T) / (rival.spikes / curve.images)
    return [f"{T / rival.interval_steps:.1f}", f"{spikes:.1f}"]


def cards_table() -> str:
    """The trained weights that ship, from their cards."""
    head = ("network", "top-1", "epochs", "seed", "trained on", "scored on", "command")
    rows = []
    for name in sorted(shipped.names(), key=lambda n: int(n.rpartition("t")[2])):
        c = shipped.card(name)
        low, high = c["interval_95_percent"]
        rows.append(
            (
                name,
                f"{c['top1_percent']:.1f} % [{low:.1f}, {high:.1f}]",
                str(c["epochs"]),
                str(c["seed"]),
                c["data"]["training"],
                c["data"]["test"],
                f"`{c['command']}`",
            )
        )
    return "\n".join(table_of(head, rows))
