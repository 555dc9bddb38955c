"""IEEE float32 operations computed exactly with float64 tensors: fused multiply-add, int64 cast.

A float64 addition followed by a cast to float32 rounds twice, and where the first rounding lands on
a midpoint of float32 the second goes astray. So the float64 sum is rounded to odd instead: what the
first rounding dropped stays visible in the last bit, and the cast to float32, with 29 bits fewer,
then rounds as if it had seen the exact sum.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _sum_to_odd(a: Tensor, b: Tensor) -> Tensor:
    """float64 `a + b`, rounded to odd: an inexact sum becomes the neighbour whose last bit is 1."""
    s = a + b
    # Knuth's TwoSum: s + error is the exact sum, whichever of the two is larger.
    b_seen = s - a
    error = (a - (s - b_seen)) + (b - b_seen)
    bits = s.view(torch.int64)
    # An inexact even sum has the exact value on the side of `error`; its neighbour there is odd.
    # In the sign-magnitude order of the bits, +1 is away from zero and -1 towards it.
    adjust = torch.isfinite(s) & (error != 0) & ((bits & 1) == 0)
    towards = torch.where((error > 0) == (s > 0), 1, -1)
    return torch.where(adjust, bits + towards, bits).view(torch.float64)


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`a*b + c` with one rounding, bit for bit what C's fmaf gives (NaN payloads aside).

    Args:
        a: float32; signed zeros, denormals, infinities and NaN behave as in IEEE 754.
        b: float32.
        c: float32; the three broadcast against each other.

    Raises:
        TypeError: if one of them is not float32.
    """
    for name, value in (("a", a), ("b", b), ("c", c)):
        if value.dtype != torch.float32:
            raise TypeError(f"{name} is {value.dtype}: fma works on float32, convert it first")
    # The product of two float32 has 48 bits and an exponent within float64: it is exact.
    product = a.to(torch.float64) * b.to(torch.float64)
    product, addend = torch.broadcast_tensors(product, c.to(torch.float64))
    return _sum_to_odd(product, addend).to(torch.float32)


def to_float32(x: Tensor) -> Tensor:
    """Integers as float32 with one rounding, ties to even, on the whole range of int64.

    Args:
        x: any integer tensor of at most 64 bits.

    Raises:
        TypeError: if x is not an integer tensor.
    """
    if x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool:
        raise TypeError(f"x is {x.dtype}: to_float32 works on integers")
    x = x.to(torch.int64)
    high = (x >> 32).to(torch.float64) * 2.0**32  # both halves are exact in float64
    low = (x & 0xFFFFFFFF).to(torch.float64)
    return _sum_to_odd(high, low).to(torch.float32)
