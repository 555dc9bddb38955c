"""FSConv2d in place of nn.Conv2d + ReLU, call by call: python bench/layers.py --drop-in.

Every distinct convolution of a network is timed by itself, float to float and spikes to spikes,
against torch's float32 convolution with an in-place ReLU, in whichever memory format that is
faster; contiguous floats also against torch on the same. All calls of a layer run one after the
other in every round, and ratios are taken inside a round. The encoder and the decoder are compared
with torch's conversion of the same tensor.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from statistics import median

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fskernel as fs
from bench.errors import UserError
from bench.measures.timing import second_call
from bench.output import machine
from bench.output.progress import bar, console
from fskernel.files import write_text

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
FASTER = ("torch channels_last", "torch contiguous")
# What is compared: our call, and those of torch of which the faster one of a round counts.
PAIRS = {
    "channels_last": ("FS channels_last", FASTER),
    "contiguous": ("FS contiguous", ("torch contiguous",)),
    "spikes": ("FS spikes", FASTER),
    "conversion": ("fskernel", ("torch",)),
}
WIDTH = 120  # of the tables, in characters
MAP = (8, 64, 112, 112)  # of the encoder and the decoder: what ResNet50's stem gives for 8 images
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Call = Callable[[], object]


@dataclass
class Row:
    """One convolution at one batch size, or one conversion.

    Attributes:
        batch: images; None for a conversion.
        seconds: of every call, one number a round.
    """

    name: str
    batch: int | None
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratios(self) -> dict[str, float]:
        """Of what PAIRS compares: torch's time over ours, the median over the rounds."""
        found = {}
        for what, (ours, theirs) in PAIRS.items():
            if ours in self.seconds:
                rivals = map(min, zip(*(self.seconds[name] for name in theirs), strict=True))
                pairs = zip(self.seconds[ours], rivals, strict=True)
                found[what] = median(t / s for s, t in pairs)
        return found


@dataclass(frozen=True)
class Shape:
    """A convolution and the map that it reads: what decides its time."""

    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    height: int
    width: int
    image: bool  # its input is the image, which has a sign

    def __str__(self) -> str:
        kernel = "x".join(map(str, self.kernel))
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        shape = f"{self.channels}->{self.outputs} {kernel}/{self.stride[0]}{groups}"
        return f"{shape} {self.height}x{self.width}"

    def conv(self) -> nn.Conv2d:
        """Torch's layer, with random weights, and the bias that a folded batch norm leaves."""
        options = (self.kernel, self.stride, self.padding, self.dilation, self.groups)
        return nn.Conv2d(self.channels, self.outputs, *options).eval().requires_grad_(False)

    def input(self, batch: int) -> Tensor:
        """An image, or what a ReLU gives: half of it zeros."""
        x = torch.randn(batch, self.channels, self.height, self.width)
        return x if self.image else x.relu_()


