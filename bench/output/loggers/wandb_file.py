"""Reads what an offline run of Weights & Biases holds: its .wandb file, a log of protobuf records.

The file is a log as LevelDB writes it: blocks of 32 KiB with records of seven bytes of head, whole
or in parts. W&B itself only sends it to a server.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UserError

MAGIC = b":W&B\xe1\xbe\x00"
BLOCK = 2**15
HEAD = struct.Struct("<IHB")  # checksum, bytes, kind
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Logged:
    """What was logged.

    Attributes:
        name, project, group, job_type, tags: of the run.
        config: by key. summary: the last value of each key.
        history: a dict for each call of log.
        axes: the metric that another one is drawn over, by its name or pattern.
        summaries: how a metric is summed up, by its name or pattern.
        artifacts: the names of their files, by their own name.
        exit_code: None where the run was not ended.
    """

    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, list[str]] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def keys(self) -> set[str]:
        """Of history and summary."""
        return {*self.summary, *(key for row in self.history for key in row)}

    def curve(self, axis: str, key: str) -> tuple[list, list]:
        """The values of two keys, where both were logged together."""
        rows = [row for row in self.history if axis in row and key in row]
        return [row[axis] for row in rows], [row[key] for row in rows]


def read(path: Path) -> Logged:
    """What a .wandb file holds, up to where it ends or was cut off.

    Raises:
        UserError: it is no such file.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    found = Logged()
    for content in records(path.read_bytes(), path):
        record = Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.name, found.project = run.display_name, run.project
            found.group, found.job_type, found.tags = run.run_group, run.job_type, [*run.tags]
            update(found.config, run.config.update)
        elif kind == "config":
            update(found.config, record.config.update)
        elif kind == "summary":
            update(found.summary, record.summary.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            update(row, record.history.item)
            found.history.append(row)
            found.summary |= row
        elif kind == "metric":
            define(found, record.metric)
        elif kind == "artifact":
            names = [entry.path for entry in record.artifact.manifest.contents]
            found.artifacts[record.artifact.name] = sorted(names)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def finished(path: Path, seconds: float = 30.0) -> Logged:
    """What a run of this process holds that was ended: W&B's own process may still be writing it.

    Raises:
        UserError: as `read`, and the end of the run does not come for so many seconds.
    """
    until = time.monotonic() + seconds
    while (found := read(path)).exit_code is None:
        if time.monotonic() > until:
            raise UserError(f"{path}: the run has no end: it still runs, or was killed")
        time.sleep(0.02)
    return found


def records(content: bytes, path: Path) -> Iterator[bytes]:
    """The records of a log, in order; the last one may be cut off.

    Raises:
        UserError: it is no log of W&B.
    """
    if not content.startswith(MAGIC):
        raise UserError(f"{path}: is no run of Weights & Biases: name a run-ID.wandb")
    at, parts = len(MAGIC), b""
    while at + HEAD.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEAD.size:  # the rest of a block, which holds nothing
            at += left
            continue
        _, size, kind = HEAD.unpack_from(content, at)
        at += HEAD.size
        part = content[at : at + size]
        at += size
        if len(part) < size or kind not in (WHOLE, FIRST, MIDDLE, LAST):
            return
        parts = part if kind in (WHOLE, FIRST) else parts + part
        if kind in (WHOLE, LAST):
            yield parts


def update(values: dict[str, Any], items: Any) -> None:
    """Takes over what protobuf holds as keys and JSON."""
    for item in items:
        *outer, key = item.nested_key or [item.key]
        into = values
        for name in outer:
            into = into.setdefault(name, {})
        into[key] = json.loads(item.value_json)


def define(found: Logged, metric: Any) -> None:
    """Takes over how a metric is drawn and summed up."""
    name = metric.name or metric.glob_name
    if metric.step_metric:
        found.axes[name] = metric.step_metric
    asked = ("min", "max", "mean", "best", "last")
    found.summaries[name] = [how for how in asked if getattr(metric.summary, how)]
