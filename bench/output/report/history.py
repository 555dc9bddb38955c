"""What earlier runs on this machine left: the same run once more, and the race of the runtimes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

Values = dict[str, Any]
FOLDERS = ("outputs", "multirun")  # where runs leave their results, unless they are told
MOST = 300  # records that are looked at, the newest first: a run shall not wait for its report
WITHOUT_EFFECT = (
    "figures",
    "report",
    "logger",
    "next",
    "rows",
    "rivals",
    "scaling",
)  # on what is measured
# What must be equal, beside the configuration: weights may have been installed in between.
SAME = ("configuration", "weights", "random_weights", "device")
SAME_RACE = ("model", "input", "batch", "threads", "device")
KEPT = (
    "started",
    "ann.images_per_s",
    "ann.images_per_s_iqr",
    "fs.images_per_s",
    "fs.images_per_s_iqr",
    "ratio.fs_to_ann",
    "ratio.fs_to_ann_iqr",
    "accuracy.fs",
)


def configuration(cfg: DictConfig) -> str:
    """The SHA-256 of all settings that decide what is measured."""
    settings = OmegaConf.to_container(cfg, resolve=True)
    decisive = {key: settings[key] for key in sorted(settings) if key not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def previous(now: Values, own: Path) -> Values | None:
    """What the latest earlier run of the same configuration on the same processor found.

    Args:
        now: this run's values. own: its results.json.

    Returns:
        The path of its results.json and the values of `KEPT`; None: there is none below `FOLDERS`.
    """
    for path in newest(own):
        v = read(path)
        if (
            v.get("complete") is True
            and all(v.get(key) == now[key] for key in SAME)
            and processor(v) == processor(now)
            and all(key in v for key in KEPT)
            and v["started"] < now["started"]
        ):
            commit = v["versions"]["commit"]
            return {"path": str(path), "commit": commit} | {key: v[key] for key in KEPT}
    return None


def newest(own: Path) -> Iterator[Path]:
    """The records below `FOLDERS`, but for this run's own."""
    found = []
    for folder in FOLDERS:
        for path in Path(folder).glob("**/results.json"):
            try:
                found.append((path.stat().st_mtime, path))
            except OSError:  # another process removes it
                continue
    for _, path in sorted(found, reverse=True)[:MOST]:
        if path.absolute() != own.absolute():
            yield path


def read(path: Path) -> Values:
    """A file of values; nothing where it cannot be read, or holds something else."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def processor(v: Values) -> tuple[str | None, str | None]:
    """What a record was measured on."""
    machine = v.get("machine")
    return (machine.get("cpu"), machine.get("gpu")) if isinstance(machine, dict) else (None, None)


def race(now: Values, own: Path) -> Values | None:
    """What other runtimes need for the same network, batch and threads on the same processor.

    Args:
        now: this run's values. own: its results.json.

    Returns:
        started, command, and `milliseconds` of an image by the runtime's name, of the latest
        experiment=rivals; None where there is none below `FOLDERS`.
    """
    for path in newest(own):
        v = read(path)
        if (
            v.get("measure") == "rivals"
            and v.get("complete") is True
            and all(v.get(key) == now[key] for key in SAME_RACE)
            and processor(v) == processor(now)
        ):
            times = {
                row["name"]: {"median": row["ms"], "quartiles": row["ms_quartiles"]}
                for row in v["rivals"]
                if "ms" in row
            }
            return {key: v[key] for key in ("started", "command")} | {"milliseconds": times}
    return None
