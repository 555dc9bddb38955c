"""Risk: the converted network is not the contract's, or not the network that was trained."""

import copy
import math
import sys
import warnings

import pytest
import torch
import torchvision
from networks import Branches, OptionAResNet, Ragged, every_word, images, same_everywhere, settle
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.conversion.builder import HEADROOM
from fskernel.models import cifar_resnet8, cifar_resnet14, cifar_resnet20, cifar_resnet50

CIFAR = [
    (cifar_resnet8, 73_728, 8),
    (cifar_resnet14, 131_072, 14),
    (cifar_resnet20, 188_416, 20),
    (cifar_resnet50, 475_136, 50),
]


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
        ("resnet18", 2_308_096, 18),
        pytest.param("resnet34", 3_562_496, 34, marks=pytest.mark.slow),
        ("resnet50", 9_608_704, 50),
    ],
)
def test_torchvision_resnets_word_for_word(name, neurons, depth):
    x = images(2, 64)
    net = fs.convert(settle(getattr(torchvision.models, name)(num_classes=17), x), x, K=10)
    assert net.count_neurons(224, 224) == neurons
    assert net.depth == depth and net.latency_steps == 10 * depth
    same_everywhere(net, images(1, 37, seed=5), reference.literal)


@pytest.mark.parametrize("K", [1, 2, 7, 8, 9, 13])
@pytest.mark.parametrize("weight_bits", [8, 16])
def test_ragged_network_word_for_word(K, weight_bits):
    x = images(3, 37)
    net = fs.convert(settle(Ragged(), x), x, K=K, weight_bits=weight_bits)
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
    module = settle(Sums(), x)
    net = fs.convert(module, x, K=K, weight_bits=16, bottleneck=bottleneck)
    assert "shares the largest" in str(net.report())
    same_everywhere(net, images(2, 24, seed=9), reference.literal)
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / ann.norm()) < 2.0 ** (2 - K)


@pytest.mark.parametrize("bottleneck", ["graded", "spiking"])
def test_signed_values_leave_room_for_the_sums_of_pools(bottleneck):
    class Pooled(nn.Module):
        def __init__(self, window):
            super().__init__()
            self.a, self.b, self.window = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1), window
            self.head = nn.Linear(5, 4)

        def forward(self, x):
            x = torch.cat([self.a(x), torch.relu(self.a(x))], 1)[:, :, ::1]
            x = nn.functional.avg_pool2d(nn.functional.max_pool2d(x, 2), self.window, 1)
            return self.head(torch.relu(self.b(x)).mean((2, 3)))

    module = Pooled(3)
    module.b = nn.Conv2d(12, 5, 1)
    x = images(3, 40)
    net = fs.convert(module.eval(), x, weight_bits=16, bottleneck=bottleneck)
    same_everywhere(net, x[:1], reference.literal)
    words, _, _ = every_word(net, x)
    if bottleneck == "graded":
        signed = [s for s in net.steps if s.op == "conv" and not s.code.K]
        assert {s.code.x_max for s in signed} == {32767 // 9}
        largest = max(int(words[s.name].abs().max()) for s in signed)
        assert largest == round(32767 // 9 / HEADROOM)  # seen on these images
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / ann.norm()) < 0.02
    module.window = 17
    if bottleneck == "graded":
        with pytest.raises(fs.ConversionError, match="289 of its signed values.*smaller pooling"):
            fs.convert(module, x)
    else:
        with pytest.raises(fs.ConversionError, match="289 codes up to 255.*smaller K"):
            fs.convert(module, x, bottleneck="spiking")


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


def test_a_structure_that_depends_on_the_size_refuses_other_sizes(tmp_path):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 5, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 6)
    net = fs.convert(module, x)
    net.save(tmp_path / "net")
    for known in (net, fs.load(tmp_path / "net"), copy.deepcopy(net)):
        assert torch.equal(known(x), net(x)) and known.fixed_size == (8, 6)
        for use in (known.__call__, known.run, known.count_spikes, known.execute):
            with pytest.raises(ValueError, match="8x8 pixels.*made for 8x6"):
                use(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="8x8 pixels.*made for 8x6"):
        fs.convert(module, [x, torch.randn(1, 3, 8, 8)])
    with pytest.raises(ValueError, match="8x8 pixels.*made for 8x6"):
        fs.RateNetwork(net.graph, x).run(torch.randn(1, 3, 8, 8), T=3)
    assert fs.convert(settle(cifar_resnet8(), images(1, 32)), images(1, 32)).fixed_size is None


