"""What became of every module of a converted network, as rows and as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fskernel.network.stats import map_sizes


@dataclass(frozen=True)
class ReportRow:
    """One step of the network.

    Attributes:
        name, kind: the module it came from and what it is now.
        alpha, K, rounding: of its neurons (None where it has none).
        weight_bits, effective_bits: bits of its integer weights, and those left in its worst
            output channel after the 32-bit bound raised the scale (None without weights).
        neurons: neurons per image (None if the image size is not known).
        fused: names of the modules that were folded or fused into it.
        notes: what the user should know.
    """

    name: str
    kind: str
    alpha: float | None = None
    K: int | None = None
    rounding: str | None = None
    weight_bits: int | None = None
    effective_bits: float | None = None
    neurons: int | None = None
    fused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All rows, in execution order; str() is a table."""

    rows: list[ReportRow] = field(default_factory=list)

    def __str__(self) -> str:
        head = (
            "layer",
            "kind",
            "alpha",
            "K",
            "rounding",
            "weights",
            "effective",
            "neurons",
            "fused",
        )
        table = [head]
        for row in self.rows:
            table.append(
                (
                    row.name,
                    row.kind,
                    "" if row.alpha is None else f"{row.alpha:.4g}",
                    "" if row.K is None else str(row.K),
                    row.rounding or "",
                    "" if row.weight_bits is None else f"int{row.weight_bits}",
                    "" if row.effective_bits is None else f"{row.effective_bits:.1f}",
                    "" if row.neurons is None else f"{row.neurons:,}",
                    ", ".join(row.fused),
                )
            )
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        total = sum(row.neurons or 0 for row in self.rows)
        if total:
            lines.append(f"{total:,} neurons")
        lines += [f"note: {row.name}: {note}" for row in self.rows for note in row.notes]
        return "\n".join(lines)


def report_rows(steps: Iterable, input_size: tuple[int, ...] | None) -> list[ReportRow]:
    """One row a step; neurons are filled in where the image size is known."""
    steps = list(steps)
    sizes = map_sizes(steps, *input_size[2:]) if input_size else {}
    rows = []
    for step in steps:
        info = getattr(step, "info", {})
        neurons = None
        if step.spiking and sizes:
            neurons = step.out_channels * sizes[step.name][0] * sizes[step.name][1]
        rows.append(
            ReportRow(
                step.name,
                step.kind(),
                info.get("alpha"),
                step.code.K if step.spiking else None,
                info.get("rounding"),
                info.get("weight_bits"),
                info.get("effective_bits"),
                neurons,
                step.fused,
                tuple(info.get("notes", ())),
            )
        )
    return rows
