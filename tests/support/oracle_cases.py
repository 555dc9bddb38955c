"""Layers for hypothesis to draw: ragged, asymmetric, extreme; and their sums by definition."""

import contextlib
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import word_dtype
from fskernel.codes.weights import largest_sum
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses


class Layer(NamedTuple):
    """Arguments of `conv`."""

    groups: list
    bias: torch.Tensor
    K: int
    limit: int
    residual: tuple | None
    plane_bits: int
    top: torch.Tensor | None = None
    step: float | None = None
    table: torch.Tensor | None = None
    fitted: torch.Tensor | None = None
    zero: int = 0

    def run(self, conv):
        """What a backend's `conv` makes of them."""
        options = self._asdict()
        return conv(options.pop("groups"), options.pop("bias"), **options)


class Kind(NamedTuple):
    """What the codes of a tensor are: words of K steps, or graded values up to a limit."""

    K: int
    limit: int

    @property
    def range(self):
        return (0, 2**self.K - 1) if self.K else (-self.limit, self.limit)

    def codes(self, shape, generator):
        """Random codes with many zeros and extremes, NHWC."""
        low, high = self.range
        x = torch.randint(low, high + 1, shape, generator=generator)
        pick = torch.rand(shape, generator=generator)
        x = torch.where(pick < 0.1, 0, torch.where(pick > 0.9, high, x))
        x = torch.where((pick > 0.85) & (pick < 0.9), low, x)
        return x.to(word_dtype(self.K) if self.K else torch.int16)


kinds = st.one_of(
    st.builds(Kind, st.integers(1, 15), st.just(0)),
    st.builds(Kind, st.just(0), st.sampled_from([127, 5, 2047, 32767])),
)


@st.composite
def geometries(draw, groups):
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    return Geometry(
        draw(pair),
        draw(pair),
        tuple(draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))),
        draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        groups,
    )


def input_size(g, out, spare):
    """A size of input that gives `out`, and the padding, dropped where it alone would do."""
    sizes, padding = [], list(g.padding)
    for i in (0, 1):
        need = (out[i] - 1) * g.stride[i] + g.dilation[i] * (g.kernel[i] - 1) + 1
        if need <= padding[2 * i] + padding[2 * i + 1]:
            padding[2 * i] = padding[2 * i + 1] = 0
        sizes.append(need - padding[2 * i] - padding[2 * i + 1] + spare[i] % g.stride[i])
    return sizes, g._replace(padding=tuple(padding))


def random_weights(shape, bits, kind, generator):
    """Integers with full-scale ones among them, scaled down where the bound on sums asks for it."""
    top = 2 ** (bits - 1) - 1
    w = torch.randint(-top, top + 1, shape, generator=generator)
    w = torch.where(torch.rand(shape, generator=generator) < 0.1, top, w)
    worst = largest_sum(w, *kind.range)
    shrink = torch.clamp((2.0**31 - 1) / worst, max=1.0)
    w = (w * shrink.reshape(-1, 1, 1, 1)).trunc()
    return w.to(torch.int8 if bits == 8 else torch.int16)


def random_tops(K, channels, generator):
    """Largest words of neurons: some do not stop before 2^K - 1, one never fires."""
    top = torch.randint(0, 2**K, (channels,), generator=generator)
    top = torch.where(torch.rand(channels, generator=generator) < 0.4, 2**K - 1, top)
    top[int(torch.randint(channels, (1,), generator=generator))] = 0
    return top.float()


