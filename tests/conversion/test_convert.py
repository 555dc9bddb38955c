"""Risk: the converted network is not the contract's, or not the network that was trained."""

import functools
import sys
import warnings

import pytest
import torch
import torchvision
from networks import Branches, OptionAResNet, Ragged, every_word, images, same_everywhere, settle
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.models import cifar_resnet8, cifar_resnet14, cifar_resnet20, cifar_resnet50
from fskernel.tracing.trace import trace

CIFAR = [
    (cifar_resnet8, 73_728, 8),
    (cifar_resnet14, 131_072, 14),
    (cifar_resnet20, 188_416, 20),
    (cifar_resnet50, 475_136, 50),
]


@functools.cache
def traced(build, size, count=3):
    """A settled module and its graph, which is what takes long, for `count` images."""
    torch.manual_seed(0)
    x = images(count, size)
    module = settle(build(), x)
    return module, trace(module, images=x)


def resnet50():
    return torchvision.models.resnet50(num_classes=17)


@pytest.mark.parametrize("build,neurons,depth", CIFAR)
def test_cifar_networks_word_for_word(build, neurons, depth):
    x = images(2, 32)
    net = fs.convert(settle(build(), x), x, K=5)
    assert net.neurons == neurons
    assert (net.depth, net.latency_steps, net.interval_steps) == (depth, depth * 5, 10)
    same_everywhere(net, x[:1], reference.literal)


@pytest.mark.parametrize(
    "name,neurons,depth",
    [
        pytest.param("resnet18", 2_308_096, 18, marks=pytest.mark.slow),
        pytest.param("resnet34", 3_562_496, 34, marks=pytest.mark.slow),
        ("resnet50", 9_608_704, 50),
    ],
)
def test_torchvision_resnets_word_for_word(name, neurons, depth):
    x = images(2, 64)
    if name == "resnet50":
        graph = traced(resnet50, 64, 2)[1]
    else:
        graph = settle(getattr(torchvision.models, name)(num_classes=17), x)
    net = fs.convert(graph, x, K=10)
    assert net.count_neurons(224, 224) == neurons
    assert net.depth == depth and net.latency_steps == 10 * depth
    same_everywhere(net, images(1, 37, seed=5), reference.literal)


@pytest.mark.parametrize("K", [1, 2, 7, 8, 9, 13])
@pytest.mark.parametrize("weight_bits", [8, 16])
def test_ragged_network_word_for_word(K, weight_bits):
    net = fs.convert(traced(Ragged, 37)[1], images(3, 37), K=K, weight_bits=weight_bits)
    same_everywhere(net, images(2, 41, seed=9), reference.literal)
    same_everywhere(net, images(2, 41, seed=9), reference.collapsed)


def test_concatenated_branches_share_one_step():
    x = images(3, 21)
    module = settle(Branches(), x)
    net = fs.convert(module, x, K=12, weight_bits=16)
    rows = {r.name: r for r in net.report().rows}
    assert len({rows[n].alpha for n in "abcde"}) == 1 != rows["stem"].alpha
    assert "concatenated" in str(net.report())
    same_everywhere(net, images(2, 24, seed=9), reference.literal)
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / ann.norm()) < 0.01
    assert net.activation_bytes(21, 21) >= 2 * 19 * 19 * 16


class Sums(Branches):
    """Words, signed sums, a sum-pool and a max-pool of sums side by side."""

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.cat([torch.relu(self.a(x)), self.b(x), self.c(x)], 1)
        z = nn.functional.avg_pool2d(y, 3, 2)
        y = torch.cat([nn.functional.max_pool2d(y, 3, 2), self.d(y), z], 1)
        return self.head(torch.relu(y)[:, :, ::1, ::1].mean((2, 3)))

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(35, 9)


