"""Shared by the tests of tracing: a module whose middle is exchanged; is it still the function?"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fskernel as fs
from fskernel.graph import Graph
from fskernel.tracing.trace import trace

X = torch.randn(5, 3, 11, 9, generator=torch.Generator().manual_seed(0))


def conv(inputs, outputs=6):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Net(nn.Module):
    """Three convolutions and what a function makes of them, then pool and linear."""

    def __init__(self, middle=None):
        super().__init__()
        generator = torch.random.get_rng_state()
        torch.manual_seed(3)
        self.a, self.b, self.c, self.fc = conv(3), conv(6), conv(6), nn.Linear(6, 4)
        torch.random.set_rng_state(generator)
        self.relu, self.relu_ = nn.ReLU(), nn.ReLU(inplace=True)
        self.middle = middle

    def forward(self, x):
        return self.fc(self.middle(self, x).mean((2, 3)))


@torch.no_grad()
def distance(module, x=X, **kwargs) -> float:
    """Of the converted network's logits from the module's, relative to their spread."""
    expected = module.eval()(x.clone())
    got = fs.convert(module, x, K=12, weight_bits=16, **kwargs)(x)
    return float((got - expected).norm() / (expected - expected.mean(0)).norm())


def right_or_refused(module) -> bool:
    """True where it converts, to the same function; False where it is refused."""
    try:
        return distance(module) < 0.01 or pytest.fail("it is another function")
    except fs.ConversionError as error:
        assert error.node and error.reason and error.cure
        return False


def a_slice(net, x):
    y = net.a(x)
    y[:, 1:3] += 1.0
    return F.relu(net.b(y))


def same_function(module: nn.Module, x: torch.Tensor) -> Graph:
    """The graph of a module, which gives what the module gives; the module is float64 now."""
    graph = trace(module, tuple(x.shape))
    with torch.no_grad():
        expected = module.double()(x.double())
    got = graph.answer(x.double())
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-10 * (1 + expected.abs().max())
    return graph


def head(channels=4):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]
