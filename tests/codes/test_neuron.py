"""The FS neuron: closed form against the loop, trains against words, the paper's own statements."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fskernel.codes.neuron import (
    FSNeuron,
    fire,
    fire_loop,
    from_spikes,
    graded,
    popcount,
    spike_train,
    to_spikes,
    word_dtype,
)
from fskernel.reference import paper_neuron

ALL_K = range(1, 16)
SPECIAL = [math.nan, math.inf, -math.inf, 3.4e38, -3.4e38, 1e-45, -1e-45, 1.2e-38, -0.0, 0.0, -1.0]


def near(values, ulps=3):
    """The float32 values and every number within some ulps of them, one axis more."""
    centre = torch.as_tensor(values, dtype=torch.float32).numpy()
    steps = [centre]
    for target in (-np.inf, np.inf):
        moved = centre
        for _ in range(ulps):
            moved = np.nextafter(moved, np.float32(target))
            steps.append(moved)
    return torch.from_numpy(np.stack(steps))


def floor_word(v, K):
    """What a membrane must give, from the definition, in Python numbers."""
    if math.isnan(v) or v < 1:
        return 0
    return 2**K - 1 if v >= 2**K - 1 else math.floor(v)


@pytest.mark.parametrize("K", ALL_K)
def test_closed_form_and_loop_at_every_combination_of_thresholds(K):
    """Every sum of thresholds is an integer 0..2^K; within 3 ulps of it the word may flip."""
    v = near(torch.arange(2**K + 1))
    words = fire(v, K)
    assert words.dtype == word_dtype(K)
    assert torch.equal(words, fire_loop(v, K))
    assert torch.equal(words.to(torch.int64), v.double().floor().clamp(0, 2**K - 1).long())


@pytest.mark.parametrize("K", ALL_K)
def test_special_membranes(K):
    v = torch.tensor([*SPECIAL, 2.0**K, 2.0**K - 0.5, 2.0**24, 1e10])
    want = [floor_word(x, K) for x in v.tolist()]
    assert fire(v, K).tolist() == want
    assert fire_loop(v, K).tolist() == want


@given(
    st.integers(1, 15),
    st.lists(st.floats(width=32) | st.floats(0, 2.0**16, width=32), min_size=1, max_size=30),
)
def test_closed_form_and_loop_on_any_membrane(K, values):
    v = torch.tensor(values, dtype=torch.float32)
    want = [floor_word(x, K) for x in v.tolist()]
    assert fire(v, K).tolist() == want
    assert fire_loop(v, K).tolist() == want


def test_a_membrane_on_a_threshold_fires_in_the_paper_and_not_in_the_authors_loop():
    """v = alpha/2 at K = 10: the first step takes it all, or the nine after it share it."""
    v = torch.tensor([512.0])
    assert popcount(fire(v, 10)).tolist() == [1]
    assert popcount(fire_loop(v, 10)).tolist() == [1]
    assert popcount(fire_loop(v, 10, strict=True)).tolist() == [9]
    for strict, spikes in ((False, 1), (True, 9)):
        half = torch.tensor([12.5], dtype=torch.float64)
        _, train = paper_neuron(half, 10, 25.0, strict=strict, return_spikes=True)
        assert int(train.sum()) == spikes


def test_strict_differs_at_integer_membranes_only():
    v = near(torch.arange(1, 256))
    strict, paper = fire_loop(v, 8, strict=True).int(), fire_loop(v, 8).int()
    at_threshold = v == v.floor()
    assert torch.equal(paper - strict, at_threshold.int())


@pytest.mark.parametrize("K", ALL_K)
def test_trains_and_words_are_inverse(K):
    words = torch.arange(2**K).to(word_dtype(K)).reshape(2, -1)
    spikes = to_spikes(words, K)
    assert spikes.dtype == torch.bool and spikes.shape == (K, *words.shape)
    assert torch.equal(from_spikes(spikes), words)
    assert from_spikes(spikes).dtype == word_dtype(K)
    assert torch.equal(popcount(words).long(), spikes.sum(0))


def test_the_first_time_step_is_the_most_significant_bit():
    assert to_spikes(torch.tensor([0b10010], dtype=torch.uint8), 5)[:, 0].int().tolist() == [
        1,
        0,
        0,
        1,
        0,
    ]
    assert spike_train(torch.tensor([16.0]), 5)[:, 0].int().tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("K", ALL_K)
@pytest.mark.parametrize("alpha", [25.0, 1.0, 0.1, 6 * 256 / 255])
def test_a_train_stands_for_its_word(K, alpha):
    """sum_t T(t)*z(t) = q*step, up to the rounding of float64 sums."""
    neuron = FSNeuron(K, alpha)
    words = torch.arange(2**K).to(word_dtype(K))
    decoded = (neuron.thresholds()[:, None] * to_spikes(words, K)).sum(0)
    torch.testing.assert_close(decoded, words.double() * neuron.step, rtol=1e-14, atol=0)


@pytest.mark.parametrize("K", ALL_K)
@pytest.mark.parametrize("alpha", [25.0, 2.0, 6 * 256 / 255])
def test_the_yardstick_stays_within_the_papers_error_bound(K, alpha):
    """Floor loses less than alpha*2^-K for v < alpha; nearest half of it unless it clips."""
    step = alpha * 2.0**-K
    v = torch.linspace(0, alpha, 20011, dtype=torch.float64)[:-1]
    lost = v - paper_neuron(v, K, alpha, "floor")
    assert float(lost.min()) >= -1e-12 * alpha and float(lost.max()) < step * (1 + 1e-12)
    inner = v[v <= alpha - step / 2]
    error = (inner - paper_neuron(inner, K, alpha, "nearest")).abs().max()
    assert float(error) <= step / 2 * (1 + 1e-12)
    assert float(error) > 0.4 * step, "the bound is tight, so a looser one would prove nothing"
    beyond = torch.tensor([-1.0, alpha, 10 * alpha, math.inf, math.nan], dtype=torch.float64)
    top = alpha - step
    want = torch.tensor([0, top, top, top, 0], dtype=torch.float64)
    torch.testing.assert_close(paper_neuron(beyond, K, alpha), want)


@pytest.mark.parametrize("K", ALL_K)
@pytest.mark.parametrize("rounding", ["floor", "nearest"])
def test_the_yardstick_fires_like_the_word(K, rounding):
    neuron = FSNeuron(K, 8.0, rounding)  # a power of two: both are exact, so they must agree
    v = near(torch.arange(2**K + 1).float() * neuron.step).double().clamp(min=0)
    output, train = paper_neuron(v, K, neuron.alpha, rounding, return_spikes=True)
    words = from_spikes(train)
    assert torch.equal(output, words.double() * neuron.step)
    exact = (v / neuron.step + neuron.offset).floor().clamp(0, neuron.max_word)
    assert torch.equal(words.double(), exact)


def test_graded_values_round_ties_to_even_and_clip():
    v = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999998, 32766.5, 32767.5, 4e4, -4e4, 1e30])
    assert graded(v).tolist() == [0, 2, 2, 0, -2, 2, 32766, 32767, 32767, -32767, 32767]
    ends = torch.tensor([math.nan, math.inf, -math.inf, 127.5, -128.0])
    assert graded(ends, limit=127).tolist() == [0, 127, -127, 127, -127]
    assert graded(ends).dtype == torch.int16


def test_parameters():
    paper = FSNeuron.paper()
    assert (paper.K, paper.alpha, paper.rounding) == (10, 25.0, "floor")
    assert paper.step == 25 / 1024 and paper.max_word == 1023 and paper.offset == 0.0
    assert paper.thresholds().dtype == torch.float64
    assert paper.thresholds().tolist() == [25 / 2**t for t in range(1, 11)]
    assert paper.inv_step == float(np.float32(40.96))
    assert FSNeuron(8, 1.0).word_dtype == torch.uint8 and FSNeuron(9, 1.0).offset == 0.5
    assert FSNeuron(9, 1.0).word_dtype == torch.int16
    assert FSNeuron(8, 2.0) == FSNeuron(8, 2) and hash(FSNeuron(8, 2.0)) == hash(FSNeuron(8, 2))


@pytest.mark.parametrize("K", [np.int64(8), np.uint8(8), torch.tensor(8), np.array(8)])
@pytest.mark.parametrize("alpha", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), 0.5])
def test_scalars_of_numpy_and_torch_become_plain_numbers(K, alpha):
    neuron = FSNeuron(K, alpha)
    assert type(neuron.K) is int and type(neuron.alpha) is float
    assert neuron == FSNeuron(8, 0.5)


def test_empty_layers():
    assert fire(torch.empty(0, 3), 8).shape == (0, 3)
    assert fire_loop(torch.empty(0, 3), 8).shape == (0, 3)
    assert to_spikes(torch.empty(0, 3, dtype=torch.uint8), 8).shape == (8, 0, 3)
