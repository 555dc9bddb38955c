"""Whole modules with Few-Spikes layers in place, against the originals."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import fskernel as fs
from bench.measures.stats import median_iqr
from bench.measures.timing import second_call
from bench.output import machine
from bench.output.progress import bar, console
from fskernel.clipping import ClippingWarning
from fskernel.files import write_text

WIDTH = 130  # of the table, in characters
SIDES = {"min_size": 320, "max_size": 640}  # that detectors scale images to


@dataclass
class Row:
    """One model.

    Attributes:
        replaced, layers, neurons: how many layers were replaced, of how many, and with a ReLU.
        error: relative, of the logits or of the detector's heads, on images of its own.
        converted: the same of `fskernel.convert` with the same settings; None for a detector.
        seconds, torch_seconds: of one call with the replaced layers and as it was, per round.
    """

    model: str
    replaced: int
    layers: int
    neurons: int
    error: float
    converted: float | None = None
    seconds: list[float] = field(default_factory=list)
    torch_seconds: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times faster it is, per round."""
        return [t / s for t, s in zip(self.torch_seconds, self.seconds, strict=True)]


def settle(body: nn.Module, calls: int, inputs: Callable[[], Tensor]) -> None:
    """Gives batch norms sane statistics, those of a few inputs; the body is in eval mode then."""
    norms = [part for part in body.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = max(norm.momentum, 0.1)  # the detector's 0.01 would take hundreds
    body.train()
    with torch.no_grad():
        for _ in range(calls):
            body(inputs())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    body.eval()


def classifier(name: str, size: int) -> tuple[nn.Module, Callable[[int], Tensor]]:
    """A network of torchvision, and what makes images for it."""
    from torchvision import models

    def images(n: int) -> Tensor:
        return torch.randn(n, 3, size, size).contiguous(memory_format=torch.channels_last)

    module = getattr(models, name)(weights=None).to(memory_format=torch.channels_last)
    settle(module, 8, lambda: images(8))
    return module, images


def detector(name: str, size: int) -> tuple[nn.Module, Callable[[int], list[Tensor]]]:
    """A detector of torchvision, and what makes lists of images for it."""
    from torchvision.models import detection

    def images(n: int) -> list[Tensor]:
        return [torch.rand(3, size, size * 4 // 3) for _ in range(n)]

    module = getattr(detection, name)(weights=None, weights_backbone=None, **SIDES).eval()
    module = module.to(memory_format=torch.channels_last)
    settle(module.backbone, 8, lambda: module.transform(images(4))[0].tensors)
    return module, images


def heads(module: nn.Module, images: list[Tensor], proposals=None) -> tuple[list[Tensor], list]:
    """What a detector's heads give, one tensor each, and the proposals that the boxes are for.

    With the proposals of another detector the two can be compared: which regions are proposed
    jumps with the least change of a score.
    """
    scaled, _ = module.transform(images)
    features = module.backbone(scaled.tensors)
    found = [torch.cat([t.flatten() for t in ts]) for ts in module.rpn.head([*features.values()])]
    if proposals is None:
        proposals, _ = module.rpn(scaled, features)
    roi = module.roi_heads
    boxes = roi.box_head(roi.box_roi_pool(features, proposals, scaled.image_sizes))
    return [*found, *roi.box_predictor(boxes)], proposals


def error_of(module: nn.Module, new: nn.Module, images: Tensor | list[Tensor]) -> float:
    """Norm of the difference over the norm of the original's logits; of a detector's worst head."""
    with torch.inference_mode():
        if isinstance(images, Tensor):
            theirs, ours = [module(images)], [new(images)]
        else:
            theirs, proposals = heads(module, images)
            ours, _ = heads(new, images, proposals)
    return max(float((a - b).norm() / a.norm()) for a, b in zip(theirs, ours, strict=True))


def measure(name: str, args: argparse.Namespace) -> tuple[Row, fs.ReplaceReport]:
    """Replaces, compares and times one model."""
    from torchvision.models import detection

    torch.manual_seed(0)
    make = detector if hasattr(detection, name) else classifier
    module, images = make(name, args.size)
    calibration = images(8)
    batches = calibration if isinstance(calibration, Tensor) else [calibration]
    new, report = fs.replace(
        module, batches, K=args.K, weight_bits=args.weight_bits, input_K=args.input_K
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClippingWarning)  # a few values, which count as error
        judged = images(4)
        error, converted = error_of(module, new, judged), None
        if isinstance(calibration, Tensor):
            net = fs.convert(module, calibration, args.K, weight_bits=args.weight_bits)
            converted = error_of(module, net, judged)
    neurons = sum(row.relu for row in report.replaced)
    row = Row(name, len(report.replaced), len(report.rows), neurons, error, converted)
    x = images(args.batch)
    calls = [(row.torch_seconds, lambda: module(x)), (row.seconds, lambda: new(x))]
    with torch.inference_mode(), warnings.catch_warnings(), bar(name, args.rounds) as advance:
        warnings.simplefilter("ignore", ClippingWarning)
        for i in range(args.rounds):
            for seconds, call in calls if i % 2 else reversed(calls):
                seconds.append(second_call(call))
            advance(1)
    return row, report


def table_of(rows: list[Row], title: str) -> Table:
    """For the terminal."""
    table = Table(title=title, box=box.SIMPLE)
    names = (
        "replaced",
        "with ReLU",
        "error",
        "of convert",
        "torch ms",
        "ms",
        "times as fast as torch",
        "quartiles",
    )
    table.add_column("model", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        ratio, (low, high) = median_iqr(row.ratios)
        table.add_row(
            row.model,
            f"{row.replaced}/{row.layers}",
            str(row.neurons),
            f"{row.error:.4f}",
            "" if row.converted is None else f"{row.converted:.4f}",
            f"{1e3 * median(row.torch_seconds):.1f}",
            f"{1e3 * median(row.seconds):.1f}",
            f"{ratio:.2f}x",
            f"{low:.2f}-{high:.2f}",
        )
    return table


def run(args: argparse.Namespace, command: str) -> None:
    """Measures, prints and saves.

    Args:
        args: of bench/replace.py. command: what was typed, for the record.
    """
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.models:
        row, report = measure(name, args)
        rows.append(row)
        if args.verbose:
            console.print(str(report), highlight=False, soft_wrap=True)
    title = f"K={args.K}, batch {args.batch}, {args.threads} thread(s), {fs.ops.current_isa()}"
    Console(width=max(WIDTH, console.width)).print(table_of(rows, title))
    found = [asdict(row) | {"speedup": median(row.ratios)} for row in rows]
    record = machine.measured_by(command) | {"rows": found}
    write_text(args.out, json.dumps(record, indent=1))
    console.print(f"saved in {args.out}", highlight=False)
