"""Risk: a branch that nothing reads is converted, counted, waited for, or a reason to refuse."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fskernel as fs
from fskernel.codes.geometry import Geometry
from fskernel.graph import Graph, Group, Layer
from fskernel.rate.network import RateNetwork

X = torch.randn(6, 3, 12, 10, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """conv, an unread branch, conv, pool, linear: with the branch and without it."""

    def __init__(self, unread=None):
        super().__init__()
        torch.manual_seed(4)
        self.a, self.b, self.c = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
        self.fc, self.norm, self.unread = nn.Linear(8, 5), nn.BatchNorm2d(8), unread
        self.irelu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = F.relu(self.a(x))
        y = self.c(h)
        aux = self.unread(self, h, y) if self.unread is not None else None
        y = self.fc(F.relu(y).mean((2, 3)))
        return (y, aux) if self.training else y


UNREAD = {
    "second head": lambda m, h, y: m.fc(F.relu(m.b(h)).mean((2, 3))),
    "features": lambda m, h, y: F.relu(m.b(F.relu(m.b(F.relu(m.b(h)))))).flatten(1),
    "signed": lambda m, h, y: m.b(h),
    "pool": lambda m, h, y: F.max_pool2d(h, 2),
    "average-pool": lambda m, h, y: m.b(F.avg_pool2d(h, 3, 1, 1)),
    "concat": lambda m, h, y: torch.cat([F.relu(m.b(h)), h], 1),
    "concat of sums": lambda m, h, y: torch.cat([m.b(h), h, y], 1),
    "residual": lambda m, h, y: F.relu(m.b(h) + h),
    "residual of sums": lambda m, h, y: y + h,
    "pre-activation": lambda m, h, y: F.relu(m.norm(h)),
    "sigmoid": lambda m, h, y: torch.sigmoid(m.b(h)),
    "gate": lambda m, h, y: h * h.mean((2, 3), keepdim=True),
    "softmax": lambda m, h, y: F.softmax(y.flatten(1), 1),
    "part": lambda m, h, y: h[:, :3].sum(),
    "in place": lambda m, h, y: m.irelu(m.b(h)).mul_(3),
    "shape": lambda m, h, y: y.new_zeros(m.b(h).size(0)),
    "two of them": lambda m, h, y: (F.relu(m.b(h)), F.gelu(m.b(y))),
    "global": lambda m, h, y: F.relu(m.b(F.adaptive_avg_pool2d(h, 1))),
    "chunks": lambda m, h, y: y.chunk(2, 1)[0].clone(),
}


@pytest.fixture(scope="module")
def plain():
    return fs.convert(Net().eval(), X, K=10)


@pytest.mark.parametrize("how", UNREAD)
def test_what_nothing_reads_does_not_exist(how, plain):
    net, expected = fs.convert(Net(UNREAD[how]).eval(), X, K=10), plain
    assert [(s.name, s.op) for s in net.steps] == [(s.name, s.op) for s in expected.steps]
    assert net.neurons == expected.neurons == 2 * 8 * 120
    assert net.latency_steps == expected.latency_steps == 30 and net.depth == 3
    assert fs.energy.dense_macs(net, 12, 10) == fs.energy.dense_macs(expected, 12, 10)
    (logits, stats), (other, counted) = net.run(X), expected.run(X)
    assert torch.equal(logits, other) and net.fixed_size is None
    assert {k: v.tolist() for k, v in stats.sops.items()} == {
        k: v.tolist() for k, v in counted.sops.items()
    }
    assert torch.equal(stats.total_spikes(), counted.total_spikes())
    assert fs.energy.estimate(net, stats) == fs.energy.estimate(expected, counted)
    assert RateNetwork(net.graph, X).depth == RateNetwork(expected.graph, X).depth


@pytest.mark.parametrize("how", ["second head", "concat of sums", "residual of sums"])
def test_what_nothing_reads_is_not_calibrated(how):
    options = dict(K=6, alpha="logits", correct="least_squares", weight_bits="auto")
    net, expected = (fs.convert(Net(f).eval(), X, **options) for f in (UNREAD[how], None))
    assert torch.equal(net(X), expected(X))
    # A sum that only the unread branch needs signed is no reason to ask for images either.
    assert fs.convert(Net(UNREAD[how]).eval(), alpha=2.0).depth == 3


def test_a_graph_is_pruned_from_its_readout():
    def layer(name, kind, *sources):
        weight = torch.zeros(1, 1, 1, 1)
        return Layer(name, kind, [Group(s, weight, Geometry((1, 1))) for s in sources])

    layers = [
        layer("input", "input"), layer("a", "neuron", "input"), layer("dead", "graded", "a"),
        Layer("dead pool", "max_pool", source="dead"), layer("b", "neuron", "a"),
        Layer("dead concat", "concat", sources=("b", "dead pool")),
        layer("c", "neuron", "a"), Layer("cat", "concat", sources=("c", "b")),
        layer("out", "readout", "cat"),
    ]  # fmt: skip
    layers[6].residual = "b"
    names = [kept.name for kept in Graph(layers, size=(3, 4)).pruned().layers]
    assert names == ["input", "a", "b", "c", "cat", "out"]
    assert Graph(layers, size=(3, 4)).pruned().size == (3, 4)
