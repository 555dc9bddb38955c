"""The time of every layer inside the network, against the processor's own peak."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from statistics import median

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

import fskernel as fs
from bench.measures.timing import second_call
from bench.output import machine
from bench.output.progress import bar, console
from fskernel.analysis.energy import dense_macs
from fskernel.files import write_text
from fskernel.network.stats import map_sizes

WIDTH = 120  # of the table, in characters


@dataclass
class Row:
    """One kind of layer, timed inside the network, one image.

    Attributes:
        macs: multiply-accumulates of one such layer.
        peak: of its operands, multiply-accumulates a second on registers.
        seconds: of one such layer, for every round.
        torch_seconds: of torch's float32 convolution, the faster memory format; depthwise only.
    """

    layer: str
    shape: str
    kernel: str
    macs: int
    peak: float = 0.0
    count: int = 0
    seconds: list[float] = field(default_factory=list)
    torch_seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Multiply-accumulates a second, in the median round."""
        return self.macs / median(self.seconds)

    @property
    def share(self) -> float | None:
        """Of the peak; None for what is no product."""
        return self.rate / self.peak if self.macs and self.peak else None


def shape_of(step, sizes: dict) -> str:
    """What decides a layer's speed, in words."""
    if step.op != "conv":
        return step.op
    height, width = sizes[step.name]
    parts = []
    for group in step.groups:
        o, i, kh, kw = group.weight.shape
        stride = group.geometry.stride[0]
        kind = " depthwise" if i == 1 and group.geometry.groups == o else ""
        grouped = f" groups {group.geometry.groups}" if group.geometry.groups > 1 else ""
        parts.append(f"{group.in_channels}->{o} {kh}x{kw}/{stride}{kind or grouped}")
    tail = " + residual" if step.r is not None else ""
    return f"{height}x{width} {' + '.join(parts)}{tail}"


def depthwise_calls(step, height: int, width: int) -> list:
    """Torch's convolution like the step's, in both memory formats; [] if it is not depthwise."""
    group = step.groups[0]
    o, i, *kernel = group.weight.shape
    if len(step.groups) > 1 or i > 1 or group.geometry.groups < o:
        return []
    g = group.geometry
    padding = (g.padding[0], g.padding[2])
    conv = nn.Conv2d(o, o, tuple(kernel), g.stride, padding, g.dilation, groups=o)
    calls = []
    for memory in (torch.channels_last, torch.contiguous_format):
        layer = nn.Conv2d(o, o, tuple(kernel), g.stride, padding, g.dilation, groups=o)
        layer.load_state_dict(conv.state_dict())
        layer = layer.to(memory_format=memory)
        x = torch.rand(1, o, height, width).to(memory_format=memory)
        calls.append(torch.inference_mode()(lambda layer=layer, x=x: layer(x)))
    return calls


def measure(net: fs.FSNetwork, x: torch.Tensor, rounds: int) -> list[Row]:
    """All rows, in the order of the network."""
    sizes = map_sizes(net.steps, *x.shape[2:])
    kernels, work = net.plan_kernels(), dense_macs(net, *x.shape[2:])
    work.pop(net.steps[-1].name)  # a readout's products are not what takes its time
    # Measured in every round, like everything: the clock of a core is not constant.
    peaks: dict[str, list[float]] = {"u8s8": [], "s16s16": []}
    rows: dict[str, Row] = {}
    row_of: dict[str, Row] = {}
    rivals: dict[str, list] = {}
    for step in net.steps:
        shape = shape_of(step, sizes)
        if step.op == "readout":
            shape = f"readout {step.weight.shape[1]}->{step.weight.shape[0]}"
        if shape not in rows:
            calls = depthwise_calls(step, *sizes[step.sources[0]]) if step.op == "conv" else []
            if calls:
                rivals[shape] = calls
            rows[shape] = Row(step.name, shape, kernels[step.name], work.get(step.name, 0))
        rows[shape].count += 1
        row_of[step.name] = rows[shape]
    net.layer_seconds(x, 2)
    with bar("timing", rounds) as advance:
        for _ in range(rounds):
            for name, found in peaks.items():
                found.append(fs.ops.peak_macs(name))
            sums = dict.fromkeys(rows, 0.0)
            for name, (_, seconds) in net.layer_seconds(x, 2).items():  # the second: warm caches
                sums[row_of[name].shape] += seconds
            for shape, total in sums.items():
                rows[shape].seconds.append(total / rows[shape].count)
            for shape, calls in rivals.items():
                rows[shape].torch_seconds.append(min(second_call(call) for call in calls))
            advance(1)
    for row in rows.values():
        row.peak = median(peaks["u8s8" if "u8" in row.kernel else "s16s16"])
    return list(rows.values())


def table_of(rows: list[Row], title: str) -> Table:
    """For the terminal."""
    table = Table(title=title, box=box.SIMPLE)
    depthwise = any(row.torch_seconds for row in rows)
    for name in ("layer", "count", "us", "GMAC/s", "of the peak", "runs as"):
        left = name in ("layer", "runs as")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    if depthwise:
        table.add_column("times as fast as torch fp32", justify="right")
    for row in rows:
        share = row.share
        cells = [
            row.shape,
            str(row.count),
            f"{1e6 * median(row.seconds):.1f}",
            f"{row.rate / 1e9:.0f}" if row.macs else "",
            f"{100 * share:.0f} %" if share else "",
            row.kernel,
        ]
        if depthwise:
            pairs = [t / s for t, s in zip(row.torch_seconds, row.seconds, strict=False)]
            cells.append(f"{median(pairs):.2f}x" if pairs else "")
        table.add_row(*cells)
    return table


def run(args: argparse.Namespace, command: str) -> None:
    """Measures, prints and saves.

    Args:
        args: of bench/layers.py. command: what was typed, for the record.
    """
    import torchvision

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    module = getattr(torchvision.models, args.model)(weights=None).eval()
    x = torch.randn(1, 3, args.size, args.size)
    calibration = torch.randn(2, 3, args.size, args.size)
    net = fs.convert(module, calibration, K=args.K, weight_bits=args.weight_bits)
    rows = measure(net, x, args.rounds)
    total = sum(row.count * median(row.seconds) for row in rows)
    work = sum(row.count * row.macs for row in rows)
    title = f"{args.model}, K={args.K}, {args.weight_bits}-bit weights, {args.threads} thread(s)"
    Console(width=max(WIDTH, console.width)).print(table_of(rows, title))
    peak, facts = max(row.peak for row in rows), machine.measured_by(command)
    console.print(
        f"all layers {1e3 * total:.2f} ms, {work / total / 1e9:.0f} GMAC/s; a core's registers: "
        f"{peak / 1e9:.0f} GMAC/s; {facts['machine']['cpu']}, {facts['isa']}",
        highlight=False,
    )
    found = [asdict(row) | {"share": row.share} for row in rows]
    record = facts | {"rows": found}
    write_text(args.out, json.dumps(record, indent=1))
    console.print(f"saved in {args.out}", highlight=False)
