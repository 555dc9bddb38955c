"""The oracles: what a network of FS neurons computes, written to be believed rather than fast.

`literal` runs every time step: each bit-plane of a spike word goes through the synapses as a
convolution of spikes, the K sums are weighted with the thresholds T(t) and added, and the neuron
fires in its loop. `collapsed` does one integer convolution on the words and fires in closed form.
Both take what `fskernel.ops` takes and need no compiled library, so a whole network can be executed
on either; kernels must equal them bit for bit. `paper_neuron` is the paper itself, in real numbers.

Activations are NHWC integer tensors: words uint8 or int16, graded values int16.
Integer sums are taken in float64, which is exact: all terms are integers, and their magnitudes add
up to less than 2^53 (checked), so every partial sum, in any order, is a float64 integer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fskernel.codes.exact_float import fma, to_float32
from fskernel.codes.neuron import (
    GRADED_LIMIT,
    check_K,
    fire,
    from_spikes,
    graded,
    popcount,
    spike_train,
)
from fskernel.reference.checks import (
    check_codes,
    check_exact,
    check_layer,
    check_range,
    check_table,
    check_top,
    check_vector,
    within_int32,
)
from fskernel.reference.fitted import check_fitted, fitted_by_numbers, fitted_by_steps
from fskernel.reference.gates import Gates, at_once, step_by_step
from fskernel.reference.maps import bit_planes, current, pad_map, window_view
from fskernel.reference.windows import taps_of

if TYPE_CHECKING:
    from fskernel.codes.code import Code
    from fskernel.codes.geometry import Geometry
    from fskernel.codes.windows import Windows
    from fskernel.network.synapses import Synapses


class _Oracle(Gates):
    """What both oracles share: the order of the contract's steps and the checks of the input.

    They differ in how synapses are summed, how neurons fire and how pools and events are counted.
    """

    def conv(
        self,
        groups: Sequence[tuple[Tensor, Synapses]],
        bias: Tensor,
        *,
        K: int,
        limit: int = GRADED_LIMIT,
        residual: tuple[Tensor, Tensor] | None = None,
        plane_bits: int = 0,
        halo: None = None,
        top: Tensor | None = None,
        step: float | None = None,
        count: bool = True,
        table: Tensor | None = None,
        fitted: Tensor | None = None,
        zero: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """A layer: membrane v from one or two synapse groups and a residual, then the neuron.

        v = fma(float(acc), m, bias), then v = fma(float(acc2), m2, v) for the second group, then
        v = fma(float(x_res), r, v), each with one float32 rounding.

        Args:
            groups: one or two pairs of codes [N, H, W, I] and Synapses.
            bias: float32 [O], in units of the last threshold, 0.5 for "nearest" included.
            K: 1..15 for spike words, 0 for graded values; of fitted neurons the bits of a code,
                1..16.
            limit: the largest magnitude of a graded value.
            residual: codes [N, OH, OW, O] and float32 r with one element, or None.
            plane_bits: 0, 1, 2, 4 or 8; has no influence on the result, and none here.
            halo: of byte maps, which exist on GPUs alone.
            top: float32 [O], the largest word of each neuron, to which its membrane is clipped
                before the first step; None: 2^K - 1.
            step: of float output, words * step; 1 for the membranes themselves, where K = 0.
            count: whether the spikes are given.
            table: of shaped neurons, float32 [1 or O, 2, S]; the membrane passes it before the
                first step.
            fitted: of fitted neurons, float32 [3, steps]: T, h and d, up to 16 steps; the membrane
                is then in their units.
            zero: the code of zero of fitted neurons.

        Returns:
            Codes [N, OH, OW, O] (uint8 for 1 <= K <= 8, else int16, of K = 16 the pattern of its
            bits), or float32 if `step` is given; and the spikes of each image, int64 [N], zeros
            for K = 0 ([0] without `count`).

        Raises:
            TypeError, ValueError: what does not fit together; a code outside the synapses' declared
                range; a sum that leaves int32.
        """
        check_layer(groups, bias, K, residual, plane_bits, fitted is not None)
        check_fitted(fitted, zero, K, top, table, step)
        v = self._potential(groups, bias, residual)
        if fitted is not None:
            codes, spikes = self._fire_fitted(v, fitted, zero)
            codes = codes.clamp(0, 2**K - 1).to(torch.uint8 if K <= 8 else torch.int16)
            return codes, spikes if count else spikes[:0]
        if table is not None:
            check_table(table, len(bias), K, top, step)
            v = self.shaped(v, table)
        if top is not None:
            check_top(top, len(bias), K)
            v = torch.minimum(v, top)  # NaN stays NaN
        if K == 0:
            y = v if step is not None else graded(v, limit)
            spikes = y.new_zeros(len(y), dtype=torch.int64)
        else:
            y, spikes = self._fire(v, K)
            y = y if step is None else self.decode(y, step)
        return y, spikes if count else spikes[:0]

    def decode(self, words: Tensor, step: float) -> Tensor:
        """What words stand for: words * step in float64, rounded to float32.

        Args:
            words: uint8 or int16, any shape.
            step: the last threshold.
        """
        return (words.to(torch.float64) * step).to(torch.float32)

    def _potential(self, groups, bias, residual) -> Tensor:
        return membrane(((self._synaptic_sum(x, s), s.m) for x, s in groups), bias, residual)

    def _gate_potential(self, products: Tensor, m: Tensor, bias: Tensor) -> Tensor:
        return membrane([(products, m)], bias, None)

    def _fire_fitted(self, v: Tensor, fitted: Tensor, zero: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def integrate_and_fire(
        self,
        groups: Sequence[tuple[Tensor, Synapses]],
        bias: Tensor,
        membrane: Tensor,
        *,
        residual: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One time step of rate-coded neurons: membrane += v, and at 1 a spike and -= 1.

        The current v is computed as the potential of `conv`; both additions round to float32.

        Args:
            groups, bias, residual: as those of `conv`.
            membrane: float32 [N, OH, OW, O], in units of the threshold; updated.

        Returns:
            Spikes 0 or 1, uint8 [N, OH, OW, O], and their number in each image, int64 [N].

        Raises:
            TypeError, ValueError: as `conv`, and a membrane that does not fit.
        """
        check_layer(groups, bias, 1, residual, 0)
        v = self._potential(groups, bias, residual)
        if membrane.dtype != torch.float32 or membrane.shape != v.shape:
            raise ValueError(
                f"membrane is {membrane.dtype} {tuple(membrane.shape)}: give float32 "
                f"{tuple(v.shape)}"
            )
        u = membrane + v
        fires = u >= 1
        membrane.copy_(torch.where(fires, u - 1, u))
        return fires.to(torch.uint8), fires.sum(dim=(1, 2, 3), dtype=torch.int64)

    def max_pool(self, x: Tensor, geometry: Geometry) -> Tensor:
        """The largest code of each window; the padding holds the type's minimum.

        Args:
            x: codes [N, H, W, C].
            geometry: window, stride, padding and dilation.

        Returns:
            Codes [N, OH, OW, C] of x's dtype.
        """
        check_codes("x", x)
        padded = pad_map(x, geometry, torch.iinfo(x.dtype).min)
        return self._window_max(padded, geometry).contiguous()

    def sum_pool(self, x: Tensor, geometry: Geometry) -> Tensor:
        """The sum of each window, the padding being zero.

        Args:
            x: codes [N, H, W, C].
            geometry: window, stride, padding and dilation.

        Returns:
            int16 [N, OH, OW, C].

        Raises:
            ValueError: a sum outside int16.
        """
        check_codes("x", x)
        total = self._window_sum(pad_map(x, geometry, 0), geometry)
        if total.numel() and int(total.abs().max()) > GRADED_LIMIT:
            raise ValueError(
                f"a window sums to {int(total.abs().max())}, beyond {GRADED_LIMIT}: use fewer time "
                "steps"
            )
        return total.to(torch.int16).contiguous()

    def mean_pool(self, x: Tensor, windows: Windows, reads: Code, gives: Code) -> Tensor:
        """The mean of each window: clip(rint(float(sum - zeros) * m)), one window at a time.

        m = step of x / (step of the means * divisor) in float64, rounded to float32 once.

        Args:
            x: codes [N, H, W, C].
            windows: which positions are summed, and what the sums are divided by.
            reads, gives: what the codes of x, and those of the means, stand for.

        Returns:
            int16 [N, OH, OW, C].

        Raises:
            ValueError: a map that is too small or too large, or a code outside its range.
        """
        check_codes("x", x)
        check_range(x, reads.x_min, reads.x_max)
        windows.output_size(*x.shape[1:3])
        windows.check_sums(*x.shape[1:3], reads)
        rows, cols = (taps_of(windows, x.shape[1 + axis], axis) for axis in (0, 1))
        y = x.new_empty((len(x), len(rows), len(cols), x.shape[3]), dtype=torch.int16)
        for i, row in enumerate(rows):
            for j, col in enumerate(cols):
                window = x[:, row.inside][:, :, col.inside]
                zeros = reads.zero * len(row.inside) * len(col.inside)
                total = within_int32(self._sum_of(window, reads) - zeros)
                m = _float32(reads.step / (gives.step * (row.divisor * col.divisor)))
                y[:, i, j] = graded(to_float32(total) * m, gives.x_max)
        return y

    def readout(self, x: Tensor, weight: Tensor, m: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
        """Logits: int64 dot products, then fma(float(acc), m, bias) with acc rounded once.

        Args:
            x: codes [N, H, W, C].
            weight: int8 or int16 [O, F]; F = C with pool, else H*W*C in NHWC order.
            m: float32 [O], potential of one unit of the dot product.
            bias: float32 [O].
            pool: sum over the H*W positions first (the mean's divisor is part of m).

        Returns:
            float32 [N, O].
        """
        check_codes("x", x)
        features = x.shape[3] if pool else math.prod(x.shape[1:])
        if weight.dtype not in (torch.int8, torch.int16) or weight.dim() != 2:
            raise TypeError(
                f"weight is {weight.dtype} {tuple(weight.shape)}: give int8/int16 [O, F]"
            )
        if weight.shape[1] != features:
            raise ValueError(f"weight has {weight.shape[1]} inputs, x has {features} features")
        check_vector("m", m, len(weight))
        check_vector("bias", bias, len(weight))
        return fma(to_float32(self._dot(x, weight, pool)), m, bias)

    def keeps_maps(self, x: Tensor) -> bool:
        """Never: byte maps are a matter of GPUs."""
        return False

    def encode(
        self, x: Tensor, inv_step: float, *, limit: int = GRADED_LIMIT, halo: None = None
    ) -> Tensor:
        """Graded codes of an image: clip(rint(x*inv_step), -limit, limit), NaN gives 0.

        Args:
            x: float32 [N, C, H, W], any strides.
            inv_step: 1/step, rounded to float32 before the one float32 multiplication.
            limit: the largest magnitude, 1..32767.
            halo: as of `conv`.

        Returns:
            int16 [N, H, W, C].
        """
        return graded(_image(x) * _float32(inv_step), limit)

    def encode_words(self, x: Tensor, inv_step: float, offset: float, K: int) -> Tensor:
        """Words of FS neurons whose membranes are fma(x, inv_step, offset).

        Args:
            x: float32 [N, C, H, W], any strides.
            inv_step: 1/step, rounded to float32.
            offset: where the membrane starts, in units of the last threshold, rounded to float32.
            K: time steps, 1..15.

        Returns:
            Words [N, H, W, C].
        """
        return self._fire(fma(_image(x), _float32(inv_step), _float32(offset)), check_K(K))[0]

    def synaptic_events(self, words: Tensor, fan_y: Tensor, fan_x: Tensor) -> Tensor:
        """Synaptic operations of each image: every spike times the synapses it goes through.

        Args:
            words: [N, H, W, C], of 16 time steps the pattern of their bits.
            fan_y: int64 [H]; the neuron at (y, x) has fan_y[y]*fan_x[x] synapses.
            fan_x: int64 [W].

        Returns:
            int64 [N].
        """
        check_codes("words", words)
        if fan_y.shape != words.shape[1:2] or fan_x.shape != words.shape[2:3]:
            raise ValueError(
                f"fan_y {tuple(fan_y.shape)} and fan_x {tuple(fan_x.shape)} do not fit words "
                f"{tuple(words.shape)}: give one number for each row and column"
            )
        return (self._spikes_per_place(words) * fan_y[:, None] * fan_x).sum(dim=(1, 2))


class Literal(_Oracle):
    """Oracle (a): plane by plane, step by step. Its neurons see only spikes and thresholds."""

    def _synaptic_sum(self, x: Tensor, synapses: Synapses) -> Tensor:
        check_exact(1, synapses.weight)
        padded = pad_map(x, synapses.geometry, synapses.pad_code)
        total: Tensor | int = 0
        for worth, plane in bit_planes(padded, synapses.x_min, synapses.x_max):
            total = total + worth * current(plane, synapses.weight, synapses.geometry)
        return total

    def shaped(self, v: Tensor, table: Tensor) -> Tensor:
        """What shaped neurons with these tables make of their membranes v [..., O] at first."""
        segments = table.shape[2]
        v = torch.where(v > 0, v, torch.zeros_like(v))  # NaN lies at the left end
        v = torch.where(v < segments, v, torch.full_like(v, segments * (1 - 2.0**-24)))
        slope, offset = (table[:, part, 0].expand(v.shape) for part in (0, 1))
        for i in range(1, segments):  # the last whose left end the membrane has reached
            slope = torch.where(v >= i, table[:, 0, i], slope)
            offset = torch.where(v >= i, table[:, 1, i], offset)
        return fma(v, slope, offset)

    def _fire(self, v: Tensor, K: int) -> tuple[Tensor, Tensor]:
        train = spike_train(v, K)
        return from_spikes(train), train.sum(dim=(0, 2, 3, 4), dtype=torch.int64)

    def _fire_fitted(self, v: Tensor, fitted: Tensor, zero: int) -> tuple[Tensor, Tensor]:
        return fitted_by_steps(v, fitted, zero)

    def _product(self, a: Tensor, b: Tensor, zero_a: int, zero_b: int) -> Tensor:
        return step_by_step(a, b, zero_a, zero_b)

    def _window_max(self, padded: Tensor, g: Geometry) -> Tensor:
        x = padded.to(torch.float64).permute(0, 3, 1, 2)
        y = F.max_pool2d(x, g.kernel, g.stride, 0, g.dilation)
        return y.permute(0, 2, 3, 1).to(padded.dtype)

    def _window_sum(self, padded: Tensor, g: Geometry) -> Tensor:
        x = padded.to(torch.float64).permute(0, 3, 1, 2)
        maps = x.flatten(0, 1).unsqueeze(1)  # every channel is an image of its own
        ones = maps.new_ones((1, 1, *g.kernel))
        y = F.conv2d(maps, ones, None, g.stride, 0, g.dilation).unflatten(0, x.shape[:2]).squeeze(2)
        return y.permute(0, 2, 3, 1).to(torch.int64)

    def _sum_of(self, window: Tensor, reads: Code) -> Tensor:
        planes = bit_planes(window, reads.x_min, reads.x_max)
        return sum(worth * plane.sum(dim=(1, 2), dtype=torch.int64) for worth, plane in planes)

    def _dot(self, x: Tensor, weight: Tensor, pool: bool) -> Tensor:
        info = torch.iinfo(x.dtype)
        check_exact(x.shape[1] * x.shape[2] if pool else 1, weight)
        synapses = weight.to(torch.float64).T
        total: Tensor | int = 0
        for worth, plane in bit_planes(x, info.min, info.max):
            spikes = plane.to(torch.float64)
            spikes = spikes.sum(dim=(1, 2)) if pool else spikes.flatten(1)
            total = total + worth * (spikes @ synapses).to(torch.int64)
        return total

    def _spikes_per_place(self, words: Tensor) -> Tensor:
        info = torch.iinfo(words.dtype)
        planes = bit_planes(words, info.min, info.max)
        return sum(plane.sum(dim=3, dtype=torch.int64) for _, plane in planes)


class Collapsed(_Oracle):
    """Oracle (b): one integer convolution on the words, then the closed form of the neuron."""

    def _synaptic_sum(self, x: Tensor, synapses: Synapses) -> Tensor:
        weight, g = synapses.weight, synapses.geometry
        check_exact(max(-synapses.x_min, synapses.x_max), weight)
        windows = window_view(pad_map(x, g, synapses.pad_code), g)
        n, oh, ow, _, kh, kw = windows.shape
        per_group = weight.shape[1]
        rows = windows.reshape(n * oh * ow, g.groups, per_group * kh * kw).to(torch.float64)
        columns = weight.reshape(g.groups, len(weight) // g.groups, -1).to(torch.float64)
        sums = torch.matmul(rows.transpose(0, 1), columns.transpose(1, 2))  # [groups, n*oh*ow, O/g]
        return sums.transpose(0, 1).reshape(n, oh, ow, len(weight)).to(torch.int64)

    def shaped(self, v: Tensor, table: Tensor) -> Tensor:
        """What shaped neurons with these tables make of their membranes v [..., O] at first."""
        segments = table.shape[2]
        u = v.nan_to_num(nan=0.0).clamp(0, segments * (1 - 2.0**-24))
        channel, segment = torch.arange(table.shape[0]), u.to(torch.int64)
        slope, offset = (table[channel, part, segment] for part in (0, 1))
        return fma(u, slope, offset)

    def _fire(self, v: Tensor, K: int) -> tuple[Tensor, Tensor]:
        words = fire(v, K)
        return words, popcount(words).sum(dim=(1, 2, 3), dtype=torch.int64)

    def _fire_fitted(self, v: Tensor, fitted: Tensor, zero: int) -> tuple[Tensor, Tensor]:
        return fitted_by_numbers(v, fitted, zero)

    def _product(self, a: Tensor, b: Tensor, zero_a: int, zero_b: int) -> Tensor:
        return at_once(a, b, zero_a, zero_b)

    def _window_max(self, padded: Tensor, g: Geometry) -> Tensor:
        return window_view(padded, g).amax(dim=(4, 5))

    def _window_sum(self, padded: Tensor, g: Geometry) -> Tensor:
        return window_view(padded, g).sum(dim=(4, 5), dtype=torch.int64)

    def _sum_of(self, window: Tensor, reads: Code) -> Tensor:
        return window.sum(dim=(1, 2), dtype=torch.int64)

    def _dot(self, x: Tensor, weight: Tensor, pool: bool) -> Tensor:
        codes = x.to(torch.int64)
        codes = within_int32(codes.sum(dim=(1, 2))) if pool else codes.flatten(1)
        return codes @ weight.to(torch.int64).T

    def _spikes_per_place(self, words: Tensor) -> Tensor:
        return popcount(words).sum(dim=3, dtype=torch.int64)


literal = Literal()
collapsed = Collapsed()


def membrane(
    sums: Iterable[tuple[Tensor, Tensor]], bias: Tensor, residual: tuple[Tensor, Tensor] | None
) -> Tensor:
    """The membrane of the contract, item 4: one fma for each synapse group, then the residual's.

    Args:
        sums: of each synapse group, in order, int64 [N, OH, OW, O], with its m, float32 [O].
        bias: float32 [O].
        residual: codes [N, OH, OW, O] and r, float32 with one element, or None.

    Returns:
        float32 [N, OH, OW, O], in units of the last threshold.

    Raises:
        ValueError: a sum that leaves int32, or a residual that does not fit.
    """
    v = bias
    for acc, m in sums:
        v = fma(to_float32(within_int32(acc)), m, v)
    if residual is not None:
        x, r = residual
        if x.shape != v.shape:
            raise ValueError(
                f"residual is {tuple(x.shape)}, the layer {tuple(v.shape)}: they must agree"
            )
        v = fma(to_float32(x), r.reshape(()), v)
    return v.contiguous()  # whatever the strides of the operands were


def _float32(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


def _image(x: Tensor) -> Tensor:
    if x.dtype != torch.float32 or x.dim() != 4:
        raise TypeError(f"x is {x.dtype} {tuple(x.shape)}: give a float32 image [N, C, H, W]")
    return x.permute(0, 2, 3, 1).contiguous()
