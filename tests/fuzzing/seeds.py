"""The network files that are mutated: every kind of step and every option, as small as they go."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from support.moved.networks import Drawn
from torch import Tensor, nn

import fskernel as fs
from fskernel.codes.geometry import Geometry
from fskernel.graph import Graph
from fskernel.network.stored.files import KEY
from fskernel.tracing.trace import trace

HEIGHT, WIDTH = 5, 7  # of the images that most of them are made for


class File(NamedTuple):
    """What a network file holds: its description, JSON, and its tensors."""

    text: str
    tensors: dict[str, Tensor]


class Dense(nn.Module):
    """Kernels that are not square, a stride, "same" padding on one side, dilation."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 5, (2, 3), padding="same")
        self.b = nn.Conv2d(5, 9, 3, (1, 2), 2, dilation=2)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        return self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


class Grouped(nn.Module):
    """Grouped and depthwise convolutions, a residual."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.c = nn.Conv2d(6, 6, (3, 2), padding=1, groups=6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.b(x) + x)
        return self.head(F.relu6(self.c(x)).mean((2, 3)))


class Joined(nn.Module):
    """Two synapse groups.

    Args:
        left, right: channel groups of the two convolutions that are added.
    """

    def __init__(self, left, right):
        super().__init__()
        self.a = nn.Conv2d(2, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, 2, 1, groups=left)
        self.c = nn.Conv2d(6, 6, 1, 2, groups=right)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.head(torch.relu(self.b(x) + self.c(x)).mean((2, 3)))


class Shortcut(nn.Module):
    """Option A: an identity branch that skips pixels and channels, one synapse a channel."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 8, 3, 2, 1)
        self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.head(torch.relu(self.c(x) + x).mean((2, 3)))


class Bottleneck(nn.Module):
    """An inverted residual: layers without a ReLU, graded or of words with an offset, and padded.

    Args:
        pool: reads the first of them, and is read by a convolution and as a residual.
    """

    def __init__(self, pool=None):
        super().__init__()
        self.pool = pool or nn.Identity()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 10, 1)
        self.c = nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.d = nn.Conv2d(10, 4, 1)
        self.e = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.pool(self.a(x))
        y = F.relu6(self.c(torch.relu(self.b(x))))
        x = x + self.d(y)
        return self.head(torch.relu(self.e(x)).mean((2, 3)))


