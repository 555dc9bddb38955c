"""The parts of a session in their order, and how long each may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.on_gpu.rows import Row


@dataclass(frozen=True)
class Part:
    """One part; `seconds` is its limit."""

    name: str
    seconds: float
    does: str


PARTS = (
    Part("facts", 10, "device, driver, clocks, power, versions, commit"),
    Part("probe", 65, "what was assumed of the hardware, asked of it (no torch)"),
    Part("rows", 205, "speed, every row in a process of its own, most important first"),
    Part("tests", 240, "pytest -m gpu, every file in a process of its own"),
    Part("sanitizer", 45, "compute-sanitizer on the launchers (no torch)"),
    Part("fragments", 35, "golden files of the tensor cores' registers, against the emulator"),
)
NAMES = tuple(part.name for part in PARTS)


def planned(only: Sequence[str] = NAMES, minutes: float | None = None) -> list[Part]:
    """The chosen parts in their order; with minutes their limits are scaled to that sum."""
    chosen = [part for part in PARTS if part.name in only]
    factor = 1.0 if minutes is None else 60 * minutes / sum(part.seconds for part in chosen)
    return [replace(part, seconds=factor * part.seconds) for part in chosen]


def told(parts: Sequence[Part], rows: Sequence[Row], whole: bool = False) -> str:
    """The plan as lines of text; `whole` names every row."""
    total = sum(part.seconds for part in parts)
    lines = [
        f"plan: {total / 60:.1f} minutes at most; what a part leaves over goes to those behind it",
        "  part       limit  what it does",
    ]
    for part in parts:
        lines.append(f"  {part.name:<10} {part.seconds:>4.0f} s  {part.does}")
        if part.name == "rows" and whole:
            lines += [f"             {row.limit:>3.0f} s  {row.name}" for row in rows]
    if any(part.name == "rows" for part in parts):
        lines.append(f"  rows: {len(rows)}; those that no time was left for come again at the end")
    return "\n".join(lines)
