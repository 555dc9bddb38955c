"""What happens inside the FS network for one image: its spikes over time, its layers' errors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

import fskernel as fs
from fskernel.graph import Graph, Layer
from fskernel.network import schedule

NEURONS = 600  # whose spikes are kept: more cannot be told apart, and a record stays small


@torch.inference_mode()
def look(graph: Graph, net: fs.FSNetwork, x: Tensor) -> tuple[dict[str, object], dict]:
    """Shows one image to both networks.

    Args:
        graph: of the dense network.
        net: what it was converted into, where it is measured.
        x: the image, float32 [1, C, H, W], on the CPU.

    Returns:
        What belongs under inside.* in the record: `graph`, the layers that each layer reads;
        `raster`, see `over_time`; `every`, of how many neurons one is in it. And the relative
        error of each layer with weights, see `errors`.
    """
    given: dict[str, Tensor] = {}

    words: dict[str, Tensor] = {}

    def keep(step, inputs, y, counts) -> None:
        given[step.name] = y.cpu()
        if step.spiking:
            fitted = step.code.kind == "fitted"
            words[step.name] = (step.trains(inputs, fs.ops) if fitted else y).cpu()

    net.execute(x.to(net.device), observe=keep)
    every = max(1, math.ceil(sum(map(Tensor.numel, words.values())) / NEURONS))
    inside = {
        "graph": {step.name: list(step.sources) for step in net.steps},
        "raster": over_time(net, words, every),
        "every": every,
    }
    return inside, errors(graph, net, given, x)


def over_time(net: fs.FSNetwork, words: Mapping[str, Tensor], every: int) -> list[dict]:
    """When some neurons of each layer fire, in the time steps from the image to the logits.

    `fskernel.schedule` finds the same spikes by executing the time steps; but ResNet50 takes it
    some 15 s an image, which is too long for every report.

    Args:
        net: the network.
        words: of each layer of neurons, [1, H, W, C], as its steps give them; of fitted neurons
            their trains.
        every: of how many neurons of a layer one is taken.

    Returns:
        For each layer its name; `first`, the time step at which it starts to fire; K, for how many
        it fires; and the spike words of the neurons taken, in which bit K - t is the spike at the
        t-th step of these.
    """
    ends = schedule.ends(net.steps)
    found = []
    for step in net.steps:
        if step.name in words:
            K = step.code.K
            taken = words[step.name].permute(0, 3, 1, 2).reshape(-1)[::every].to(torch.int32)
            taken &= 2**K - 1  # int16 holds 16 steps as a pattern of bits
            first = ends[step.name] - K + 1
            found.append({"layer": step.name, "first": first, "K": K, "words": taken.tolist()})
    return found


def errors(
    graph: Graph, net: fs.FSNetwork, given: Mapping[str, Tensor], x: Tensor
) -> dict[str, float | None]:
    """How far each layer with weights is from the ANN's: norm of the differences over the norm.

    The ANN's layers are those that tracing makes of it, batch norm and ReLU included. None where
    a layer of the ANN gives zeros alone.

    Args:
        graph, net, x: as of `look`.
        given: the integers of each step, [1, H, W, C]; of the readout, the logits [1, classes].
    """
    steps = {step.name: step for step in net.steps if step.affine}
    found: dict[str, float | None] = {}

    def compare(layer: Layer, value: Tensor) -> None:
        if layer.name in steps:
            norm = float(value.norm())
            away = decoded(steps[layer.name], given[layer.name]) - value
            found[layer.name] = float(away.norm()) / norm if norm else None

    graph.to(torch.float32).forward(x, observe=compare)
    return found


def decoded(step, y: Tensor) -> Tensor:
    """The real values that a step's output stands for: [N, C, H, W], or [N, classes] of logits."""
    if step.code is None:
        return y
    value = (y.double() - step.code.zero) * step.code.step
    if step.channel_scale is not None:
        value = value / step.channel_scale
    return value.permute(0, 3, 1, 2)
