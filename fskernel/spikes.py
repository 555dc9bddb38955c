"""Spike words together with the neuron that emitted them, and the way from and to real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.exact_float import fma
from fskernel.codes.fitted import FittedNeuron
from fskernel.codes.neuron import FSNeuron, check_words, fire, popcount, to_spikes
from fskernel.kernels import ops
from fskernel.torch_rules.float_environment import in_float_environment
from fskernel.torch_rules.gradient import refuse_gradient


class _Words:
    """Trains of a layer's neurons, each as a word."""

    words: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape of the layer, images first; the time steps are inside the words."""
        return self.words.shape

    @property
    def device(self) -> torch.device:
        """Where the words lie."""
        return self.words.device

    def count(self) -> Tensor:
        """Spikes of each image: int64 [N]."""
        return popcount(self.words).unsqueeze(-1).flatten(1).sum(1, dtype=torch.int64)


class SpikeTensor(_Words):
    """The spikes of a layer of FS neurons: one word a neuron.

    Args:
        words: uint8 (K <= 8) or int16 (K > 8), at least one dimension, the first being the image.
            Four-dimensional words have the shape [N, C, H, W] and are kept in channels_last memory.
        neuron: what the words mean.
        check: compare every word with the neuron's largest; switch it off only for words that are
            right by construction.

    Raises:
        TypeError: neuron is not an FSNeuron, or words not a tensor of the neuron's word dtype.
        ValueError: a word outside 0..2^K - 1, or no dimension.
    """

    def __init__(self, words: Tensor, neuron: FSNeuron, *, check: bool = True):
        if not isinstance(neuron, FSNeuron):
            raise TypeError(f"neuron is a {type(neuron).__name__}: give an FSNeuron")
        check_words(words, neuron.K, check_range=check)
        if words.dim() == 0:
            raise ValueError("words has no dimensions: the first one counts the images")
        if words.dim() == 4:
            words = words.contiguous(memory_format=torch.channels_last)
        self.words = words
        self.neuron = neuron

    @in_float_environment
    def values(self) -> Tensor:
        """What the trains stand for, `sum_t T(t)*z(t) = word*step`: float32 of the same shape.

        The product is taken in float64 and then rounded to float32.
        """
        if not ops.runs_on(self.words):
            return (self.words.to(torch.float64) * self.neuron.step).to(torch.float32)
        step = self.neuron.step
        return _each(self.words, lambda x: ops.decode(x.permute(0, 2, 3, 1).contiguous(), step))

    def spikes(self) -> Tensor:
        """The trains: bool [K, ...], first time step first."""
        return to_spikes(self.words, self.neuron.K)

    def of_image(self, image: int) -> SpikeTensor:
        """The spikes of one image, of all its neurons in a row, on the CPU."""
        return SpikeTensor(self.words[image].cpu().flatten(), self.neuron, check=False)

    def to(self, device: torch.device | str) -> SpikeTensor:
        """The same spikes on another device."""
        return SpikeTensor(self.words.to(device), self.neuron, check=False)

    def __repr__(self) -> str:
        return f"SpikeTensor(shape={tuple(self.shape)}, {self.neuron}, device={self.device})"


class FittedSpikes(_Words):
    """The spikes of a layer of fitted neurons: one train a neuron, as a word of K bits.

    Args:
        words: [N, C, H, W], uint8 for K <= 8, else int16: z(t) is bit K-t, also of K = 16 steps,
            where it is the pattern of the word that counts and not its sign.
        lines: float32 [3, K], thresholds, resets and what a spike of each step is worth, the last
            in steps of the code.
        code: what the network makes of the trains: where their sums are clipped.
        function: what the neurons were fitted to, in words.
    """

    def __init__(self, words: Tensor, lines: Tensor, code: Code, function: str = ""):
        self.words, self.lines, self.code, self.function = words, lines, code, function

    @property
    def neuron(self) -> FittedNeuron:
        """Thresholds, resets and what a spike of each step is worth, in the function's units."""
        thresholds, resets, worth = self.lines.double().cpu()
        worth = (worth * self.code.step).tolist()
        return FittedNeuron(thresholds.tolist(), resets.tolist(), worth, self.function)

    def spikes(self) -> Tensor:
        """The trains: bool [K, ...], first time step first."""
        K, bits = self.lines.shape[1], self.words.to(torch.int32)
        return torch.stack([((bits >> (K - t)) & 1).bool() for t in range(1, K + 1)])

    @in_float_environment
    def values(self) -> Tensor:
        """What the trains stand for, `sum_t d(t)*z(t)`, clipped as codes are: float32."""
        worth = self.lines[2].to(self.device, torch.float64)  # whole, so that sums are exact
        codes = torch.tensordot(worth, self.spikes().double(), 1)
        codes = codes.clamp(-self.code.zero, self.code.x_max - self.code.zero)
        return (codes * self.code.step).to(torch.float32)

    def of_image(self, image: int) -> FittedSpikes:
        """The spikes of one image, of all its neurons in a row, on the CPU."""
        return FittedSpikes(self.words[image].cpu().flatten(), *self._rest())

    def to(self, device: torch.device | str) -> FittedSpikes:
        """The same spikes on another device."""
        return FittedSpikes(self.words.to(device), *self._rest())

    def _rest(self) -> tuple:
        return self.lines, self.code, self.function

    def __repr__(self) -> str:
        neuron = f"FittedNeuron(K={self.lines.shape[1]}, function={self.function!r})"
        return f"FittedSpikes(shape={tuple(self.shape)}, {neuron}, device={self.device})"


