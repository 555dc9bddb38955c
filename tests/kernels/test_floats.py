"""Risk: float tensors of some dtype or order of memory are encoded or decoded to other numbers."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fskernel as fs
from fskernel import reference
from fskernel.clipping import ClippingWarning
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
ISAS = ops.supported_isas()


@pytest.fixture(params=ISAS)
def isa(request):
    ops.set_isa(request.param)
    yield request.param
    ops.set_isa(None)


def arranged(x, how):
    """The same values [N, C, H, W] in another order of memory."""
    if how == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if how == "every other":
        return x.repeat_interleave(2, 3)[..., ::2]
    if how == "some channels":
        wide = torch.cat([x, x, x], 1).contiguous(memory_format=torch.channels_last)
        return wide[:, x.shape[1] : 2 * x.shape[1]]
    if how == "turned":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x.contiguous()


ORDERS = ("contiguous", "channels_last", "every other", "some channels", "turned")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [3, 8, 11])
def test_every_order_of_memory_gives_the_oracles_words(isa, dtype, K):
    """Ragged widths and channels: whole blocks, parts of blocks, a few channels and many."""
    neuron = fs.FSNeuron(K, 3.7, "nearest")
    for shape in [(2, 3, 5, 70), (1, 17, 3, 43), (2, 40, 6, 6), (3, 8, 1, 1), (1, 1, 9, 130)]:
        x = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 5 - 0.5).to(dtype)
        x[..., 0, 0] = torch.tensor([float("nan"), float("inf"), -float("inf")])[: shape[0], None]
        want = reference.collapsed.encode_words(
            x.float(), neuron.inv_step, neuron.offset, K
        ).permute(0, 3, 1, 2)
        for how in ORDERS:
            got = fs.encode(arranged(x, how), neuron)
            assert torch.equal(got.words, want), (shape, how)
            assert got.words.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(7,), (3, 50), (2, 3, 4, 5, 6), (0, 4), (2, 0, 3, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_dimensions(shape, dtype):
    x = torch.rand(shape).to(dtype)
    spikes = fs.encode(x, K=6, alpha=0.8)
    want = reference.collapsed.encode_words(x.float().reshape(1, 1, 1, -1), 80.0, 0.5, 6)
    assert spikes.shape == shape
    assert torch.equal(spikes.words.flatten(), want.flatten())
    assert torch.equal(fs.decode(spikes), (spikes.words.double() * spikes.neuron.step).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_float_is_read_as_torch_reads_it(isa, dtype):
    """All 65,536 of them: subnormal numbers, infinities and NaN included."""
    x = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype)
    for scale in (1.0, 2.0**-10, 2.0**10):
        neuron = fs.FSNeuron(15, scale)
        want = reference.collapsed.encode_words(
            x.float().view(1, 1, 1, -1), neuron.inv_step, neuron.offset, 15
        )
        assert torch.equal(fs.encode(x, neuron).words, want.flatten())


@pytest.mark.parametrize("dtype", DTYPES)
def test_floats_are_rounded_to_the_output_type_as_torch_rounds_them(isa, dtype):
    """By a layer without neurons whose outputs are float32 numbers of our choice."""
    ties = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    ties = torch.cat([(ties.int() << 16) + low for low in (0x7FFF, 0x8000, 0x8001, 0, 0x1000)])
    half = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    near = torch.cat([torch.nextafter(half, torch.tensor(s)) for s in (1e9, -1e9)])
    values = torch.cat([ties.view(torch.float32), half, near, half * (1 + 2**-11)])
    values = torch.cat([values[values == values], torch.tensor([float("nan")])])
    weight = torch.zeros(len(values), 1, 1, 1, dtype=torch.int8)
    synapses = Synapses(weight, torch.zeros(len(values)), Geometry((1, 1)), x_min=0, x_max=255)
    for how in ("contiguous", "channels_last"):
        x = arranged(torch.zeros(1, 1, 1, 2, dtype=dtype), how)
        y, _, _ = ops.conv_floats(
            x, ops.Encoder(1.0, 0.5, 8), synapses, values, K=0, step=1.0,
            channels_last=how == "channels_last",
        )  # fmt: skip
        assert y.dtype == dtype
        assert torch.equal(y[0, :-1, 0, 1], values[:-1].to(dtype)), how
        assert y[0, -1].isnan().all()


@pytest.mark.parametrize("K", [1, 5, 8, 9, 15])
def test_decoding_is_a_product_in_float64_rounded_once(isa, K):
    for shape in [(1, 3, 5, 7), (2, 40, 3, 3), (1, 16, 30, 30), (1, 1, 1, 1)]:
        neuron = fs.FSNeuron(K, 6 * 256 / 255)
        words = torch.randint(0, neuron.max_word + 1, shape).to(neuron.word_dtype)
        spikes = fs.SpikeTensor(words, neuron)
        assert torch.equal(spikes.values(), (words.double() * neuron.step).float())


@given(
    st.sampled_from(DTYPES), st.sampled_from(ORDERS), st.sampled_from([1, 2, 5, 24, 64, 70]),
    st.sampled_from([1, 3, 20, 64, 130]), st.sampled_from([4, 8, 11]), st.booleans(),
    st.sampled_from(ISAS), st.sampled_from(["plain", "grouped", "depthwise"]), st.booleans(),
)  # fmt: skip
def test_a_layer_from_floats_to_floats_is_encoder_layer_and_decoder(
    dtype, how, c, o, K, signed, isa, kind, relu
):
    """In dtype and order of memory what it was given, and its spikes are counted."""
    groups = {"plain": 1, "grouped": 2, "depthwise": c}[kind]
    c, o = (2 * c, 2 * o) if kind == "grouped" else (c, c) if kind == "depthwise" else (c, o)
    g = torch.Generator().manual_seed(c * 131 + o)
    layer = fs.FSConv2d(
        c, o, 3, padding=1, groups=groups, K=K, alpha=1.0, input_alpha=1.5, signed_input=signed,
        relu=relu,
    )  # fmt: skip
    x = torch.rand(2, c, 5, 6, generator=g)
    x = arranged((x - 0.5 if signed else x).to(dtype), how)
    ops.set_isa(isa)
    try:
        with torch.no_grad():
            y, spikes = layer.run(x)
            again = layer(x)
            # The same in three steps.
            code, encoder = layer._input()
            values = x.float()
            if signed:
                codes = ops.encode(values, encoder.inv_step, limit=encoder.limit)
            else:
                codes = ops.encode_words(values, encoder.inv_step, encoder.offset, encoder.K)
            step = layer._step(code)
            floats, counts = step(codes, backend=reference.collapsed, floats=True)
    finally:
        ops.set_isa(None)
    assert torch.equal(y, floats.permute(0, 3, 1, 2).to(dtype)) and y.dtype == dtype
    assert torch.equal(again, y)
    assert torch.equal(spikes, counts)
    last = how in ("channels_last", "some channels") and c > 1
    form = torch.channels_last if last else torch.contiguous_format
    assert y.is_contiguous(memory_format=form)


def test_what_is_far_beyond_the_range_is_said_once():
    layer = fs.FSConv2d(3, 4, 1, alpha=2.0)
    with torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(torch.full((1, 3, 40, 40), 2.0))  # exactly alpha: not beyond
            few = torch.zeros(1, 3, 40, 40)
            few[0, 0, 0, :4] = 9.0  # 4 of 4800
            layer(few)
        with pytest.warns(ClippingWarning, match=r"0.21 % .*input_alpha=2") as caught:
            few[0, 1, 0, :6] = 9.0
            layer(few)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(few * 2)
        signed = fs.FSConv2d(3, 4, 1, alpha=2.0, signed_input=True)
        with pytest.warns(ClippingWarning, match="100 %"):
            signed(torch.full((1, 3, 2, 2), -5.0))
        fc = fs.FSLinear(4, 5, alpha=1.0)
        with pytest.warns(ClippingWarning, match="25 %"):
            fc(torch.tensor([[0.5, 0.1, 3.0, 0.0]]))


def test_images_beyond_a_networks_range_are_said_once():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 2),
    ).eval()  # fmt: skip
    x = torch.rand(4, 3, 9, 9)
    for run in ("__call__", "count_spikes", "execute", "run"):
        converted = fs.convert(net, x)
        call = getattr(converted, run)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(x)
        with pytest.warns(ClippingWarning, match=r"the network: .* range of its images.*input_r"):
            call(-3 * x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(-3 * x)


def test_without_relu_there_are_no_neurons():
    conv = torch.nn.Conv2d(6, 5, 3, padding=1)
    x = torch.rand(2, 6, 9, 7)
    layer = fs.FSConv2d.from_float(
        conv, relu=False, input_alpha=1.0, weight_bits=16, input_K=12, K=12
    )
    with torch.no_grad():
        y, spikes = layer.run(x)
        assert float((y - conv(x)).abs().max()) < 2e-3 and float(y.min()) < -0.01
        assert spikes.tolist() == [0, 0] and layer.neuron is None
        of_spikes = layer(fs.encode(x, layer.input_neuron))
        assert isinstance(of_spikes, torch.Tensor) and torch.equal(of_spikes, y)
    assert "relu=False" in repr(layer)
    with pytest.raises(TypeError, match="alpha is missing"):
        fs.FSConv2d(3, 4, 1)
    with pytest.raises(ValueError, match="no range for it: build it with input_alpha="):
        fs.FSConv2d(3, 4, 1, relu=False)(torch.rand(1, 3, 2, 2))
    fc = fs.FSLinear(4, 3, relu=False, input_alpha=2.0)
    assert fc(torch.rand(2, 4).double()).dtype == torch.float64


def test_other_float_types_keep_theirs():
    layer = fs.FSConv2d(2, 3, 1, alpha=1.0)
    y = layer(torch.rand(1, 2, 3, 3).to(torch.float8_e4m3fn))
    assert y.dtype == torch.float8_e4m3fn


def test_autocast_changes_nothing():
    layer = fs.FSConv2d(4, 8, 3, alpha=1.0).requires_grad_(False)
    x = torch.rand(2, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32 and torch.equal(y, layer(x))
