"""Alphas chosen by what they do to the logits, and a correction of what the spikes round away.

Everything here works on the float graph, with neurons that emit what their spike words stand for,
so no integer weight is involved. Given the same pictures the result is the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fskernel.graph import Graph, Group, Layer, affine, pool, readout, relu
from fskernel.pictures import Spool

CORRECTIONS = (None, "bias", "least_squares")

BINS = 1024  # of a channel's histogram, between 0 and its largest activation
JUDGED = 32  # pictures whose logits judge a candidate
# How strongly least squares holds on to the weights: like that many pictures whose inputs have the
# mean square of the others and on which the old weights are right. With 40 pictures of
# EfficientNet-Lite0 and another 20 to judge, K=5 did best with 120 (of 40, 120, 400), K=4 with 40.
RIDGE = 100.0
REGRESSORS = 1280  # synapses of a neuron beyond which only its bias is corrected
# Membranes that far outside the neuron's range are of no consequence.
MARGIN = 0.05


@dataclass
class Unit:
    """How the neurons of the network round: K of a layer, and "nearest" or "floor"."""

    K: Callable[[str], int]
    rounding: str

    def top(self, name: str) -> float:
        """Alpha over the value of its largest word."""
        words = 2.0 ** self.K(name)
        return words / (words - 1)

    def emit(self, layer: Layer, v: Tensor, alpha: Tensor | float) -> Tensor:
        """What the spike words of membranes v [N, C, H, W] stand for; alpha is a number or [C]."""
        K = self.K(layer.name)
        step = torch.as_tensor(alpha, dtype=v.dtype) * 2.0**-K
        step = step[:, None, None] if step.dim() else step
        offset = 0.5 if self.rounding == "nearest" else 0.0
        return torch.floor(v / step + offset).clamp_(0, 2.0**K - 1).mul_(step)


def channelwise(graph: Graph) -> set[str]:
    """The layers of neurons whose channels may have alphas of their own.

    The membrane of channel c is scaled by alpha/alpha_c, with the weights before it, and the
    weights behind it by the inverse: the network is the same, its words are finer. An identity
    branch has one multiplier for all channels, so what it connects has one alpha.
    """
    behind = graph.behind()
    tied = {layer.name for layer in graph.layers if layer.residual is not None}
    for layer in graph.layers:
        if layer.residual is not None:
            tied |= behind[layer.residual]
    return {layer.name for layer in graph.layers if layer.kind == "neuron"} - tied


# ---- alphas -------------------------------------------------------------------------------------


class Channels:
    """Per neuron layer: the largest activation of every channel, and how they spread."""

    def __init__(self, graph: Graph, pictures: Spool):
        self.largest: dict[str, Tensor] = {}
        self.histogram: dict[str, Tensor] = {}

        def peak(layer: Layer, y: Tensor) -> None:
            if layer.kind == "neuron":
                now = y.amax((0, 2, 3))
                self.largest[layer.name] = torch.maximum(self.largest.get(layer.name, now), now)

        def spread(layer: Layer, y: Tensor) -> None:
            if layer.kind == "neuron":
                largest = self.largest[layer.name].clamp(min=1e-30)
                bins = (y * ((BINS - 1) / largest)[:, None, None]).round_().to(torch.int64)
                bins += torch.arange(0, len(largest) * BINS, BINS)[:, None, None]
                seen = torch.bincount(bins.flatten(), minlength=len(largest) * BINS)
                seen = seen.view(len(largest), BINS)
                self.histogram[layer.name] = self.histogram.get(layer.name, 0) + seen

        for observe in (peak, spread):
            for x in pictures:
                graph.forward(x, observe=observe)

    def least_error(self, name: str, K: int, rounding: str) -> Tensor:
        """The largest value of every channel's words that rounds its activations best, [C]."""
        histogram = self.histogram[name].double()
        values = torch.linspace(0, 1, BINS, dtype=torch.float64)
        shares = torch.linspace(0.15, 1.0, 35, dtype=torch.float64)
        errors = torch.stack(
            [histogram @ (rounded(values, float(s), K, rounding) - values) ** 2 for s in shares]
        )
        return (shares[errors.argmin(0)] * self.largest[name].double()).float()


def rounded(values: Tensor, top: float, K: int, rounding: str) -> Tensor:
    """What words of K steps whose largest stands for `top` make of values >= 0."""
    step = top / (2.0**K - 1)
    offset = 0.5 if rounding == "nearest" else 0.0
    return torch.floor(values / step + offset).clamp(0, 2.0**K - 1) * step


