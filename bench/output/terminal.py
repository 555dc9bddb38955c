"""The table on the terminal, made from the record alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

Values = dict[str, Any]
SLOWEST = 8  # layers shown; the record has all of them


def number(value: float | None) -> str:
    """Four digits, or a count with separators; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def between(values: list[float] | None) -> str:
    """Two quartiles, or the ends of an interval."""
    if values is None:
        return "-"
    return "–".join(f"{v:,.0f}" if v >= 1000 else f"{v:.3g}" for v in values)


def percent(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{value:.1%}"


def percents(values: list[float] | None) -> str:
    """An interval in percent."""
    return "-" if values is None else f"{values[0]:.1%}–{values[1]:.1%}"


def size(count: int | None) -> str:
    """Bytes in binary units."""
    return "-" if count is None else f"{count / 2**20:.2f} MiB"


def render(v: Values) -> Group:
    """The tables and notes of a complete record."""
    parts: list[Any] = [summary(v), slowest(v), energy(v)]
    parts += [Text(f"! {note}", style="yellow") for note in v["notes"]]
    return Group(*parts)


def summary(v: Values) -> Table:
    """One column per network, one row per figure."""
    table = Table(
        title=f"{v['model']}, K={v['K']}, batch {v['batch']}, {v['threads']} thread(s), "
        f"{v['images']} images\nweights: {Path(v['weights']).name}",
        caption=f"{v['machine']['cpu']}; kernels: {v['fs.isa']}; torch {v['versions']['torch']}\n"
        f"ANN and FS: median of {v['rounds']} rounds; rate-coded: one pass",
        box=box.SIMPLE_HEAD,
    )
    networks = ["ANN fp32\ntorch eager", f"FS, K={v['K']}\n"]
    if v["rate.T"] is not None:
        how = "fused kernels" if "rate.kernels" in v else "unoptimised"
        networks.append(f"rate-coded T={v['rate.T']}\n{how}")
    table.add_column("", no_wrap=True)
    for title in networks:
        table.add_column(title, justify="right", no_wrap=True)

    def row(title: str, *cells: str) -> None:
        if any(cell != "-" for cell in cells):
            table.add_row(title, *cells[: len(networks)])

    def of(*keys: str | None, show: Callable[[Any], str] = number) -> list[str]:
        return ["-" if key is None else show(v[key]) for key in keys]

    def mark() -> None:
        if v["rate.extrapolated_from"]:
            row("  extrapolated from", "-", "-", f"{v['rate.extrapolated_from']} steps")

    keys = ["ann.images_per_s", "fs.images_per_s", "rate.images_per_s"]
    row("images/s", *of(*keys))
    row("  quartiles", *of("ann.images_per_s_iqr", "fs.images_per_s_iqr", None, show=between))
    mark()
    row("speed against the ANN", "1", *of("ratio.fs_to_ann", "ratio.rate_to_ann"))
    row("  quartiles", *of(None, "ratio.fs_to_ann_iqr", None, show=between))
    for title, suffix in (("top-1 accuracy", ""), ("top-5 accuracy", "_top5")):
        keys = [
            f"accuracy.ann{suffix}",
            f"accuracy.fs{suffix}",
            None if suffix else "accuracy.rate",
        ]
        row(title, *of(*keys, show=percent))
        row("  95 % interval", *of(*(k and k + "_interval" for k in keys), show=percents))
    keys = [None, "accuracy.agreement", "accuracy.rate_agreement"]
    row("same answer as the ANN", *of(*keys, show=percent))
    row("  95 % interval", *of(*(k and k + "_interval" for k in keys), show=percents))
    if v["rate.images"] not in (None, v["images"]):
        row("  of images", *of("images", "images", "rate.images"))
    row("relative logit error", *of(None, "accuracy.logit_error", None))
    row("  95 % interval", *of(None, "accuracy.logit_error_interval", None, show=between))
    row("spikes/image", *of(None, "fs.spikes_per_image", "rate.spikes_per_image"))
    row("spikes/neuron", *of(None, "fs.spikes_per_neuron", "rate.spikes_per_neuron"))
    mark()
    row("neurons", *of(None, "neurons", "neurons"))
    row("SOPs/image", *of(None, "fs.sops_per_image", None))
    row("MACs/image, graded", *of(None, "fs.graded_macs", None))
    row("latency, time steps", *of(None, "fs.latency_steps", "rate.T"))
    row("interval, time steps", *of(None, "fs.interval_steps", "rate.T"))
    row("weights, as saved", *of("ann.weight_bytes", "fs.weight_bytes", None, show=size))
    keys = ["ann.activation_bytes", "fs.activation_bytes", None]
    row("activations/image", *of(*keys, show=size))
    row("float64, images", *of(None, "fidelity.images", None))
    for key, title in FIDELITY.items():
        row(title, *of(None, key, None))
    return table


FIDELITY = {
    "fidelity.words_changed": "  words that differ",
    "fidelity.spikes_ratio": "  spikes, ratio to it",
    "fidelity.agreement": "  same answer",
    "fidelity.logit_error": "  relative logit error",
    "fidelity.effective_bits": "  effective weight bits",
}


def slowest(v: Values) -> Table:
    """Where the time of the FS network goes."""
    rows = v["fs.layers"]
    total = sum(row["milliseconds"] for row in rows) or 1.0
    top = sorted(rows, key=lambda row: -row["milliseconds"])[:SLOWEST]
    table = Table(
        title=f"FS: the {len(top)} slowest of {len(rows)} layers, one batch", box=box.SIMPLE_HEAD
    )
    for title in ("layer", "ms", "share", "neurons", "spikes/image", "SOPs/image"):
        table.add_column(title, justify="left" if title == "layer" else "right")
    for row in top:
        table.add_row(
            row["layer"],
            f"{row['milliseconds']:.2f}",
            f"{row['milliseconds'] / total:.0%}",
            number(row["neurons"]),
            number(row["spikes_per_image"]),
            number(row["sops_per_image"]),
        )
    return table


def energy(v: Values) -> Table:
    """The estimates of energy side by side."""
    table = Table(
        title="energy of an image in uJ: estimates, not measured",
        caption="constants, sources and what each leaves out: docs/energy.md",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("45 nm, 0.9 V", no_wrap=True)
    for title in ("ANN", "FS", "ANN/FS"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in v["energy.estimates"]:
        ann, fs = (v[f"energy.{one['name']}_{network}_uj"] for network in ("ann", "fs"))
        table.add_row(one["title"], number(ann), number(fs), number(ann / fs if fs else None))
    return table
