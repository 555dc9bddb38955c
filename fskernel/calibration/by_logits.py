"""Alphas chosen by what they do to the logits, also of every channel's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor

from fskernel.calibration.ranges import Range, rounded
from fskernel.calibration.rounded_graph import JUDGED, Unit, resume, singles
from fskernel.calibration.spool import Spool
from fskernel.graph import AVERAGING, PASSING, Graph, Layer

BINS = 1024  # of a channel's histogram, between 0 and its largest activation


def channelwise(graph: Graph) -> set[str]:
    """The layers of neurons whose channels may have alphas of their own.

    The membrane of channel c is scaled by alpha/alpha_c, with the weights before it, and the
    weights behind it by the inverse: the network is the same, its words are finer. An identity
    branch has one multiplier for all channels, so what it connects has one alpha; so have channels
    that become the pixels of one. Where a function is no ReLU, nor is it what it was when its
    argument and its result are scaled.
    """
    tied = shaped(graph)
    for layer in reversed(graph.layers):  # what has no channels of its own hands the tie on
        passes = layer.kind in PASSING + AVERAGING
        shuffles = layer.move is not None and layer.move.kind == "shuffle"
        if layer.residual is not None:
            tied |= {layer.name, layer.residual}
        elif shuffles or (passes and layer.name in tied):
            tied |= set(layer.heard())
    return {layer.name for layer in graph.layers if layer.kind == "neuron"} - tied


def shaped(graph: Graph) -> set[str]:
    """The layers of neurons whose words have a range: no ReLUs, and what shares a step with one."""
    own = {layer.name for layer in graph.layers if layer.activation is not None}
    return {name for name, tied in graph.tied().items() if own & {*tied}}


class Channels:
    """Per layer of ReLU neurons: the largest activation of every channel, and how they spread."""

    def __init__(self, graph: Graph, images: Spool):
        self.largest: dict[str, Tensor] = {}
        self.histogram: dict[str, Tensor] = {}
        ranged = shaped(graph)
        mine = {n.name for n in graph.layers if n.kind == "neuron" and n.name not in ranged}

        def peak(layer: Layer, y: Tensor) -> None:
            if layer.name in mine:
                now = y.amax((0, 2, 3))
                self.largest[layer.name] = torch.maximum(self.largest.get(layer.name, now), now)

        def spread(layer: Layer, y: Tensor) -> None:
            if layer.name in mine:
                largest = self.largest[layer.name].clamp(min=1e-30)
                bins = (y * ((BINS - 1) / largest)[:, None, None]).round_().to(torch.int64)
                bins += torch.arange(0, len(largest) * BINS, BINS)[:, None, None]
                seen = torch.bincount(bins.flatten(), minlength=len(largest) * BINS)
                seen = seen.view(len(largest), BINS)
                self.histogram[layer.name] = self.histogram.get(layer.name, 0) + seen

        for observe in (peak, spread):
            for x in images:
                graph.forward(x, observe=observe)

    def least_error(self, name: str, K: int, rounding: str) -> Tensor:
        """The largest value of every channel's words that rounds its activations best, [C]."""
        histogram = self.histogram[name].double()
        values = torch.linspace(0, 1, BINS, dtype=torch.float64)
        shares = torch.linspace(0.15, 1.0, 35, dtype=torch.float64)
        steps = shares / (2.0**K - 1)
        errors = torch.stack(
            [histogram @ (rounded(values, s, K, rounding) - values) ** 2 for s in steps]
        )
        return (shares[errors.argmin(0)] * self.largest[name].double()).float()


def candidates(
    layer: Layer, seen: Channels, unit: Unit, channels: bool, mse: float
) -> dict[str, Tensor]:
    """Alphas [C] worth trying for a layer, by name; the first is the plain one."""
    K = unit.K(layer.name)
    largest = seen.largest[layer.name]
    whole = float(largest.max()) or 1.0
    ceiling = layer.ceiling or math.inf
    found = {
        "max": torch.full_like(largest, layer.ceiling or whole),
        "mse": torch.full_like(largest, mse / unit.top(layer.name)),
        "1.25 max": torch.full_like(largest, min(1.25 * whole, ceiling)),
    }
    if channels:
        best = seen.least_error(layer.name, K, unit.rounding)
        found |= {
            "channel max": largest,
            "1.3 channel max": 1.3 * largest,
            "channel mse": best,
            "1.5 channel mse": 1.5 * best,
        }
    # A channel that was silent on these images may speak on others.
    least = 0.02 * whole
    return {
        name: value.clamp(min=least, max=ceiling) * unit.top(layer.name)
        for name, value in found.items()
    }


def candidate_ranges(layer: Layer, range_of: Callable[[Layer, str], Range]) -> dict[str, Range]:
    """Ranges worth trying for a layer that is no ReLU's, by name; the first is the plain one."""
    plain = range_of(layer, "max")
    most = math.inf if layer.activation is None else layer.activation.high
    return {
        "max": plain,
        "mse": range_of(layer, "mse"),
        "1.25 max": Range(plain.low, min(1.25 * plain.high, max(most, plain.high))),
    }


def by_logits(
    graph: Graph,
    images: Spool,
    unit: Unit,
    mse: Callable[[Layer], float],
    advance: Callable[[str], None] = lambda name: None,
    range_of: Callable[[Layer, str], Range] | None = None,
) -> dict[str, Tensor | Range]:
    """For every neuron layer the alphas [C] that move the logits least, that layer alone rounding.

    Of layers that are no ReLUs, or share a step with one that is none, the ranges.

    Candidates are made of one half of the images and judged by the logits of the other half, so
    that a range is not made to measure of the images that judge it; then the chosen rule is
    applied to all.

    Args:
        graph: the float network, float32.
        images: at least two; one in two makes candidates, up to JUDGED of the others judge.
        mse: the alpha of a layer under the policy "mse".
        range_of: the range of a layer that is no ReLU's, under a policy; measured on all images.
        advance: is called with the name of each layer that is done.
    """
    judges = torch.cat(list(islice(singles(images), 1, 2 * JUDGED, 2)) or [torch.empty(0)])
    if not len(judges):
        raise ValueError(
            "alpha='logits' needs at least 2 calibration images: one half makes candidates, the "
            "other judges them"
        )
    made = Spool(islice(singles(images), 0, None, 2))
    half, whole = Channels(graph, made), Channels(graph, images)
    own = channelwise(graph)
    values: dict[str, Tensor] = {}
    expected = graph.forward(judges, observe=lambda layer, y: values.__setitem__(layer.name, y))
    chosen: dict[str, Tensor | Range] = {}
    ranged = shaped(graph)
    for layer in graph.layers:
        if layer.kind != "neuron":
            continue

        def tried(seen: Channels, layer: Layer = layer) -> dict[str, Tensor | Range]:
            if layer.name in ranged:
                return candidate_ranges(layer, range_of)
            return candidates(layer, seen, unit, layer.name in own, mse(layer))

        y = values[layer.name]
        errors = {}
        for name, alpha in tried(half).items():
            logits = resume(graph, values, layer.name, unit.near(layer, y, alpha))
            errors[name] = float((logits - expected).double().square().sum())
        best = min(errors, key=errors.__getitem__)
        chosen[layer.name] = tried(whole)[best]
        advance(layer.name)
    return chosen
