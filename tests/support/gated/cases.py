"""Products of two maps for hypothesis to draw: ragged, with codes of zero at both ends, extreme."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from oracle_cases import Kind, kinds

CHANNELS = st.integers(1, 150)
FORMS = ("the same", "one pixel", "one channel", "one number")  # of b


class Case(NamedTuple):
    """Arguments of `gate`."""

    a: torch.Tensor
    b: torch.Tensor
    zeros: tuple[int, int]
    m: torch.Tensor
    bias: torch.Tensor
    K: int
    limit: int

    def run(self, gate, **options):
        """What a backend's `gate` makes of them."""
        return gate(*self[:5], K=self.K, limit=self.limit, **options)

    def scalar(self, reference_gate):
        """What oracle (c) makes of them: y and counts."""
        a, b = (x.to(torch.int32).numpy() for x in (self.a, self.b))
        given = (*self.zeros, self.m.numpy(), self.bias.numpy(), self.K, self.limit)
        y, counts = reference_gate(a, b, *given)
        dtype = torch.uint8 if 1 <= self.K <= 8 else torch.int16
        return torch.from_numpy(y).to(dtype), torch.from_numpy(counts)


def shape_of_b(form: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of b, for that of a."""
    n, h, w, c = shape
    if form in ("one pixel", "one number"):
        h = w = 1
    return n, h, w, 1 if form in ("one channel", "one number") else c


def most(kind: Kind, zero: int) -> int:
    """The largest magnitude of what a code stands for."""
    low, high = kind.range
    return max(high - zero, zero - low)


@st.composite
def zeros_of(draw, kind: Kind) -> int:
    """A code of zero: of words any, of graded values 0."""
    low, high = kind.range
    return (
        draw(st.sampled_from([0, high, 2 ** (kind.K - 1), draw(st.integers(low, high))]))
        if kind.K
        else 0
    )


@st.composite
def cases(draw, channels=CHANNELS) -> Case:
    """A gate whose membranes lie below, within and above what its neurons tell apart."""
    shape = (
        *draw(st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 5))),
        draw(channels),
    )
    of_a, of_b = draw(kinds), draw(kinds)
    zeros = (draw(zeros_of(of_a)), draw(zeros_of(of_b)))
    K, limit = draw(st.integers(0, 15)), draw(st.sampled_from([1, 127, 32767]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    a = of_a.codes(shape, generator)
    b = of_b.codes(shape_of_b(draw(st.sampled_from(FORMS)), shape), generator)
    reach = (2**K if K else limit) / max(most(of_a, zeros[0]) * most(of_b, zeros[1]), 1)
    m = torch.randn(shape[3], generator=generator) * 2 * reach
    bias = torch.rand(shape[3], generator=generator) * 2**K
    pick = torch.rand(shape[3], generator=generator)
    for share, extreme in ((0.1, 0.0), (0.15, 3e38), (0.2, -3e38), (0.25, 1e-44), (0.3, 0.5)):
        m = torch.where((pick < share) & (pick >= share - 0.05), extreme, m)
    bias = torch.where(pick > 0.95, -3e38, torch.where(pick > 0.9, 0.5, bias))
    return Case(a, b, zeros, m, bias, K, limit)
