"""What a command prints: results on stdout; what it is doing, and what went wrong, on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def say(text: str) -> None:
    """A sentence on stderr."""
    print(text, file=sys.stderr, flush=True)


def watched() -> bool:
    """Whether somebody sees progress bars, which are on stderr."""
    return sys.stderr.isatty()


def printable(text: str) -> str:
    """A text from a file, or a file's name, without what would steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def show(text: str) -> None:
    """A text of several lines on stdout, as it is."""
    print(printable(text), flush=True)


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """A fact a line, in two columns."""
    facts = list(facts)
    width = max(len(name) for name, _ in facts)
    show("\n".join(f"{name:<{width}}  {value}" for name, value in facts))


def show_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> None:
    """A table on stdout, whose columns `right` are aligned on the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        side = "right" if name in right else "left"
        table.add_column(name, justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # What a program reads is not broken into lines.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def show_json(document: object) -> None:
    """One JSON document on stdout; numbers that JSON lacks are null."""
    print(json.dumps(_finite(document), indent=2, allow_nan=False), flush=True)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
