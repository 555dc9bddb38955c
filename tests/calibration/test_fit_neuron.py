"""Risk: a fitted neuron misses its function, differs between runs, or is not what is written."""

import math

import pytest
import torch
from torch import nn

import fskernel as fs
from fskernel.activations import Activation
from fskernel.calibration import fitted_choice
from fskernel.calibration.fit import errors_of
from fskernel.calibration.fitted_choice import neuron_of, shipped

FEW = {"restarts": 8, "rounds": 60}
SHIPPED = [neuron for found in shipped().values() for neuron in found]


@pytest.fixture(scope="module")
def silu():
    return fs.fit_neuron("silu", 8, (-8, 4), **FEW)


def test_a_short_fit_is_near_its_function_and_says_how_near(silu):
    x = torch.linspace(-8, 4, 1000, dtype=torch.float64)
    missed = (silu(x) - nn.functional.silu(x)).abs()
    assert silu.rms < 0.12 and float(missed.max()) <= silu.worst + 1e-2
    assert (silu.K, silu.low, silu.high, silu.function) == (8, -8.0, 4.0, "SiLU")
    rms, worst, spikes = errors_of(silu, Activation("silu"))
    assert (rms, worst) == (silu.rms, silu.worst) and 0 < spikes < 8


def test_the_seed_decides(silu):
    same = fs.fit_neuron(nn.functional.silu, 8, (-8, 4), **FEW)
    assert same.thresholds == silu.thresholds and same.weights == silu.weights
    assert fs.fit_neuron("silu", 8, (-8, 4), seed=1, **FEW).thresholds != silu.thresholds


@pytest.mark.parametrize("name", ["silu", "sigmoid", "tanh"])
@pytest.mark.parametrize("K", [1, 7])
def test_membranes_far_out_give_what_the_ends_give(name, K):
    neuron = fs.fit_neuron(name, K, (-4, 4), **FEW)
    ends = Activation(name)(torch.tensor([-4.0, 4.0], dtype=torch.float64))
    missed = (neuron(torch.tensor([-1e4, 1e4])) - ends).abs().max()
    assert float(missed) < (2.0 if K == 1 else 0.5)


def test_spikes_that_cost_more_are_fewer():
    costs = [fs.fit_neuron("silu", 6, (-8, 4), spike_weight=w, **FEW) for w in (0.0, 100.0)]
    free, dear = (errors_of(neuron, nn.functional.silu)[2] for neuron in costs)
    assert dear < free


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"K": 0}, ValueError, "K=0 is outside 1..16"),
        ({"K": 17}, ValueError, "K=17 is outside 1..16"),
        ({"K": 2.5}, TypeError, "K=2.5"),
        ({"K": True}, TypeError, "K=True"),
        ({"range": (1, 1)}, ValueError, "range="),
        ({"range": (0, math.inf)}, ValueError, "not finite"),
        ({"range": (0, 2e4)}, ValueError, "10000"),
        ({"range": 3}, TypeError, "range=3"),
        ({"density": (0, 0)}, ValueError, "density="),
        ({"density": "wide"}, TypeError, "density="),
        ({"restarts": 1}, ValueError, "restarts=1"),
        ({"rounds": 0}, ValueError, "rounds=0"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"spike_weight": -1}, ValueError, "spike_weight=-1"),
        ({"function": "sulu"}, ValueError, "sulu"),
        ({"function": 3}, TypeError, "function is a int"),
        ({"function": torch.log}, ValueError, "nan for -1"),
        ({"function": lambda x: x - x.mean()}, ValueError, "not elementwise"),
        ({"function": lambda x: x.float()}, TypeError, "same shape and dtype"),
        ({"function": Activation("prelu", (0.1, 0.2))}, ValueError, "each channel"),
    ],
)
def test_wrong_arguments_are_refused_by_name(change, error, text):
    given = {"function": "silu", "K": 4, "range": (-1, 1)} | change
    with pytest.raises(error, match=text.replace(".", r"\.")):
        fs.fit_neuron(given.pop("function"), given.pop("K"), given.pop("range"), **given)


@pytest.mark.parametrize("neuron", SHIPPED, ids=lambda n: f"{n.function}-{n.K}-{n.high:g}")
def test_shipped_neurons_are_as_good_as_is_written(neuron):
    function = {"SiLU": "silu", "GELU": "gelu"}.get(neuron.function, neuron.function.lower())
    rms, worst, _ = errors_of(neuron, Activation(function))
    assert rms == pytest.approx(neuron.rms, rel=1e-3)
    assert worst == pytest.approx(neuron.worst, rel=1e-3)
    ends = Activation(function)(torch.tensor([neuron.low, neuron.high], dtype=torch.float64))
    far = neuron(torch.tensor([-1e4, 1e4]))
    assert float((far - ends).abs().max()) < 0.1 + 0.05 * neuron.high


def fake(name, K, high, low=-8.0):
    return fs.FittedNeuron((1.0,) * K, (1.0,) * K, (1.0,) * K, name, low, high)


@pytest.fixture
def choices(monkeypatch):
    """Two shipped neurons; what is fitted beside them is recorded."""
    asked = []

    def fit(activation, K, ends, **options):
        asked.append((activation.name, K, ends))
        return fake(activation.name, K, ends[1], ends[0])

    neurons = {("silu", 4): [fake("silu", 4, 2.0), fake("silu", 4, 8.0)]}
    monkeypatch.setattr(fitted_choice, "shipped", lambda: neurons)
    monkeypatch.setattr(fitted_choice, "fit_neuron", fit)
    monkeypatch.setattr(fitted_choice, "_fitted", {})
    return asked


def test_the_narrowest_shipped_neuron_that_holds_the_layer_is_taken(choices):
    silu = Activation("silu")
    for high, taken in ((0.5, 2.0), (2.0, 2.0), (2.1, 8.0), (8.0, 8.0)):
        assert neuron_of(silu, 4, -30.0, high).high == taken
    assert choices == []


def test_what_is_not_shipped_is_fitted_once(choices):
    silu = Activation("silu")
    for high in (17.0, 17.5):
        assert neuron_of(silu, 4, -30.0, high).high == pytest.approx(2**4.25)
    assert len(choices) == 1
    neuron_of(silu, 5, -30.0, 1.0)
    neuron_of(Activation("swish", (2.0,)), 4, -30.0, 1.0)
    assert len(choices) == 3


def test_only_where_the_function_changes_is_fitted(choices):
    neuron = neuron_of(Activation("sigmoid"), 4, -100.0, 100.0)
    assert -8 <= neuron.low <= -5 and 5 <= neuron.high <= 8
    neuron = neuron_of(Activation("leaky_relu", (0.5,)), 4, 1.0, 4.0)
    assert (neuron.low, neuron.high) == (1.0, 4.0)


def test_no_interval_and_functions_for_each_channel_are_refused():
    with pytest.raises(ValueError, match="low=2.0, high=1.0"):
        neuron_of(Activation("silu"), 4, 2.0, 1.0)
    with pytest.raises(ValueError, match="each channel"):
        neuron_of(Activation("prelu", (0.1, 0.2)), 4, -1.0, 1.0)
