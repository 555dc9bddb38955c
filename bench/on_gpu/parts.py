"""The parts that run our own measurements, each in a process of its own."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from importlib.util import find_spec

from bench import ROOT
from bench.on_gpu.process import cuda_words, run
from bench.on_gpu.rows import FACTS, FRAGMENTS, Row, rows
from bench.on_gpu.session import Session
from bench.on_gpu.summary import cell

COMMAND = (sys.executable, ROOT / "bench" / "gpu.py")
LEAST = 6.0  # seconds: less is too little for a process to begin in


def measured(session: Session, row: Row) -> dict[str, object]:
    """What a row's process found out, or why it did not."""
    absent = [name for name in row.needs if find_spec(name) is None]
    if absent:
        return {"skipped": f"not installed ({', '.join(absent)})"}
    limit = min(row.limit, session.left)
    if limit < min(LEAST, row.limit):
        return {"skipped": f"{max(0.0, session.left):.0f} s were left", "again": True}
    folder = session.folder / "rows"
    folder.mkdir(exist_ok=True)
    log, file = folder / f"{row.file}.log", folder / f"{row.file}.json"
    command = [*COMMAND, "--row", row.name]
    command += ["--out", session.folder.resolve(), "--device", session.device]
    command += ["--model", session.model, "--cache", session.cache, "--seconds", f"{limit:.0f}"]
    ended = run(command, log, limit, env={"PYTHONFAULTHANDLER": "1"})
    value: dict[str, object] = {}
    with suppress(OSError, ValueError):
        value = json.loads(file.read_text())
    if ended.told and value.get("complete"):
        value["note"] = f"behind its result: {ended.told}"
    elif ended.told and "error" not in value:
        value["error"] = ended.told
        value["again"] = ended.code is None and limit < row.limit
    if "error" in value:
        value["cuda"] = cuda_words(log)
    return value | {"wall_s": ended.seconds, "log": f"rows/{row.file}.log"}


def facts(session: Session) -> None:
    """What it runs on."""
    session.keep("facts", measured(session, FACTS))


def fragments(session: Session) -> None:
    """Golden files of what tensor-core instructions do, and whether the emulator agrees."""
    session.keep("fragments", measured(session, FRAGMENTS))


def all_rows(session: Session) -> None:
    """Every row that has no result yet, or was cut for want of time."""
    found = rows(not session.rehearsal)
    for i, row in enumerate(found):
        old = session.values.get("rows", {}).get(row.name)
        if old is not None and not old.get("again"):
            continue
        if old is not None and session.left < row.limit:
            continue  # a second try must be a whole one
        value = measured(session, row)
        session.keep("rows", value, row.name)
        print(f"  {i + 1}/{len(found)} {row.name}: {cell(value)}", flush=True)
