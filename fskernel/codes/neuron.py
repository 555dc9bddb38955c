"""The FS neuron of Stöckl & Maass, "Classifying Images with Few Spikes per Neuron".

At step t = 1..K the neuron fires, z(t) = 1, if its membrane potential v has reached the threshold
`T(t) = alpha*2^-t`; a spike lowers v by T(t) and is worth T(t) to every synapse behind it. The
train is therefore the K-bit binary expansion of v, most significant bit first, and is kept as one
integer, the spike word q: bit K-t of q is z(t), and `sum_t T(t)*z(t) = q*step` with
`step = alpha*2^-K`.

Membranes are given here in units of the last threshold (v/step), where T(t) is 2^(K-t).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from fskernel.torch_rules import compiling

MAX_K = 15
GRADED_LIMIT = 32767  # largest magnitude of a graded value, which is int16
ROUNDINGS = ("nearest", "floor")


@dataclass(frozen=True)
class FSNeuron:
    """Parameters of an FS neuron.

    Args:
        K: time steps, 1..15.
        alpha: range; the largest word stands for alpha*(1 - 2^-K).
        rounding: "floor" is the paper's neuron: the train stands for a number within alpha*2^-K
            below v. "nearest" starts the membrane half a last threshold higher, which halves that.

    Raises:
        TypeError: K not an integer, alpha not a real number, rounding not a string.
        ValueError: K outside 1..15, alpha not positive and finite, or so large or small that its
            thresholds leave the normal float32 numbers; unknown rounding.
    """

    K: int
    alpha: float
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        K = check_K(self.K)
        alpha = _check_alpha(self.alpha, K)
        if not isinstance(self.rounding, str):
            raise TypeError(f"rounding={self.rounding!r} is not a string: use one of {ROUNDINGS}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding={self.rounding!r} is unknown: use one of {ROUNDINGS}")
        object.__setattr__(self, "K", K)  # plain numbers, whatever scalar type was given
        object.__setattr__(self, "alpha", alpha)

    @classmethod
    def paper(cls) -> FSNeuron:
        """The paper's setting for every layer of its ResNets: K = 10, alpha = 25, floor."""
        return cls(10, 25.0, "floor")

    @property
    def step(self) -> float:
        """The last threshold, alpha*2^-K: what one unit of a spike word stands for."""
        return math.ldexp(self.alpha, -self.K)

    @property
    def inv_step(self) -> float:
        """1/step, rounded once to float32: what the encoder multiplies by."""
        if torch.compiler.is_dynamo_compiling():
            return compiling.float32(compiling.constant(1.0 / self.step))
        return float(torch.tensor(1.0 / self.step, dtype=torch.float32))

    @property
    def max_word(self) -> int:
        """The word of a neuron that fires at every step, 2^K - 1."""
        return 2**self.K - 1

    @property
    def offset(self) -> float:
        """What the membrane starts with, in units of the last threshold."""
        return 0.5 if self.rounding == "nearest" else 0.0

    @property
    def word_dtype(self) -> torch.dtype:
        """uint8 for K <= 8, int16 above."""
        return word_dtype(self.K)

    def thresholds(self) -> Tensor:
        """T(t) = alpha*2^-t for t = 1..K: float64 [K], in the units of alpha."""
        return torch.tensor(
            [math.ldexp(self.alpha, -t) for t in range(1, self.K + 1)], dtype=torch.float64
        )


def check_K(K: object) -> int:
    """K as a plain int, or an error that names it.

    Raises:
        TypeError: K is not an integer (a bool is not one).
        ValueError: K outside 1..15.
    """
    kind = str(getattr(K, "dtype", type(K).__name__))
    try:
        value = operator.index(K)  # takes Python, numpy and torch integers, refuses 8.0
    except TypeError:
        value = None
    if value is None or kind in ("bool", "torch.bool"):
        raise TypeError(f"K={K!r} is not an integer: give the number of time steps, 1..{MAX_K}")
    if not 1 <= value <= MAX_K:
        raise ValueError(
            f"K={value} is outside 1..{MAX_K}: a spike word holds at most {MAX_K} steps"
        )
    return value


