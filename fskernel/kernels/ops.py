"""The kernels as functions: checked wrappers over the operators `torch.ops.fskernel.*`.

Activations are NHWC-contiguous integer tensors [N, H, W, C]: spike words (uint8 for K <= 8, int16
above) or graded values (int16). Every function has the same name, arguments and result, bit for
bit, in the oracles of `fskernel.reference`. Wrong arguments raise ValueError, naming the argument,
its value and the cure; float tensors that require grad, or carry a tangent, RuntimeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import GRADED_LIMIT, graded
from fskernel.codes.windows import Spans, Windows
from fskernel.kernels import fakes, native
from fskernel.kernels.byte_maps import ByteMap, Halo, numbers_of

# What the library says of itself is part of this module for its users.
from fskernel.kernels.native import (  # noqa: F401
    FLOATS,
    built_isas,
    compiled,
    covered_isas,
    cuda_device,
    cuda_kernels,
    cuda_state,
    current_isa,
    keeps_maps,
    last_kernel,
    operators,
    peak_macs,
    runs_on,
    set_cuda_kernel,
    set_isa,
    supported_isas,
)
from fskernel.torch_rules.float_environment import in_float_environment
from fskernel.torch_rules.gradient import refuse_gradient

if TYPE_CHECKING:
    from fskernel.network.synapses import Synapses


class Encoder(NamedTuple):
    """How float values become codes, as `encode_words` (K >= 1) or `encode` (K = 0) make them."""

    inv_step: float
    offset: float
    K: int
    limit: int = GRADED_LIMIT


NO_MAPS = "byte maps exist on GPUs only: pass tensors, and no halo, on the CPU"


def pack(weight: Tensor, geometry: Sequence[int], x_min: int, x_max: int) -> Tensor:
    """Weights in the order in which the current instruction set's kernel reads them.

    Args:
        weight: int8 or int16 [O, I/groups, kh, kw].
        geometry: the 12 numbers of `Geometry.as_ints(pad_code)`.
        x_min, x_max: declared range of the input codes; it decides the operand family.

    Returns:
        uint8, one dimension. Other instruction sets and geometries refuse it.
    """
    return operators().pack(weight, geometry, x_min, x_max)


def packed_isa(packed: Tensor) -> str:
    """The instruction set that packed weights, on the CPU, were made for."""
    return compiled().packed_isa(packed.numpy()).decode(errors="replace")


def conv(
    groups: Sequence[tuple[Tensor | ByteMap, Synapses]],
    bias: Tensor,
    *,
    K: int,
    limit: int = GRADED_LIMIT,
    residual: tuple[Tensor | ByteMap, Tensor] | None = None,
    plane_bits: int = 0,
    halo: Halo | None = None,
    top: Tensor | None = None,
    step: float | None = None,
    count: bool = True,
    table: Tensor | None = None,
    fitted: Tensor | None = None,
    zero: int = 0,
) -> tuple[Tensor | ByteMap, Tensor]:
    """One FS layer: integer convolution, membrane, neuron and spike count in one pass.

    The sum over the train, sum_t T(t) * conv(w, z_t), is one convolution over spike words; the
    membrane potential in units of the last threshold is then, in float32 with true fma,
    v = fma(acc, m, bias), v = fma(acc2, m2, v) and v = fma(x_res, r, v), and the neuron fires
    floor(clip(v, 0, 2^K - 1)).

    Args:
        groups: one or two (x [N, H, W, I] words or graded values, Synapses). Kernels trust that
            every code lies in its Synapses' [x_min, x_max] (the oracles check it).
        bias: float32 [O], in units of the last threshold (+0.5 for rounding "nearest").
        K: time steps 1..15; 0 gives graded output clip(rint(v), -limit, limit).
        limit: of graded output, 1..32767.
        residual: (words or graded values [N, OH, OW, O], float32 tensor of one element), or None.
        plane_bits: bit-planes that one multiplication takes: 1, 2, 4, 8, or 0 for all of them.
        halo: on a GPU, leaves y as a `ByteMap` with that halo for other calls, whose x and
            residual may be one; all groups then have to run on tensor cores.
        top: float32 [O], the largest word of each neuron, whole numbers from 0 to 2^K - 1: the
            membrane is clipped to it before the first step. None: 2^K - 1 for all.
        step: gives float output: the words times this number, in float64, rounded to float32
            once. With K=0 it has to be 1 and y are the membrane potentials themselves.
        count: whether the spikes are counted, which costs about a percent.
        table: of shaped neurons, float32 [1, 2, S], or [O, 2, S] for one each: slopes and offsets
            of S = 32, 64, 128 or 256 segments (`fskernel.codes.shape`). The membrane is then in
            segments from the table's left end, and in its place the neuron is given
            fma(u, slope[i], offset[i]) with u = clip(v, 0, below S) and i = trunc(u).
        fitted: of fitted neurons, float32 [3, T] for T = 1..16 time steps: thresholds T(t), resets
            h(t) and, as whole numbers, what spikes are worth, d(t) (`fskernel.codes.fitted`). K is
            then the bits of their codes, 1..16: z(t) = v >= T(t), v -= h(t)*z(t), and the code is
            clip(zero + sum_t d(t)*z(t), 0, 2^K - 1).
        zero: the code of zero of fitted neurons.

    Returns:
        y [N, OH, OW, O], uint8 words for K <= 8, else int16 words or graded values, or float32 if
        `step` is given; and the spikes of each image, int64 [N] (zero for graded output, [0]
        without `count`).

    Raises:
        ValueError: naming the wrong argument, its value and the cure.
    """
    arguments = conv_arguments(groups, bias, residual)
    if halo is None and not any(isinstance(a, ByteMap) for a in arguments):
        return operators().conv(
            *arguments, K, limit, plane_bits, top, step, count, table, fitted, zero
        )
    x, packed, m, ints, bias, x2, packed2, m2, ints2, res, r = arguments
    (x, x_map), (x2, x2_map), (res, res_map) = map(numbers_of, (x, x2, res))
    if not x.is_cuda:
        raise ValueError(NO_MAPS)
    given = (x, x_map, packed, m, ints, bias, x2, x2_map, packed2, m2, ints2, res, res_map, r)
    kept = [] if halo is None else list(halo)
    y, counts = operators().conv_maps(
        *given, K, limit, plane_bits, kept, top, step, count, table, fitted, zero
    )
    return (y if halo is None else ByteMap.of_output(y, *groups[0], K, halo)), counts


def conv_floats(
    x: Tensor,
    encoder: Encoder,
    synapses: Synapses,
    bias: Tensor,
    *,
    K: int,
    step: float,
    top: Tensor | None = None,
    plane_bits: int = 0,
    count: bool = False,
    channels_last: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder, layer and decoder in one: float values in, and out, image by image in the cache.

    Args:
        x: float32, float64, float16 or bfloat16 [N, C, H, W], any strides.
        encoder: how x becomes codes.
        synapses, bias, K, step, top, plane_bits, count: as of `conv`, with float output.
        channels_last: the memory format of y; else contiguous.

    Returns:
        y [N, O, OH, OW] of x's dtype; the spikes of each image, int64 [N] ([0] without `count`);
        and what the encoder met, float64 [2]: the least value of x (at most 0), and how many lie
        beyond its range. On a GPU nobody looks, which would take a pass of its own: zeros.
    """
    refuse_gradient(x=x, m=synapses.m, bias=bias)
    if x.is_cpu:
        y, counts, seen = operators().conv_floats(
            x, *encoder, synapses.packed(), synapses.m, synapses.as_ints(), bias, top, K, step,
            plane_bits, count, not channels_last,
        )  # fmt: skip
        return y.permute(0, 3, 1, 2) if channels_last else y, counts, seen
    values = x.to(torch.float32)
    if encoder.K:
        codes = encode_words(values, encoder.inv_step, encoder.offset, encoder.K)
    else:
        codes = encode(values, encoder.inv_step, limit=encoder.limit)
    options = {"K": K, "step": step, "top": top, "plane_bits": plane_bits, "count": count}
    y, counts = conv([(codes, synapses)], bias, **options)
    form = torch.channels_last if channels_last else torch.contiguous_format
    y = y.permute(0, 3, 1, 2).to(x.dtype, memory_format=form)
    return y, counts, torch.zeros(2, dtype=torch.float64, device=x.device)


