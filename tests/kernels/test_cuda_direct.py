"""The direct CUDA kernels equal the oracle, bit for bit, in every thread order of the emulator.

With a GPU the same tests run there, too (pytest -m gpu).
"""

import numpy as np
import pytest
import torch
from cuda_backends import backends, emulator
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_cases import Kind, geometries, input_size, kinds, layers, random_weights

from bench.emulated.backend import ORDERS
from fskernel import reference
from fskernel.codes.exact_float import fma
from fskernel.codes.geometry import Geometry
from fskernel.network.synapses import Synapses

oracle = reference.collapsed
everywhere = pytest.mark.parametrize("backend", backends())
orders = st.sampled_from(ORDERS)


def assert_same(got, wanted):
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    if got.dtype == torch.float32:  # a NaN's other bits are not part of the contract
        assert torch.equal(got.isnan(), wanted.isnan())
        got, wanted = got.nan_to_num().view(torch.int32), wanted.nan_to_num().view(torch.int32)
    if not torch.equal(got, wanted):
        at = tuple((got != wanted).nonzero()[0].tolist())
        raise AssertionError(f"at {at} got {got[at]}, expected {wanted[at]}")


@everywhere
@settings(max_examples=100)
@given(layers(), orders)
def test_ragged_layers_of_any_geometry(backend, layer, order):
    got = layer.run(backend(order, kernel="direct").conv)
    for g, w in zip(got, layer.run(oracle.conv), strict=True):
        assert_same(g, w)


def synapses(weight, x_range, geometry, pad_code, generator, spread):
    m = (torch.rand(len(weight), generator=generator) * 2 - 0.6) * spread
    low, high = x_range
    return Synapses(weight, m, geometry, x_min=low, x_max=high, pad_code=pad_code)


