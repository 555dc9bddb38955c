"""Markdown: tables, values with their intervals, and text between marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from bench.errors import UserError
from fskernel.files import write_text


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """A table's lines. What would end a cell, a line break or a bar, is replaced."""
    head = list(head)
    return [_row(head), _row("---" for _ in head), *map(_row, rows)]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(' '.join(str(cell).replace('|', '/').split()) for cell in cells)} |"


def accuracy(v: dict, key: str) -> str:
    """One of a record's accuracies in percent, with its interval."""
    return share(v[f"accuracy.{key}"], v[f"accuracy.{key}_interval"])


def share(value: float | None, interval: list[float] | None = None) -> str:
    """A share in percent and the ends of its interval: 80.6 % [79.5, 81.7]."""
    return with_interval(value, interval, lambda x: f"{100 * x:.1f}", " %")


def with_interval(
    value: float | None, interval: list[float] | None, show: Callable, unit: str = ""
) -> str:
    """A value in its unit, and its interval in brackets where there is one."""
    if value is None:
        return "-"
    shown = f"{show(value)}{unit}"
    return shown if interval is None else f"{shown} [{show(interval[0])}, {show(interval[1])}]"


def put(path: Path, name: str, text: str) -> None:
    """Replaces what stands between the comments `NAME: begin` and `NAME: end` of a document.

    Raises:
        UserError: as `parts`.
    """
    before, after = parts(path, name)
    write_text(path, f"{before}\n\n{text.strip()}\n\n{after}")


def parts(path: Path, name: str) -> tuple[str, str]:
    """A document up to the comment `NAME: begin`, and from `NAME: end` on, with both of them.

    Raises:
        UserError: the document is missing or has no such pair.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text() if path.is_file() else ""
    before, found, rest = old.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path}: there are no lines {begin} and {end} to write between")
    return f"{before}{begin}", f"{end}{after}"
