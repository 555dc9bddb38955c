"""Shared by the tests of the rate-coded network: joins, pools, a ceiling beside large currents."""

import functools

import pytest
import torch
import torch.nn.functional as F
from moved import networks as moved_networks
from moved.networks import GRAPHS
from networks import Branches, Ragged, settle
from torch import nn

from fskernel.rate.fused import FusedRateNetwork
from fskernel.tracing.trace import trace


class SmallResNet(nn.Module):
    """Odd sizes, an identity join, a downsample join, max- and average-pool."""

    def __init__(self, pool=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.pool = pool or nn.Identity()
        self.a = nn.Conv2d(6, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 10, 3, stride=2, padding=1)
        self.d = nn.Conv2d(10, 10, 3, padding=1)
        self.down = nn.Conv2d(6, 10, 1, stride=2)
        self.head = nn.Linear(10, 5)

    def forward(self, x):
        x = self.pool(self.norm(self.stem(x)).relu())
        x = (x + self.b(self.a(x).relu())).relu()
        x = (self.down(x) + self.d(self.c(x).relu())).relu()
        return self.head(x.mean((2, 3)))


def conv(inputs, outputs, factor=1.0, kernel=3, **options):
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)
    layer.weight.data *= factor
    return layer


class Beside(nn.Module):
    """A layer with a ceiling beside one whose activations are many times as large."""

    clip = staticmethod(F.relu6)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 8, 12), conv(3, 8, 24), nn.Linear(16, 5)

    def branches(self, x):
        return torch.cat([self.clip(self.a(x)), F.relu(self.b(x))], 1)

    def forward(self, x):
        return self.head(self.branches(x).mean((2, 3)))


class Joined(Beside):
    """The concatenation is an identity branch: a spike of each channel adds another current."""

    def __init__(self):
        super().__init__()
        self.c = conv(16, 16, 0.3)

    def forward(self, x):
        y = self.branches(x)
        return self.head(F.relu(self.c(y) + y).mean((2, 3)))


class Linear(nn.Module):
    """A bottleneck without a ReLU, whose output no kernel for spikes can read."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1)
        self.c, self.pool = nn.Conv2d(5, 9, 3, padding=1), nn.MaxPool2d(2)
        self.head = nn.Linear(9, 4)

    def forward(self, x):
        x = self.pool(self.b(self.a(x).relu()))
        return self.head(self.c(x).relu().mean((2, 3)))


NETWORKS = {
    "residuals": SmallResNet,
    "max-pool": lambda: SmallResNet(nn.MaxPool2d(3, 2, 1)),
    "average-pool": lambda: SmallResNet(nn.AvgPool2d(2)),
    "branches": Branches,
    "ragged": Ragged,
    "graded": Linear,
    "ceilings": Joined,
    **GRAPHS,
}
names = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def network(name):
    """Its float graph, and images."""
    if name in GRAPHS:
        return GRAPHS[name](), moved_networks.images(name, 3, (12, 18))
    torch.manual_seed(3)
    x = torch.rand(3, 3, 15, 14)
    return trace(settle(NETWORKS[name](), x)), x


def fused(name, **options):
    graph, x = network(name)
    return FusedRateNetwork(graph, x, 99, device="cpu", **options)