def _check_alpha(alpha: object, K: int) -> float:
    if isinstance(alpha, Tensor) and alpha.dim() == 0 and not alpha.is_complex():
        alpha = alpha.item()
    if isinstance(alpha, bool) or not isinstance(alpha, Real):
        raise TypeError(f"alpha={alpha!r} is not a real number: give the range of the neuron")
    value = float(alpha)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"alpha={value} must be positive and finite: it is the range of the neuron"
        )
    # Kernels hold step, 1/step and the decoded values as float32.
    low, high = 2.0 ** (K - 126), 2.0**127
    if not low <= value <= high:
        raise ValueError(
            f"alpha={value} is outside {low:.3g}..{high:.3g}, where the thresholds of K={K} steps "
            "are normal float32 numbers: rescale the layer"
        )
    return value


def word_dtype(K: int) -> torch.dtype:
    """The dtype of words of K steps, uint8 up to K = 8, and of graded values (K = 0): int16."""
    return torch.uint8 if 1 <= K <= 8 else torch.int16


def check_words(words: Tensor, K: int, *, check_range: bool = True) -> None:
    """Refuse what is not a tensor of spike words of K steps.

    Raises:
        TypeError: not a tensor, or not of the dtype of such words.
        ValueError: a word outside 0..2^K - 1 (with check_range, which reads every word).
    """
    if not isinstance(words, Tensor):
        raise TypeError(f"words is a {type(words).__name__}: give a tensor of spike words")
    if words.dtype != word_dtype(K):
        raise TypeError(f"words is {words.dtype}: spike words of K={K} are {word_dtype(K)}")
    if check_range and K != 8 and words.numel():
        low, high = (int(bound) for bound in torch.aminmax(words))
        if low < 0 or high >= 2**K:
            worst = low if low < 0 else high
            raise ValueError(
                f"words contains {worst}, outside 0..{2**K - 1}: these are not words of K={K} steps"
            )


def _check_membrane(v: Tensor) -> None:
    if not isinstance(v, Tensor) or v.dtype != torch.float32:
        kind = v.dtype if isinstance(v, Tensor) else type(v).__name__
        raise TypeError(f"v is {kind}: a membrane is a float32 tensor")


def fire(v: Tensor, K: int) -> Tensor:
    """The words of FS neurons with membrane v: floor(clip(v, 0, 2^K - 1)), the closed form.

    Args:
        v: float32 membrane in units of the last threshold. NaN and negative values give no spike,
            +inf and everything from 2^K - 1 on all K.
        K: time steps, 1..15.

    Returns:
        Words of v's shape: uint8 for K <= 8, int16 above.

    Raises:
        TypeError: v is not a float32 tensor, K not an integer.
        ValueError: K outside 1..15.
    """
    _check_membrane(v)
    K = check_K(K)
    return v.nan_to_num(nan=0.0).clamp(0, 2**K - 1).floor().to(word_dtype(K))


def spike_train(v: Tensor, K: int, strict: bool = False) -> Tensor:
    """Eqs. (1) and (2) of the paper, step by step: z(t) = v >= T(t), then v -= T(t)*z(t).

    Args:
        v: float32 or float64 membrane in units of the last threshold, so that T(t) = 2^(K-t).
        K: time steps, 1..15.
        strict: compare with > as the authors' loop does; only the reference knows this option.

    Returns:
        bool [K, ...], first time step first.

    Raises:
        TypeError: v is not float32 or float64, K not an integer.
        ValueError: K outside 1..15.
    """
    if not isinstance(v, Tensor) or v.dtype not in (torch.float32, torch.float64):
        kind = v.dtype if isinstance(v, Tensor) else type(v).__name__
        raise TypeError(f"v is {kind}: a membrane is a float32 or float64 tensor")
    K = check_K(K)
    train = []
    for t in range(1, K + 1):
        threshold = 2.0 ** (K - t)
        fires = v > threshold if strict else v >= threshold
        v = torch.where(fires, v - threshold, v)
        train.append(fires)
    return torch.stack(train)


