"""Float graphs, made by hand, in which values are moved and averaged in every way there is."""

from __future__ import annotations

import torch

from fskernel.codes.geometry import Geometry
from fskernel.codes.moves import Move
from fskernel.codes.windows import Windows
from fskernel.graph import Graph, Group, Layer


class Drawn:
    """A graph under construction, with random weights.

    Args:
        channels: of the images. seed: of the weights.
    """

    def __init__(self, channels: int = 3, seed: int = 0):
        self.layers = [Layer("input", "input")]
        self.width = {"input": channels}
        self.dice = torch.Generator().manual_seed(seed)

    def conv(
        self,
        name: str,
        source: str,
        out: int,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        *,
        groups: int = 1,
        kind: str = "neuron",
        ceiling: float | None = None,
        residual: str | None = None,
    ) -> str:
        """A layer with synapses."""
        shape = (out, self.width[source] // groups, *kernel)
        weight = torch.randn(shape, generator=self.dice, dtype=torch.float64)
        weight /= (weight[0].numel() * 0.5) ** 0.5
        bias = 0.2 * torch.randn(out, generator=self.dice, dtype=torch.float64)
        group = Group(source, weight, Geometry(kernel, stride, padding, groups=groups))
        layer = Layer(name, kind, [group], bias, residual=residual, ceiling=ceiling)
        return self._add(layer, out)

    def graded(self, name: str, source: str, out: int, *args, **options) -> str:
        """A layer without a ReLU."""
        return self.conv(name, source, out, *args, kind="graded", **options)

    def max_pool(self, name: str, source: str, geometry: Geometry) -> str:
        """The largest of each window."""
        layer = Layer(name, "max_pool", source=source, geometry=geometry)
        return self._add(layer, self.width[source])

    def avg_pool(self, name: str, source: str, geometry: Geometry) -> str:
        """Sums of windows that are all alike."""
        layer = Layer(name, "avg_pool", source=source, geometry=geometry)
        return self._add(layer, self.width[source])

    def mean_pool(self, name: str, source: str, *args, **options) -> str:
        """Means over `Windows` of these arguments."""
        layer = Layer(name, "mean_pool", source=source, windows=Windows(*args, **options))
        return self._add(layer, self.width[source])

    def concat(self, name: str, sources: list[str], runs=()) -> str:
        """Channels side by side."""
        layer = Layer(name, "concat", sources=tuple(sources), runs=tuple(runs))
        total = sum(count for *_, count in runs) or sum(self.width[s] for s in sources)
        return self._add(layer, total)

    def move(self, name: str, source: str, kind: str, *numbers: int) -> str:
        """A move; "expand" is `expand`."""
        move = Move(kind, numbers)
        layer = Layer(name, "move", source=source, move=move)
        return self._add(layer, int(self.width[source] * move.channel_factor()))

    def expand(self, name: str, source: str, like: str) -> str:
        """One pixel for a whole map."""
        layer = Layer(name, "move", sources=(source, like), move=Move("expand"))
        return self._add(layer, self.width[source])

    def gate(self, name: str, a: str, b: str) -> str:
        """The product of two maps."""
        return self._add(Layer(name, "gate", sources=(a, b)), self.width[a])

    def read_out(self, source: str, classes: int = 4) -> Graph:
        """The graph, with a readout behind a global average."""
        weight = torch.randn(classes, self.width[source], 1, 1, generator=self.dice).double()
        bias = torch.randn(classes, generator=self.dice).double()
        group = Group(source, weight, Geometry((1, 1)))
        self._add(Layer("head", "readout", [group], bias, pool=True), classes)
        return Graph(self.layers)

    def _add(self, layer: Layer, width: int) -> str:
        self.layers.append(layer)
        self.width[layer.name] = width
        return layer.name


def shuffled_channels(seed: int = 0, kind: str = "neuron") -> Graph:
    """Two units of ShuffleNet: halves, one of them through layers, and their channels in turn."""
    g = Drawn(seed=seed)
    x = g.conv("stem", "input", 14, (3, 3), (2, 1), (1, 1, 0, 2), kind=kind)
    for i in range(2):
        left = g.concat(f"left{i}", [x], [(0, 0, 7)])
        right = g.concat(f"right{i}", [x], [(0, 7, 7)])
        y = g.conv(f"a{i}", right, 9)
        y = g.conv(f"b{i}", y, 9, (3, 3), padding=(1, 1, 1, 1), groups=9)
        y = g.conv(f"c{i}", y, 7, kind=kind)
        turns = [(side, c, 1) for c in range(7) for side in (0, 1)]
        x = g.concat(f"turns{i}", [left, y], turns)
    return g.read_out(g.conv("last", x, 5, (2, 3)))


def pyramid(seed: int = 0, kind: str = "neuron") -> Graph:
    """Maps made smaller and larger again, with a skip, the context of all pixels, and padding."""
    g = Drawn(seed=seed)
    x = g.conv("stem", "input", 6, (3, 3), padding=(1, 1, 1, 1), kind=kind)
    small = g.max_pool("small", x, Geometry((2, 2), (2, 2), (0, 1, 0, 1)))
    y = g.conv("deep", small, 8, (3, 3), padding=(1, 1, 1, 1))
    context = g.mean_pool("context", y, "adaptive", (1, 1))
    context = g.conv("about", context, 3, ceiling=0.7)
    context = g.expand("everywhere", context, y)
    y = g.concat("aware", [y, context], [(1, 0, 3), (0, 5, 3), (0, 0, 4)])
    y = g.conv("narrow", y, 5, ceiling=1.5)
    y = g.move("large", y, "upsample", 2, 3)
    y = g.mean_pool("fitted", y, "clipped", geometry=Geometry((3, 4), (2, 3), (1, 1, 1, 1)),
                    ceil_mode=True, include_pad=False)  # fmt: skip
    y = g.conv("mixed", y, 6)
    y = g.move("around", y, "pad", 1, 0, 2, 1)
    y = g.move("inside", y, "crop", 0, 1, 1, 0)
    y = g.max_pool("again", y, Geometry((2, 2), padding=(1, 0, 0, 1)))
    return g.read_out(g.conv("last", y, 7, (2, 2)))


def subpixels(seed: int = 0, kind: str = "neuron") -> Graph:
    """Pixels to channels and back; of the image, too, which nobody reads as it is."""
    g = Drawn(channels=2, seed=seed)
    x = g.move("folded", "input", "unshuffle", 2)
    x = g.conv("stem", x, 18, (3, 3), padding=(1, 1, 1, 1), kind=kind)
    x = g.move("apart", x, "shuffle", 3)
    x = g.mean_pool("grid", x, "adaptive", (4, None))
    x = g.conv("middle", x, 5, (2, 1))
    y = g.concat("some", [x], [(0, 4, 1), (0, 1, 2), (0, 4, 1)])
    y = g.move("larger", y, "upsample", 2, 2)
    y = g.move("together", y, "unshuffle", 2)
    return g.read_out(g.conv("joined", y, 5))


def signed(seed: int = 0, kind: str = "graded") -> Graph:
    """Values around zero, padded, spread, pooled and averaged, with zeros of their own."""
    g = Drawn(seed=seed)
    x = g.conv("stem", "input", 6, (3, 3), kind=kind)
    y = g.move("padded", x, "pad", 0, 2, 1, 0)
    y = g.max_pool("largest", y, Geometry((2, 2)))
    y = g.conv("read", y, 4, (2, 2), padding=(1, 0, 0, 1), kind=kind)
    z = g.mean_pool("bins", g.move("wide", x, "upsample", 1, 2), "adaptive", (3, 2))
    z = g.conv("coarse", z, 8, kind=kind)
    z = g.move("fine", z, "shuffle", 2)
    z = g.mean_pool("centre", z, "clipped", geometry=Geometry((3, 3), (1, 2), (1, 1, 1, 1)),
                    include_pad=True, ceil_mode=True)  # fmt: skip
    z = g.conv("point", g.mean_pool("one", z, "adaptive", (1, 1)), 4, kind=kind)
    y = g.concat("all", [y, g.expand("spread", z, y)])
    return g.read_out(g.conv("last", y, 5, (1, 2)))


GRAPHS = {
    "shuffled channels": shuffled_channels,
    "pyramid": pyramid,
    "subpixels": subpixels,
    "signed": signed,
}


def images(name: str, n: int, size: tuple[int, int], seed: int = 3) -> torch.Tensor:
    """Float images for the network of that name."""
    channels = 2 if name == "subpixels" else 3
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(seed))
