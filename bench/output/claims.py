"""The lock of a folder that results are written into."""

from __future__ import annotations

import json
from pathlib import Path

from bench.errors import UserError
from bench.output.folders import ready
from fskernel.files import Lock


def claim(folder: Path, option: str, name: str = ".lock", finished: bool = True) -> Lock:
    """The lock of what is written into a folder, which is made where it is missing.

    Args:
        folder: the folder.
        option: which setting names it, for the message.
        name: of the lock's file in it.
        finished: whether it may hold the results of a finished run.

    Raises:
        UserError: another process, or another part of this one, writes into it; it cannot be made
            or written into; it holds results that must stay.
    """
    ready(folder, option)
    try:
        lock = Lock(folder / name)
    except BlockingIOError as error:
        raise UserError(
            f"{option}: another run writes into {folder}: wait for its end, or name another folder"
        ) from error
    try:
        if not finished:
            refuse_finished(folder, option)
    except UserError:
        lock.release()
        raise
    return lock


def refuse_finished(folder: Path, option: str) -> None:
    """Keeps the results of a finished run; those of an interrupted one may be replaced.

    Raises:
        UserError: the folder holds a finished run or series, or a results.json of something else.
    """
    cure = "name another folder, or move that one away"
    results, table = folder / "results.json", folder / "table.md"
    if results.exists():
        try:
            complete = json.loads(results.read_text())["complete"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{option}: {results} is no record of a run: {cure}") from error
        if complete is not False:
            raise UserError(f"{option}: {folder} holds the results of a finished run: {cure}")
    elif table.exists():
        raise UserError(f"{option}: {folder} holds the table of other runs: {cure}")
