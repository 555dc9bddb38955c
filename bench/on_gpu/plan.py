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
    Part("facts", 30, "device, driver, clocks, power, versions, commit"),
    Part("probe", 65, "what was assumed of the hardware, asked of it (no torch)"),
    Part("rows", 190, "speed, every row in a process of its own, most important first"),
    Part("tests", 240, "pytest -m gpu, every file in a process of its own"),
    Part("sanitizer", 45, "compute-sanitizer on the launchers (no torch)"),
    Part("fragments", 30, "golden files of the tensor cores' registers, against the emulator"),
)
NAMES = tuple(part.name for part in PARTS)


def planned(only: Sequence[str] = NAMES, minutes: float | None = None) -> list[Part]:
    """The chosen parts in their order; with minutes their limits are scaled to that sum.

    The facts keep their limit where half of the time is enough for it: without them nothing else
    is worth much, and the first import of torch on a machine may take long.
    """
    chosen = [part for part in PARTS if part.name in only]
    if minutes is None:
        return chosen
    total = sum(part.seconds for part in chosen)
    facts = sum(part.seconds for part in chosen if part.name == "facts")
    kept = min(facts, 30 * minutes) if total > facts else 60 * minutes
    factor = (60 * minutes - kept) / (total - facts) if total > facts else 0.0
    return [
        replace(part, seconds=kept if part.name == "facts" else factor * part.seconds)
        for part in chosen
    ]


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
