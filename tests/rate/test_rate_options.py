"""Options of the rate-coded baseline: against a simulation neuron by neuron, in float64."""

import copy
import functools
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cuda_backends import emulator
from hypothesis import given
from hypothesis import strategies as st
from rate_networks import Beside, Joined, conv
from torch import nn

from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.graph import Graph, Group, Layer
from fskernel.rate.fused import FusedRateNetwork
from fskernel.rate.network import INPUTS, RESETS, RateNetwork, _State
from fskernel.rate.poisson import PoissonImages
from fskernel.rate.thresholds import NORMALISATIONS
from fskernel.tracing.trace import trace

ONE = Geometry((1, 1))


class Tiny(nn.Module):
    """A max-pool, an identity branch, a concatenation beside a ceiling, an average-pool."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(2, 3, 2), conv(3, 3, 2), conv(3, 2, 6)
        self.head = nn.Linear(5 * 4, 3)
        for layer in (self.a, self.b, self.c):
            layer.bias.data *= 0.3

    def neuron(self, name, v):
        return v.clamp(0, 1.5) if name == "c" else v.relu()

    def pool(self, y):
        return F.max_pool2d(y, 2, 1)

    def forward(self, x):
        y = self.pool(self.neuron("a", self.a(x)))
        y = torch.cat([self.neuron("b", self.b(y) + y), self.neuron("c", self.c(y))], 1)
        return self.head(F.avg_pool2d(y, 2).flatten(1))


@functools.cache
def tiny():
    """The network, its graph, images that calibrate and others."""
    torch.manual_seed(5)
    net, x = Tiny().eval(), torch.randn(5, 2, 5, 5)
    return net, trace(net, input_size=x.shape), torch.randn(6, 2, 5, 5), x[:2]


class Stepped:
    """The module step by step, in its own units: neurons with thresholds, and real currents."""

    def __init__(self, net, thresholds, start, reset):
        self.net, self.reset = copy.deepcopy(net).double(), reset
        self.net.neuron, self.net.pool = self.fire, self.gate
        self.thresholds, self.start = thresholds, start
        self.membranes, self.totals, self.readout = {}, None, 0.0

    def step(self, x):
        """Returns the spikes of each image in this step."""
        self.spikes = [0] * len(x)
        self.readout = self.readout + self.net(x.double()).numpy()
        return self.spikes

    def fire(self, name, current):
        emitted = torch.zeros_like(current)
        v = self.membranes.setdefault(name, np.full(current.shape, np.nan))
        for at in itertools.product(*map(range, current.shape)):
            threshold = self.thresholds[name][at[1]]
            before = self.start * threshold if math.isnan(v[at]) else v[at]
            v[at] = before + float(current[at])
            if v[at] >= threshold:
                v[at] = v[at] - threshold if self.reset == "subtract" else 0.0
                emitted[at] = threshold
                self.spikes[at[0]] += 1
        return emitted

    def gate(self, emitted):
        """Passes on what the input that has emitted most so far emits; the first one if equal."""
        self.totals = emitted.numpy() + (0 if self.totals is None else self.totals)
        n, c, h, w = emitted.shape
        passed = torch.zeros(n, c, h - 1, w - 1, dtype=torch.float64)
        for i, k, y, x in itertools.product(range(n), range(c), range(h - 1), range(w - 1)):
            window = [(y + dy, x + dx) for dy in (0, 1) for dx in (0, 1)]
            best = max(window, key=lambda at: round(float(self.totals[i, k][at]), 6))
            passed[i, k, y, x] = emitted[i, k][best]
        return passed


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_every_step_is_that_of_single_neurons(normalise, reset, input):
    net, graph, calibration, x = tiny()
    steps, burn_in = 14, 5
    options = {"normalise": normalise, "reset": reset, "input": input, "seed": 7}
    rate = RateNetwork(graph, calibration, 97.0, balanced_for=8, **options)
    run = rate.run(x, steps, report_every=4, burn_in=burn_in)
    assert run.reported_at == [8, 12, 14] and run.burn_in == burn_in
    channels = {"a": 3, "b": 3, "c": 2}
    thresholds = {
        name: np.broadcast_to(np.asarray(scale, np.float64), channels[name])
        for name, scale in zip("abc", rate.scales.values(), strict=True)
    }
    largest = float(calibration.abs().max())
    trains = PoissonImages(x, largest, 7)
    by_hand = Stepped(net, thresholds, 0.5 * (normalise == "balanced"), reset)
    with torch.no_grad():
        for t in range(1, steps + 1):
            spikes = by_hand.step(x if input == "analog" else trains.next())
            assert run.spikes_per_step[t - 1].tolist() == spikes, t
            if t == burn_in:
                by_hand.readout = 0.0
            if t in run.reported_at:
                logits = run.logits[run.reported_at.index(t)]
                wanted = by_hand.readout / (t - burn_in)
                np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
    assert int(run.spikes_per_step.sum()) > 100


def chain(weights, bias):
    """image -> two neurons in a row -> readout, of one pixel."""

    def layer(name, kind, source, weight, **options):
        weight = torch.full((1, 1, 1, 1), weight, dtype=torch.float64)
        return Layer(name, kind, [Group(source, weight, ONE)], torch.tensor([bias]), **options)

    layers = [
        Layer("x", "input"),
        layer("a", "neuron", "x", weights[0]),
        layer("b", "neuron", "a", weights[1]),
        layer("out", "readout", "b", 1.0, pool=True),
    ]
    return Graph(layers).to(torch.float64)


def fired(currents, reset, start):
    """The spikes of a neuron of threshold 1, and what is left in its membrane."""
    v, spikes = start, []
    for current in currents:
        v += current
        spikes.append(int(v >= 1))
        v = 0.0 if spikes[-1] and reset == "zero" else v - spikes[-1]
    return spikes, v


sixtyfourths = st.integers(-160, 160).map(lambda n: n / 64)


@given(x=sixtyfourths, weights=st.tuples(sixtyfourths, sixtyfourths), bias=sixtyfourths)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_what_went_in_was_fired_or_is_left(start, reset, x, weights, bias):
    """All numbers are exact in float32, so with reset by subtraction nothing may be lost."""
    one = torch.ones(1, 1, 1, 1)
    net = RateNetwork(chain((1.0, 1.0), 0.0), one, reset=reset)
    assert net.scales == {"a": 1.0, "b": 1.0}
    net.graph = chain(weights, bias).to(torch.float32)  # of scales 1, so as it is
    state, T = _State(start), 12
    for _ in range(T):
        net._step(x * one, state)
    v = {name: float(state.membranes[name]) for name in "ab"}
    current = weights[0] * x + bias
    a, left_in_a = fired([current] * T, reset, start)
    b, left_in_b = fired([weights[1] * z + bias for z in a], reset, start)
    assert v == {"a": left_in_a, "b": left_in_b}
    assert float(state.readout) == sum(b) + T * bias
    if reset == "subtract":
        assert start + T * current == sum(a) + v["a"]
        assert start + weights[1] * sum(a) + T * bias == sum(b) + v["b"]


def error_of_rates(y, theta, T):
    rates = np.clip(np.floor(y * T / theta + 0.5), 0, T) * theta / T
    return np.square(rates - y).mean()


@pytest.mark.parametrize("T", [1, 4, 32, 256])
def test_balanced_thresholds_have_the_least_error_of_all(T):
    """No other threshold of a fine grid is better by more than grid and histogram are coarse."""
    net, graph, x, _ = tiny()
    rate = RateNetwork(graph, x, normalise="balanced", balanced_for=T)
    seen = {}
    graph.to(torch.float32).forward(x, observe=lambda layer, y: seen.update({layer.name: y}))
    for name, scale in rate.scales.items():
        assert scale.shape == (seen[name].shape[1],) and scale.dtype == torch.float64
        for c, theta in enumerate(scale.tolist()):
            y = seen[name][:, c].double().numpy().ravel()

            best = min(error_of_rates(y, o, T) for o in np.linspace(0.04, 1.05, 300) * y.max())
            assert 0 < theta <= y.max() + 1e-12
            assert error_of_rates(y, theta, T) <= 1.05 * best + 1e-6 * y.max() ** 2


def test_thresholds_by_their_definitions():
    net, graph, x, _ = tiny()
    seen = {}
    graph.to(torch.float32).forward(x, observe=lambda layer, y: seen.update({layer.name: y}))
    quantile = {
        "percentile": lambda y: np.quantile(y[y > 0], 0.9, method="inverted_cdf"),
        "robust": lambda y: np.quantile(y, 0.9, method="inverted_cdf"),
        "max": np.max,
    }
    found = {}
    for normalise, of in quantile.items():
        found[normalise] = RateNetwork(graph, x, 90.0, normalise=normalise).scales
        first, *tied = found[normalise]
        wanted = of(seen[first].numpy())
        assert found[normalise][first] == pytest.approx(wanted, rel=0.001)
        largest = max(of(seen[name].numpy()) for name in tied)
        ceilings = [graph[name].ceiling or math.inf for name in tied]
        for name, ceiling in zip(tied, ceilings):  # what is concatenated, up to its ceiling
            assert found[normalise][name] == pytest.approx(min(largest, ceiling), rel=0.001)
    for name in found["max"]:
        values = [found[n][name] for n in ("robust", "percentile", "max")]
        assert values == sorted(values)


def single(weight, ceiling=None):
    """image -> neurons, one for each weight -> readout of their sum."""
    weight = torch.tensor(weight, dtype=torch.float64)[:, None, None, None]
    none = torch.zeros(len(weight), dtype=torch.float64)
    ones = torch.ones(1, len(weight), 1, 1, dtype=torch.float64)
    return Graph(
        [
            Layer("x", "input"),
            Layer("a", "neuron", [Group("x", weight, ONE)], none, ceiling=ceiling),
            Layer("out", "readout", [Group("a", ones, ONE)], none[:1], pool=True),
        ]
    )


def test_silent_and_rare_activations_have_thresholds_all_the_same():
    def scales(graph, x, **options):
        return RateNetwork(graph, x, **options).scales["a"]

    ones = torch.ones(1, 1, 4, 4)
    assert scales(single([3.0, -1.0, 0.5]), ones, normalise="balanced").tolist() == [3.0, 3.0, 0.5]
    assert scales(single([-1.0, -2.0]), ones, normalise="balanced").tolist() == [1.0, 1.0]
    assert scales(single([3.0, -1.0], 2.0), ones, normalise="balanced").tolist() == [2.0, 2.0]
    assert scales(single([3.0, -1.0], 0.25), -ones, normalise="balanced").tolist() == [0.25, 0.25]
    rare = F.pad(torch.full((1, 1, 1, 1), 5.0), (0, 31, 0, 31))  # 1 of 1,024 is not 0
    assert scales(single([1.0]), rare, normalise="robust") == 5.0
    assert scales(single([1.0]), 0 * rare, normalise="robust") == 1.0


def test_thresholds_do_not_depend_on_the_batches_and_images_may_come_once():
    _, graph, x, _ = tiny()
    whole = RateNetwork(graph, x, normalise="balanced").scales
    once = RateNetwork(graph, (b for b in x.split(4)), normalise="balanced").scales
    assert all(torch.equal(whole[name], once[name]) for name in whole)


def test_starting_half_way_rounds_where_starting_at_zero_cuts_off():
    """A constant current of one layer: the rate after T steps is the nearest one there is."""
    x = torch.linspace(0, 1, 101).view(101, 1, 1, 1)
    for T in (1, 5, 32):
        zero = RateNetwork(single([1.0]), x, normalise="max").run(x, T).spikes()
        half = RateNetwork(single([1.0]), x, normalise="balanced", balanced_for=256).run(x, T)
        wanted = x.flatten() * T
        assert float((half.spikes() - wanted).abs().max()) <= 0.5 + 1e-4
        assert float((zero - wanted).abs().max()) > 0.9


def test_strong_thresholds_are_closer_to_the_ann_in_few_steps():
    net, graph, calibration, _ = tiny()
    x = torch.randn(40, 2, 5, 5)
    wanted = net(x).detach()

    def error(**options):
        found = RateNetwork(graph, calibration, **options).run(x, 24, report_every=24).logits[-1]
        return float((found - wanted).norm() / wanted.norm())

    balanced = error(normalise="balanced", balanced_for=24)
    assert balanced < 0.8 * error(normalise="max")
    assert balanced < 0.8 * error(normalise="percentile")
    assert error() < error(reset="zero")


def test_the_readout_sums_what_comes_after_the_burn_in():
    _, graph, calibration, x = tiny()
    rate = RateNetwork(graph, calibration)
    sums = [n * y for n, y in zip(range(1, 31), rate.run(x, 30, report_every=1).logits)]
    late = rate.run(x, 30, report_every=10, burn_in=10)
    assert late.reported_at == [20, 30]
    for at, logits in zip(late.reported_at, late.logits):
        wanted = (sums[at - 1] - sums[9]) / (at - 10)
        torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(late.spikes_per_step, rate.run(x, 30).spikes_per_step)
    assert rate.run(x, 30, burn_in=29).reported_at == [30]


def trains(x, seed=0, steps=200, largest=2.0):
    shown = PoissonImages(x, largest, seed)
    return torch.stack([shown.next() for _ in range(steps)])


def test_poisson_spikes_have_the_sign_of_the_pixel_and_its_mean():
    x = torch.tensor([-3.0, -2.0, -0.5, -0.0, 0.0, 0.25, 1.0, 2.0, 2.5]).view(1, 1, 3, 3)
    found = trains(x, steps=4000)[:, 0, 0].flatten(1)
    assert set(found.abs().unique().tolist()) == {0.0, 2.0}
    assert ((found == 0) | (found.sign() == x.sign().flatten())).all()
    wanted = x.flatten().clamp(-2, 2)
    sigma = (2 * wanted.abs() - wanted.square()).sqrt() / 4000**0.5
    assert ((found.mean(0) - wanted).abs() <= 4.5 * sigma).all()
    # Steps and pixels are independent of each other: all pairs of the five random ones.
    wild = found[:, [2, 5, 6]] - found[:, [2, 5, 6]].mean(0)
    both = torch.cat([wild[1:], wild[:-1]], 1)
    assert float((torch.corrcoef(both.T) - torch.eye(6)).abs().max()) < 4.5 / 4000**0.5


def test_poisson_spikes_depend_on_seed_and_image_alone():
    torch.manual_seed(1)
    x = torch.randn(5, 2, 4, 3)
    whole = trains(x, 9, 20)
    layout = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole[:, 3:], trains(x[3:], 9, 20))
    assert torch.equal(whole.flip(1), trains(x.flip(0), 9, 20))
    assert torch.equal(whole, trains(layout, 9, 20))
    torch.manual_seed(2)
    assert torch.equal(whole, trains(x, 9, 20)), "the global random numbers are not used"
    others = [trains(x, 10, 20), trains(x + 1e-6, 9, 20), trains(x, 2**64 - 1, 20)]
    assert not any(torch.equal(whole, found) for found in others)
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_poisson_runs_repeat_and_become_the_analog_ones():
    _, graph, calibration, x = tiny()
    noisy = RateNetwork(graph, calibration, input="poisson", seed=4)
    first = noisy.run(x, 1200, report_every=20)
    again = noisy.run(x, 20)
    assert torch.equal(first.logits[0], again.logits[0])
    wanted = RateNetwork(graph, calibration).run(x, 1200).logits[-1]
    late = (first.logits[-1] - wanted).norm() / wanted.norm()
    early = (first.logits[0] - wanted).norm() / wanted.norm()
    assert float(late) < 0.3 * float(early)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"normalise": "mean"}, "normalise='mean': choose one of 'percentile', 'max'"),
        ({"reset": "half"}, "reset='half': choose one of 'subtract', 'zero'"),
        ({"input": "rate"}, "input='rate': choose one of 'analog', 'poisson'"),
        ({"balanced_for": 0}, "balanced_for=0: must be 1 to 256"),
        ({"balanced_for": 257}, "balanced_for=257: must be 1 to 256"),
        ({"seed": -1}, "seed=-1: must be in 0"),
        ({"seed": 2**64}, "must be in 0 to 2"),
    ],
)
def test_unknown_settings_are_refused_before_any_image_is_read(options, said):
    def unread():
        raise AssertionError("work had begun")
        yield

    with pytest.raises(ValueError, match=said):
        RateNetwork(single([1.0]), unread(), **options)


@pytest.mark.parametrize("burn_in", [-1, 10, 11])
def test_a_burn_in_that_leaves_nothing_is_refused(burn_in):
    net = RateNetwork(single([1.0]), torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError, match=f"burn_in={burn_in}: must be 0 to 9"):
        net.run(torch.ones(1, 1, 1, 1), 10, burn_in=burn_in)


@pytest.mark.parametrize("options", [{"reset": "zero"}, {"input": "poisson"}])
def test_kernels_refuse_what_they_do_not_have(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}='{value}': the kernels have {name}"):
        FusedRateNetwork(single([1.0]), None, device="cpu", **options)


@pytest.mark.parametrize("kind", [Beside, Joined])
def test_balanced_thresholds_and_a_burn_in_on_kernels(kind):
    """The emulator has the oracle's spikes, and those are the float network's but for rounding."""
    torch.manual_seed(2)
    x, net = torch.randn(4, 3, 9, 8), kind().eval()
    graph = trace(net, input_size=x.shape)

    def run(make, T, **options):
        rate = make(graph, x, normalise="balanced", balanced_for=16, **options)
        return rate.run(x[:2], T, report_every=3, burn_in=4)

    fused = functools.partial(FusedRateNetwork, weight_bits=16, device="cpu")
    oracle = run(fused, 8, backend=reference.collapsed)
    found = run(fused, 8, backend=emulator("random"))
    assert torch.equal(found.spikes_per_step, oracle.spikes_per_step)
    assert torch.equal(found.logits, oracle.logits) and found.reported_at == [6, 8]
    plain = run(RateNetwork, 60)
    close = run(fused, 60, backend=reference.collapsed)
    assert float(((close.spikes() - plain.spikes()) / plain.spikes()).abs().max()) < 0.01
    error = (close.logits[-1] - plain.logits[-1]).norm() / plain.logits[-1].norm()
    assert float(error) < 0.03


def test_neurons_that_are_no_relus_are_refused_by_name():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 2),
    )  # fmt: skip
    graph = trace(module, (1, 3, 8, 8))
    with pytest.raises(ValueError, match="'0' computes SiLU: the rate of .* is a ReLU"):
        RateNetwork(graph, torch.randn(2, 3, 8, 8))
