"""Risk: neuron="fitted" makes a neuron of another function, range or unit, ties layers wrongly, or
changes layers of ReLUs; options that have no sense with it are taken in silence.
"""

import pytest
import torch
import torch.nn.functional as F
from networks import crossed, crossed_net, every_word, images, same_everywhere, settle
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.calibration import fitted_trains
from fskernel.calibration.fitted_trains import relu_neuron
from fskernel.codes.fitted import FittedNeuron
from fskernel.codes.neuron import spike_train


def fine(activation, K, low, high, progress=False):
    """In place of `neuron_of`: a neuron that resolves a function as well as K steps can.

    The first step always fires, and moves the membrane to where its range begins; the others take
    it apart in binary. What spikes are worth is fitted: exact for a function that is a line.
    """
    width = high - low
    halves = [width / 2**t for t in range(1, K)]
    x = torch.linspace(low, high, 2000, dtype=torch.float64)
    start = [-1e30, *halves]
    resets = [low, *halves]
    trial = FittedNeuron(start, resets, [0.0] * K)
    trains = trial.spikes(x).double().T
    worth = torch.linalg.lstsq(trains, activation(x)[:, None]).solution.flatten()
    return FittedNeuron(start, resets, worth.tolist(), activation.text(), low, high)


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setattr(fitted_trains, "neuron_of", fine)


