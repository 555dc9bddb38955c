"""Risk: an energy estimate forgets or doubles a cost, or rests on a number nobody can look up."""

import re
from pathlib import Path

import pytest
import torch
from networks import Branches, OptionAResNet, Ragged, pictures, settle
from torch import nn

import fskernel as fs
from fskernel.energy import CONSTANTS, LayerWork, dense_macs, estimate, estimates, layer_work

# Of a layer of neurons that reads the picture, one that reads spikes, and a linear bottleneck.
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
    docs = (Path(__file__).parent.parent / "docs" / "energy.md").read_text()
    table = re.findall(r"^\|[^|]*\|([^|]*)\|[^|]*\|$", docs, re.MULTILINE)
    for name, constant in CONSTANTS.items():
        value = f"{constant.value:.2g} {constant.unit}"
        assert any(value in cell for cell in table), f"docs/energy.md lacks {name}: {value}"


@pytest.mark.parametrize("build,size", [(Branches, 23), (Ragged, 37), (OptionAResNet, 32)])
def test_macs_are_those_of_the_float_modules(build, size):
    x = pictures(2, size)
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
    x = pictures(2, 23)
    module = settle(Branches(), x)
    narrow, wide = (
        estimate(net, net.run(x)[1])[2].fs["weights"]
        for net in (fs.convert(module, x, K=4, weight_bits=b) for b in (8, 16))
    )
    assert wide == pytest.approx(2 * narrow, rel=0.05)  # other weights, a few other spikes


def test_figures_of_nothing_or_of_another_network_are_refused():
    x = pictures(2, 23)
    net = fs.convert(settle(Branches(), x), x)
    with pytest.raises(ValueError, match="at least one"):
        estimate(net, net.run(x[:0])[1])
    stats = net.run(x)[1]
    stats.sops["conv9"] = stats.sops["a"]
    with pytest.raises(ValueError, match="'conv9'.*its own stats"):
        estimate(net, stats)
