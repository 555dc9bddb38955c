"""Operators come back at once from nothing to do, and refuse what they cannot count or derive."""

import threading

import numpy as np
import pytest
import torch

from fskernel import _C, reference
from fskernel.codes.geometry import Geometry
from fskernel.drop_in.layers import FSConv2d
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses

o = torch.ops.fskernel
TOO_MANY = r"at most 2\^31 - 1 elements .* split the batch"
ONE = Geometry((1, 1)).as_ints()
WIDE = Geometry((1, 1), (1, 1), (1 << 24,) * 4).as_ints()  # 2^50 positions around one


def codes(*shape, dtype=torch.uint8):
    return torch.empty(shape, dtype=dtype)


def at_once(call):
    """What call() gives or raises, unless it is still running after a while."""
    got = []

    def run():
        try:
            got.append(call())
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run, daemon=True)  # a failure must not keep the process
    thread.start()
    thread.join(20)
    assert got, "still running after 20 s"
    return got[0]


def assert_refused(call, message=TOO_MANY):
    error = at_once(call)
    assert isinstance(error, ValueError), error
    with pytest.raises(ValueError, match=message):
        raise error


def readout(x, out, pool, features=None):
    features = (x.shape[3] if pool else x[0].numel()) if features is None else features
    weight = torch.ones(out, features, dtype=torch.int8)
    return o.readout(x, weight, torch.full((out,), 2.0), torch.arange(out) + 0.5, pool)


def packed(*weight_shape):
    return o.pack(torch.ones(weight_shape, dtype=torch.int8), ONE, 0, 255)


def conv(x, geometry=ONE):
    weights = o.pack(torch.ones(1, 1, 1, 1, dtype=torch.int8), geometry, 0, 255)
    one = torch.ones(1)
    return o.conv(x, weights, one, geometry, one, None, None, None, [], None, None, 8, 127, 0)


# Positions that no tensor of elements could have.
ENDLESS = [
    (1, 1 << 40, 1, 0),
    (1 << 31, 0, 0, 0),
    (1, 1 << 35, 0, 0),
    (1 << 16, 1 << 15, 1, 0),
    (0, 1 << 40, 1 << 20, 1),
    (1, 1, 1 << 31, 0),
    (3, 0, 1 << 30, 1),
    (1 << 40, 0, 1, 1),
]


@pytest.mark.parametrize("shape", ENDLESS, ids=str)
def test_positions_are_bounded_even_of_empty_tensors(shape):
    x, image = codes(*shape), torch.empty(shape)
    rows, columns = shape[1:3]
    calls = {
        "max_pool": lambda: o.max_pool(x, ONE),
        "sum_pool": lambda: o.sum_pool(x, ONE),
        "gate": lambda: o.gate(x, x, 0, 0, torch.ones(1), torch.ones(1), 8, 1),
        "readout": lambda: readout(x, 2, True, 0),
        "readout of pixels": lambda: readout(x, 2, False, 0),
        "conv": lambda: conv(x),
        "encode": lambda: o.encode(image, 1.0, 127),
        "encode_words": lambda: o.encode_words(image, 1.0, 0.5, 8),
        "events": lambda: o.synaptic_events(
            x, torch.ones(1, dtype=torch.int64).expand(rows),
            torch.ones(1, dtype=torch.int64).expand(columns)),
    }  # fmt: skip
    for name, call in calls.items():
        error = at_once(call)
        assert isinstance(error, ValueError), name
        assert "2^31 - 1 elements" in str(error), name


def test_plans_bound_positions_too():
    conv = torch.nn.Conv2d(3, 4, 1)
    module = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                                 torch.nn.Flatten(), torch.nn.Linear(4, 2))  # fmt: skip
    import fskernel as fs

    net = fs.convert(module.eval(), torch.rand(2, 3, 4, 4), K=8)
    for shape in [(1 << 40, 3, 0, 4), (1, 3, 1 << 40, 0), (1 << 30, 3, 0, 0)]:
        assert_refused(lambda shape=shape: net(torch.empty(shape)), "have no pixel")
        assert_refused(lambda shape=shape: o.time_plan(torch.empty(shape), net.plan().id, 0))
    for shape in [(1 << 40, 3, 4, 4), (1, 3, 1 << 20, 1 << 12), (1 << 30, 3, 1, 1)]:
        x = torch.empty(1, 3, 1, 1).expand(shape)  # no memory behind it
        assert_refused(lambda x=x: net(x))
        assert_refused(lambda x=x: o.time_plan(x, net.plan().id, 0))
    assert at_once(lambda: net(torch.empty(0, 3, 4, 4))).shape == (0, 2)


