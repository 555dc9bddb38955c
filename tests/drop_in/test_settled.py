"""Risk: a layer goes on with what an earlier call settled although something has changed since."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import fskernel as fs
from fskernel.kernels import ops

X = torch.rand(2, 5, 7, 6)


def layer_of(**options):
    layer = fs.FSConv2d(5, 9, 3, padding=1, **{"alpha": 2.0, "input_alpha": 1.0, "K": 6} | options)
    return layer.requires_grad_(False)


def settled(**options):
    layer = layer_of(**options)
    layer(X)
    assert layer._settled is not None
    return layer


def fresh(layer):
    """A layer with the same weights and settings that has settled nothing."""
    new = layer_of(
        alpha=layer.neuron.alpha,
        K=layer.neuron.K,
        input_alpha=layer.input_neuron.alpha,
        input_K=layer.input_neuron.K,
        stride=layer.stride,
        weight_bits=layer.weight_bits,
    )
    new.load_state_dict(layer.state_dict())
    return new


def set_neuron(layer):
    layer.neuron = fs.FSNeuron(4, 3.0)


def set_input_neuron(layer):
    layer.input_neuron = fs.FSNeuron(5, 0.5)


def set_stride(layer):
    layer.stride = (2, 1)


def set_weight_bits(layer):
    layer.weight_bits = 16


def write_weight(layer):
    layer.weight.mul_(-0.5)


def write_bias(layer):
    layer.bias[3] = 1.5


def exchange_weight(layer):
    layer.weight = nn.Parameter(layer.weight * 2, requires_grad=False)


def exchange_data(layer):
    layer.weight.data = layer.weight.data.flip(0)


def load(layer):
    layer.load_state_dict(layer_of().state_dict())


def write_behind_torch(layer):
    layer.weight.numpy()[:] = 0.125
    layer.repack()


@pytest.mark.filterwarnings("ignore::fskernel.clipping.ClippingWarning")
@pytest.mark.parametrize(
    "change",
    [
        set_neuron, set_input_neuron, set_stride, set_weight_bits, write_weight, write_bias,
        exchange_weight, exchange_data, load, write_behind_torch,
    ],
)  # fmt: skip
def test_what_changes_the_layer_changes_the_output(change):
    layer = settled()
    before = layer(X)
    change(layer)
    after = layer(X)
    assert torch.equal(after, fresh(layer)(X))
    assert after.shape != before.shape or not torch.equal(after, before)


def test_functional_call_uses_the_weights_that_it_is_given():
    layer = settled()
    other = layer_of()
    y = torch.func.functional_call(layer, dict(other.state_dict()), (X,))
    assert torch.equal(y, other(X)) and not torch.equal(y, layer(X))


def test_the_instruction_set_may_change():
    layer = settled()
    y = layer(X)
    try:
        for isa in ops.supported_isas():
            ops.set_isa(isa)
            assert torch.equal(layer(X), y)
            assert ops.last_kernel().startswith(f"{isa}/")
    finally:
        ops.set_isa(None)


def test_other_inputs_after_a_settled_one():
    layer = settled()
    for x in (
        X.half(), X.double(), X.bfloat16(), X[:1], X[:0], X[..., :3, :5], X.flip(3),
        X.contiguous(memory_format=torch.channels_last), X.permute(0, 1, 3, 2),
    ):  # fmt: skip
        y, expected = layer(x), fresh(layer)(x)
        assert y.dtype == expected.dtype == x.dtype and torch.equal(y, expected)
        assert y.stride() == expected.stride()
    y, counts = layer.run(X)
    assert torch.equal(counts, fresh(layer).run(X)[1]) and counts.sum() > 0
    spikes = fs.encode(X, layer.input_neuron)
    assert torch.equal(fs.decode(layer(spikes)), layer(X))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], "shape"), (X[:, :4], "channels"), (X.int(), "float"), (X - 1, "sign"),
        (X.to_sparse(), "dense"), (X.clone().requires_grad_(), "grad"), ("x", "str"),
    ],
)  # fmt: skip
def test_what_was_refused_still_is(x, message):
    layer = settled()
    for _ in range(2):
        with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
            layer(x)
    assert torch.equal(layer(X), fresh(layer)(X))


def test_tangents_and_vmap_are_still_refused():
    layer = settled()
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="tangent"):
        layer(forward_ad.make_dual(X, X))
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(layer)(X[:, None])


def test_a_later_call_that_is_clipped_is_still_said_once():
    layer = settled()
    with pytest.warns(fs.clipping.ClippingWarning):
        layer(3 * X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(3 * X)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_settle_for_themselves(how):
    layer = settled()
    new = how(layer)
    assert new._settled is None
    new.weight.mul_(2)
    assert torch.equal(new(X), fresh(new)(X)) and not torch.equal(new(X), layer(X))


def test_linear_settles_too():
    layer = fs.FSLinear(40, 11, alpha=1.0).requires_grad_(False)
    x = torch.rand(6, 40)
    first = layer(x)
    assert layer._settled is not None and torch.equal(layer(x), first)
    assert torch.equal(layer(x[:1]), first[:1]) and torch.equal(layer.run(x)[0], first)
    with pytest.raises(ValueError, match="shape"):
        layer(x[None])