@pytest.mark.parametrize("bottleneck", ["graded", "spiking"])
@pytest.mark.parametrize("K", [3, 9, 11])
def test_sums_are_concatenated_with_one_step(K, bottleneck):
    x = images(3, 21)
    module, graph = traced(Sums, 21)
    net = fs.convert(graph, x, K=K, weight_bits=16, bottleneck=bottleneck)
    assert "shares the largest" in str(net.report())
    same_everywhere(net, images(2, 24, seed=9), reference.literal)
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / ann.norm()) < 2.0 ** (2 - K)


def test_option_a_shortcuts_word_for_word():
    x = images(2, 32)
    net = fs.convert(settle(OptionAResNet(), x), x, K=6)
    assert net.neurons == 188_416 and net.depth == 20  # as the paper's ResNet20
    joins = [s for s in net.steps if s.op == "conv" and len(s.groups) == 2]
    assert [s.groups[1].one_to_one for s in joins] == [True, True]
    same_everywhere(net, x[:1], reference.literal)
    words, _, _ = every_word(net, x)
    _, stats = net.run(x)
    for step in joins:
        conv = step.groups[0]
        ones = torch.ones(conv.weight.shape, dtype=torch.float64)
        spikes = [fs.to_spikes(words[n], 6).sum(0).double() for n in step.sources]
        convolved = nn.functional.conv2d(spikes[0].permute(0, 3, 1, 2), ones, padding=1)
        # The shortcut is one synapse for each neuron of every other row and column.
        expected = convolved.sum((1, 2, 3)) + spikes[1][:, ::2, ::2].sum((1, 2, 3))
        assert stats.sops[step.name].tolist() == expected.tolist()


def test_a_shortcut_of_signed_values_counts_its_macs():
    class Signed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 7, 3, 2, 1)
            self.fc = nn.Linear(7, 2)

        def forward(self, x):
            x = self.a(x)
            y = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
            return self.fc(torch.relu(self.b(x) + y).mean((2, 3)))

    x = images(1, 9)
    net = fs.convert(Signed().eval(), x)
    same_everywhere(net, x, reference.literal)
    taps = (3 * 5 - 2) ** 2  # of a 3x3 kernel on 5x5 positions, the padding's left out
    assert net.run(x)[1].graded_macs["b"] == taps * 4 * 7 + 25 * 4


def test_more_steps_and_bits_approach_the_ann():
    x = images(4, 32)
    module, graph = traced(cifar_resnet14, 32, 4)
    with torch.no_grad():
        ann = module(x)

    def error(K, bits, rounding="nearest"):
        logits = fs.convert(graph, x, K=K, weight_bits=bits, rounding=rounding)(x)
        return float((logits - ann).norm() / ann.norm())

    assert error(12, 16) < 0.003
    assert error(8, 16) < 0.05
    assert error(4, 16) > error(6, 16) > error(10, 16)
    assert error(6, 16, "floor") > error(6, 16, "nearest")
    assert error(12, 8) > error(12, 16)


def test_resnet50_matches_its_float_graph():
    x = images(2, 64)
    module, graph = traced(resnet50, 64, 2)
    with torch.no_grad():
        ann = module(x)

    def error(K):
        logits = fs.convert(graph, x, K=K, weight_bits=16)(x)
        return float((logits - ann).norm() / ann.norm())

    # 50 random layers amplify every rounding; a wrong join would not go away with K.
    assert error(12) < 0.1 < error(8)


def test_paper_preset_averages_pools_that_are_concatenated():
    x = images(3, 21)
    module = settle(Branches(), x)
    with pytest.warns(UserWarning, match="max_pool2d"):
        net = fs.convert(module, x, neuron="paper", alpha="max")
    assert "max-pool" not in str(net.report())
    same_everywhere(net, x[:1], reference.literal)
    ceil = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="'?2'?"):
        net = fs.convert(ceil, x, neuron="paper", alpha="max")
    assert [s.op for s in net.steps][2] == "mean_pool"  # the last windows hold fewer pixels
    same_everywhere(net, x[:1], reference.literal)


