"""A correction of what spikes round away, layer by layer: biases, and weights in closed form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fskernel.calibration.fitted_trains import Trains
from fskernel.calibration.ranges import Range
from fskernel.calibration.rounded_graph import Unit
from fskernel.calibration.spool import Spool
from fskernel.graph import Graph, Group, Layer, evaluate, relu

CORRECTIONS = (None, "bias", "least_squares")

# How strongly least squares holds on to the weights: like that many images whose inputs have the
# mean square of the others and on which the old weights are right. With 40 images of
# EfficientNet-Lite0 and another 20 to judge, K=5 did best with 120 (of 40, 120, 400), K=4 with 40.
RIDGE = 100.0
REGRESSORS = 1280  # synapses of a neuron beyond which only its bias is corrected
# Membranes that far outside the neuron's range are of no consequence.
MARGIN = 0.05


def corrected(
    graph: Graph,
    images: Spool,
    unit: Unit,
    alphas: dict[str, Tensor | Range | Trains],
    how: str,
    advance: Callable[[str], None] = lambda name: None,
) -> Graph:
    """A graph whose layers give, for the rounded inputs they get, what the float network gives.

    Layer by layer, each behind the corrected ones. "bias": the mean of every channel's membrane,
    over the positions where the float neuron is within its range, is made equal. "least_squares":
    besides, the weights of layers that are linear in what follows (linear bottlenecks) and of
    depthwise ones move to the ridge regression of the float sums on the rounded inputs; nothing is
    learned by gradients, and no label is looked at.

    Args:
        graph: the float network, float32; it is not changed.
        images: calibration images.
        alphas: of every neuron layer, [C] or a number; a range, or what fitted neurons say, of
            those that have one.
        how: "bias" or "least_squares".
    """
    new = copy.deepcopy(graph)
    source = graph.layers[0].name
    exact: dict[str, Spool] = {source: images}
    spiking: dict[str, Spool] = {source: images}
    last = graph.last_reader()
    for old, layer in zip(graph.layers[1:], new.layers[1:], strict=True):
        if layer.kind in ("neuron", "graded", "readout"):
            if how == "least_squares" and _linear(layer):
                _least_squares(old, layer, exact, spiking)
            _centre(old, layer, exact, spiking)
        for of, which, emit in ((exact, old, False), (spiking, layer, True)):
            kept = Spool()
            for inputs in _inputs(which, of):
                y = evaluate(which, inputs.__getitem__)
                if which.kind == "neuron":
                    y = unit.emit(which, y, alphas[which.name]) if emit else relu(which, y)
                kept.append(y)
            of[which.name] = kept
        for name in set(layer.inputs()):
            if last[name] == layer.name:
                del exact[name], spiking[name]
        advance(layer.name)
    return new


def _inputs(layer: Layer, of: dict[str, Spool]) -> Iterator[dict[str, Tensor]]:
    names = list(dict.fromkeys(layer.inputs()))
    for batch in zip(*(of[name] for name in names), strict=True):
        yield dict(zip(names, batch, strict=True))


def _pairs(old: Layer, new: Layer, exact: dict, spiking: dict) -> Iterator[tuple]:
    """Per batch: the float layer's sums, and the inputs of the layer behind spikes."""
    for a, b in zip(_inputs(old, exact), _inputs(new, spiking), strict=True):
        yield evaluate(old, a.__getitem__), b


def _alive(layer: Layer, v: Tensor) -> Tensor:
    """1 where a change of the membrane v changes what the float layer emits, else 0."""
    if layer.kind != "neuron":
        return torch.ones_like(v)
    if layer.activation is not None:
        reach = MARGIN * v.abs().amax()
        change = (layer.activation(v + reach) - layer.activation(v - reach)).abs()
        return (change > MARGIN * 2 * reach).to(v.dtype)
    if layer.ceiling is None:
        return (v > -MARGIN * v.abs().amax()).to(v.dtype)
    margin = MARGIN * layer.ceiling
    return ((v > -margin) & (v < layer.ceiling + margin)).to(v.dtype)