class Pools(nn.Module):
    """Pools with padding, and a readout of every position, so of one image size."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 5, 3, padding=1)
        self.max, self.mean = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d((2, 3), 1, 1)
        self.b = nn.Conv2d(5, 3, 2)
        self.head = nn.Linear(3 * 3 * 3, 4)

    def forward(self, x):
        x = self.mean(self.max(torch.relu(self.a(x))))
        return self.head(torch.relu(self.b(x)).flatten(1))


class Branches(nn.Module):
    """Concatenations, one inside another, one of them with a pool; their readers."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.b, self.c = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 5, 3, padding=1)
        self.d = nn.Conv2d(7, 4, (1, 3), padding=(0, 1))
        self.e = nn.Conv2d(14, 4, 3, 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        y = torch.cat((torch.relu(self.b(x)), torch.relu(self.c(x))), 1)
        z = torch.cat((torch.relu(self.d(y)), F.max_pool2d(x, 3, 1, 1), y), 1)
        return self.head(torch.relu(self.e(z)).mean((2, 3)))


class Averages(nn.Module):
    """Average pools in a row, read by a convolution and by the readout; a residual that is one."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = F.avg_pool2d(F.avg_pool2d(torch.relu(self.a(x)), 2, 1), (1, 2))
        return self.head(F.avg_pool2d(torch.relu(self.b(x) + x), 2).mean((2, 3)))


class Flat(nn.Module):
    """Linear layers: convolutions over the whole map and over one pixel."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 3, 2, 2)
        self.b, self.head = nn.Linear(3 * 2 * 3, 11), nn.Linear(11, 5)

    def forward(self, x):
        x = torch.relu(self.a(x)).flatten(1)
        return self.head(torch.relu(self.b(x)))


def moved(kind: str) -> Graph:
    """Every kind of move, parts of maps, and means over windows of both kinds.

    Args:
        kind: of the layers that others add to or pool: "neuron", or "graded" without a ReLU.
    """
    g = Drawn()
    x = g.conv("a", "input", 8, (3, 3), padding=(1, 1, 1, 1), kind=kind)
    part = g.concat("part", [x], [(0, 2, 4)])
    y = g.move("larger", part, "upsample", 2, 2)
    y = g.move("padded", y, "pad", 0, 2, 1, 1)
    y = g.conv("b", g.move("folded", y, "unshuffle", 2), 8, kind=kind)
    y = g.concat("mixed", [g.move("apart", y, "shuffle", 2)], [(0, 1, 1), (0, 0, 2)])
    y = g.mean_pool("grid", y, "adaptive", (3, None))
    y = g.conv("c", y, 4, (2, 1), kind=kind)
    z = g.mean_pool("border", part, "clipped", geometry=Geometry((3, 3), (2, 2), (1, 1, 1, 1)),
                    ceil_mode=True, include_pad=False)  # fmt: skip
    z = g.conv("d", g.mean_pool("all", z, "adaptive", (1, 1)), 3, kind=kind)
    z = g.expand("spread", z, y)
    y = g.concat("both", [y, z], [(1, 0, 1), (0, 0, 4), (1, 1, 2)])
    return g.read_out(g.conv("e", y, 5, (1, 2)))


def gated(kind: str) -> Graph:
    """Products with one pixel, one channel and a map.

    Args:
        kind: of the layers that are multiplied: "neuron", or "graded" without a ReLU.
    """
    g = Drawn()
    x = g.conv("a", "input", 6, (3, 3), padding=(1, 1, 1, 1))
    one = g.conv("b", g.mean_pool("all", x, "adaptive", (1, 1)), 6, kind=kind)
    y = g.gate("channels", g.conv("c", x, 6, kind=kind), one)
    y = g.gate("places", y, g.conv("d", x, 1, (3, 1), padding=(1, 1, 0, 0), kind=kind))
    y = g.gate("square", y, g.conv("e", y, 6))
    return g.read_out(g.conv("f", y, 5, (1, 2)))


# name, module or graph, channels of the image, options of the conversion; together all K to 15
_NETWORKS = [
    ("dense", Dense, 3, {"K": 8}),
    ("dense, one step", Dense, 3, {"K": 1}),
    ("dense, 15 steps", Dense, 3, {"K": 15, "weight_bits": 16}),
    ("grouped", Grouped, 3, {"K": 4}),
    ("grouped, int16", Grouped, 3, {"K": 6, "weight_bits": 16}),
    ("grouped, mixed K", Grouped, 3, {"K": {"a": 9, "b": 7, "c": 13, "default": 5}}),
    ("joined", lambda: Joined(1, 1), 2, {"K": 5}),
    ("joined, dense and grouped", lambda: Joined(3, 1), 2, {"K": {"a": 12, "default": 3}}),
    ("joined, depthwise", lambda: Joined(6, 6), 2, {"K": 8}),
    ("shortcut", Shortcut, 3, {"K": 10, "rounding": "floor"}),
    ("bottleneck, graded", Bottleneck, 3, {"K": 7}),
    ("bottleneck, spiking", Bottleneck, 3, {"K": 6, "bottleneck": "spiking"}),
    ("bottleneck, spiking, mixed K", Bottleneck, 3,
     {"K": {"a": 11, "d": 4, "default": 8}, "bottleneck": "spiking", "weight_bits": 16}),
    ("bottleneck, averaged", lambda: Bottleneck(nn.AvgPool2d(2, 1)), 3,
     {"K": 4, "bottleneck": "spiking"}),
    ("bottleneck, pooled", lambda: Bottleneck(nn.MaxPool2d(3, 2, 1)), 3,
     {"K": 9, "bottleneck": "spiking"}),
    ("pools", Pools, 3, {"K": 3}),
    ("branches", Branches, 3, {"K": {"a": 8, "default": 8}}),
    ("branches, 14 steps", Branches, 3, {"K": 14, "weight_bits": 16}),
    ("averages", Averages, 1, {"K": 2}),
    ("flat", Flat, 2, {"K": 8}),
    ("moved", lambda: moved("neuron"), 3, {"K": 5}),
    ("moved, graded", lambda: moved("graded"), 3, {"K": 11}),
    ("moved, spiking", lambda: moved("graded"), 3, {"K": 4, "bottleneck": "spiking"}),
    ("gated", lambda: gated("neuron"), 3, {"K": 6}),
    ("gated, spiking", lambda: gated("neuron"), 3, {"K": 5, "bottleneck": "spiking"}),
    ("gated, signed", lambda: gated("graded"), 3, {"K": 9, "bottleneck": "spiking"}),
]  # fmt: skip


def read(path: str | Path) -> File:
    """The description and the tensors of a network file, without any judgement."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        return File(file.metadata()[KEY], tensors)


def convert_all(folder: str | Path, names: Iterable[str] | None = None) -> dict[str, File]:
    """The files to start from, by name, written into `folder` on the way.

    Their weights come from one seed. Calibration is float arithmetic of torch, so that another
    machine may round a range otherwise: what a campaign finds is kept as a file.
    """
    files, graphs = {}, {}
    for name, make, channels, options in _NETWORKS:
        if names is not None and name not in names:
            continue
        torch.manual_seed(len(name))
        images = torch.randn(4, channels, HEIGHT, WIDTH)
        if make not in graphs:  # tracing takes longer than all else
            made = make()
            graphs[make] = (
                trace(made.eval(), images=images) if isinstance(made, nn.Module) else made
            )
        path = Path(folder, "seed.safetensors")
        fs.convert(graphs[make], images, progress=False, **options).save(path)
        files[name] = read(path)
    return files
