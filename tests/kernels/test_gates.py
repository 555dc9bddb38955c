"""Risk: a gate's kernel gives other bits than the oracles, or touches memory not its own."""

import pytest
import torch
from cuda_backends import backends
from gated.cases import FORMS, Case, cases, shape_of_b
from hypothesis import given, settings
from hypothesis import strategies as st

from fskernel import reference
from fskernel.kernels import ops

oracle = reference.collapsed


@pytest.fixture(autouse=True)
def default_isa_afterwards():
    yield
    ops.set_isa(None)


def same(found, expected):
    (y, counts), (wanted, spikes) = found, expected
    return y.dtype == wanted.dtype and torch.equal(y, wanted) and torch.equal(counts, spikes)


@given(cases())
def test_every_instruction_set_equals_the_oracle(case):
    wanted = case.run(oracle.gate)
    for name in ops.supported_isas():
        ops.set_isa(name)
        assert same(case.run(ops.gate), wanted), name
        assert ops.last_kernel() == f"{name}/gate"
        y, none = case.run(ops.gate, count=False)
        assert torch.equal(y, wanted[0]) and none.shape == (0,), name


@pytest.mark.parametrize("get", backends())
@settings(max_examples=40)
@given(
    case=cases(st.one_of(st.integers(1, 40), st.sampled_from([4, 16, 64]))),
    order=st.sampled_from(["forward", "reverse", "random", "greedy"]),
)
def test_the_cuda_kernel_equals_the_oracle(get, case, order):
    assert same(case.run(get(order).gate), case.run(oracle.gate))


def plain(K=4, form="the same", shape=(2, 5, 3, 37), dtype=torch.uint8):
    dice = torch.Generator().manual_seed(1)
    a, b = (
        torch.randint(0, 16, size, generator=dice).to(dtype)
        for size in (shape, shape_of_b(form, shape))
    )
    return Case(a, b, (0, 8), torch.full(shape[3:], 0.1), torch.full(shape[3:], 8.5), K, 100)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_strides_do_not_matter(form, threads):
    case = plain(form=form)
    wanted = case.run(oracle.gate)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert same(case.run(ops.gate), wanted)
        turned = case._replace(
            a=case.a.transpose(1, 2).contiguous().transpose(1, 2),
            b=case.b.expand(case.b.shape).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        )
        assert same(turned.run(ops.gate), wanted)
        one = case._replace(a=case.a[:1], b=case.b[:1])  # one image: its rows side by side
        assert same(one.run(ops.gate), one.run(oracle.gate))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(0, 5, 3, 7), (2, 0, 3, 7), (2, 5, 0, 7), (2, 5, 3, 0)])
def test_of_nothing_there_is_nothing(shape):
    y, counts = plain(shape=shape).run(ops.gate)
    assert y.shape == shape and counts.tolist() == [0] * shape[0]


def test_a_gate_of_a_map_by_itself_is_its_square():
    x = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 1, 16)
    y, _ = ops.gate(x, x, (0, 0), torch.ones(16), torch.zeros(16), K=8)
    assert y.flatten().tolist() == [i * i for i in range(16)]


REFUSED = {
    "one row for a map": ({"b": torch.zeros(2, 1, 3, 37, dtype=torch.uint8)}, "its pixels or one"),
    "two channels for all": ({"b": torch.zeros(2, 5, 3, 2, dtype=torch.uint8)}, "channels or one"),
    "other images": ({"b": torch.zeros(1, 5, 3, 37, dtype=torch.uint8)}, "b has shape"),
    "a larger map": ({"a": torch.zeros(2, 1, 1, 37, dtype=torch.uint8)}, "b has shape"),
    "floats": ({"a": torch.zeros(2, 5, 3, 37)}, "a is float32: expected uint8 or int16"),
    "three dimensions": ({"b": torch.zeros(5, 3, 37, dtype=torch.uint8)}, "b has shape"),
    "a zero that is no byte": ({"zeros": (256, 0)}, "zero_a is 256: expected 0 to 255"),
    "a negative zero": ({"zeros": (0, -1)}, "zero_b is -1"),
    "m for fewer": ({"m": torch.ones(36)}, "m has 36 elements"),
    "m in float64": ({"m": torch.ones(37, dtype=torch.float64)}, "m is float64"),
    "m of no number": ({"m": torch.full((37,), torch.nan)}, "m of channel 0 is nan"),
    "an infinite bias": ({"bias": torch.full((37,), -torch.inf)}, "bias of channel 0 is -inf"),
    "16 steps": ({"K": 16}, "K is 16"),
    "no limit": ({"K": 0, "limit": 0}, "limit is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_named(name):
    change, message = REFUSED[name]
    given = plain()._asdict() | change
    with pytest.raises(ValueError, match=message):
        ops.gate(**given)


def test_gradients_are_refused():
    case = plain()
    with pytest.raises(RuntimeError, match="m requires grad"):
        case._replace(m=case.m.clone().requires_grad_()).run(ops.gate)


@pytest.mark.parametrize("K", [0, 8, 9])
def test_the_fake_says_what_the_kernel_gives(K):
    case = plain(K)
    given = (case.a, case.b, *case.zeros, case.m, case.bias, K, 100, True)
    torch.library.opcheck(torch.ops.fskernel.gate.default, given)
