"""Risk: fitted neurons fire other trains than defined, or rounding d spoils what they give."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fskernel.codes.fitted import (
    LARGEST_WORTH,
    FittedNeuron,
    code_of,
    fire_fitted,
    quantised,
    train_lines,
)
from fskernel.codes.neuron import spike_train

NUMBERS = st.floats(-8, 8, width=32)


def plain(K, alpha=1.0):
    """The plain FS neuron, as a fitted one."""
    halves = tuple(alpha * 2.0**-t for t in range(1, K + 1))
    return FittedNeuron(halves, halves, halves, low=-alpha, high=2 * alpha, rms=0.1)


@st.composite
def neurons(draw):
    K = draw(st.integers(1, 16))
    numbers = st.lists(NUMBERS, min_size=K, max_size=K).map(tuple)
    parts = draw(numbers), draw(numbers), draw(numbers)
    return FittedNeuron(*parts, low=-8.0, high=8.0, rms=draw(st.sampled_from([0.01, 0.3])))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 15), st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_binary_numbers_make_the_plain_neuron(K, membranes):
    v = torch.tensor(membranes, dtype=torch.float32)
    units = FittedNeuron(*[tuple(2.0 ** (K - t) for t in range(1, K + 1))] * 3)
    assert torch.equal(units.spikes(v), spike_train(v, K))


@settings(max_examples=30, deadline=None)
@given(neurons(), st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8))
def test_trains_are_those_of_the_definition(neuron, membranes):
    made = neuron.spikes(torch.tensor(membranes, dtype=torch.float32))
    for n, v in enumerate(membranes):
        v = torch.tensor(v, dtype=torch.float32)
        for t in range(neuron.K):
            fires = bool(v >= torch.tensor(neuron.thresholds[t], dtype=torch.float32))
            assert bool(made[t, n]) == fires
            if fires:
                v = v - torch.tensor(neuron.resets[t], dtype=torch.float32)


def test_nan_never_fires_and_infinities_do_or_do_not_at_every_step():
    spikes = plain(5).spikes(torch.tensor([math.nan, math.inf, -math.inf]))
    assert not spikes[:, 0].any() and spikes[:, 1].all() and not spikes[:, 2].any()


@settings(max_examples=15, deadline=None)
@given(st.lists(neurons(), min_size=1, max_size=3))
def test_rounded_neurons_keep_to_the_bounds_and_near_their_weights(found):
    code, lines = quantised(found)
    assert code.kind == "fitted" and 8 <= code.bits <= 13
    assert 0 <= code.zero <= code.x_max and code.K == max(neuron.K for neuron in found)
    for neuron, line in zip(found, lines, strict=True):
        assert line.dtype == torch.float32 and line.shape == (3, neuron.K)
        assert torch.equal(line[:2], neuron.lines(neuron.weights)[:2])
        assert torch.equal(line[2], line[2].round()) and float(line[2].abs().max()) <= LARGEST_WORTH
        v = neuron.membranes()
        codes, spikes = fire_fitted(v, line, code.zero, code.bits)
        assert torch.equal(spikes.long(), neuron.spikes(v).sum(0))
        missed = (codes.double() - code.zero) * code.step - neuron(v)
        rms = float(missed.square().mean().sqrt())
        allowed = neuron.rms * math.sqrt(1.05**2 - 1)
        assert rms <= allowed + 1e-6 or code.bits == 13
        # Where steps fire alike, rounding each by itself is no better.
        single = neuron.lines([round(d / code.step) for d in neuron.weights])
        codes, _ = fire_fitted(v, single, code.zero, code.bits)
        other = (codes.double() - code.zero) * code.step - neuron(v)
        assert rms <= 1.5 * float(other.square().mean().sqrt()) + code.step


def test_whole_weights_stay_and_need_no_more_bits():
    code, (lines,) = quantised([plain(8)])
    assert code.bits == 8 and lines[2].tolist() == [2.0 ** (8 - t) for t in range(1, 9)]


def test_weights_that_no_code_holds_are_refused():
    # The second step fires with the first and takes back all but a little of what it gives.
    neuron = FittedNeuron((0.0, 0.0), (0.0, 0.0), (1000.0, -999.0), low=-1.0, high=1.0)
    with pytest.raises(ValueError, match="weight d.*1000.*fit one"):
        quantised([neuron])
    with pytest.raises(ValueError, match="neurons is empty"):
        quantised([])


@settings(max_examples=20, deadline=None)
@given(neurons())
def test_words_of_trains_hold_each_step(neuron):
    v = neuron.membranes()[::97]
    words, _ = fire_fitted(v, train_lines(neuron.lines(neuron.weights)), 0, neuron.K)
    assert words.dtype == (torch.uint8 if neuron.K <= 8 else torch.int16)
    for t, fires in enumerate(neuron.spikes(v), 1):
        assert torch.equal((words.int() >> (neuron.K - t) & 1).bool(), fires)


@pytest.mark.parametrize(
    "numbers", [((), (), ()), ((1.0,) * 17,) * 3, ((1.0,), (1.0, 2.0), (1.0,)), ((1e39,),) * 3]
)
def test_numbers_that_make_no_neuron_are_refused(numbers):
    with pytest.raises(ValueError, match="thresholds|resets"):
        FittedNeuron(*numbers)


def test_the_code_holds_all_that_is_met():
    neuron = FittedNeuron((0.0, 1.0), (0.0, 1.0), (-0.25, 1.0), low=-1.0, high=2.0)
    code = code_of([neuron], 8)
    ends = [(x - code.zero) * code.step for x in (0, code.x_max)]
    assert ends[0] <= -0.25 + 1e-9 and ends[1] >= 0.75 - 1e-9
