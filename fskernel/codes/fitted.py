"""The fitted FS neuron of Stöckl & Maass (Nature Machine Intelligence 3:230, 2021): free T, h, d.

At step t = 1..K the neuron fires, z(t) = 1, if its membrane potential v has reached T(t); a spike
lowers v by h(t) and is worth d(t) to every synapse behind it, so the neuron stands for
`sum_t d(t)*z(t)`. The plain FS neuron is the case T = h = d = alpha*2^-t. Here the three are fitted
to a function such as SiLU (`fskernel.fit_neuron`).

In a network d(t) are integers in units of the step of the layer's codes, and what the layer keeps
is `zero + sum_t d(t)*z(t)`, the integer that its readers multiply by. The train itself is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fskernel.codes.code import Code

MOST_STEPS = 16
LARGEST_WORTH = 2**15  # of a spike, in units of the step
BITS = range(8, 14)  # of the codes that `quantised` chooses from
# By how much the rms of a neuron may grow because its d(t) are rounded.
_GROWTH = 1.05
_GRID = 4096  # membranes at which a neuron's values are looked at, beside its thresholds


@dataclass(frozen=True)
class FittedNeuron:
    """An FS neuron with thresholds, resets and weights of its own, in the units of its function.

    Args:
        thresholds: T(t), resets: h(t), weights: d(t), for t = 1..K; finite. T and h are rounded to
            float32, which is what kernels compare and subtract.
        function: what it was fitted to, in words.
        low, high: between which membranes it was.
        rms, worst: the root of the mean squared error there, as it was weighted, and the largest
            error at any membrane.

    Raises:
        ValueError: not K = 1..16 numbers each, or one that is not finite.
    """

    thresholds: tuple[float, ...]
    resets: tuple[float, ...]
    weights: tuple[float, ...]
    function: str = ""
    low: float = field(default=-math.inf)
    high: float = field(default=math.inf)
    rms: float = field(default=math.nan)
    worst: float = field(default=math.nan)

    def __post_init__(self) -> None:
        K = len(self.thresholds)
        for what in ("thresholds", "resets", "weights"):
            numbers = tuple(float(x) for x in getattr(self, what))
            if what != "weights":
                numbers = tuple(torch.tensor(numbers, dtype=torch.float32).tolist())
            if not 1 <= len(numbers) <= MOST_STEPS or len(numbers) != K:
                raise ValueError(
                    f"{what} has {len(numbers)} numbers: give one for each of K = 1 to "
                    f"{MOST_STEPS} time steps, as many as of the others"
                )
            if not all(map(math.isfinite, numbers)):
                raise ValueError(f"{what}={numbers}: all have to be finite float32 numbers")
            object.__setattr__(self, what, numbers)

    @property
    def K(self) -> int:
        """Time steps."""
        return len(self.thresholds)

    def spikes(self, v: Tensor) -> Tensor:
        """The trains of membranes v, float of any shape: bool [K, ...], first time step first."""
        return fitted_spikes(v.to(torch.float32), self.lines(self.weights))

    def __call__(self, v: Tensor) -> Tensor:
        """What the trains of membranes v stand for, sum_t d(t)*z(t): float64 of v's shape."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return torch.tensordot(weights, self.spikes(v).double(), 1)

    def lines(self, worth: Sequence[float]) -> Tensor:
        """Thresholds, resets and what spikes are worth, float32 [3, K], as kernels take them."""
        return torch.tensor([self.thresholds, self.resets, list(worth)], dtype=torch.float32)

    def membranes(self) -> Tensor:
        """Membranes that meet all that it may give between low and high: float32, ascending."""
        ends = (max(self.low, -1e4), min(self.high, 1e4))
        x = torch.linspace(*ends, _GRID, dtype=torch.float64).to(torch.float32)
        return torch.cat([x, torch.tensor([-math.inf, math.inf])]).sort().values


def fitted_spikes(v: Tensor, lines: Tensor) -> Tensor:
    """Trains step by step: z(t) = v >= T(t), then v -= h(t)*z(t), in float32.

    Args:
        v: float32 membranes. NaN never fires; +inf fires at every step.
        lines: float32 [3, K] of T, h and d.

    Returns:
        bool [K, ...].
    """
    train = []
    for threshold, reset in zip(*lines[:2].to(v.device), strict=True):
        fires = v >= threshold
        v = torch.where(fires, v - reset, v)
        train.append(fires)
    return torch.stack(train)


