"""Networks with fitted neurons: every way in which their codes reach the synapses behind them."""

import functools

import torch
import torch.nn.functional as F
from networks import images, settle
from torch import nn

import fskernel as fs
from fskernel.tracing.trace import trace


class Crossed(nn.Module):
    """Fitted neurons behind pools that pad, concatenations, moves, an average-pool, a residual."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.c = nn.Conv2d(7, 6, (3, 2), padding=(1, 0))
        self.d = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.e, self.f = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 5, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (4, 3, 6, 6, 6))
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        norms = iter(self.norms)
        a, b = F.silu(next(norms)(self.a(x))), F.gelu(next(norms)(self.b(x)))
        x = F.max_pool2d(torch.cat([a, b], 1), 3, 2, 1)
        x = F.silu(next(norms)(self.c(x)))
        x = F.max_pool2d(F.pad(x, (2, 1, 1, 2)), 2, 1)  # whole windows of padding
        y = F.silu(next(norms)(self.d(x)))
        x = F.silu(next(norms)(self.e(y)) + y)
        x = torch.relu(self.f(F.avg_pool2d(x, 2)))
        return self.fc(x.mean((2, 3)))


@functools.cache
def crossed():
    """The graph of `Crossed`, on images of 9x8 pixels."""
    torch.manual_seed(4)
    x = images(3, 9)[..., :8]
    return trace(settle(Crossed(), x).requires_grad_(False), images=x)


@functools.cache
def crossed_net(K: int = 16, **options):
    """`Crossed` with fitted neurons; nobody may change it."""
    x = images(3, 9)[..., :8]
    return fs.convert(crossed(), x, K=K, neuron="fitted", **options)
