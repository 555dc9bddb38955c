"""Numbers as text, with as many digits as they can give."""

from __future__ import annotations

import math
from collections.abc import Callable

FEW = 200  # images from which on a share has a digit behind the point


def number(value: float | None) -> str:
    """Four digits, or a count with separators; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def rounded(value: float | None, digits: int = 3) -> str:
    """So many digits that mean something, with separators and without an exponent."""
    if value is None or not value:
        return "-" if value is None else "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def percent(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{value:.1%}"


def hundredths(value: float) -> str:
    """A share in percent, where the unit stands elsewhere."""
    return f"{100 * value:.1f}"


def two_digits(value: float) -> str:
    """A figure that is not known better."""
    return rounded(value, 2)


def share(value: float | None, images: int, ends: list[float] | None = None) -> str:
    """A share of images in percent, with its 95 % interval: 80.6 % [79.5, 81.7].

    Without an interval nobody knows how far it holds for other images, as for crops of the same
    photographs: then it is what was counted, 15 of 16.

    Args:
        value: 0 to 1; None: a dash. images: of how many. ends: of the interval.
    """
    if value is None:
        return "-"
    if ends is None:
        return f"{round(value * images):,} of {images:,}"
    show = hundredths if images >= FEW else (lambda x: f"{100 * x:.0f}")
    return f"{show(value)} % [{', '.join(map(show, ends))}]"


def interval(value: float | None, ends: list[float] | None, show: Callable[[float], str]) -> str:
    """A value, and its interval in brackets where there is one."""
    if value is None or ends is None:
        return "-" if value is None else show(value)
    return f"{show(value)} [{', '.join(map(show, ends))}]"


def spread(middle: float, ends: list[float] | None) -> str:
    """A median with its quartiles: 8.33 (8.29–8.55)."""
    return rounded(middle) + (f" ({'–'.join(map(rounded, ends))})" if ends else "")


def size(count: int | None) -> str:
    """Bytes in binary units."""
    return "-" if count is None else f"{count / 2**20:.2f} MiB"


def factor(ratio: float | None, more: str, less: str) -> str:
    """A ratio in words: "3.1x faster", or with the inverse "860x slower"."""
    if not ratio:
        return "-"
    times = max(ratio, 1 / ratio)
    # 1.0x would not tell whether there is a difference at all.
    return f"{rounded(times, 3 if times < 2 else 2)}x {more if ratio >= 1 else less}"


def milliseconds(speed: float) -> str:
    """Of an image, from images in a second."""
    return rounded(1000 / speed)


def count(n: int, one: str, many: str | None = None) -> str:
    """A number of things in words."""
    return f"{'one' if n == 1 else f'{n:,}'} {one if n == 1 else many or one + 's'}"
