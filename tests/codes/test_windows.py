"""Risk: windows that are not alike are cut, summed, divided or rounded otherwise than torch's."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fskernel as fs
from fskernel import reference
from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry, fan_out
from fskernel.codes.windows import Windows
from fskernel.kernels import ops
from fskernel.kernels.backend import Backend

BACKENDS = [ops, reference.literal, reference.collapsed]


@st.composite
def windows(draw):
    if draw(st.booleans()):
        one = st.one_of(st.none(), st.integers(1, 9))
        return Windows("adaptive", (draw(one), draw(one)))
    kernel = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    # Torch wants both sides alike, and no more than half a window.
    pad = [draw(st.integers(0, k // 2)) for k in kernel]
    geometry = Geometry(kernel, stride, (pad[0], pad[0], pad[1], pad[1]))
    return Windows("clipped", (None, None), geometry, draw(st.booleans()), draw(st.booleans()))


def torchs(w: Windows, x: torch.Tensor) -> torch.Tensor:
    """What torch's own pools give."""
    if w.kind == "adaptive":
        return F.adaptive_avg_pool2d(x, w.output)
    g = w.geometry
    pad = g.padding[0], g.padding[2]
    return F.avg_pool2d(x, g.kernel, g.stride, pad, w.ceil_mode, w.include_pad)


def maps(seed, size, low, high, n=2, c=5):
    make = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, (n, *size, c), generator=make)


def fits(w, size):
    try:
        return w.output_size(*size)
    except ValueError:
        return None


@settings(max_examples=300)
@given(w=windows(), size=st.tuples(st.integers(1, 12), st.integers(1, 12)), seed=st.integers(0, 9))
def test_the_float_means_are_torchs(w, size, seed):
    x = maps(seed, size, -999, 999).permute(0, 3, 1, 2).double()
    try:
        expected = torchs(w, x)
    except RuntimeError:  # a window that does not fit
        assert fits(w, size) is None
        return
    assert fits(w, size) == tuple(expected.shape[2:])
    assert torch.allclose(w.means(x), expected, rtol=1e-14, atol=1e-14)


@settings(max_examples=200)
@given(w=windows(), size=st.tuples(st.integers(1, 12), st.integers(1, 12)), seed=st.integers(0, 9))
def test_a_product_of_spans_is_torchs_sum_and_divisor(w, size, seed):
    """Powers of two tell which pixels are summed, and by what they are divided."""
    assume(fits(w, size))
    rows, cols = w.spans(size[0], 0), w.spans(size[1], 1)
    x = maps(seed, size, 0, 999, 1, 1)[..., 0].double()
    expected = torchs(w, x[None])[0, 0]
    for i in range(expected.shape[0]):
        for j in range(expected.shape[1]):
            window = x[0, rows.start[i] : rows.stop[i], cols.start[j] : cols.stop[j]]
            divisor = float(rows.divisor[i] * cols.divisor[j])
            assert math.isclose(float(window.sum()) / divisor, float(expected[i, j]), rel_tol=1e-14)
            assert window.numel() <= w.largest(*size)
    if w.kind == "adaptive":
        longest = [int((s.stop - s.start).max()) for s in (rows, cols)]
        assert w.largest(*size) == math.prod(longest)
    fans = fan_out([w], *size)
    for fan, spans in zip(fans, (rows, cols), strict=True):
        reached = [
            sum(int(a) <= i < int(b) for a, b in zip(spans.start, spans.stop, strict=True))
            for i in range(len(fan))
        ]
        assert fan.tolist() == reached


CODES = [
    Code.words(1, 1.0),
    Code.words(6, 1.7),
    Code.words(15, 3.3),
    Code.signed_words(5, 1.1),
    Code.signed_words(15, 0.3),
    Code.graded(2.3, 8191),
    Code.graded(2.3, 32767),
    Code.signed_words(4, 1.0).pooled(6),
]


def of_means(reads: Code, limit: int) -> Code:
    largest = max(reads.x_max - reads.zero, reads.zero - reads.x_min) * reads.step
    return Code.graded(largest, limit)


def values(reads: Code, x: torch.Tensor) -> torch.Tensor:
    wide = reads.kind == "graded" or reads.K > 8
    return x.to(torch.int16 if wide else torch.uint8)


@settings(max_examples=200)
@given(
    w=windows(),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    reads=st.sampled_from(CODES),
    limit=st.sampled_from([1, 127, 8191, 32767]),
    seed=st.integers(0, 9),
    extreme=st.booleans(),
)
def test_rounded_means_are_exact_on_all_backends(w, size, reads, limit, seed, extreme):
    assume(fits(w, size))
    x = maps(seed, size, reads.x_min, reads.x_max)
    if extreme:
        x = torch.where(x > reads.zero, reads.x_max, reads.x_min)
    x, gives = values(reads, x), of_means(reads, limit)
    found = [backend.mean_pool(x, w, reads, gives) for backend in BACKENDS]
    assert all(torch.equal(y, found[0]) and y.is_contiguous() for y in found)
    real = (x.double() - reads.zero).permute(0, 3, 1, 2) * reads.step
    error = (found[0].double() * gives.step).permute(0, 3, 1, 2) - torchs(w, real)
    assert float(error.abs().max()) <= gives.step * (0.5 + 1e-3)
    assert int(found[0].abs().max()) <= limit


