"""Risk: our figures under NeuroBench's names are not what NeuroBench's own package would find."""

import pytest
import torch
from networks import Branches, OptionAResNet, Ragged, images, settle
from torch import nn

import fskernel as fs


def net_of(module, x, **options):
    torch.manual_seed(2)
    return fs.convert(settle(module, x), x, **options)


class Pooled(nn.Module):
    """An average-pool between two layers, and a readout that reads a flattened map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Conv2d(5, 7, (3, 2), padding=(1, 0), dilation=(1, 2))
        self.fc = nn.Linear(7 * 4 * 2, 6)

    def forward(self, x):
        y = self.last(self.pool(self.conv(x).relu())).relu()
        return self.fc(y.flatten(1))


class Offset(nn.Module):
    """Two readers of a linear layer, one of them with padding."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.c, self.d = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        y = self.b(self.a(x).relu())
        return self.fc((self.c(y).relu() + self.d(y)).relu().mean((2, 3)))


CASES = {
    "ragged": (Ragged, 19, {"K": 5}),
    "branches": (Branches, 16, {"K": 3}),
    "option A": (OptionAResNet, 16, {"K": 4}),
    "16-bit words": (Ragged, 17, {"K": 10, "weight_bits": 16}),
    "average-pool": (Pooled, 16, {"K": 4}),
    "graded": (Offset, 9, {"K": 4}),
    "offset": (Offset, 9, {"K": 4, "bottleneck": "spiking"}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    module, size, options = CASES[request.param]
    x = images(5, size)
    return net_of(module(), x, **options), x


def by_neurobench(net, x, batch):
    """What the package finds, in batches of unequal size."""
    pytest.importorskip("neurobench", reason="neurobench is not installed: docs/neurobench.md")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=batch)
    metrics = [
        [Footprint, ParameterCount, ConnectionSparsity],
        [ActivationSparsity, SynapticOperations],
    ]
    model = TorchModel(fs.neurobench.wrap(net))
    return Benchmark(model, loader, [], [], metrics).run(quiet=True)


def test_our_counts_are_those_of_the_package(case):
    net, x = case
    found, theirs = fs.neurobench.measure(net, x), by_neurobench(net, x, 3)
    sparsity = found.pop("ActivationSparsity")
    assert sparsity == pytest.approx(theirs.pop("ActivationSparsity"), abs=1e-12)
    assert found == theirs
    assert 0 < sparsity < 1 and all(v >= 0 for v in found["SynapticOperations"].values())


def test_the_wrapped_network_gives_the_same_logits(case):
    net, x = case
    assert torch.equal(fs.neurobench.wrap(net)(x), net(x))


def test_it_takes_the_bytes_of_the_saved_network(case):
    net, _ = case
    wrapped = fs.neurobench.wrap(net)
    held = [*wrapped.parameters(), *wrapped.buffers()]
    assert sum(t.numel() * t.element_size() for t in held) == net.weight_bytes


def test_accumulates_are_sops_but_for_zero_weights_and_skips():
    x = images(3, 12)
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(500, 3),
    )  # fmt: skip
    net = net_of(plain, x, K=4)
    stats = net.run(x)[1]
    operations = fs.neurobench.measure(net, x)["SynapticOperations"]
    zeros = any(bool((w == 0).any()) for s in net.steps if s.affine for w in s.weights)
    sops = float(stats.total_sops().double().mean())
    assert operations["Effective_ACs"] < sops if zeros else operations["Effective_ACs"] == sops
    assert operations["Effective_ACs"] > 0.9 * sops


def test_no_images_are_refused():
    x = images(1, 16)
    net = net_of(Pooled(), x, K=3)
    with pytest.raises(ValueError, match="images are none"):
        fs.neurobench.measure(net, x[:0])
