"""Folding and fusing: what each operation of an exported module does to the float layers."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fskernel.codes.geometry import Geometry, resolve_padding
from fskernel.codes.moves import Move
from fskernel.codes.weights import fold_batch_norm
from fskernel.graph import Group, Layer, affine
from fskernel.image_sizes import as_maps
from fskernel.tracing import moved
from fskernel.tracing.module.nodes import Node
from fskernel.tracing.pools import Pools, both, map_size
from fskernel.tracing.values import Pending, Read, Ready

ONE_EACH = "Only a number, or one for each channel, folds into weights"


class Fuser(Pools):
    """What each operation that is no pool does to the float layers."""

    # ---- weights -------------------------------------------------------------------------------

    def exact(self, tensor: object, name: str, node: Node, finite: bool = True) -> Tensor:
        """A tensor of weights in float64, checked."""
        if isinstance(tensor, Node):
            self.refuse(
                node,
                f"its {name} is computed from the image at hand ({tensor.name})",
                "A synapse multiplies a spike with a weight that is fixed",
            )
        tensor = torch.as_tensor(tensor, dtype=torch.float64).detach()
        if finite and not torch.isfinite(tensor).all():
            self.refuse(node, f"its {name} holds NaN or infinite values", "Repair the checkpoint")
        return tensor

    def conv(self, node: Node, input, weight, bias, stride, padding, dilation, groups) -> Pending:
        weight = self.exact(weight, "weight", node)
        bias = weight.new_zeros(len(weight)) if bias is None else self.exact(bias, "bias", node)
        if weight.dim() == 3:
            weight = weight[:, :, None]
        geometry = self.conv_geometry(weight, stride, padding, dilation, groups)
        size = map_size(node.shape)
        value = self.ready(input, node)
        if value.size[1:] == (1, 1) and map_size(input.shape) != value.size:
            return self._of_pixel(node, value, input, weight, bias, geometry)
        if value.averaged and geometry == Geometry((1, 1)):  # a linear layer, written like this
            return self._readout(node, value, input, weight.flatten(1), bias)
        read = self.read(input, node, "padding order" if groups == 1 else "padding")
        if read.channels is not None:
            weight = _unordered(weight, read.channels, read.size[0])
        padding = tuple(a + b for a, b in zip(geometry.padding, read.padding, strict=True))
        group = Group(read.layer, weight, geometry._replace(padding=padding))
        return Pending(node.name, [group], bias, size)

    def _of_pixel(
        self, node: Node, value: Ready, input: Node, weight: Tensor, bias: Tensor, g: Geometry
    ) -> Pending:
        """A convolution over channels of one pixel that lie in a row: a linear layer of them."""
        index = as_maps(self.index_of(value, input))
        width = value.size[0]
        if not torch.equal(index[1], torch.where(index[0] < 0, index[0], index[0] + width)):
            self.refuse(node, "it mixes images of a batch", "Keep the images apart")
        one_each = F.pad(torch.eye(width, dtype=torch.float64), (0, 1))[:, index[0]]  # the last: 0
        made = affine(Group("", weight, g), one_each)
        size = (made[0].numel(), 1, 1)
        group = Group(self.joined(value), made.flatten(1).t()[:, :, None, None], Geometry((1, 1)))
        bias = bias[:, None, None].expand(made.shape[1:]).flatten()
        places = moved.fresh(*size).view(node.shape)
        return Pending(node.name, [group], bias, size, averaged=value.averaged, index=places)

    def conv_geometry(self, weight: Tensor, stride, padding, dilation, groups: int) -> Geometry:
        """Geometry of a convolution with weights [O, I/groups, kh, kw]."""
        kernel, dilation = tuple(weight.shape[2:]), both(dilation)
        given = padding if isinstance(padding, str) else both(padding, 0)
        padding = resolve_padding(given, kernel, dilation)
        return Geometry(kernel, both(stride), padding, dilation, groups)

    def conv_transpose(
        self, node: Node, input, weight, bias, stride, padding, output_padding, groups, dilation
    ) -> Ready | Pending:
        """As a convolution that gives the pixels of every phase as channels, then a shuffle."""
        weight = self.exact(weight, "weight", node)
        if weight.dim() == 3:
            weight = weight[:, :, None]
        steps, pads, dilation = both(stride), both(padding, 0), both(dilation)
        out = weight.shape[1] * groups
        bias = weight.new_zeros(out) if bias is None else self.exact(bias, "bias", node)
        read = self.read(input, node)
        # Per axis: (phase, input rows further down, kernel row) of every pair that meets.
        axes = [
            _phases(*numbers)
            for numbers in zip(weight.shape[2:], steps, pads, dilation, strict=True)
        ]
        low = [min(0, *(t[1] for t in taps)) for taps in axes]
        high = [max(0, *(t[1] for t in taps)) for taps in axes]
        kernel = [last - first + 1 for first, last in zip(low, high, strict=True)]
        into, per = weight.shape[0] // groups, weight.shape[1]
        wide = weight.new_zeros(groups, per, *steps, into, *kernel)
        given = weight.view(groups, into, per, *weight.shape[2:]).transpose(1, 2)
        for y, down, i in axes[0]:
            for x, right, j in axes[1]:
                wide[:, :, y, x, :, down - low[0], right - low[1]] = given[..., i, j]
        rows, columns = map_size(node.shape)[1:]
        needed = [-(-rows // steps[0]), -(-columns // steps[1])]
        over = [n + last - have for n, last, have in zip(needed, high, read.size[1:], strict=True)]
        padding = (-low[0], max(over[0], 0), -low[1], max(over[1], 0))
        wide = wide.reshape(out * steps[0] * steps[1], into, *kernel)
        geometry = Geometry(tuple(kernel), (1, 1), padding, (1, 1), groups)
        have = geometry.output_size(*read.size[1:])
        size = (len(wide), *have)
        bias = bias.repeat_interleave(steps[0] * steps[1])
        made = Pending(node.name, [Group(read.layer, wide, geometry)], bias, size)
        index = moved.fresh(*size).view(2, out, *steps, *have).permute(0, 1, 4, 2, 5, 3)
        index = index.reshape(2, out, have[0] * steps[0], -1)[:, :, :rows, :columns]
        return self._at(made, index.squeeze(2) if len(node.shape) == 3 else index, node)

    def linear(self, node: Node, input, weight, bias) -> Pending:
        w = self.exact(weight, "weight", node)
        bias = w.new_zeros(len(w)) if bias is None else self.exact(bias, "bias", node)
        if w.shape[1] != input.shape[-1]:
            self.refuse(
                node,
                f"it reads {w.shape[1]} features and is given {input.shape[-1]}",
                "Repair the module",
            )
        value = self.ready(input, node)
        if len(input.shape) == 2:
            return self._readout(node, value, input, w, bias)
        channels_first = self.index_of(value, input).movedim(-1, 1)
        read = self.read_as(replace(value, index=channels_first), node, "order")
        w = w[:, :, None, None]
        if read.channels is not None:
            w = _unordered(w, read.channels, read.size[0])
        size = (len(w), *read.size[1:])
        back = moved.fresh(*size).view(2, len(w), *node.shape[1:-1]).movedim(1, -1)
        group = Group(read.layer, w, Geometry((1, 1)))
        return Pending(node.name, [group], bias, size, index=back)

    def shown(self, value: Ready, node: Node) -> Pending:
        """Features [N, F] as logits: of each its own, and nothing else."""
        one = torch.eye(math.prod(node.shape[1:]), dtype=torch.float64)
        made = self._readout(node, value, node, one, one.new_zeros(len(one)))
        return replace(made, groups=[replace(g, one_to_one=True) for g in made.groups])

    def _readout(self, node: Node, value: Ready, input: Node, w: Tensor, bias: Tensor) -> Pending:
        """A linear layer on features [N, F], wherever in their map each of them is."""
        size = (len(w), 1, 1)
        channels, height, width = value.size
        numbers = channels * height * width
        places = self.index_of(value, input)
        first, second = places.flatten(1)[[0, -1]]
        if len(places) != 2 or not torch.equal(
            second, torch.where(first < 0, first, first + numbers)
        ):
            self.refuse(node, "it mixes images of a batch", "Keep the images apart: flatten(x, 1)")
        if value.pool is not None or not (
            value.averaged or all(name in self.pixels for name in value.layers)
        ):
            self.depends_on_size()
        layer = self.joined(value)
        kept = first >= 0
        if numbers == len(first) and bool((first == torch.arange(numbers)).all()):
            weight = w
        else:
            weight = w.new_zeros(len(w), numbers).index_add_(1, first[kept], w[:, kept])
        group = Group(layer, weight.reshape(len(w), *value.size), Geometry((height, width)))
        return Pending(node.name, [group], bias, size, averaged=value.averaged)

    def batch_norm(
        self, node: Node, input, weight, bias, running_mean, running_var, eps, training=False
    ) -> Pending:
        """Folded into the affine sum in front of it; else one synapse a channel, and a bias."""
        if running_mean is None or running_var is None:
            self.refuse(node, "it has no running statistics", "Train with track_running_stats=True")
        if training:
            self.refuse(node, "it uses statistics of the batch", "Pass training=self.training")
        names = ("running_mean", "running_var", "weight", "bias")
        tensors = zip((running_mean, running_var, weight, bias), names, strict=True)
        mean, var, weight, bias = (
            None if t is None else self.exact(t, n, node) for t, n in tensors
        )
        if not (var + eps > 0).all():
            self.refuse(
                node, f"its running_var goes down to {float(var.min()):g}", "Repair the checkpoint"
            )
        scale, shift = fold_batch_norm(mean, var, weight, bias, eps)
        if len(scale) != input.shape[1]:
            self.refuse(
                node, f"{len(scale)} channels, but reads {input.shape[1]}", "Repair the module"
            )
        column = (1, -1, *([1] * (len(input.shape) - 2)))
        return self.affine(node, input, scale.view(column), shift.view(column), True)

    # ---- arithmetic ----------------------------------------------------------------------------

    def affine(
        self, node: Node, input, factor: object, shift: object, norm: bool = False
    ) -> Pending:
        """A value times constants, plus constants: numbers, or one of each for every channel.

        norm: it is a batch norm, a layer of its own where it does not follow an affine sum.
        """
        value = self.value(input, node)
        if isinstance(value, Pending) and (norm or len(value.groups) > 1):
            if value.residual is not None:
                value = self.values[input] = self.graded(value)
        if isinstance(value, Ready):
            value = self.as_synapses(value, node, node.name if norm else None)
        if value.residual is not None:
            read = Read(value.residual, value.size)
            branch = self.identity(read, value.residual, value.size)
            value = replace(value, residual=None, groups=value.groups + branch.groups)
        value = times(value, self.per_channel(node, value, factor, 1.0))
        fused = value.fused
        if norm and value.name != node.name:
            fused = (*fused, node.name)
        bias = value.bias + self.per_channel(node, value, shift, 0.0)
        return replace(value, bias=bias, fused=fused)

    def as_synapses(self, value: Ready, user: Node, name: str | None = None) -> Pending:
        """A value as synapses of weight 1, one a neuron, still moved if it only is in disorder."""
        if value.averaged:
            value = replace(value, layers=(self.average_of(value),), averaged=False, pool=None)
        index = value.index
        if index is not None and not all_there(index, value.size):
            read = self.read_as(value, user, "padding stride zeros")
            index = None
        else:
            read = Read(self.joined(value), value.size)
        made = self.identity(read, read.layer, _read_size(read))
        return replace(made, index=index, name=name or made.name)

    def per_channel(self, node: Node, value: Pending, constant: object, default: float) -> Tensor:
        """A constant as one number for each channel of an affine sum, float64 [C].

        Args:
            constant: broadcasts to the sum's shape, which may have been moved.
            default: for channels that are not among what is left of them.
        """
        exact = self.exact(constant, "factor" if default else "term", node)
        width = value.size[0]
        if exact.numel() == 1:
            return exact.reshape(1).expand(width)
        shape = node.shape
        index = value.index
        if index is None:
            index = moved.fresh(*value.size).view(shape)
        found = torch.full((width,), default, dtype=torch.float64)
        try:
            given = exact.expand((1, *shape[1:])) if exact.dim() <= len(shape) else None
        except RuntimeError:
            given = None
        if given is not None and index.shape == shape:
            channel = index[:1].div(value.size[1] * value.size[2], rounding_mode="floor")
            found[channel.flatten()] = given.flatten()
            if torch.equal(found[channel], given):
                return found
        self.refuse(
            node,
            f"it takes a map of {width} channels and a constant of shape {tuple(exact.shape)}",
            ONE_EACH,
        )

    def add(self, node: Node, left: Node, right: Node) -> Pending:
        """The sum of two maps: synapses of one neuron, from both sides."""
        return self.add_values(node, left, right, self.value(right, node))

    def add_values(self, node: Node, left: Node, right: Node, b: Ready | Pending) -> Pending:
        """As `add`, with what the right node's value has become."""
        a = self.value(left, node)
        if a is b and isinstance(a, Pending):  # one convolution, and twice what it gives
            return times(a, a.bias.new_full((len(a.bias),), 2.0))
        if left.shape != right.shape:
            a, b = self._spread_out(node, (left, a), (right, b))
        else:
            a, b = self._side_by_side(a, b, node)
        index, a, b = a.index, replace(a, index=None), replace(b, index=None)
        if isinstance(a, Ready) and isinstance(b, Ready):
            a = self.identity(Read(a.layer, a.size), a.layer, a.size)
        if isinstance(a, Ready):
            a, b = b, a
        return replace(self._sum(a, b), index=index)

    def _sum(self, a: Pending, b: Pending | Ready) -> Pending:
        if isinstance(b, Ready):
            if a.residual is None:
                return replace(a, residual=b.layer)
            b = self.identity(Read(b.layer, b.size), b.layer, b.size)
        if a.residual is not None and b.residual is not None or len(a.groups + b.groups) > 2:
            ready = self.graded(b)
            if a.residual is None:
                return replace(a, residual=ready.layer)
            other = self.graded(a)
            merged = self.identity(Read(other.layer, other.size), a.name, other.size)
            return replace(merged, name=a.name, residual=ready.layer)
        return Pending(
            a.name,
            a.groups + b.groups,
            a.bias + b.bias,
            a.size,
            a.residual or b.residual,
            fused=(*a.fused, b.name, *b.fused),
        )

    def _side_by_side(self, a, b, node: Node):
        """Two values of one shape, both as plain maps or moved in the same way."""
        a, b = (self.unaveraged(v) if isinstance(v, Pending) else self._unpooled(v) for v in (a, b))
        same = (
            a.index is not None
            and b.index is not None
            and a.size == b.size
            and torch.equal(a.index, b.index)
            and all_there(a.index, a.size)
        )
        if same:
            joined = (
                replace(v, layers=(self.joined(v),)) if isinstance(v, Ready) else v for v in (a, b)
            )
            return tuple(joined)
        return tuple(self._straight(v, node) for v in (a, b))

    def _unpooled(self, value: Ready) -> Ready:
        if not value.averaged:
            return value
        return replace(value, layers=(self.average_of(value),), averaged=False, pool=None)

    def _straight(self, value, node: Node):
        """A value as a plain map, or as an affine sum that gives one."""
        if value.index is None:
            if isinstance(value, Ready):
                return replace(value, layers=(self.joined(value),))
            return value
        if isinstance(value, Pending):
            value = self.graded(value)
        read = self.read_as(value, node, "padding stride zeros")
        size = _read_size(read)
        if read == Read(read.layer, read.size):
            return Ready((read.layer,), size)
        return self.identity(read, read.layer, size)

    def _plain(self, value: Ready, node: Node) -> Ready:
        """A value as the map of one layer."""
        read = self.read_as(value, node)
        return Ready((read.layer,), read.size, name=value.name)

    def _spread_out(self, node: Node, *operands: tuple[Node, Ready | Pending]):
        """Two values of which one is repeated over the other (broadcast), as maps of one size."""
        ready = [
            (operand, self._unpooled(self.graded(v) if isinstance(v, Pending) else v))
            for operand, v in operands
        ]
        wide = next((v for operand, v in ready if operand.shape == node.shape), None)
        made = []
        for operand, value in ready:
            if operand.shape != node.shape:
                pixel = all(name in self.pixels for name in value.layers)
                if pixel and wide is not None and set(operand.shape[2:]) == {1}:
                    made.append(self._all_over(node, value, wide))
                    continue
                try:
                    index = self.index_of(value, operand).expand(node.shape)
                except RuntimeError:
                    index = None
                if index is None or operand.shape[0] != node.shape[0]:
                    shapes = " and ".join(str(list(o.shape[1:])) for o, _ in ready)
                    self.refuse(
                        node,
                        f"it adds maps of shapes {shapes}",
                        "Add maps of the same shape, or one of a single pixel",
                    )
                value = replace(value, index=index, name=node.name)
            made.append(self._straight(value, node))
        return made

    def _all_over(self, node: Node, value: Ready, wide: Ready) -> Ready:
        """One pixel as a map of the size of another."""
        like = self._straight(wide, node)
        layer = like.layer if isinstance(like, Ready) else self.graded(like).layer
        name = self.unique(node.name)
        self.emit(Layer(name, "move", sources=(self.joined(value), layer), move=Move("expand", ())))
        return Ready((name,), (value.size[0], *wide.size[1:]))

    # ---- moves ---------------------------------------------------------------------------------

    def move(self, node: Node, input: Node) -> Ready | Pending | list:
        """A view, slice, permutation, pad or repetition (`moved.py`)."""
        value = self.value(input, node)
        index = self.index_of(value, input)
        arguments = dict(node.arguments)
        if node.op in ("constant_pad_nd", "pad"):
            fill = arguments.get("value")
            if arguments.get("mode", "constant") != "constant" or fill:
                how = arguments.get("mode", "constant")
                self.refuse(
                    node, f"it pads in mode {how!r} with {fill or 0:g}", "Pad the map with zeros"
                )
            arguments["value"] = moved.ZERO
        floats = "upsample" in node.op
        given = index.double() if floats else index
        result = moved.run(node.target, arguments, given)
        if floats:
            result = result.round()
        if isinstance(result, (tuple, list)):
            return [self._at(value, part.long(), node) for part in result]
        return self._at(value, result.long(), node)

    def _at(self, value: Ready | Pending, index: Tensor, node: Node) -> Ready | Pending:
        """A value with its numbers elsewhere."""
        if index.shape[1:] == value.size and torch.equal(index, moved.fresh(*value.size)):
            index = None
        if isinstance(value, Ready):
            return replace(value, index=index, name=node.name)
        return _cut(replace(value, index=index))


