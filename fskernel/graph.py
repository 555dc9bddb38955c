"""The float form of a network between torch.export and spikes: a list of fused layers.

`fskernel.trace.trace` makes it from a module; conversion, calibration, the rate-coded baseline
and the float64 yardstick all read it, so folding and fusing happen in one place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from fskernel.activations import Activation
from fskernel.codes.geometry import Geometry
from fskernel.codes.moves import Move, Run, side_by_side
from fskernel.codes.windows import Windows
from fskernel.image_sizes import ImageSizes, as_maps
from fskernel.tail import Tail

HEADS = ("readout", "map_readout", "output")  # kinds that give the network's floats
PASSING = ("max_pool", "concat", "move")  # kinds that pass codes on unchanged
AVERAGING = ("avg_pool", "mean_pool")  # kinds that average them, channel by channel
SIGNED = ("graded", "gate")  # kinds whose values are no neurons', and signed


@dataclass
class Group:
    """One synapse group: the layer it comes from and its float weights [O, I/groups, kh, kw].

    one_to_one: it only passes channels on, scaled or not, so what `weight` has beside one number a
    channel are no synapses, and none of it is a multiply-accumulate of the dense network.
    """

    source: str
    weight: Tensor = field(repr=False)
    geometry: Geometry
    one_to_one: bool = False


@dataclass
class Layer:
    """One fused layer.

    kind is "input", "neuron" (affine sum and ReLU, up to a `ceiling` where there is one, or another
    `activation`), "graded" (affine sum alone), "gate" (the product of what its two `sources` give;
    the second may be one pixel for the whole map of the first, or one channel for all of its),
    "max_pool", "avg_pool" (one `geometry`, one divisor), "mean_pool" (`windows` of several sizes,
    or large),
    "concat" (of `sources`, along the channels; with `runs`, of those of their channels), "move"
    (of `source`; "expand": of the first of `sources`, to the size of the second), or a head, which
    gives floats: "readout" (linear, with a global average pool in front if `pool`), "map_readout"
    (affine sum, of every pixel) or "output" (of `source`, as it is).
    """

    name: str
    kind: str
    groups: list[Group] = field(default_factory=list)
    bias: Tensor | None = field(default=None, repr=False)
    residual: str | None = None
    source: str | None = None
    sources: tuple[str, ...] = ()
    geometry: Geometry | None = None
    runs: tuple[Run, ...] = ()
    move: Move | None = None
    windows: Windows | None = None
    pool: bool = False
    ceiling: float | None = None
    activation: Activation | None = None
    fused: tuple[str, ...] = ()

    def inputs(self) -> list[str]:
        """Names of the layers this one reads."""
        names = [g.source for g in self.groups]
        return [*names, *self.sources, *(n for n in (self.residual, self.source) if n)]

    def heard(self) -> list[str]:
        """Those of them of which it reads values, and not the size alone."""
        names = self.inputs()
        return names[:1] if self.kind == "move" else names

    def like(self) -> list[str]:
        """Those whose channels its own are, where it has no affine sum."""
        names = self.heard()
        return names[:1] if self.kind == "gate" else names


def affine(group: Group, x: Tensor) -> Tensor:
    """The convolution of one group: x [N, I, H, W] -> [N, O, OH, OW], without bias."""
    g = group.geometry
    top, bottom, left, right = g.padding
    if top == bottom and left == right:
        padding = (top, left)
    else:
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    return F.conv2d(x, group.weight, None, g.stride, padding, g.dilation, g.groups)


def pool(layer: Layer, x: Tensor) -> Tensor:
    """A max or average pool (padding counted as zeros in the average), x [N, C, H, W]."""
    g = layer.geometry
    top, bottom, left, right = g.padding
    fill = float("-inf") if layer.kind == "max_pool" else 0.0
    if any(g.padding):
        x = F.pad(x, (left, right, top, bottom), value=fill)
    if layer.kind == "max_pool":
        return F.max_pool2d(x, g.kernel, g.stride, 0, g.dilation)
    return F.avg_pool2d(x, g.kernel, g.stride)


def relu(layer: Layer, v: Tensor) -> Tensor:
    """The neuron of the dense network: ReLU, ReLU6 where there is a ceiling, or the activation."""
    if layer.activation is not None:
        return layer.activation(v)
    return v.clamp(min=0) if layer.ceiling is None else v.clamp(0, layer.ceiling)


@dataclass
class Graph:
    """Layers in execution order; the first is the input, the last a head, mostly the one readout.

    size: rows and columns of the images, where the structure depends on them (a map is flattened,
    an adaptive pool has several cells, ...); None: any.
    averaged: names of max-pools that were replaced by average-pools.
    kinds: of what was folded into layers: pairs of a name in their `fused` and a class or function.
    conditions: on h and w, rows and columns of the images, where their size is not one: of others
        the module makes another network (`image_sizes.py`).
    rank: dimensions of what the module reads: 4, or 3 for sequences, or 2 for vectors, which are
        maps of one row, or of one pixel, here.
    example: shape of an image that the module was traced with.
    tail: what the module does with what the heads give, where they are not its one output.
    module: name of the module's class, for logs.
    """

    layers: list[Layer]
    size: tuple[int, int] | None = None
    averaged: tuple[str, ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()
    conditions: tuple[str, ...] = ()
    rank: int = 4
    example: tuple[int, ...] | None = None
    tail: Tail | None = None
    module: str = "Graph"

    def __repr__(self) -> str:
        return f"Graph({len(self.layers)} layers, size={self.size})"

    @property
    def sizes(self) -> ImageSizes:
        """Which sizes of images it takes."""
        return ImageSizes(self.size, self.conditions, self.rank)

    def __getitem__(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    def to(self, dtype: torch.dtype) -> Graph:
        """A copy whose weights and biases have this dtype (channels_last in memory)."""

        def cast(t: Tensor | None) -> Tensor | None:
            if t is None:
                return None
            t = t.to(dtype)
            return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t

        return replace(
            self,
            layers=[
                replace(
                    layer,
                    groups=[replace(g, weight=cast(g.weight)) for g in layer.groups],
                    bias=cast(layer.bias),
                )
                for layer in self.layers
            ],
        )

    def check_logits(self, what: str) -> None:
        """Refuses a network that has other outputs than the logits of one readout.

        Args:
            what: needs them, as a sentence begins.

        Raises:
            ValueError: naming its outputs.
        """
        if [layer.kind for layer in self.heads] != ["readout"]:
            raise ValueError(other_outputs(what, [layer.name for layer in self.heads]))

    @property
    def heads(self) -> list[Layer]:
        """The layers that give floats, in order."""
        return [layer for layer in self.layers if layer.kind in HEADS]

    def pruned(self) -> Graph:
        """Without the layers on which no head depends; the input stays."""
        read = {layer.name for layer in self.heads}
        for layer in reversed(self.layers):
            if layer.name in read:
                read.update(layer.inputs())
        first, *rest = self.layers
        return replace(self, layers=[first, *(layer for layer in rest if layer.name in read)])

    def folded(self) -> Counter[str]:
        """How many modules of each kind were folded into layers."""
        kinds = dict(self.kinds)
        return Counter(kinds.get(n, "others") for layer in self.layers for n in layer.fused)

    def last_reader(self) -> dict[str, str]:
        """For every layer that is read: the name of the last layer that reads it."""
        return {name: layer.name for layer in self.layers for name in layer.inputs()}

    def tied(self) -> dict[str, tuple[str, ...]]:
        """For every layer of neurons, sums or products: those that must share its step, and itself.

        What is concatenated needs one step size, also if a max-pool, a move or another
        concatenation lies between. Tracing sees to it that only like is concatenated with like.
        """
        behind = self.behind()
        own = ("neuron", *SIGNED)
        ties = {layer.name: {layer.name} for layer in self.layers if layer.kind in own}
        for layer in self.layers:
            if layer.kind == "concat":
                merged = set().union(*(ties.get(name, ()) for name in behind[layer.name]))
                for name in merged:
                    ties[name] = merged
        return {name: tuple(sorted(group)) for name, group in ties.items()}

    def behind(self) -> dict[str, set[str]]:
        """For every layer: the layers whose codes it holds, itself unless it passes codes on."""
        behind: dict[str, set[str]] = {}
        for layer in self.layers:
            if layer.kind in PASSING:
                behind[layer.name] = set().union(*(behind[name] for name in layer.heard()))
            else:
                behind[layer.name] = {layer.name}
        return behind

    def widths(self) -> dict[str, int]:
        """Channels of every layer.

        Those of the image are what its readers say; where all of them pick some, as many as they
        reach; where nothing tells, 1.
        """
        # Of each layer (times, more): it has times * (channels of the image) + more channels.
        found: dict[str, tuple[Fraction, Fraction]] = {}
        image, reach = None, 1
        for layer in self.layers:
            read = [(g.source, g.weight.shape[1] * g.geometry.groups) for g in layer.groups]
            if layer.residual is not None:
                read.append((layer.residual, len(layer.bias)))
            for name, width in read:
                times, more = found[name]
                if times:
                    image = (width - more) / times
            heard = [found[name] for name in layer.like()]
            for i, first, count in layer.runs:
                times, more = heard[i]
                reach = max(reach, math.ceil((first + count - more) / times)) if times else reach
            if layer.kind == "input":
                found[layer.name] = Fraction(1), Fraction(0)
            elif layer.bias is not None:
                found[layer.name] = Fraction(0), Fraction(len(layer.bias))
            elif layer.runs:
                found[layer.name] = Fraction(0), Fraction(sum(count for _, _, count in layer.runs))
            else:
                factor = layer.move.channel_factor() if layer.move else Fraction(1)
                times, more = (sum(column) for column in zip(*heard, strict=True))
                found[layer.name] = factor * times, factor * more
        image = reach if image is None else image
        return {name: int(times * image + more) for name, (times, more) in found.items()}

    def along_channels(self, own: Callable[[Layer, int], Tensor]) -> dict[str, Tensor]:
        """A value for each channel of every layer, [C]: where channels go, their values go.

        Args:
            own: gives those of a layer that passes no channels on, for the layer and its width.
        """
        widths, found = self.widths(), {}
        for layer in self.layers:
            if layer.kind == "concat":
                maps = [found[name] for name in layer.sources]
                found[layer.name] = side_by_side(maps, layer.runs, 0)
            elif layer.kind == "move":
                found[layer.name] = layer.move.of_channels(found[layer.heard()[0]])
            elif layer.kind in PASSING + AVERAGING:
                found[layer.name] = found[layer.source]
            else:
                found[layer.name] = own(layer, widths[layer.name])
        return found

    @torch.no_grad()
    def forward(
        self,
        x: Tensor,
        neuron: Callable[[Layer, Tensor], Tensor] = relu,
        graded: Callable[[Layer, Tensor], Tensor] | None = None,
        observe: Callable[[Layer, Tensor], None] | None = None,
    ) -> Tensor:
        """Runs the float network on x (of the graph's dtype and rank) and returns the logits.

        Where it has several heads, or maps, these are all their numbers side by side, [N, F].

        Args:
            neuron: maps a neuron layer and its membrane potentials to the layer's output.
            graded: the same for sums without a neuron, and products; None: as they are.
            observe: is shown every layer's output once, while it is alive.
        """
        heads = self.floats(x, neuron, graded, observe)
        return flattened(heads)

    @torch.no_grad()
    def floats(
        self,
        x: Tensor,
        neuron: Callable[[Layer, Tensor], Tensor] = relu,
        graded: Callable[[Layer, Tensor], Tensor] | None = None,
        observe: Callable[[Layer, Tensor], None] | None = None,
    ) -> list[Tensor]:
        """As `forward`, what every head gives."""
        self.sizes.check(x)
        x, heads = as_maps(x), []

        def emitted(layer: Layer, of: Callable[[str], Tensor]) -> Tensor:
            y = evaluate(layer, of)
            if layer.kind in HEADS:
                heads.append(y)
            if layer.kind == "neuron":
                return neuron(layer, y)
            return graded(layer, y) if layer.kind in SIGNED and graded is not None else y

        self.walk(x, emitted, observe)
        return heads

    def answer(self, x: Tensor) -> object:
        """What the module gives for x: what its heads give, and what is done with it."""
        heads = self.floats(x)
        return heads[0] if self.tail is None else self.tail.to(x.dtype)(heads)

    def walk(
        self,
        x: Tensor,
        evaluate: Callable[[Layer, Callable[[str], Tensor]], Tensor],
        on_output: Callable[[Layer, Tensor], None] | None = None,
    ) -> Tensor:
        """Takes the layers in order, and returns what the last one gives.

        Outputs are forgotten as soon as nobody reads them any more.

        Args:
            x: what the input layer gives.
            evaluate: called as evaluate(layer, of) for the others; of(name) is a layer's output.
            on_output: is shown every layer's output once, the input's too, while it is alive.
        """
        values: dict[str, Tensor] = {}
        last = self.last_reader()
        for layer in self.layers:
            y = x if layer.kind == "input" else evaluate(layer, values.__getitem__)
            if on_output is not None:
                on_output(layer, y)
            values[layer.name] = y
            for name in set(layer.inputs()):
                if last[name] == layer.name:
                    del values[name]
        return y


def other_outputs(what: str, names: list[str]) -> str:
    """Why something cannot be done with a network whose outputs are not the logits of images."""
    return (
        f"{what} needs a network with one output, the logits [N, classes] of images: this one "
        f"gives {', '.join(map(repr, names))}"
    )


def flattened(heads: list[Tensor]) -> Tensor:
    """Logits [N, classes]; of several heads, or maps, all their numbers side by side."""
    if len(heads) == 1 and heads[0].dim() == 2:
        return heads[0]
    return torch.cat([y.flatten(1) for y in heads], 1)


def readout(layer: Layer, x: Tensor) -> Tensor:
    """Float logits [N, O] of the readout layer for x [N, C, H, W]."""
    x = x.mean((2, 3)) if layer.pool else x.flatten(1)
    return F.linear(x, layer.groups[0].weight.flatten(1), layer.bias)


def evaluate(
    layer: Layer,
    of: Callable[[str], Tensor],
    join: Callable[[Tensor, Tensor], Tensor] = Tensor.add_,
) -> Tensor:
    """What a layer makes of its inputs; of neurons the membranes, without the threshold.

    Args:
        of: the output of a layer, by its name.
        join: adds the residual to the sum of the synapse groups, which it may overwrite.
    """
    if layer.kind in ("max_pool", "avg_pool"):
        return pool(layer, of(layer.source))
    if layer.kind == "mean_pool":
        return layer.windows.means(of(layer.source))
    if layer.kind == "concat":
        return side_by_side([of(name) for name in layer.sources], layer.runs)
    if layer.kind == "move":
        source, *like = layer.inputs()
        return layer.move.apply(of(source), size=of(like[0]).shape[2:] if like else None)
    if layer.kind == "output":
        return of(layer.source)
    if layer.kind == "gate":
        return torch.mul(*(of(name) for name in layer.sources))
    if layer.kind == "readout":
        return readout(layer, of(layer.groups[0].source))
    y = affine(layer.groups[0], of(layer.groups[0].source))
    y += layer.bias[:, None, None]
    for group in layer.groups[1:]:
        y += affine(group, of(group.source))
    if layer.residual is not None:
        y = join(y, of(layer.residual))
    return y
