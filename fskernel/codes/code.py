"""What the integers of a tensor mean, and the largest that each neuron may emit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fskernel.codes.neuron import GRADED_LIMIT

if TYPE_CHECKING:
    from fskernel.network.stored.fields import Fields


@dataclass(frozen=True)
class Code:
    """What the integers of a tensor mean: real value = (integer - zero) * step.

    kind is "words" (spike words of K steps), "fitted" (what the trains of fitted neurons, of K
    steps, stand for, in 2^bits - 1 steps) or "graded" (signed values); [x_min, x_max] is the
    declared range that packing relies on; zero is not 0 for words with an offset and sums of them.
    """

    kind: str
    step: float
    x_min: int
    x_max: int
    K: int = 0
    zero: int = 0

    @staticmethod
    def words(K: int, alpha: float) -> Code:
        """Spike words of K steps and range alpha."""
        return Code("words", alpha * 2.0**-K, 0, 2**K - 1, K)

    @staticmethod
    def signed_words(K: int, alpha: float) -> Code:
        """Spike words of K steps for values in [-alpha, alpha): the offset is half the range."""
        return Code("words", alpha * 2.0 ** (1 - K), 0, 2**K - 1, K, zero=2 ** (K - 1))

    @staticmethod
    def shaped(K: int, low: float, high: float) -> Code:
        """Spike words of K steps for values in [low, high], low <= 0 <= high: 0 has a word.

        The range is widened to where both ends have words.
        """
        step = (high - low) / (2**K - 1)
        zero = min(max(round(-low / step), 0), 2**K - 1)
        if 0 < zero < 2**K - 1:
            step = max(-low / zero, high / (2**K - 1 - zero))
        return Code("words", step, 0, 2**K - 1, K, zero=zero)

    @staticmethod
    def fitted(K: int, low: float, high: float, bits: int) -> Code:
        """What fitted neurons of K steps give, in [low, high], low <= 0 <= high: 0 has a code."""
        return replace(Code.shaped(bits, low, high), kind="fitted", K=K)

    @staticmethod
    def graded(largest: float, limit: int) -> Code:
        """Signed values whose largest magnitude is `largest`, as integers up to `limit`."""
        return Code("graded", (largest if largest > 0 else 1.0) / limit, -limit, limit)

    @staticmethod
    def real() -> Code:
        """Of a layer without neurons whose membranes, in units of 1, are float output."""
        return Code.graded(float(GRADED_LIMIT), GRADED_LIMIT)

    @property
    def bits(self) -> int:
        """Of a code that is not negative; 0 of graded values. What kernels are told as K."""
        return 0 if self.kind == "graded" else self.x_max.bit_length()

    def pooled(self, n: int) -> Code:
        """The sum of n such integers, standing for their mean."""
        return Code("graded", self.step / n, n * self.x_min, n * self.x_max, zero=n * self.zero)

    @property
    def of_neurons(self) -> bool:
        """Whether what has such codes are neurons, or passes on what neurons gave."""
        return self.kind != "graded"

    @staticmethod
    def from_fields(fields: Fields) -> Code:
        """What a file says."""
        ints = {name: fields.take(name, int) for name in ("x_min", "x_max", "K", "zero")}
        code = Code(kind=fields.take("kind", str), step=fields.take("step", float), **ints)
        fields.end()
        return code


def tops(ceiling: float, scale: Tensor | None, code: Code, offset: float, channels: int):
    """The largest words of neurons that stop at `ceiling`, float32 [channels]; None: all 2^K - 1.

    top[c] = min(2^K - 1, floor(ceiling * scale[c] / step + offset)), in float64: the word that the
    ceiling itself is rounded to.

    Args:
        ceiling: the largest value of the dense network's activation, in its units.
        scale: float64 [channels], by which membranes of channels are multiplied; None: 1.
        code: of the words. offset: of the rounding, 0 or 0.5.
    """
    scale = torch.ones(channels, dtype=torch.float64) if scale is None else scale.double()
    # An alpha that is made for the ceiling divides it to a whole number but for float64's rounding.
    words = ceiling * scale / code.step * (1 + 2.0**-50)
    top = torch.floor(words + offset).clamp(0, code.x_max)
    return None if bool((top == code.x_max).all()) else top.to(torch.float32)
