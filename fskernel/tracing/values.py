"""What the nodes of a traced module have become so far, while it is fused into layers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fskernel.codes.geometry import Geometry
from fskernel.errors import ConversionError
from fskernel.graph import Group, Layer
from fskernel.tracing.fx_trace import ONE_INPUT

ONLY_CONVOLUTIONS = "Only a convolution or a pool may follow a pad"


@dataclass
class Ready:
    """A value that some layer emits, read as it is, averaged over the map, or flattened.

    What is done to it is kept until it is known who reads it: an average-pool is part of a readout
    where it covers the map, and an option-A shortcut (every stride-th row and column, channels of
    zeros in front and behind) part of an addition.
    """

    layer: str
    channels: int | None  # those of zeros included
    averaged: bool = False
    flat: bool = False
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # zeros around the map: top, bottom, ...
    stride: tuple[int, int] = (1, 1)
    zeros: tuple[int, int] = (0, 0)
    pooling: Layer | None = None  # an average-pool that is not emitted yet
    pools_all: bool = False  # it covers the whole map

    @property
    def plain(self) -> bool:
        """Whether it is the map that the layer emits, and nothing else."""
        return self == Ready(self.layer, self.channels)


@dataclass
class Pending:
    """An affine sum that has not met its neuron yet."""

    name: str
    groups: list[Group]
    bias: Tensor
    residual: str | None = None
    averaged: bool = False  # its only source is averaged over the map first: a readout
    flat: bool = False
    fused: tuple[str, ...] = ()


class Values:
    """The layers that were emitted, and for every fx node what its value has become.

    A value is Pending from the convolution on, until a ReLU makes it a layer of neurons or a
    reader that needs its signed values makes it a graded layer.
    """

    def __init__(self, traced: fx.GraphModule, average: bool = False):
        self.traced, self.average = traced, average
        self.modules = dict(traced.named_modules())
        self.layers: list[Layer] = []
        self.values: dict[fx.Node, Ready | Pending] = {}
        self.parameters: dict[fx.Node, Tensor] = {}
        self.live: set[fx.Node] = set()  # on whose values the output depends
        self.shapes: set[fx.Node] = set()  # shapes and what is computed from them
        self.names: set[str] = set()
        self.absorbed: list[str] = []  # modules without arithmetic of their own, for the report
        self.copies: dict[str, Ready] = {}  # graded copies of words, by the words' layer
        self.averaged: list[str] = []  # max-pools that became average-pools
        self.size: tuple[int, int] | None = None  # of the images, once something depends on it

    def refuse(self, node: fx.Node, reason: str, cure: str):
        """Says why a node cannot be converted; a function is named after the module it is in."""
        name, owners = self.name(node), self.owners(node)
        if name == node.name and owners and node.op != "call_module":
            name, reason = owners[0][0], f"{reason} ({node.name})"
        raise ConversionError(name, reason, cure)

    def owners(self, node: fx.Node) -> list[tuple[str, type]]:
        """Path and class of the modules whose forward the node is part of, innermost first."""
        stack = reversed(node.meta.get("nn_module_stack", {}).values())
        return [(path, kind) for path, kind in stack if path and isinstance(kind, type)]

    def depends_on_size(self) -> None:
        """Notes that the layers so far fit one size of images only."""
        for node in self.traced.graph.nodes:
            shape = self.shape(node) if node.op == "placeholder" else None
            if shape is not None:
                self.size = (shape[-2], shape[-1])
                return

    def unique(self, name: str) -> str:
        candidate, n = name, 2
        while candidate in self.names:
            candidate, n = f"{name}@{n}", n + 1
        self.names.add(candidate)
        return candidate

    def emit(self, layer: Layer) -> None:
        names = [n for n in self.absorbed if n != layer.name]
        layer.fused, self.absorbed = (*layer.fused, *names), []
        self.layers.append(layer)

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    def unpooled(self, name: str) -> Layer:
        """A layer, or the one whose output it pools: no less negative than that."""
        layer = self.layer(name)
        while layer.source is not None:
            layer = self.layer(layer.source)
        return layer

    def shape(self, node: fx.Node) -> tuple[int, ...] | None:
        meta = node.meta.get("tensor_meta")
        return tuple(meta.shape) if meta is not None else None

    def value(self, node: fx.Node, user: fx.Node) -> Ready | Pending:
        options = self.traced.meta.get("options")
        if node is None and options:
            reason = "it is a second input, and None where it is left out"
            raise ConversionError(", ".join(options), reason, ONE_INPUT)
        if not isinstance(node, fx.Node) or node not in self.values:
            self.refuse(
                user,
                f"its operand {node!r} is not an activation",
                "Fold constants into the weights or the preprocessing",
            )
        return self.values[node]

    def ready(self, node: fx.Node, user: fx.Node) -> Ready:
        value = self.value(node, user)
        if isinstance(value, Pending):
            value = self.values[node] = self.graded(value, user)
        return value

    def spatial(self, node: fx.Node, user: fx.Node, padded: bool = False) -> Ready:
        value = self.ready(node, user)
        if value.flat:
            self.refuse(
                user, "it reads a map that was flattened", "Use the order pool, flatten, linear"
            )
        if value.averaged:
            value = self.values[node] = self.average_of(value, user)
        if any(value.padding) and not padded:
            self.refuse(user, "it reads a map with zeros padded on", ONLY_CONVOLUTIONS)
        if any(value.zeros):
            self.refuse(
                user,
                "it reads a map with channels of zeros padded on",
                "Only an addition may follow them, as in option-A shortcuts",
            )
        if value.stride != (1, 1):
            value = self.values[node] = self.emit_pool(
                value, f"{value.layer}.subsampled", "max_pool", Geometry((1, 1), value.stride)
            )
        return self.pooled(node, value)

    def emit_pool(self, value: Ready, name: str, kind: str, geometry: Geometry) -> Ready:
        """A pool of the map that value's layer emits."""
        name = self.unique(name)
        self.emit(Layer(name, kind, source=value.layer, geometry=geometry))
        return Ready(name, value.channels)

    def pooled(self, node: fx.Node, value: Ready | Pending) -> Ready | Pending:
        """The value of a node; an average-pool that waits for its reader is emitted."""
        if isinstance(value, Ready) and value.pooling is not None:
            pool = value.pooling
            value = self.values[node] = self.emit_pool(value, pool.name, pool.kind, pool.geometry)
        return value

    def average_of(self, value: Ready, user: fx.Node) -> Ready:
        """A map averaged to one pixel: a pool of its own, where no readout takes it over."""
        size = tuple(self.shape_of_map(value.layer, user)[-2:])
        self.depends_on_size()
        if size == (1, 1):
            return replace(value, averaged=False)
        geometry = Geometry(size, size)
        pooled = self.emit_pool(value, f"{value.layer}.averaged", "avg_pool", geometry)
        return replace(pooled, flat=value.flat)

    def pad(self, node: fx.Node, source: fx.Node, pad: tuple, mode: str, fill: object) -> Ready:
        if mode != "constant" or fill or len(pad) not in (2, 4, 6) or min(pad) < 0:
            self.refuse(node, f"it pads {tuple(pad)} in mode {mode!r}", "Pad the map with zeros")
        left, right, top, bottom, front, back = (*pad, 0, 0, 0, 0)[:6]
        extra = (top, bottom, left, right)
        if front or back:
            value = self.pooled(source, self.ready(source, node))
            if value.averaged or value.flat or any(extra) or any(value.padding):
                self.refuse(node, f"it pads {pad}", "Pad either the map or its channels")
            if value.channels is None:
                self.refuse(node, "it pads the input image", "Put a convolution in front")
            zeros = (value.zeros[0] + front, value.zeros[1] + back)
            return replace(value, channels=value.channels + front + back, zeros=zeros)
        value = self.spatial(source, node, padded=True)
        padding = tuple(p + e for p, e in zip(value.padding, extra, strict=True))
        return Ready(value.layer, value.channels, padding=padding)

    def subsample(self, node: fx.Node, source: fx.Node, stride: tuple[int, int]) -> Ready:
        """Every stride-th row and column, from the first on."""
        value = self.pooled(source, self.ready(source, node))
        if value.averaged or value.flat or any(value.padding):
            self.refuse(
                node, "it takes a part of what is no plain map", "Subsample maps before padding"
            )
        before = zip(value.stride, stride, strict=True)
        return replace(value, stride=tuple(a * b for a, b in before))

    def parameter(self, node: object, user: fx.Node) -> Tensor | None:
        """A weight or bias that forward reads directly, in float64."""
        if node is not None and node not in self.parameters:
            self.refuse(user, f"its weight {node} is computed in forward", "Store it as it is used")
        return self.exact(self.parameters.get(node), str(node), user)

    def exact(self, tensor: Tensor | None, name: str, node: fx.Node) -> Tensor | None:
        """A tensor of weights in float64, checked."""
        if tensor is None:
            return None
        if not torch.isfinite(tensor).all():
            self.refuse(node, f"its {name} holds NaN or infinite values", "Repair the checkpoint")
        return tensor.detach().double()

    def graded(self, value: Pending, user: fx.Node) -> Ready:
        """Ends an affine sum without a neuron: its signed values are what consumers read."""
        value = self.unaveraged(value, user)
        layer = Layer(
            self.unique(value.name), "graded", value.groups, value.bias, fused=value.fused
        )
        layer.residual = value.residual
        self.emit(layer)
        return Ready(layer.name, len(value.bias), flat=value.flat)

    def unaveraged(self, value: Pending, user: fx.Node) -> Pending:
        """A linear layer on a map that is averaged first, if it is not the readout."""
        if not value.averaged:
            return value
        group = value.groups[0]
        pooled = self.average_of(Ready(group.source, group.weight.shape[1], averaged=True), user)
        return replace(value, groups=[replace(group, source=pooled.layer)], averaged=False)

    def name(self, node: fx.Node) -> str:
        """The module a node belongs to; for functions, the layer whose forward calls it."""
        if node.op == "call_module":
            return str(node.target)
        for path, kind in self.owners(node):
            if issubclass(kind, (nn.Conv2d, nn.Linear)):
                return path
        return node.name

    def kind(self, name: str) -> str:
        """What a module is, by its class; a function ("relu_3"), by its own name."""
        if name in self.modules:
            return type(self.modules[name]).__name__
        return re.sub(r"_\d+$", "", name)

    def shape_of_map(self, layer: str, user: fx.Node) -> tuple[int, ...]:
        """Shape [1, C, H, W] of what a layer emits."""
        for n, known in self.values.items():
            if isinstance(known, Ready) and known.layer == layer and known.plain:
                shape = self.shape(n)
                if shape is not None and len(shape) == 4:
                    return shape
        self.refuse(
            user,
            "it reads all of a map whose size is not known",
            "Pass calibration images or input_size=(N, C, H, W)",
        )

    def identity(self, value: Ready, name: str) -> Pending:
        """A branch as synapses of weight 1, one for each channel; channels of zeros have none."""
        front, back = value.zeros
        channels = value.channels - front - back
        geometry = Geometry((1, 1), value.stride, value.padding, groups=channels)
        weight = torch.ones(channels, 1, 1, 1, dtype=torch.float64)
        if front or back:
            weight = torch.eye(channels, dtype=torch.float64)[:, :, None, None]
            weight = F.pad(weight, (0, 0, 0, 0, 0, 0, front, back))
            geometry = geometry._replace(groups=1)
        group = Group(value.layer, weight, geometry, one_to_one=True)
        return Pending(f"{name}.identity", [group], weight.new_zeros(value.channels))
