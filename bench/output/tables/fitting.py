"""A table on a terminal of any width: no digit is ever cut off."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDE = 10_000  # columns that no table needs


class Fitting:
    """A table; where the terminal is too narrow, several below each other with some columns each.

    The first column, of the rows' names, stands in all of them. Where not even two columns have
    room there is a line for every cell.

    Args:
        title: what stands above it.
        head: the columns' names.
        rows: as many texts each. A column of nothing but dashes is left out.
        words: columns, by their number, that begin at their left, as the first does.
    """

    def __init__(
        self,
        title: str,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        words: Collection[int] = (),
    ):
        known = [i for i in range(len(head)) if i == 0 or any(row[i] != "-" for row in rows)]
        self.title = title
        self.head = [head[i] for i in known]
        self.rows = [[row[i] for i in known] for row in rows]
        self.words = {at for at, i in enumerate(known) if i == 0 or i in words}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        parts = self._parts(console, options)
        for columns in parts or ():
            # Beside each other, rows stay in line; below each other, an empty one tells nothing.
            yield self._table(columns, empty=len(parts) == 1)
            yield Text()
        if parts is None:
            for name, *cells in self.rows:
                yield Text(name or self.head[0])
                for title, cell in zip(self.head[1:], cells, strict=True):
                    if cell != "-":
                        yield Text(f"  {' '.join(title.split())}: {cell}")
            yield Text()

    def _parts(self, console: Console, options: ConsoleOptions) -> list[list[int]] | None:
        """Columns that have room beside each other; None: a column has not, beside the first."""

        def fits(columns: list[int]) -> bool:
            needed = Measurement.get(
                console, options.update(max_width=WIDE), self._table(columns)
            ).maximum
            return needed <= options.max_width

        parts = [[0]]
        for i in range(1, len(self.head)):
            if fits([*parts[-1], i]):
                parts[-1].append(i)
            elif fits([0, i]):
                parts.append([0, i])
            else:
                return None
        return parts if fits(parts[0]) else None

    def _table(self, columns: list[int], empty: bool = True) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
        for i in columns:
            table.add_column(
                self.head[i], justify="left" if i in self.words else "right", no_wrap=True
            )
        for row in self.rows:
            if empty or any(row[i] != "-" for i in columns[1:]):
                table.add_row(*(row[i] for i in columns))
        return table