def test_paper_preset():
    x = images(2, 64)
    block = torchvision.models.resnet.BasicBlock
    module = settle(torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10), x)
    with pytest.warns(UserWarning, match="not trained"):
        net = fs.convert(module, neuron="paper")
    assert net.K == 10
    rows = {row.name: row for row in net.report().rows}
    assert rows["maxpool"].kind == "average-pool"
    spiking = [row for row in rows.values() if row.K]
    assert {(r.alpha, r.K, r.rounding, r.weight_bits) for r in spiking} == {(25.0, 10, "floor", 16)}
    ann = fs.paper_pools(module)
    assert isinstance(ann.maxpool, nn.AvgPool2d) and isinstance(module.maxpool, nn.MaxPool2d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fine = fs.convert(module, x, K=11, alpha="max", neuron="paper")
    with torch.no_grad():
        expected = ann(x)
    assert float((fine(x) - expected).norm() / expected.norm()) < 0.05
    same_everywhere(net, x[:1], reference.literal)


def test_silent_channels_and_dead_layers():
    x = images(2, 32)
    module = settle(cifar_resnet8(), x)
    with torch.no_grad():
        module.layer1[0].conv1.weight[3] = 0  # one silent channel
        module.layer2[0].bn1.weight.zero_()  # a layer that never fires
        module.layer2[0].bn1.bias.fill_(-1.0)
    net = fs.convert(module, x, weight_bits=16)
    same_everywhere(net, x, reference.literal)
    _, stats = net.run(x)
    assert int(stats.spikes["layer2.0.conv1"].sum()) == 0
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / ann.norm()) < 0.05


def test_a_graph_is_converted_without_tracing_again(monkeypatch):
    x = images(3, 21)
    module = settle(Branches(), x)
    graph, expected = trace(module, tuple(x.shape), images=x), fs.convert(module, x)(x)
    monkeypatch.setattr(sys.modules["fskernel.conversion.convert"], "trace", None)
    assert torch.equal(fs.convert(graph, x)(x), expected)


@pytest.mark.parametrize(
    "pad,pool",
    [((0, 1, 0, 1), (3, 2)), ((2, 1, 0, 2), (3, 1)), ((1, 2, 2, 0), ((4, 3), (3, 1), (1, 0)))],
)
@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
def test_zeros_padded_on_before_pools_word_for_word(kind, pad, pool):
    x = images(2, 11)
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.ZeroPad2d(pad), kind(*pool), nn.Conv2d(5, 4, 2),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).eval()  # fmt: skip
    graph = trace(module, images=x)
    for K in (5, 11):
        net = fs.convert(graph, x, K=K, weight_bits=16)
        same_everywhere(net, images(2, 12, seed=9), reference.literal)
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / (ann - ann.mean(0)).norm()) < 0.02


def test_factors_and_norms_behind_shortcuts_word_for_word():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(i, o, 3, s, 1) for i, o, s in
                                      ((3, 4, 1), (4, 7, 2), (7, 7, 1)))  # fmt: skip
            self.norm, self.fc = nn.BatchNorm2d(7), nn.Linear(7, 3)
            self.gamma = nn.Parameter(torch.rand(7, 1, 1) - 0.3)

        def forward(self, x):
            x = torch.relu(self.a(x))
            y = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
            y = torch.relu(self.gamma * self.b(x) + self.norm(y))
            y = torch.relu(self.norm(-0.7 * (self.c(y) + y)))
            return self.fc((y / 3).mean((2, 3))) * 2

    x = images(3, 12)
    module = settle(Scaled(), x)
    graph = trace(module, images=x)
    for bottleneck in ("graded", "spiking"):
        net = fs.convert(graph, x, K=12, weight_bits=16, bottleneck=bottleneck)
        same_everywhere(net, images(2, 13, seed=9), reference.literal)
        with torch.no_grad():
            ann = module(x)
        assert float((net(x) - ann).norm() / (ann - ann.mean(0)).norm()) < 0.02