def test_outputs_are_bounded_before_they_are_made():
    x, empty = codes(1, 1, 1, 1), codes(1, 1, 1, 0)
    for pool in (o.max_pool, o.sum_pool):
        assert_refused(lambda pool=pool: pool(x, WIDE), r"the output would have .*33554433.*2\^31")
        assert_refused(lambda pool=pool: pool(empty, WIDE), "the output would have .*, 0]")
    assert_refused(lambda: conv(x, WIDE), "would have, with its padding")
    many = codes(1 << 16, 0, 0, 1)  # not one element, but logits
    assert_refused(lambda: readout(many, 1 << 15, True), "the output would have")


def test_nothing_to_write_takes_no_time():
    """The most positions there may be, of which none has an element."""
    most = (1 << 31) - 1
    for shape in [(most, 0, 0, 0), (1, most, 1, 0), (1, 1, most, 0)]:
        x = codes(*shape)
        if shape[1]:  # else no window fits
            assert at_once(lambda x=x: o.max_pool(x, ONE)).shape == shape
            assert at_once(lambda x=x: o.sum_pool(x, ONE)).shape == shape
        assert at_once(lambda x=x: o.encode(x.float(), 1.0, 127)).numel() == 0
        assert at_once(lambda x=x: o.encode_words(x.float(), 1.0, 0.5, 8)).numel() == 0
        if shape[1] == 0:  # else there are too many pixels to sum
            assert at_once(lambda x=x: readout(x, 0, True, 0)).shape == (shape[0], 0)
        assert at_once(lambda x=x: readout(x, 0, False, 0)).shape == (shape[0], 0)
    x, fans = codes(1 << 10, 1 << 20, 0, 1), torch.ones(1 << 20, dtype=torch.int64)
    assert not at_once(lambda: o.synaptic_events(x, fans, fans[:0])).any()


@pytest.mark.parametrize("shape", [(3, 0, 0, 0), (3, 5, 0, 0), (3, (1 << 29), 1, 0), (2, 1, 0, 9),
                                   (3, 0, 7, 40)])  # fmt: skip
def test_logits_of_nothing_are_the_bias(shape):
    x = codes(*shape)
    for pool in (True, False):
        if pool and shape[1] * shape[2] > 65536:  # the oracle's and the kernels' bound
            continue
        for isa in ops.supported_isas():
            ops.set_isa(isa)
            try:
                y = at_once(lambda pool=pool: readout(x, 5, pool))
            finally:
                ops.set_isa(None)
            assert torch.equal(y, (torch.arange(5) + 0.5).expand(shape[0], 5)), (isa, pool)


