"""How images are made ready: as published with the network, or as the options say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fskernel.cli.faults import Usage, of_arguments
from fskernel.preprocessing import Preprocessing

NEEDED = ("size", "mean", "std")


def settled(published: Preprocessing | None, asked: dict, whose: str) -> Preprocessing:
    """The preprocessing to use.

    Args:
        published: with the network, or None.
        asked: by option, "size", "resize", "mean", "std", "interpolation" and "labels" (a file):
            what it says, or None.
        whose: the network, for messages.

    Raises:
        Usage: an option makes no sense, or one that is needed is missing.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    missing = [name for name in NEEDED if name not in given]
    if published is None and missing:
        example = {"size": "224", "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
        raise Usage(
            f"how images are made ready for {whose} is not known: say "
            + " ".join(f"--{name} {example[name]}" for name in missing)
            + ", or what it was trained with"
        )
    if "labels" in given:
        given["labels"] = _lines(given["labels"])
    if "size" in given:
        given["size"] = _pair(given["size"])
        given.setdefault("resize", _resize(published, given["size"]))
    with of_arguments():
        return Preprocessing(**given) if published is None else replace(published, **given)


def untouched(asked: dict) -> bool:
    """Whether no option said anything."""
    return all(value is None for value in asked.values())


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _resize(published: Preprocessing | None, size: tuple[int, int]) -> int:
    """The shorter side for another size, in the published proportion; without one, no more cut."""
    if published is None or not isinstance(published.resize, int):
        return max(size)
    return round(published.resize * max(size) / max(published.size))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"--labels {path} cannot be read: {error}") from error
