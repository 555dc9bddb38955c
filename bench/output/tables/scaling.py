"""The tables of experiment=scaling."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from bench.output.tables.comparison import EMPTY, Cell, Column, Comparison
from bench.output.tables.fitting import Fitting
from bench.output.tables.numbers import count, rounded, spread
from bench.output.tables.rivals import ratio
from bench.output.tables.runs import Job, labels, notes

Values = dict[str, Any]
WIDE = 5  # times the shortest: times this far apart leave no room between those near each other


def comparison(jobs: Sequence[Job]) -> Comparison:
    """A row for each point of each axis of each job, columns for each rival."""
    rows = []
    names = list(
        dict.fromkeys(
            row["name"] for job in jobs for one in job.values.get("axes", ()) for row in one["rows"]
        )
    )
    for label, job in zip(labels([job.name for job in jobs]), jobs):
        for one in job.values.get("axes", ()):
            title = f"{label}: {one['title']}" if len(jobs) > 1 else one["title"]
            for value in dict.fromkeys(row["value"] for row in one["rows"]):
                at = {row["name"]: row for row in one["rows"] if row["value"] == value}
                name = f"{title}: {value}"
                rows.append([Cell(name, name), *point(at, names)])
    columns = [Column("point", ""), *columns_of(names)]
    return Comparison(head([job.values for job in jobs]), columns, rows, notes(jobs))


def by_axis(v: Values) -> Iterator[Fitting]:
    """A table an axis, for the terminal; the first has the title of all."""
    for i, one in enumerate(v["axes"]):
        names = list(dict.fromkeys(row["name"] for row in one["rows"]))
        rows = []
        for value in dict.fromkeys(row["value"] for row in one["rows"]):
            at = {row["name"]: row for row in one["rows"] if row["value"] == value}
            rows.append([Cell(f"{value}", value), *point(at, names)])
        columns = [Column("value", one["title"]), *columns_of(names)]
        yield Comparison("" if i else head([v]), columns, rows).fitting()


def head(runs: Sequence[Values]) -> str:
    """What was timed, on what."""
    v = runs[0]
    height, width = v["input"]
    place = v["machine"].get("gpu") or v["machine"]["cpu"]
    models = ", ".join(dict.fromkeys(run["model"] for run in runs))
    return (
        f"{models}, random weights, K={v['K']}, {height}x{width}, batch {v['batch']}, "
        f"{count(v['threads'], 'thread')} where nothing else is said; {place}, kernels "
        f"{v['fs.isa']}, torch {v['versions']['torch']}. ms an image: medians of "
        f"{count(v['rounds'], 'round')} (quartiles); ratios within a round [95 % interval]"
    )


def columns_of(names: Sequence[str]) -> list[Column]:
    """Two for each rival, and what the products alone would take."""
    found = []
    for name in names:
        key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        found += [Column(f"{key}_ms", f"{name},\nms an image")]
        found += [Column(f"few_spikes_to_{key}", f"Few Spikes is,\nbeside {name}")]
    return [
        *found,
        Column("products_ms", "products alone\nat the peak, ms"),
        Column("of_the_peak", "of the\npeak"),
    ]


def point(at: dict[str, Values], names: Sequence[str]) -> list[Cell]:
    """The cells of one point."""
    cells = []
    for name in names:
        row = at.get(name)
        if row is None:
            cells += [EMPTY, EMPTY]
            continue
        cells.append(Cell(spread(row["ms"], row["ms_quartiles"]), row["ms"], row["ms_quartiles"]))
        cells.append(ratio(row) if "ratio" in row else EMPTY)
    least = next((row for row in at.values() if row["products_ms"]), None)
    if least is None:
        return [*cells, EMPTY, EMPTY]
    share = least["products_ms"] / least["ms"]
    return [
        *cells,
        Cell(rounded(least["products_ms"]), least["products_ms"]),
        Cell(f"{100 * share:.0f} %", share),
    ]


def drawn(one: Values) -> list[float]:
    """All times of an axis that a chart shows: quartiles, and what the products alone take."""
    times = [ms for row in one["rows"] for ms in row["ms_quartiles"]]
    return times + [row["products_ms"] for row in one["rows"] if row["products_ms"]]


def logarithmic(one: Values) -> bool:
    """Whether the times of an axis are drawn on a logarithmic scale: a linear one would not do."""
    return max(drawn(one)) > WIDE * min(drawn(one))
