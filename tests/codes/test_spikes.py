"""SpikeTensor, encode and decode."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle_cases import nearest_float32

from fskernel import reference
from fskernel.codes.neuron import FSNeuron, to_spikes
from fskernel.spikes import SpikeTensor, decode, encode


def random_words(shape, neuron, seed=0):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, neuron.max_word + 1, shape, generator=generator)
    return words.to(neuron.word_dtype)


@pytest.mark.parametrize("K", [1, 5, 8, 9, 15])
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 7), (3,), (0, 4, 1, 1), (2, 3, 2, 2, 2)])
def test_views_of_the_same_spikes(K, shape):
    neuron = FSNeuron(K, 3.0)
    words = random_words(shape, neuron)
    spikes = SpikeTensor(words, neuron)
    assert spikes.shape == shape and torch.equal(spikes.words, words)
    assert torch.equal(spikes.spikes(), to_spikes(words, K))
    want = [sum(bin(int(word)).count("1") for word in image.flatten()) for image in words]
    assert spikes.count().tolist() == want and spikes.count().dtype == torch.int64
    assert spikes.values().dtype == torch.float32
    assert torch.equal(spikes.values(), (words.double() * neuron.step).float())
    assert torch.equal(decode(spikes), spikes.values())


def test_images_are_kept_channels_last():
    neuron = FSNeuron(8, 1.0)
    words = random_words((2, 3, 4, 5), neuron)
    spikes = SpikeTensor(words.contiguous(), neuron)
    assert spikes.words.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(spikes.words, words)
    assert encode(torch.rand(2, 3, 4, 5), neuron).words.is_contiguous(
        memory_format=torch.channels_last
    )


def test_moving_and_printing():
    spikes = SpikeTensor(random_words((2, 3), FSNeuron(10, 25.0)), FSNeuron.paper())
    moved = spikes.to("cpu")
    assert moved.neuron == spikes.neuron and torch.equal(moved.words, spikes.words)
    assert spikes.to("meta").device.type == "meta"
    assert "K=10" in repr(spikes) and "(2, 3)" in repr(spikes)


@given(st.integers(1, 15), st.sampled_from([0.01, 1.0, 25.0, 6 * 256 / 255]), st.integers(0, 999))
def test_decoding_stays_within_the_papers_error_bound(K, alpha, seed):
    """As the paper's bound, plus what one rounded 1/step and one rounded product can cost."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(500, generator=generator) * alpha
    x = x[x < alpha]
    step, slack = alpha * 2.0**-K, alpha * 2.0**-22
    lost = x.double() - decode(encode(x, K=K, alpha=alpha, rounding="floor")).double()
    assert float(lost.min()) >= -slack and float(lost.max()) <= step + slack
    inner = x[x < alpha - step / 2]
    if len(inner):
        error = (inner.double() - decode(encode(inner, K=K, alpha=alpha)).double()).abs()
        assert float(error.max()) <= step / 2 + slack


@pytest.mark.parametrize("K", range(1, 16))
def test_what_spikes_stand_for_is_encoded_as_itself(K):
    """With nearest the half threshold absorbs every rounding on the way, whatever alpha."""
    for alpha in (25.0, 0.3, 6 * 2**K / (2**K - 1)):
        neuron = FSNeuron(K, alpha, "nearest")
        words = torch.arange(2**K).to(neuron.word_dtype)
        assert torch.equal(encode(decode(SpikeTensor(words, neuron)), neuron).words, words)


@pytest.mark.parametrize("rounding", ["floor", "nearest"])
@pytest.mark.parametrize("K", [1, 8, 15])
def test_what_has_no_train(K, rounding):
    x = torch.tensor([-1.0, -math.inf, math.nan, 0.0, -0.0, 1e-45, math.inf, 3e38])
    words = encode(x, FSNeuron(K, 2.0, rounding)).words.tolist()
    assert words == [0, 0, 0, 0, 0, 0, 2**K - 1, 2**K - 1]


def test_encoding_is_the_encoder_of_the_oracles():
    neuron = FSNeuron(10, 3.7)
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(3)) * 2
    words = encode(x, neuron).words.permute(0, 2, 3, 1)
    for oracle in (reference.literal, reference.collapsed):
        assert torch.equal(oracle.encode_words(x, neuron.inv_step, neuron.offset, 10), words)


def test_the_encoders_product_is_not_rounded_before_the_offset():
    """Just below half a threshold: a product rounded on its own would lift the sum to 1."""
    unfused_errors = 0
    for alpha in range(3, 100):
        neuron = FSNeuron(8, alpha / 7)
        inv_step = np.float32(neuron.inv_step)
        x = [np.float32(0.5) / inv_step]
        for _ in range(3):
            x.append(np.nextafter(x[-1], np.float32(0)))
        exact = [Fraction(float(v)) * Fraction(float(inv_step)) + Fraction(1, 2) for v in x]
        want = [math.floor(nearest_float32(v)) for v in exact]
        assert encode(torch.tensor(np.array(x)), neuron).words.tolist() == want
        unfused_errors += (np.floor(np.array(x) * inv_step + np.float32(0.5)) != want).sum()
    assert unfused_errors > 0, "these cases are too easy to prove anything"


def test_strided_sliced_and_other_float_inputs():
    neuron = FSNeuron(8, 1.0)
    x = torch.rand(4, 6, 8, 10, generator=torch.Generator().manual_seed(4))
    for view in (x[::2, 1:4, ::3, 5:], x.transpose(1, 3), x.permute(0, 2, 3, 1)[..., :3]):
        assert torch.equal(encode(view, neuron).words, encode(view.clone(), neuron).words)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        want = encode(x.to(dtype).float(), neuron).words
        assert torch.equal(encode(x.to(dtype), neuron).words, want)


def test_a_parameter_may_be_encoded_where_no_gradient_is_recorded():
    x = torch.rand(2, 3, requires_grad=True)
    with torch.no_grad():
        assert not encode(x, K=8, alpha=1.0).words.requires_grad
    with torch.inference_mode():
        assert encode(x, K=8, alpha=1.0).shape == (2, 3)
