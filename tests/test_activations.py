"""Risk: a neuron stands for another function than torch's, or for one without the bounds it has."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fskernel as fs
from fskernel.activations import BUILT_IN, Activation, is_registered

TORCH = [
    ("relu", (), F.relu, 0.0, math.inf),
    ("silu", (), F.silu, -0.27846454276107, math.inf),
    ("swish", (1.702,), lambda x: x * torch.sigmoid(1.702 * x), -0.1636101896363536, math.inf),
    ("hardswish", (), F.hardswish, -0.375, math.inf),
    ("gelu", (), F.gelu, -0.16997120747990, math.inf),
    ("gelu_tanh", (), lambda x: F.gelu(x, approximate="tanh"), -0.1700407505712541, math.inf),
    ("mish", (), F.mish, -0.3088434130172505, math.inf),
    ("sigmoid", (), torch.sigmoid, 0.0, 1.0),
    ("hardsigmoid", (), F.hardsigmoid, 0.0, 1.0),
    ("log_sigmoid", (), F.logsigmoid, -math.inf, 0.0),
    ("tanh", (), torch.tanh, -1.0, 1.0),
    ("hardtanh", (-0.5, 3.0), lambda x: F.hardtanh(x, -0.5, 3.0), -0.5, 3.0),
    ("hardtanh", (-1.0, math.inf), lambda x: x.clamp(min=-1), -1.0, math.inf),
    ("hardtanh", (-math.inf, 2.0), lambda x: x.clamp(max=2), -math.inf, 2.0),
    ("softsign", (), F.softsign, -1.0, 1.0),
    ("tanhshrink", (), F.tanhshrink, -math.inf, math.inf),
    ("softshrink", (0.5,), F.softshrink, -math.inf, math.inf),
    ("hardshrink", (0.25,), lambda x: F.hardshrink(x, 0.25), -math.inf, math.inf),
    ("threshold", (0.1, 0.05), lambda x: F.threshold(x, 0.1, 0.05), 0.05, math.inf),
    ("softplus", (2.0, 10.0), lambda x: F.softplus(x, 2.0, 10.0), 0.0, math.inf),
    ("elu", (0.7,), lambda x: F.elu(x, 0.7), -0.7, math.inf),
    ("celu", (2.0,), lambda x: F.celu(x, 2.0), -2.0, math.inf),
    ("selu", (), F.selu, -1.7580993408473766, math.inf),
    ("leaky_relu", (0.1,), lambda x: F.leaky_relu(x, 0.1), -math.inf, math.inf),
    ("leaky_relu", (-0.5,), lambda x: F.leaky_relu(x, -0.5), 0.0, math.inf),
    ("prelu", (0.2,), lambda x: F.prelu(x, x.new_tensor([0.2])), -math.inf, math.inf),
    ("prelu", (0.2, -1.0, 0.0), None, -math.inf, math.inf),
    ("prelu", (-0.2, -1.0, 0.0), None, 0.0, math.inf),
]


@pytest.mark.parametrize(("name", "numbers", "function", "low", "high"), TORCH)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_the_function_of_torch_in_its_dtype(name, numbers, function, low, high, dtype):
    activation = Activation(name, numbers)
    x = torch.randn(2, 3, 5, 4, dtype=dtype) * torch.logspace(-3, 3, 4, dtype=dtype)
    expected = F.prelu(x, x.new_tensor(numbers)) if function is None else function(x)
    y = activation(x)
    assert y.dtype == dtype and torch.equal(y, expected)
    assert activation.low == pytest.approx(low, abs=1e-11)
    assert activation.high == pytest.approx(high, abs=1e-11)


def test_every_built_in_function_is_compared():
    assert {name for name, *_ in TORCH} == set(BUILT_IN)


def test_channels_have_slopes_of_their_own():
    each = Activation("prelu", (0.5, -2.0))
    assert each.per_channel and not Activation("prelu", (0.5,)).per_channel
    x = torch.tensor([-1.0])
    assert [float(each.of_channel(c)(x)) for c in range(2)] == [-0.5, 2.0]
    assert float(Activation("prelu", (0.5,)).of_channel(7)(x)) == -0.5
    assert Activation("silu").of_channel(1) == Activation("silu")


def test_reports_say_which_function_it_is():
    assert Activation("silu").text() == "SiLU"
    assert Activation("leaky_relu", (0.1,)).text() == "LeakyReLU(0.1)"
    assert Activation("prelu", (0.1,) * 64).text() == "PReLU (64 slopes)"
    assert Activation("hardtanh", (-1.0, math.inf)).text() == "Clip(-1, inf)"


def test_graphs_with_activations_can_be_copied_and_pickled():
    for activation in (Activation("silu"), Activation("elu", (0.5,))):
        assert copy.deepcopy(activation) == activation
        assert pickle.loads(pickle.dumps(activation)) == activation
        assert hash(activation) == hash(copy.copy(activation))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'gellu' is no activation.*register_activation"):
        Activation("gellu")


# ---- registered ----------------------------------------------------------------------------------


def snake(x):
    return x + torch.sin(x) ** 2


def test_a_registered_function_is_an_activation_in_every_dtype():
    fs.register_activation("snake_for_test", snake)
    activation = Activation("snake_for_test")
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(activation(x), snake(x.double()).float())
    assert (activation.low, activation.high) == (-math.inf, math.inf)
    assert activation.text() == "snake_for_test"


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (torch.sin, -1.0, 1.0),
        (lambda x: x * x, 0.0, math.inf),
        (lambda x: torch.exp(-x * x), 0.0, 1.0),
        (lambda x: -torch.log1p(x.abs()), -math.inf, 0.0),  # grows slowly, and without end
        (lambda x: 2 * torch.atan(x) / math.pi, -1.0, 1.0),  # comes near its bounds slowly
        (lambda x: (x - 0.123456789) ** 2 - 7.0, -7.0, math.inf),
    ],
)
def test_bounds_are_found(function, low, high):
    fs.register_activation("bounded_for_test", function)
    found = Activation("bounded_for_test")
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)


def test_bounds_that_are_given_are_kept_and_a_new_registration_counts():
    fs.register_activation("twice_for_test", torch.tanh, low=-1.5, high=2.0)
    assert (Activation("twice_for_test").low, Activation("twice_for_test").high) == (-1.5, 2.0)
    fs.register_activation("twice_for_test", lambda x: 3 * torch.tanh(x))
    assert (Activation("twice_for_test").low, Activation("twice_for_test").high) == (-3.0, 3.0)


def flaky(x):
    return x + torch.rand(())


HOSTILE = [
    (lambda x: x - x.mean(), "not elementwise"),
    (lambda x: x.cumsum(0), "not elementwise"),
    (lambda x: torch.log(1 + torch.exp(x)), r"gives inf for 7\d\d"),
    (lambda x: torch.sqrt(x), "gives nan for -1"),
    (lambda x: x.reciprocal(), "gives .*inf for 0"),
    (flaky, "other numbers when it is called again"),
    (lambda x: x.sum(), r"gives torch.float64 \[\]"),
    (lambda x: x.float(), "gives torch.float32"),
    (lambda x: (x, x), "gives tuple"),
    (lambda x: x.relu_(), "writes into its input"),
    (lambda x: torch.zeros_like(x), "gives 0 for every number"),
    (lambda x: x @ x, "float64"),
    (nn.Conv2d(1, 1, 1), "does not take float64 tensors"),
]


@pytest.mark.parametrize(("function", "says"), HOSTILE)
def test_what_is_no_scalar_function_is_refused(function, says):
    with pytest.raises((ValueError, TypeError), match=says):
        fs.register_activation("hostile_for_test", function)
    assert not is_registered("hostile_for_test")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("silu", snake), "is an activation of torch"),
        (("", snake), "no name of an operator"),
        (("my act", snake), "no name of an operator"),
        ((3, snake), "no name of an operator"),
        (("wrong_for_test", 3), "function is a int"),
        (("wrong_for_test", torch.tanh, "low"), "low='low'"),
        (("wrong_for_test", torch.tanh, -0.5), "low=-0.5, but the function gives -1"),
        (("wrong_for_test", torch.tanh, None, math.nan), "high=nan"),
        (("wrong_for_test", torch.tanh, None, 0.9), "high=0.9, but the function gives 1"),
    ],
)
def test_wrong_registrations_are_refused(arguments, says):
    name, function, *bounds = arguments
    given = dict(zip(("low", "high"), bounds, strict=False))
    with pytest.raises((ValueError, TypeError), match=says):
        fs.register_activation(name, function, **given)
