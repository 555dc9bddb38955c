"""The command `fskernel`: its commands, what each is told, and its exit codes.

The docstrings and helps here are what --help prints. Nothing here loads torch: `work.of` does,
once the arguments have been understood.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import checkout, work
from . import options as o

CODES = (
    "Exit codes: 0, it was done. 1, it could not be done: the network cannot be converted, a file "
    "cannot be read, weights cannot be fetched. 2, what was typed makes no sense. 130, Ctrl-C."
)

app = typer.Typer(
    name="fskernel",
    no_args_is_help=True,
    epilog=CODES,
    pretty_exceptions_enable=False,  # a fault of fskernel is a plain traceback, to be reported
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fskernel {checkout.version()}")
        raise typer.Exit()


@app.callback()
def fskernel(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Turn trained CNNs into networks of Few-Spikes neurons, and run them."""


@app.command(epilog=CODES)
def convert(
    model: o.Model,
    images: o.PerhapsImages = None,
    output: o.Output = None,
    force: o.Force = False,
    weights: o.Weights = "default",
    classes: o.Classes = None,
    trust: o.Trust = False,
    seed: o.Seed = 0,
    count: o.Count = 100,
    size: o.Size = None,
    resize: o.Resize = None,
    mean: o.Mean = None,
    std: o.Std = None,
    interpolation: o.Interpolation = None,
    labels: o.Labels = None,
    K: o.Steps = None,
    alpha: o.Alpha = None,
    rounding: o.Round = None,
    weight_bits: o.Bits = None,
    neuron: o.Preset = None,
    bottleneck: o.Bottle = o.Bottleneck.graded,
    correct: o.Correction = None,
    input_range: o.InputRange = None,
    threads: o.Threads = None,
) -> None:
    """Convert a trained network into a file.

    The file holds the spiking network and how images are made ready for it, so that
    `fskernel run FILE IMAGES` needs nothing else.

    Example: fskernel convert resnet18 --images photographs -K 8 -o resnet18.safetensors
    """
    work.of("convert")(
        network=o.network(model, weights, classes, trust, seed),
        images=images,
        count=count,
        preparing=o.preparing(size, resize, mean, std, interpolation, labels),
        options=o.conversion(
            K, alpha, rounding, weight_bits, neuron, bottleneck, correct, input_range
        ),
        output=output,
        force=force,
        threads=threads,
    )


