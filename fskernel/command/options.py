"""Options that several commands have: their types, their help, and how their texts are read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import names


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas, as in 0.485,0.456,0.406."""
    try:
        return tuple(float(part) for part in str(text).split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers, as 0.485,0.456,0.406") from None


def sides(text: str) -> int | tuple[int, int]:
    """Pixels: a number, as 224, or a height and a width, as 224x160."""
    try:
        found = tuple(int(part) for part in str(text).lower().split("x"))
    except ValueError:
        found = ()
    if len(found) not in (1, 2) or min(found) < 1:
        raise typer.BadParameter(f"{text!r} is no size: give pixels, as 224, or HEIGHTxWIDTH")
    return found if len(found) == 2 else found[0]


class Rounding(str, Enum):
    """How membranes become words."""

    nearest = "nearest"
    floor = "floor"


class WeightBits(str, Enum):
    """Of integer weights."""

    eight = "8"
    sixteen = "16"
    auto = "auto"


class Bottleneck(str, Enum):
    """What layers without a ReLU emit."""

    graded = "graded"
    spiking = "spiking"


class Correct(str, Enum):
    """What is done about errors that have come in."""

    bias = "bias"
    least_squares = "least_squares"


class Criterion(str, Enum):
    """What a search keeps."""

    agreement = "agreement"
    top1 = "top1"
    logit_error = "logit_error"


class Neuron(str, Enum):
    """Settings that have a name."""

    paper = "paper"
    fitted = "fitted"


NETWORK, IMAGES, CONVERSION = "The network", "The images", "The conversion"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The trained network: a name of torchvision (resnet18), timm or fskernel's own "
        "(cifar_resnet20); PREFIX:NAME where several have it (timm:resnet18); your own "
        "package.function, found from the current folder; or a file: one of ONNX (.onnx), or of a "
        "pickled module (with --trust).",
        autocompletion=names.complete,
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="default|random|NAME|FILE",
        help="Its weights: the pretrained ones, random ones, those that torchvision calls NAME "
        "(IMAGENET1K_V2), or a state dict in a .safetensors, .pt or .pth file.",
        rich_help_panel=NETWORK,
    ),
]
Classes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of classes it is built with, where your weights have others than the "
        "pretrained ones.",
        rich_help_panel=NETWORK,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load a pickled module, which runs code that is in its file: only files whose author "
        "you know.",
        rich_help_panel=NETWORK,
    ),
]
Seed = Annotated[int, typer.Option(help="Of random weights.", rich_help_panel=NETWORK)]

_IMAGES = typer.Option(
    metavar="DIR",
    help="A folder of images, or one image: those that set the range of every layer. Subfolders "
    "are read, too.",
    rich_help_panel=IMAGES,
)
Images = Annotated[Path, _IMAGES]
PerhapsImages = Annotated[Path | None, _IMAGES]
Count = Annotated[
    int,
    typer.Option(
        min=1,
        help="Images taken, at even distances from the sorted list of all.",
        rich_help_panel=IMAGES,
    ),
]
Labelled = Annotated[
    bool,
    typer.Option(
        "--labelled",
        help="The folder that an image is in is its class: a label of the network, or the class of "
        "that position among the sorted names of folders.",
        rich_help_panel=IMAGES,
    ),
]
Size = Annotated[
    Any,
    typer.Option(
        parser=sides,
        metavar="PIXELS",
        help="What the network reads, 224 or HEIGHTxWIDTH. Default of this and the next four: what "
        "is published with the network.",
        rich_help_panel=IMAGES,
    ),
]
Resize = Annotated[
    Any,
    typer.Option(
        parser=sides,
        metavar="PIXELS",
        help="Pixels of the shorter side before the middle is cut out, or HEIGHTxWIDTH; with "
        "--size alone, the published proportion of the two, or no cut.",
        rich_help_panel=IMAGES,
    ),
]
Mean = Annotated[
    Any,
    typer.Option(
        parser=numbers,
        metavar="R,G,B",
        help="Subtracted from pixels, which are 0 to 1.",
        rich_help_panel=IMAGES,
    ),
]
Std = Annotated[
    Any,
    typer.Option(
        parser=numbers,
        metavar="R,G,B",
        help="What the difference is divided by.",
        rich_help_panel=IMAGES,
    ),
]
Interpolation = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of resizing: bilinear, bicubic, nearest, lanczos, box or hamming.",
        rich_help_panel=IMAGES,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Names of the classes, one a line. Default: those published with the weights.",
        rich_help_panel=IMAGES,
    ),
]