def test_all_of_a_backend_is_asked_for():
    assert all(isinstance(backend, Backend) for backend in BACKENDS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_go_to_even_and_the_range_is_reached(backend):
    halves, reads = Windows("adaptive", (1, 1)), Code.graded(1.0, 100)
    gives = Code("graded", reads.step, -100, 100)
    x = torch.tensor([[1, 2], [3, 2], [-1, -2], [5, 4], [100, 100], [-100, -100]])
    y = backend.mean_pool(values(reads, x[:, None, :, None]), halves, reads, gives)
    assert y.flatten().tolist() == [2, 2, -2, 4, 100, -100]
    narrow = Code("graded", reads.step / 3, -100, 100)
    y = backend.mean_pool(values(reads, x[:, None, :, None]), halves, reads, narrow)
    assert y.flatten().tolist() == [4, 8, -4, 14, 100, -100]


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_beyond_float32_are_rounded_once(backend):
    """2^24 + 1 and its neighbours are no float32."""
    reads, one = Code.graded(1.0, 32767), Windows("adaptive", (1, 1))
    for more in (-1, 1, 3):
        x = torch.full((1, 1, 513, 1), 32767, dtype=torch.int16)
        x[0, 0, 0, 0] = 2**24 + more - 512 * 32767
        gives = Code.graded(1.0 / 600, 8000)
        m = torch.tensor(reads.step / (gives.step * 513), dtype=torch.float32)
        total = torch.tensor(2**24 + more, dtype=torch.float64).to(torch.float32)
        expected = int((total * m).round().clamp(-8000, 8000))
        assert backend.mean_pool(x, one, reads, gives).item() == expected


def test_sums_that_may_not_fit_are_refused_before_any_work():
    reads, whole = Code.words(8, 1.0), Windows("adaptive", (1, 1))
    most = (2**31 - 1) // 255
    whole.check_sums(1, most, reads)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(1, 1, most + 1, 1)
    for backend in BACKENDS:
        with pytest.raises(ValueError, match=f"at most {most} codes up to 255 fit 32 bits"):
            backend.mean_pool(x, whole, reads, of_means(reads, 8191))
    Windows("adaptive", (2, 2)).check_sums(1, most + 1, reads)
    whole.check_sums(2, 32769, Code.graded(1.0, 32767))
    with pytest.raises(ValueError, match="windows of 65540 pixels"):
        whole.check_sums(2, 32770, Code.graded(1.0, 32767))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Windows("global"), "w.kind is 'global'"),
        (Windows("adaptive", (0, 1)), "w.output is .0, 1."),
        (Windows("adaptive", (True, 1)), "w.output is"),
        (Windows("adaptive", (1, 1, 1)), "w.output is"),
        (Windows("clipped", geometry=Geometry((2, 0))), "w.geometry.kernel is"),
        (Windows("clipped", geometry=Geometry((2, 2), dilation=(2, 1))), "no dilation"),
        (Windows("clipped", geometry=Geometry((2, 2), groups=2)), "no groups"),
        (Windows("clipped", geometry=Geometry((2, 3), padding=(2, 0, 0, 0))), "beside the map"),
        (Windows("clipped", geometry=Geometry((2, 3), padding=(0, 0, 0, 3))), "beside the map"),
    ],
)
def test_what_are_no_windows_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong.check("w")


@pytest.mark.parametrize(
    "w", [Windows("adaptive", (2, 2)), Windows("clipped", geometry=Geometry((4, 2)))]
)
@pytest.mark.parametrize("size", [(0, 5), (3, 0)])
def test_maps_without_a_window_are_refused(w, size):
    with pytest.raises(ValueError, match="use a larger image"):
        w.output_size(*size)


def test_padding_on_one_side_counts_as_zeros():
    """Which torch cannot say: the sum of a window at the border, by hand."""
    w = Windows("clipped", geometry=Geometry((2, 2), (2, 2), (1, 0, 0, 1)))
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    assert w.means(x).tolist() == [[[[0.75, 0.75], [6.0, 3.75]]]]
    open_ = w._replace(include_pad=False)
    assert open_.means(x).tolist() == [[[[1.5, 3.0], [6.0, 7.5]]]]
    code = Code.graded(9.0, 9)
    x = x.permute(0, 2, 3, 1).to(torch.int16)
    for backend in BACKENDS:
        assert backend.mean_pool(x, w, code, code).flatten().tolist() == [1, 1, 6, 4]


def test_the_callers_rounding_plays_no_part():
    reads, gives = Code.words(8, 1.0), Code.graded(1.0, 8191)
    x = values(reads, maps(1, (7, 7), 0, 255))
    w = Windows("adaptive", (3, 2))
    expected = reference.collapsed.mean_pool(x, w, reads, gives)
    assert torch.set_flush_denormal(True) is not None
    try:
        assert torch.equal(fs.ops.mean_pool(x, w, reads, gives), expected)
    finally:
        torch.set_flush_denormal(False)
