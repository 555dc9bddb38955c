"""Products of activations: squeeze-and-excitation, attention to channels or places, x * y."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fskernel.activations import Activation
from fskernel.codes.geometry import Geometry
from fskernel.codes.moves import Move
from fskernel.graph import Group, Layer
from fskernel.image_sizes import as_maps
from fskernel.tracing import moved
from fskernel.tracing.fuse import all_there
from fskernel.tracing.module.nodes import Node
from fskernel.tracing.neurons import Neurons
from fskernel.tracing.pools import map_size
from fskernel.tracing.values import Pending, Ready


class Gates(Neurons):
    """Operations that multiply what two layers give."""

    def gate(self, node: Node, left: Node, right: Node) -> Ready:
        """The product of two maps, of which one may be a pixel or a channel for all of the other.

        Either may be the larger one, and may have been expanded before.
        """
        values = [self._unpooled(self.ready(operand, node)) for operand in (left, right)]
        wholes = [
            self._over(node, operand, value)
            for operand, value in zip((left, right), values, strict=True)
        ]
        size, order = map_size(node.shape), None
        for value, whole in zip(values, wholes, strict=True):
            if all_there(whole, value.size) and moved.moves(as_maps(whole), value.size) is None:
                size, order = value.size, whole  # both in an order that no layer has
        if order is not None:
            back = order.flatten().argsort()
            wholes = [whole.flatten()[back].view(2, *size) for whole in wholes]
        factors = [
            _factor(value, as_maps(whole), size)
            for value, whole in zip(values, wholes, strict=True)
        ]
        factors.sort(key=lambda factor: factor[0] != "map")
        kind, other = (factor[0] for factor in factors)
        if kind == other != "map":  # both have been expanded
            kind = other = "map"
            factors = [("map", whole, whole) for _, _, whole in factors]
        layers = [self._plain(value, node).layer for _, value, _ in factors]
        for kind_of, layer in zip((kind, other), layers, strict=True):
            if kind_of == "pixel" and layer not in self.pixels:
                self.depends_on_size()
        if kind != "map":  # a pixel for a whole map, and a channel for all channels
            if kind == "channel":
                layers.reverse()
            name = self.unique(f"{node.name}.spread")
            expand = Layer(name, "move", sources=tuple(layers), move=Move("expand", ()))
            self.emit(expand)
            layers[0] = name
        name = self.unique(node.name)
        self.emit(Layer(name, "gate", sources=tuple(layers)))
        if all(layer in self.pixels for layer in layers):
            self.pixels.add(name)
        return Ready((name,), size, order, name=node.name)

    def glu(self, node: Node, input: Node, dim: int) -> Ready:
        """Half of the channels times the sigmoid of the others."""
        value = self.value(input, node)
        halves = self.index_of(value, input).chunk(2, dim)
        first, second = (self._at(value, half, node) for half in halves)
        second = self._neurons(node, second, Activation("sigmoid"))
        parts = [Node("getitem", node.name, {}, node.shape) for _ in range(2)]
        self.values |= zip(parts, (first, second), strict=True)
        return self.gate(node, *parts)

    def mean_over(self, node: Node, input, dim, keepdim) -> Ready | Pending:
        """The mean over rows and columns, or over the channels of every pixel."""
        rank = len(input.shape)
        if rank != 4 or not dim or [d % rank for d in dim] != [1]:
            return super().mean_over(node, input, dim, keepdim)
        read = self.read(input, node)
        weight = torch.full((1, read.size[0], 1, 1), 1 / read.size[0], dtype=torch.float64)
        group = Group(read.layer, weight, Geometry((1, 1)))
        size = (1, *read.size[1:])
        index = None if keepdim else moved.fresh(*size).view(node.shape)
        return Pending(node.name, [group], weight.new_zeros(1), size, index=index)

    def expanded(self, node: Node, input: Node, other: object) -> Ready | Pending:
        """A value repeated over the shape of another."""
        value = self.value(input, node)
        return self._at(value, self.index_of(value, input).expand(node.shape), node)

    def _over(self, node: Node, operand: Node, value: Ready) -> Tensor:
        """Which number of a factor stands where in the product, int64 of its shape."""
        if len(operand.shape) != len(node.shape) or operand.shape[0] != node.shape[0]:
            shapes = " and ".join(str(list(o.shape)) for o in node.inputs())
            self.refuse(
                node,
                f"it multiplies maps of shapes {shapes}",
                "Multiply maps of one shape, or a map with one number for each channel "
                "[N, C, 1, 1] or each pixel [N, 1, H, W]",
            )
        return self.index_of(value, operand).expand(node.shape)


def _factor(value: Ready, whole: Tensor, size: tuple[int, int, int]) -> tuple[str, Ready, Ready]:
    """A factor: "map", "pixel" or "channel"; as a value that is that; and all of its map."""
    kind, part = "map", whole
    if size[1:] != (1, 1) and _is_repeated(whole, whole[:, :, :1, :1]):
        kind, part = "pixel", whole[:, :, :1, :1]
    elif size[0] > 1 and _is_repeated(whole, whole[:, :1]):
        kind, part = "channel", whole[:, :1]
    fresh = moved.fresh(*value.size)
    made = (
        replace(value, index=None if torch.equal(index, fresh) else index, name=value.name or "mul")
        for index in (part, whole)
    )
    return kind, *made


def _is_repeated(whole: Tensor, part: Tensor) -> bool:
    return torch.equal(whole, part.expand_as(whole))
