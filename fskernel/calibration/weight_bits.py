"""Which layers can do with 8-bit weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor

from fskernel.calibration.fitted_trains import Trains
from fskernel.calibration.ranges import Range
from fskernel.calibration.rounded_graph import JUDGED, Unit, resume, singles
from fskernel.calibration.spool import Spool
from fskernel.codes.weights import group_macs
from fskernel.graph import Graph, Layer, evaluate, relu

# Squared error of the logits that 8-bit weights may cause, over that of the spikes: the two
# together are then at most 1.7 times the spikes' own.
SHARE = 2.0


def int8_layers(
    graph: Graph,
    images: Spool,
    unit: Unit,
    alphas: dict[str, Tensor | Range | Trains],
    rounded_weights: Callable[[Layer], Layer],
    advance: Callable[[str], None] = lambda name: None,
) -> set[str]:
    """The layers whose weights may have 8 bits.

    Each layer's 8-bit weights alone move the logits by some error; errors of different layers add
    like independent ones. In the order of error per multiply-accumulate of the dense network, those
    without any last, layers get 8 bits as long as the square of what they err together is at most
    SHARE times that of the spikes.

    Args:
        graph: the float network that is converted, float32.
        images: calibration images, of which up to JUDGED are looked at.
        rounded_weights: a layer as it is with 8-bit weights.
    """
    judges = torch.cat(list(islice(singles(images), JUDGED)))
    values: dict[str, Tensor] = {}
    expected = graph.forward(judges, observe=lambda layer, y: values.__setitem__(layer.name, y))
    spiking = graph.forward(judges, lambda layer, v: unit.emit(layer, v, alphas[layer.name]))
    allowed = SHARE * float((spiking - expected).double().square().sum())
    costs = []
    for layer in graph.layers:
        if not layer.groups:
            continue
        y = evaluate(rounded_weights(layer), values.__getitem__)
        if layer.kind == "readout":
            logits = y
        else:
            y = relu(layer, y) if layer.kind == "neuron" else y
            logits = resume(graph, values, layer.name, y)
        error = float((logits - expected).double().square().sum())
        out = values[layer.name]
        area = out.shape[2] * out.shape[3] if out.dim() == 4 else 1
        macs = sum(group_macs(g, area) for g in layer.groups)
        costs.append((error / macs if macs else math.inf, error, layer.name))
        advance(layer.name)
    found, total = set(), 0.0
    for _, error, name in sorted(costs):
        total += error
        if total > allowed:
            break
        found.add(name)
    return found