def _centre(old: Layer, new: Layer, exact: dict, spiking: dict) -> None:
    """Makes the means of the membranes equal, by the bias."""
    total = count = 0
    for wanted, inputs in _pairs(old, new, exact, spiking):
        error = evaluate(new, inputs.__getitem__) - wanted
        alive = _alive(old, wanted)
        axes = (0, *range(2, wanted.dim()))
        total = total + (error * alive).sum(axes, dtype=torch.float64)
        count = count + alive.sum(axes, dtype=torch.float64)
    if new.kind == "neuron":
        # Channels that hardly live are left nearly as they are: their mean is a matter of chance.
        count = count.clamp(min=8.0 * sum(len(x) for x in exact[old.inputs()[0]]))
    new.bias = (new.bias - total / count).to(new.bias.dtype)


def _linear(layer: Layer) -> bool:
    """Whether least squares may move the weights of a layer; see `corrected`."""
    if layer.kind == "readout" or len(layer.groups) > 1:
        return False
    weight, groups = layer.groups[0].weight, layer.groups[0].geometry.groups
    if layer.groups[0].one_to_one and bool(((weight == 0) | (weight == 1)).all()):
        return False  # an identity; a batch norm of its own is like a depthwise layer
    if groups == len(weight) and weight.shape[1] == 1:
        return True
    return layer.kind == "graded" and groups == 1 and weight[0].numel() <= REGRESSORS


def _patches(group: Group, x: Tensor) -> Tensor:
    """The inputs of every synapse and a 1 for the bias: [groups, 1 + synapses, positions]."""
    g = group.geometry
    top, bottom, left, right = g.padding
    if any(g.padding):
        x = F.pad(x, (left, right, top, bottom))
    u = F.unfold(x, g.kernel, g.dilation, 0, g.stride)
    u = u.view(len(x), g.groups, -1, u.shape[2]).permute(1, 2, 0, 3).flatten(2)
    return torch.cat([torch.ones_like(u[:, :1]), u], 1)


def _least_squares(old: Layer, new: Layer, exact: dict, spiking: dict) -> None:
    """Ridge regression of the float sums on the inputs behind spikes, towards the old weights."""
    group = new.groups[0]
    groups, outputs = group.geometry.groups, len(group.weight)
    w = torch.cat([new.bias[:, None], group.weight.flatten(1)], 1).double()
    w = w.view(groups, outputs // groups, -1)  # [g, o, 1 + synapses]
    gram = right = count = images = 0
    for wanted, inputs in _pairs(old, new, exact, spiking):
        images += len(wanted)
        rest = 0 if new.residual is None else inputs[new.residual]
        target, alive = wanted - rest, _alive(old, wanted)
        for part in range(0, len(wanted), 2):  # patches take the kernel's size times the memory
            u = _patches(group, inputs[group.source][part : part + 2])
            t = target[part : part + 2].transpose(0, 1).reshape(groups, -1, u.shape[2])
            weighted = u
            if groups > 1:  # one output a group: each position counts by its own neuron
                weighted = u * alive[part : part + 2].transpose(0, 1).reshape(groups, 1, -1)
            gram = gram + torch.bmm(weighted, u.transpose(1, 2)).double()
            right = right + torch.bmm(weighted, t.transpose(1, 2)).double()
            count += u.shape[2]
    gram, right = gram / count, right / count
    ridge = gram.diagonal(dim1=1, dim2=2)[:, 1:].mean(1).clamp(min=1e-12) * (RIDGE / images)
    hold = ridge[:, None].repeat(1, w.shape[2])
    hold[:, 0] = 1e-6  # the bias is free
    hold = torch.diag_embed(hold)
    moved = torch.linalg.solve(gram + hold, right - gram @ w.transpose(1, 2))
    w = (w + moved.transpose(1, 2)).reshape(outputs, -1)
    if not torch.isfinite(w).all():
        return
    new.bias = w[:, 0].to(new.bias.dtype)
    weight = w[:, 1:].reshape(group.weight.shape).to(group.weight.dtype)
    group.weight = weight.contiguous(memory_format=torch.channels_last)
