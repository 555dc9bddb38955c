"""The metrics of NeuroBench: counted by us, and by its own package on a network that it can read.

    fskernel.neurobench.measure(net, images)      # our counts, under NeuroBench's names
    fskernel.neurobench.wrap(net)                 # a module for neurobench.models.TorchModel

NeuroBench (https://neurobench.ai) counts what torch's Conv2d and Linear read. Inputs that are all
0, 1 or -1 are spikes and cost accumulates (ACs), others cost multiply-accumulates (MACs). Zero
weights, zero inputs, padding, biases, pools and skip connections cost nothing.

Packed spike words would be MACs to it. `wrap` shows it what they stand for: every layer reads its K
bit-planes one after the other. The worth of a spike, 2^-t, is that of its time step and part of no
weight, so that a spike is an AC. Behind an average-pool a layer reads sums, which are no spikes;
the global pool in front of the readout comes behind its synapses, as in `RunStats.sops`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import from_spikes, popcount, spike_train
from fskernel.network.network import FSNetwork
from fskernel.network.steps import ConvStep, ReadoutStep
from fskernel.network.synapses import Synapses
from fskernel.reference.maps import current, pad_map
from fskernel.reference.oracles import Literal


@torch.inference_mode()
def measure(net: FSNetwork, images: Tensor) -> dict[str, object]:
    """What NeuroBench's harness finds for `wrap(net)` on these images, from our own counts.

    Args:
        net: the network. images: float32 [N, C, H, W], N >= 1.

    Returns:
        NeuroBench's keys: Footprint (bytes), ParameterCount (weights), ConnectionSparsity (zero
        weights over all, 4 decimals), ActivationSparsity (silent time steps of neurons over all),
        and SynapticOperations, a dict of Effective_MACs, Effective_ACs and Dense, which counts
        zeros, too, each an image.

    Raises:
        ValueError: no image is given; or they do not fit the network; or it has fitted neurons.
    """
    net.check_words("NeuroBench's count")
    if not len(images):
        raise ValueError("images are none: give at least one")
    codes = {step.name: step.code for step in net.steps}
    counted = {"Effective_MACs": 0, "Effective_ACs": 0, "Dense": 0}
    spikes = slots = 0

    def observe(step, inputs: list[Tensor], y: Tensor, counts: Tensor | None) -> None:
        nonlocal spikes, slots
        if step.spiking:
            spikes += int(counts.sum())
            slots += y.numel() * step.code.K
        for weight, geometry, x, code in _synapses(step, inputs, codes) if step.affine else ():
            effective, dense = _operations(weight, geometry, x, code)
            kind = "Effective_ACs" if code.kind == "words" else "Effective_MACs"
            counted[kind] += effective
            counted["Dense"] += dense

    net.execute(images, observe=observe)
    weights = [w for step in net.steps if step.affine for w in step.weights]
    total = sum(w.numel() for w in weights)
    zeros = sum(int((w == 0).sum()) for w in weights)
    return {
        "Footprint": net.weight_bytes,
        "ParameterCount": total,
        "ConnectionSparsity": round(zeros / total, 4),
        "ActivationSparsity": 1 - spikes / slots if slots else 0.0,
        "SynapticOperations": {name: n / len(images) for name, n in counted.items()},
    }


def _synapses(
    step: ConvStep | ReadoutStep, inputs: list[Tensor], codes: dict[str, Code]
) -> Iterator[tuple[Tensor, Geometry, Tensor, Code]]:
    """Weights [O, I/groups, kh, kw], how they walk, what they read [N, H, W, I], and its code."""
    if isinstance(step, ConvStep):
        for source, group, x in zip(step.sources, step.groups, inputs):
            yield group.weight, group.geometry, x, codes[source]
        return
    x, code = inputs[0], codes[step.sources[0]]
    if not step.pool:
        x = x.reshape(len(x), 1, 1, -1)
    elif code.kind != "words":
        x = x.to(torch.int64).sum(dim=(1, 2), keepdim=True)
    yield step.weight[:, :, None, None], Geometry((1, 1)), x, code


def _operations(weight: Tensor, g: Geometry, x: Tensor, code: Code) -> tuple[int, int]:
    """Operations on all images: those with a weight and an input that are not zero, and all."""
    events = popcount(x) if code.kind == "words" else x != 0
    events = pad_map(events.to(torch.int64), g, 0)
    inside = pad_map(x.new_ones((1, *x.shape[1:3], 1), dtype=torch.int64), g, 0)
    alive = (weight != 0).unflatten(0, (g.groups, -1)).sum(1).flatten(0, 1)  # [I, kh, kw]
    rows, cols = g.output_size(*x.shape[1:3])
    effective = positions = 0
    for i in range(g.kernel[0]):
        for j in range(g.kernel[1]):
            top, left = i * g.dilation[0], j * g.dilation[1]
            window = (
                slice(None),
                slice(top, top + (rows - 1) * g.stride[0] + 1, g.stride[0]),
                slice(left, left + (cols - 1) * g.stride[1] + 1, g.stride[1]),
            )
            effective += int((events[window].sum((0, 1, 2)) * alive[:, i, j]).sum())
            positions += int(inside[window].sum())
    planes = code.K if code.kind == "words" else 1
    return effective, positions * weight.shape[0] * weight.shape[1] * len(x) * planes


def wrap(net: FSNetwork) -> PlaneNetwork:
    """The network as modules that NeuroBench counts: `neurobench.models.TorchModel(wrap(net))`.

    It gives the network's own logits, bit for bit, as slowly as the oracle that it is.

    Args:
        net: on the CPU. What is wrapped are its weights as they are now.

    Raises:
        ValueError: it has fitted neurons, whose codes have no planes.
    """
    net.check_words("NeuroBench's network of planes")
    return PlaneNetwork(net)


class PlaneNetwork(nn.Module):
    """A network of FS neurons, time step by time step; see `wrap`.

    Float32 images [N, C, H, W] become float32 logits [N, O]. Its parameters are the integer weights
    and its buffers what else the network saves, so that they take the same bytes.
    """

    def __init__(self, net: FSNetwork):
        super().__init__()
        self.synapses, self.neurons = nn.ModuleDict(), nn.ModuleDict()
        backend = _Planes()
        codes = {step.name: step.code for step in net.steps}
        for number, step in enumerate(net.steps):
            name = f"{number}_{step.name.replace('.', '_')}"
            if isinstance(step, ConvStep):
                neurons = self.neurons[name] = _Neurons(step)
                backend.neurons[id(step.bias)] = neurons
                for i, (source, group) in enumerate(zip(step.sources, step.groups)):
                    conv = self.synapses[f"{name}_{i}"] = _Conv(group, codes[source])
                    backend.convs[id(group)] = conv
            elif isinstance(step, ReadoutStep):
                linear = self.synapses[name] = _Linear(step, codes[step.sources[0]])
                backend.linears[id(step.weight)] = linear
        self._run = (net, backend)  # in a tuple: no module of this one

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        net, backend = self._run
        return net.execute(x, backend)


class _Neurons(nn.ReLU):
    """A layer's K steps. NeuroBench looks for ReLUs; where K is 0 it is never called."""

    def __init__(self, step: ConvStep):
        super().__init__()
        for name in ("bias", "r", "top"):
            self.register_buffer(name, getattr(step, name))

    def forward(self, v: Tensor, K: int) -> Tensor:
        """Spikes, bool [K, N, H, W, O], of membranes [N, H, W, O]."""
        return spike_train(v, K)