Steps = Annotated[
    int | None,
    typer.Option(
        "-K",
        min=1,
        max=16,
        help="Time steps of every neuron. Default: 8; 10 with --neuron paper, 16 with fitted.",
        rich_help_panel=CONVERSION,
    ),
]
Alpha = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY|NUMBER",
        help="Range of the neurons: max (default), percentile:99.9, mse, logits, or a number for "
        "all of them.",
        rich_help_panel=CONVERSION,
    ),
]
Round = Annotated[
    Rounding | None,
    typer.Option("--rounding", help="Default: nearest.", rich_help_panel=CONVERSION),
]
Bits = Annotated[
    WeightBits | None,
    typer.Option(
        "--weight-bits",
        help="Default: 8. auto gives 16 to the layers that need them.",
        rich_help_panel=CONVERSION,
    ),
]
Preset = Annotated[
    Neuron | None,
    typer.Option(
        "--neuron",
        help="paper: the paper's setting, K=10, alpha=25, floor, 16-bit weights, average pools. "
        "fitted: neurons fitted to activations that are no ReLU, K=16. Other options override it.",
        rich_help_panel=CONVERSION,
    ),
]
Bottle = Annotated[
    Bottleneck,
    typer.Option(
        "--bottleneck", help="What layers without a ReLU emit.", rich_help_panel=CONVERSION
    ),
]
Correction = Annotated[
    Correct | None,
    typer.Option(
        "--correct",
        help="Correct the errors that layers pass on, on the images; no labels are needed.",
        rich_help_panel=CONVERSION,
    ),
]
InputRange = Annotated[
    float | None,
    typer.Option(
        help="Largest magnitude of a normalised pixel. Default: 1.25 times that of the images.",
        rich_help_panel=CONVERSION,
    ),
]

NetworkFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A network that fskernel convert has written.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where the network goes. Default: the model's name, .safetensors, in this folder.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output file if there is one.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to compute with. Default: torch's own number.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; messages go to stderr as ever.")
]


def network(model: str, weights: str, classes: int | None, trust: bool, seed: int) -> dict:
    """What the work is told of the network."""
    return {
        "model": model,
        "weights": weights,
        "classes": classes,
        "trust": trust,
        "seed": seed,
    }


def conversion(
    K: int | None,
    alpha: str | None,
    rounding: Rounding | None,
    weight_bits: WeightBits | None,
    neuron: Neuron | None,
    bottleneck: Bottleneck,
    correct: Correct | None,
    input_range: float | None,
) -> dict:
    """The keyword arguments of `fskernel.convert`: those that were given."""
    try:
        policy: object = None if alpha is None else float(alpha)
    except ValueError:
        policy = alpha
    bits = weight_bits and (weight_bits.value if weight_bits == "auto" else int(weight_bits.value))
    found = {
        "K": K,
        "alpha": policy,
        "rounding": rounding and rounding.value,
        "weight_bits": bits,
        "neuron": neuron and neuron.value,
        "bottleneck": bottleneck.value,
        "correct": correct and correct.value,
        "input_range": input_range,
    }
    return {name: value for name, value in found.items() if value is not None}


def preparing(
    size: Any, resize: Any, mean: Any, std: Any, interpolation: str | None, labels: Path | None
) -> dict:
    """What the work is told of how images are made ready: None where nothing was said."""
    return {
        "size": size,
        "resize": resize,
        "mean": mean,
        "std": std,
        "interpolation": interpolation,
        "labels": labels,
    }