def candidates(
    layer: Layer, seen: Channels, unit: Unit, channels: bool, mse: float
) -> dict[str, Tensor]:
    """Alphas [C] worth trying for a layer, by name; the first is the plain one."""
    K = unit.K(layer.name)
    largest = seen.largest[layer.name]
    whole = float(largest.max()) or 1.0
    ceiling = layer.ceiling or math.inf
    found = {
        "max": torch.full_like(largest, min(whole if layer.ceiling is None else ceiling, ceiling)),
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
    # A channel that was silent on these pictures may speak on others.
    least = 0.02 * whole
    return {
        name: value.clamp(min=least, max=ceiling) * unit.top(layer.name)
        for name, value in found.items()
    }


def by_logits(
    graph: Graph,
    pictures: Spool,
    unit: Unit,
    mse: Callable[[Layer], float],
    advance: Callable[[str], None] = lambda name: None,
) -> dict[str, Tensor]:
    """For every neuron layer the alphas [C] that move the logits least, that layer alone rounding.

    Candidates are made of one half of the pictures and judged by the logits of the other half, so
    that a range is not made to measure of the pictures that judge it; then the chosen rule is
    applied to all.

    Args:
        graph: the float network, float32.
        pictures: at least two batches, or one that can be halved.
        mse: the alpha of a layer under the policy "mse".
        advance: is called with the name of each layer that is done.
    """
    everything = list(_singles(pictures))
    if len(everything) < 2:
        raise ValueError(
            "alpha='logits' needs at least 2 calibration pictures: one half makes candidates, the "
            "other judges them"
        )
    made = Spool(torch.cat(everything[0::2]).split(16))
    judges = torch.cat(everything[1::2][:JUDGED])
    half, whole = Channels(graph, made), Channels(graph, pictures)
    own = channelwise(graph)
    values: dict[str, Tensor] = {}
    expected = graph.forward(judges, observe=lambda layer, y: values.__setitem__(layer.name, y))
    chosen: dict[str, Tensor] = {}
    for layer in graph.layers:
        if layer.kind != "neuron":
            continue
        y = values[layer.name]
        errors = {}
        for name, alpha in candidates(layer, half, unit, layer.name in own, mse(layer)).items():
            logits = resume(graph, values, layer.name, unit.emit(layer, y, alpha))
            errors[name] = float((logits - expected).double().square().sum())
        best = min(errors, key=errors.__getitem__)
        chosen[layer.name] = candidates(layer, whole, unit, layer.name in own, mse(layer))[best]
        advance(layer.name)
    return chosen


def _singles(pictures: Spool) -> Iterator[Tensor]:
    for batch in pictures:
        yield from batch.split(1)


def resume(graph: Graph, values: dict[str, Tensor], name: str, y: Tensor) -> Tensor:
    """The logits when layer `name` gives y and all that does not depend on it gives `values`."""
    new = {name: y}
    started = False
    for layer in graph.layers:
        if not started:
            started = layer.name == name
            continue
        if not any(source in new for source in layer.inputs()):
            continue
        new[layer.name] = evaluate(layer, lambda source: new.get(source, values.get(source)))
        if layer.kind == "neuron":
            new[layer.name] = relu(layer, new[layer.name])
    return new[graph.layers[-1].name]


def evaluate(layer: Layer, of: Callable[[str], Tensor]) -> Tensor:
    """What a layer makes of its inputs; of neurons the membranes, without the threshold."""
    if layer.kind in ("max_pool", "avg_pool"):
        return pool(layer, of(layer.source))
    if layer.kind == "concat":
        return torch.cat([of(name) for name in layer.sources], 1)
    if layer.kind == "readout":
        return readout(layer, of(layer.groups[0].source))
    y = affine(layer.groups[0], of(layer.groups[0].source)) + layer.bias[:, None, None]
    for group in layer.groups[1:]:
        y = y + affine(group, of(group.source))
    return y if layer.residual is None else y + of(layer.residual)


# ---- correction ---------------------------------------------------------------------------------


def corrected(
    graph: Graph,
    pictures: Spool,
    unit: Unit,
    alphas: dict[str, Tensor],
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
        pictures: calibration pictures.
        alphas: of every neuron layer, [C] or a number.
        how: "bias" or "least_squares".
    """
    new = copy.deepcopy(graph)
    source = graph.layers[0].name
    exact: dict[str, Spool] = {source: pictures}
    spiking: dict[str, Spool] = {source: pictures}
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
    if layer.kind == "readout" or len(layer.groups) > 1 or layer.groups[0].one_to_one:
        return False
    weight, groups = layer.groups[0].weight, layer.groups[0].geometry.groups
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
    gram = right = count = pictures = 0
    for wanted, inputs in _pairs(old, new, exact, spiking):
        pictures += len(wanted)
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
    ridge = gram.diagonal(dim1=1, dim2=2)[:, 1:].mean(1).clamp(min=1e-12) * (RIDGE / pictures)
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


# ---- weight bits --------------------------------------------------------------------------------


def int8_layers(
    graph: Graph,
    pictures: Spool,
    unit: Unit,
    alphas: dict[str, Tensor],
    rounded_weights: Callable[[Layer], Layer],
    advance: Callable[[str], None] = lambda name: None,
) -> set[str]:
    """The layers whose weights may have 8 bits.

    Each layer's 8-bit weights alone move the logits by some error; errors of different layers add
    like independent ones. In the order of error per multiply-accumulate, layers get 8 bits as long
    as all of them together err by no more than the spikes do: then neither costs much beside the
    other, and most of the work runs in 8 bits.

    Args:
        graph: the float network that is converted, float32.
        pictures: calibration pictures, of which up to JUDGED are looked at.
        rounded_weights: a layer as it is with 8-bit weights.
    """
    judges = torch.cat(list(_singles(pictures))[:JUDGED])
    values: dict[str, Tensor] = {}
    expected = graph.forward(judges, observe=lambda layer, y: values.__setitem__(layer.name, y))
    spiking = graph.forward(judges, lambda layer, v: unit.emit(layer, v, alphas[layer.name]))
    allowed = float((spiking - expected).double().square().sum())
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
        macs = sum(g.weight.numel() for g in layer.groups) * area
        costs.append((error / macs, error, layer.name))
        advance(layer.name)
    found, total = set(), 0.0
    for _, error, name in sorted(costs):
        total += error
        if total > allowed:
            break
        found.add(name)
    return found


@contextmanager
def progress_bar(title: str, total: int, shown: bool) -> Iterator[Callable[[str], None]]:
    """A bar that is advanced by layers, or nothing."""
    if not shown:
        yield lambda name: None
        return
    try:
        from rich.progress import Progress
    except ImportError as error:
        raise ImportError("progress=True needs rich: pip install rich") from error
    with Progress() as bar:
        task = bar.add_task(title, total=total)
        yield lambda name: bar.advance(task)
