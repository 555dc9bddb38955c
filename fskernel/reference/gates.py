"""The product of two maps, as the oracles compute it (item 9 of the contract)."""

from __future__ import annotations

import torch
from torch import Tensor

from fskernel.codes.neuron import GRADED_LIMIT, check_K, graded
from fskernel.reference.checks import check_codes, check_vector
from fskernel.reference.maps import bit_planes


class Gates:
    """What both oracles share of a gate. They differ in how they multiply, and how neurons fire."""

    def gate(
        self,
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
        """The product of two maps: v = fma(float((a - zero_a)*(b - zero_b)), m, bias), then fires.

        Args:
            a: codes [N, H, W, C].
            b: codes; of a's pixels or one for the whole map, and of a's channels or one for all.
            zeros: the codes of zero of a and b.
            m, bias: float32 [C], finite.
            K: 1..15 for spike words, 0 for graded values.
            limit: the largest magnitude of a graded value.
            count: whether the spikes are given.

        Returns:
            Codes [N, H, W, C] (uint8 for 1 <= K <= 8, else int16), and the spikes of each image,
            int64 [N], zeros for K = 0 ([0] without `count`).

        Raises:
            TypeError, ValueError: what does not fit together; a product that leaves int32.
        """
        check_gate(a, b, m, bias, K)
        v = self._gate_potential(self._product(a, b, *zeros), m, bias)
        if K == 0:
            y, spikes = graded(v, limit), torch.zeros(len(a), dtype=torch.int64)
        else:
            y, spikes = self._fire(v, K)
        return y, spikes if count else spikes[:0]

    def _product(self, a: Tensor, b: Tensor, zero_a: int, zero_b: int) -> Tensor:
        """The exact products of what two maps stand for, int64."""
        raise NotImplementedError

    def _gate_potential(self, products: Tensor, m: Tensor, bias: Tensor) -> Tensor:
        raise NotImplementedError

    def _fire(self, v: Tensor, K: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def step_by_step(a: Tensor, b: Tensor, zero_a: int, zero_b: int) -> Tensor:
    """The product as what is added up, time step by time step, where a has a spike: b's value.

    A spike of a lets b's value through, as a synapse would its weight, for what the step is worth;
    what a's code of zero lets through is taken off.
    """
    value = b.to(torch.int64) - zero_b
    info = torch.iinfo(a.dtype)
    total: Tensor = -zero_a * value * torch.ones_like(a, dtype=torch.int64)
    for worth, spikes in bit_planes(a, info.min, info.max):
        total = total + worth * torch.where(spikes.bool(), value, 0)
    return total


def at_once(a: Tensor, b: Tensor, zero_a: int, zero_b: int) -> Tensor:
    """The product in closed form."""
    return (a.to(torch.int64) - zero_a) * (b.to(torch.int64) - zero_b)


def check_gate(a: Tensor, b: Tensor, m: Tensor, bias: Tensor, K: int) -> None:
    """Two maps that can be multiplied, and one finite m and bias for each channel."""
    check_codes("a", a)
    check_codes("b", b)
    pixels, channels = a.shape[1:3], a.shape[3]
    if not (
        len(b) == len(a)
        and tuple(b.shape[1:3]) in (tuple(pixels), (1, 1))
        and b.shape[3] in (channels, 1)
    ):
        raise ValueError(
            f"b is {tuple(b.shape)}, a {tuple(a.shape)}: give as many images, as many pixels or "
            "one, and as many channels or one"
        )
    for name, value in (("m", m), ("bias", bias)):
        check_vector(name, value, channels)
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} is {value.tolist()}: give finite numbers")
    if K != 0:
        check_K(K)
