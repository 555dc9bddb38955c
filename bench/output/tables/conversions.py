"""The tables of docs/networks.md: which published networks convert, and why others do not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from bench.output.markdown import table
from bench.output.tables.numbers import number

WIDTH = 116
HEAD = ("network", "image", "neurons", "depth", "layers without a ReLU", "K", "seconds", "compared")
TITLES = {
    "classification": "torchvision: classification",
    "segmentation": "torchvision: segmentation",
    "detection": "torchvision: detection",
    "timm": "timm: the smallest network of each family",
}


def section(rows: Iterable[dict], listed: int) -> str:
    """All of it as Markdown.

    Args:
        rows: of a ledger (bench/measures/conversions). listed: how many networks are to be tried.
    """
    rows = list(rows)
    lines = [*wrapped(counts(rows, listed)), ""]
    for group, title in TITLES.items():
        found = [row for row in rows if group_of(row) == group]
        fine = [row for row in found if row["converts"]]
        if found:
            lines += [f"### {title}", "", f"{len(fine)} of {len(found)} convert.", ""]
        if fine:
            lines += [*table(HEAD, map(cells, fine)), ""]
    refused = [row for row in rows if not row["converts"]]
    if refused:
        lines += ["### Refused, by reason", ""]
        lines += [
            *table(("reason that was met first", "networks", "which"), by_reason(refused)),
            "",
        ]
    return "\n".join([*lines, *wrapped(small_print(rows))])


def group_of(row: dict) -> str:
    """The table that a row belongs to."""
    return "timm" if row["package"] == "timm" else row["family"]


def counts(rows: list[dict], listed: int) -> str:
    """How many convert, in a sentence."""
    fine = sum(row["converts"] for row in rows)
    rest = f" The other {listed - len(rows)} of the list were not tried." * (listed > len(rows))
    same = sum(row["converts"] and row["compared_on"] is not None for row in rows)
    return (
        f"**{fine} of {len(rows)} published networks convert.** {same} of them were compared with "
        f"the literal network, on one image, and every word and every count was the same.{rest}"
    )


def cells(row: dict) -> tuple:
    """A network that converts, as a row of the table."""
    parts = f" ({', '.join(row['outputs'])})" if row["outputs"] else ""
    size = row["compared_on"]
    return (
        f"{row['name']}{parts}",
        row["image"],
        number(row["neurons"]),
        row["depth"],
        row["without_relu"],
        f"{row['lowest_K']}-{row['highest_K']}",
        f"{row['seconds']:.0f}",
        "not compared" if size is None else f"{size[0]}x{size[1]}",
    )


def by_reason(refused: list[dict]) -> list[tuple]:
    """The kinds of reasons, the most frequent first, and the networks."""
    kinds: dict[str, list[str]] = {}
    for row in refused:
        kinds.setdefault(row["kind"], []).append(row["name"])
    ordered = sorted(kinds.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [(kind, len(names), ", ".join(dict.fromkeys(names))) for kind, names in ordered]


def small_print(rows: list[dict]) -> str:
    """The machine and the versions."""
    made = max((row["made"] for row in rows), key=lambda m: m["started"])
    commits = sorted({str(row["made"]["versions"]["commit"]) for row in rows})
    v = made["versions"]
    packages = ", ".join(f"{name} {v[name]}" for name in ("torch", "torchvision", "timm"))
    return (
        f"<small>{made['started'][:10]}; one core of {made['cpu']}; Python "
        f"{v['python']}, {packages}, fskernel {v['fskernel']} (commits {', '.join(commits)})."
        "</small>"
    )


def wrapped(text: str) -> list[str]:
    """A paragraph as lines."""
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
