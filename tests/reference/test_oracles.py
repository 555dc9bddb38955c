"""The three oracles against each other: spikes plane by plane, one convolution, plain C++."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracle_cases import Layer, layers, sums_by_definition

from fskernel.codes.exact_float import to_float32
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import word_dtype
from fskernel.network.synapses import Synapses
from fskernel.reference import collapsed, literal


def cpp_conv(
    groups,
    bias,
    *,
    K,
    limit=32767,
    residual=None,
    plane_bits=0,
    top=None,
    step=None,
    table=None,
    fitted=None,
    zero=0,
):
    """The plain C++ reference, which lies in the compiled library; it knows no plane groups."""
    from fskernel import _C

    groups = [
        (x.int().numpy(), s.weight.int().numpy(), s.m.numpy(), s.geometry.as_ints(s.pad_code))
        for x, s in groups
    ]
    codes, r = (None, 0.0) if residual is None else (residual[0].int().numpy(), residual[1].item())
    given = (None if t is None else t.numpy() for t in (top, table, fitted))
    y, counts = _C.reference_conv(groups, bias.numpy(), codes, r, K, limit, *given, zero)
    y = torch.from_numpy(y)
    y = y.to(word_dtype(K) if K else torch.int16) if step is None else (y.double() * step).float()
    return y, torch.from_numpy(counts)


BOTH = pytest.mark.parametrize("oracle", [literal, collapsed], ids=["a", "b"])
ALL = pytest.mark.parametrize("conv", [literal.conv, collapsed.conv, cpp_conv], ids=["a", "b", "c"])


def same(one, other):
    return all(torch.equal(p, q) and p.dtype == q.dtype for p, q in zip(one, other))


@settings(max_examples=2 * settings.default.max_examples)
@given(layers())
def test_planes_one_convolution_and_plain_cpp_agree(layer):
    a, b = layer.run(literal.conv), layer.run(collapsed.conv)
    assert same(a, b)
    assert same(layer.run(cpp_conv), b)
    want = torch.int16 if layer.K in (0, *range(9, 17)) else torch.uint8
    want = want if layer.step is None else torch.float32
    assert b[0].dtype == want and b[1].dtype == torch.int64
    assert a[0].is_contiguous() and b[0].is_contiguous()


@given(layers())
def test_both_sums_are_the_definition(layer):
    x, synapses = layer.groups[0]
    want = sums_by_definition(x, synapses)
    assert torch.equal(literal._synaptic_sum(x, synapses), want)
    assert torch.equal(collapsed._synaptic_sum(x, synapses), want)


def single(weight, x, m, bias, K, *, x_min=0, x_max=None, residual=None):
    """A layer of one 1x1 synapse group at one place, with x as its input channels."""
    dtype = torch.int16 if x_min < 0 or max(x) > 255 else torch.uint8
    synapses = Synapses(
        torch.tensor(weight, dtype=torch.int16)[:, :, None, None],
        torch.tensor(m, dtype=torch.float32),
        Geometry((1, 1)),
        x_min=x_min,
        x_max=max(x) if x_max is None else x_max,
    )
    codes = torch.tensor(x, dtype=dtype).reshape(1, 1, 1, -1)
    bias = torch.as_tensor(bias, dtype=torch.float32)
    return Layer([(codes, synapses)], bias, K, 32767, residual, 0)


@ALL
@pytest.mark.parametrize("K", range(1, 16))
def test_membranes_on_thresholds_and_3_ulps_around_them(conv, K):
    """No sum, so the bias is the membrane: every code for small K, the thresholds for all."""
    codes = range(2**K + 1) if K <= 8 else [2**t + d for t in range(K + 1) for d in (-1, 0, 1)]
    v = np.array(codes, dtype=np.float32)
    ulps = [v]
    for target in (-np.inf, np.inf):
        moved = v
        for _ in range(3):
            moved = np.nextafter(moved, np.float32(target))
            ulps.append(moved)
    special = np.float32([math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, -0.0, -5])
    v = np.concatenate([*ulps, special])
    words, counts = single([[0]] * len(v), [1], [1.0] * len(v), v, K).run(conv)
    finite = np.nan_to_num(v, nan=0.0, posinf=1e9, neginf=-1e9).astype(np.float64)
    want = np.clip(np.floor(finite), 0, 2**K - 1).astype(np.int64)
    assert words.flatten().tolist() == want.tolist()
    assert counts.tolist() == [sum(bin(word).count("1") for word in want.tolist())]


@ALL
def test_sums_beyond_2_to_24_are_rounded_once_before_the_neuron(conv):
    """acc = n*2^16 - 1 is no float32 beyond 2^24: it becomes n*2^16, one code higher."""
    for n in (200, 256, 257, 300, 511, 513, 1000, 16383):
        layer = single([[16384, 16384, -1]], [2 * n, 2 * n, 1], [2.0**-16], [0.0], 15, x_max=32767)
        acc = collapsed._synaptic_sum(*layer.groups[0])
        assert acc.tolist() == [[[[n * 2**16 - 1]]]]
        rounds_up = n > 2**8
        assert layer.run(conv)[0].item() == (n if rounds_up else n - 1)
    # Ties go to even: 2^25 + 2 lies between 2^25 and 2^25 + 4.
    tie = single([[16384, 1]], [2048, 2], [2.0**-20], [0.0], 15, x_max=32767)
    assert to_float32(collapsed._synaptic_sum(*tie.groups[0])).item() == 2.0**25
    assert tie.run(conv)[0].item() == 32


@ALL
def test_the_order_and_the_single_roundings_of_the_membrane(conv):
    """bias, first group, second group, residual: what 2^24 meets before it cancels loses its 1."""

    def run(sums, bias, residual):
        groups = [single([[s // 2**10]], [2**10], [1.0], [0.0], 0).groups[0] for s in sums]
        x_res = torch.full((1, 1, 1, 1), residual, dtype=torch.int16)
        layer = Layer(groups, torch.tensor([bias]), 0, 32767, (x_res, torch.ones(1)), 0)
        return layer.run(conv)[0].item()

    big = 2**24  # 2^24 + 1 is halfway between two float32 and goes to 2^24
    assert run([big, -big], 1.0, 0) == 0
    assert run([-big, big], 1.0, 0) == 1  # -2^24 + 1 is a float32
    assert run([big, -big], 0.0, 1) == 1
    assert run([big, -big], 1.0, 1) == 1
    # 24929*673 = 2^24 + 1 minus 2^24: a rounded product would leave 0, the fused one leaves 1.
    fused = single([[24929]], [1], [673.0], [-(2.0**24)], 0)
    assert fused.run(conv)[0].item() == 1


@BOTH
def test_graded_inputs_of_full_range(oracle):
    """-32768 exercises the sign plane of two's complement."""
    x = torch.tensor([-32768, 32767, -1, 1, 0], dtype=torch.int16).reshape(1, 1, 5, 1)
    synapses = Synapses(
        torch.tensor([3, -7]).short().reshape(2, 1, 1, 1),
        torch.ones(2),
        Geometry((1, 1)),
        x_min=-32768,
        x_max=32767,
    )
    want = x.long() * torch.tensor([3, -7])
    assert torch.equal(oracle._synaptic_sum(x, synapses), want)
    y, counts = oracle.conv([(x, synapses)], torch.zeros(2), K=0, limit=30000)
    assert torch.equal(y.long(), want.clamp(-30000, 30000)) and counts.tolist() == [0]