@everywhere
@settings(max_examples=40)
@given(
    st.data(),
    st.sampled_from(
        # channels, groups, outputs, kernel, stride: what networks have that no matrix product fits
        [
            (16, 16, 16, 3, 1),
            (20, 20, 20, 5, 2),
            (12, 12, 12, 3, 2),  # no multiple of 16
            (7, 7, 7, 3, 1),
            (3, 1, 16, 7, 2),
            (3, 1, 20, 3, 2),
            (32, 8, 32, 3, 1),
            (24, 4, 8, 3, 1),
            (8, 8, 16, 3, 1),
            (6, 2, 10, 1, 1),
        ]
    ),
    st.sampled_from([Kind(8, 0), Kind(5, 0), Kind(10, 0), Kind(0, 127), Kind(0, 32767)]),
    st.sampled_from([8, 16]),
    st.integers(0, 15),
    orders,
)
def test_depthwise_grouped_and_few_channels(backend, data, shape, kind, bits, K, order):
    channels, groups, out, kernel, stride = shape
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    pad = kernel // 2
    geometry = Geometry((kernel, kernel), (stride, stride), (pad, pad, pad, pad), groups=groups)
    weight = random_weights((out, channels // groups, kernel, kernel), bits, kind, generator)
    spread = float(2**K if K else 8000)
    scale = spread / (kind.range[1] * weight[0].double().abs().sum().clamp(min=1) / 4)
    group = synapses(
        weight, kind.range, geometry, data.draw(st.sampled_from([0, 3])), generator, float(scale)
    )
    h, w = data.draw(st.tuples(st.integers(kernel, 9), st.integers(kernel, 11)))
    x = kind.codes((2, h, w, channels), generator)
    bias = torch.randn(out, generator=generator) * spread / 4
    options = {"K": K, "limit": data.draw(st.sampled_from([32767, 100]))}
    wanted = oracle.conv([(x, group)], bias, **options)
    on = backend(order, kernel="direct")
    for g, expected in zip(on.conv([(x, group)], bias, **options), wanted, strict=True):
        assert_same(g, expected)
    assert on.last == ("conv/direct/depthwise" if groups == channels == out else "conv/direct")


@everywhere
@settings(max_examples=30)
@given(layers(), orders)
def test_whatever_kernel_a_layer_is_given(backend, layer, order):
    on = backend(order)
    got = layer.run(on.conv)
    for g, w in zip(got, layer.run(oracle.conv), strict=True):
        assert_same(g, w)
    grouped = any(s.geometry.groups > 1 for _, s in layer.groups)
    assert ("direct" in on.last) == grouped


@everywhere
@settings(max_examples=50)
@given(layers(), orders, st.sampled_from(["direct", ""]))
def test_ragged_steps_of_rate_coded_layers(backend, layer, order, kernel):
    """Any codes are taken, also sums of spikes and int16 weights; damaged channels stay apart."""
    (x, synapses), *_ = layer.groups
    shape = (len(x), *synapses.geometry.output_size(*x.shape[1:3]), len(layer.bias))
    kept = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    wanted_kept = kept.clone()
    options = {"residual": layer.residual}
    wanted = oracle.integrate_and_fire(layer.groups, layer.bias, wanted_kept, **options)
    on = backend(order, kernel=kernel)
    got = on.integrate_and_fire(layer.groups, layer.bias, kept, **options)
    for g, w in zip((*got, kept), (*wanted, wanted_kept), strict=True):
        assert_same(g, w)
    grouped = any(s.geometry.groups > 1 for _, s in layer.groups)
    assert ("direct" in on.last) == (grouped or kernel == "direct")


@everywhere
@pytest.mark.parametrize("name", ["direct", ""])
@pytest.mark.parametrize("channels, kernel", [(8, 3), (5, 1)])
def test_a_rate_coded_layer_keeps_its_membranes_from_step_to_step(backend, channels, kernel, name):
    """Against the definition, written apart from the oracle."""
    generator = torch.Generator().manual_seed(channels)
    pad = kernel // 2
    geometry = Geometry((kernel, kernel), padding=(pad, pad, pad, pad))
    weight = random_weights((12, channels, kernel, kernel), 8, Kind(1, 0), generator)
    m = torch.rand(12, generator=generator) * 0.004
    group = Synapses(weight, m, geometry, x_min=0, x_max=1)
    bias = torch.randn(12, generator=generator) * 0.3
    r = torch.tensor([0.37])
    kept = torch.randn(2, 5, 6, 12, generator=generator)
    v = kept.clone()
    for step in range(4):
        z = torch.randint(0, 2, (2, 5, 6, channels), dtype=torch.uint8, generator=generator)
        identity = torch.randint(0, 2, (2, 5, 6, 12), dtype=torch.uint8, generator=generator)
        got, counts = backend(ORDERS[step], kernel=name).integrate_and_fire(
            [(z, group)], bias, kept, residual=(identity, r)
        )
        acc = torch.nn.functional.conv2d(
            z.permute(0, 3, 1, 2).double(), weight.double(), padding=pad
        ).permute(0, 2, 3, 1)
        current = fma(acc.float(), m, bias)
        current = fma(identity.float(), r, current)
        v = v + current
        fires = v >= 1
        v = torch.where(fires, v - 1, v)
        assert_same(got, fires.to(torch.uint8))
        assert_same(kept, v)
        assert torch.equal(counts, fires.flatten(1).sum(1)) and counts.sum() > 0


@everywhere
@settings(max_examples=40)
@given(st.data(), geometries(1), kinds, st.sampled_from([1, 3, 4, 7, 8, 40]), orders)
def test_pools(backend, data, geometry, kind, channels, order):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    out = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    (h, w), geometry = input_size(geometry, out, (1, 1))
    x = kind.codes((2, h, w, channels), generator)
    assert_same(backend(order).max_pool(x, geometry), oracle.max_pool(x, geometry))
    small = Kind(min(kind.K, 11), min(kind.limit, 2047))
    x = small.codes((2, h, w, channels), generator)
    assert_same(backend(order).sum_pool(x, geometry), oracle.sum_pool(x, geometry))


@everywhere
@settings(max_examples=40)
@given(
    st.data(),
    kinds,
    st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(1, 50)),
    st.integers(1, 20),
    st.sampled_from([8, 16]),
    st.booleans(),
    orders,
)
def test_readout(backend, data, kind, shape, out, bits, pool, order):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    x = kind.codes(shape, generator)
    top = 2 ** (bits - 1) - 1
    features = shape[3] if pool else shape[1] * shape[2] * shape[3]
    w = torch.randint(-top, top + 1, (out, features), generator=generator)
    w = w.to(torch.int8 if bits == 8 else torch.int16)
    m, bias = torch.rand(2, out, generator=generator) * 1e-3
    bias[0] = data.draw(st.sampled_from([0.0, np.nan, -np.inf, 1e30]))
    got = backend(order).readout(x, w, m, bias, pool=pool)
    assert_same(got, oracle.readout(x, w, m, bias, pool=pool))


@everywhere
def test_readout_sums_beyond_32_bits_and_rounds_once(backend):
    x = torch.full((1, 8, 8, 500), 32767, dtype=torch.int16)
    w = torch.full((2, 500), 32767, dtype=torch.int16)
    w[1, ::2] = -32766
    one, zero = torch.ones(2), torch.zeros(2)
    wanted = oracle.readout(x, w, one, zero, pool=True)
    assert wanted[0, 0] > 2**44
    assert_same(backend("random").readout(x, w, one, zero, pool=True), wanted)


EDGES = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 126.5, 127.5, 3e38, -3e38, 1e-42]


@everywhere
@settings(max_examples=40)
@given(
    st.data(),
    st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 5), st.integers(1, 60)),
    st.floats(2.0**-10, 1000.0, width=32),
    st.integers(1, 15),
    orders,
)
def test_encoders(backend, data, shape, inv_step, K, order):
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
    on = backend(order)
    assert_same(on.encode(x, inv_step, limit=limit), oracle.encode(x, inv_step, limit=limit))
    wanted = oracle.encode_words(x, inv_step, offset, K)
    assert_same(on.encode_words(x, inv_step, offset, K), wanted)


