"""What several runs, or several networks, come to: one table in four forms.

It is shown on the terminal, and left as table.csv (numbers as they were measured), table.md and
table.tex (as they are shown).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.output import markdown
from bench.output.tables.fitting import Fitting
from fskernel.files import write_text

STEM = "table"
ENDS = ("low", "high")  # of an interval or of quartiles, as CSV names them
# What TeX takes for something else, and marks that its fonts write otherwise.
ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "–": "--",
        "µ": r"\textmu{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


class Cell(NamedTuple):
    """What a cell shows; what CSV has, and it is sorted by; the ends of its interval.

    A cell without a value is empty: it shows a dash, and comes last.
    """

    text: str
    value: str | float | None
    ends: Sequence[float] | None = None


EMPTY = Cell("-", None)


class Column(NamedTuple):
    """A column: what CSV calls it, and what people read."""

    key: str
    title: str


class Comparison:
    """A table of cells.

    Args:
        title: what is compared, on what.
        columns: the first is that of the rows' names.
        rows: as many cells each. A column without a value is left out.
        notes: sentences that belong below.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Cell]],
        notes: Sequence[str] = (),
    ):
        known = [
            i
            for i in range(len(columns))
            if i == 0 or any(row[i].value is not None for row in rows)
        ]
        self.title, self.notes = title, list(notes)
        self.columns = [columns[i] for i in known]
        self.rows = [[row[i] for i in known] for row in rows]

    @property
    def head(self) -> list[str]:
        """The columns' names, on one line each."""
        return [" ".join(column.title.split()) for column in self.columns]

    def fitting(self) -> Fitting:
        """For the terminal."""
        texts = [[cell.text for cell in row] for row in self.rows]
        heads = [column.title for column in self.columns]
        words = [
            i for i in range(len(heads)) if any(isinstance(r[i].value, str) for r in self.rows)
        ]
        return Fitting(self.title, heads, texts, words)

    def csv(self) -> str:
        """A line for each row, with the numbers as they are, and the ends of what has some."""
        wide = [any(row[i].ends for row in self.rows) for i in range(len(self.columns))]
        head = []
        for column, ends in zip(self.columns, wide):
            head += [column.key, *(f"{column.key}_{end}" for end in ENDS if ends)]
        file = io.StringIO()
        out = csv.writer(file, lineterminator="\n")
        out.writerow(head)
        for row in self.rows:
            line: list[object] = []
            for cell, ends in zip(row, wide):
                line += [cell.value, *((cell.ends or (None, None)) if ends else ())]
            out.writerow("" if value is None else value for value in line)
        return file.getvalue()

    def markdown(self, command: str) -> str:
        """The command, the title, the table, the notes."""
        rows = [[cell.text for cell in row] for row in self.rows]
        lines = [f"`{command}`", "", self.title, "", *markdown.table(self.head, rows), ""]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)]).rstrip() + "\n"

    def latex(self, command: str) -> str:
        """A tabular that wants the package booktabs; command, title and notes as comments."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join(" ".join(text.split()).translate(ESCAPES) for text in cells) + r" \\"

        comments = [f"% {' '.join(text.split())}" for text in (command, self.title, *self.notes)]
        rows = [line([cell.text for cell in row]) for row in self.rows]
        columns = "l" + "r" * (len(self.columns) - 1)
        parts = [
            *comments,
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line(self.head),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(parts) + "\n"

    def write(self, folder: Path, command: str) -> list[Path]:
        """Writes table.md, table.csv and table.tex; returns their paths."""
        made = {".md": self.markdown(command), ".csv": self.csv(), ".tex": self.latex(command)}
        for suffix, text in made.items():
            write_text(folder / f"{STEM}{suffix}", text)
        return [folder / f"{STEM}{suffix}" for suffix in made]