class Lines(nn.Module):
    """Functions that are lines where they are met: there a fitted neuron is exact but for bits."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.c, self.d = nn.Conv2d(11, 7, 3, padding=1, stride=2), nn.Conv2d(11, 7, 1, stride=2)
        self.e = nn.Conv2d(7, 7, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (6, 5, 7, 7))
        self.fc = nn.Linear(7, 5)

    def forward(self, x):
        norms = iter(self.norms)
        a = F.hardtanh(next(norms)(self.a(x)), -20, 20)
        b = torch.relu(next(norms)(self.b(x)))
        x = torch.cat([a, b], 1)
        x = F.hardtanh(next(norms)(self.c(x)) + self.d(x), -30, 30)
        x = torch.relu(next(norms)(self.e(x)) + x)
        return self.fc(x.mean((2, 3)))


def test_units_biases_and_shared_codes_are_right(linear):
    """With 16 steps the network is the dense one, also where a ReLU shares a code."""
    x = images(4, 13)
    torch.manual_seed(0)
    module = settle(Lines().eval(), x).requires_grad_(False)
    net = fs.convert(module, x, neuron="fitted", weight_bits=16)
    codes = {step.name: step.code for step in net.steps}
    assert codes["a"] == codes["b"] and codes["a"].kind == "fitted" and codes["a"].zero > 0
    assert (codes["e"].kind, codes["e"].K) == ("words", 8)
    assert net.fitted == ["a", "b", "c"]
    same_everywhere(net, x, reference.literal)
    dense = module(x)
    assert (net(x) - dense).norm() < 0.02 * (dense - dense.mean(0)).norm()
    notes = {row.name: row.notes for row in net.report().rows}
    assert notes["a"] == ("shares the largest K and code of 2 layers that are concatenated",)
    assert notes["e"] == ("K=16 is of fitted neurons: these have 8 steps",)


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("K", [1, 5, 12])
def test_a_relu_that_shares_a_code_fires_as_its_own_neuron_would(K, rounding):
    neuron = relu_neuron(K, 3.0, rounding)
    step = 3.0 / (2**K - 1)
    generator = torch.Generator().manual_seed(K)
    v = torch.cat([torch.randn(3000, generator=generator) * 3, torch.tensor([-1e9, 1e9, 0.0])])
    offset = 0.5 if rounding == "nearest" else 0.0
    away = (v / step + offset).remainder(1)
    v = v[(away > 1e-3) & (away < 1 - 1e-3) | (v.abs() > 1e8)]  # float32 decides on borders
    words = spike_train((v.double() / step + offset).float(), K)
    assert torch.equal(neuron.spikes(v), words)
    assert relu_neuron(K, 0.0, rounding)(torch.tensor([2.0])).item() == pytest.approx(1.0)


def test_time_steps_of_layers():
    x = images(3, 9)[..., :8]
    net = fs.convert(crossed(), x, K={"default": 16, "c": 8, "f": 16, "b": 3}, neuron="fitted")
    K = {step.name: step.code.K for step in net.steps if step.spiking}
    assert K == {"a": 16, "b": 16, "c": 8, "d": 16, "e": 16, "f": 8}
    plain = fs.convert(crossed(), x, K=12, neuron="fitted")
    assert {s.code.K for s in plain.steps if s.spiking} == {12}
    assert not any("steps" in note for row in plain.report().rows for note in row.notes)
    assert fs.convert(crossed(), x, neuron="fitted").K == 16


def test_layers_of_relus_are_what_they_are_without_it():
    x = images(3, 12)
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    ).eval().requires_grad_(False)  # fmt: skip
    one, two = fs.convert(module, x, K=8), fs.convert(module, x, neuron="fitted")
    ours, theirs = every_word(one, x)[0], every_word(two, x)[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) and not two.fitted
    two.plane_bits = 1
    assert torch.equal(two(x), one(x))


def test_functions_of_channels_stay_shaped():
    x = images(3, 12)
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.PReLU(5), nn.Conv2d(5, 6, 3), nn.SiLU(), nn.Flatten(),
        nn.Linear(6 * 64, 3),
    ).eval().requires_grad_(False)  # fmt: skip
    module[1].weight.copy_(torch.tensor([0.1, 0.2, 0.3, -0.1, 0.5]))
    net = fs.convert(module, x, neuron="fitted")
    assert net.fitted == ["2"] and net.steps[1].table is not None and net.steps[1].code.K == 8
    same_everywhere(net, x, reference.literal)


@pytest.mark.parametrize("how", ["bias", "least_squares"])
def test_corrections_and_weight_bits_know_what_trains_say(how):
    x = images(4, 9, seed=5)[..., :8]
    net = fs.convert(crossed(), x, K=8, neuron="fitted", correct=how, weight_bits="auto")
    plain = fs.convert(crossed(), x, K=8, neuron="fitted")
    same_everywhere(net, x, reference.literal)
    dense = crossed().answer(x.double()).float()
    assert (net(x) - dense).norm() < (plain(x) - dense).norm()


def test_gates_and_bottlenecks_keep_their_rules():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 4, 1)
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            x = F.silu(self.a(x))
            x = x * torch.sigmoid(self.b(x.mean((2, 3), keepdim=True)))
            return self.fc(F.silu(self.c(x)).mean((2, 3)))

    x = images(3, 10)
    torch.manual_seed(3)
    module = Gated().eval().requires_grad_(False)
    for bottleneck, K in (("graded", 0), ("spiking", 8)):
        net = fs.convert(module, x, neuron="fitted", bottleneck=bottleneck)
        gate = next(step for step in net.steps if step.op == "gate")
        assert gate.code.K == K and net.fitted == ["a", "b", "c"]
        same_everywhere(net, x, reference.literal)
        _, stats = net.run(x)
        assert (gate.name in stats.spikes) == (K > 0)


X = images(2, 9)[..., :8]
BAD = {
    "images": (dict(calibration=None), "neuron='fitted' is for the membranes"),
    "logits": (dict(alpha="logits"), "alpha='logits' tries ranges"),
    "alpha of a fitted layer": (dict(alpha={"default": "max", "c": 2.0}), "alpha names 'c', whose"),
    "K=17": (dict(K=17), "K=17"),
    "K=16 as a float": (dict(K=16.0), "K"),
    "K=0 of a layer": (dict(K={"default": 16, "c": 0}), "K=0"),
    "another name": (dict(neuron="fit"), "use 'paper' or 'fitted'"),
    "K=16 of other neurons": (dict(K=16, neuron=None), "K=16"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_with_fitted_neurons_is_refused(case):
    options, message = BAD[case]
    options = {"calibration": X, "neuron": "fitted"} | options
    with pytest.raises((TypeError, ValueError), match=message):
        fs.convert(crossed(), options.pop("calibration"), **options)


def test_other_policies_are_of_the_other_layers():
    one = fs.convert(crossed(), X, K=8, neuron="fitted", alpha={"default": "max", "f": 0.5})
    infos = {step.name: getattr(step, "info", {}) for step in one.steps}
    assert {n: info["alpha"] for n, info in infos.items() if "alpha" in info} == {"f": 0.5}
    assert crossed_net(8).steps[1].info["fit_rms"] > 0