@everywhere
@settings(max_examples=30)
@given(st.data(), st.integers(1, 15), st.integers(1, 80), orders)
def test_synaptic_events(backend, data, K, channels, order):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    words = Kind(K, 0).codes((3, 4, 5, channels), generator)
    fan_y = torch.randint(0, 4000, (4,), generator=generator)
    fan_x = torch.randint(0, 3, (5,), generator=generator)
    wanted = oracle.synaptic_events(words, fan_y, fan_x)
    assert_same(backend(order).synaptic_events(words, fan_y, fan_x), wanted)


def test_weights_packed_otherwise_are_refused():
    group = Synapses(
        torch.ones(4, 3, 3, 3, dtype=torch.int8),
        torch.ones(4),
        Geometry((3, 3)),
        x_min=0,
        x_max=255,
    )
    x, bias = torch.ones(1, 5, 5, 3, dtype=torch.uint8), torch.zeros(4)
    on = emulator()
    packed = on.packed(group)
    for damage, words in [
        (lambda p: p.index_fill(0, torch.tensor([0]), 0), "no packed weights"),
        (lambda p: group.packed(), "was packed for .*, but the input is on a GPU"),
        (lambda p: torch.cat([p[:8], p[9:10], p[9:]]), "is damaged"),
        (lambda p: p[:-1], "is damaged"),
    ]:
        on._packed[group] = group.weight, damage(packed.clone())
        with pytest.raises(ValueError, match=words):
            on.conv([(x, group)], bias, K=8)
    on._packed[group] = group.weight, packed
    with pytest.raises(ValueError, match="packed for 3 input and 4 output channels"):
        on.conv([(x, group)], torch.zeros(5), K=8)
    del on._packed[group]
    assert torch.equal(on.conv([(x, group)], bias, K=8)[0], oracle.conv([(x, group)], bias, K=8)[0])


def shifted(t):
    """The same tensor one element further in memory: contiguous, at an odd address."""
    whole = torch.empty(t.numel() + 1, dtype=t.dtype, device=t.device)
    whole[1:] = t.flatten()
    return whole[1:].view(t.shape)


@everywhere
@pytest.mark.parametrize("K_in", [8, 12])
@pytest.mark.parametrize(
    "channels, groups, kernel", [(64, 1, 1), (32, 1, 3), (16, 16, 3), (16, 4, 3)]
)
def test_tensors_at_odd_addresses(backend, K_in, channels, groups, kernel):
    if backend is not emulator:
        pytest.skip("moving a tensor aligns it")
    generator = torch.Generator().manual_seed(channels)
    kind, pad = Kind(K_in, 0), kernel // 2
    geometry = Geometry((kernel, kernel), padding=(pad, pad, pad, pad), groups=groups)
    weight = random_weights((channels, channels // groups, kernel, kernel), 8, kind, generator)
    scale = 300.0 / float(weight[0].double().abs().sum() * kind.range[1] / 4)
    group = synapses(weight, kind.range, geometry, 0, generator, scale)
    x = kind.codes((2, 5, 6, channels), generator)
    bias = torch.randn(channels, generator=generator) * 50
    residual = kind.codes((2, 5, 6, channels), generator), torch.tensor([0.01])
    wanted = oracle.conv([(x, group)], bias, K=8, residual=residual)
    group.m = shifted(group.m)
    on = backend("random")
    got = on.conv(
        [(shifted(x), group)], shifted(bias), K=8, residual=(shifted(residual[0]), residual[1])
    )
    for g, w in zip(got, wanted, strict=True):
        assert_same(g, w)
    window = Geometry((2, 2), (2, 2))
    assert_same(on.max_pool(shifted(x), window), oracle.max_pool(x, window))
    assert_same(on.sum_pool(shifted(x), window), oracle.sum_pool(x, window))
    w = torch.randint(-99, 99, (7, channels), generator=generator).to(torch.int16)
    m = torch.rand(7, generator=generator)
    got = on.readout(shifted(x), shifted(w), shifted(m), m, pool=True)
    assert_same(got, oracle.readout(x, w, m, m, pool=True))


@everywhere
def test_empty_batches(backend):
    on = backend("forward")
    for groups in (1, 8):
        weight = torch.ones(8, 8 // groups, 3, 3, dtype=torch.int8)
        group = Synapses(weight, torch.ones(8), Geometry((3, 3), groups=groups), x_min=0, x_max=255)
        y, counts = on.conv(
            [(torch.zeros(0, 5, 6, 8, dtype=torch.uint8), group)], torch.zeros(8), K=8
        )
        assert y.shape == (0, 3, 4, 8) and counts.shape == (0,)
    x = torch.zeros(0, 4, 4, 8, dtype=torch.uint8)
    assert on.max_pool(x, Geometry((2, 2))).shape == (0, 3, 3, 8)
    w = torch.ones(5, 8, dtype=torch.int8)
    assert on.readout(x, w, torch.ones(5), torch.ones(5), pool=True).shape == (0, 5)
    assert on.encode(torch.zeros(0, 3, 4, 4), 1.0).shape == (0, 4, 4, 3)
