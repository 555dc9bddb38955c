"""Fitting a fitted FS neuron (fskernel/codes/fitted.py) to a function, without gradients.

Given the trains, the best d(t) are weighted least squares. T(t) and h(t) are found by annealing:
many neurons are changed at random, side by side, worse ones are accepted less and less, and now and
then the best take the places of the worst. They start as binary expansions with some steps kept for
what is not linear. No gradients are used: what a neuron gives is a step function of T and h.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor, nn

from fskernel.activations import FURTHEST, Activation
from fskernel.codes.fitted import MOST_STEPS, FittedNeuron
from fskernel.progress import progress_bar

DENSITY = (-0.1, 1.5)  # mean and standard deviation of what most membranes are near
_COARSE, _FINE, _MEASURED = 400, 1600, 6000  # membranes looked at: annealing, polish, result
_BEYOND = (1 / 32, 1 / 8, 1 / 2, 2.0, 8.0)  # ranges, by which some of them are outside
_EVEN = 1 / 8  # of the membranes that a neuron is tuned on are spread evenly over its range
_TUNED = 1000  # such membranes
_RIDGE = 1e-6  # keeps the weights of steps that hardly ever fire small
_HOT, _WARM, _COLD = 0.1, 0.03, 0.005  # temperatures, of the logarithm of the error
_EVERY = 25  # rounds, the best take the places of the worst
_PARTS = 100  # of the progress bar


def fit_neuron(
    function: str | Activation | nn.Module | Callable[[Tensor], Tensor],
    K: int,
    range: tuple[float, float],
    *,
    density: tuple[float, float] | None = None,
    restarts: int = 32,
    rounds: int = 4000,
    spike_weight: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> FittedNeuron:
    """A fitted FS neuron of K time steps that gives nearly what a function gives.

    What is made small is mse*(1 + spike_weight*spikes), with the mean squared error and the mean
    spikes of a neuron. Membranes count half by how they are spread around 0 and half evenly over
    the range. Below the range the neuron gives about what it gives at its lower end, above it about
    what it gives at its upper end: some membranes out there count too, up to 10,000 away. The same
    seed gives the same neuron on the same machine with the same number of threads.

    Args:
        function: the name of an activation ("silu", "gelu", "sigmoid", "hardswish", ...), an
            activation, or an elementwise function of a float64 tensor of any shape, finite in the
            range.
        K: time steps, 1..16.
        range: the smallest and the largest membrane, in the units of the function.
        density: mean and standard deviation of the membranes' normal half. Default: (-0.1, 1.5).
        restarts: neurons that are changed side by side, 8 or more.
        rounds: changes of each of them; a neuron of 16 steps gains from 10,000 and more. About 500
            rounds of 32 neurons take a second.
        spike_weight: by which part of the error a spike more is as bad, 0 or more.
        seed: of all random numbers.
        progress: shows a bar, which needs rich.

    Returns:
        The neuron. Its rms is weighted as above, its worst error that anywhere in the range.

    Raises:
        TypeError, ValueError: an argument that is not as above, before any work.
    """
    K, low, high = _checked_steps(K), *_checked_range(range)
    normal = _checked_density(density)
    _check_effort(restarts, rounds, spike_weight, seed)
    function, name = _named(function)
    _check_function(function, name, low, high)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad(), progress_bar(f"fitting {name}", _PARTS, progress) as told:
        search = _Search(function, low, high, _spread(low, high, normal), spike_weight, generator)
        T, h = search.anneal(*search.starts(K, restarts), rounds, _COARSE, _HOT, told)
        T, h = search.polish(T, h, restarts, max(1, rounds // 10), _FINE)
        neuron = _weighted(function, name, low, high, search.places(_MEASURED), T, h)
        rms, worst, _ = errors_of(neuron, function, normal)
        return replace(neuron, rms=rms, worst=worst)


def tuned(
    neurons: Sequence[FittedNeuron],
    function: Callable[[Tensor], Tensor],
    seen: Tensor,
    low: float,
    high: float,
    *,
    rounds: int = 800,
    seed: int = 0,
) -> FittedNeuron:
    """The best of some neurons for membranes that were seen, and it made better for these.

    d is the least squares for them, T and h are changed at random as long as that helps. Some
    places all over the range and outside count too, so that it stays sensible there.

    Args:
        neurons: of one function and K.
        function: the same, elementwise, of float64 tensors.
        seen: membranes, a float tensor of one dimension. low, high: between which all lie that
            matter; those outside count as the ends do.
        rounds: changes of each of 32 neurons side by side. seed: of all random numbers.

    Returns:
        The neuron. Its rms is that of the membranes that were seen.
    """
    seen = seen.double().clamp(low, high)
    generator = torch.Generator().manual_seed(seed)

    def places(samples: int) -> Tensor:
        even = int(samples * _EVEN)
        some = seen.sort().values[torch.linspace(0, len(seen) - 1, samples - even).long()]
        spread = torch.linspace(low, high, even, dtype=torch.float64)
        return _with_beyond(low, high, torch.cat([some, spread]))

    with torch.no_grad():
        search = _Search(function, low, high, places, 0.01, generator)
        T, h = (
            torch.tensor([getattr(neuron, what) for neuron in neurons])
            for what in ("thresholds", "resets")
        )
        order = search.score(_TUNED)(T, h).argsort()
        best = int(order[0])
        first = order[torch.arange(32) % min(len(order), 4)]
        T, h = search.anneal(T[first], h[first], rounds, _COARSE, _WARM, lambda _: None)
        T, h = search.polish(T, h, 32, rounds // 4, _TUNED)
        neuron = _weighted(function, neurons[best].function, low, high, places(_MEASURED), T, h)
        missed = neuron(seen) - function(seen)
        worst = float(missed.abs().max())
        return replace(neuron, rms=float(missed.square().mean().sqrt()), worst=worst)


class _Search:
    """Random changes of neurons for one function; T and h are float32 [neurons, K]."""

    def __init__(self, function, low, high, places, spike_weight, generator):
        self.function, self.low, self.high, self.places = function, low, high, places
        self.span = high - low
        self.spike_weight, self.generator = spike_weight, generator
        ends = torch.tensor([low, high], dtype=torch.float64)
        self.bias = float(function(ends)[0])  # what a silent neuron would have to give

    def anneal(self, T, h, rounds, samples, hot, told):
        """The best T and h [K] that are met from these [neurons, K] on, on so many membranes."""
        neurons, score = len(T), self.score(samples)
        error = score(T, h)
        best, found = float(error.min()), (T[error.argmin()], h[error.argmin()])
        few = max(1, neurons // 8)
        for i in torch.arange(rounds).tolist():
            heat = hot * (_COLD / hot) ** (i / rounds)
            changed = self._changed(T, h)
            errors = score(*changed)
            accepted = errors.log() < error.log() - heat * self._uniform(neurons).log()
            T = torch.where(accepted[:, None], changed[0], T)
            h = torch.where(accepted[:, None], changed[1], h)
            error = torch.where(accepted, errors, error)
            if float(error.min()) < best:
                best, found = float(error.min()), (T[error.argmin()], h[error.argmin()])
            if i % _EVERY == _EVERY - 1:
                order = error.argsort()
                for kept in (T, h, error):
                    kept[order[-few:]] = kept[order[:few]]
            if i * _PARTS // rounds != (i + 1) * _PARTS // rounds:
                told(f"error {best**0.5:.3g}")
        return found

    def polish(self, T, h, neurons, rounds, samples):
        """T and h [K] after changes that make the error on so many membranes smaller."""
        score = self.score(samples)
        best = float(score(T[None], h[None]))
        for _ in torch.arange(rounds).tolist():
            changed = self._changed(T.repeat(neurons, 1), h.repeat(neurons, 1))
            errors = score(*changed)
            if float(errors.min()) < best:
                best = float(errors.min())
                T, h = (part[errors.argmin()] for part in changed)
        return T, h

    def _uniform(self, *shape):
        return torch.rand(shape, generator=self.generator)

    def _normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def starts(self, K, neurons):
        """Binary expansions of what is above 0, or of the range, and some random steps."""
        T, h = torch.empty(neurons, K), torch.empty(neurons, K)
        far = torch.tensor([-2.0 * FURTHEST - abs(self.low)])
        for c in torch.arange(neurons).tolist():
            # A neuron that gives something below the range needs a step that always fires.
            needed = K > 1 and abs(self.bias) > 0.02
            first, reset = (far, torch.zeros(1)) if needed else (torch.empty(0),) * 2
            if self.low < 0 and K > 2 and (self.high <= 0 or c % 2):
                bottom = torch.tensor([self.low])  # the range is shifted to begin at 0
                first, reset = torch.cat([first, bottom]), torch.cat([reset, bottom])
                top = self.span
            else:
                top = self.high if self.high > 0 else self.span
            rest = K - len(first)
            random = int(self._uniform(1) * rest / 2)
            halves = top * 2.0 ** -torch.arange(1.0, rest - random + 1)
            places = self.low + self.span * self._uniform(random)
            lowered = self.span / 8 * self._normal(random)
            T[c] = torch.cat([first, halves, places])
            h[c] = torch.cat([reset, halves, lowered])
        return T, h

    def _changed(self, T, h):
        """Each neuron with another threshold or reset, or with a step in another place."""
        neurons, K = T.shape
        rows = torch.arange(neurons)
        u = self._uniform(5, neurons)
        a, b = (u[:2] * K).long().clamp(max=K - 1)
        change = self.span * 10 ** (-4 * u[2]) * self._normal(neurons)
        moved = u[3] < 0.15
        b = torch.where(moved, b, a)
        # Step a goes to place b, and those between close up.
        j = torch.arange(K).expand(neurons, -1)
        a, b = a[:, None], b[:, None]
        source = torch.where((a <= j) & (j < b), j + 1, torch.where((b < j) & (j <= a), j - 1, j))
        source = torch.where(j == b, a, source)
        T, h = T.gather(1, source), h.gather(1, source)
        at = b[:, 0]
        both, threshold = u[4] < 0.5, u[4] < 0.75
        anew = moved & (u[4] < 0.5)
        place = self.low + self.span * self._uniform(neurons)
        shifted = T[rows, at] + change * (~moved & threshold)
        T[rows, at] = torch.where(anew, place, shifted)
        shifted = h[rows, at] + change * (~moved & (both | ~threshold))
        h[rows, at] = torch.where(anew, change, shifted)
        return T, h

    def score(self, samples):
        """What is made small, of T and h [neurons, K]: float64 [neurons]."""
        x = self.places(samples)
        y = self.function(x.clamp(self.low, self.high)).float()
        x, buffers = x.float(), {}

        def score(T, h):
            neurons, K = T.shape
            if (neurons, K) not in buffers:
                buffers[neurons, K] = y.repeat(neurons, K + 1, 1)
            rows = buffers[neurons, K]
            _fire(x, T, h, rows)
            gram = (rows @ rows.mT / len(x)).double()
            spikes = gram.diagonal(dim1=1, dim2=2)[:, :K].sum(1)
            ridge = _RIDGE * torch.eye(K, dtype=torch.float64)
            root = torch.linalg.cholesky(gram[:, :K, :K] + ridge)
            explained = torch.linalg.solve_triangular(root, gram[:, :K, K:], upper=False)
            mse = (gram[:, K, K] - explained.square().sum((1, 2))).clamp(min=1e-12)
            return mse * (1 + self.spike_weight * spikes)

        return score


def _fire(x: Tensor, T: Tensor, h: Tensor, rows: Tensor) -> None:
    """Trains of neurons [neurons, K] for membranes x, into float32 rows [neurons, K or more, x]."""
    v = x.expand(len(T), -1).clone()
    for t in torch.arange(T.shape[1]).tolist():
        fires = torch.ge(v, T[:, t : t + 1], out=rows[:, t])
        v.addcmul_(fires, h[:, t : t + 1], value=-1)


def _spread(low: float, high: float, normal: tuple[float, float]) -> Callable[[int], Tensor]:
    """Gives so many places that follow the density, and some beyond both ends: float64."""
    places = torch.linspace(low, high, 20001, dtype=torch.float64)
    near = torch.softmax(-0.5 * ((places - normal[0]) / normal[1]).square(), 0)
    total = (near / 2 + 0.5 / len(places)).cumsum(0)

    def membranes(samples: int) -> Tensor:
        parts = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
        inside = places[torch.searchsorted(total, parts).clamp(max=len(places) - 1)]
        return _with_beyond(low, high, inside)

    return membranes


def _with_beyond(low: float, high: float, inside: Tensor) -> Tensor:
    """Membranes, and some beyond both ends."""
    beyond = inside.new_tensor([x * (high - low) for x in _BEYOND] + [FURTHEST])
    return torch.cat([low - beyond, inside, high + beyond])


def _weighted(function, name, low, high, x, T, h) -> FittedNeuron:
    """The neuron with weights by least squares in float64 on membranes x."""
    y = function(x.clamp(low, high))
    numbers = tuple(T.tolist()), tuple(h.tolist())
    Z = FittedNeuron(*numbers, tuple(T.tolist())).spikes(x).double()
    gram = Z @ Z.mT / len(x) + _RIDGE * torch.eye(len(T), dtype=torch.float64)
    d = torch.linalg.solve(gram, Z @ y / len(x)).to(torch.float32)
    return FittedNeuron(*numbers, tuple(d.tolist()), name, low, high)


def errors_of(
    neuron: FittedNeuron,
    function: Callable[[Tensor], Tensor],
    density: tuple[float, float] = DENSITY,
) -> tuple[float, float, float]:
    """The rms and the largest error of a fitted neuron between its ends, and its mean spikes.

    Args:
        neuron: with finite low and high.
        function: elementwise, of a float64 tensor.
        density: mean and standard deviation of the normal half of the membranes.

    Returns:
        rms and spikes weighted as `fit_neuron` says, the largest error at any membrane.
    """
    beyond = len(_BEYOND) + 1
    x = _spread(neuron.low, neuron.high, density)(_MEASURED)[beyond:-beyond]
    missed = neuron(x) - function(x)
    even = torch.linspace(neuron.low, neuron.high, _MEASURED, dtype=torch.float64)
    worst = max(float(missed.abs().max()), float((neuron(even) - function(even)).abs().max()))
    spikes = float(neuron.spikes(x).double().sum(0).mean())
    return float(missed.square().mean().sqrt()), worst, spikes


def _checked_steps(K: object) -> int:
    try:
        steps = None if isinstance(K, bool) else operator.index(K)
    except TypeError:
        steps = None
    if steps is None:
        raise TypeError(f"K={K!r} is not an integer: give the time steps, 1..{MOST_STEPS}")
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"K={steps} is outside 1..{MOST_STEPS}: give so many time steps")
    return steps


def _two_numbers(what: str, given: object, meaning: str) -> tuple[float, float]:
    """Two finite numbers, or an error."""
    pair = tuple(given) if isinstance(given, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(x, Real) and not isinstance(x, bool) for x in pair):
        raise TypeError(f"{what}={given!r} is no pair of numbers: give {meaning}")
    if not all(map(math.isfinite, pair)):
        raise ValueError(f"{what}={given!r} is not finite: give {meaning}")
    return float(pair[0]), float(pair[1])


def _checked_range(given: object) -> tuple[float, float]:
    low, high = _two_numbers("range", given, "the smallest and the largest membrane")
    if not low < high or max(-low, high) > FURTHEST:
        raise ValueError(
            f"range={given!r}: the first number has to be the smaller one, and none may exceed "
            f"{FURTHEST:g} in magnitude"
        )
    return low, high


def _checked_density(given: object) -> tuple[float, float]:
    meaning = "the mean and the standard deviation of the membranes"
    mean, std = DENSITY if given is None else _two_numbers("density", given, meaning)
    if not std > 0:
        raise ValueError(f"density={given!r}: the standard deviation has to be positive")
    return mean, std


def _check_effort(restarts, rounds, spike_weight, seed) -> None:
    for what, value, least in (("restarts", restarts, 8), ("rounds", rounds, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{what}={value!r} is not an integer: give {least} or more")
        if value < least:
            raise ValueError(f"{what}={value} is too small: give {least} or more")
    if isinstance(spike_weight, bool) or not isinstance(spike_weight, Real):
        raise TypeError(f"spike_weight={spike_weight!r} is no number: give 0 or more")
    if not 0 <= spike_weight < math.inf:
        raise ValueError(f"spike_weight={spike_weight} has to be 0 or more, and finite")


def _named(function: object) -> tuple[Callable[[Tensor], Tensor], str]:
    """The function, and what it is called."""
    if isinstance(function, str):
        function = Activation(function)
    if isinstance(function, Activation):
        if function.per_channel:
            raise ValueError(
                f"function={function.text()} is one for each channel: give one of them "
                "(of_channel(c))"
            )
        return function, function.text()
    if not callable(function):
        raise TypeError(
            f"function is a {type(function).__name__}: give the name of an activation or a "
            "function of a tensor"
        )
    return function, getattr(function, "__name__", type(function).__name__)


def _check_function(function: Callable, name: str, low: float, high: float) -> None:
    """Refuses what is not elementwise and finite between low and high."""
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    with torch.no_grad():
        y = function(x.clone())
        some = function(x[::7].clone().flip(0).view(1, -1, 1))
    if not isinstance(y, Tensor) or y.dtype != x.dtype or y.shape != x.shape:
        what = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"function={name} gives {what} for a float64 tensor {list(x.shape)}: return one of the "
            "same shape and dtype"
        )
    if not bool(torch.isfinite(y).all()):
        at = int((~torch.isfinite(y)).nonzero()[0])
        raise ValueError(
            f"function={name} gives {float(y[at]):g} for {float(x[at]):g}, which is in the range: "
            "give a range in which it is finite"
        )
    if some.shape != (1, len(y[::7]), 1) or not torch.allclose(some.flatten(), y[::7].flip(0)):
        raise ValueError(
            f"function={name} is not elementwise: what it gives for a number depends on the "
            "numbers around it"
        )
