"""Folding and fusing: what each operation of a traced module does to the float layers."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, fx

from fskernel.codes.geometry import Geometry
from fskernel.codes.weights import fold_batch_norm
from fskernel.graph import Graph, Group, Layer
from fskernel.tracing.pools import Pools
from fskernel.tracing.values import Pending, Ready


class Fuser(Pools):
    """What each operation that is no pool does to the float layers."""

    def conv(
        self, node: fx.Node, source: fx.Node, weight: Tensor, bias: Tensor | None, g: Geometry
    ) -> Pending:
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        value = self.ready(source, node)
        if value.averaged and g == Geometry((1, 1)):  # a linear layer that is written like this
            group = Group(value.layer, weight, g)
            return Pending(self.name(node), [group], bias, averaged=True, flat=value.flat)
        value = self.spatial(source, node, padded=True)
        padding = tuple(a + b for a, b in zip(g.padding, value.padding, strict=True))
        group = Group(value.layer, weight, g._replace(padding=padding))
        return Pending(self.name(node), [group], bias)

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
        if not (var + eps > 0).all():
            self.refuse(
                node, f"its running_var goes down to {float(var.min()):g}", "Repair the checkpoint"
            )
        scale, shift = fold_batch_norm(mean, var, weight, bias, eps)
        value = self.value(source, node)
        channels = value.channels if isinstance(value, Ready) else len(value.bias)
        if channels not in (None, len(scale)):
            self.refuse(node, f"{len(scale)} channels, but reads {channels}", "Repair the module")
        if isinstance(value, Ready) and any(value.zeros):  # an option-A shortcut
            value = self.identity(self.pooled(source, value), self.name(node))
        if isinstance(value, Ready) or value.residual is not None:
            value = self.spatial(source, node)
            weight, geometry = scale[:, None, None, None], Geometry((1, 1), groups=len(scale))
            group = Group(value.layer, weight, geometry, one_to_one=True)
            return Pending(self.name(node), [group], shift)
        value = times(value, scale)
        return replace(value, bias=value.bias + shift, fused=(*value.fused, self.name(node)))

    def scaled(self, node: fx.Node, source: fx.Node, factor: Tensor) -> Pending:
        """A value times a constant, a number or one for each channel: in its weights and bias."""
        value = self.value(source, node)
        if isinstance(value, Pending) and value.residual is not None and len(value.groups) > 1:
            value = self.ready(source, node)
        if isinstance(value, Ready):
            if value.channels is None:
                self.refuse(node, "it scales the image itself", "Do that in the preprocessing")
            value = self.identity(self.spatial(source, node), self.name(node))
        if value.residual is not None:
            branch = self.identity(Ready(value.residual, len(value.bias)), value.residual)
            value = replace(value, residual=None, groups=value.groups + branch.groups)
        width, rank = len(value.bias), 1 if value.flat else 3
        shape = tuple(factor.shape)
        one_each = shape[-rank:] == (width, 1, 1)[:rank] and all(n == 1 for n in shape[:-rank])
        if factor.numel() != 1 and not one_each:
            self.refuse(
                node,
                f"it multiplies a map of {width} channels by a constant of shape {shape}",
                "Only a number, or one for each channel, folds into weights",
            )
        return times(value, factor.reshape(-1).expand(width))

    def linear(self, node: fx.Node, source: fx.Node, w: Tensor, bias: Tensor | None) -> Pending:
        value = self.ready(source, node)
        bias = w.new_zeros(len(w)) if bias is None else bias
        if value.channels is not None and w.shape[1] == value.channels:
            kernel = (1, 1)
        elif value.averaged and value.channels is not None:
            self.refuse(
                node,
                f"it reads {w.shape[1]} features and is given {value.channels}",
                "Repair the module",
            )
        else:
            shape = self.shape_of_map(value.layer, node)
            kernel = (shape[-2], shape[-1])
            self.depends_on_size()
        if not (value.flat or value.averaged and kernel == (1, 1)):
            self.refuse(node, "it reads a map, not features", "Flatten in front of a linear layer")
        w = w.reshape(len(w), -1, *kernel)
        group = Group(value.layer, w, Geometry(kernel))
        return Pending(self.name(node), [group], bias, averaged=value.averaged, flat=True)

    def relu(self, node: fx.Node, source: fx.Node, ceiling: float | None) -> Ready:
        value = self.value(source, node)
        if isinstance(value, Ready):
            origin = self.unpooled(value.layer)
            if origin.kind == "neuron" and ceiling in (None, origin.ceiling):
                return replace(value)  # the ReLU of what is one already, and a tensor of its own
            if value.channels is None:
                self.refuse(node, "it acts on the input", "Remove this ReLU")
            value = self.spatial(source, node)
            value = self.identity(value, value.layer)
        value = self.unaveraged(value, node)
        layer = Layer(self.unique(value.name), "neuron", value.groups, value.bias)
        layer.residual, layer.ceiling = value.residual, ceiling
        layer.fused = (*value.fused, self.name(node))
        self.emit(layer)
        return Ready(layer.name, len(value.bias), flat=value.flat)

    def add(self, node: fx.Node, left: fx.Node, right: fx.Node) -> Pending:
        a, b = (self.pooled(n, self.value(n, node)) for n in (left, right))
        if a is b and isinstance(a, Pending):  # one convolution, and twice what it gives
            return times(a, a.bias.new_full((len(a.bias),), 2.0))
        widths = {len(v.bias) if isinstance(v, Pending) else v.channels for v in (a, b)}
        if len(widths - {None}) > 1:
            self.refuse(node, f"it adds maps of {widths} channels", "Add maps of the same shape")
        shapes = [shape for shape in map(self.shape, (left, right)) if shape is not None]
        sizes = [shape[2:] for shape in shapes if len(shape) == 4]
        if len(set(sizes)) > 1:
            one, other = (f"{h}x{w}" for h, w in sizes)
            self.refuse(
                node,
                f"it adds maps of {one} and {other} pixels, the smaller of which is repeated over "
                "the other (broadcast); synapses that reach one neuron come from one size of map",
                "Take the branch of the smaller map out, or a network without global context",
            )
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
            ready = self.graded(b, node)
            if a.residual is None:
                return Pending(a.name, a.groups, a.bias, ready.layer, fused=a.fused)
            ready_a = self.graded(a, node)
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
            values = [self.graded_copy(v, node) for v in values]
        name = self.unique(self.name(node))
        self.emit(Layer(name, "concat", sources=tuple(v.layer for v in values)))
        return Ready(name, sum(channels))

    def origin(self, value: Ready) -> str:
        """Kind of the layer whose codes it holds: max-pools and concatenations pass codes on."""
        layer = self.layer(value.layer)
        while layer.kind in ("max_pool", "concat"):
            layer = self.layer(layer.source or layer.sources[0])
        return layer.kind

    def graded_copy(self, value: Ready, user: fx.Node) -> Ready:
        """The value as signed graded values, which have a step that can be shared."""
        if self.origin(value) == "graded":
            return value
        if value.layer not in self.copies:
            self.copies[value.layer] = self.graded(self.identity(value, value.layer), user)
        return self.copies[value.layer]

    def flatten(self, node: fx.Node, source: fx.Node) -> Ready | Pending:
        value = self.value(source, node)
        if isinstance(value, Pending) and (value.flat or value.averaged):
            return replace(value, flat=True)
        value = self.whole_pool(self.ready(source, node))
        if not value.averaged and not value.flat:
            value = self.spatial(source, node)
        return Ready(value.layer, value.channels, value.averaged, True)

    def squeeze(self, node: fx.Node, source: fx.Node, dim: object) -> Ready | Pending:
        """The axes of a map that is averaged to one pixel, taken away together or in turn."""
        axes = (2, 3) if dim is None else tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
        value = self.value(source, node)
        pixel = value.averaged or isinstance(value, Ready) and value.pools_all
        if not pixel or not {d % 4 if d >= -2 else d for d in axes} <= {2, 3}:
            self.refuse(
                node,
                "it takes pixels or axes of what is not known to be averaged to one pixel",
                "Use the order pool, flatten, linear: torch.flatten(x, 1)",
            )
        inner = getattr(source.target, "__name__", source.target) == "squeeze"
        return self.flatten(node, source) if len(axes) > 1 or inner else value

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
        kinds = {name: self.kind(name) for layer in self.layers for name in layer.fused}
        averaged = tuple(self.averaged)
        return Graph(self.layers, self.size, averaged, tuple(kinds.items())).pruned()


def times(value: Pending, factor: Tensor) -> Pending:
    """An affine sum without a residual, each channel times its factor [C]."""
    weights = [g.weight * factor[:, None, None, None] for g in value.groups]
    groups = [replace(g, weight=w) for g, w in zip(value.groups, weights, strict=True)]
    return replace(value, groups=groups, bias=value.bias * factor)