def conv_arguments(groups, bias, residual) -> tuple:
    """What the operators on synapse groups have in common, in the order of their schema."""
    if not 1 <= len(groups) <= 2:
        raise ValueError(
            f"groups has {len(groups)} entries: a neuron has one or two synapse groups"
        )
    for _, synapses in groups:
        refuse_gradient(m=synapses.m)
    refuse_gradient(bias=bias, r=residual[1] if residual is not None else None)
    x, first = groups[0]
    x2 = packed2 = m2 = None
    geometry2: list[int] = []
    if len(groups) == 2:
        x2, second = groups[1]
        packed2, m2 = second.packed(), second.m
        geometry2 = second.as_ints()
    res, r = residual if residual is not None else (None, None)
    return x, first.packed(), first.m, first.as_ints(), bias, x2, packed2, m2, geometry2, res, r


def integrate_and_fire(
    groups: Sequence[tuple[Tensor, Synapses]],
    bias: Tensor,
    membrane: Tensor,
    *,
    residual: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """One time step of a layer of rate-coding integrate-and-fire neurons.

    The input current of the step is, like the membrane potential of `conv`, v = fma(acc, m, bias),
    then the second group and the residual. Then membrane += v, one float32 addition; a neuron
    whose membrane is 1 or more fires, and its membrane loses 1 (reset by subtraction).

    Args:
        groups: one or two (x [N, H, W, I] spikes 0 or 1, or sums of them, Synapses).
        bias: float32 [O], in units of the threshold and of a time step.
        membrane: float32 [N, OH, OW, O], contiguous; kept from step to step, updated here.
        residual: (spikes [N, OH, OW, O], float32 tensor of one element), or None.

    Returns:
        Spikes 0 or 1, uint8 [N, OH, OW, O], and their number in each image, int64 [N].

    Raises:
        ValueError: naming the wrong argument, its value and the cure.
    """
    if groups and groups[0][0].is_cuda:
        return operators().integrate_and_fire(*conv_arguments(groups, bias, residual), membrane)
    current, _ = conv(groups, bias, K=0, step=1.0, residual=residual, count=False)
    spikes, counts = operators().integrate_and_fire_current(current, membrane, 1)
    return spikes, counts[0]


def max_pool(x: Tensor, geometry: Geometry) -> Tensor:
    """Maximum of codes, which is the code of the maximum; pads with the type's minimum.

    Args:
        x: words or graded values [N, H, W, C].
        geometry: of the window; its groups are ignored.

    Returns:
        [N, OH, OW, C] of x's dtype.
    """
    return operators().max_pool(x, geometry.as_ints())


def sum_pool(x: Tensor, geometry: Geometry) -> Tensor:
    """Sum over the window, zero padding; the caller guarantees that it fits 16 bits.

    Args:
        x: words or graded values [N, H, W, C].
        geometry: of the window; its groups are ignored.

    Returns:
        int16 [N, OH, OW, C].
    """
    return operators().sum_pool(x, geometry.as_ints())


def gate(
    a: Tensor,
    b: Tensor,
    zeros: tuple[int, int],
    m: Tensor,
    bias: Tensor,
    *,
    K: int,
    limit: int = GRADED_LIMIT,
    count: bool = True,
) -> tuple[Tensor, Tensor]:
    """The product of two maps, and the neurons behind it: a gate.

    v = fma(float((a - zero_a) * (b - zero_b)), m, bias), in float32 with true fma, of an exact
    integer product; then the neuron fires floor(clip(v, 0, 2^K - 1)).

    Args:
        a: words or graded values [N, H, W, C].
        b: the same; of a's pixels or of one for the whole map, of a's channels or of one for all.
        zeros: the codes that stand for zero in a and in b. Kernels trust that the products of all
            codes fit 32 bits, as those of the contract do (the oracles check it).
        m, bias: float32 [C], finite (which is looked at on the CPU).
        K: time steps 1..15; 0 gives graded output clip(rint(v), -limit, limit).
        limit: of graded output, 1..32767.
        count: whether the spikes are counted.

    Returns:
        y [N, H, W, C], uint8 words for K <= 8, else int16; and the spikes of each image, int64 [N]
        (zero for graded output, [0] without `count`).
    """
    refuse_gradient(m=m, bias=bias)
    return operators().gate(a, b, *zeros, m, bias, K, limit, count)


@in_float_environment
def mean_pool(x: Tensor, windows: Windows, reads: Code, gives: Code) -> Tensor:
    """The mean of each window, rounded: v = float(sum of x - zero) * m, clip(rint(v), +-limit).

    m = step of x / (step of the means * divisor), of each output position, is computed in float64
    and rounded to float32 once. In torch's own operators, of integers and elementwise, so on every
    device.

    Args:
        x: words or graded values [N, H, W, C].
        windows: which pixels are summed, and what the sums are divided by.
        reads: what the codes of x mean; its range bounds the sums.
        gives: the same of the means, which are graded values.

    Returns:
        int16 [N, OH, OW, C].

    Raises:
        ValueError: windows that do not fit into the map, or whose sums may not fit 32 bits.
    """
    height, width = x.shape[1:3]
    windows.output_size(height, width)
    windows.check_sums(height, width, reads)
    rows, cols = (windows.spans(n, i, x.device) for i, n in enumerate((height, width)))
    sums = _sum_spans(_sum_spans(x, rows, 1), cols, 2)
    pixels = (rows.stop - rows.start)[:, None] * (cols.stop - cols.start)
    divisor = (rows.divisor[:, None] * cols.divisor).to(torch.float64)
    # By a tensor, because torch multiplies by the reciprocal of a number on a GPU.
    m = (torch.full_like(divisor, reads.step) / (gives.step * divisor)).to(torch.float32)
    sums = sums - (reads.zero * pixels).to(torch.int32)[:, :, None]
    return graded(sums.to(torch.float32) * m[:, :, None], gives.x_max)


def _sum_spans(x: Tensor, spans: Spans, dim: int) -> Tensor:
    """Sums of x over [start, stop) along a dimension, int32, as differences of running sums."""
    running = torch.cumsum(x, dim, dtype=torch.int32)
    none = torch.zeros_like(running.narrow(dim, 0, 1))
    running = torch.cat([none, running], dim)
    return running.index_select(dim, spans.stop) - running.index_select(dim, spans.start)


def readout(x: Tensor, weight: Tensor, m: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
    """Logits: v = fma(float(acc), m, bias) with acc = sum(weight * x) exactly, in 64 bits.

    Args:
        x: words or graded values [N, H, W, C].
        weight: int8 or int16 [O, F]; F is C if `pool`, else `H*W*C` in NHWC order.
        m, bias: float32 [O].
        pool: sum over the pixels first (global average-pool; its 1/(H*W) belongs to m).

    Returns:
        float32 [N, O].
    """
    refuse_gradient(m=m, bias=bias)
    return operators().readout(x, weight, m, bias, pool)


def encode(
    x: Tensor, inv_step: float, *, limit: int = GRADED_LIMIT, halo: Halo | None = None
) -> Tensor | ByteMap:
    """Graded values clip(rint(x * inv_step), -limit, limit), ties to even, NaN gives 0.

    Args:
        x: float32 [N, C, H, W], any strides; on the CPU also float64, float16 or bfloat16.
        inv_step: 1/step, rounded once to float32.
        halo: on a GPU, leaves a `ByteMap` of two planes with that halo for convolutions.

    Returns:
        int16 [N, H, W, C].
    """
    refuse_gradient(x=x)
    if halo is None:
        return operators().encode(x, inv_step, limit)
    if not x.is_cuda:
        raise ValueError(NO_MAPS)
    return ByteMap.of_image(operators().encode_map(x, inv_step, limit, list(halo)), x, halo)


def encode_words(x: Tensor, inv_step: float, offset: float, K: int) -> Tensor:
    """Spike words of float values: v = fma(x, inv_step, offset), then the FS neuron.

    Args:
        x: float32 [N, C, H, W], any strides; on the CPU also float64, float16 or bfloat16.
        inv_step: 1/(last threshold), rounded once to float32.
        offset: 0.5 for rounding "nearest", 0 for "floor".
        K: time steps, 1..15.

    Returns:
        uint8 (K <= 8) or int16 [N, H, W, C].
    """
    refuse_gradient(x=x)
    return operators().encode_words(x, inv_step, offset, K)


def decode(words: Tensor, step: float) -> Tensor:
    """What spike words stand for: words * step in float64, rounded to float32.

    Args:
        words: uint8 or int16 [N, H, W, C], not negative.
        step: the last threshold.

    Returns:
        float32 [N, H, W, C].
    """
    return operators().decode(words, step)


def synaptic_events(words: Tensor, fan_y: Tensor, fan_x: Tensor) -> Tensor:
    """Spikes weighted by the number of synapses that leave their position.

    Args:
        words: [N, H, W, C].
        fan_y, fan_x: int64 [H] and [W]; a position's synapses are fan_y[y]*fan_x[x].

    Returns:
        int64 [N], modulo 2^64 where fans are that large, like all integers of torch.
    """
    return operators().synaptic_events(words, fan_y, fan_x)


def run_plan(
    x: Tensor, plan: int, plane_bits: int = 0, *, count: bool = True
) -> tuple[Tensor, Tensor]:
    """A whole network, laid out by `fskernel.plan.Plan`.

    Args:
        x: float32 [N, C, H, W], any strides.
        plan: the number of a living plan, `Plan.id`.
        plane_bits: as for `conv`.
        count: spikes are asked for, which costs about a percent.

    Returns:
        Logits float32 [N, classes] and the spikes of every layer of neurons, int64 [N, layers]
        ([N, 0] if not asked for).
    """
    refuse_gradient(x=x)
    return operators().run_plan(x, plan, plane_bits, count)


def time_plan(x: Tensor, plan: int, plane_bits: int = 0) -> Tensor:
    """Like `run_plan`, image by image, but returns the seconds of every node, float64."""
    return operators().time_plan(x, plan, plane_bits)


if native._C is not None:
    fakes.register(native._C)
