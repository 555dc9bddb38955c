"""A time step of every layer of the rate-coded network, paired with an image of the FS network."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median

import torch
from rich import box
from rich.table import Table
from torch import Tensor

import fskernel as fs
from bench.measures.stats import quantile
from bench.output import machine
from bench.output.progress import bar, console
from fskernel.files import write_text
from fskernel.graph import Layer
from fskernel.kernels import trains
from fskernel.rate.trains import KernelRateNetwork
from fskernel.tracing.trace import trace

STEPS = trains.MOST_STEPS
WAYS = ("dense", "events", "auto")


@dataclass
class Row:
    """A layer at one density: seconds of a time step in every round, by the way of its sums.

    A layer that has no sums of spikes has the same seconds three times.
    """

    layer: str
    density: float
    seconds: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    chosen: str = ""


def drawn(shape: tuple[int, ...], density: float, dice: torch.Generator) -> Tensor:
    """Spike trains [N, H, W, C] for a shape [N, C, H, W]: each neuron spikes with that chance."""
    n, c, h, w = shape
    steps = [torch.rand(n, h, w, c, generator=dice) < density for _ in range(STEPS)]
    return trains.of_steps([z.to(torch.uint8) for z in steps])


class Steps:
    """The layers of a rate-coded network as calls of eight time steps on drawn spikes."""

    def __init__(self, net: KernelRateNetwork, shapes: dict[str, tuple[int, ...]], density: float):
        self.net, self.shapes, self.density = net, shapes, density
        self.dice = torch.Generator().manual_seed(0)
        self.drawn: dict[str, Tensor] = {}
        self.calls: dict[str, Callable[[str], object]] = {}
        for layer in net.graph.layers:
            if call := self.call_of(layer):
                self.calls[layer.name] = call

    def spikes(self, name: str) -> Tensor:
        """What a layer emits; drawn once, because several may read it."""
        if name not in self.drawn:
            self.drawn[name] = drawn(self.shapes[name], self.density, self.dice)
        return self.drawn[name]

    def call_of(self, layer: Layer) -> Callable[[str], object] | None:
        """The layer's eight steps, by a path; None for what takes no time of its own."""
        if layer.kind == "neuron":
            n, c, h, w = self.shapes[layer.name]
            v = torch.rand(n, h, w, c, generator=self.dice)
            fused = self.net.fused.get(layer.name)
            if fused is None:
                current = torch.rand(n, h, w, c, generator=self.dice)
                return lambda _: trains.integrate_current(current, v, steps=STEPS)
            pairs = zip(layer.groups, fused.groups, strict=True)
            groups = [(self.spikes(g.source), s) for g, s in pairs]
            residual = layer.residual and (self.spikes(layer.residual), fused.r)
            rows = trains.pack_rows(fused.groups)
            return lambda path: trains.integrate_and_fire(
                groups, fused.bias, v, steps=STEPS, rows=rows, residual=residual or None, path=path
            )
        if layer.kind == "max_pool":
            x = self.spikes(layer.source)
            totals = torch.zeros_like(x, dtype=torch.int32)
            return lambda _: trains.gate_pool(x, totals, layer.geometry, steps=STEPS)
        if layer.kind == "readout":
            x = self.spikes(layer.groups[0].source)

            return lambda _: self.net.read_steps(layer, x, STEPS)
        return None


def measure(model: torch.nn.Module, args: argparse.Namespace) -> tuple[list[float], list[Row]]:
    """Seconds of FS images, as many in every round as there are densities, and all rows."""
    x = torch.randn(1, 3, args.size, args.size, generator=torch.Generator().manual_seed(0))
    net = fs.convert(model, x, K=args.K, weight_bits=args.weight_bits)
    graph = trace(model, tuple(x.shape), compared=False)
    rated = KernelRateNetwork(graph, x, weight_bits=args.weight_bits)
    shapes: dict[str, tuple[int, ...]] = {}
    rated.graph.forward(x, observe=lambda layer, y: shapes.update({layer.name: tuple(y.shape)}))
    steps = [Steps(rated, shapes, density) for density in args.rate]
    rows = {(s.density, name): Row(name, s.density) for s in steps for name in s.calls}
    images: list[float] = []
    net(x)
    with bar("timing", args.rounds) as advance:
        for _ in range(args.rounds):
            for s in steps:
                images.append(timed(lambda: net(x)))
                for name, call in s.calls.items():
                    row = rows[s.density, name]
                    has_paths = name in rated.fused
                    for way in WAYS if has_paths else ("auto",):
                        row.seconds[way].append(timed(lambda c=call, w=way: c(w)) / STEPS)
                    row.chosen = fs.ops.last_kernel() if has_paths else ""
                    for way in WAYS if not has_paths else ():
                        if way != "auto":
                            row.seconds[way].append(row.seconds["auto"][-1])
            advance(1)
    return images, list(rows.values())


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratios(images: list[float], rows: list[Row], density: float, way: str) -> list[float]:
    """Of every round: seconds of a whole step over those of an FS image."""
    mine = [row.seconds[way] for row in rows if row.density == density]
    rounds = len(mine[0])
    densities = len(images) // rounds
    paired = [median(images[i * densities : (i + 1) * densities]) for i in range(rounds)]
    return [sum(s[i] for s in mine) / paired[i] for i in range(rounds)]


def run(args: argparse.Namespace, command: str) -> None:
    """Measures, prints, saves."""
    import torchvision

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = getattr(torchvision.models, args.model)(weights=None).eval()
    images, rows = measure(model, args)
    cpu = machine.machine("cpu")["cpu"]
    title = f"a time step of rate-coded {args.model} in FS images of K={args.K}: {cpu}"
    table = Table(title=title, box=box.SIMPLE)
    for name in ("inputs that spike", *WAYS, "layers by events"):
        table.add_column(name, justify="right")
    for density in args.rate:
        cells = []
        for way in WAYS:
            found = ratios(images, rows, density, way)
            low, high = quantile(found, 0.25), quantile(found, 0.75)
            cells.append(f"{median(found):.2f} ({low:.2f}-{high:.2f})")
        mine = [row for row in rows if row.density == density and row.chosen]
        by_events = sum("events" in row.chosen for row in mine)
        table.add_row(f"{100 * density:g} %", *cells, f"{by_events} of {len(mine)}")
    console.print(table)
    console.print(f"an FS image: {1e3 * median(images):.1f} ms; medians of {args.rounds} rounds")
    record = machine.measured_by(command) | {
        "fs_seconds": images,
        "rows": [asdict(row) for row in rows],
        "ratios": {str(d): {way: ratios(images, rows, d, way) for way in WAYS} for d in args.rate},
    }
    write_text(args.out, json.dumps(record, indent=1) + "\n")
    console.print(f"saved in {args.out}", highlight=False)
