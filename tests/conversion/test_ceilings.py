"""Risk: a neuron that stands for ReLU6 or clamp passes its ceiling where its range is larger."""

import functools

import pytest
import torch
import torch.nn.functional as F
from cuda_backends import emulator
from networks import same_everywhere
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.codes.code import Code, tops
from fskernel.kernels import ops
from fskernel.tracing.trace import trace

X = torch.randn(3, 3, 12, 10, generator=torch.Generator().manual_seed(5))


def conv(i, o=8, scale=1.0, groups=1):
    layer = nn.Conv2d(i, o, 3, padding=1, groups=groups)
    layer.weight.data *= scale
    return layer


class Net(nn.Module):
    """Branches of very different ranges, joined by a function of the network's convolutions."""

    def __init__(self, join, features=16):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = conv(3, scale=12), conv(3, scale=40)
        self.depth, self.c = conv(16, 16, groups=16), conv(16, 24, scale=3)
        self.fc, self.join = nn.Linear(features, 5), join

    def forward(self, x):
        return self.fc(self.join(self, x).mean((2, 3)))


def beside(s, x):
    return torch.cat([F.relu6(s.a(x)), F.relu(s.b(x))], 1)


def pooled(s, x):
    a = F.max_pool2d(s.a(x).clamp(0, 2), 3, 2, 1)
    return torch.cat([a, F.max_pool2d(F.relu(s.b(x)), 3, 2, 1)], 1)


def nested(s, x):
    inner = torch.cat([F.relu6(s.a(x)), F.relu(s.b(x))], 1)
    return torch.cat([inner, s.a(x).clamp(0, 1.5)], 1)


def behind(s, x):
    """Depthwise, and more channels than a whole block, both with ceilings of their own."""
    y = F.relu6(s.depth(beside(s, x)) * 5)
    return torch.cat([F.relu6(s.c(y)), F.relu(s.c(y * 4))], 1)


def averaged(s, x):
    return F.avg_pool2d(beside(s, x), 2)


def joined(s, x):
    y = beside(s, x)
    return torch.cat([F.relu6(s.depth(y) + y), y], 1)


CASES = {
    "beside": (beside, 16), "pooled": (pooled, 16), "nested": (nested, 24), "behind": (behind, 48),
    "averaged": (averaged, 16), "joined": (joined, 32),
}  # fmt: skip


@functools.cache
def traced(name):
    """The module and its graph, which takes longer to make than all else."""
    module = Net(*CASES[name]).eval()
    return module, trace(module, images=X)


def gap(net, module, x=X):
    t = module(x)
    return float((net(x) - t).norm() / (t - t.mean(0)).norm())


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("alpha", ["max", "logits", "mse"])
def test_the_error_vanishes_with_more_steps(name, alpha):
    """Where channels have alphas of their own ("logits"), tops are theirs, too."""
    module, graph = traced(name)
    net = fs.convert(graph, X, K=12, weight_bits=16, alpha=alpha)
    # Under "logits" each channel's words end at its ceiling by themselves, but for residuals.
    if alpha != "logits" or name == "joined":
        assert any(step.op == "conv" and step.top is not None for step in net.steps)
    assert gap(net, module) < 0.01


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_the_papers_alpha_is_far_above_the_ceiling(name):
    module, graph = traced(name)
    net = fs.convert(graph, X, K=12, weight_bits=16, alpha=200.0)
    step = next(s for s in net.steps if s.op == "conv" and s.top is not None)
    assert int(step.top.max()) == int(6 / step.code.step + 0.5) or name == "pooled"
    assert gap(net, module) < 0.03


@torch.no_grad()
@pytest.mark.parametrize("K", [3, 8, 10])
@pytest.mark.parametrize("name", CASES)
def test_every_instruction_set_stops_where_the_literal_network_does(name, K):
    net = fs.convert(traced(name)[1], X, K=K)
    for isa in ops.supported_isas():
        ops.set_isa(isa)
        try:
            same_everywhere(net, X[:2], reference.literal)
        finally:
            ops.set_isa(None)


@torch.no_grad()
@pytest.mark.parametrize("kernel", ["", "direct"])
def test_cuda_kernels_stop_there_in_the_emulator(kernel):
    net = fs.convert(traced("behind")[1], X, K=8)
    got = net.execute(X[:2], emulator(kernel=kernel))
    assert torch.equal(got, net.execute(X[:2], reference.collapsed))


@torch.no_grad()
def test_files_keep_ceilings_and_those_without_have_none(tmp_path):
    net = fs.convert(traced("nested")[1], X, K=8)
    net.save(tmp_path / "net.safetensors")
    loaded = fs.load(tmp_path / "net.safetensors")
    assert torch.equal(loaded(X), net(X))
    for one, other in zip(net.steps, loaded.steps, strict=True):
        if one.op == "conv":
            assert (one.top is None) == (other.top is None)
            assert one.top is None or torch.equal(one.top, other.top)
    assert "the ceiling 6 of the ANN" in str(loaded.report())
    for step in net.steps:  # a planted fault: what the comparison has to notice
        if step.op == "conv":
            step.top = None
    assert not torch.equal(net(X), loaded(X))


@torch.no_grad()
def test_a_range_below_the_ceiling_needs_no_tops():
    """So that networks whose ReLU6 have a range of their own run as before."""
    module = nn.Sequential(conv(3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                           nn.Linear(8, 5)).eval()  # fmt: skip
    net = fs.convert(module, X * 30, K=8)
    assert all(step.top is None for step in net.steps if step.op == "conv")


def test_tops_follow_channels_that_are_scaled():
    """top = min(2^K - 1, floor(ceiling * scale / step + offset)), and none where all are whole."""
    code = Code.words(8, 12.0)
    scale = torch.tensor([1.0, 0.5, 1.9, 2.5], dtype=torch.float64)
    nearest = tops(6.0, scale, code, 0.5, 4)
    assert nearest.tolist() == [128, 64, 243, 255] and nearest.dtype == torch.float32
    assert tops(6.0, None, code, 0.0, 2).tolist() == [128, 128]
    assert tops(6.0, 3 * scale.clamp(min=1), code, 0.5, 4) is None


@pytest.mark.parametrize("ceiling", [1.0, 2.0, 6.0, 20.0])
def test_an_alpha_made_for_the_ceiling_needs_no_top(ceiling):
    """Whose top word stands for the ceiling, whatever float64 makes of the quotient."""
    for K in range(1, 16):
        code = Code.words(K, ceiling * 2**K / (2**K - 1))
        for offset in (0.0, 0.5):
            assert tops(ceiling, None, code, offset, 3) is None