def random_table(K, tables, segments, generator):
    """Tables of shaped neurons that neither are monotone nor meet at the borders of segments."""
    top = 2.0**K
    values = torch.rand(tables, segments + 1, generator=generator) * 1.4 * top - 0.2 * top
    slope = values[:, 1:] - values[:, :-1]
    slope[:, :: segments // 4] = 0.0
    offset = values[:, :-1] - slope * torch.arange(segments)
    offset += torch.rand(tables, segments, generator=generator)
    return torch.stack([slope, offset], 1).float()


def random_lines(K, bits, spread, generator):
    """T, h and d of fitted neurons, in disorder and of either sign; some sums leave the codes."""
    lines = torch.randn(3, K, generator=generator) * spread / 3
    lines[2] = (torch.randn(K, generator=generator) * 2.0 ** (bits - 1)).round()
    return torch.cat([lines[:2], lines[2:].clamp(-(2.0**15), 2.0**15)])


@st.composite
def layers(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, out = draw(st.integers(1, 2)), draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    channels = draw(st.sampled_from([6, 12, 18, 1, 5, 7, 35]))
    divisors = [d for d in (1, 2, 3, 5, 6, 7) if channels % d == 0]
    K = draw(st.integers(0, 15))
    limit = draw(st.sampled_from([32767, 127]))
    form = draw(st.sampled_from(["ReLU", "ReLU", "shaped", "fitted"])) if K else None
    segments = draw(st.sampled_from([32, 64, 256])) if form == "shaped" else None
    spread = float(segments or (2**K if K else 2 * limit))
    groups = []
    for _ in range(draw(st.integers(1, 2))):
        splits = draw(st.sampled_from(divisors))
        kind, per_group = draw(kinds), draw(st.integers(1, 5))  # per_group 1 is depthwise
        geometry = draw(geometries(splits))
        spare = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
        (h, w), geometry = input_size(geometry, out, spare)
        weight = random_weights(
            (channels, per_group, *geometry.kernel),
            draw(st.sampled_from([8, 16])),
            kind,
            generator,
        )
        typical = largest_sum(weight, *kind.range).clamp(min=1) / 8
        m = (torch.rand(channels, generator=generator) * 2 - 0.6) * spread / typical
        low, high = kind.range
        synapses = Synapses(
            weight,
            m.float(),
            geometry,
            x_min=low,
            x_max=high,
            pad_code=draw(st.sampled_from([0, high, (low + high) // 2 + 1])),
        )
        groups.append((kind.codes((n, h, w, per_group * splits), generator), synapses))
    bias = torch.randn(channels, generator=generator) * spread / 4 + spread / 8
    bias += draw(st.sampled_from([0.0, 0.5]))
    if draw(st.booleans()):
        # Where real networks go wrong: a damaged channel must stay one damaged channel.
        bad = [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, -0.0]
        bias[draw(st.integers(0, channels - 1))] = draw(st.sampled_from(bad))
        groups[-1][1].m[draw(st.integers(0, channels - 1))] = draw(st.sampled_from(bad))
    residual = None
    if draw(st.booleans()):
        kind = draw(kinds)
        r = torch.rand(1, generator=generator) * spread / kind.range[1]
        residual = (kind.codes((n, *out, channels), generator), r)
    planes = draw(st.sampled_from([0, 1, 2, 4, 8]))
    if segments:
        tables = draw(st.sampled_from([1, channels]))
        table = random_table(K, tables, segments, generator)
        return Layer(groups, bias, K, limit, residual, planes, table=table)
    if form == "fitted":
        K = draw(st.sampled_from([K, 16]))
        lines = random_lines(draw(st.integers(1, 16)), K, spread, generator)
        zero = draw(st.integers(0, 2**K - 1))
        return Layer(groups, bias, K, limit, residual, planes, fitted=lines, zero=zero)
    top = random_tops(K, channels, generator) if K and draw(st.booleans()) else None
    step = draw(st.sampled_from([None, None, 0.1, 6 / 255, 1e-3])) if K else None
    return Layer(groups, bias, K, limit, residual, planes, top, step)


def sums_by_definition(x, synapses):
    """The sums of one group, in Python integers."""
    g, w = synapses.geometry, synapses.weight.tolist()
    n_images, rows, cols, _ = x.shape
    oh, ow = g.output_size(rows, cols)
    per_group, per_out = len(w[0]), len(w) // g.groups
    x, acc = x.tolist(), np.zeros((n_images, oh, ow, len(w)), dtype=np.int64)
    for n, oy, ox, o in np.ndindex(acc.shape):
        for i, ky, kx in np.ndindex(per_group, *g.kernel):
            iy = oy * g.stride[0] - g.padding[0] + ky * g.dilation[0]
            ix = ox * g.stride[1] - g.padding[2] + kx * g.dilation[1]
            inside = 0 <= iy < rows and 0 <= ix < cols
            channel = o // per_out * per_group + i
            code = x[n][iy][ix][channel] if inside else synapses.pad_code
            acc[n, oy, ox, o] += code * w[o][i][ky][kx]
    return torch.from_numpy(acc)


def nearest_float32(exact):
    """The float32 nearest to a fraction, the even one of two, as a Python float."""
    guess = np.float32(float(exact))
    below, above = np.nextafter(guess, np.float32([-np.inf, np.inf]))
    return min(
        (float(x) for x in (guess, below, above)),
        key=lambda x: (abs(Fraction(x) - exact), int(np.float32(x).view(np.uint32)) % 2),
    )


# ---- kernels of all instruction sets beside the oracle -------------------------------------------

ISAS = ops.supported_isas()


@contextlib.contextmanager
def isa(name):
    ops.set_isa(name)
    try:
        yield
    finally:
        ops.set_isa(None)


def assert_same(got, wanted, what=""):
    """Bit for bit; names the first difference."""
    for g, w in zip(got, wanted, strict=True):
        assert g.dtype == w.dtype and g.shape == w.shape, what
        if not torch.equal(g, w):
            at = tuple((g != w).nonzero()[0].tolist())
            raise AssertionError(f"{what}: at {at} got {g[at]}, expected {w[at]}")


def on_every_isa(groups, bias, **options):
    wanted = reference.collapsed.conv(groups, bias, **options)
    for name in ISAS:
        with isa(name):
            got = ops.conv(groups, bias, **options)
            assert ops.last_kernel().startswith(name + "/conv/")
        assert_same(got, wanted, name)
    return wanted


def group(x_shape, out, geometry, kind, *, bits=8, pad_code=0, seed=0, gain=1.0):
    """Random codes and weights with a scale that spreads the membranes over the neuron's range."""
    generator = torch.Generator().manual_seed(seed)
    low, high = kind.range
    per_group = x_shape[3] // geometry.groups
    weight = random_weights((out, per_group, *geometry.kernel), bits, kind, generator)
    size = weight.float().abs().amax() * max(high, 1) * weight[0].numel() ** 0.5
    m = (torch.rand(out, generator=generator) + 0.1) * gain / size.clamp(min=1)
    synapses = Synapses(weight, m, geometry, x_min=low, x_max=high, pad_code=pad_code)
    return kind.codes(x_shape, generator), synapses