def test_layers_behind_a_global_pool_need_room_for_its_sum():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9),
        nn.ReLU(), nn.Linear(9, 3),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 7, 7)
    net = fs.convert(module, x, K=9, weight_bits=16)
    assert [s.op for s in net.steps] == ["encode", "conv", "sum_pool", "conv", "readout"]
    same_everywhere(net, x, reference.literal)
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / ann.norm()) < 0.01
    with pytest.raises(fs.ConversionError, match="49 codes up to 1023.*smaller K"):
        fs.convert(module, x, K=10)


def test_maps_of_other_widths_are_not_broadcast():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 1, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(torch.relu(self.a(x) + torch.relu(self.b(x))).mean((2, 3)))

    with pytest.raises(fs.ConversionError, match="adds maps of .1, 4. channels"):
        fs.convert(Wide(), alpha=1.0)


def test_more_steps_and_bits_approach_the_ann():
    x = images(4, 32)
    module = settle(cifar_resnet14(), x)
    with torch.no_grad():
        ann = module(x)

    def error(K, bits, rounding="nearest"):
        logits = fs.convert(module, x, K=K, weight_bits=bits, rounding=rounding)(x)
        return float((logits - ann).norm() / ann.norm())

    assert error(12, 16) < 0.003
    assert error(8, 16) < 0.05
    assert error(4, 16) > error(6, 16) > error(10, 16)
    assert error(6, 16, "floor") > error(6, 16, "nearest")
    assert error(12, 8) > error(12, 16)


def test_resnet50_matches_its_float_graph():
    x = images(2, 64)
    module = settle(torchvision.models.resnet50(num_classes=10), x)
    with torch.no_grad():
        ann = module(x)

    def error(K):
        logits = fs.convert(module, x, K=K, weight_bits=16)(x)
        return float((logits - ann).norm() / ann.norm())

    # 50 random layers amplify every rounding; a wrong join would not go away with K.
    assert error(12) < 0.1 < error(8)


def test_relu6_saturates_where_the_ann_does():
    x = images(2, 37) * 20
    net = fs.convert(settle(Ragged(), images(2, 37)), x, K=8)
    row = next(r for r in net.report().rows if r.name == "d")
    assert row.alpha <= 6 * 256 / 255 + 1e-6
    noted = fs.convert(settle(Ragged(), images(2, 37)), alpha=25.0, input_size=(1, 3, 37, 37))
    assert any("the ceiling 6 of the ANN" in note for r in noted.report().rows for note in r.notes)


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
    with pytest.raises(fs.ConversionError, match="'2'.*ceil_mode"):
        fs.convert(ceil, x, neuron="paper")


def test_paper_preset():
    x = images(2, 64)
    module = settle(torchvision.models.resnet18(num_classes=10), x)
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


def test_alpha_policies():
    x = images(4, 32)
    module = settle(cifar_resnet8(), x)
    names = [r.name for r in fs.convert(module, x).report().rows if r.K]
    largest = {r.name: r.alpha for r in fs.convert(module, x, alpha="max").report().rows}
    clipped = {r.name: r.alpha for r in fs.convert(module, x, alpha="percentile:99").report().rows}
    assert all(0 < clipped[n] < largest[n] for n in names)
    chosen = fs.convert(
        module, x, alpha={names[1]: 3.5, names[2]: "percentile:99", "default": "max"}
    )
    alphas = {r.name: r.alpha for r in chosen.report().rows}
    assert alphas[names[1]] == 3.5
    assert alphas[names[2]] == clipped[names[2]]
    assert alphas[names[0]] == largest[names[0]]


