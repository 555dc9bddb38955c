"""The rate-coded baseline: does it fire the right number of times, and does it become the ANN?"""

import math

import pytest
import torch
from networks import Branches, settle
from torch import nn

from fskernel.graph import Graph, Group, Layer
from fskernel.rate import RateNetwork, activation_scales, depth
from fskernel.synapses import Geometry
from fskernel.trace import trace

ONE = Geometry((1, 1))


def identity_graph(ceiling=None):
    """picture -> neuron with weight 1 -> readout with weight 1."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    return Graph(
        [
            Layer("x", "input"),
            Layer("a", "neuron", [Group("x", one, ONE)], zero, ceiling=ceiling),
            Layer("out", "readout", [Group("a", one, ONE)], zero, pool=True),
        ]
    )


class SmallResNet(nn.Module):
    """Odd sizes, an identity join, a downsample join, max- and average-pool."""

    def __init__(self, pool=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.pool = pool or nn.Identity()
        self.a = nn.Conv2d(6, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 10, 3, stride=2, padding=1)
        self.d = nn.Conv2d(10, 10, 3, padding=1)
        self.down = nn.Conv2d(6, 10, 1, stride=2)
        self.head = nn.Linear(10, 5)

    def forward(self, x):
        x = self.pool(self.norm(self.stem(x)).relu())
        x = (x + self.b(self.a(x).relu())).relu()
        x = (self.down(x) + self.d(self.c(x).relu())).relu()
        return self.head(x.mean((2, 3)))


def small_resnet(pool=None):
    torch.manual_seed(3)
    net = SmallResNet(pool)
    x = torch.randn(6, 3, 11, 13)
    net(x)  # gives the batch norm other statistics than 0 and 1
    return net.eval(), x


@pytest.mark.parametrize("v", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.999, 1.0])
@pytest.mark.parametrize("T", [1, 7, 64])
def test_a_constant_current_fires_at_its_rate(v, T):
    net = RateNetwork(identity_graph(), torch.ones(1, 1, 1, 1))  # scale 1
    spikes = int(net.run(torch.full((1, 1, 1, 1), v), T).spikes())
    assert spikes in (math.floor(v * T), math.ceil(v * T))


@pytest.mark.parametrize("v, rate", [(3.0, 1.0), (-2.0, 0.0)])
def test_a_neuron_saturates_at_one_spike_a_step_and_at_none(v, rate):
    net = RateNetwork(identity_graph(), torch.ones(1, 1, 1, 1))
    run = net.run(torch.full((1, 1, 1, 1), v), 20)
    assert int(run.spikes()) == 20 * rate
    assert run.logits[-1].item() == pytest.approx(rate)


def error_at(net, rate, x, T):
    x = x[:2]
    with torch.no_grad():
        wanted = net(x)
    return float((rate.run(x, T).logits[-1] - wanted).norm() / wanted.norm())


def test_it_becomes_the_dense_network_with_time():
    net, x = small_resnet()
    rate = RateNetwork(trace(net), x, percentile=100)
    early, late = error_at(net, rate, x, 20), error_at(net, rate, x, 1000)
    assert late < 0.02
    assert late < early / 5


@pytest.mark.parametrize("padding", [0, 1])
def test_the_max_pool_gate_becomes_the_max_with_time(padding):
    net, x = small_resnet(nn.MaxPool2d(3, 2, padding))
    rate = RateNetwork(trace(net), x, percentile=100)
    assert error_at(net, rate, x, 1000) < 0.03


def test_concatenated_branches_share_a_scale_and_become_the_ann():
    x = torch.rand(3, 3, 15, 14)
    module = settle(Branches(), x)
    graph = trace(module)
    scales = activation_scales(graph, x, 99.9)
    assert len({scales[n] for n in "abcde"}) == 1 != scales["stem"]
    net = RateNetwork(graph, x, 100)
    assert error_at(module, net, x, 1500) < 0.02 < error_at(module, net, x, 30)


def test_average_pools_are_linear():
    net, x = small_resnet(nn.AvgPool2d(2))
    rate = RateNetwork(trace(net), x, percentile=100)
    assert error_at(net, rate, x, 1000) < 0.02


def test_a_ceiling_is_kept():
    graph = identity_graph(ceiling=6.0)
    net = RateNetwork(graph, torch.full((1, 1, 1, 1), 9.0))
    assert net.scales["a"] == 6.0
    assert net.run(torch.full((1, 1, 1, 1), 9.0), 50).logits[-1].item() == pytest.approx(6.0)


def test_scaling_a_layer_up_and_the_next_one_down_changes_no_spike():
    net, x = small_resnet()
    graph = trace(net)
    plain = RateNetwork(graph, x).run(x, 40)
    factor = 8.0  # a power of two: exact in floats, so the spikes must be equal, not close
    first = next(layer for layer in graph.layers if layer.kind == "neuron")
    first.bias = first.bias * factor
    first.groups[0].weight = first.groups[0].weight * factor
    for layer in graph.layers:
        for group in layer.groups:
            if group.source == first.name:
                group.weight = group.weight / factor
    # The identity branch carries the factor as well: give it a weight of its own.
    join = next((lay for lay in graph.layers if lay.residual == first.name), None)
    assert join is not None
    join.residual = None
    eye = torch.eye(6, dtype=torch.float64)[:, :, None, None] / factor
    join.groups.append(Group(first.name, eye, ONE))
    scaled = RateNetwork(graph, x).run(x, 40)
    assert torch.equal(plain.spikes_per_step, scaled.spikes_per_step)


def test_spikes_are_whole_numbers_per_picture_and_do_not_depend_on_the_batch():
    net, x = small_resnet()
    rate = RateNetwork(trace(net), x)
    run = rate.run(x, 30)
    assert run.spikes_per_step.dtype == torch.int64
    assert run.spikes_per_step.shape == (30, 6)
    assert run.spikes_per_step.sum() > 0
    alone = rate.run(x[2:3], 30).spikes_per_step[:, 0]
    # Another batch may take another convolution algorithm, so sums may differ in the last bit.
    assert (alone - run.spikes_per_step[:, 2]).abs().sum() <= 0.01 * alone.sum()


def test_logits_are_reported_on_the_way():
    net, x = small_resnet()
    rate = RateNetwork(trace(net), x)
    steps = []
    run = rate.run(x[:1], 25, report_every=10, on_step=steps.append)
    assert run.reported_at == [10, 20, 25]
    assert run.logits.shape == (3, 1, 5)
    assert steps == list(range(1, 26))
    assert torch.equal(run.logits[0], rate.run(x[:1], 10).logits[0])


def test_an_extrapolation_is_close_and_says_so():
    net, x = small_resnet()
    rate = RateNetwork(trace(net), x)
    whole = rate.run(x, 300)
    part = rate.run(x, 300, until=60)
    assert whole.extrapolated_from is None and part.extrapolated_from == 60
    assert torch.equal(part.spikes_per_step, whole.spikes_per_step[:60])
    assert torch.allclose(part.spikes(), whole.spikes(), rtol=0.05)
    assert part.seconds() > sum(part.seconds_per_step)


def test_too_short_a_simulation_is_refused():
    net, x = small_resnet()
    rate = RateNetwork(trace(net), x)
    assert rate.depth == depth(rate.graph) == 6
    with pytest.raises(ValueError, match="3 x depth = 18"):
        rate.run(x, 300, until=17)
    assert rate.run(x, 12, until=17).extrapolated_from is None  # all of T is never too short


def test_scales_are_percentiles_of_the_activations():
    net, x = small_resnet()
    graph = trace(net)
    with torch.no_grad():
        stem = net.norm(net.stem(x)).relu()
    name = next(layer.name for layer in graph.layers if layer.kind == "neuron")
    for percentile in (50.0, 90.0, 99.9, 100.0):
        scale = activation_scales(graph, x, percentile)[name]
        expected = float(torch.quantile(stem[stem > 0], percentile / 100, interpolation="higher"))
        assert scale == pytest.approx(expected, rel=0.002)


def test_a_silent_layer_has_scale_one():
    net = RateNetwork(identity_graph(), -torch.ones(2, 1, 3, 3))
    assert net.scales["a"] == 1.0
    assert int(net.run(-torch.ones(2, 1, 3, 3), 5).spikes().sum()) == 0


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(0, 1, 2, 2),
        torch.zeros(1, 2, 2),
        torch.zeros(1, 1, 2, 2, dtype=torch.uint8),
        torch.full((1, 1, 2, 2), float("nan")),
        None,
    ],
)
def test_bad_pictures_are_refused(bad):
    with pytest.raises((TypeError, ValueError), match="calibration"):
        RateNetwork(identity_graph(), bad)
    net = RateNetwork(identity_graph(), torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError, match="x "):
        net.run(bad)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="percentile=0"):
        RateNetwork(identity_graph(), torch.ones(1, 1, 1, 1), percentile=0)
    net = RateNetwork(identity_graph(), torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError, match="T=0"):
        net.run(torch.ones(1, 1, 1, 1), 0)
    with pytest.raises(ValueError, match="report_every=0"):
        net.run(torch.ones(1, 1, 1, 1), 5, report_every=0)
