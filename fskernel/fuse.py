"""Folding and fusing: what each operation of a traced module does to the float layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fskernel.advice import advice, class_names
from fskernel.errors import ConversionError
from fskernel.graph import Graph, Group, Layer
from fskernel.synapses import Geometry

ONLY_CONVOLUTIONS = "Only a convolution may follow a pad"


@dataclass
class Ready:
    """A value that some layer emits, read as it is, averaged over the map, or flattened.

    What an option-A shortcut does to it is kept until it is known who reads it: every stride-th
    row and column, channels of zeros in front and behind.
    """

    layer: str
    channels: int | None  # those of zeros included
    averaged: bool = False
    flat: bool = False
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # zeros around the map: top, bottom, ...
    stride: tuple[int, int] = (1, 1)
    zeros: tuple[int, int] = (0, 0)

    @property
    def plain(self) -> bool:
        """Whether it is what the layer emits, and nothing else."""
        return not any(self.padding) and self.stride == (1, 1) and not any(self.zeros)


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

    def __init__(self, traced: fx.GraphModule, average: bool = False):
        self.traced, self.average = traced, average
        self.modules = dict(traced.named_modules())
        self.layers: list[Layer] = []
        self.values: dict[fx.Node, Ready | Pending] = {}
        self.parameters: dict[fx.Node, Tensor] = {}
        self.shapes: set[fx.Node] = set()  # shapes and what is computed from them
        self.names: set[str] = set()
        self.absorbed: list[str] = []  # modules without arithmetic of their own, for the report
        self.copies: dict[str, Ready] = {}  # graded copies of words, by the words' layer
        self.averaged: list[str] = []  # max-pools that became average-pools
        self.size: tuple[int, int] | None = None  # of the pictures, once something depends on it

    def refuse(self, node: fx.Node, reason: str, cure: str):
        """Says why a node cannot be converted.

        A function is named after the module that calls it, and a module that is known to have no
        Few-Spikes form is a better reason than what its forward happens to begin with.
        """
        name = self.name(node)
        for path, kind in reversed(node.meta.get("nn_module_stack", {}).values()):
            known = advice(class_names(kind)) if isinstance(kind, type) else None
            if known:
                raise ConversionError(path, f"{kind.__name__}: {known.reason}", known.cure)
            if name == node.name and path and node.op != "call_module":
                name, reason = path, f"{reason} ({node.name})"
        raise ConversionError(name, reason, cure)

    def depends_on_size(self) -> None:
        """Notes that the layers so far fit one size of pictures only."""
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
        if any(value.zeros):
            self.refuse(
                user,
                "it reads a map with channels of zeros padded on",
                "Only an addition may follow them, as in option-A shortcuts",
            )
        if value.stride != (1, 1):
            geometry = Geometry((1, 1), value.stride)
            name = self.unique(f"{value.layer}.subsampled")
            self.emit(Layer(name, "max_pool", source=value.layer, geometry=geometry))
            value = self.values[node] = Ready(name, value.channels)
        return value

    def pad(self, node: fx.Node, source: fx.Node, pad: tuple, mode: str, fill: object) -> Ready:
        if mode != "constant" or fill or len(pad) not in (2, 4, 6) or min(pad) < 0:
            self.refuse(node, f"it pads {tuple(pad)} in mode {mode!r}", "Pad the map with zeros")
        left, right, top, bottom, front, back = (*pad, 0, 0, 0, 0)[:6]
        extra = (top, bottom, left, right)
        if front or back:
            value = self.ready(source, node)
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
        value = self.ready(source, node)
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

    def batch_norm(
        self,
        node: fx.Node,
        source: fx.Node,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Pending:
        """Folded into the affine sum in front of it; else one synapse a channel, and a bias."""
        if mean is None or var is None:
            self.refuse(node, "it has no running statistics", "Train with track_running_stats=True")
        scale = (var + eps).rsqrt()
        shift = -mean * scale
        if weight is not None:
            scale, shift = scale * weight, shift * weight
        if bias is not None:
            shift = shift + bias
        value = self.value(source, node)
        scale4 = scale[:, None, None, None]
        if not isinstance(value, Pending) or value.residual is not None:
            value = self.spatial(source, node)
            if value.channels not in (None, len(scale)):
                self.refuse(
                    node, f"{len(scale)} channels, but reads {value.channels}", "Repair the module"
                )
            group = Group(value.layer, scale4, Geometry((1, 1), groups=len(scale)))
            return Pending(self.name(node), [group], shift)
        return replace(
            value,
            groups=[replace(g, weight=g.weight * scale4, one_to_one=False) for g in value.groups],
            bias=value.bias * scale + shift,
            fused=(*value.fused, self.name(node)),
        )

    def linear(self, node: fx.Node, source: fx.Node, w: Tensor, bias: Tensor | None) -> Pending:
        value = self.ready(source, node)
        bias = w.new_zeros(len(w)) if bias is None else bias
        if value.channels is not None and w.shape[1] == value.channels:
            kernel = (1, 1)
        else:
            shape = self.shape_of_map(value, node)
            kernel = (shape[-2], shape[-1])
            self.depends_on_size()
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
            if value.channels is None or value.averaged or value.flat or not value.plain:
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

    def add(self, node: fx.Node, left: fx.Node, right: fx.Node) -> Pending:
        a, b = self.value(left, node), self.value(right, node)
        widths = {len(v.bias) if isinstance(v, Pending) else v.channels for v in (a, b)}
        if len(widths - {None}) > 1:
            self.refuse(node, f"it adds maps of {widths} channels", "Add maps of the same shape")
        for value in (a, b):
            if value.averaged or value.flat:
                self.refuse(node, "it adds pooled or flattened values", "Add maps, then pool")
        if isinstance(a, Ready) and isinstance(b, Ready):
            if a.channels is None:
                self.refuse(node, "it adds the input image itself", "Put a convolution in front")
            a = self.identity(a, a.layer)
        if isinstance(a, Ready):
            a, b = b, a
        if isinstance(b, Ready):
            if a.residual is None and b.plain:
                return Pending(a.name, a.groups, a.bias, b.layer, fused=a.fused)
            if b.channels is None:
                self.refuse(node, "it adds the input image itself", "Put a convolution in front")
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
        if not all(self.origin(v) == "neuron" for v in values):
            values = [self.graded_copy(v) for v in values]
        name = self.unique(self.name(node))
        self.emit(Layer(name, "concat", sources=tuple(v.layer for v in values)))
        return Ready(name, sum(channels))

    def origin(self, value: Ready) -> str:
        """Kind of the layer whose codes it holds: max-pools and concatenations pass codes on."""
        layer = self.layer(value.layer)
        while layer.kind in ("max_pool", "concat"):
            layer = self.layer(layer.source or layer.sources[0])
        return layer.kind

    def graded_copy(self, value: Ready) -> Ready:
        """The value as signed graded values, which have a step that can be shared."""
        if self.origin(value) == "graded":
            return value
        if value.layer not in self.copies:
            self.copies[value.layer] = self.graded(self.identity(value, value.layer))
        return self.copies[value.layer]

    def max_pool(self, node: fx.Node, source: fx.Node, args: tuple) -> Ready:
        kernel, stride, padding, dilation, ceil_mode, indices = args
        if indices:
            self.refuse(node, "return_indices=True", "Spikes carry no indices")
        if self.average and pair(kernel) != (1, 1):
            if pair(dilation) != (1, 1):
                self.refuse(node, "a dilated max-pool has no average form", "Use a plain max-pool")
            self.averaged.append(self.name(node))
            return self.avg_pool(node, source, (kernel, stride, padding, ceil_mode, True), None)
        return self.pool(node, source, "max_pool", kernel, stride, padding, dilation, ceil_mode)

    def whole_windows(self, node: fx.Node, source: fx.Node, g: Geometry) -> None:
        """Refuses ceil_mode of an average-pool unless no window reaches beyond the map.

        Smaller windows at the border divide by another number. Whether there are any depends on the
        size of the map.
        """
        shape, cure = self.shape(source), "Use ceil_mode=False, or a picture size that is divisible"
        if shape is None:
            self.refuse(
                node,
                "whether ceil_mode=True makes smaller windows at the border, which divide by "
                "another number, depends on the size of the picture",
                "Pass calibration images or input_size=(N, C, H, W), or use ceil_mode=False",
            )
        pads = (sum(g.padding[:2]), sum(g.padding[2:]))
        for i in (0, 1):
            if (shape[i - 2] + pads[i] - g.kernel[i]) % g.stride[i]:
                self.refuse(
                    node,
                    f"ceil_mode=True makes smaller windows at the border of a map of {shape[-2]}x"
                    f"{shape[-1]}, which divide by another number",
                    cure,
                )
        self.depends_on_size()

    def ceiling(self, node: fx.Node, g: Geometry) -> Geometry:
        """ceil_mode as more padding at the bottom and the right.

        Windows that begin inside the map may reach beyond it: with stride - 1 more rows, rounding
        down counts them. A window that begins in that padding would have to be dropped, which
        depends on the size of the map unless padding <= kernel - stride.
        """
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
        ph, pw = pair(padding)
        kernel = pair(kernel)
        stride = kernel if stride is None or stride == [] else pair(stride)
        if kernel == (1, 1) and (ph, pw) == (0, 0) and not ceil_mode:
            return self.subsample(node, source, stride)
        value = self.spatial(source, node)
        geometry = Geometry(kernel, stride, (ph, ph, pw, pw), pair(dilation))
        reason = pool_fault(geometry)
        if reason:
            self.refuse(node, reason, "Pad less")
        if ceil_mode:
            if kind == "max_pool":
                geometry = self.ceiling(node, geometry)
            else:
                self.whole_windows(node, source, geometry)
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
        self.depends_on_size()
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
        if not value.averaged and not value.flat:
            value = self.spatial(source, node)
        return Ready(value.layer, value.channels, value.averaged, True)

    def finish(self, node: fx.Node) -> Graph:
        result = node.args[0]
        if isinstance(result, (tuple, list, dict)):
            self.refuse(
                node,
                f"the network returns {len(result)} values",
                "Return the logits alone: switch auxiliary heads and feature outputs off",
            )
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
        return Graph(self.layers, self.size, tuple(self.averaged))
