"""Risk: a range is not the one that was asked for, or costs bits that no report shows."""

import math

import pytest
import torch
import torchvision
from networks import Ragged, every_word, images, same_everywhere, settle
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.conversion.builder import HEADROOM
from fskernel.models import cifar_resnet8
from fskernel.tracing.trace import trace


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
    module.window = 17  # 289 values, whose sums need more than 16 bits: rounded means
    net = fs.convert(module, x, bottleneck=bottleneck)
    assert "mean_pool" in [s.op for s in net.steps]
    same_everywhere(net, x[:1], reference.literal)


def test_layers_behind_a_global_pool_read_its_mean():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9),
        nn.ReLU(), nn.Linear(9, 3),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 7, 7)
    graph = trace(module, images=x)
    net = fs.convert(graph, x, K=9, weight_bits=16)
    assert [s.op for s in net.steps] == ["encode", "conv", "mean_pool", "conv", "readout"]
    same_everywhere(net, x, reference.literal)
    with torch.no_grad():
        ann = module(x)
    assert float((net(x) - ann).norm() / ann.norm()) < 0.01
    same_everywhere(fs.convert(graph, x, K=10), x, reference.literal)


def test_relu6_saturates_where_the_ann_does():
    x = images(2, 37) * 20
    graph = trace(settle(Ragged(), images(2, 37)), tuple(x.shape))
    net = fs.convert(graph, x, K=8)
    row = next(r for r in net.report().rows if r.name == "d")
    assert row.alpha <= 6 * 256 / 255 + 1e-6
    noted = fs.convert(graph, alpha=25.0, input_size=(1, 3, 37, 37))
    assert any("the ceiling 6 of the ANN" in note for r in noted.report().rows for note in r.notes)


def test_alpha_policies():
    x = images(4, 32)
    graph = trace(settle(cifar_resnet8(), x), images=x)
    names = [r.name for r in fs.convert(graph, x).report().rows if r.K]
    largest = {r.name: r.alpha for r in fs.convert(graph, x, alpha="max").report().rows}
    clipped = {r.name: r.alpha for r in fs.convert(graph, x, alpha="percentile:99").report().rows}
    assert all(0 < clipped[n] < largest[n] for n in names)
    chosen = fs.convert(
        graph, x, alpha={names[1]: 3.5, names[2]: "percentile:99", "default": "max"}
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
    graph = trace(settle(cifar_resnet8(), x), images=x)
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
    graph = trace(settle(cifar_resnet8(), x), images=x)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, torch.zeros(5)), batch_size=5
    )
    assert torch.equal(fs.convert(graph, loader)(x), fs.convert(graph, x)(x))


def test_int32_bound_costs_bits_and_is_reported():
    wide = nn.Sequential(
        nn.Conv2d(3, 512, 3), nn.ReLU(), nn.Conv2d(512, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    x = images(1, 9)
    net = fs.convert(wide, x, K=13, weight_bits=16)
    rows = {r.name: r for r in net.report().rows}
    assert 8 < rows["2"].effective_bits < 14
    assert rows["0"].effective_bits > rows["2"].effective_bits
    same_everywhere(net, x, reference.literal)


def test_pool_sums_beyond_16_bits_are_rounded_means():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(4, 4, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    x = images(1, 9)
    graph = trace(net, images=x)
    for K, op in ((11, "sum_pool"), (12, "mean_pool")):
        made = fs.convert(graph, x, K=K)
        assert [s.op for s in made.steps][2] == op
        same_everywhere(made, x, reference.literal)


def rows_by_name(net):
    return {row.name: row for row in net.report().rows}


def test_report_lists_every_module():
    x = images(1, 64)
    block = torchvision.models.resnet.Bottleneck
    module = settle(torchvision.models.ResNet(block, [1, 2, 1, 1]), x)
    net = fs.convert(module, x, weight_bits=16)
    text = str(net.report())
    for name, child in module.named_modules():
        if isinstance(child, (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.MaxPool2d)):
            assert name in text, f"{name} is not in the report"
    assert "avgpool" in rows_by_name(net)["fc"].fused
    rows = net.report().rows
    assert sum(r.neurons or 0 for r in rows) == net.neurons
    assert all(r.effective_bits >= 12 for r in rows if r.weight_bits == 16)
