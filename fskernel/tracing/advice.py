"""Why a module or function has no Few-Spikes form, and what its user can do: one table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Advice(NamedTuple):
    """Reason and cure.

    names: what such modules and functions are called, in lower case without underscores.
    parts: what their names contain.
    """

    names: tuple[str, ...]
    parts: tuple[str, ...]
    reason: str
    cure: str


ADVICE = (
    Advice(
        ("matmul", "bmm", "einsum"),
        ("attention", "attn", "softmax"),
        "attention sums activations that are weighted by other activations, and divides them by "
        "what these sum to; there is no layer for it",
        "Use a convolutional network (ResNet, MobileNet, EfficientNet)",
    ),
    Advice(
        ("exp", "log", "sqrt", "reciprocal", "pow"),
        (),
        "it is not finite everywhere, and a neuron has a number for every sum that there may be",
        "Write what it is part of so that no part is infinite (softplus in place of "
        "log(1 + exp(x))), or register it as one function: fskernel.register_activation",
    ),
    Advice(
        ("var", "std", "varmean", "rsqrt", "norm", "linalgvectornorm"),
        ("layernorm", "groupnorm", "instancenorm", "responsenorm", "rmsnorm"),
        "it divides by statistics of the image at hand, which no fixed weight can stand for",
        "Use batch norm, whose statistics are fixed and fold into the weights, and retrain",
    ),
    Advice(
        ("chunk", "split", "permute", "transpose", "reshape"),
        ("channelshuffle", "pixelshuffle", "pixelunshuffle"),
        "it moves channels or positions of a map elsewhere, which layers of this kind do not",
        "Move the weights of the layers around it instead, or take a network without it "
        "(MobileNetV2 for ShuffleNet)",
    ),
)


def advice(names: Iterable[str]) -> Advice | None:
    """The first entry that fits one of the names, of classes or functions."""
    for name in names:
        plain = name.replace("_", "").lower()
        for entry in ADVICE:
            if plain in entry.names or any(part in plain for part in entry.parts):
                return entry
    return None


def class_names(kind: type) -> list[str]:
    """Names of a class and of those it derives from, which say more about a user's own class."""
    return [k.__name__ for k in kind.__mro__ if k.__name__ not in ("Module", "object")]
