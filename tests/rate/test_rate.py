"""The rate-coded baseline: does it fire the right number of times, and does it become the ANN?"""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import Branches, settle
from rate_networks import Beside, Joined, SmallResNet, conv
from torch import nn

from fskernel import convert, reference
from fskernel.calibration.ranges import measure
from fskernel.codes.geometry import Geometry
from fskernel.graph import Graph, Group, Layer
from fskernel.rate.fused import FusedRateNetwork
from fskernel.rate.network import RateNetwork, depth
from fskernel.rate.thresholds import layer_scales
from fskernel.tracing.trace import trace

ONE = Geometry((1, 1))


def identity_graph(ceiling=None):
    """image -> neuron with weight 1 -> readout with weight 1."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    return Graph(
        [
            Layer("x", "input"),
            Layer("a", "neuron", [Group("x", one, ONE)], zero, ceiling=ceiling),
            Layer("out", "readout", [Group("a", one, ONE)], zero, pool=True),
        ]
    )


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
    scales = layer_scales(graph, measure(graph, x), "percentile", 99.9)
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


class Flattened(Beside):
    """The readout reads every pixel of every channel."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16 * 12 * 10, 5)

    def forward(self, x):
        return self.head(self.branches(x).flatten(1))


class PooledFirst(Beside):
    """The ceiling lies in front of a max-pool, and that in front of the concatenation."""

    def branches(self, x):
        a = F.max_pool2d(self.a(x).clamp(0, 2), 3, 2, 1)
        return torch.cat([F.relu(F.max_pool2d(self.b(x), 3, 2, 1)), a], 1)


class PooledAfterwards(Beside):
    """The gate of a max-pool compares the spikes of channels with several scales."""

    def forward(self, x):
        return self.head(F.max_pool2d(self.branches(x), 2).mean((2, 3)))


class Nested(Beside):
    """Three scales: a concatenation in another, and a third ceiling beside it."""

    def __init__(self):
        super().__init__()
        self.c, self.d = conv(3, 4, 10), conv(20, 12, 2)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        y = torch.cat([self.c(x).clamp(0, 2), F.max_pool2d(self.branches(x), 3, 1, 1)], 1)
        return self.head(F.relu(self.d(y)).mean((2, 3)))


class JoinedPooled(Joined):
    """The same with an average-pool in between, whose sums of spikes are no spikes."""

    def forward(self, x):
        y = F.avg_pool2d(self.branches(x), 2)
        return self.head(F.relu(self.c(y) + y).mean((2, 3)))


class Grouped(Beside):
    """Each group of synapses reads its own channels, so its own scales; the second straddles."""

    def __init__(self):
        super().__init__()
        self.b = conv(3, 10, 24)
        self.c = conv(18, 12, 2, groups=3)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(F.relu(self.c(self.branches(x))).mean((2, 3)))


class Depthwise(Beside):
    """Every channel by itself, and two outputs for each."""

    def __init__(self):
        super().__init__()
        self.c, self.head = conv(16, 32, 3, groups=16), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(F.relu(self.c(self.branches(x))).mean((2, 3)))


