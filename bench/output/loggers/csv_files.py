"""logger=csv: tables that a spreadsheet opens."""

from __future__ import annotations

import csv
from pathlib import Path

from bench.output.loggers.interface import Logger, SeriesLogger, Values, scalars
from fskernel.files import replacing


class CsvRun(Logger):
    """results.csv with one row of all scalars, and layers.csv with one row per layer."""

    def __init__(self, directory: Path):
        self.directory = directory

    def stage(self, values: Values) -> None:
        """Rewrites both files, so that an interrupted run leaves what it had."""
        write(self.directory / "results.csv", [scalars(values)])
        if values.get("fs.layers"):
            write(self.directory / "layers.csv", values["fs.layers"])

    finish = stage


class CsvSeries(SeriesLogger):
    """results.csv of a series: a row for each run, with its options in front."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.rows: list[Values] = []

    def add(self, label: str, values: Values) -> None:
        """Rewrites the file."""
        self.rows.append({"options": label} | scalars(values))
        write(self.directory / "results.csv", self.rows)


def write(path: Path, rows: list[Values]) -> None:
    """Rows as CSV; a cell stays empty where a row has no such key."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)
