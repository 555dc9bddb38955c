"""Risk: the three oracles of a gate agree on something that is not the product of two maps."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from gated.cases import cases
from hypothesis import given
from oracle_cases import nearest_float32

from fskernel import _C
from fskernel.reference import collapsed, literal

BOTH = pytest.mark.parametrize("oracle", [literal, collapsed], ids=["a", "b"])


@given(cases())
def test_the_oracles_agree(case):
    y, counts = case.run(literal.gate)
    for other, spikes in (case.run(collapsed.gate), case.scalar(_C.reference_gate)):
        assert torch.equal(other, y) and other.dtype == y.dtype
        assert torch.equal(spikes, counts)
    assert y.is_contiguous() and y.shape == case.a.shape
    assert case.K or not counts.any()
    assert not len(case.run(literal.gate, count=False)[1])


@BOTH
@given(case=cases())
def test_an_output_is_the_rounded_product_of_two_values(oracle, case):
    """By definition, in fractions: one rounding of the sum to float32, one of the fma."""
    y, _ = case.run(oracle.gate)
    b = case.b.broadcast_to(case.a.shape)
    pick = torch.randint(0, y.numel(), (5,), generator=torch.Generator().manual_seed(0))
    for i in pick.tolist():
        place = np.unravel_index(i, y.shape)
        product = (int(case.a[place]) - case.zeros[0]) * (int(b[place]) - case.zeros[1])
        c = int(place[3])
        acc = Fraction(float(nearest_float32(Fraction(product))))
        v = acc * Fraction(float(case.m[c])) + Fraction(float(case.bias[c]))
        v = float(np.clip(float(v), -1e30, 1e30)) if abs(v) > 1e30 else float(nearest_float32(v))
        if case.K:
            expected = int(np.floor(np.clip(v, 0, 2**case.K - 1)))
        else:
            expected = int(np.clip(np.rint(v), -case.limit, case.limit))
        assert int(y[place]) == expected


def codes(*numbers, dtype=torch.int16):
    return torch.tensor(numbers, dtype=dtype).reshape(1, 1, 1, -1)


@BOTH
def test_the_largest_products_are_exact(oracle):
    """(2^15 - 1)^2 needs 30 bits, 24 of which a float holds: rounded to even, once."""
    a, b = codes(32767, -32767, 32767), codes(32767, 32767, -1)
    m, zero = torch.full((3,), 2.0**-15), torch.zeros(3)
    y, _ = oracle.gate(a, b, (0, 0), m, zero, K=0)
    assert y.flatten().tolist() == [32766, -32766, -1]  # 32766.00003, 0.99997 from 32767
    words = codes(0, 32767, 32767)
    y, spikes = oracle.gate(words, words, (32767, 0), m, zero, K=15)
    assert y.flatten().tolist() == [0, 0, 0] and spikes.tolist() == [0]
    y, spikes = oracle.gate(words, codes(0, 0, 9), (32767, 32767), m, zero, K=15)
    assert y.flatten().tolist() == [32766, 0, 0] and spikes.tolist() == [14]


REFUSED = {
    "b of other pixels": ({"b": torch.zeros(2, 3, 1, 4, dtype=torch.uint8)}, "b is|b has shape"),
    "b of other channels": ({"b": torch.zeros(2, 3, 2, 3, dtype=torch.uint8)}, "b is|b has shape"),
    "b of one row": ({"b": torch.zeros(2, 1, 2, 4, dtype=torch.uint8)}, "b is|b has shape"),
    "b of other images": ({"b": torch.zeros(1, 3, 2, 4, dtype=torch.uint8)}, "b is|b has shape"),
    "b of floats": ({"b": torch.zeros(2, 3, 2, 4)}, "b is torch.float32"),
    "m of no number": ({"m": torch.full((4,), torch.nan)}, "m is|m and bias"),
    "m beyond float32": ({"m": torch.full((4,), torch.inf)}, "m is|m and bias"),
    "a bias of no number": ({"bias": torch.full((4,), torch.nan)}, "bias is|m and bias"),
    "m for others": ({"m": torch.ones(3)}, "m is|m has shape"),
    "too many steps": ({"K": 16}, "K"),
    "fewer than no steps": ({"K": -1}, "K"),
}


@BOTH
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(oracle, name):
    given = {
        "a": torch.zeros(2, 3, 2, 4, dtype=torch.uint8),
        "b": torch.zeros(2, 3, 2, 4, dtype=torch.uint8),
        "zeros": (0, 0),
        "m": torch.ones(4),
        "bias": torch.zeros(4),
        "K": 3,
    }
    change, message = REFUSED[name]
    given |= change
    with pytest.raises((ValueError, TypeError), match=message):
        oracle.gate(**given)
    if given["b"].dtype == torch.uint8:
        a, b = (x.to(torch.int32).numpy() for x in (given["a"], given["b"]))
        with pytest.raises(ValueError, match=message):
            _C.reference_gate(a, b, 0, 0, given["m"].numpy(), given["bias"].numpy(), given["K"], 1)


@BOTH
def test_a_product_beyond_32_bits_is_refused(oracle):
    a = codes(-32767)
    with pytest.raises(ValueError, match="outside int32"):
        oracle.gate(a, a, (32767, 32767), torch.ones(1), torch.zeros(1), K=0)
