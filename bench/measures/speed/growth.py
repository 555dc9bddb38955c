"""How time grows along an axis: measured, as a table and as a plot."""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import TYPE_CHECKING

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
from fskernel.analysis import style
from fskernel.analysis.energy import dense_macs
from fskernel.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


@style.styled
def plot(results: dict) -> Figure:
    """Measured time and that of the products alone, one panel an axis."""
    figure = style.new(9.5, 6.0)
    panels = figure.subplots(2, 3).flat
    for panel, (axis, rows) in zip(panels, results["axes"].items()):
        x = [row[axis] for row in rows]
        low, high = zip(*(row["quartiles"] for row in rows))
        panel.fill_between(x, low, high, color=style.BLUE, alpha=0.2, linewidth=0)
        panel.plot(x, [row["ms"] for row in rows], "o-", color=style.BLUE, label="measured")
        panel.plot(
            x,
            [row["products_ms"] for row in rows],
            "--",
            color=style.ORANGE,
            label="the products alone, at the registers' peak",
        )
        panel.set_xlabel("image, pixels a side" if axis == "image" else axis)
        panel.set_ylabel("ms per image")
        panel.set_ylim(0, 1.1 * max(high))
        style.spread_ticks(panel, x)
    for panel in list(panels)[len(results["axes"]) :]:
        panel.remove()
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower left", ncols=2)
    style.head(
        figure,
        "How the time of ResNet50 grows",
        "K=8, 224x224 pixels, batch 1 and one thread where the axis says nothing else.\n"
        f"Median and quartiles; {results['machine']['cpu']}, kernels {results['isa']}",
    )
    return figure


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
        style.save(plot(results), args.plot)
        console.print(f"saved in {args.out} and {args.plot}", highlight=False)
