"""Bad input to neurons, spikes and oracles: each refused, naming the argument, value and cure."""

import math

import numpy as np
import pytest
import torch

from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import (
    FSNeuron,
    fire,
    fire_loop,
    from_spikes,
    graded,
    popcount,
    spike_train,
    to_spikes,
)
from fskernel.network.synapses import Synapses
from fskernel.reference.checks import check_exact
from fskernel.spikes import SpikeTensor, decode, encode

X = torch.rand(1, 2, 3, 4)


@pytest.mark.parametrize("K", [0, 16, -1, 10**20])
def test_K_outside_its_range(K):
    for call in (
        lambda: FSNeuron(K, 1.0),
        lambda: fire(X, K),
        lambda: fire_loop(X, K),
        lambda: spike_train(X, K),
        lambda: to_spikes(torch.zeros(3, dtype=torch.uint8), K),
        lambda: encode(X, K=K, alpha=1.0),
        lambda: reference.paper_neuron(X.double(), K, 1.0),
        lambda: reference.collapsed.encode_words(X, 1.0, 0.0, K),
    ):
        with pytest.raises(ValueError, match=rf"K={K} is outside 1\.\.15"):
            call()


@pytest.mark.parametrize(
    "K", [8.0, "8", None, True, np.float32(8), np.bool_(True), torch.tensor(True), [8], 8j]
)
def test_K_that_is_no_integer(K):
    with pytest.raises(TypeError, match="K=.* is not an integer.*1..15"):
        FSNeuron(K, 1.0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf, -math.inf, torch.tensor(0)])
def test_alpha_not_positive_and_finite(alpha):
    with pytest.raises(ValueError, match="alpha=.* must be positive and finite"):
        FSNeuron(8, alpha)
    with pytest.raises(ValueError, match="alpha=.* must be positive and finite"):
        encode(X, K=8, alpha=alpha)


@pytest.mark.parametrize("alpha", ["1", None, True, 1j, [1.0], torch.ones(2), torch.tensor(True)])
def test_alpha_that_is_no_number(alpha):
    with pytest.raises(TypeError, match="alpha=.* is not a real number"):
        FSNeuron(8, alpha)


@pytest.mark.parametrize("alpha", [1e-40, 1e39, 5e-324])
def test_alpha_whose_thresholds_are_no_float32(alpha):
    with pytest.raises(ValueError, match="alpha=.* rescale the layer"):
        FSNeuron(8, alpha)


def test_unknown_rounding():
    with pytest.raises(ValueError, match="rounding='up' is unknown.*nearest"):
        FSNeuron(8, 1.0, "up")
    with pytest.raises(ValueError, match="rounding='up' is unknown.*nearest"):
        reference.paper_neuron(X.double(), 8, 1.0, "up")
    with pytest.raises(TypeError, match="rounding=None is not a string"):
        FSNeuron(8, 1.0, None)


@pytest.mark.parametrize("v", [X.double(), X.half(), X.int(), [1.0], None])
def test_membranes_of_another_type(v):
    for call in (lambda: fire(v, 8), lambda: fire_loop(v, 8), lambda: graded(v)):
        with pytest.raises(TypeError, match="v is .*float32"):
            call()
    if not isinstance(v, torch.Tensor) or v.dtype != torch.float64:
        with pytest.raises(TypeError, match="v is .*float64"):
            spike_train(v, 8)
        with pytest.raises(TypeError, match="v is not a float64 tensor"):
            reference.paper_neuron(v, 8, 1.0)


@pytest.mark.parametrize("limit", [0, -5, 32768])
def test_graded_limit_outside_int16(limit):
    with pytest.raises(ValueError, match=f"limit={limit} is outside 1..32767"):
        graded(X, limit)