def test_events_are_defined_for_every_fan():
    """Modulo 2^64, like torch's own products and sums."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 32768, (2, 3, 4, 5), generator=generator).to(torch.int16)
    top = (1 << 63) - 1
    for fan_y, fan_x in [([top] * 3, [top] * 4), ([top, -top, 7], [-1 - top, 3, top, 1]),
                         ([1 << 62, 5, 0], [4, -3, 1, 2])]:  # fmt: skip
        fans = torch.tensor(fan_y), torch.tensor(fan_x)
        got = ops.synaptic_events(words, *fans)
        assert torch.equal(got, reference.collapsed.synaptic_events(words, *fans))


def reference_arguments(**changes):
    x = np.ones((2, 4, 5, 6), np.int32)
    given = {
        "x": x,
        "weight": np.ones((9, 6, 3, 2), np.int32),
        "m": np.ones(9, np.float32),
        "geometry": Geometry((3, 2), (2, 1), (1, 0, 1, 1)).as_ints(),
        "bias": np.zeros(9, np.float32),
        "residual": None,
        "K": 8,
        "limit": 127,
    }
    given |= changes
    group = tuple(given[name] for name in ("x", "weight", "m", "geometry"))
    return [group] * given.get("groups", 1), *(given[n] for n in ("bias", "residual")), 0.5, \
        given["K"], given["limit"]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.ones((9, 6, 3, 1), np.int32)}, "weight has shape .*: expected .9, 6, 3, 2."),
        ({"weight": np.ones((8, 6, 3, 2), np.int32)}, "weight has shape"),
        ({"weight": np.ones(0, np.int32)}, "weight has shape"),
        ({"m": np.ones(8, np.float32)}, "m has shape"),
        ({"m": np.ones((), np.float32)}, "m has shape"),
        ({"bias": np.ones((), np.float32)}, "bias has shape"),
        ({"bias": np.ones(10, np.float32)}, "weight has shape"),
        ({"x": np.ones((2, 4, 5), np.int32)}, "x has shape"),
        ({"x": np.ones((2, 1, 5, 6), np.int32)}, "too small for a kernel"),
        ({"x": np.full((2, 4, 5, 6), 1 << 30, np.int32)}, "x holds 1073741824: expected 16-bit"),
        ({"weight": np.full((9, 6, 3, 2), -(1 << 31), np.int32)}, "weight holds -2147483648"),
        ({"geometry": [3, 2, 2, 1]}, "geometry has 4 numbers"),
        ({"geometry": Geometry((3, 2), groups=4).as_ints()}, "geometry has 4 groups"),
        ({"geometry": [3, 2, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0]}, "stride height is 0"),
        ({"residual": np.ones((2, 2, 6, 8), np.int32)}, "residual has shape"),
        ({"K": 16}, "K is 16"),
        ({"K": -1}, "K is -1"),
        ({"limit": 0}, "limit is 0"),
        ({"groups": 0}, "groups is empty"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_scalar_reference_refuses_what_does_not_fit(changes, message):
    _C.reference_conv(*reference_arguments())
    with pytest.raises(ValueError, match=message):
        _C.reference_conv(*reference_arguments(**changes))


def test_the_scalar_reference_refuses_groups_of_different_outputs():
    (group,), *rest = reference_arguments()
    other = (group[0][:1], *group[1:])
    with pytest.raises(ValueError, match=r"different shapes, \[2, 2, 6, 9\] and \[1, 2, 6, 9\]"):
        _C.reference_conv([group, other], *rest)


def derivatives(f, x):
    """Every way to ask for a derivative of f at x."""
    one = torch.ones_like(x)
    forward = torch.autograd.forward_ad

    def dual():
        with forward.dual_level():
            return f(forward.make_dual(x, one))

    def dual_without_grad():
        with torch.no_grad():
            return torch.func.jvp(f, (x,), (one,))

    return {
        "jvp": lambda: torch.func.jvp(f, (x,), (one,)),
        "jvp without grad": dual_without_grad,
        "dual": dual,
        "jacfwd": lambda: torch.func.jacfwd(f)(x),
        "grad": lambda: torch.func.grad(lambda x: f(x).sum())(x),
        "backward": lambda: f(x.clone().requires_grad_()),
    }


def differentiable():
    torch.manual_seed(0)
    x, group = torch.rand(2, 3, 4, 5), Synapses(torch.ones(2, 3, 1, 1, dtype=torch.int8),
                                                torch.ones(2), Geometry((1, 1)),
                                                x_min=0, x_max=255)  # fmt: skip
    words = torch.ones(1, 1, 1, 3, dtype=torch.uint8)
    weight = torch.ones(2, 3, dtype=torch.int8)
    layer = FSConv2d(3, 4, 1, alpha=1.0).requires_grad_(False)
    return {
        "layer": (layer, x),
        "encode": (lambda x: ops.encode(x, 100.0).float(), x),
        "encode_words": (lambda x: ops.encode_words(x, 100.0, 0.5, 8).float(), x),
        "m": (lambda m: ops.readout(words, weight, m, torch.ones(2), pool=True), torch.ones(2)),
        "bias": (lambda b: ops.conv([(words, group)], b, K=8)[0].float(), torch.ones(2)),
    }


@pytest.mark.parametrize("name", differentiable())
def test_a_derivative_is_refused_and_not_zero(name):
    f, x = differentiable()[name]
    f(x)
    for way, call in derivatives(f, x).items():
        with pytest.raises(RuntimeError, match="spikes have no gradient"):
            call()
            pytest.fail(way)
    with torch.no_grad():
        f(x.clone().requires_grad_())
