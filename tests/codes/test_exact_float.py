"""The emulated float32 fma against C's fmaf and against exact fractions."""

import ctypes
import ctypes.util
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fskernel.codes.exact_float import fma, to_float32

LIBM = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
LIBM.fmaf.restype = ctypes.c_float
LIBM.fmaf.argtypes = [ctypes.c_float] * 3

any_float = st.integers(0, 2**32 - 1).map(lambda bits: float(np.uint32(bits).view(np.float32)))


def c_fma(a, b, c):
    """C's fmaf on float32 arrays."""
    out = [LIBM.fmaf(*abc) for abc in zip(a.tolist(), b.tolist(), c.tolist())]
    return np.array(out, dtype=np.float64).astype(np.float32)


def assert_same_bits(got, want):
    got, want = np.asarray(got), np.asarray(want)
    both_nan = np.isnan(got) & np.isnan(want)
    wrong = (got.view(np.uint32) != want.view(np.uint32)) & ~both_nan
    assert not wrong.any(), (wrong.sum(), got[wrong][:5], want[wrong][:5])


def check(a, b, c):
    a, b, c = (np.asarray(x, dtype=np.float32) for x in (a, b, c))
    got = fma(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(c)).numpy()
    assert_same_bits(got, c_fma(a, b, c))
    return got


def around(x, ulps=3):
    """Float32 x and its neighbours, in the order of the numbers."""
    out = [np.float32(x)]
    for _ in range(ulps):
        out.insert(0, np.nextafter(out[0], np.float32(-np.inf)))
        out.append(np.nextafter(out[-1], np.float32(np.inf)))
    return out


@given(st.lists(st.tuples(any_float, any_float, any_float), min_size=1, max_size=50))
def test_fma_is_fmaf_on_any_bit_pattern(abc):
    check(*zip(*abc))


def test_fma_is_fmaf_on_special_values():
    values = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1.1754944e-38]
    values += [3.4028235e38, -3.4028235e38, 1.5, 2.0**-100, 2.0**64, 1 - 2.0**-24, 1 + 2.0**-23]
    check(*zip(*itertools.product(values, repeat=3)))


def test_fma_cancels_to_the_right_zero():
    zero = check([2.0, -0.0, 0.0, -2.0], [3.0, 1.0, -1.0, 3.0], [-6.0, -0.0, 0.0, 6.0])
    assert np.signbit(zero).tolist() == [False, True, False, False]


def test_fma_where_a_float64_sum_rounds_twice():
    """Products on a midpoint of float32 and an addend too small for float64 to see.

    24929*673 = 2^24 + 1 lies halfway between two float32, so the sign of the smallest addend
    decides; a float64 sum forgets it.
    """
    tiny = np.array([2.0**-e for e in range(29, 140)], dtype=np.float32)
    tiny = np.concatenate([tiny, -tiny])
    scale = np.float32(2.0) ** np.arange(-40, 40, 7, dtype=np.float32)
    sign, scale, tiny = np.meshgrid(np.float32([1, -1]), scale, tiny)
    a, b, c = (24929 * sign).ravel(), (673 * scale).ravel(), (tiny * scale).ravel()
    got = check(a, b, c)
    naive = (a.astype(np.float64) * b + c.astype(np.float64)).astype(np.float32)
    assert (got != naive).sum() > 100, "these cases are too easy to prove anything"


def test_fma_around_ties_and_midpoints():
    rng = np.random.default_rng(1)
    odd = (rng.integers(2**11, 2**12, (2, 400)) | 1).astype(np.float32)
    a, b = odd * np.float32(2.0) ** rng.integers(-30, 30, (2, 400)).astype(np.float32)
    product = a.astype(np.float64) * b
    for shift in (-60, -30, -25, -24, -23, 0, 1, 23, 24, 25, 30):
        # An addend of about product*2^shift, on the grid of float32, and 3 ulps to each side.
        near = (np.sign(rng.normal(size=400)) * product * 2.0**shift).astype(np.float32)
        for c in zip(*(around(x) for x in near)):
            check(a, b, c)


def test_fma_among_denormals_and_at_the_overflow():
    rng = np.random.default_rng(2)
    for exponent in (-149, -140, -127, -126, 126, 127):
        mantissa = rng.uniform(1, 2, (3, 500)).astype(np.float32)
        split = rng.integers(-20, 20, 500)
        a = np.ldexp(mantissa[0], split)
        with np.errstate(all="ignore"):
            b = np.ldexp(mantissa[1], exponent - split).astype(np.float32)
            c = np.ldexp(mantissa[2] * rng.choice([-1, 1], 500), exponent - rng.integers(0, 26))
        check(a, b, c)


def test_fma_broadcasts_and_refuses_other_types():
    v = fma(torch.ones(2, 3, 4), torch.full((4,), 2.0), torch.tensor(0.5))
    assert v.shape == (2, 3, 4) and v.dtype == torch.float32 and bool((v == 2.5).all())
    assert fma(torch.ones(0, 4), torch.ones(4), torch.ones(4)).shape == (0, 4)
    with pytest.raises(TypeError, match="c is torch.float64"):
        fma(torch.ones(1), torch.ones(1), torch.ones(1, dtype=torch.float64))


int64_values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    # Around midpoints of float32, where a detour over float64 would round twice.
    st.builds(
        lambda m, e, d: max(-(2**63), min(2**63 - 1, m * 2**e + d)),
        st.integers(-(2**25), 2**25),
        st.integers(0, 38),
        st.integers(-3, 3),
    ),
)


@given(st.lists(int64_values, min_size=1, max_size=50))
def test_integers_become_float32_with_one_rounding(values):
    got = to_float32(torch.tensor(values, dtype=torch.int64)).numpy()
    for x, y in zip(values, got):
        error = abs(Fraction(float(y)) - x)
        for other in (np.nextafter(y, np.float32(-np.inf)), np.nextafter(y, np.float32(np.inf))):
            distance = abs(Fraction(float(other)) - x)
            even = int(y.view(np.uint32)) % 2 == 0
            assert error < distance or (error == distance and even), (x, y)


def test_integers_on_both_sides_of_a_midpoint():
    tie = 2**60 + 2**36  # halfway between two float32; float64 cannot tell the neighbours apart
    got = to_float32(torch.tensor([tie - 1, tie, tie + 1, -tie - 1, 2**63 - 1, -(2**63), 0]))
    low, high = 2.0**60, 2.0**60 + 2.0**37
    assert got.tolist() == [low, low, high, -high, 2.0**63, -(2.0**63), 0.0]
    assert np.float32(np.float64(tie + 1)) == low, "this case is too easy to prove anything"


def test_to_float32_refuses_floats():
    with pytest.raises(TypeError, match="torch.float64"):
        to_float32(torch.zeros(1, dtype=torch.float64))