def fire_fitted(v: Tensor, lines: Tensor, zero: int, bits: int) -> tuple[Tensor, Tensor]:
    """Codes and spike counts of fitted neurons: clip(zero + sum_t d(t)*z(t), 0, 2^bits - 1).

    Args:
        v: float32 membranes.
        lines: float32 [3, K] of T, h and d, where d are whole numbers up to 2^15 in magnitude.
        zero: the code of zero.
        bits: of a code, 1..16.

    Returns:
        Codes of v's shape, uint8 for up to 8 bits, else int16 (of 16 bits the pattern); and the
        spikes of each neuron, uint8.
    """
    spikes = fitted_spikes(v, lines)
    worth = lines[2].to(v.device, torch.int32).view(-1, *[1] * v.dim())
    codes = (zero + (worth * spikes).sum(0, dtype=torch.int32)).clamp(0, 2**bits - 1)
    dtype = torch.uint8 if bits <= 8 else torch.int16
    return codes.to(dtype), spikes.sum(0, dtype=torch.uint8)


def train_lines(lines: Tensor) -> Tensor:
    """The same neurons, which give their trains as words of K bits: d(t) = 2^(K-t)."""
    K = lines.shape[1]
    worth = torch.tensor([2.0 ** (K - t) for t in range(1, K + 1)], device=lines.device)
    return torch.stack([lines[0], lines[1], worth])


def code_of(neurons: Sequence[FittedNeuron], bits: int) -> Code:
    """The code of what these neurons, which share one step, give: of so many bits."""
    met = torch.cat([neuron(neuron.membranes()) for neuron in neurons])
    low, high = min(0.0, float(met.min())), max(0.0, float(met.max()))
    if low == high:  # all give 0 everywhere: any step will do
        high = 1.0
    return Code.fitted(max(n.K for n in neurons), low, high, bits)


def quantised(neurons: Sequence[FittedNeuron]) -> tuple[Code, list[Tensor]]:
    """The code that neurons share, and their lines with d(t) in whole steps of it.

    The code has the fewest bits, 8 to 13, with which rounding d adds at most 5% to the rms of every
    neuron; 13 where none does. Errors of up to 16 rounded d add up, so that they are rounded
    together: whole numbers for which the rms of what all membranes between low and high give is
    as small as single and paired changes make it.

    Args:
        neurons: one or more, in the same units. One whose rms is not known gets 13 bits, unless
            its d are whole with fewer.

    Returns:
        The code, and float32 [3, K] of T, h and d for each neuron.

    Raises:
        ValueError: no neuron, or one whose d(t) exceed 2^15 steps even at 8 bits.
    """
    if not neurons:
        raise ValueError("neurons is empty: give one at least")
    best: tuple[Code, list[Tensor]] | None = None
    for bits in BITS:
        code = code_of(neurons, bits)
        made = [_rounded(neuron, code) for neuron in neurons]
        if any(float(lines[2].abs().max()) > LARGEST_WORTH for lines, _ in made):
            break
        best = code, [lines for lines, _ in made]
        if all(rms <= _allowed(n) for n, (_, rms) in zip(neurons, made, strict=True)):
            break
    if best is None:
        most = max(max(map(abs, n.weights)) for n in neurons)
        raise ValueError(
            f"a weight d(t) is {most:g} in magnitude, which is more than {LARGEST_WORTH} steps of "
            "an 8-bit code of what the neuron gives: fit one whose weights cancel out less"
        )
    return best


def _allowed(neuron: FittedNeuron) -> float:
    """The rms that rounding may have, which adds to the neuron's as independent errors do."""
    known = neuron.rms if math.isfinite(neuron.rms) else 0.0
    return 1e-9 + known * math.sqrt(_GROWTH**2 - 1)


def _rounded(neuron: FittedNeuron, code: Code) -> tuple[Tensor, float]:
    """Lines with whole d, and the rms by which they miss those that are not, in real units."""
    spikes = neuron.spikes(neuron.membranes()).double().T  # [membranes, K]
    exact = torch.tensor(neuron.weights, dtype=torch.float64) / code.step
    whole = _nearest_whole(exact, spikes.T @ spikes / len(spikes))
    lines = neuron.lines(whole.tolist())
    codes, _ = fire_fitted(neuron.membranes(), lines, code.zero, code.bits)
    missed = (codes.double() - code.zero - spikes @ exact) * code.step
    return lines, float(missed.square().mean().sqrt())


def _nearest_whole(exact: Tensor, gram: Tensor) -> Tensor:
    """Whole numbers n with a small (n - exact)' gram (n - exact): float64 [K].

    From the rounded ones on, the best change by one of one or of two numbers is made until none
    helps.
    """
    K = len(exact)
    ones = torch.eye(K, dtype=torch.float64)
    pairs = [ones[i] + sign * ones[j] for i in range(K) for j in range(i) for sign in (1, -1)]
    moves = torch.stack([*ones, *pairs])
    moves = torch.cat([moves, -moves])
    curve = torch.einsum("mi,ij,mj->m", moves, gram, moves)
    whole = exact.round()
    while True:
        gain = curve + 2 * moves @ (gram @ (whole - exact))
        best = int(gain.argmin())
        if not float(gain[best]) < -1e-12:
            return whole
        whole = whole + moves[best]
