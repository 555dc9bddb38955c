"""One published network: built, converted, compared with the literal network."""

from __future__ import annotations

import re
import time
import traceback
import warnings
from pathlib import Path

import torch
from torch import nn

import fskernel as fs
from bench.inputs import models
from bench.inputs.published import Published
from bench.measures.conversions import reasons
from bench.measures.networks import check
from fskernel import reference
from fskernel.conversion.builder import Builder
from fskernel.conversion.choices import Choices
from fskernel.graph import Graph
from fskernel.tracing.module.parts import parts_of
from fskernel.tracing.trace import trace

K = 8
IMAGES = 2  # enough for statistics of maps of one pixel
MOST_K = 15
MOST_SECONDS = 60  # that a comparison with the literal network may take
# Images that a network may be compared on, rows and columns: ragged and small ones first.
SIZES = ((33, 40), (65, 52), (64, 64), (96, 96), (128, 128))


def tried(network: Published) -> dict:
    """What became of a network, for its line in the ledger."""
    row = {
        "name": network.name,
        "package": network.package,
        "family": network.family,
        "image": network.image,
        "outputs": list(network.outputs),
    }
    try:
        module = network.build()
    except Exception as error:  # whatever the package's own code raises
        return row | broken(reasons.PACKAGE, error)
    images = torch.randn(IMAGES, 3, network.image, network.image)
    outputs = network.outputs or None
    try:
        # What is refused for its structure needs no statistics, which large images make expensive.
        trace(module, tuple(images.shape), compared=False, outputs=outputs)
        settle(module, network, images)
        return row | converted(module, network, images)
    except fs.ConversionError as error:
        return row | refused(reasons.kind_of(error), error.node, error.reason)
    except Exception as error:  # the row says that this is a fault
        return row | broken(reasons.FAULT, error)


def settle(module: nn.Module, network: Published, images: torch.Tensor) -> None:
    """Batch-norm statistics of random images, in the parts that are converted."""
    with torch.no_grad():
        if not network.outputs:
            models.settle(module, images)
            return
        # The parts are those of a copy: what was measured goes back by name.
        parts = parts_of(module, network.outputs, tuple(images.shape))
        models.settle(parts, images)
        module.load_state_dict(parts.state_dict(), strict=False)


def converted(module: nn.Module, network: Published, images: torch.Tensor) -> dict:
    """The figures of a network that converts."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = fs.convert(module, images, K=K, outputs=network.outputs or None)
    seconds = time.process_time() - start
    lowest, highest = range_of_K(net.graph)
    return {
        "converts": True,
        "neurons": net.neurons,
        "depth": net.depth,
        "without_relu": sum(step.op == "conv" and step.code.K == 0 for step in net.steps),
        "lowest_K": lowest,
        "highest_K": highest,
        "seconds": seconds,
        "compared_on": compared(net, network.image),
    }


def range_of_K(graph: Graph) -> tuple[int, int]:
    """The fewest and the most time steps with which all sums fit.

    Raises:
        ConversionError: they fit with none, or with some between which there are others.
    """
    fits, last = [], None
    for steps in range(1, MOST_K + 1):
        choices = Choices({"default": steps}, "max", "nearest", 8, "graded", None)
        try:
            Builder(graph, choices).check(measured=True)
        except fs.ConversionError as error:
            last = error
        else:
            fits.append(steps)
    if not fits or len(fits) != fits[-1] - fits[0] + 1:
        raise last
    return fits[0], fits[-1]


@torch.no_grad()
def compared(net: fs.FSNetwork, image: int) -> list[int] | None:
    """Rows and columns of the image on which every word equals the literal network's.

    Returns:
        None: one image would take more than a minute, or there is none small enough.

    Raises:
        RuntimeError: naming a layer that differs.
    """
    size = next((s for s in (*SIZES, (image, image)) if takes(net, s)), (image, image))
    x = torch.randn(1, 3, *size)
    start = time.process_time()
    net.graph.answer(x.double())
    # The literal network does this for each time step, and counts spikes besides.
    if (time.process_time() - start) * (K + 4) > MOST_SECONDS:
        return None
    check(net, net, x, reference.literal)
    return list(size)


def takes(net: fs.FSNetwork, size: tuple[int, int]) -> bool:
    """Whether it is for images of this size."""
    try:
        net.sizes.check(torch.empty(1, 3, *size))
    except ValueError:
        return False
    return True


def refused(kind: str, node: str, reason: str) -> dict:
    """The rest of the row of a network that does not convert."""
    return {"converts": False, "kind": kind, "node": node, "reason": reason}


def broken(kind: str, error: Exception) -> dict:
    """The same, of an error that nobody meant: with its place, or for lack of memory."""
    if isinstance(error, MemoryError) or re.search("allocate memory|bad_alloc", str(error)):
        return refused(reasons.MEMORY, "", "it does not fit into the memory")
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    *_, last = traceback.extract_tb(error.__traceback__)
    place = f"{Path(last.filename).name}, line {last.lineno}"
    return refused(kind, "", f"{type(error).__name__}: {text} ({place})")