def times(value: Pending, factor: Tensor) -> Pending:
    """An affine sum without a residual, each channel times its factor [C]."""
    weights = [g.weight * factor[:, None, None, None] for g in value.groups]
    groups = [replace(g, weight=w) for g, w in zip(value.groups, weights, strict=True)]
    return replace(value, groups=groups, bias=value.bias * factor)


def _cut(value: Pending) -> Pending:
    """An affine sum of which a selection of channels is left, as the sum of these alone."""
    if value.index is None or value.residual is not None:
        return value
    found = moved.moves(as_maps(value.index), value.size)
    whole = (moved.whole(value.size[1]), moved.whole(value.size[2]))
    if (
        found is None
        or (found.unshuffle, found.shuffle) != (1, 1)
        or (found.rows, found.columns) != whole
        or bool((found.channels < 0).any())
        or value.index.dim() != 4
        or any(g.geometry.groups > 1 for g in value.groups)
    ):
        return value
    groups = [replace(g, weight=g.weight[found.channels]) for g in value.groups]
    size = (len(found.channels), *value.size[1:])
    return replace(value, groups=groups, bias=value.bias[found.channels], size=size, index=None)


def _phases(kernel: int, stride: int, padding: int, dilation: int) -> list[tuple[int, int, int]]:
    """Along one axis: (phase, input rows further down, kernel row), of a transposed convolution.

    Input row j reaches output row stride j - padding + dilation k through kernel row k, so output
    row stride i + phase is reached from row i + (phase + padding - dilation k) / stride.
    """
    found = []
    for phase in range(stride):
        for k in range(kernel):
            further, rest = divmod(phase + padding - dilation * k, stride)
            if not rest:
                found.append((phase, further, k))
    return found


def all_there(index: Tensor, size: tuple[int, int, int]) -> bool:
    """Whether an index holds every number of the maps once."""
    numbers = 2 * size[0] * size[1] * size[2]
    if index.numel() != numbers:
        return False
    return torch.equal(index.flatten().sort()[0], torch.arange(numbers))


def _read_size(read: Read) -> tuple[int, int, int]:
    """Of the map that is read, with its zeros."""
    geometry = Geometry((1, 1), read.stride, read.padding)
    width = read.size[0] if read.channels is None else len(read.channels)
    return width, *geometry.output_size(*read.size[1:])


def _unordered(weight: Tensor, channels: Tensor, width: int) -> Tensor:
    """Weights [O, I, ...] for the channels in the order in which their layer has them."""
    kept = channels >= 0
    made = weight.new_zeros(len(weight), width, *weight.shape[2:])
    made[:, channels[kept]] = weight[:, kept]
    return made
