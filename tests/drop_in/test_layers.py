"""Risk: FSConv2d is not the drop-in it claims to be, or takes input it must refuse."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.codes.code import Code
from fskernel.drop_in.layers import nhwc


@given(
    c=st.integers(1, 9), o=st.integers(1, 20), k=st.sampled_from([1, 2, 3, (1, 5), (4, 3)]),
    stride=st.sampled_from([1, 2, (3, 1)]), padding=st.sampled_from([0, 1, (0, 2), "valid"]),
    K=st.sampled_from([4, 8, 10, 15]), bits=st.sampled_from([8, 16]), bias=st.booleans(),
    signed=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_close_to_conv_and_relu(c, o, k, stride, padding, K, bits, bias, signed, seed):
    g = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(c, o, k, stride, padding, bias=bias)
    x = torch.rand(2, c, 9, 8, generator=g) - (0.5 if signed else 0)
    with torch.no_grad():
        y = torch.relu(conv(x))
        alpha = max(float(y.max()), 0.1) * 2**K / (2**K - 1)
        layer = fs.FSConv2d.from_float(
            conv, alpha=alpha, K=K, weight_bits=bits, input_alpha=1.0, input_K=12,
            signed_input=signed,
        )  # fmt: skip
        z = layer(x)
        largest = conv.weight.abs().flatten(1).amax(1)
        # Raised weight scales still leave 12 bits here.
        unit = largest / (127 if bits == 8 else 2047) / 2
        taps = conv.weight[0].numel()
        weight_error = unit * taps
        input_error = conv.weight.abs().flatten(1).sum(1) * 2.0**-12 * 1.01
        bound = (weight_error + input_error)[:, None, None] + 0.51 * layer.neuron.step + 1e-5
    assert z.shape == y.shape and z.dtype == torch.float32
    assert ((z - y).abs() <= bound).all()


def test_spikes_in_spikes_out_word_for_word():
    layer = fs.FSConv2d(5, 7, 3, stride=2, padding=1, groups=1, alpha=2.0, K=9)
    x = fs.encode(torch.rand(2, 5, 11, 6), K=6, alpha=1.0)
    with torch.no_grad():
        y = layer(x)
    assert isinstance(y, fs.SpikeTensor) and y.neuron == layer.neuron and y.shape == (2, 7, 6, 3)
    step = next(iter(layer._steps.values()))[1]
    expected, counts = step(nhwc(x.words), backend=reference.literal)
    assert torch.equal(nhwc(y.words), expected)
    assert torch.equal(y.count(), counts)


def test_state_dict_is_that_of_conv2d():
    conv = nn.Conv2d(3, 6, 3, padding=1)
    layer = fs.FSConv2d(3, 6, 3, padding=1, K=8, alpha=6.0)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        before = layer(x)
        assert set(layer.state_dict()) == set(conv.state_dict())
        layer.load_state_dict(conv.state_dict())
        after = layer(x)
        assert not torch.equal(before, after), "new weights were not packed"
        assert torch.equal(after, fs.FSConv2d.from_float(conv, K=8, alpha=6.0)(x))
        layer.weight.mul_(0.5)
        assert not torch.equal(layer(x), after), "weights changed in place were not packed"
        again = copy.deepcopy(layer)
        assert torch.equal(again(x), layer(x))


def test_batch_norm_is_folded():
    conv, bn = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6).eval()
    with torch.no_grad():
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.3, 2)
        bn.weight.uniform_(-1, 1)
        bn.bias.normal_()
        x = torch.rand(2, 4, 9, 9)
        expected = torch.relu(bn(conv(x)))
        layer = fs.FSConv2d.from_float(
            conv, bn, K=14, alpha=float(expected.max()) * 1.01, weight_bits=16, input_alpha=1.0
        )
        assert (layer(x) - expected).abs().max() < 2e-3


def test_linear_and_its_chain():
    linear = nn.Linear(33, 17)
    with torch.no_grad():
        x = torch.rand(5, 33)
        expected = torch.relu(linear(x))
        layer = fs.FSLinear.from_float(
            linear, K=12, alpha=float(expected.max()) * 1.01, weight_bits=16, input_alpha=1.01
        )
        assert (layer(x) - expected).abs().max() < 2e-3
        spikes = layer(fs.encode(x, K=12, alpha=1.01))
        assert isinstance(spikes, fs.SpikeTensor) and spikes.shape == (5, 17)
        assert torch.equal(spikes.values(), layer(x))


@pytest.mark.parametrize("n", [0, 1, 2, 37])
@pytest.mark.parametrize("relu", [False, True])
def test_linear_reads_many_rows_as_it_reads_one(n, relu):
    layer = fs.FSLinear.from_float(nn.Linear(70, 9), alpha=4.0, signed_input=True, relu=relu)
    x = torch.randn(n, 70)
    y = layer(x)
    assert y.shape == (n, 9) and y.is_contiguous()
    assert torch.equal(y, layer.run(x)[0]) and layer.run(x)[1].shape == (n,)
    assert torch.equal(y, layer(x.t().contiguous().t()))
    for row, expected in zip(x, y, strict=True):
        assert torch.equal(layer(row[None])[0], expected)


def test_a_sequential_of_drop_ins():
    net = nn.Sequential(
        fs.FSConv2d(3, 8, 3, alpha=2.0, input_alpha=1.0, K=7),
        fs.FSMaxPool2d(2),
        fs.FSConv2d(8, 8, 3, alpha=2.0, K=7),
        fs.FSAvgPool2d(2),
        fs.FSConv2d(8, 4, 1, alpha=2.0, K=7),
    )
    x = fs.encode(torch.rand(2, 3, 16, 14), K=7, alpha=1.0)
    with torch.no_grad():
        y = net(x)
    assert isinstance(y, fs.SpikeTensor) and y.shape == (2, 4, 2, 2)
    pooled = net[1](net[0](x))
    expected = nn.functional.max_pool2d(net[0](x).values(), 2)
    assert torch.equal(pooled.values(), expected)
    mean = net[3](net[2](pooled))
    assert isinstance(mean, fs.GradedTensor)
    assert torch.allclose(mean.values(), nn.functional.avg_pool2d(net[2](pooled).values(), 2))
    assert torch.equal(net[1](torch.ones(1, 1, 2, 2)), torch.ones(1, 1, 1, 1))


def test_device_and_dtype_are_those_of_conv2d():
    layer = fs.FSConv2d(3, 6, 3, dtype=torch.float64, device="cpu", alpha=2.0)
    assert layer.weight.dtype == torch.float64
    with torch.no_grad():
        assert layer(torch.rand(1, 3, 6, 6)).dtype == torch.float32
    assert fs.FSLinear(3, 6, dtype=torch.float64, alpha=2.0).weight.dtype == torch.float64


def test_settings_changed_after_a_call_are_packed_again():
    layer = fs.FSConv2d(3, 6, 3, alpha=2.0)
    x = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        before = layer(x)
        layer.neuron = fs.FSNeuron(3, 1.0)
        assert not torch.equal(layer(x), before)
        layer.stride = (2, 2)
        assert layer(x).shape == (1, 6, 2, 2)
        before = layer(x)
        layer.weight.data.mul_(-1)  # torch does not count this
        layer.repack()
        assert not torch.equal(layer(x), before)


def test_made_in_inference_mode():
    with torch.inference_mode():
        layer = fs.FSConv2d(3, 6, 3, alpha=2.0)
        assert layer(torch.rand(1, 3, 6, 6)).shape == (1, 6, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_converted(dtype):
    layer = fs.FSConv2d(3, 6, 3, alpha=2.0)
    x = torch.rand(1, 3, 6, 6).to(dtype)
    with torch.no_grad():
        assert torch.equal(layer(x), layer(x.float()))


def test_weights_are_never_rounded_away():
    layer = fs.FSLinear(131072, 3, alpha=20.0, input_alpha=2.0, K=15, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1e-4)
        with pytest.raises(ValueError, match="use a smaller K"):
            layer(torch.ones(1, 131072))


def test_pools_of_something_else_are_refused():
    code = Code("graded", 0.1, -100, 100)
    graded = fs.GradedTensor(torch.ones(1, 1, 4, 4, dtype=torch.int16), code)
    for pool in (fs.FSMaxPool2d(2), fs.FSAvgPool2d(2)):
        with pytest.raises(TypeError, match="GradedTensor"):
            pool(graded)
        with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
            pool(fs.encode(torch.rand(2, 3, 4), K=4, alpha=1.0))
    spikes = fs.encode(torch.rand(1, 1, 4, 4), K=10, alpha=1.0)
    for pool in (fs.FSMaxPool2d(1, padding=1), fs.FSMaxPool2d(2, 1, 1, dilation=5)):
        with pytest.raises(ValueError, match="pad less"):
            pool(spikes)
    with pytest.raises(ValueError, match="declared range"):
        fs.GradedTensor(torch.full((1, 4), 300, dtype=torch.int16), code)
    with pytest.raises(TypeError, match="Code"):
        fs.GradedTensor(torch.ones(1, 4, dtype=torch.int16), 3)


def test_batch_norm_of_another_width_is_refused():
    with pytest.raises(ValueError, match="bn has 1 channels"):
        fs.FSConv2d.from_float(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(1), alpha=1.0)


X = torch.rand(2, 4, 9, 8, generator=torch.Generator().manual_seed(2))


def scaled_norm(conv):
    conv = nn.utils.parametrizations.weight_norm(conv)
    with torch.no_grad():
        conv.parametrizations.weight.original0.mul_(1.7)
    return conv


def old_norm(conv):
    with pytest.warns(FutureWarning, match="deprecated"):
        conv = nn.utils.weight_norm(conv)
    with torch.no_grad():
        conv.weight_g.mul_(1.7)  # the attribute `weight` is stale now
    return conv


def pruned(conv):
    nn.utils.prune.l1_unstructured(conv, "weight", 0.5)
    nn.utils.prune.random_unstructured(conv, "bias", 2)
    return conv


def bound(conv):
    class Halved(nn.Module):
        def forward(self, w):
            return w / 2

    nn.utils.parametrize.register_parametrization(conv, "weight", Halved())
    return conv


@pytest.mark.parametrize(
    "make",
    [
        scaled_norm, old_norm, pruned, bound, nn.utils.parametrizations.spectral_norm,
        pytest.param(
            nn.utils.spectral_norm,
            marks=pytest.mark.filterwarnings("ignore::FutureWarning"),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", [True, False])
def test_parametrised_layers_are_what_they_compute(make, mode):
    conv = make(nn.Conv2d(4, 5, 3)).train(mode)
    linear = make(nn.Linear(4, 5)).train(mode)
    before = {k: v.clone() for m in (conv, linear) for k, v in m.state_dict(prefix=str(m)).items()}
    options = dict(alpha=99.0, K=14, weight_bits=16, input_alpha=1.001)
    layers = fs.FSConv2d.from_float(conv, **options), fs.FSLinear.from_float(linear, **options)
    after = {k: v for m in (conv, linear) for k, v in m.state_dict(prefix=str(m)).items()}
    assert all(torch.equal(after[k], v) for k, v in before.items())
    with torch.no_grad():
        for layer, module, x in zip(layers, (conv, linear), (X, X[:, :, 0, 0]), strict=True):
            expected = torch.relu(module.eval()(x))
            assert (layer(x) - expected).abs().max() < 1e-2 + 1e-3 * expected.max() < 10


class Halved(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(x, self.weight / 2, self.bias)


class Named(nn.Linear):
    pass


def with_forward():
    conv = nn.Conv2d(4, 5, 3)
    conv.forward = lambda x: -x
    return conv


def with_hook(kind):
    layer = nn.Linear(4, 5)
    getattr(layer, f"register_forward_{kind}hook")(lambda m, *args: None)
    return layer


@pytest.mark.parametrize(
    "kind,layer,why",
    [
        (fs.FSConv2d, Halved(4, 5, 3), "'conv': it is a Halved.*nn.Conv2d that holds the weights"),
        (fs.FSConv2d, nn.ConvTranspose2d(4, 5, 3), "it is a ConvTranspose2d"),
        (fs.FSConv2d, nn.Conv1d(4, 5, 3), "it is a Conv1d"),
        (fs.FSConv2d, nn.Linear(4, 5), "it is a Linear"),
        (fs.FSConv2d, nn.LazyConv2d(5, 3), "lazy and has no weights"),
        (fs.FSConv2d, nn.Sequential(nn.Conv2d(4, 5, 3)), "it is a Sequential"),
        (fs.FSConv2d, "conv1", "it is a str"),
        (fs.FSConv2d, with_forward(), "forward of its own"),
        (fs.FSConv2d, nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), "reflect.*zeros"),
        (fs.FSConv2d, nn.utils.parametrizations.weight_norm(Halved(4, 5, 3)), "it is a"),
        (fs.FSLinear, Named(4, 5), "'linear': it is a Named"),
        (fs.FSLinear, nn.Bilinear(4, 4, 5), "it is a Bilinear"),
        (fs.FSLinear, nn.Conv2d(4, 5, 1), "it is a Conv2d"),
        (fs.FSLinear, nn.LazyLinear(5), "lazy"),
        (fs.FSLinear, with_hook(""), "forward hooks"),
        (fs.FSLinear, with_hook("pre_"), "forward hooks"),
    ],
)
def test_layers_of_other_types_are_refused(kind, layer, why):
    with pytest.raises(ValueError, match=why):
        kind.from_float(layer, alpha=1.0)


@pytest.mark.parametrize(
    "bn,why",
    [
        (nn.BatchNorm1d(5), "'bn': it is a BatchNorm1d"),
        (nn.InstanceNorm2d(5, affine=True, track_running_stats=True), "it is a InstanceNorm2d"),
        (nn.LazyBatchNorm2d(), "lazy"),
        (nn.BatchNorm2d(5, track_running_stats=False), "running statistics"),
    ],
)
def test_norms_of_other_types_are_refused(bn, why):
    with pytest.raises(ValueError, match=why):
        fs.FSConv2d.from_float(nn.Conv2d(4, 5, 3), bn, alpha=1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_default_dtype_rounds_no_weights(dtype):
    conv, bn, linear = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5).eval(), nn.Linear(4, 5)
    bn.running_var.uniform_(0.3, 2)
    expected = (
        fs.FSConv2d.from_float(conv, bn, alpha=1.0),
        fs.FSLinear.from_float(linear, alpha=1.0),
    )
    torch.set_default_dtype(dtype)
    try:
        got = fs.FSConv2d.from_float(conv, bn, alpha=1.0), fs.FSLinear.from_float(linear, alpha=1.0)
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)


def test_half_keeps_the_contract():
    layer = fs.FSConv2d(3, 6, 3, alpha=2.0, input_alpha=1.0)
    x = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        assert layer.half()(x).dtype == torch.float32


@pytest.mark.parametrize(
    "x,error,message",
    [
        (torch.rand(2, 4, 8, 8), ValueError, "4 channels"),
        (torch.rand(3, 8, 8), ValueError, r"\[N, C, H, W\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "SpikeTensor"),
        (-torch.rand(1, 3, 8, 8), ValueError, "signed_input=True"),
        (torch.rand(1, 3, 8, 8, requires_grad=True), RuntimeError, "no_grad"),
        (torch.rand(1, 3, 8, 8, device="meta"), ValueError, "meta"),
        (torch.rand(1, 3, 2, 8), ValueError, "too small"),
        ("image", TypeError, "str"),
    ],
)
def test_bad_input_is_refused(x, error, message):
    layer = fs.FSConv2d(3, 6, 3, alpha=2.0)
    with pytest.raises(error, match=message):
        layer(x)


@pytest.mark.parametrize(
    "kwargs,message",
    [
        (dict(alpha=0.0), "alpha"),
        (dict(alpha=float("nan")), "alpha"),
        (dict(alpha=1.0, K=16), "K=16"),
        (dict(alpha=1.0, K=0), "K=0"),
        (dict(alpha=1.0, input_K=99), "K=99"),
        (dict(alpha=1.0, input_alpha=-2.0), "alpha=-2.0"),
        (dict(alpha=1.0, rounding="up"), "up"),
        (dict(alpha=1.0, weight_bits=4), "weight_bits=4"),
        (dict(alpha=1.0, padding_mode="circular"), "zeros"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        fs.FSConv2d(3, 6, 3, **kwargs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(bad):
    layer = fs.FSConv2d(3, 6, 3, alpha=2.0)
    with torch.no_grad():
        layer.weight[1, 2, 0, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            layer(torch.rand(1, 3, 8, 8))


def test_signed_input_is_zero_at_zero():
    layer = fs.FSConv2d(3, 6, 3, padding=1, alpha=2.0, signed_input=True, bias=False)
    with torch.no_grad():
        assert int(layer(torch.zeros(1, 3, 8, 8)).count_nonzero()) == 0


def test_empty_and_one_pixel():
    layer = fs.FSConv2d(3, 6, 3, padding=1, alpha=2.0)
    with torch.no_grad():
        assert layer(torch.rand(0, 3, 8, 8)).shape == (0, 6, 8, 8)
        assert layer(torch.rand(2, 3, 1, 1)).shape == (2, 6, 1, 1)


def test_sliced_and_permuted_input():
    layer = fs.FSConv2d(3, 6, 3, alpha=2.0)
    x = torch.rand(2, 8, 9, 6)
    view = x.permute(0, 3, 1, 2)[:, ::2]
    with torch.no_grad():
        assert torch.equal(layer(view), layer(view.contiguous()))


def test_compiles():
    layer = fs.FSConv2d(3, 6, 3, alpha=2.0)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = layer(x)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), expected)
        with pytest.raises(RuntimeError, match="signed_input"):
            compiled(-x)


def test_layers_are_one_line_in_a_module():
    module = nn.Sequential(
        fs.FSConv2d(3, 4, 3, alpha=1.0), fs.FSLinear(4, 2, alpha=2.0), fs.FSMaxPool2d(2),
        fs.FSAvgPool2d(2), fs.FSConv2d(3, 4, 1, relu=False, input_alpha=1.0),
    )  # fmt: skip
    lines = repr(module).splitlines()
    assert len(lines) == 7 and "FSNeuron(K=8, alpha=1.0" in lines[1] and "relu=False" in lines[5]
