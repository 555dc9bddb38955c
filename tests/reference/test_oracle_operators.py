"""Pools, readout, encoders and synaptic events of the oracles, against their definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle_cases import Kind, geometries, input_size, kinds, nearest_float32, sums_by_definition

from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import word_dtype
from fskernel.network.synapses import Synapses
from fskernel.reference import collapsed, literal

BOTH = pytest.mark.parametrize("oracle", [literal, collapsed], ids=["a", "b"])


@given(st.integers(0, 2**31), geometries(1), kinds)
def test_pools_agree(seed, geometry, kind):
    generator = torch.Generator().manual_seed(seed)
    (h, w), geometry = input_size(geometry, (3, 2), (1, 1))
    x = kind.codes((2, h, w, 5), generator)
    y = literal.max_pool(x, geometry)
    other = collapsed.max_pool(x, geometry)
    assert torch.equal(y, other) and y.dtype == other.dtype == x.dtype
    assert y.is_contiguous() and other.is_contiguous()
    if kind.range[1] * 9 <= 32767:
        total = literal.sum_pool(x, geometry)
        assert torch.equal(total, collapsed.sum_pool(x, geometry))
        assert total.dtype == torch.int16
        ones = Synapses(
            torch.ones(1, 1, *geometry.kernel, dtype=torch.int8),
            torch.ones(1),
            geometry,
            x_min=kind.range[0],
            x_max=kind.range[1],
        )
        want = sums_by_definition(x[..., 4:], ones)
        assert torch.equal(total[..., 4:].long(), want)


@BOTH
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_max_pool_pads_with_the_smallest_code(oracle, dtype):
    x = torch.tensor([[3, 1], [0, 2]], dtype=dtype).reshape(1, 2, 2, 1)
    if dtype == torch.int16:
        x = x - 9
    y = oracle.max_pool(x, Geometry((2, 2), (1, 1), (1, 0, 2, 0)))
    lowest = torch.iinfo(dtype).min
    a, b, d = int(x[0, 0, 0]), int(x[0, 0, 1]), int(x[0, 1, 1])
    assert y[0, :, :, 0].tolist() == [[lowest, a, a], [lowest, a, a]]
    assert (b < a) and (d < a)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@pytest.mark.parametrize("weight_dtype", [torch.int8, torch.int16])
def test_readouts_agree_with_exact_integers(pool, dtype, weight_dtype):
    generator = torch.Generator().manual_seed(5)
    info, top = torch.iinfo(dtype), torch.iinfo(weight_dtype).max
    x = torch.randint(info.min, info.max + 1, (2, 3, 5, 7), generator=generator).to(dtype)
    features = 7 if pool else 105
    weight = torch.randint(-top, top + 1, (4, features), generator=generator).to(weight_dtype)
    m, bias = torch.rand(4, generator=generator), torch.rand(4, generator=generator)
    bias[3] = math.nan
    y = literal.readout(x, weight, m, bias, pool=pool)
    other = collapsed.readout(x, weight, m, bias, pool=pool)
    torch.testing.assert_close(y, other, rtol=0, atol=0, equal_nan=True)
    assert y.shape == (2, 4) and y.dtype == torch.float32
    rows = x.long().sum((1, 2)).tolist() if pool else x.flatten(1).tolist()
    for row, logits in zip(rows, y):
        assert math.isnan(logits[3])
        for o in range(3):
            acc = nearest_float32(sum(Fraction(a * b) for a, b in zip(row, weight[o].tolist())))
            v = nearest_float32(Fraction(acc) * Fraction(m[o].item()) + Fraction(bias[o].item()))
            assert logits[o].item() == v


@given(st.integers(0, 2**31), st.integers(1, 15))
def test_encoders_agree(seed, K):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, 5, generator=generator) * 2.0 ** float(K)
    x[0, 0, 0] = torch.tensor([math.nan, math.inf, -math.inf, 1e-45, -0.0])
    x[0, 1, 0] = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
    for inv_step in (1.0, 0.1, 117.3):
        for limit in (127, 32767):
            codes = literal.encode(x, inv_step, limit=limit)
            assert torch.equal(codes, collapsed.encode(x, inv_step, limit=limit))
            scaled = (x.numpy() * np.float32(inv_step)).astype(np.float64)
            want = np.clip(np.rint(np.nan_to_num(scaled, nan=0.0)), -limit, limit)
            assert codes.permute(0, 3, 1, 2).numpy().tolist() == want.tolist()
        words = literal.encode_words(x, inv_step, 0.5, K)
        assert torch.equal(words, collapsed.encode_words(x, inv_step, 0.5, K))
        assert words.dtype == word_dtype(K) and words.shape == (2, 4, 5, 3)


@given(st.integers(0, 2**31), st.integers(1, 15), geometries(1))
def test_synaptic_events_are_spikes_through_existing_synapses(seed, K, geometry):
    """Counted one by one: every spike, every output that its neuron reaches."""
    generator = torch.Generator().manual_seed(seed)
    (h, w), geometry = input_size(geometry, (3, 2), (1, 2))
    words = Kind(K, 0).codes((2, h, w, 3), generator)
    rows, cols = geometry.taps(h, w)
    fan_y = torch.tensor([len(r) for r in rows])
    fan_x = torch.tensor([len(c) for c in cols])
    events = literal.synaptic_events(words, fan_y, fan_x)
    assert torch.equal(events, collapsed.synaptic_events(words, fan_y, fan_x))
    want = [0, 0]
    oh, ow = geometry.output_size(h, w)
    for oy, ox, ky, kx in np.ndindex(oh, ow, *geometry.kernel):
        iy = oy * geometry.stride[0] - geometry.padding[0] + ky * geometry.dilation[0]
        ix = ox * geometry.stride[1] - geometry.padding[2] + kx * geometry.dilation[1]
        if 0 <= iy < h and 0 <= ix < w:
            for n in range(2):
                want[n] += sum(bin(word).count("1") for word in words[n, iy, ix].tolist())
    assert events.tolist() == want


@BOTH
def test_an_empty_batch(oracle):
    synapses = Synapses(
        torch.ones(4, 1, 3, 3, dtype=torch.int8),
        torch.ones(4),
        Geometry((3, 3), padding=(1, 1, 1, 1), groups=2),
        x_min=0,
        x_max=255,
    )
    x = torch.empty(0, 5, 6, 2, dtype=torch.uint8)
    y, counts = oracle.conv([(x, synapses)], torch.zeros(4), K=9)
    assert y.shape == (0, 5, 6, 4) and y.dtype == torch.int16 and counts.shape == (0,)
    assert oracle.max_pool(x, Geometry((2, 2))).shape == (0, 4, 5, 2)
    assert oracle.sum_pool(x, Geometry((2, 2))).shape == (0, 4, 5, 2)
    weight, ones = torch.ones(3, 2, dtype=torch.int8), torch.ones(3)
    assert oracle.readout(x, weight, ones, ones, pool=True).shape == (0, 3)
    assert oracle.encode(torch.empty(0, 3, 4, 5), 1.0).shape == (0, 4, 5, 3)
    assert oracle.synaptic_events(x, torch.ones(5).long(), torch.ones(6).long()).shape == (0,)
