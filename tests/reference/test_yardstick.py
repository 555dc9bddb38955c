"""The paper's neuron on real numbers against the exact contract: where they must agree."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import FSNeuron, word_dtype
from fskernel.network.synapses import Synapses
from fskernel.reference import collapsed, paper_neuron

EPS = 2.0**-24  # relative error of one float32 rounding


def paper_words(v, neuron):
    """The words of float64 membranes in the units of alpha, eqs. (1) to (3)."""
    return (paper_neuron(v, neuron.K, neuron.alpha, neuron.rounding) / neuron.step).round().long()


def real_sum(x, step_in, weight, geometry):
    """The convolution of real inputs and float64 weights, NHWC in and out."""
    top, bottom, left, right = geometry.padding
    real = F.pad((x.double() * step_in).permute(0, 3, 1, 2), (left, right, top, bottom))
    g = geometry
    return F.conv2d(real, weight, None, g.stride, 0, g.dilation, g.groups).permute(0, 2, 3, 1)


@given(
    st.integers(0, 2**31),
    st.integers(1, 12),
    st.integers(1, 15),
    st.sampled_from(["floor", "nearest"]),
    st.integers(-12, 3),
)
def test_exactly_representable_layers_differ_only_by_the_membranes_own_rounding(
    seed, K_in, K, rounding, exponent
):
    """Scales that are powers of two, dyadic biases, sums below 2^24: the contract rounds once.

    Let u be the exact membrane in units of the last threshold, offset included. Then the contract
    sees the nearest float32 of u, and thresholds are float32. So its word is the paper's, or one
    more, and one more exactly where that rounding lifts u onto an integer n: 0 < n - u <= n*2^-24.
    """
    generator = torch.Generator().manual_seed(seed)
    neuron = FSNeuron(K, 4.0, rounding)
    geometry = Geometry((3, 2), (2, 1), (1, 0, 0, 1))
    weight = torch.randint(-127, 128, (8, 3, 3, 2), generator=generator).to(torch.int8)
    x = torch.randint(0, 2**K_in, (2, 6, 5, 3), generator=generator).to(word_dtype(K_in))
    step_in = 2.0**-K_in
    scale = 2.0 ** (exponent - K_in) * neuron.step / step_in  # spans tiny to saturating membranes
    m = torch.full((8,), scale * step_in / neuron.step)
    # Biases in units of the last threshold: whole numbers, some lowered by less than float32 sees.
    lowered = torch.tensor([0, 0, 2.0**-8, 2.0**-20])[torch.randint(4, (8,), generator=generator)]
    bias = torch.randint(0, 2**K, (8,), generator=generator) / 2 - lowered
    synapses = Synapses(weight, m, geometry, x_min=0, x_max=2**K_in - 1)
    words, _ = collapsed.conv([(x, synapses)], bias, K=K)

    v = real_sum(x, step_in, weight.double() * scale, geometry)
    v = v + (bias.double() - neuron.offset) * neuron.step
    u = v / neuron.step + neuron.offset
    acc = collapsed._synaptic_sum(x, synapses)
    assert int(acc.abs().max()) < 2**24
    assert torch.equal(u, acc.double() * m.double() + bias.double()), "u must be exact"

    paper, mine = paper_words(v, neuron), words.long()
    assert torch.equal(paper, u.floor().clamp(0, neuron.max_word).long())
    n = u.ceil()
    lifted = (u.float().double() == n) & (u < n) & (n >= 1) & (n <= neuron.max_word)
    assert torch.equal(mine - paper, lifted.long())
    assert bool(((n - u) <= n * EPS)[lifted].all())


@pytest.mark.parametrize("tiny", [2.0**-30, 2.0**-12])
def test_that_rounding_does_happen(tiny):
    """One spike input of weight n and a bias of -tiny: u = n - tiny, which float32 may not hold."""
    for n in (1, 3, 100, 1023):
        weight = torch.full((1, 1, 1, 1), n, dtype=torch.int16)
        synapses = Synapses(weight, torch.ones(1), Geometry((1, 1)), x_min=0, x_max=1)
        x = torch.ones(1, 1, 1, 1, dtype=torch.uint8)
        words, _ = collapsed.conv([(x, synapses)], torch.tensor([-tiny]), K=10)
        paper = paper_neuron(torch.tensor([n - tiny], dtype=torch.float64), 10, 1024.0)
        assert paper.item() == n - 1
        assert words.item() == (n if tiny == 2.0**-30 else n - 1)


@given(
    st.integers(0, 2**31),
    st.integers(1, 15),
    st.integers(1, 15),
    st.sampled_from(["floor", "nearest"]),
    st.booleans(),
    st.booleans(),
)
def test_any_layer_agrees_except_within_the_rounding_of_its_membrane(
    seed, K_in, K, rounding, second, with_residual
):
    """Any scales, two synapse groups, a residual: equal words outside a proven error bound.

    Each group's term is wrong by at most 2 roundings (its sum, its multiplier), the bias and the
    residual's multiplier by 1, and every partial membrane by 1. Where u is farther than that from
    every threshold 1..2^K - 1 the words are the paper's.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    neuron = FSNeuron(K, float(uniform(1)) * 30 + 0.01, rounding)
    step_in = (float(uniform(1)) * 30 + 0.01) * 2.0**-K_in
    geometries = [Geometry((3, 3), (2, 2), (1, 1, 1, 1)), Geometry((1, 1), (2, 2))]
    groups, terms = [], []
    for geometry in geometries[: 1 + second]:
        weight = torch.randint(-127, 128, (8, 5, *geometry.kernel), generator=generator)
        weight = weight.to(torch.int8)
        x = torch.randint(0, 2**K_in, (2, 7, 5, 5), generator=generator).to(word_dtype(K_in))
        scale = (uniform(8) + 0.1) * neuron.alpha / (step_in * 2.0**K_in * 200)
        m = (scale * step_in / neuron.step).float()
        synapses = Synapses(weight, m, geometry, x_min=0, x_max=2**K_in - 1)
        groups.append((x, synapses))
        real = weight.double() * scale[:, None, None, None]
        terms.append(real_sum(x, step_in, real, geometry) / neuron.step)
    bias = (uniform(8) - 0.3) * 2.0**K
    residual, rest = None, torch.zeros_like(terms[0])
    if with_residual:
        x_res = torch.randint(0, 2**K_in, terms[0].shape, generator=generator).to(word_dtype(K_in))
        r = float(uniform(1)) * 2.0 ** (K - K_in)
        residual, rest = (x_res, torch.tensor([r], dtype=torch.float32)), x_res.double() * r
    stored_bias = (bias + neuron.offset).float()
    words, _ = collapsed.conv(groups, stored_bias, K=K, residual=residual)

    u = bias + neuron.offset
    bound = u.abs()
    for term in terms:
        u = u + term
        bound = bound + 2 * term.abs() + u.abs()
    u = u + rest
    bound = EPS * 1.001 * (bound + rest.abs() + u.abs()) + 1e-9 * EPS
    paper = paper_words((u - neuron.offset) * neuron.step, neuron)
    threshold = u.round().clamp(1, neuron.max_word)
    safe = (u - threshold).abs() > bound
    assert torch.equal(words.long()[safe], paper[safe])
    assert float(safe.double().mean()) > 0.9, "a bound that excludes so much proves little"
    assert int((words.long() - paper).abs().max()) <= 1


def test_the_authors_strict_comparison_reaches_the_output():
    v = torch.tensor([12.5, 6.25, 12.5 + 1e-9], dtype=torch.float64)
    step = 25 / 1024
    strict = paper_neuron(v, 10, 25.0, strict=True)
    assert strict.tolist() == [12.5 - step, 6.25 - step, 12.5]
    assert paper_neuron(v, 10, 25.0).tolist() == [12.5, 6.25, 12.5]
    infinite = torch.tensor([math.inf], dtype=torch.float64)
    assert paper_neuron(infinite, 10, 25.0, strict=True).item() == 25.0 - step