@app.command(epilog=CODES)
def info(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A network that fskernel convert has written."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Print what a network's file holds, layer by layer.

    Without a file: how this fskernel was built and what it runs on, which belongs into a bug
    report.
    """
    work.of("info")(file=file, as_json=json)


@app.command(epilog=CODES)
def run(
    file: o.NetworkFile,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES...", help="Images, and folders of them with subfolders."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes named of each image.")] = 5,
    count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images taken, at even distances from the list of all. Default: all."
        ),
    ] = None,
    labelled: o.Labelled = False,
    batch: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 16,
    threads: o.Threads = None,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda", help="What computes: cpu, cuda or cuda:1.")
    ] = "cpu",
    json: o.Json = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print a table of comma-separated values.")
    ] = False,
    size: o.Size = None,
    resize: o.Resize = None,
    mean: o.Mean = None,
    std: o.Std = None,
    interpolation: o.Interpolation = None,
    labels: o.Labels = None,
) -> None:
    """Show images to a network: what each is, and the spikes it took.

    An image that cannot be read is named on stderr, the others are shown, and the exit code is 1.

    Example: fskernel run resnet18.safetensors cat.jpg photographs --top 3
    """
    if json and csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    work.of("run")(
        file=file,
        images=images,
        top=top,
        count=count,
        labelled=labelled,
        batch=batch,
        threads=threads,
        device=device,
        form="json" if json else "csv" if csv else "table",
        preparing=o.preparing(size, resize, mean, std, interpolation, labels),
    )


@app.command(epilog=CODES)
def search(
    model: o.Model,
    images: o.Images,
    output: o.Output = None,
    force: o.Force = False,
    budget: Annotated[
        float,
        typer.Option(
            min=0, help="What may be lost: of agreement or top1 a proportion, 0.01 being 1 %."
        ),
    ] = 0.01,
    criterion: Annotated[
        o.Criterion,
        typer.Option(
            help="What it is lost of: agreement with the ANN, top1 (needs --labelled), or the "
            "error of the logits."
        ),
    ] = o.Criterion.agreement,
    min_K: Annotated[int, typer.Option("--min-K", min=1, max=15, help="Smallest K.")] = 3,
    max_K: Annotated[int, typer.Option("--max-K", min=1, max=15, help="Largest K.")] = 10,
    per_layer: Annotated[
        bool, typer.Option("--per-layer/--one-K", help="Lower K of single layers, too.")
    ] = True,
    max_evaluations: Annotated[
        int, typer.Option(min=1, help="Settings that the search per layer may measure.")
    ] = 100,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where measurements are kept, so that the same command goes on after Ctrl-C. "
            "Default: beside the output, .search in place of .safetensors.",
        ),
    ] = None,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Measure images per second.")
    ] = True,
    labelled: o.Labelled = False,
    weights: o.Weights = "default",
    classes: o.Classes = None,
    trust: o.Trust = False,
    seed: o.Seed = 0,
    count: o.Count = 100,
    size: o.Size = None,
    resize: o.Resize = None,
    mean: o.Mean = None,
    std: o.Std = None,
    interpolation: o.Interpolation = None,
    labels: o.Labels = None,
    alpha: o.Alpha = None,
    rounding: o.Round = None,
    weight_bits: o.Bits = None,
    neuron: o.Preset = None,
    bottleneck: o.Bottle = o.Bottleneck.graded,
    correct: o.Correction = None,
    input_range: o.InputRange = None,
    threads: o.Threads = None,
) -> None:
    """Find the smallest K that keeps the network's answers, and write that network.

    The images choose K, so what the table says of it is optimistic: judge the network on others.
    They are kept in memory.

    Example: fskernel search resnet18 --images photographs --budget 0.02 -o resnet18.safetensors
    """
    work.of("search")(
        network=o.network(model, weights, classes, trust, seed),
        images=images,
        count=count,
        labelled=labelled,
        preparing=o.preparing(size, resize, mean, std, interpolation, labels),
        options=o.conversion(
            None, alpha, rounding, weight_bits, neuron, bottleneck, correct, input_range
        ),
        budget=budget,
        criterion=criterion.value,
        K_range=(min_K, max_K),
        per_layer=per_layer,
        max_evaluations=max_evaluations,
        ledger=ledger,
        timing=timing,
        output=output,
        force=force,
        threads=threads,
    )


@app.command(epilog=CODES)
def fidelity(
    model: o.Model,
    images: o.Images,
    on: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images to compare on. Default: the same as --images.",
            rich_help_panel=o.IMAGES,
        ),
    ] = None,
    on_count: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many of them; all are computed at once, in float64.",
            rich_help_panel=o.IMAGES,
        ),
    ] = 16,
    json: o.Json = False,
    weights: o.Weights = "default",
    classes: o.Classes = None,
    trust: o.Trust = False,
    seed: o.Seed = 0,
    count: o.Count = 100,
    size: o.Size = None,
    resize: o.Resize = None,
    mean: o.Mean = None,
    std: o.Std = None,
    interpolation: o.Interpolation = None,
    K: o.Steps = None,
    alpha: o.Alpha = None,
    rounding: o.Round = None,
    weight_bits: o.Bits = None,
    neuron: o.Preset = None,
    bottleneck: o.Bottle = o.Bottleneck.graded,
    correct: o.Correction = None,
    input_range: o.InputRange = None,
    threads: o.Threads = None,
) -> None:
    """Compare a conversion with the paper's own network, in float64 with float weights.

    It needs the float weights, which a converted file no longer has: so it takes the trained
    network and converts it.

    Example: fskernel fidelity resnet18 --images photographs -K 6 --on-count 8
    """
    work.of("fidelity")(
        network=o.network(model, weights, classes, trust, seed),
        images=images,
        count=count,
        on=on,
        on_count=on_count,
        preparing=o.preparing(size, resize, mean, std, interpolation, None),
        options=o.conversion(
            K, alpha, rounding, weight_bits, neuron, bottleneck, correct, input_range
        ),
        as_json=json,
        threads=threads,
    )


@app.command(
    epilog=CODES,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> None:
    """Measure networks: speed, spikes, accuracy, beside the ANN and rate coding.

    This is `python bench/run.py` of fskernel's repository, and takes its arguments:
    fskernel bench model=resnet50 K=10. Its own help is fskernel bench -- --help.
    """
    checkout.become_the_harness(context.args)


def main() -> None:
    """Runs the command with the arguments of this process, and ends the process."""
    sys.path.append("")  # where a user's own package.function is found, behind all else
    app(prog_name="fskernel")
