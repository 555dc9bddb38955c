"""Several values in one: maps side by side, and maps of which a part is written over."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fskernel.tracing import moved
from fskernel.tracing.gates import Gates
from fskernel.tracing.module.nodes import Node
from fskernel.tracing.values import Ready


class Joins(Gates):
    """Operations whose result holds numbers of several values, each as it is."""

    def concat(self, node: Node, parts: list[Node], dim: int) -> Ready:
        """Maps side by side; they are copied where somebody reads them side by side."""
        return self._joined(node, parts, lambda indices: torch.cat(indices, dim))

    def stack(self, node: Node, parts: list[Node], dim: int) -> Ready:
        """Maps along a new dimension."""
        return self._joined(node, parts, lambda indices: torch.stack(indices, dim))

    def written(self, node: Node, input: Node, src: object, **where) -> Ready:
        """A map of which a part has been written over."""
        zeros = isinstance(src, Tensor) and not src.any()
        if not isinstance(input, Node) or not (isinstance(src, Node) or zeros):
            self.refuse(
                node,
                "it writes numbers that are no activations into a map, or activations into a "
                "constant",
                "Fold constants into the weights, and concatenate the parts of a map: torch.cat",
            )

        if isinstance(src, Node) and src.shape[2:] != node.shape[2:]:
            self.refuse(
                node,
                "it writes what it has computed of some rows or columns back into their map",
                "Compute with the whole map, or with whole channels of it",
            )

        def over(indices: list[Tensor]) -> Tensor:
            index, *rest = indices
            part = rest[0] if rest else torch.full(src.shape, moved.ZERO)
            return moved.run(node.target, {"input": index, "src": part, **where}, index)

        return self._joined(node, [input, *([src] if isinstance(src, Node) else [])], over)

    def copied_over(self, node: Node, input: Node, src: object, non_blocking=False):
        """All of a map written over."""
        if isinstance(src, Tensor) and not src.any():
            return self.filled(node, input, 0)
        if not isinstance(src, Node):
            return self.unsupported(node, [node.op])
        value = self.value(src, node)
        if src.shape == node.shape:
            return value
        index = self.index_of(value, src).expand(node.shape)
        return self._at(value, index, node)

    def filled(self, node: Node, input: Node, value) -> Ready:
        """A map of zeros in the place of another."""
        if torch.as_tensor(value).any():
            self.refuse(
                node, f"it fills a map with {float(value):g}", "Only zeros need no synapses"
            )
        like = self.ready(input, node)
        return replace(like, index=torch.full(node.shape, moved.ZERO), averaged=False)

    def _joined(self, node: Node, parts: list[Node], join) -> Ready:
        """Values whose numbers are put together as their indices are."""
        for part in parts:
            if not isinstance(part, Node):
                self.refuse(
                    node,
                    f"it joins a constant of shape {list(part.shape)} to a map",
                    "Fold constants into the weights or the preprocessing",
                )
        values = [self._unpooled(self.ready(part, node)) for part in parts]
        pixels = {value.size[1:] for value in values}
        if len(pixels) > 1 and all(len(part.shape) in (3, 4) for part in parts):
            values = [self._plain(value, node) for value in values]
            pixels = {value.size[1:] for value in values}
        if len(pixels) > 1:
            self.refuse(
                node,
                f"it joins numbers of maps of several sizes ({_sizes(pixels)})",
                "Join channels of maps of one size",
            )
        layers = tuple(dict.fromkeys(name for value in values for name in value.layers))
        widths = {name: self.width(name) for name in layers}
        begins = dict(zip(layers, _begins(widths[n] for n in layers), strict=True))
        size = (sum(widths.values()), *pixels.pop())
        indices = []
        for value, part in zip(values, parts, strict=True):
            index = self.index_of(value, part)
            indices.append(_moved_into(index, value, widths, begins, size))
        index = join(indices)
        plain = index.shape[1:] == size and torch.equal(index, moved.fresh(*size))
        return Ready(layers, size, None if plain else index, name=node.name)


def _begins(widths) -> list[int]:
    begins, end = [], 0
    for width in widths:
        begins.append(end)
        end += width
    return begins


def _moved_into(index: Tensor, value: Ready, widths: dict, begins: dict, size) -> Tensor:
    """An index into the maps of a value, as one into those of more layers."""
    area = size[1] * size[2]
    mine = value.size[0] * area
    channel = index % mine // area
    order = torch.cat(
        [torch.arange(begins[name], begins[name] + widths[name]) for name in value.layers]
    )
    moved_to = (index // mine) * size[0] * area + order[channel] * area + index % area
    return torch.where(index < 0, moved.ZERO, moved_to)


def _sizes(pixels) -> str:
    return ", ".join(sorted(f"{h}x{w}" for h, w in pixels))
