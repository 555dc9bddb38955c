"""Risk: an energy estimate forgets or doubles a cost, or rests on a number nobody can look up."""

import re

import pytest
import torch
from networks import Branches, OptionAResNet, Ragged, images, settle
from torch import nn

import fskernel as fs
from bench import ROOT
from fskernel.analysis.energy import (
    CONSTANTS,
    LayerWork,
    dense_macs,
    estimate,
    estimates,
    layer_work,
)
from fskernel.codes.weights import group_macs

# Of a layer of neurons that reads the image, one that reads spikes, and a linear bottleneck.
LAYERS = [
    LayerWork("first", 1000, 50, 0, 70, graded_macs=900, K=4, weight_bytes=1, graded_bytes=2),
    LayerWork("second", 3000, 20, 1500, 35, K=6, weight_bytes=2),
    LayerWork("line", 200, 10, 110, 0, weight_bytes=1),
]


def test_the_proxy_of_the_literature():
    proxy = estimates(LAYERS)[0]
    assert proxy.ann == {"MACs": pytest.approx(4200 * 4.6)}
    assert proxy.fs == {
        "SOPs": pytest.approx(1610 * 0.9),
        "graded MACs": pytest.approx(900 * 4.6),
    }
    assert proxy.ann_uj == pytest.approx(4200 * 4.6e-6)
    assert proxy.fs_uj == pytest.approx((1610 * 0.9 + 900 * 4.6) * 1e-6)


def test_integers_on_both_sides():
    int8 = estimates(LAYERS)[1]
    assert int8.ann == {"MACs": pytest.approx(4200 * 0.3), "ReLUs": pytest.approx(70 * 0.1)}
    comparisons, subtractions = 50 * 4 + 20 * 6, 70 + 35
    assert int8.fs == {
        "SOPs": pytest.approx(1610 * 0.1),
        "graded MACs": pytest.approx(900 * (0.787401 + 0.1)),
        "neurons": pytest.approx((comparisons + subtractions) * 0.1),
    }
    narrow = [LAYERS[0]._replace(graded_bytes=1)]
    assert estimates(narrow)[1].fs["graded MACs"] == pytest.approx(900 * 0.3)
    wide = [LAYERS[0]._replace(graded_bytes=1, weight_bytes=2)]
    assert estimates(wide)[1].fs["graded MACs"] == pytest.approx(900 * 0.887401)


def test_memory_is_added_to_the_integers():
    _, int8, memory = estimates(LAYERS)
    assert int8.ann.items() <= memory.ann.items() and int8.fs.items() <= memory.fs.items()
    traffic = {k: v / 2.5 for k, v in memory.ann.items() if k not in int8.ann}
    assert traffic == {
        "weights and inputs": pytest.approx(4200 / 16 * 2),
        "outputs": pytest.approx(80),
    }
    traffic = {k: v / 2.5 for k, v in memory.fs.items() if k not in int8.fs}
    first = 900 * 3 / 16 + 50 * 4  # bytes of MACs, sums written to the membranes
    line = 10 * (4 + 2)  # sums read, graded values written
    assert traffic == {
        "weights": pytest.approx(1500 * 2 + 110),
        "membranes": pytest.approx(1610 * 8),
        "neurons' membranes": pytest.approx(4 * (50 * 4 + 20 * 6 + 105)),
        "spikes": pytest.approx(105 * 8),
        "graded values": pytest.approx(first + line),
    }


def test_every_constant_has_a_value_a_unit_and_a_source():
    for name, constant in CONSTANTS.items():
        assert constant.value > 0 and constant.unit in ("pJ", "bytes", "MACs"), name
        assert len(constant.what) > 10 and len(constant.source) > 10, name
    assert CONSTANTS["mult_int8"].value < CONSTANTS["mult_int16"].value < 3.1
    docs = (ROOT / "docs" / "energy.md").read_text()
    table = re.findall(r"^\|[^|]*\|([^|]*)\|[^|]*\|$", docs, re.MULTILINE)
    for name, constant in CONSTANTS.items():
        value = f"{constant.value:.2g} {constant.unit}"
        assert any(value in cell for cell in table), f"docs/energy.md lacks {name}: {value}"


