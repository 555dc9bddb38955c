"""Pools, readout, encoders and event counts equal the oracle on every instruction set."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle_cases import Kind, geometries, input_size, kinds

from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops

oracle = reference.collapsed


@pytest.fixture(autouse=True)
def default_isa_afterwards():
    yield
    ops.set_isa(None)


def assert_every_isa(wanted, call):
    for name in ops.supported_isas():
        ops.set_isa(name)
        got = call()
        assert ops.last_kernel().startswith(name + "/")
        assert got.dtype == wanted.dtype and got.shape == wanted.shape, name
        # Bits, not values: logits may be NaN.
        bits = (lambda t: t.view(torch.int32)) if got.dtype == torch.float32 else (lambda t: t)
        assert torch.equal(bits(got), bits(wanted)), name


@given(st.data(), geometries(1), kinds, st.integers(1, 100))
def test_pools(data, geometry, kind, channels):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    out = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    (h, w), geometry = input_size(geometry, out, (1, 1))
    x = kind.codes((2, h, w, channels), generator)
    assert_every_isa(oracle.max_pool(x, geometry), lambda: ops.max_pool(x, geometry))
    small = Kind(min(kind.K, 11), min(kind.limit, 2047))
    x = small.codes((2, h, w, channels), generator)
    assert_every_isa(oracle.sum_pool(x, geometry), lambda: ops.sum_pool(x, geometry))


def test_max_pool_of_nothing_but_padding():
    geometry = Geometry((1, 1), (1, 1), (1, 0, 0, 1))
    for dtype, lowest in ((torch.uint8, 0), (torch.int16, -32768)):
        x = torch.full((1, 2, 2, 33), 5, dtype=dtype)
        y = ops.max_pool(x, geometry)
        assert (y[0, 0] == lowest).all() and (y[0, :, 2] == lowest).all() and (y == 5).any()


@given(
    st.data(),
    kinds,
    st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(1, 50)),
    st.integers(1, 20),
    st.sampled_from([8, 16]),
    st.booleans(),
)
def test_readout(data, kind, shape, out, bits, pool):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    x = kind.codes(shape, generator)
    top = 2 ** (bits - 1) - 1
    features = shape[3] if pool else shape[1] * shape[2] * shape[3]
    w = torch.randint(-top, top + 1, (out, features), generator=generator)
    w = w.to(torch.int8 if bits == 8 else torch.int16)
    m, bias = torch.rand(2, out, generator=generator) * 1e-3
    bias[0] = data.draw(st.sampled_from([0.0, np.nan, -np.inf, 1e30]))
    assert_every_isa(
        oracle.readout(x, w, m, bias, pool=pool), lambda: ops.readout(x, w, m, bias, pool=pool)
    )


def test_readout_sums_beyond_32_bits_and_rounds_once():
    # 2^24 + 1 and 2^53 + 1 lie between two floats; a detour over float64 would round twice.
    x = torch.full((1, 8, 8, 3000), 32767, dtype=torch.int16)
    w = torch.full((2, 3000), 32767, dtype=torch.int16)
    w[1, ::2] = -32766
    one, zero = torch.ones(2), torch.zeros(2)
    wanted = oracle.readout(x, w, one, zero, pool=True)
    assert wanted[0, 0] > 2**47
    assert_every_isa(wanted, lambda: ops.readout(x, w, one, zero, pool=True))


EDGES = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 126.5, 127.5, 3e38, -3e38, 1e-42]


@given(
    st.data(),
    st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 5), st.integers(1, 140)),
    st.floats(2.0**-10, 1000.0, width=32),
    st.integers(1, 15),
)
def test_encoders(data, shape, inv_step, K):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    x = torch.randn(shape, generator=generator) * 50
    special = torch.tensor([*EDGES, np.nan, np.inf, -np.inf])
    pick = torch.randint(0, 3 * len(special), shape, generator=generator)
    x = torch.where(pick < len(special), special[pick % len(special)], x)
    limit = data.draw(st.sampled_from([1, 127, 32767]))
    offset = data.draw(st.sampled_from([0.0, 0.5, 3.25]))
    if data.draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    if data.draw(st.booleans()):
        x = torch.cat([x, x], 3)[..., ::2]
    wanted = oracle.encode(x, inv_step, limit=limit)
    assert_every_isa(wanted, lambda: ops.encode(x, inv_step, limit=limit))
    wanted = oracle.encode_words(x, inv_step, offset, K)
    assert_every_isa(wanted, lambda: ops.encode_words(x, inv_step, offset, K))


@given(st.data(), st.integers(1, 15), st.integers(1, 80))
def test_synaptic_events(data, K, channels):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    words = Kind(K, 0).codes((3, 4, 5, channels), generator)
    fan_y = torch.randint(0, 4000, (4,), generator=generator)
    fan_x = torch.randint(0, 3, (5,), generator=generator)
    wanted = oracle.synaptic_events(words, fan_y, fan_x)
    assert_every_isa(wanted, lambda: ops.synaptic_events(words, fan_y, fan_x))