@pytest.mark.parametrize(
    "x",
    [X.int(), X > 0.5, X.to(torch.uint8), X.to(torch.complex64), X.numpy(), 0.5],
    ids=["int32", "bool", "uint8", "complex", "numpy", "number"],
)
def test_encoding_what_is_no_float_tensor(x):
    with pytest.raises(TypeError, match="x is .*floating-point"):
        encode(x, K=8, alpha=1.0)


def test_encoding_in_grad_mode():
    x = torch.rand(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="x requires grad.*no_grad"):
        encode(x, K=8, alpha=1.0)
    with pytest.raises(RuntimeError, match="x requires grad.*detach"):
        encode(x * 2, K=8, alpha=1.0)


def test_encoding_with_half_a_neuron_or_two():
    with pytest.raises(TypeError, match="both K= and alpha="):
        encode(X)
    with pytest.raises(TypeError, match="both K= and alpha="):
        encode(X, K=8)
    for extra in ({"K": 8}, {"alpha": 1.0}, {"rounding": "floor"}):
        with pytest.raises(TypeError, match="not both"):
            encode(X, FSNeuron(8, 1.0), **extra)
    with pytest.raises(TypeError, match="neuron is a int"):
        encode(X, 8)


@pytest.mark.parametrize(
    ("K", "dtype"), [(8, torch.int16), (9, torch.uint8), (8, torch.int32), (8, torch.float32)]
)
def test_words_of_a_dtype_that_is_not_theirs(K, dtype):
    words = torch.zeros(2, 3, dtype=dtype)
    with pytest.raises(TypeError, match=f"words is {dtype}: spike words of K={K} are torch"):
        SpikeTensor(words, FSNeuron(K, 1.0))
    with pytest.raises(TypeError, match=f"words is {dtype}: spike words of K={K} are torch"):
        to_spikes(words, K)


@pytest.mark.parametrize(
    ("K", "word", "dtype"),
    [(5, 32, torch.uint8), (1, 2, torch.uint8), (10, 1024, torch.int16), (15, -1, torch.int16)],
)
def test_words_beyond_the_largest(K, word, dtype):
    words = torch.zeros(2, 3, dtype=dtype)
    words[1, 2] = word
    with pytest.raises(ValueError, match=rf"words contains {word}, outside 0\.\.{2**K - 1}"):
        SpikeTensor(words, FSNeuron(K, 1.0))
    with pytest.raises(ValueError, match=rf"words contains {word}, outside 0\.\.{2**K - 1}"):
        to_spikes(words, K)


def test_words_without_shape_or_neuron():
    with pytest.raises(ValueError, match="words has no dimensions"):
        SpikeTensor(torch.tensor(1, dtype=torch.uint8), FSNeuron(8, 1.0))
    with pytest.raises(TypeError, match="neuron is a int"):
        SpikeTensor(torch.zeros(1, dtype=torch.uint8), 8)
    with pytest.raises(TypeError, match="words is a ndarray"):
        SpikeTensor(np.zeros(3, dtype=np.uint8), FSNeuron(8, 1.0))
    with pytest.raises(TypeError, match="spikes is a Tensor.*SpikeTensor"):
        decode(torch.zeros(1, dtype=torch.uint8))