@pytest.mark.parametrize("build,size", [(Branches, 23), (Ragged, 37), (OptionAResNet, 32)])
def test_macs_are_those_of_the_float_modules(build, size):
    x = images(2, size)
    module = settle(build(), x)
    expected = {}

    def count(name):
        def hook(m, inputs, y):
            per_output = m.weight[0].numel()
            expected[name] = y[0].numel() * per_output

        return hook

    hooks = [
        m.register_forward_hook(count(name))
        for name, m in module.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    module(x)
    for hook in hooks:
        hook.remove()
    net = fs.convert(module, x)
    found = dense_macs(net, size, size)
    assert sum(found.values()) == sum(expected.values())
    assert all(
        found[name] == n for name, n in expected.items() if name in found and n == found[name]
    )
    assert set(found) == {s.name for s in net.steps if s.op in ("conv", "readout")}


class Join(nn.Module):
    """An option-A shortcut with a batch norm behind it, or behind the sum; norms of their own."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.fc = (
            nn.Conv2d(3, 4, 3, 1, 1),
            nn.Conv2d(4, 7, 3, 2, 1),
            nn.Linear(7, 2),
        )
        self.first, self.norm, self.how = nn.BatchNorm2d(3), nn.BatchNorm2d(7), how

    def forward(self, x):
        x = torch.relu(self.a(self.first(x)))
        y = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
        if self.how == "shortcut":
            y = torch.relu(self.b(x) + self.norm(y))
        elif self.how == "sum":
            y = torch.relu(self.norm(self.b(x) + y))
        else:
            y = torch.relu(self.norm(nn.functional.max_pool2d(torch.relu(self.b(x)), 1)))
        return self.fc(y.mean((2, 3)))


@pytest.mark.parametrize("how", ["shortcut", "sum", "own"])
def test_norms_and_shortcuts_are_no_macs_and_one_synapse_a_channel(how):
    x = torch.randn(3, 3, 9, 8, generator=torch.Generator().manual_seed(1))
    module = settle(Join(how), x)
    net = fs.convert(module, x, K=12, weight_bits=16)
    with torch.no_grad():
        expected = module(x)
    assert float((net(x) - expected).norm() / (expected - expected.mean(0)).norm()) < 0.01
    by_hand = {"a": 9 * 8 * 4 * 27, "b": 5 * 4 * 7 * 36, "fc": 14}
    found = dense_macs(net, 9, 8)
    assert (
        {k: v for k, v in found.items() if v}
        == by_hand
        == {k: v for k, v in dense_macs(net, 9, 8).items() if v}
    )
    positions = {"a": 72, "b": 20, "fc": 1}
    assert by_hand == {
        name: sum(group_macs(g, n) for g in net.graph[name].groups) for name, n in positions.items()
    }
    if how != "own":
        words = {}
        net.execute(x, None, lambda step, inputs, y, n: words.setdefault(step.name, y))
        spikes = fs.to_spikes(words["a"], 12).sum(0).double().permute(0, 3, 1, 2)
        ones = torch.ones(7, 4, 3, 3, dtype=torch.float64)
        convolved = nn.functional.conv2d(spikes, ones, None, 2, 1).sum((1, 2, 3))
        shortcut = spikes[:, :, ::2, ::2].sum((1, 2, 3))
        assert net.run(x)[1].sops["b"].tolist() == (convolved + shortcut).tolist()


class Sums(nn.Module):
    def __init__(self, double):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, 2)
        self.double, self.same = double, nn.Identity()

    def forward(self, x):
        y = torch.relu(self.double(self.b(torch.relu(self.a(x))), self))
        return self.fc(y.mean((2, 3)))


@pytest.mark.parametrize(
    "double",
    [
        lambda z, m: z + z,
        lambda z, m: torch.add(z, m.same(z)),
        lambda z, m: z.add_(z),
        lambda z, m: sum([z, z]),
        lambda z, m: z + z + z,
        lambda z, m: 2 * z,
        lambda z, m: z * 0.5 + z,
        lambda z, m: (z + z) + (z + z),
    ],
)
def test_what_is_computed_once_is_counted_once(double):
    torch.manual_seed(1)
    x = torch.randn(4, 3, 9, 8)
    module = Sums(double).eval()
    net = fs.convert(module, x, K=12, weight_bits=16)
    found = dense_macs(net, 9, 8)
    assert sum(found.values()) == 7 * 6 * 4 * 27 + 5 * 4 * 5 * 36 + 10
    with torch.no_grad():
        expected = module(x)
    assert float((net(x) - expected).norm() / (expected - expected.mean(0)).norm()) < 0.01


def test_a_layer_that_is_called_twice_is_counted_twice():
    x = torch.randn(2, 3, 9, 8)

    class Twice(Sums):
        def forward(self, x):
            h = torch.relu(self.a(x))
            return self.fc(torch.relu(self.b(h) + self.b(h)).mean((2, 3)))

    net = fs.convert(Twice(None).eval(), x)
    assert sum(dense_macs(net, 9, 8).values()) == 7 * 6 * 4 * 27 + 2 * 5 * 4 * 5 * 36 + 10


def test_a_run_is_counted_layer_by_layer():
    x = torch.rand(3, 3, 5, 4)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip
    net = fs.convert(module, x, K=5)
    _, stats = net.run(x)
    spikes = float(stats.total_spikes().double().mean())
    work = layer_work(net, (5, 4), {"4": 2 * spikes}, {"0": spikes}, {"0": 3120})
    assert work == [
        LayerWork("0", 20 * 8 * 27, 160, 0, spikes, 3120, 5, 1, 2),
        LayerWork("4", 16, 2, 2 * spikes, 0, 0, 0, 1, 1),
    ]
    assert stats.size == (5, 4) and stats.graded_macs == {"0": 3120}
    assert estimate(net, stats) == estimates(work)
    proxy, int8, memory = estimate(net, stats)
    assert proxy.ann_uj == pytest.approx((4320 + 16) * 4.6e-6)
    assert proxy.fs_uj == pytest.approx((2 * spikes * 0.9 + 3120 * 4.6) * 1e-6)
    assert int8.fs["neurons"] == pytest.approx((160 * 5 + spikes) * 0.1)
    assert memory.ann_uj > int8.ann_uj and memory.fs_uj > int8.fs_uj


def test_wider_weights_are_read_whole():
    x = images(2, 23)
    module = settle(Branches(), x)
    narrow, wide = (
        estimate(net, net.run(x)[1])[2].fs["weights"]
        for net in (fs.convert(module, x, K=4, weight_bits=b) for b in (8, 16))
    )
    assert wide == pytest.approx(2 * narrow, rel=0.05)  # other weights, a few other spikes


def test_figures_of_nothing_or_of_another_network_are_refused():
    x = images(2, 23)
    net = fs.convert(settle(Branches(), x), x)
    with pytest.raises(ValueError, match="at least one"):
        estimate(net, net.run(x[:0])[1])
    stats = net.run(x)[1]
    stats.sops["conv9"] = stats.sops["a"]
    with pytest.raises(ValueError, match="'conv9'.*its own stats"):
        estimate(net, stats)
