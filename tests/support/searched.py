"""Shared by the tests of the search: a small network, and what a search should measure of it."""

import functools
import importlib

import torch
from networks import images
from torch import nn

import fskernel as fs
from fskernel.tracing.trace import trace

module_of = importlib.import_module  # `fskernel.search` is the function
searching = module_of("fskernel.k_search.search")
evaluating = module_of("fskernel.k_search.evaluate")


class Small(nn.Module):
    """Six layers of neurons with two joins: enough for layers to differ."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.d = nn.Conv2d(8, 12, 3, 2)
        self.e = nn.Conv2d(12, 12, 1)
        self.f = nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.c(torch.relu(self.b(x))) + x)
        x = torch.relu(self.d(x))
        return self.head(torch.relu(self.f(torch.relu(self.e(x))) + x).mean((2, 3)))


def small():
    """It, images, and labels that it gets right but for every fifth."""
    torch.manual_seed(3)
    x, net = images(N, 9), Small().eval()
    with torch.no_grad():  # logits that do not all point the same way
        net.head.weight *= 10
        net.head.bias -= net(x).mean(0)
        y = net(x).argmax(1)
    y[::5] = (y[::5] + 1) % 5
    return net, x, y


N = 40
MODULE, X, Y = small()
QUICK = {"timing": False, "weight_bits": 16}


@functools.cache
def of_small(K):
    """`facts` of the network that most tests search."""
    return facts(MODULE, K if isinstance(K, int) else dict(K))


@functools.cache
def traced(module):
    return trace(module, images=X)


def facts(module, K, x=X, y=Y, **options):
    """What a search should have measured, by other means."""
    net = fs.convert(traced(module), x, K=K, **{"weight_bits": 16} | options)
    with torch.no_grad():
        ann = module(x).double()
    logits, stats = net.run(x)
    answers = logits.argmax(1)
    return {
        "agreement": float((answers == ann.argmax(1)).double().mean()),
        "top1": float((answers == y).double().mean()),
        "logit_error": float((logits - ann).norm() / ann.norm()),
        "spikes_per_image": float(stats.total_spikes().double().mean()),
        "latency_steps": net.latency_steps,
        "interval_steps": net.interval_steps,
        "ann_top1": float((ann.argmax(1) == y).double().mean()),
    }


def loss(found, criterion):
    return {
        "agreement": 1 - found["agreement"],
        "top1": found["ann_top1"] - found["top1"],
        "logit_error": found["logit_error"],
    }[criterion]