def shapes(model: str, size: int) -> list[Shape]:
    """The distinct convolutions of a network of torchvision, in its order."""
    with torch.device("meta"):  # shapes are all that is asked for
        module = getattr(import_module("torchvision.models"), model)(weights=None).eval()
        x = torch.empty(1, 3, size, size)
    found: dict[Shape, None] = {}

    def keep(conv: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        g = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        height, width = inputs[0].shape[2:]
        first = not found
        found[Shape(conv.in_channels, conv.out_channels, *g, height, width, first)] = None

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(keep)
    with torch.no_grad():
        module(x)
    return list(found)


def convolution_calls(shape: Shape, batch: int, K: int, weight_bits: int) -> dict[str, Call]:
    """What is timed of one convolution, by the names of PAIRS."""
    conv, x = shape.conv(), shape.input(batch)
    ranges = {"alpha": float(conv(x).amax()), "input_alpha": float(x.abs().amax())}
    options = {"K": K, "weight_bits": weight_bits, "signed_input": shape.image}
    ours = fs.FSConv2d.from_float(conv, **ranges, **options)
    calls: dict[str, Call] = {}
    for name, memory in FORMATS.items():
        theirs = shape.conv()
        theirs.load_state_dict(conv.state_dict())
        theirs, given = theirs.to(memory_format=memory), x.to(memory_format=memory)
        calls[f"FS {name}"] = lambda given=given: ours(given)
        calls[f"torch {name}"] = lambda given=given, theirs=theirs: torch.relu_(theirs(given))
    if not shape.image:  # an image has a sign, which spikes do not carry
        spikes = fs.encode(x, ours.input_neuron)
        calls["FS spikes"] = lambda: ours(spikes)
    return calls


def conversion_calls(K: int) -> dict[str, Callable[[], dict[str, Call]]]:
    """The encoder for all kinds of floats and memory, and the decoder, each against `.to()`."""
    neuron = fs.FSNeuron(K, 256.0)

    def encoder(dtype: torch.dtype, memory: torch.memory_format) -> dict[str, Call]:
        x = torch.rand(MAP).mul_(255).to(dtype).contiguous(memory_format=memory)
        words = fs.encode(x, neuron).words.dtype
        return {
            "fskernel": lambda: fs.encode(x, neuron),
            # Words lie in channels_last memory, so that is what torch is asked for as well.
            "torch": lambda: x.to(words, memory_format=torch.channels_last),
        }

    def decoder() -> dict[str, Call]:
        spikes = fs.encode(torch.rand(MAP).mul_(255), neuron)
        return {
            "fskernel": lambda: fs.decode(spikes),
            "torch": lambda: spikes.words.to(torch.float32),
        }

    made = {
        f"encode {str(dtype).removeprefix('torch.')} {name}": lambda d=dtype, m=memory: encoder(
            d, m
        )
        for dtype in FLOATS
        for name, memory in FORMATS.items()
    }
    return made | {"decode": decoder}


@torch.inference_mode()
def measure(args: argparse.Namespace) -> list[Row]:
    """All rows: the convolutions batch by batch, then the conversions.

    The calls of a row are timed in a random order in every round, so that none always follows the
    same one. What is made for a row goes before the next one: all of them together would fill a
    small machine.

    Raises:
        UserError: --only leaves nothing.
    """
    rows: list[tuple[Row, Callable[[], dict[str, Call]]]] = []
    for batch in args.batch:
        for s in shapes(args.model, args.size):
            make = partial(convolution_calls, s, batch, args.K, args.weight_bits)
            rows.append((Row(str(s), batch), make))
    rows += [(Row(name, None), make) for name, make in conversion_calls(args.K).items()]
    if args.only:
        rows = [r for r in rows if any(word in r[0].name for word in args.only)]
    if not rows:
        raise UserError(f"--only {' '.join(args.only)}: no row has that in its name")
    dice = random.Random(0)
    with bar("timing", len(rows)) as advance:
        for row, make in rows:
            calls = make()
            row.seconds = {name: [] for name in calls}
            for _ in range(args.rounds):
                for name in dice.sample(list(calls), len(calls)):
                    row.seconds[name].append(second_call(calls[name]))
            advance(1)
    return [row for row, _ in rows]


def summary(rows: list[Row]) -> list[dict]:
    """For every batch and comparison: the geometric mean, the worst row, and how many lose."""
    found = []
    for batch in dict.fromkeys(row.batch for row in rows):
        for what in PAIRS:
            ratios = {
                row.name: row.ratios[what]
                for row in rows
                if row.batch == batch and what in row.ratios
            }
            if not ratios:
                continue
            worst = min(ratios, key=ratios.__getitem__)
            found.append(
                {
                    "batch": batch,
                    "comparison": what,
                    "geometric_mean": math.exp(sum(map(math.log, ratios.values())) / len(ratios)),
                    "worst": ratios[worst],
                    "worst_row": worst,
                    "below_1": sum(r < 1 for r in ratios.values()),
                    "rows": len(ratios),
                }
            )
    return found


def table_of(rows: list[Row], title: str, head: dict[str, str], batches: bool) -> Table:
    """Milliseconds of every call, and the ratios.

    Args:
        head: the columns' heads by the names of calls and, after them, of comparisons.
        batches: whether there is a column for the batch.
    """
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("\nlayer" if batches else "\nconversion", no_wrap=True)
    for name in (["\nbatch"] if batches else []) + list(head.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [str(row.batch)] if batches else []
        for key in head:
            if key in PAIRS:
                cells.append(f"{row.ratios[key]:.2f}x" if key in row.ratios else "-")
            else:
                times = row.seconds.get(key)
                cells.append(f"{1e3 * median(times):.3f}" if times else "-")
        table.add_row(row.name, *cells)
    return table


def summary_table(found: list[dict]) -> Table:
    """The last table: what all rows come to."""
    table = Table(title="times as fast as torch", box=box.SIMPLE)
    table.add_column("batch", justify="right")
    table.add_column("comparison")
    for name in ("geometric mean", "worst", "rows below 1.0"):
        table.add_column(name, justify="right")
    table.add_column("worst row", no_wrap=True)
    for part in found:
        table.add_row(
            "" if part["batch"] is None else str(part["batch"]),
            part["comparison"],
            f"{part['geometric_mean']:.2f}x",
            f"{part['worst']:.2f}x",
            f"{part['below_1']} of {part['rows']}",
            part["worst_row"],
        )
    return table


CONVOLUTIONS = {
    "FS channels_last": "FS ms\nch. last",
    "FS contiguous": "FS ms\ncontig.",
    "FS spikes": "FS ms\nspikes",
    "torch channels_last": "torch ms\nch. last",
    "torch contiguous": "torch ms\ncontig.",
    "channels_last": "torch/FS\nch. last",
    "contiguous": "torch/FS\ncontig.",
    "spikes": "torch/FS\nspikes",
}
CONVERSIONS = {
    "fskernel": "fskernel\nms",
    "torch": "torch .to()\nms",
    "conversion": "torch/\nfskernel",
}


def run(args: argparse.Namespace, command: str) -> None:
    """Measures, prints and saves.

    Args:
        args: of bench/layers.py. command: what was typed, for the record.
    """
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    facts = machine.measured_by(command)
    versions = facts["versions"]
    rows = measure(args)
    found = summary(rows)
    layers, conversions = ([r for r in rows if (r.batch is None) == c] for c in (False, True))
    wide = Console(width=max(WIDTH, console.width))
    if layers:
        title = (
            f"FSConv2d against torch's convolution and ReLU: {args.model} {args.size}x{args.size}, "
            f"K={args.K}, {args.weight_bits}-bit weights, {args.threads} thread(s)"
        )
        wide.print(table_of(layers, title, CONVOLUTIONS, True))
    if conversions:
        title = f"{'x'.join(map(str, MAP))} values, K={args.K}"
        wide.print(table_of(conversions, title, CONVERSIONS, False))
    wide.print(summary_table(found))
    console.print(
        f"{facts['machine']['cpu']}, {facts['isa']}; Python {versions['python']}, torch "
        f"{versions['torch']}, fskernel {versions['fskernel']} ({versions['commit']}); medians of "
        f"{args.rounds} rounds",
        highlight=False,
        soft_wrap=True,
    )
    given = [asdict(row) | {"ratios": row.ratios} for row in rows]
    record = facts | {"rows": given, "summary": found}
    write_text(args.out, json.dumps(record, indent=1))
    console.print(f"saved in {args.out}", highlight=False)
