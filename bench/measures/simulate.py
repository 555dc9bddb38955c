"""The explicit simulation in torch: every time step of every neuron, as a paper's code would do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fskernel.codes.neuron import GRADED_LIMIT, word_dtype
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses


class StepByStep:
    """A backend for `FSNetwork.execute`: one float convolution for each time step of the input.

    What a spike means depends on its time step, so the steps' convolutions are added with the
    weights 2^(K-t). Sums are float32: above 2^24 they may differ from the kernels' exact ones.
    Pools, gates, encoder and readout are the kernels', which favours this simulation.
    """

    max_pool = staticmethod(ops.max_pool)
    sum_pool = staticmethod(ops.sum_pool)
    mean_pool = staticmethod(ops.mean_pool)
    gate = staticmethod(ops.gate)
    readout = staticmethod(ops.readout)
    encode = staticmethod(ops.encode)

    def keeps_maps(self, x: Tensor) -> bool:
        """Never: byte maps are a matter of kernels on GPUs."""
        return False

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
        """As `fskernel.ops.conv`."""
        v = bias[:, None, None]
        for x, synapses in groups:
            v = v + self._sum(x, synapses) * synapses.m[:, None, None]
        if residual is not None:
            v = v + residual[0].permute(0, 3, 1, 2).float() * float(residual[1])
        none = self._none(v if count else v[:0])
        if K == 0 and step is not None:
            return self._codes(v, torch.float32), none
        if K == 0:
            return self._codes(v.round().clamp(-limit, limit), torch.int16), none
        if table is not None:
            v = self._shaped(v, table)
        if top is not None:
            v = v.minimum(top[:, None, None])
        if fitted is None:  # thresholds, resets and what spikes are worth are the same
            fitted = torch.tensor([2.0 ** (K - t) for t in range(1, K + 1)]).expand(3, -1)
        word = torch.full_like(v, zero)
        spikes = self._none(v)
        for threshold, reset, worth in fitted.T.tolist():
            z = (v >= threshold).to(v.dtype)
            v = v - z * reset
            word += z * worth
            spikes += z.sum((1, 2, 3)).to(torch.int64)
        word.clamp_(0, 2**K - 1)
        spikes = spikes if count else spikes[:0]
        if step is not None:
            return self._codes((word.double() * step).float(), torch.float32), spikes
        return self._codes(word, word_dtype(K)), spikes

    @staticmethod
    def _sum(x: Tensor, synapses) -> Tensor:
        g = synapses.geometry
        top, bottom, left, right = g.padding
        codes = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom), value=synapses.pad_code)
        weight = synapses.weight.float().contiguous(memory_format=torch.channels_last)

        def conv(values: Tensor) -> Tensor:
            return F.conv2d(values.float(), weight, None, g.stride, 0, g.dilation, g.groups)

        if synapses.x_min < 0:  # graded values are no spikes: one step
            return conv(codes)
        bits = synapses.x_max.bit_length()
        return sum(conv(codes >> bit & 1) * 2.0**bit for bit in range(bits))

    @staticmethod
    def _shaped(v: Tensor, table: Tensor) -> Tensor:
        """Membranes [N, O, H, W] of shaped neurons, after their tables [1 or O, 2, S]."""
        v = v.nan_to_num(nan=0.0).clamp(0, table.shape[2] * (1 - 2.0**-24))
        channels, segment = torch.arange(len(table), device=v.device), v.permute(0, 2, 3, 1).long()
        slope, offset = (table[channels, i, segment].permute(0, 3, 1, 2) for i in (0, 1))
        return torch.addcmul(offset, v, slope)

    @staticmethod
    def _codes(values: Tensor, dtype: torch.dtype) -> Tensor:
        return values.permute(0, 2, 3, 1).to(dtype).contiguous()

    @staticmethod
    def _none(v: Tensor) -> Tensor:
        return torch.zeros(len(v), dtype=torch.int64, device=v.device)