@in_float_environment
def encode(
    x: Tensor,
    neuron: FSNeuron | None = None,
    *,
    K: int | None = None,
    alpha: float | None = None,
    rounding: str | None = None,
) -> SpikeTensor:
    """Let FS neurons with the membranes x fire.

    The membrane in units of the last threshold is fma(x, 1/step, offset) in float32, with 1/step
    rounded once to float32. Negative values and NaN give no spike, +inf all K.

    Args:
        x: floating point, at least one dimension; what is not float32 counts as rounded to it.
        neuron: the neuron; or instead of it
        K: its time steps,
        alpha: its range
        rounding: and its rounding, "nearest" unless given.

    Returns:
        A SpikeTensor of x's shape.

    Raises:
        TypeError: x is not a floating-point tensor; neither or both of neuron and K, alpha given.
        RuntimeError: x requires grad in grad mode, or carries a tangent: a spike train has no
            gradient.
        ValueError: parameters out of range, see FSNeuron.
    """
    if neuron is None:
        if K is None or alpha is None:
            raise TypeError("encode needs a neuron, or both K= and alpha=")
        neuron = FSNeuron(K, alpha, "nearest" if rounding is None else rounding)
    elif not (K is None and alpha is None and rounding is None):
        raise TypeError("encode takes a neuron or K=, alpha= and rounding=, not both")
    elif not isinstance(neuron, FSNeuron):
        raise TypeError(f"neuron is a {type(neuron).__name__}: give an FSNeuron, or K= and alpha=")
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}: give a floating-point tensor")
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}: encode takes floating-point values, use x.float()")
    refuse_gradient(x=x)
    x = x.detach()
    if ops.runs_on(x):
        given = x if x.is_cpu and x.dtype in ops.FLOATS else x.to(torch.float32)
        rule = (neuron.inv_step, neuron.offset, neuron.K)
        words = _each(given, lambda x: ops.encode_words(x, *rule))
        return SpikeTensor(words, neuron, check=False)
    x = x.to(torch.float32)
    inv_step = torch.tensor(neuron.inv_step, dtype=torch.float32, device=x.device)
    offset = torch.tensor(neuron.offset, dtype=torch.float32, device=x.device)
    return SpikeTensor(fire(fma(x, inv_step, offset), neuron.K), neuron, check=False)


def _each(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """What an operator [N, C, H, W] -> [N, H, W, C] makes of each element of x, of any rank."""
    if x.dim() == 4:
        return function(x).permute(0, 3, 1, 2)
    rows = math.gcd(x.numel(), 64)  # which threads share
    return function(x.reshape(1, 1, rows, x.numel() // rows)).view(x.shape)


def decode(spikes: SpikeTensor) -> Tensor:
    """The real numbers that spike trains stand for: float32, `SpikeTensor.values`.

    Raises:
        TypeError: spikes is not a SpikeTensor; bare words do not know their step.
    """
    if not isinstance(spikes, SpikeTensor):
        raise TypeError(
            f"spikes is a {type(spikes).__name__}: give a SpikeTensor, words alone have no unit"
        )
    return spikes.values()