def test_top_word_stands_for_the_maximum():
    x = images(4, 32)
    net = fs.convert(settle(cifar_resnet8(), x), x, K=4, weight_bits=16)
    words, _, _ = every_word(net, x)
    assert int(words["conv1"].max()) == 15
    row = next(r for r in net.report().rows if r.name == "conv1")
    with torch.no_grad():
        seen = torch.relu(net.graph.to(torch.float32).layers[1].bias.max())
    assert row.alpha * 15 / 16 >= float(seen) * 0.5


def test_percentile_is_the_percentile():
    from fskernel.calibration.ranges import measure

    x = images(6, 32)
    graph = fs.convert(settle(cifar_resnet8(), x), x).graph
    seen = []
    graph.to(torch.float32).forward(
        x, observe=lambda layer, y: seen.append(y) if layer.name == "conv1" else None
    )
    positive = seen[0][seen[0] > 0]
    whole = measure(graph, x)
    for p in (1, 50, 99, 99.9):
        rank = math.ceil(len(positive) * p / 100)
        expected = float(positive.kthvalue(rank).values)
        assert abs(whole.percentile("conv1", p) - expected) <= 1e-3 * expected
    # Streaming in other batches changes nothing.
    parts = measure(graph, [x[:1], x[1:4], x[4:]])
    assert parts.percentile("conv1", 99.9) == pytest.approx(
        whole.percentile("conv1", 99.9), rel=1e-3
    )


def test_a_data_loader_calibrates_like_its_tensor():
    x = images(5, 32)
    module = settle(cifar_resnet8(), x)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, torch.zeros(5)), batch_size=5
    )
    assert torch.equal(fs.convert(module, loader)(x), fs.convert(module, x)(x))


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


