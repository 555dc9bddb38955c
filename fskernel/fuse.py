"""Folding and fusing: what each operation of a traced module does to the float layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from fskernel.errors import ConversionError
from fskernel.graph import Graph, Group, Layer
from fskernel.synapses import Geometry

ONLY_CONVOLUTIONS = "Only a convolution may follow a pad"


@dataclass
class Ready:
    """A value that some layer emits, read as it is, averaged over the map, or flattened."""

    layer: str
    channels: int | None
    averaged: bool = False
    flat: bool = False
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # zeros around the map: top, bottom, ...


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


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """(v, v) for a number, the tuple itself for two numbers."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def conv_geometry(conv: nn.Conv2d) -> Geometry:
    """Geometry of an nn.Conv2d, its padding resolved to four numbers.

    Raises:
        ValueError: padding_mode other than zeros.
    """
    if conv.padding_mode != "zeros":
        raise ValueError(f"padding_mode={conv.padding_mode!r} is not supported: use 'zeros'")
    kernel, dilation = pair(conv.kernel_size), pair(conv.dilation)
    padding = resolve_padding(conv.padding, kernel, dilation)
    return Geometry(kernel, pair(conv.stride), padding, dilation, conv.groups)


def resolve_padding(
    padding: str | int | tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Torch's padding argument ("same", "valid", one or two numbers) as top, bottom, left, right.

    Like torch, "same" puts the odd one at the bottom and the right.
    """
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    if padding == "valid":
        return (0, 0, 0, 0)
    ph, pw = pair(padding)
    return (ph, ph, pw, pw)


def pool_fault(g: Geometry) -> str | None:
    """Why a pool may have windows without a single value in them, or None."""
    if 2 * g.padding[0] > g.kernel[0] or 2 * g.padding[2] > g.kernel[1]:
        return f"padding {g.padding[0], g.padding[2]} is more than half of the kernel {g.kernel}"
    if any(g.padding) and g.dilation != (1, 1):
        return f"padding with dilation {g.dilation} makes windows without a value on small maps"
    return None


class Fuser:
    """Builds the list of layers; knows, for every fx node, what its value has become.

    A value is Pending from the convolution on, until a ReLU makes it a layer of neurons or a
    reader that needs its signed values makes it a graded layer.
    """

    def __init__(self, traced: fx.GraphModule):
        self.traced = traced
        self.modules = dict(traced.named_modules())
        self.layers: list[Layer] = []
        self.values: dict[fx.Node, Ready | Pending] = {}
        self.parameters: dict[fx.Node, Tensor] = {}
        self.names: set[str] = set()
        self.absorbed: list[str] = []  # modules without arithmetic of their own, for the report

    def refuse(self, node: fx.Node, reason: str, cure: str):
        raise ConversionError(self.name(node), reason, cure)

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

    def shape(self, node: fx.Node) -> tuple[int, ...] | None:
        meta = node.meta.get("tensor_meta")
        return tuple(meta.shape) if meta is not None else None

    def value(self, node: fx.Node, user: fx.Node) -> Ready | Pending:
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
            value = self.values[node] = self.graded(value)
        return value

    def spatial(self, node: fx.Node, user: fx.Node, padded: bool = False) -> Ready:
        value = self.ready(node, user)
        if value.averaged or value.flat:
            self.refuse(
                user,
                "it reads a map that was already pooled or flattened",
                "Use the order pool, flatten, linear",
            )
        if any(value.padding) and not padded:
            self.refuse(user, "it reads a map with zeros padded on", ONLY_CONVOLUTIONS)
        return value

    def pad(self, node: fx.Node, source: fx.Node, pad: tuple, mode: str, fill: object) -> Ready:
        if mode != "constant" or fill or len(pad) != 4 or min(pad) < 0:
            self.refuse(node, f"it pads {tuple(pad)} in mode {mode!r}", "Pad the map with zeros")
        value = self.spatial(source, node, padded=True)
        left, right, top, bottom = pad
        extra = (top, bottom, left, right)
        padding = tuple(p + e for p, e in zip(value.padding, extra, strict=True))
        return Ready(value.layer, value.channels, padding=padding)

    def parameter(self, node: object, user: fx.Node) -> Tensor | None:
        """A weight or bias that forward reads directly, in float64."""
        if node is None:
            return None
        if node not in self.parameters:
            self.refuse(user, f"its weight {node} is computed in forward", "Store it as it is used")
        return self.finite(self.parameters[node], str(node), user)

    def finite(self, tensor: Tensor, name: str, node: fx.Node) -> Tensor:
        if not torch.isfinite(tensor).all():
            self.refuse(node, f"its {name} holds NaN or infinite values", "Repair the checkpoint")
        return tensor.detach().double()

    def graded(self, value: Pending) -> Ready:
        """Ends an affine sum without a neuron: its signed values are what consumers read."""
        layer = Layer(
            self.unique(value.name), "graded", value.groups, value.bias, fused=value.fused
        )
        layer.residual = value.residual
        if value.averaged:
            raise ConversionError(
                value.name,
                "a linear layer behind a global average pool is not the last one",
                "Networks end with pool, flatten, linear",
            )
        self.emit(layer)
        return Ready(layer.name, len(value.bias))

    def conv(
        self, node: fx.Node, source: fx.Node, weight: Tensor, bias: Tensor | None, g: Geometry
    ) -> Pending:
        value = self.spatial(source, node, padded=True)
        padding = tuple(a + b for a, b in zip(g.padding, value.padding, strict=True))
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        group = Group(value.layer, weight, g._replace(padding=padding))
        return Pending(self.name(node), [group], bias)

    def name(self, node: fx.Node) -> str:
        """The module a node belongs to; for functions, the layer whose forward calls it."""
        if node.op == "call_module":
            return str(node.target)
        for path, kind in reversed(node.meta.get("nn_module_stack", {}).values()):
            if isinstance(kind, type) and issubclass(kind, (nn.Conv2d, nn.Linear)):
                return path
        return node.name

    def batch_norm(self, node: fx.Node, source: fx.Node, m: nn.BatchNorm2d) -> Pending:
        value = self.value(source, node)
        if not isinstance(value, Pending) or value.residual is not None or len(source.users) > 1:
            self.refuse(
                node,
                "this batch norm does not directly follow a convolution of its own",
                "Reorder to convolution, batch norm, ReLU",
            )
        if m.running_mean is None:
            self.refuse(node, "it has no running statistics", "Train with track_running_stats=True")
        for name, tensor in [*m.named_parameters(), *m.named_buffers()]:
            self.finite(tensor, name, node)
        scale = (m.running_var.double() + m.eps).rsqrt()
        shift = -m.running_mean.double() * scale
        if m.affine:
            scale, shift = scale * m.weight.detach().double(), shift * m.weight.detach().double()
            shift = shift + m.bias.detach().double()
        groups = [
            Group(g.source, g.weight * scale[:, None, None, None], g.geometry) for g in value.groups
        ]
        return Pending(
            value.name,
            groups,
            value.bias * scale + shift,
            fused=(*value.fused, str(node.target)),
        )

    def linear(self, node: fx.Node, source: fx.Node, w: Tensor, bias: Tensor | None) -> Pending:
        value = self.ready(source, node)
        bias = w.new_zeros(len(w)) if bias is None else bias
        if value.channels is not None and w.shape[1] == value.channels:
            kernel = (1, 1)
        else:
            shape = self.shape_of_map(value, node)
            kernel = (shape[-2], shape[-1])
        if not (value.flat or value.averaged and kernel == (1, 1)):
            self.refuse(node, "it reads a map, not features", "Flatten in front of a linear layer")
        w = w.reshape(len(w), -1, *kernel)
        group = Group(value.layer, w, Geometry(kernel))
        return Pending(self.name(node), [group], bias, averaged=value.averaged, flat=True)

    def shape_of_map(self, value: Ready, node: fx.Node) -> tuple[int, ...]:
        for n, known in self.values.items():
            if isinstance(known, Ready) and known.layer == value.layer and not known.flat:
                shape = self.shape(n)
                if shape is not None and len(shape) == 4:
                    return shape
        self.refuse(
            node,
            "it flattens a map whose size is not known",
            "Pass calibration images or input_size=(N, C, H, W)",
        )

    def relu(self, node: fx.Node, source: fx.Node, ceiling: float | None) -> Ready:
        value = self.value(source, node)
        if isinstance(value, Ready):
            origin = self.layer(value.layer)
            while origin.source is not None:  # pools of a ReLU stay non-negative
                origin = self.layer(origin.source)
            if origin.kind == "neuron" and ceiling in (None, origin.ceiling):
                return value  # the ReLU of what is one already
            if value.channels is None or value.averaged or value.flat or any(value.padding):
                self.refuse(node, "it acts on the input or on pooled values", "Remove this ReLU")
            value = self.identity(value, value.layer)
        if value.averaged:
            self.refuse(
                node,
                "it follows a linear layer behind a global average pool",
                "Only the last linear layer may stand behind a global average pool",
            )
        layer = Layer(self.unique(value.name), "neuron", value.groups, value.bias)
        layer.residual, layer.ceiling = value.residual, ceiling
        layer.fused = (*value.fused, self.name(node))
        self.emit(layer)
        return Ready(layer.name, len(value.bias), flat=value.flat)

    def identity(self, value: Ready, name: str) -> Pending:
        """A branch as synapses of weight 1, one for each channel."""
        weight = torch.ones(value.channels, 1, 1, 1, dtype=torch.float64)
        group = Group(value.layer, weight, Geometry((1, 1), groups=value.channels))
        return Pending(f"{name}.identity", [group], torch.zeros(value.channels).double())

    def add(self, node: fx.Node, left: fx.Node, right: fx.Node) -> Pending:
        a, b = self.value(left, node), self.value(right, node)
        if isinstance(a, Ready) and isinstance(b, Ready):
            if a.channels is None:
                self.refuse(node, "it adds the input image itself", "Put a convolution in front")
            a = self.identity(a, a.layer)
        if isinstance(a, Ready):
            a, b = b, a
        for value in (a, b):
            if value.averaged or value.flat:
                self.refuse(node, "it adds pooled or flattened values", "Add maps, then pool")
            if isinstance(value, Ready) and any(value.padding):
                self.refuse(
                    node,
                    "it adds a map with zeros padded on",
                    "Only a convolution may follow a pad",
                )
        if isinstance(b, Ready):
            if a.residual is None:
                return Pending(a.name, a.groups, a.bias, b.layer, fused=a.fused)
            b = self.identity(b, b.layer)
        if a.residual is not None and b.residual is not None or len(a.groups + b.groups) > 2:
            b = Pending(b.name, b.groups, b.bias, b.residual, fused=b.fused)
            ready = self.graded(b)
            if a.residual is None:
                return Pending(a.name, a.groups, a.bias, ready.layer, fused=a.fused)
            ready_a = self.graded(a)
            merged = self.identity(ready_a, a.name)
            return Pending(a.name, merged.groups, merged.bias, ready.layer, fused=a.fused)
        return Pending(
            a.name,
            a.groups + b.groups,
            a.bias + b.bias,
            a.residual or b.residual,
            fused=(*a.fused, b.name, *b.fused),
        )

    def concat(self, node: fx.Node, parts: object, dim: int) -> Ready:
        if not isinstance(parts, (tuple, list)) or dim not in (1, -3):
            self.refuse(node, f"it concatenates along dimension {dim}", "Concatenate channels")
        values = [self.spatial(part, node) for part in parts]
        channels = [v.channels for v in values]
        if None in channels:
            self.refuse(node, "it concatenates the input image", "Put a convolution in front")
        name = self.unique(self.name(node))
        self.emit(Layer(name, "concat", sources=tuple(v.layer for v in values)))
        return Ready(name, sum(channels))

    def max_pool(self, node: fx.Node, source: fx.Node, args: tuple) -> Ready:
        kernel, stride, padding, dilation, ceil_mode, indices = args
        if indices:
            self.refuse(node, "return_indices=True", "Spikes carry no indices")
        return self.pool(node, source, "max_pool", kernel, stride, padding, dilation, ceil_mode)

    def ceiling(self, node: fx.Node, kind: str, g: Geometry) -> Geometry:
        """ceil_mode as more padding at the bottom and the right.

        Windows that begin inside the map may reach beyond it: with stride - 1 more rows, rounding
        down counts them. A window that begins in that padding would have to be dropped, which
        depends on the size of the map unless padding <= kernel - stride.
        """
        if kind != "max_pool":
            self.refuse(
                node, "ceil_mode=True makes border windows of another size", "Use ceil_mode=False"
            )
        reach = [d * (k - 1) + 1 for k, d in zip(g.kernel, g.dilation, strict=True)]
        top, bottom, left, right = g.padding
        if bottom > reach[0] - g.stride[0] or right > reach[1] - g.stride[1]:
            self.refuse(
                node,
                "ceil_mode=True with this padding drops windows depending on the size of the map",
                "Use ceil_mode=False",
            )
        more = (top, bottom + g.stride[0] - 1, left, right + g.stride[1] - 1)
        return g._replace(padding=more)

    def avg_pool(self, node: fx.Node, source: fx.Node, args: tuple, divisor: int | None) -> Ready:
        kernel, stride, padding, ceil_mode, include_pad = args
        if divisor is not None and divisor != pair(kernel)[0] * pair(kernel)[1]:
            self.refuse(node, f"divisor_override={divisor}", "Remove it")
        if not include_pad and any(pair(padding)):
            self.refuse(
                node,
                "count_include_pad=False with padding divides by a number that varies over the map",
                "Use count_include_pad=True or no padding",
            )
        return self.pool(node, source, "avg_pool", kernel, stride, padding, 1, ceil_mode)

    def pool(self, node, source, kind, kernel, stride, padding, dilation, ceil_mode) -> Ready:
        value = self.spatial(source, node)
        ph, pw = pair(padding)
        kernel = pair(kernel)
        stride = kernel if stride is None or stride == [] else pair(stride)
        geometry = Geometry(kernel, stride, (ph, ph, pw, pw), pair(dilation))
        reason = pool_fault(geometry)
        if reason:
            self.refuse(node, reason, "Pad less")
        if ceil_mode:
            geometry = self.ceiling(node, kind, geometry)
        self.emit(Layer(self.unique(self.name(node)), kind, source=value.layer, geometry=geometry))
        return Ready(self.layers[-1].name, value.channels)

    def adaptive(self, node: fx.Node, source: fx.Node, size: object) -> Ready:
        value = self.spatial(source, node)
        out = pair(size) if size is not None and size != (None, None) else (None, None)
        if out == (1, 1):
            return Ready(value.layer, value.channels, averaged=True)
        shape = self.shape(source)
        if shape is None:
            self.refuse(
                node,
                f"an adaptive pool to {size} depends on the size of the picture",
                "Pass calibration images or input_size=(N, C, H, W)",
            )
        have = shape[-2:]
        want = tuple(h if o is None else o for h, o in zip(have, out, strict=True))
        if want == have:
            return value
        if any(h % w for h, w in zip(have, want, strict=True)):
            self.refuse(
                node,
                f"an adaptive pool from {have} to {want} has windows of several sizes",
                "Use a picture size that is divisible",
            )
        kernel = (have[0] // want[0], have[1] // want[1])
        return self.pool(node, source, "avg_pool", kernel, kernel, 0, 1, False)

    def flatten(self, node: fx.Node, source: fx.Node) -> Ready | Pending:
        value = self.value(source, node)
        if isinstance(value, Pending) and not value.flat:
            value = self.ready(source, node)
        if isinstance(value, Pending):
            return value
        if any(value.padding):
            self.refuse(
                node,
                "it flattens a map with zeros padded on",
                "Only a convolution may follow a pad",
            )
        return Ready(value.layer, value.channels, value.averaged, True)

    def finish(self, node: fx.Node) -> Graph:
        result = node.args[0]
        value = self.values.get(result) if isinstance(result, fx.Node) else None
        if not isinstance(value, Pending) or not value.flat or value.residual is not None:
            self.refuse(
                node,
                "the network does not end with a linear layer that gives the logits",
                "End with (pool,) flatten, linear; softmax belongs outside",
            )
        if not any(layer.kind in ("neuron", "graded") for layer in self.layers):
            self.refuse(node, "there is no convolution", "Few-Spikes networks start with one")
        self.emit(
            Layer(
                self.unique(value.name),
                "readout",
                value.groups,
                value.bias,
                pool=value.averaged,
                fused=value.fused,
            )
        )
        return Graph(self.layers)