class _Conv(nn.Conv2d):
    """A synapse group: float64 [N, I, H, W] to exact sums [N, O, OH, OW], padding included."""

    def __init__(self, group: Synapses, code: Code):
        g = group.geometry
        channels = (group.in_channels, group.out_channels)
        super().__init__(
            *channels, g.kernel, g.stride, 0, g.dilation, g.groups, bias=False, device="meta"
        )
        self.weight = nn.Parameter(group.weight, requires_grad=False)
        self.register_buffer("m", group.m)
        self.around = (g.padding[2], g.padding[3], g.padding[0], g.padding[1])
        self.K = code.K if code.kind == "words" else 0

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(torch.float64)
        x = F.pad(x, self.around)
        return F.conv2d(x, weight, None, self.stride, 0, self.dilation, self.groups)


class _Linear(nn.Linear):
    """The readout: float64 [..., F] to exact sums [..., O]."""

    def __init__(self, step: ReadoutStep, code: Code):
        super().__init__(*reversed(step.weight.shape), bias=False, device="meta")
        self.weight = nn.Parameter(step.weight, requires_grad=False)
        self.register_buffer("scale", step.scale)
        self.register_buffer("start", step.bias)
        self.K = code.K if code.kind == "words" else 0

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(torch.float64))


class _Planes(Literal):
    """The literal oracle, whose synapses and neurons are modules."""

    def __init__(self) -> None:
        self.convs: dict[int, _Conv] = {}
        self.linears: dict[int, _Linear] = {}
        self.neurons: dict[int, _Neurons] = {}

    def conv(self, groups, bias: Tensor, **options):
        self._firing = self.neurons[id(bias)]
        return super().conv(groups, bias, **options)

    def _fire(self, v: Tensor, K: int) -> tuple[Tensor, Tensor]:
        train = self._firing(v, K)
        return from_spikes(train), train.sum(dim=(0, 2, 3, 4), dtype=torch.int64)

    def _synaptic_sum(self, x: Tensor, synapses: Synapses) -> Tensor:
        conv = self.convs[id(synapses)]
        maps = x.permute(0, 3, 1, 2)
        total: Tensor | float = 0.0
        for worth, plane in _planes(maps, conv.K):
            total = total + worth * conv(plane)
        total = total.to(torch.int64).permute(0, 2, 3, 1)
        if synapses.pad_code:  # zero, with an offset: of no input, and the same for all images
            g = synapses.geometry
            padding = pad_map(torch.zeros_like(x[:1]), g, synapses.pad_code)
            total = total + current(padding, synapses.weight, g)
        return total

    def _dot(self, x: Tensor, weight: Tensor, pool: bool) -> Tensor:
        linear = self.linears[id(weight)]
        if pool and not linear.K:
            x = x.to(torch.int64).sum(dim=(1, 2), keepdim=True)
        values = x.flatten(1, 2) if pool else x.flatten(1)
        total: Tensor | float = 0.0
        for worth, plane in _planes(values, linear.K):
            total = total + worth * linear(plane)
        return (total.sum(1) if pool else total).to(torch.int64)


def _planes(x: Tensor, K: int) -> Iterator[tuple[int, Tensor]]:
    """The bit-planes of words, first time step first, and their worth; of others, the values."""
    if not K:
        yield 1, x.to(torch.float64)
        return
    codes = x.to(torch.int32)
    for t in range(K):
        yield 2 ** (K - 1 - t), ((codes >> (K - 1 - t)) & 1).to(torch.float64)
