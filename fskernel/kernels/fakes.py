"""Shapes and dtypes of the operators without their values, for torch.compile and torch.export."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import torch

from fskernel.codes.neuron import word_dtype


def register(native: ModuleType) -> None:
    """Registers them for all operators of the compiled library."""
    fake = torch.library.register_fake

    @fake("fskernel::pack")
    def _(weight, geometry, x_min, x_max):
        out, per_group = weight.shape[:2]
        pack_bytes = native.cuda_pack_bytes if weight.is_cuda else native.pack_bytes
        size = pack_bytes(out, per_group, weight.element_size(), geometry, x_min, x_max)
        return weight.new_empty([size], dtype=torch.uint8)

    @fake("fskernel::conv")
    def _(
        x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, K, limit, planes,
        top=None, step=None, count=True, table=None,
        fitted=None, zero=0,
    ):  # fmt: skip
        shape = [x.shape[0], *_output_size(x.shape, geometry), bias.shape[0]]
        counts = x.new_empty([x.shape[0] if count else 0], dtype=torch.int64)
        dtype = word_dtype(K) if step is None else torch.float32
        return x.new_empty(shape, dtype=dtype), counts

    @fake("fskernel::conv_floats")
    def _(
        x, inv_step, offset, x_K, x_limit, packed, m, geometry, bias, top, K, step, planes, count,
        channels_first,
    ):  # fmt: skip
        n, _, h, w = x.shape
        size = _output_size((n, h, w), geometry)
        shape = [n, bias.shape[0], *size] if channels_first else [n, *size, bias.shape[0]]
        counts = x.new_empty([n if count else 0], dtype=torch.int64)
        return x.new_empty(shape), counts, x.new_empty([2], dtype=torch.float64)

    @fake("fskernel::decode")
    def _(words, step):
        return words.new_empty(words.shape, dtype=torch.float32)

    @fake("fskernel::conv_maps")
    def _(
        x, x_map, packed, m, geometry, bias, x2, x2_map, packed2, m2, geometry2, residual,
        residual_map, r, K, limit, planes, halo, top=None, step=None, count=True, table=None,
        fitted=None, zero=0,
    ):  # fmt: skip
        n, h, w = x_map[:3] if x_map else x.shape[:3]
        shape = [n, *_output_size((n, h, w), geometry), bias.shape[0]]
        y = x.new_empty(shape, dtype=word_dtype(K) if step is None else torch.float32)
        if halo:
            y = x.new_empty([_map_bytes(shape, y.element_size(), halo)], dtype=torch.uint8)
        return y, x.new_empty([n if count else 0], dtype=torch.int64)

    @fake("fskernel::integrate_and_fire")
    def _(x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, membrane):
        return membrane.new_empty(membrane.shape, dtype=torch.uint8), x.new_empty(
            [x.shape[0]], dtype=torch.int64
        )

    @fake("fskernel::pack_rows")
    def _(weight, geometry, inputs):
        out, per_group = weight.shape[:2]
        size = native.rows_bytes(out, per_group, weight.element_size(), geometry, inputs)
        return weight.new_empty([size], dtype=torch.uint8)

    @fake("fskernel::integrate_and_fire_trains")
    def _(
        x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, rows, rows2,
        membrane, steps, path,
    ):  # fmt: skip
        counts = x.new_empty([steps, x.shape[0]], dtype=torch.int64)
        return membrane.new_empty(membrane.shape, dtype=torch.uint8), counts

    @fake("fskernel::integrate_and_fire_current")
    def _(current, membrane, steps):
        counts = current.new_empty([steps, current.shape[0]], dtype=torch.int64)
        return current.new_empty(current.shape, dtype=torch.uint8), counts

    def pool_shape(x, geometry):
        return [x.shape[0], *_output_size(x.shape, geometry), x.shape[3]]

    @fake("fskernel::max_pool")
    def _(x, geometry):
        return x.new_empty(pool_shape(x, geometry))

    @fake("fskernel::gate_pool")
    def _(x, totals, geometry, steps):
        return x.new_empty(pool_shape(x, geometry))

    @fake("fskernel::sum_pool")
    def _(x, geometry):
        return x.new_empty(pool_shape(x, geometry), dtype=torch.int16)

    @fake("fskernel::gate")
    def _(a, b, zero_a, zero_b, m, bias, K, limit, count=True):
        counts = a.new_empty([a.shape[0] if count else 0], dtype=torch.int64)
        return a.new_empty(a.shape, dtype=word_dtype(K)), counts

    @fake("fskernel::readout")
    def _(x, weight, m, bias, pool):
        return x.new_empty([x.shape[0], weight.shape[0]], dtype=torch.float32)

    @fake("fskernel::encode")
    def _(x, inv_step, limit):
        n, c, h, w = x.shape
        return x.new_empty([n, h, w, c], dtype=torch.int16)

    @fake("fskernel::encode_map")
    def _(x, inv_step, limit, halo):
        n, c, h, w = x.shape
        return x.new_empty([_map_bytes((n, h, w, c), 2, halo)], dtype=torch.uint8)

    @fake("fskernel::encode_words")
    def _(x, inv_step, offset, K):
        n, c, h, w = x.shape
        return x.new_empty([n, h, w, c], dtype=word_dtype(K))

    @fake("fskernel::run_plan")
    def _(x, plan, plane_bits, count):
        classes, layers, _ = native.plan_size(plan)
        counts = x.new_empty([x.shape[0], layers if count else 0], dtype=torch.int64)
        return x.new_empty([x.shape[0], classes]), counts

    @fake("fskernel::time_plan")
    def _(x, plan, plane_bits):
        return x.new_empty([native.plan_size(plan)[2]], dtype=torch.float64)

    @fake("fskernel::synaptic_events")
    def _(words, fan_y, fan_x):
        return words.new_empty([words.shape[0]], dtype=torch.int64)


def _output_size(size: Sequence[int], geometry: Sequence[int]) -> tuple[int, int]:
    kh, kw, sh, sw, top, bottom, left, right, dh, dw = geometry[:10]
    rows = (size[1] + top + bottom - dh * (kh - 1) - 1) // sh + 1
    cols = (size[2] + left + right - dw * (kw - 1) - 1) // sw + 1
    return rows, cols


def _map_bytes(size: Sequence[int], planes: int, halo: Sequence[int]) -> int:
    """`byte_maps.map_bytes` for sizes that may be symbols."""
    n, h, w, c = size
    top, bottom, left, right, _, stored = halo
    stored = stored or (c + 15) // 16 * 16
    whole = 16 // math.gcd(stored, 16)  # rows begin at 16 bytes
    columns = (left + w + right + whole - 1) // whole * whole
    return planes * n * (h + top + bottom) * columns * stored + 64
