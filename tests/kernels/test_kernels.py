"""Every instruction set's kernels equal the oracle, bit for bit, where kernels tend to be wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_cases import ISAS, Kind, assert_same, group, isa, layers, on_every_isa

from fskernel import _C, reference
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses


@pytest.fixture(autouse=True)
def default_isa_afterwards():
    yield
    ops.set_isa(None)


def test_every_supported_isa_runs_and_says_so():
    x, synapses = group((1, 5, 6, 7), 9, Geometry((3, 2)), Kind(8, 0), gain=300)
    on_every_isa([(x, synapses)], torch.zeros(9), K=8)
    assert set(ISAS) <= set(ops.covered_isas())
    assert "portable" in ISAS and "avx512vnni_emulated" in ISAS
    assert "emulated" not in ops.current_isa()  # slow: only on request


@settings(max_examples=120)
@given(layers())
def test_ragged_layers(layer):
    wanted = layer.run(reference.collapsed.conv)
    for name in ISAS:
        with isa(name):
            assert_same(layer.run(ops.conv), wanted, name)


@settings(max_examples=40)
@given(
    st.integers(1, 70),
    st.integers(1, 130),
    st.integers(1, 40),
    st.sampled_from([Kind(8, 0), Kind(10, 0), Kind(0, 2000)]),
    st.sampled_from([8, 16]),
    st.sampled_from([(1, 1), (1, 3), (2, 1)]),
)
def test_channel_and_column_tails(channels, out, cols, kind, bits, kernel):
    x, synapses = group(
        (1, 2, cols + kernel[1] - 1, channels), out, Geometry(kernel), kind, bits=bits, gain=600
    )
    on_every_isa([(x, synapses)], torch.full((out,), 0.5), K=8)


@pytest.mark.parametrize("K", range(16))
@pytest.mark.parametrize("K_in", [1, 7, 8, 9, 10, 15])
def test_every_number_of_steps(K, K_in):
    gain = 1.5 * 2 ** (K or 12)
    x, synapses = group(
        (2, 4, 5, 11), 19, Geometry((3, 3), padding=(1, 0, 1, 1)), Kind(K_in, 0), bits=16, gain=gain
    )
    y, counts = on_every_isa([(x, synapses)], torch.full((19,), 0.5), K=K)
    assert (y.to(torch.int32) != 0).any()
    assert (counts > 0).all() == (K > 0)


@pytest.mark.parametrize("K_in, groups, channels", [(8, 1, 6), (7, 6, 6), (10, 1, 5), (15, 2, 6)])
def test_plane_groups_change_nothing(K_in, groups, channels):
    geometry = Geometry((3, 3), padding=(1, 1, 0, 2), groups=groups)
    x, synapses = group(
        (1, 5, 6, channels),
        6 if groups > 1 else 20,
        geometry,
        Kind(K_in, 0),
        pad_code=3 % 2**K_in,
        gain=400,
    )
    bias = torch.full((synapses.out_channels,), 0.5)
    for plane_bits in (0, 1, 2, 4, 8):
        on_every_isa([(x, synapses)], bias, K=9, plane_bits=plane_bits)


@pytest.mark.parametrize(
    "geometry, x_shape, out",
    [
        (Geometry((1, 7), (1, 2), (0, 0, 3, 3)), (1, 3, 20, 5), 17),
        (Geometry((5, 1), (3, 1), (2, 1, 0, 0)), (2, 9, 4, 3), 33),
        (Geometry((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)), (1, 7, 9, 8), 64),
        (Geometry((3, 2), (2, 3), (0, 2, 1, 0), (1, 3)), (1, 11, 13, 6), 7),
        (Geometry((7, 7), (2, 2), (3, 3, 3, 3)), (1, 21, 23, 3), 64),
        (Geometry((3, 3), (1, 1), (1, 1, 1, 1), groups=4), (1, 6, 7, 12), 20),
        (Geometry((3, 3), (1, 2), (1, 0, 0, 1), groups=37), (2, 6, 7, 37), 37),
        (Geometry((3, 3), (1, 1), (1, 1, 1, 1), groups=10), (1, 5, 4, 10), 20),
        (Geometry((1, 1), (2, 2)), (1, 8, 9, 16), 40),
        (Geometry((1, 1), (1, 1), (1, 0, 0, 1)), (1, 4, 4, 8), 16),
        (Geometry((1, 1)), (3, 1, 1, 1), 1),
        (Geometry((4, 4)), (1, 4, 4, 70), 130),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [Kind(8, 0), Kind(11, 0), Kind(0, 511)], ids=str)
def test_geometries(geometry, x_shape, out, kind):
    bits = 16 if out % 2 else 8
    pad = min(kind.range[1], 7)
    x, synapses = group(x_shape, out, geometry, kind, bits=bits, pad_code=pad, gain=900)
    on_every_isa([(x, synapses)], torch.full((out,), 0.5), K=10)


@pytest.mark.parametrize("second", [1, 2, 6])
@pytest.mark.parametrize("K", [0, 6, 12])
@pytest.mark.parametrize("residual", [None, Kind(8, 0), Kind(0, 3000)], ids=str)
def test_second_group_and_residual(second, K, residual):
    out, gain = 18, 0.7 * 2 ** (K or 10)
    x, a = group(
        (2, 6, 8, 12), out, Geometry((3, 3), (2, 2), (1, 1, 1, 1), groups=2), Kind(8, 0), gain=gain
    )
    z, b = group(
        (2, 3, 4, 6), out, Geometry((1, 1), groups=second), Kind(10, 0), bits=16, seed=1, gain=gain
    )
    res = None
    if residual:
        codes = residual.codes((2, 3, 4, out), torch.Generator().manual_seed(2))
        res = (codes, torch.tensor([0.3 * gain / residual.range[1]]))
    bias = torch.full((out,), 0.5)
    on_every_isa([(x, a), (z, b)], bias, K=K, residual=res)
    on_every_isa([(z, b), (x, a)], bias, K=K, residual=res)


# More weights in a block of output channels than the second cache level holds, on every instruction
# set; more pixels than are computed at a stretch, and blocks that are filled and that are not.
@pytest.mark.parametrize("kind, channels", [(Kind(8, 0), 33001), (Kind(0, 99), 16501)], ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_sums_over_many_channels(kind, channels, residual):
    out, bias = 70, torch.full((70,), 0.5)
    x, long = group((1, 13, 5, channels), out, Geometry((1, 1)), kind, gain=300)
    res = (Kind(6, 0).codes((1, 13, 5, out), torch.Generator()), torch.tensor([0.7]))
    on_every_isa([(x, long)], bias, K=8, residual=res if residual else None)
    if residual:
        z, short = group((1, 13, 5, 3), out, Geometry((1, 1)), Kind(8, 0), gain=300)
        on_every_isa([(z, short), (x, long)], bias, K=9)
    else:
        on_every_isa([(x, long)], bias, K=8, step=0.3)


@pytest.mark.parametrize("words", [True, False])
def test_sums_above_2_to_24_and_at_the_bound(words):
    # float(acc) rounds here, and the largest sum is as near to 2^31 as whole weights get.
    kind = Kind(15, 0) if words else Kind(0, 32767)
    weight = torch.full((5, 65, 1, 1), 1008, dtype=torch.int16)
    weight[1] = -1008
    weight[2] = 0
    weight[3, ::2] = -1008
    weight[4, 1:] = 0
    low, high = kind.range
    synapses = Synapses(weight, torch.full((5,), 2.0**-16), Geometry((1, 1)), x_min=low, x_max=high)
    x = torch.full((1, 2, 9, 65), high, dtype=torch.int16)
    x[0, 1, :] = torch.arange(9 * 65).reshape(9, 65).to(torch.int16) + 32767 - 9 * 65
    if not words:
        x[0, 1] *= -1
    for K in (15, 8, 0):
        on_every_isa([(x, synapses)], torch.zeros(5), K=K)


def test_silent_channel_and_damaged_parameters():
    x, synapses = group((1, 3, 3, 4), 20, Geometry((1, 1)), Kind(8, 0), gain=200)
    synapses.weight[3] = 0
    synapses.weight[19] = 0
    bias = torch.zeros(20)
    bias[:7] = torch.tensor([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 255.99998])
    synapses.m[8] = float("nan")
    synapses.m[19] = float("inf")  # 0 * inf
    for K in (0, 1, 8, 15):
        on_every_isa([(x, synapses)], bias, K=K)


@pytest.mark.parametrize("K", [0, 8, 15])
@pytest.mark.parametrize("limit", [1, 127, 32767])
def test_membranes_at_and_around_every_half(K, limit):
    """The sum carries the input to the membrane unchanged: x/4 walks over ties and thresholds."""
    x = torch.arange(-2000, 2000, dtype=torch.int16).reshape(1, 40, 100, 1)
    synapses = Synapses(
        torch.ones(3, 1, 1, 1, dtype=torch.int8),
        torch.tensor([0.25, np.nextafter(np.float32(0.25), np.float32(1)), 40.0]),
        Geometry((1, 1)),
        x_min=-2000,
        x_max=2000,
    )
    on_every_isa([(x, synapses)], torch.zeros(3), K=K, limit=limit)


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("K_in", [8, 10])
def test_threads_and_batch_slices_change_nothing(name, K_in):
    geometry = Geometry((3, 3), padding=(1, 1, 1, 1))
    x, a = group((5, 7, 9, 6), 75, geometry, Kind(K_in, 0), gain=300)
    z, b = group((5, 7, 9, 5), 75, Geometry((1, 1), groups=5), Kind(8, 0), seed=1, gain=300)
    bias = torch.full((75,), 0.5)
    with isa(name):
        y, counts = ops.conv([(x, a), (z, b)], bias, K=8)
        for threads in (2, 3, 6):
            torch.set_num_threads(threads)
            assert_same(ops.conv([(x, a), (z, b)], bias, K=8), (y, counts), f"{threads} threads")
            part = slice(1, 2)
            one = ops.conv([(x[part], a), (z[part], b)], bias, K=8)
            assert_same(one, (y[part], counts[part]), f"image 1, {threads} threads")


@pytest.mark.parametrize("name", ISAS)
def test_inputs_of_any_strides_and_alignment(name):
    geometry = Geometry((2, 2))
    x, synapses = group((2, 5, 6, 8), 9, geometry, Kind(8, 0), gain=300)
    bias = torch.full((9,), 0.5)
    memory = torch.zeros(x.numel() + 3, dtype=torch.uint8)
    memory[3:] = x.flatten()
    with isa(name):
        wanted = ops.conv([(x, synapses)], bias, K=8)
        shifted = memory[3:].reshape(x.shape)
        assert shifted.data_ptr() % 4 == x.data_ptr() % 4 - 1 or shifted.data_ptr() % 2 == 1
        assert_same(ops.conv([(shifted, synapses)], bias, K=8), wanted)
        strided = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        assert not strided.is_contiguous()
        assert_same(ops.conv([(strided, synapses)], bias, K=8), wanted)


@pytest.mark.parametrize("name", ISAS)
def test_empty_batch(name):
    x, synapses = group((2, 5, 6, 8), 9, Geometry((2, 2)), Kind(8, 0))
    with isa(name):
        y, counts = ops.conv([(x[:0], synapses)], torch.zeros(9), K=8)
        assert y.shape == (0, 4, 5, 9) and y.dtype == torch.uint8 and counts.shape == (0,)
        assert ops.max_pool(x[:0], Geometry((2, 2))).shape == (0, 4, 5, 8)
        one = torch.ones(3)
        weight = torch.ones(3, 8, dtype=torch.int8)
        assert ops.readout(x[:0], weight, one, one, pool=True).shape == (0, 3)
        assert ops.encode(torch.zeros(0, 3, 4, 4), 1.0).shape == (0, 4, 4, 3)


@settings(max_examples=30)
@given(layers())
def test_scalar_reference_agrees_with_the_oracle(layer):
    layer = layer._replace(step=None)
    wanted = layer.run(reference.collapsed.conv)
    groups = [
        (
            x.numpy().astype(np.int32),
            s.weight.numpy().astype(np.int32),
            s.m.numpy(),
            s.geometry.as_ints(s.pad_code),
        )
        for x, s in layer.groups
    ]
    residual, r = None, 0.0
    if layer.residual:
        residual, r = layer.residual[0].numpy().astype(np.int32), float(layer.residual[1])
    rest = (None if t is None else t.numpy() for t in (layer.top, layer.table, layer.fitted))
    rest = layer.K, layer.limit, *rest, layer.zero
    y, counts = _C.reference_conv(groups, layer.bias.numpy(), residual, r, *rest)
    assert_same((torch.from_numpy(y).to(wanted[0].dtype), torch.from_numpy(counts)), wanted)