def test_int32_bound_costs_bits_and_is_reported():
    wide = nn.Sequential(
        nn.Conv2d(3, 512, 3), nn.ReLU(), nn.Conv2d(512, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    x = images(1, 9)
    rows = {r.name: r for r in fs.convert(wide, x, K=13, weight_bits=16).report().rows}
    assert 8 < rows["2"].effective_bits < 14
    assert rows["0"].effective_bits > rows["2"].effective_bits
    same_everywhere(fs.convert(wide, x, K=13, weight_bits=16), x, reference.literal)


def test_pool_sum_beyond_16_bits_is_refused():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(4, 4, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    fs.convert(net, images(1, 9), K=11)
    with pytest.raises(fs.ConversionError, match="32767"):
        fs.convert(net, images(1, 9), K=12)


def rows_by_name(net):
    return {row.name: row for row in net.report().rows}


def test_report_lists_every_module():
    x = images(1, 64)
    module = settle(torchvision.models.resnet50(), x)
    net = fs.convert(module, x, weight_bits=16)
    text = str(net.report())
    for name, child in module.named_modules():
        if isinstance(child, (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.MaxPool2d)):
            assert name in text, f"{name} is not in the report"
    assert "avgpool" in rows_by_name(net)["fc"].fused
    rows = net.report().rows
    assert sum(r.neurons or 0 for r in rows) == net.neurons
    assert all(r.effective_bits >= 12 for r in rows if r.weight_bits == 16)


X = torch.rand(2, 3, 32, 32)


@pytest.mark.parametrize(
    "kwargs,error,message",
    [
        (dict(calibration=X, K=0), ValueError, "K=0"),
        (dict(calibration=X, K=16), ValueError, "K=16"),
        (dict(calibration=X, K=8.0), TypeError, "K=8.0"),
        (dict(calibration=X, K=True), TypeError, "K"),
        (dict(), ValueError, "calibration"),
        (dict(alpha="percentile:99.9"), ValueError, "calibration"),
        (dict(calibration=X, alpha="percentile:0"), ValueError, "percentile"),
        (dict(calibration=X, alpha="percentile:x"), ValueError, "percentile"),
        (dict(calibration=X, alpha="mean"), ValueError, "mean"),
        (dict(alpha=0.0), ValueError, "alpha=0.0"),
        (dict(alpha=-1), ValueError, "alpha=-1"),
        (dict(alpha=float("nan")), ValueError, "nan"),
        (dict(alpha=float("inf")), ValueError, "inf"),
        (dict(alpha=[1.0]), TypeError, "alpha"),
        (dict(alpha={"conv1": 2.0}), ValueError, "default"),
        (dict(alpha={"conv9": 2.0, "default": 1.0}), ValueError, "conv9"),
        (dict(alpha={"conv1": 0.0, "default": 1.0}), ValueError, "alpha=0.0"),
        (dict(calibration=X, rounding="up"), ValueError, "up"),
        (dict(calibration=X, weight_bits=12), ValueError, "weight_bits=12"),
        (dict(neuron="snn"), ValueError, "snn"),
        (dict(alpha=6.0, input_range=-1.0), ValueError, "input_range"),
        (dict(calibration=torch.zeros(0, 3, 32, 32)), ValueError, "empty"),
        (dict(calibration=[]), ValueError, "empty"),
        (dict(calibration=torch.zeros(3, 32, 32)), ValueError, "shape"),
        (dict(calibration=torch.zeros(1, 4, 32, 32)), ValueError, "4 channels"),
        (dict(calibration=torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), TypeError, "uint8"),
        (dict(calibration=torch.full((1, 3, 32, 32), float("nan"))), ValueError, "NaN"),
        (dict(calibration=7), TypeError, "int"),
        (dict(calibration=[X, torch.rand(1, 2, 32, 32)]), ValueError, "cannot read"),
        (dict(calibration=X * 1e-40), ValueError, "normalise"),
        (dict(alpha=6.0, input_range="1"), ValueError, "input_range"),
    ],
)
def test_bad_arguments_are_refused(kwargs, error, message):
    with pytest.raises(error, match=message):
        fs.convert(cifar_resnet8(), **kwargs)


class Once:
    """Batches of which only the first may be asked for."""

    def __init__(self, first):
        self.first = first

    def __iter__(self):
        yield self.first
        raise AssertionError("the images were gone through")


class Hidden(nn.Module):
    """A hidden layer behind a global pool; a linear bottleneck that is pooled; a concatenation."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.hidden, self.fc, self.how = nn.Linear(4, 6), nn.Linear(6, 3), how
        self.wide = nn.Linear(4 * 40 * 40, 6)

    def forward(self, x):
        y = torch.relu(self.a(x))
        if self.how == "signed":
            y = self.b(y)
        if self.how == "pool":
            y = torch.relu(self.b(nn.functional.avg_pool2d(y, 7, 1)))
        if self.how == "padded":
            y = torch.relu(self.c(nn.functional.avg_pool2d(self.b(y), 3, 1, 1)))
        if self.how == "of sums":
            y = torch.relu(self.c(nn.functional.avg_pool2d(self.b(y), 17)))
        if self.how == "of images":
            y = torch.relu(self.a(nn.functional.avg_pool2d(x, 17)))
        if self.how == "broadcast":
            y = torch.relu(self.b(y) + torch.relu(self.c(y.mean((2, 3), keepdim=True))))
        y = y if self.how == "small" else y[:, :, ::2, ::2]
        return self.fc(torch.relu(self.hidden(y.mean((2, 3)))))


@pytest.mark.parametrize(
    "how,kwargs,why",
    [
        ("hidden", dict(K=8), "'a.subsampled.averaged'.*400 codes up to 255.*32767.*smaller K"),
        ("hidden", dict(K={"a": 7, "default": 2}), "400 codes up to 127"),
        ("pool", dict(K={"a": 10, "default": 2}), "'avg_pool2d'.*49 codes up to 1023"),
        ("padded", dict(K=2, bottleneck="spiking"), "padding has the code 0.*bottleneck='graded'"),
        ("of sums", dict(K=2), "289 of its signed values.*smaller pooling window"),
        ("of images", dict(K=2), "'input'.*289 of its signed values"),
        ("broadcast", dict(K=2), "broadcast"),
        ("fine", dict(K={"conv1": 3, "default": 4}), "K names a layer 'conv1'.*did you mean"),
        ("fine", dict(K={"a": 3}), "K names no value for 1 layer.*default"),
        ("fine", dict(K=4, alpha={"a": 3.0, "x": 1.0, "default": "max"}), "names a layer 'x'"),
        ("fine", dict(K=4, alpha={"a": 3.0}), "alpha names no value for 1 layer"),
        ("fine", dict(input_size=(3, 40, 40)), r"input_size=\(3, 40, 40\).*N, C, H, W"),
        ("fine", dict(input_size=(1, 3, 40, 0)), "input_size"),
        ("fine", dict(input_range=0), "input_range"),
    ],
)
def test_what_no_range_can_help_is_refused_before_images_are_gone_through(how, kwargs, why):
    with pytest.raises(ValueError, match=why):
        fs.convert(Hidden(how).eval(), Once(torch.rand(2, 3, 40, 40)), **kwargs)


def test_what_is_refused_before_is_what_would_be_refused_after():
    """The same conversions with ranges: they raise where `Builder.check` did, or not at all."""
    from fskernel.calibration.ranges import measure
    from fskernel.conversion.builder import Builder, Choices
    from fskernel.tracing.trace import trace

    x = torch.rand(2, 3, 40, 40)
    for how in ("hidden", "pool", "padded", "of sums", "of images", "small", "signed"):
        graph = trace(Hidden(how).eval(), tuple(x.shape))
        for K in (1, 3, 8, 11):
            for bottleneck in ("graded", "spiking"):
                asked = {"default": K}, "max", "nearest", 8, bottleneck, None
                given = graph, Choices(*asked, ranges=measure(graph, x))
                raised = []
                for use in (lambda b: b.check(True), lambda b: b.build()):
                    try:
                        use(Builder(*given))
                        raised.append(None)
                    except fs.ConversionError as error:
                        raised.append(str(error))
                assert raised[0] == raised[1]


def test_building_changes_nothing_and_gives_the_same_again():
    from fskernel.calibration.ranges import measure
    from fskernel.conversion.builder import Builder, Choices
    from fskernel.tracing.trace import trace

    x = torch.rand(2, 3, 40, 40)
    graph = trace(Hidden("hidden").eval(), tuple(x.shape))
    asked = {"default": 6}, "max", "nearest", 8, "spiking", None
    builder = Builder(graph, Choices(*asked, ranges=measure(graph, x)))
    first, second = builder.build(), builder.build()
    assert [step.spec() for step in first] == [step.spec() for step in second]
    for one, other in zip(first, second, strict=True):
        tensors = one.state_dict(), other.state_dict()
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_more_synapses_than_the_bound_allows_are_refused_before():
    module = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 256 * 257, 2), nn.ReLU(),
        nn.Linear(2, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        module[3].weight.fill_(1e-3)
    with pytest.raises(fs.ConversionError, match="'3'.*131584 synapses.*Use a smaller K"):
        fs.convert(module, Once(torch.rand(1, 3, 256, 257)), K=15)
    fs.convert(module, torch.rand(1, 3, 256, 257), K=5)


def test_signed_values_need_images_and_say_so_before_any_work():
    with pytest.raises(fs.ConversionError, match="'b'.*signed.*calibration"):
        fs.convert(Hidden("padded").eval(), alpha=1.0, K=2, input_size=(1, 3, 9, 9))


def test_images_are_asked_for_once_and_one_batch_at_a_time():
    asked = []

    def batches():
        for i in range(4):
            asked.append(i)
            yield torch.rand(3, 3, 12, 12)

    fs.convert(Hidden("small").eval(), batches(), K=4)
    assert asked == [0, 1, 2, 3]


def test_a_graph_is_converted_without_tracing_again(monkeypatch):
    from fskernel.tracing.trace import trace

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
    for K in (5, 11):
        net = fs.convert(module, x, K=K, weight_bits=16)
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
    for bottleneck in ("graded", "spiking"):
        net = fs.convert(module, x, K=12, weight_bits=16, bottleneck=bottleneck)
        same_everywhere(net, images(2, 13, seed=9), reference.literal)
        with torch.no_grad():
            ann = module(x)
        assert float((net(x) - ann).norm() / (ann - ann.mean(0)).norm()) < 0.02