class Averaged(Beside):
    """An average-pool passes the scales on to a convolution."""

    def __init__(self):
        super().__init__()
        self.c, self.head = conv(16, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(F.relu(self.c(F.avg_pool2d(self.branches(x), 2))).mean((2, 3)))


class Straight(Beside):
    """What the concatenation gives is read by a graded layer, which is not scaled."""

    def __init__(self):
        super().__init__()
        self.c, self.d, self.head = conv(16, 4), conv(4, 6, kernel=1), nn.Linear(6, 5)

    def forward(self, x):
        y = F.max_pool2d(self.c(self.branches(x)), 2)
        return self.head(F.relu(self.d(y)).mean((2, 3)))


# How far their rates may be from the dense network. A max-pool's gate takes long to settle; shared
# scales without ceilings would give 0.3 to 2.9.
CEILINGS = {
    Beside: 0.02,
    Flattened: 0.02,
    PooledFirst: 0.02,
    PooledAfterwards: 0.12,
    Nested: 0.12,
    Joined: 0.02,
    JoinedPooled: 0.02,
    Grouped: 0.02,
    Depthwise: 0.02,
    Averaged: 0.02,
    Straight: 0.12,
}


def beside_larger(kind):
    """The network, images, and what it says of them."""
    torch.manual_seed(0)
    x, net = torch.randn(6, 3, 12, 10), kind().eval()
    with torch.no_grad():
        return net, x, net(x)


def error_of(found, wanted):
    """Relative to what the images' logits differ by."""
    return float((found - wanted).norm() / (wanted - wanted.mean(0)).norm())


def fused_in_oracle(graph, x, percentile):
    return FusedRateNetwork(
        graph, x, percentile, weight_bits=16, device="cpu", backend=reference.collapsed
    )


@pytest.mark.parametrize("make", [RateNetwork, fused_in_oracle])
@pytest.mark.parametrize("kind", CEILINGS)
def test_a_ceiling_beside_larger_activations_is_kept(kind, make):
    net, x, wanted = beside_larger(kind)
    rate = make(trace(net, input_size=x.shape), x, 100.0)
    early, *_, late = rate.run(x, 400, report_every=100).logits
    settled = (400 * late - 100 * early) / 300  # without the steps until activity arrives
    assert error_of(settled, wanted) < CEILINGS[kind]


def test_a_ceiling_beside_larger_activations_becomes_exact_with_time():
    net, x, wanted = beside_larger(Beside)
    rate = RateNetwork(convert(net, x).graph, x, 100.0)
    early, late = rate.run(x, 2000, report_every=500).logits[[0, -1]]
    assert error_of(late, wanted) < 0.01 < error_of(early, wanted)


def test_a_percentile_above_the_ceiling_is_that_of_the_neighbour():
    net, x, wanted = beside_larger(Beside)
    graph = trace(net)
    for percentile in (90.0, 99.0):
        scales = layer_scales(graph, measure(graph, x), "percentile", percentile)
        assert scales["a"] == 6.0 < scales["b"]
    early, late = RateNetwork(graph, x, 99.99).run(x, 400, report_every=200).logits
    assert error_of(2 * late - early, wanted) < 0.03


def test_a_silent_layer_keeps_its_ceiling():
    """Its scale is 1 where nothing was measured, which later images must not reach."""
    rate = RateNetwork(identity_graph(ceiling=0.25), -torch.ones(2, 1, 3, 3))
    assert rate.scales["a"] == 0.25
    run = rate.run(torch.full((1, 1, 1, 1), 9.0), 20)
    assert run.logits[-1].item() == pytest.approx(0.25)


def test_scales_that_differ_within_an_identity_branch_are_left_to_torch():
    net, x, _ = beside_larger(Joined)
    fused = fused_in_oracle(trace(net), x, 100.0)
    fused.run(x[:1], 1)
    assert list(fused.kernels.values()) == ["torch", "torch", "torch", "oracle"]
    net.clip = F.relu  # the same without a ceiling: one scale, so one number
    fused = fused_in_oracle(trace(net), x, 100.0)
    fused.run(x[:1], 1)
    assert list(fused.kernels.values()) == ["torch", "torch", "oracle", "oracle"]


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


def test_spikes_are_whole_numbers_per_image_and_do_not_depend_on_the_batch():
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
        scale = layer_scales(graph, measure(graph, x), "percentile", percentile)[name]
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
def test_bad_images_are_refused(bad):
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


def test_networks_and_runs_print_as_one_screen():
    net, x = small_resnet()
    rate = RateNetwork(trace(net, tuple(x.shape)), x)
    fused = FusedRateNetwork(
        trace(net, tuple(x.shape)), x, device="cpu", backend=reference.collapsed
    )
    run = rate.run(x[:2], 40, report_every=2, until=30)
    for printed in (rate, fused, run):
        lines = str(printed).splitlines()
        assert len(lines) <= 20 and max(map(len, lines)) <= 80 and "tensor(" not in repr(printed)
        assert len(repr(printed)) <= 80 and "\n" not in repr(printed)
    assert f"{len(rate.scales)} of neurons; depth {rate.depth}" in str(rate)
    kernels = f"{len(fused.fused)} of {len(fused.scales)} layers of neurons, on cpu"
    assert str(fused).startswith("FusedRateNetwork") and kernels in str(fused)
    assert f"{float(run.spikes().mean()):,.0f} an image" in str(run)
    assert "30 of them" in str(run) and "after 2, 4, ..., 30 time steps" in str(run)
    whole = rate.run(x[:1], 3)
    assert "extrapolated" not in str(whole) and "after 3 time steps" in str(whole)
