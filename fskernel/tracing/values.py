"""What the nodes of an exported module have become so far, while it is fused into layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fskernel.codes.geometry import Geometry
from fskernel.codes.moves import Move
from fskernel.codes.windows import Windows
from fskernel.errors import ConversionError
from fskernel.graph import AVERAGING, PASSING, SIGNED, Group, Layer
from fskernel.image_sizes import as_maps
from fskernel.tracing import moved
from fskernel.tracing.module.nodes import Node
from fskernel.tracing.moved import Axis, Moves


@dataclass
class Ready:
    """Numbers of maps that layers emit, as they are or moved: views, slices, permutations, ...

    Attributes:
        layers: whose maps, side by side along the channels; more than one wait to be concatenated.
        size: channels, rows and columns of these together; (C, 1, 1) if averaged.
        index: which number stands where, int64 [2, ...] (`moved.py`); None: the map as it is.
        averaged: over the whole map, which a readout can do. pool: the average-pool that it is,
            where it is one.
        name: of the operation that moved or joined them.
    """

    layers: tuple[str, ...]
    size: tuple[int, int, int]
    index: Tensor | None = None
    averaged: bool = False
    pool: Layer | None = None
    name: str = ""

    @property
    def layer(self) -> str:
        """The one layer."""
        (layer,) = self.layers
        return layer


@dataclass
class Pending:
    """An affine sum that has not met its neuron yet; `size` is that of its map.

    An index says that its numbers have been moved, as that of Ready.
    """

    name: str
    groups: list[Group]
    bias: Tensor
    size: tuple[int, int, int]
    residual: str | None = None
    averaged: bool = False  # its only source is averaged over the map first: a readout
    fused: tuple[str, ...] = ()
    index: Tensor | None = None


@dataclass
class Read:
    """A map as an affine layer reads it: the layer's, with zeros around, every so many rows.

    Attributes:
        channels: the layer's channel that each comes from, ZERO for one of zeros; None: as it is.
        padding: top, bottom, left, right. stride: of rows and columns; both in this order.
    """

    layer: str
    size: tuple[int, int, int]
    channels: Tensor | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    stride: tuple[int, int] = (1, 1)


class Values:
    """The layers that were emitted, and for every node what its value has become.

    A value is Pending from the convolution on, until a ReLU makes it a layer of neurons or a
    reader that needs its signed values makes it a graded layer.
    """

    def __init__(self, module: nn.Module, size: tuple[int, int], average: bool = False):
        self.average, self.image = average, size
        self.modules = dict(module.named_modules())
        self.channels = 0  # of the image
        self.layers: list[Layer] = []
        self.values: dict[Node, Ready | Pending] = {}
        self.pixels: set[str] = set()  # layers whose maps are one pixel whatever the image
        self.names: set[str] = set()
        self.absorbed: list[str] = []  # modules without arithmetic of their own, for the report
        self.copies: dict[str, Ready] = {}  # graded copies of words, by the words' layer
        self.averaged: list[str] = []  # max-pools that became average-pools
        self.size: tuple[int, int] | None = None  # of the images, once something depends on it

    # ---- telling -------------------------------------------------------------------------------

    def refuse(self, node: Node, reason: str, cure: str):
        """Says why a node cannot be converted; a function is named after the module it is in."""
        name = node.name
        if name not in self.modules and node.owners:
            name, reason = node.owners[0][0], f"{reason} ({node.name})"
        raise ConversionError(name, reason, cure)

    def depends_on_size(self) -> None:
        """Notes that the layers so far fit one size of images only."""
        self.size = self.image

    # ---- layers --------------------------------------------------------------------------------

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

    def origins(self, name: str) -> set[str]:
        """Kinds of the layers whose codes a layer holds: what moves codes passes them on.

        The products of a gate have codes like graded sums.
        """
        layer = self.layer(name)
        if layer.kind in PASSING:
            return set().union(*map(self.origins, layer.heard()))
        return {"graded" if layer.kind in SIGNED else layer.kind}

    def bounds(self, name: str) -> tuple[float, float]:
        """Between which values lies whatever a layer emits, for all images that there may be."""
        layer = self.layer(name)
        if layer.kind in (*PASSING, *AVERAGING):
            lows, highs = zip(*map(self.bounds, layer.heard()), strict=True)
            if layer.kind in ("max_pool", "concat"):
                return min(lows), max(highs)
            return min(*lows, 0.0), max(*highs, 0.0)  # zeros may be padded on
        if layer.kind == "gate":
            (a, b), (c, d) = map(self.bounds, layer.sources)
            corners = [x * y if x and y else 0.0 for x in (a, b) for y in (c, d)]  # 0 * inf is 0
            return min(corners), max(corners)
        if layer.kind != "neuron":
            return -math.inf, math.inf
        if layer.activation is not None:
            return layer.activation.low, layer.activation.high
        return 0.0, math.inf if layer.ceiling is None else layer.ceiling

    def within(self, name: str, low: float = 0.0, high: float = math.inf) -> bool:
        """Whether nothing that a layer emits is below or above."""
        bounds = self.bounds(name)
        return low <= bounds[0] and bounds[1] <= high

    # ---- values --------------------------------------------------------------------------------

    def value(self, node: object, user: Node) -> Ready | Pending:
        if not isinstance(node, Node):
            self.refuse(
                user,
                f"its operand {_short(node)} is not an activation",
                "Fold constants into the weights or the preprocessing",
            )
        value = self.values[node]
        if isinstance(value, list):
            self.refuse(user, "it reads several parts of a map at once", "Read them one by one")
        return value

    def ready(self, node: Node, user: Node) -> Ready:
        value = self.value(node, user)
        if isinstance(value, Pending):
            value = self.values[node] = self.graded(value)
        return value

    def graded(self, value: Pending) -> Ready:
        """Ends an affine sum without a neuron: its signed values are what consumers read."""
        value = self.unaveraged(value)
        layer = Layer(
            self.unique(value.name), "graded", value.groups, value.bias, fused=value.fused
        )
        layer.residual = value.residual
        return self.emitted(layer, value)

    def emitted(self, layer: Layer, value: Pending) -> Ready:
        """Emits the layer that an affine sum has become."""
        self.emit(layer)
        if layer.groups and all(g.source in self.pixels for g in layer.groups):
            self.pixels.add(layer.name)
        return Ready((layer.name,), value.size, value.index, name=value.name)

    def unaveraged(self, value: Pending) -> Pending:
        """A linear layer on a map that is averaged first, if it is not the readout."""
        if not value.averaged:
            return value
        group = value.groups[0]
        source = self.average_of(Ready((group.source,), (group.weight.shape[1], 1, 1)))
        return replace(value, groups=[replace(group, source=source)], averaged=False)

    def average_of(self, value: Ready) -> str:
        """The layer that averages a map to one pixel, where no readout takes it over."""
        if value.layer in self.pixels:
            return value.layer
        if value.pool is not None:
            pool = replace(value.pool, name=self.unique(value.pool.name))
        else:
            name = self.unique(f"{value.layer}.averaged")
            windows = Windows("adaptive", output=(1, 1))
            pool = Layer(name, "mean_pool", source=value.layer, windows=windows)
        self.emit(pool)
        if value.pool is None:
            self.pixels.add(pool.name)
        return pool.name

    def identity(self, read: Read, name: str, size: tuple[int, int, int]) -> Pending:
        """A map as synapses of weight 1, one for each channel; channels of zeros have none."""
        width = size[0]
        geometry = Geometry((1, 1), read.stride, read.padding, groups=width)
        weight = torch.ones(width, 1, 1, 1, dtype=torch.float64)
        if read.channels is not None:
            weight = torch.zeros(width, read.size[0], 1, 1, dtype=torch.float64)
            kept = (read.channels >= 0).nonzero().flatten()
            weight[kept, read.channels[kept]] = 1.0
            geometry = geometry._replace(groups=1)
        group = Group(read.layer, weight, geometry, one_to_one=True)
        return Pending(f"{name}.identity", [group], weight.new_zeros(width), size)

    # ---- reading maps --------------------------------------------------------------------------

    def read(self, node: Node, user: Node, folds: str = "") -> Read:
        """A value as a map; what the reader cannot fold into itself becomes layers that move.

        Args:
            folds: what it can: "padding", "stride", "order" (of all channels, and channels of
                zeros among them), "zeros" (these alone).
        """
        value = self.ready(node, user)
        if value.averaged:
            layers = (self.average_of(value),)
            value = self.values[node] = Ready(layers, value.size, value.index, name=value.name)
        if value.index is None:
            value = self.values[node] = replace(value, layers=(self.joined(value),))
        return self.read_as(value, user, folds)

    def read_as(self, value: Ready, user: Node, folds: str = "") -> Read:
        """As `read`, of a value that is no node's."""
        if value.index is None:
            return Read(self.joined(value), value.size)
        found = moved.moves(as_maps(value.index), value.size)
        if found is None:
            self.refuse(
                user,
                f"it reads a map whose numbers '{value.name}' has moved in a way that no layer has",
                "Supported are selections and permutations of channels, every n-th row and column, "
                "parts of maps, zero padding, repetitions of rows and columns (nearest "
                "upsampling), pixel_shuffle and pixel_unshuffle",
            )
        return self._moved(value, found, folds)

    def joined(self, value: Ready) -> str:
        """The layer that holds the maps of all its layers side by side."""
        return value.layer if len(value.layers) == 1 else self._concat(value, None)

    def _concat(self, value: Ready, channels: Tensor | None) -> str:
        """Channels of several layers side by side; None: all of them."""
        layers = self.alike(value.layers)
        if channels is None:
            return self._emit_named(value, "concat", sources=layers)
        widths = [self.width(name) for name in layers]
        runs = _runs(channels, widths)
        used = sorted({i for i, _, _ in runs})
        runs = tuple((used.index(i), first, count) for i, first, count in runs)
        sources = tuple(layers[i] for i in used)
        return self._emit_named(value, "concat", sources=sources, runs=runs)

    def alike(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Layers that can share a step: all words, or all graded values."""
        if len(layers) == 1 or all(self.origins(name) == {"neuron"} for name in layers):
            return layers
        return tuple(self.graded_copy(name) for name in layers)

    def graded_copy(self, name: str) -> str:
        """A layer's values as signed graded values, which have a step that can be shared."""
        if self.origins(name) == {"graded"}:
            return name
        if name not in self.copies:
            size = (self.width(name), 0, 0)
            copy = self.identity(Read(name, size), name, size)
            self.copies[name] = self.graded(copy)
        return self.copies[name].layer

    def width(self, name: str) -> int:
        """Channels of a layer's map."""
        layer = self.layer(name)
        if layer.bias is not None:
            return len(layer.bias)
        if layer.kind == "input":
            return self.channels
        if layer.kind == "concat" and layer.runs:
            return sum(count for _, _, count in layer.runs)
        if layer.kind == "concat":
            return sum(map(self.width, layer.sources))
        width = self.width(layer.like()[0])
        return width if layer.move is None else int(width * layer.move.channel_factor())

    def _emit_named(self, value: Ready, kind: str, **fields) -> str:
        name = self.unique(value.name)
        self.emit(Layer(name, kind, **fields))
        sources = fields.get("sources") or (fields["source"],)
        if all(s in self.pixels for s in sources):
            self.pixels.add(name)
        return name

    def _moved(self, value: Ready, found: Moves, folds: str) -> Read:
        """Emits the layers that move a map, but for what its reader folds."""
        if found.unshuffle > 1:
            r = found.unshuffle
            layer = self._move(value, self.joined(value), Move("unshuffle", (r,)))
            size = (value.size[0] * r * r, value.size[1] // r, value.size[2] // r)
            value = Ready((layer,), size, value.index, name=value.name)
        folded = folds if found.shuffle == 1 else ""
        layer, size, channels = self._selected(value, found.channels, folded)
        if found.shuffle > 1:
            r = found.shuffle
            layer = self._move(value, layer, Move("shuffle", (r,)))
            size = (size[0] // (r * r), size[1] * r, size[2] * r)
        rows, columns = found.rows, found.columns
        layer, size, stride = self._cropped(value, layer, size, rows, columns)
        padding, repeats = (*rows.pad, *columns.pad), (rows.repeat, columns.repeat)
        later = repeats != (1, 1) or (any(padding) and "padding" not in folds)
        if stride != (1, 1) and (later or "stride" not in folds):
            name = self.unique(f"{layer}.subsampled")
            self.emit(Layer(name, "max_pool", source=layer, geometry=Geometry((1, 1), stride)))
            layer, stride, size = name, (1, 1), (size[0], rows.count, columns.count)
        if repeats != (1, 1):
            layer = self._spread(value, layer, size, repeats)
            size = (size[0], size[1] * repeats[0], size[2] * repeats[1])
        if any(padding) and "padding" not in folds:
            layer = self._move(value, layer, Move("pad", padding))
            top, bottom, left, right = padding
            size, padding = (size[0], size[1] + top + bottom, size[2] + left + right), (0, 0, 0, 0)
        # Zeros around what is left are so many times as many around the map.
        padding = tuple(n * s for n, s in zip(padding, _twice(stride), strict=True))
        return Read(layer, size, channels, padding, stride)

    def _selected(self, value: Ready, channels: Tensor, folds: str):
        """The layer that holds these channels, its size, and the order of them that is left."""
        width, (all_of_them, *pixels) = len(channels), value.size
        kept = channels[channels >= 0]
        every = torch.arange(all_of_them)
        if torch.equal(channels, every):
            return self.joined(value), value.size, None
        complete = torch.equal(kept.sort()[0], every)
        if complete and ("order" in folds or "zeros" in folds and len(kept) < width):
            return self.joined(value), value.size, channels
        if len(kept) == width:
            return self._concat(value, channels), (width, *pixels), None
        read = Read(self.joined(value), value.size, channels)
        copy = self.identity(read, value.name, (width, *pixels))
        return self.graded(replace(copy, name=value.name)).layer, (width, *pixels), None

    def _cropped(self, value: Ready, layer: str, size, rows: Axis, columns: Axis):
        """A part of a map: the layer that holds it, its size, and the stride that is left."""
        cut = []
        for axis, length in ((rows, size[1]), (columns, size[2])):
            end = axis.first + (axis.count - 1) * axis.step + 1
            # Every so many from the first on, up to the end, is that for any size.
            behind = length - end if length - end >= axis.step else 0
            cut += [axis.first, behind]
        if any(cut):
            self.depends_on_size()
            layer = self._move(value, layer, Move("crop", tuple(cut)))
            size = (size[0], size[1] - cut[0] - cut[1], size[2] - cut[2] - cut[3])
        return layer, size, (rows.step, columns.step)

    def _spread(self, value: Ready, layer: str, size, repeats: tuple[int, int]) -> str:
        """Rows and columns repeated: upsampling, or one pixel all over the map."""
        if layer in self.pixels:
            self.depends_on_size()
        layer = self._move(value, layer, Move("upsample", repeats))
        self.pixels.discard(layer)
        return layer

    def _move(self, value: Ready, layer: str, move: Move) -> str:
        return self._emit_named(value, "move", source=layer, move=move)


def _runs(channels: Tensor, widths: list[int]) -> tuple[tuple[int, int, int], ...]:
    """Channels of several layers side by side, as (layer, first, count)."""
    runs: list[list[int]] = []
    begins = [sum(widths[:i]) for i in range(len(widths))]
    for channel in channels.tolist():
        i = max(i for i, begin in enumerate(begins) if begin <= channel)
        at = channel - begins[i]
        if runs and runs[-1][0] == i and runs[-1][1] + runs[-1][2] == at:
            runs[-1][2] += 1
        else:
            runs.append([i, at, 1])
    return tuple((i, first, count) for i, first, count in runs)


def _twice(stride: tuple[int, int]) -> tuple[int, int, int, int]:
    return (stride[0], stride[0], stride[1], stride[1])


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)}" if value.numel() > 1 else f"{value.item():g}"
    return repr(value)
