"""The statistics of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from fskernel.network.stats import wilson as wilson


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile (0..1), interpolated linearly between neighbours."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def median_iqr(values: Sequence[float]) -> tuple[float, list[float]]:
    """The median, and the first and third quartile."""
    return median(values), [quantile(values, 0.25), quantile(values, 0.75)]


def median_interval(values: Sequence[float], level: float = 0.95) -> list[float] | None:
    """The narrowest pair of values around the median that holds it with this probability.

    It rests on ranks alone, whatever the distribution; None for fewer than 6 values, of which no
    pair does at 95 %.
    """
    ordered, n = sorted(values), len(values)
    below = 0.0  # probability that fewer than `low` + 1 values lie below the median
    low = -1
    while low + 1 < n and 2 * (below + math.comb(n, low + 1) / 2**n) <= 1 - level:
        low += 1
        below += math.comb(n, low) / 2**n
    return None if low < 0 else [ordered[low], ordered[n - 1 - low]]


def relative_error(errors: Sequence[float], norms: Sequence[float]) -> float | None:
    """Norm of all errors over the norm of all values, from their squared norms per image."""
    total = float(np.sum(norms))
    return math.sqrt(float(np.sum(errors)) / total) if total > 0 else None


def relative_error_interval(
    errors: Sequence[float], norms: Sequence[float], resamples: int = 2000, seed: int = 0
) -> list[float] | None:
    """The 95 % percentile bootstrap interval of `relative_error` over images.

    None for fewer than 2 images, or where all values are 0.
    """
    if len(errors) < 2 or relative_error(errors, norms) is None:
        return None
    errors, norms = np.asarray(errors), np.asarray(norms)
    dice = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = dice.integers(len(errors), size=len(errors))
        value = relative_error(errors[drawn], norms[drawn])
        found.append(math.inf if value is None else value)
    return [quantile(found, 0.025), quantile(found, 0.975)]
