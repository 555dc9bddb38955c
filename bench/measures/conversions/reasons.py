"""The kinds of reasons for which networks are refused, to count them by."""

from __future__ import annotations

from fskernel.errors import ConversionError

# What the reasons of fskernel.tracing have in them, by kind; the first that fits.
KINDS = {
    "attention": ("attention sums activations",),
    "functions that are not finite": ("it is not finite everywhere",),
    "statistics of the input": ("statistics of the image", "it normalises"),
    "moves of codes": ("it moves channels or positions", "it stacks maps"),
    "random numbers": ("it gives other logits when it is given the same images again",),
    "does not export": ("torch.export", "branches on, loops over or takes out numbers"),
    "several inputs": ("it is a second input",),
    "pools": ("-pool", "average of", "divisor"),
    "range of sums": ("16-bit", "32-bit", "bound"),
    "no layer of neurons": ("there is no layer of neurons",),
    "no finite numbers": ("it gives NaN or infinite values",),
}
OTHER = "other"
TIME = "time limit"
MEMORY = "memory limit"
PACKAGE = "fault of its package"
FAULT = "fault of fskernel"


def kind_of(error: ConversionError) -> str:
    """The kind of a refusal."""
    for kind, phrases in KINDS.items():
        if any(phrase in error.reason for phrase in phrases):
            return kind
    return OTHER