def fire_loop(v: Tensor, K: int, strict: bool = False) -> Tensor:
    """The words of `fire`, by the literal loop over the K steps.

    Args:
        v: float32 membrane in units of the last threshold.
        K: time steps, 1..15.
        strict: the authors' > instead of the paper's >=; differs where v is exactly a threshold.

    Returns:
        Words of v's shape: uint8 for K <= 8, int16 above.

    Raises:
        TypeError, ValueError: as `fire`.
    """
    _check_membrane(v)
    return from_spikes(spike_train(v, K, strict))


def graded(v: Tensor, limit: int = GRADED_LIMIT) -> Tensor:
    """Signed graded values: clip(rint(v), -limit, limit), ties to even, NaN gives 0.

    Args:
        v: float32, any shape.
        limit: 1..32767.

    Returns:
        int16 of v's shape.

    Raises:
        TypeError: v is not a float32 tensor.
        ValueError: limit outside 1..32767.
    """
    _check_membrane(v)
    if not 1 <= limit <= GRADED_LIMIT:
        raise ValueError(f"limit={limit} is outside 1..32767: graded values are int16")
    return v.nan_to_num(nan=0.0).round().clamp(-limit, limit).to(torch.int16)


def to_spikes(words: Tensor, K: int) -> Tensor:
    """The trains behind spike words: z(t) is bit K-t.

    Args:
        words: uint8 (K <= 8) or int16 (K > 8), any shape.
        K: time steps, 1..15.

    Returns:
        bool [K, ...], most significant bit first, which is the first time step.

    Raises:
        TypeError: words of another dtype, K not an integer.
        ValueError: K outside 1..15, or a word outside 0..2^K - 1.
    """
    K = check_K(K)
    check_words(words, K)
    return torch.stack([((words >> (K - t)) & 1).bool() for t in range(1, K + 1)])


def from_spikes(spikes: Tensor) -> Tensor:
    """The words of spike trains, the inverse of `to_spikes`.

    Args:
        spikes: bool [K, ...], first time step first, K = 1..15.

    Returns:
        Words of shape [...]: uint8 for K <= 8, int16 above.

    Raises:
        TypeError: spikes is not a bool tensor.
        ValueError: no first dimension, or one outside 1..15.
    """
    if not isinstance(spikes, Tensor) or spikes.dtype != torch.bool:
        kind = spikes.dtype if isinstance(spikes, Tensor) else type(spikes).__name__
        raise TypeError(f"spikes is {kind}: give a bool tensor [K, ...]")
    if spikes.dim() == 0:
        raise ValueError("spikes has no dimensions: give a bool tensor [K, ...]")
    K = check_K(spikes.shape[0])
    words = spikes.new_zeros(spikes.shape[1:], dtype=torch.int16)
    for fires in spikes:
        words = words * 2 + fires
    return words.to(word_dtype(K))


def popcount(words: Tensor) -> Tensor:
    """Spikes of each word, which is its set bits.

    Args:
        words: uint8 or int16, any shape; of 16 steps the pattern of their bits.

    Returns:
        uint8 of the same shape.

    Raises:
        TypeError: words of another dtype.
    """
    if words.dtype not in (torch.uint8, torch.int16):
        raise TypeError(f"words is {words.dtype}: spike words are uint8 or int16")
    bits = words.to(torch.int32)
    # Sums of neighbouring bits, then of pairs, nibbles and bytes, side by side in one integer.
    bits = (bits & 0x5555) + ((bits >> 1) & 0x5555)
    bits = (bits & 0x3333) + ((bits >> 2) & 0x3333)
    bits = (bits & 0x0F0F) + ((bits >> 4) & 0x0F0F)
    return ((bits & 0x00FF) + ((bits >> 8) & 0x00FF)).to(torch.uint8)
