"""Numbers, names and tables as people read them: for everything that is printed or logged."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 80  # columns of a screen
_NAMES = 24  # columns that a name may take in a table
_LABELS = 12  # columns of the labels in front of facts
_LARGE = {1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M"}


def count(number: float) -> str:
    """A count: below ten millions in full, with separators; else four digits and M, G, T, ..."""
    if not math.isfinite(number):
        return "-"
    for unit, letter in _LARGE.items():
        if abs(number) >= max(unit, 1e7):
            return f"{number / unit:#.4g}".rstrip(".") + letter
    return f"{number:,.0f}"


def memory(size: int) -> str:
    """Bytes in binary units."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def percent(share: float) -> str:
    """A share, as the number in front of a percent sign, with two digits."""
    if not share:
        return "0"
    return f"{100 * share:#.2g}".rstrip(".") if share < 0.995 else "100"


def duration(seconds: float) -> str:
    """A time, in the unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def span(low: str, high: str) -> str:
    """A range of values that are written already; one of them where they read the same."""
    return low if low == high else f"{low} to {high}"


def size(height: int, width: int) -> str:
    """Rows and columns of an image."""
    return f"{height}x{width}"


def plain(words: object) -> str:
    """A text without control characters: names may come from a file, by whomever."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(words))


def shortened(name: object, columns: int = _NAMES) -> str:
    """A name in at most so many columns: its middle is left out, its end tells most."""
    name = plain(name)
    if len(name) <= columns:
        return name
    front = (columns - 3) // 3
    return f"{name[:front]}...{name[len(name) - (columns - 3 - front) :]}"


def facts(title: str, rows: Iterable[tuple[str, str]], most: int = 2) -> str:
    """A title and facts below it, each with its label, on a screen's columns.

    Args:
        most: lines that one fact may take; what is longer ends in "...".
    """
    lines = [textwrap.shorten(plain(title), WIDTH, placeholder=" ...")]
    for label, fact in rows:
        lines += textwrap.wrap(
            plain(fact),
            WIDTH,
            initial_indent=f"  {label:<{_LABELS}}",
            subsequent_indent=" " * (_LABELS + 2),
            max_lines=most,
            placeholder=" ...",
        )
    return "\n".join(lines)


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows as lines of aligned cells, two blanks apart; the first row is the head.

    Args:
        right: which columns are aligned to the right, as numbers are.
    """
    right = set(right)
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
