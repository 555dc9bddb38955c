"""How time grows along an axis: measured, as a table and as a plot."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

import torch
from rich import box
from rich.table import Table

import fskernel as fs
from bench.measures.speed import axes, race
from bench.measures.speed.axes import NAMES, Setting
from bench.measures.speed.rivals import Rival
from bench.measures.stats import median_iqr
from bench.output import interrupt, machine
from bench.output.cores import usable_cores
from bench.output.progress import console
from fskernel.analysis.energy import dense_macs
from fskernel.files import write_figure, write_text

PEAKS = 15  # measurements of the registers' peak behind every axis


class Networks:
    """Converted networks, each made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], fs.FSNetwork] = {}

    def get(self, s: Setting) -> fs.FSNetwork:
        """The network of a setting."""
        import torchvision

        key = (s.width, s.K)
        if key not in self._made:
            torch.manual_seed(0)
            module = torchvision.models.resnet50(weights=None, width_per_group=s.width)
            self._made[key] = fs.convert(module.eval(), torch.randn(2, 3, 224, 224), K=s.K)
        return self._made[key]


def products(net: fs.FSNetwork, size: int) -> tuple[int, int]:
    """Multiply-accumulates of the convolutions of one image: 8-bit and 16-bit operands."""
    kernels, sums = net.plan_kernels(), [0, 0]
    for name, n in dense_macs(net, size, size).items():
        if name != net.steps[-1].name:
            sums["u8" not in kernels[name]] += n
    return sums[0], sums[1]


def measure(settings: list[Setting], networks: Networks, rounds: int) -> list[list[float]]:
    """Seconds of a call, by setting and finished round."""
    points, calls = [], {}
    for s in settings:
        net, x = networks.get(s), torch.randn(s.batch, 3, s.size, s.size)
        name = str(s)
        calls[name] = lambda net=net, x=x: net(x)
        points.append(Rival(name, build=lambda _, name=name: calls[name], threads=s.threads))
    return list(race.measure(points, calls, rounds, threads=1).values())


def rows_of(axis: str, settings: list[Setting], seconds: list, networks: Networks) -> list[dict]:
    """One row a setting: milliseconds an image, and what the products alone would take."""
    small, wide = (median(fs.ops.peak_macs(n) for _ in range(PEAKS)) for n in ("u8s8", "s16s16"))
    peaks = [small or wide, wide]
    rows = []
    for s, values in zip(settings, seconds, strict=True):
        middle, quartiles = median_iqr([1e3 * v / s.batch for v in values])
        work = products(networks.get(s), s.size)
        least = sum(n / peak for n, peak in zip(work, peaks, strict=True)) / s.threads
        rows.append(
            {
                axis: getattr(s, NAMES.get(axis, axis)),
                "ms": middle,
                "quartiles": quartiles,
                "products_ms": 1e3 * least,
                "share": 1e3 * least / middle,
            }
        )
    return rows


def table_of(axis: str, rows: list[dict]) -> Table:
    """For the terminal."""
    table = Table(box=box.SIMPLE)
    for title in (axis, "ms/image", "quartiles", "products alone", "of the peak"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            str(row[axis]),
            f"{row['ms']:.2f}",
            "–".join(f"{q:.2f}" for q in row["quartiles"]),
            f"{row['products_ms']:.2f}",
            f"{100 * row['share']:.0f} %",
        )
    return table


def plot(results: dict, path: Path) -> None:
    """Measured time and that of the products alone, one panel an axis."""
    from matplotlib.figure import Figure

    axes = results["axes"]
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for panel, (axis, rows) in zip(panels, axes.items(), strict=False):
        x = [row[axis] for row in rows]
        panel.plot(x, [row["ms"] for row in rows], "o-", label="measured")
        panel.plot(x, [row["products_ms"] for row in rows], "--", label="products alone, at peak")
        panel.set_xlabel("image, pixels a side" if axis == "image" else axis)
        panel.set_ylabel("ms an image")
        panel.set_ylim(0, 1.1 * max(row["ms"] for row in rows))
        panel.set_xticks(x)
        panel.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.suptitle(
        f"ResNet50, K = 8, 224x224, batch 1, one thread, unless said: {results['machine']['cpu']}, "
        f"{results['isa']}"
    )
    write_figure(figure, path)


def run(args: argparse.Namespace, command: str) -> None:
    """Measures, prints, saves and draws.

    Args:
        args: of bench/scaling.py. command: what was typed, for the record.
    """
    cores = usable_cores()
    networks = Networks()
    results = machine.measured_by(command) | {"axes": {}}
    for axis in args.axis:
        settings = axes.AXES[axis](cores)
        seconds = measure(settings, networks, args.rounds)
        if not seconds[0]:
            break
        results["axes"][axis] = rows_of(axis, settings, seconds, networks)
        write_text(args.out, json.dumps(results, indent=1))  # after every axis: nothing is lost
        console.print(table_of(axis, results["axes"][axis]))
        if interrupt.came():
            break
    if results["axes"]:
        plot(results, args.plot)
        console.print(f"saved in {args.out} and {args.plot}", highlight=False)