def test_trains_that_are_none():
    with pytest.raises(TypeError, match="spikes is torch.uint8.*bool"):
        from_spikes(torch.zeros(8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="spikes has no dimensions"):
        from_spikes(torch.tensor(True))
    with pytest.raises(ValueError, match="K=16 is outside"):
        from_spikes(torch.zeros(16, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match="words is torch.int64"):
        popcount(torch.zeros(3, dtype=torch.int64))


def layer(weight=None, x_max=255):
    weight = torch.ones(2, 3, 1, 1, dtype=torch.int8) if weight is None else weight
    return Synapses(weight, torch.ones(len(weight)), Geometry((1, 1)), x_min=0, x_max=x_max)


CODES = torch.zeros(1, 4, 5, 3, dtype=torch.uint8)


@pytest.mark.parametrize("oracle", [reference.literal, reference.collapsed], ids=["a", "b"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"groups": []}, ValueError, "groups has 0 entries"),
        ({"groups": [(CODES, layer())] * 3}, ValueError, "groups has 3 entries"),
        ({"groups": [(CODES.int(), layer())]}, TypeError, "x is torch.int32"),
        ({"groups": [(CODES[0], layer())]}, TypeError, "x is torch.uint8"),
        ({"groups": [(CODES[..., :2], layer())]}, ValueError, "x has 2 channels.*expect 3"),
        ({"groups": [(CODES + 9, layer(x_max=8))]}, ValueError, r"codes 9\.\.9.*range 0\.\.8"),
        (
            {"groups": [(CODES, layer()), (CODES[:, :2], layer())]},
            ValueError,
            "synapse groups give",
        ),
        ({"bias": torch.zeros(3)}, ValueError, r"bias is torch.float32 \(3,\)"),
        ({"bias": torch.zeros(2).double()}, ValueError, "bias is torch.float64"),
        ({"K": 16}, ValueError, "K=16"),
        ({"K": -1}, ValueError, "K=-1"),
        ({"K": 0, "limit": 0}, ValueError, "limit=0"),
        ({"plane_bits": 3}, ValueError, "plane_bits=3"),
        ({"residual": (CODES, torch.ones(1))}, ValueError, "residual is"),
        ({"residual": (CODES[..., :2], torch.ones(2))}, ValueError, "r must be one float32"),
    ],
)
def test_layers_that_do_not_fit_together(oracle, change, error, message):
    arguments = {"groups": [(CODES, layer())], "bias": torch.zeros(2), "K": 8, **change}
    with pytest.raises(error, match=message):
        oracle.conv(arguments.pop("groups"), arguments.pop("bias"), **arguments)


@pytest.mark.parametrize("oracle", [reference.literal, reference.collapsed], ids=["a", "b"])
def test_sums_that_leave_int32(oracle):
    """Synapses refuse such weights; an oracle that was handed them must not wrap in silence."""
    synapses = layer(torch.zeros(1, 3, 1, 1, dtype=torch.int16), x_max=32767)
    synapses.weight.fill_(32767)
    x = torch.full((1, 1, 1, 3), 32767, dtype=torch.int16)
    with pytest.raises(ValueError, match=f"a sum is {3 * 32767**2}, outside int32"):
        oracle.conv([(x, synapses)], torch.zeros(1), K=8)
    with pytest.raises(ValueError, match="a window sums to 65534, beyond 32767"):
        oracle.sum_pool(x.expand(1, 1, 2, 3), Geometry((1, 2)))


def test_sums_that_float64_cannot_hold():
    weight = torch.full((2, 3), 32767, dtype=torch.int16)
    check_exact(2**53 // (3 * 32767), weight)
    with pytest.raises(ValueError, match=r"beyond 2\^53"):
        check_exact(2**53 // (3 * 32767) + 1, weight)


@pytest.mark.parametrize("oracle", [reference.literal, reference.collapsed], ids=["a", "b"])
def test_other_operators_on_what_does_not_fit(oracle):
    ones = torch.ones(2)
    with pytest.raises(ValueError, match="weight has 4 inputs, x has 3"):
        oracle.readout(CODES, torch.ones(2, 4, dtype=torch.int8), ones, ones, pool=True)
    with pytest.raises(TypeError, match="weight is torch.float32"):
        oracle.readout(CODES, torch.ones(2, 3), ones, ones, pool=True)
    with pytest.raises(TypeError, match="x is torch.float64"):
        oracle.encode(X.double(), 1.0)
    with pytest.raises(ValueError, match="a kernel of"):
        oracle.max_pool(CODES, Geometry((7, 1)))
    with pytest.raises(ValueError, match="fan_y"):
        oracle.synaptic_events(CODES, torch.ones(3).long(), torch.ones(5).long())
