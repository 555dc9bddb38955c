"""The trials of a list of networks, one process each, and the file that keeps their answers."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from bench.inputs.published import Published
from bench.measures.conversions import reasons, trial
from bench.output import machine
from bench.output.progress import bar, say

FILE = "networks.jsonl"
LEAVING = 20  # seconds that a process has to end when it has answered
WAITING = 4  # times the limit that a process may take where it has to wait for others


def read(folder: Path) -> dict[str, dict]:
    """The rows of a ledger by package and name; the last one of each counts.

    A line that is no row, as that of an interrupted write, is left out.
    """
    path, rows = folder / FILE, {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            rows[f"{row['package']}/{row['name']}"] = row
        except (ValueError, TypeError, KeyError):
            continue
    return rows


def go_through(
    networks: Iterable[Published], folder: Path, again: bool, minutes: float, gib: float | None
) -> None:
    """Tries networks and appends a line for each.

    Args:
        networks: those to try; one that the ledger knows is left out.
        folder: of the ledger, which is claimed.
        again: try those that the ledger knows, too.
        minutes: of processor time for each, and gib: of memory; None: no limit.
    """
    known = {} if again else read(folder)
    left = [network for network in networks if network.key not in known]
    made = {
        "started": machine.now(),
        "cpu": machine.machine()["cpu"],
        "versions": machine.versions(),
    }
    with bar("networks", len(left)) as advance:
        for network in left:
            row = alone(lambda n=network: trial.tried(n), minutes, gib)
            if "name" not in row:  # the process did not live to say more
                row |= {"name": network.name, "package": network.package, "image": network.image}
                row |= {"family": network.family, "outputs": list(network.outputs)}
            with (folder / FILE).open("a") as file:
                file.write(json.dumps(row | {"made": made}) + "\n")
            told = "converts" if row["converts"] else f"{row['kind']}: {row['node']}"
            say(f"{network.key}: {told}")
            advance(1)


def alone(work: Callable[[], dict], minutes: float, gib: float | None) -> dict:
    """What work gives in a process of its own, or the row of a limit that it met.

    The process is a fork, so that nothing is imported again; its memory comes back when it ends.
    """
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, theirs, minutes, gib), daemon=True)
    process.start()
    theirs.close()
    deadline = time.monotonic() + 60 * minutes * WAITING
    try:
        while not mine.poll(0.2) and time.monotonic() < deadline and process.is_alive():
            continue
        row = _received(mine)
        late = row is None and time.monotonic() >= deadline
        if not late:
            process.join(LEAVING)
    finally:
        process.kill()
        process.join()
        mine.close()
    if row is not None:
        return row
    if late or process.exitcode == -signal.SIGXCPU:
        return trial.refused(
            reasons.TIME, "", f"it takes more than {minutes:g} minutes of one processor core"
        )
    if process.exitcode == -signal.SIGKILL:
        return trial.refused(reasons.MEMORY, "", "the system ended its process to save memory")
    return trial.refused(reasons.FAULT, "", f"its process ended with code {process.exitcode}")


def _received(connection: Connection) -> dict | None:
    try:
        return connection.recv() if connection.poll() else None
    except EOFError:
        return None


def _child(work: Callable[[], dict], answer: Connection, minutes: float, gib: float | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # Ctrl-C is for the parent, which ends this process
    seconds = int(60 * minutes)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    if gib is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)
    torch.set_num_threads(1)
    answer.send(work())
    answer.close()
