"""Many files, in processes of their own that may crash: what came of them, in numbers.

The files are numbered; a worker takes every n-th. It says which one it is at in memory that it
shares with its parent, which therefore knows the file that a worker ended or stopped at, and lets
another one go on behind it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import re
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .judge import FAULTS, FINE, Verdict
from .mutate import Mutant

KEPT = 3  # files of one fault that are kept
MEMORY = 6 << 30  # bytes that a worker may use, of address space too; torch takes three of those
OWN_FAULT = 70  # how a worker ends that fails itself; sanitisers end it with 1


class Look(NamedTuple):
    """One file: its number, what it was made of, what was changed, what it came to."""

    number: int
    start: str
    fields: tuple[str, ...]
    verdict: Verdict


@dataclass
class Result:
    """What a campaign found.

    Attributes:
        kinds: how many files came to what (FINE and FAULTS).
        by_field: the same, of the files in which this field was changed.
        by_start: the same, of the files that were made of this one.
        faults: the numbers of the files with a fault, by the fault in one line.
        seconds: how long it took.
        stopped: by the user.
    """

    kinds: Counter = field(default_factory=Counter)
    by_field: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    by_start: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    faults: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0
    stopped: bool = False

    def add(self, look: Look) -> bool:
        """Counts a file; returns whether it is one to keep: among the first with its fault."""
        kind = look.verdict.kind
        self.kinds[kind] += 1
        for name in set(look.fields):
            self.by_field[name][kind] += 1
        self.by_start[look.start][kind] += 1
        if kind not in FAULTS:
            return False
        known = self.faults[f"{kind}: {alike(look.verdict.detail)}"]
        known.append(look.number)
        return len(known) <= KEPT

    @property
    def failed(self) -> int:
        """Files with a fault."""
        return sum(self.kinds[kind] for kind in FAULTS)

    def table(self) -> str:
        """The numbers, one field a line."""
        kinds = [*FINE, *FAULTS]
        lines = [("field", "files", *kinds)]
        for name in sorted(self.by_field):
            row = self.by_field[name]
            lines.append((name, str(row.total()), *(str(row[k] or "") for k in kinds)))
        total = self.kinds.total()
        lines.append(("all", str(total), *(str(self.kinds[k]) for k in kinds)))
        share = (f"{100 * self.kinds[k] / total:.1f}%" if total else "" for k in kinds)
        lines.append(("share", "", *share))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join(
            "  ".join(
                c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))
            )
            for line in lines
        )

    def as_json(self) -> dict:
        """Everything, to be written."""
        return {
            "seconds": round(self.seconds, 1),
            "files": self.kinds.total(),
            **self.kinds,
            "fields": {name: dict(row) for name, row in sorted(self.by_field.items())},
            "made of": {name: dict(row) for name, row in sorted(self.by_start.items())},
            "faults": dict(self.faults),
        }


def alike(detail: str) -> str:
    """A fault without the names and numbers that differ from file to file."""
    place, colon, message = detail.partition("): ")
    message = re.sub(r"\[.*", "[...", re.sub(r"\\?(['\"])[^'\"]*\\?\1", "'...'", message[1:-1]))
    return f"{place}{colon}{re.sub(r'-?[0-9]+', '#', message)[:100]}"


class _Worker:
    """A process that judges the files first, first + stride, ..."""

    def __init__(self, first: int, end: int | None, stride: int, look, deadline: float | None):
        self.first, self.stride = first, stride
        self.at = mmap.mmap(-1, 16)  # the number of the file, and 1 where it is at one
        self.words = tempfile.TemporaryFile()
        self.pipe, write = os.pipe()
        self.moved = time.monotonic()
        self.seen = -1
        self.rest = b""  # of a line
        self.stopped: Verdict | None = None  # why it was ended
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = OWN_FAULT
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.close(self.pipe)
                os.dup2(self.words.fileno(), 2)
                limit_memory()
                self._work(end, write, look, deadline)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)

    def _work(self, end, write: int, look, deadline: float | None) -> None:
        seed = self.first
        while (end is None or seed < end) and (deadline is None or time.monotonic() < deadline):
            self.at[:16] = struct.pack("qq", seed, 1)
            seen = look(seed)
            self.at[:16] = struct.pack("qq", seed, 0)
            os.write(write, json.dumps(seen).encode() + b"\n")
            seed += self.stride

    def place(self) -> tuple[int, bool]:
        """The file it is or was at last, and whether it was in the middle of it."""
        seed, busy = struct.unpack("qq", self.at[:16])
        return seed, bool(busy)

    def stop_if_in_trouble(self, patience: float) -> None:
        """Ends it where it has been at one file for too long, or takes too much memory."""
        number, busy = self.place()
        if number != self.seen or not busy:
            self.seen, self.moved = number, time.monotonic()
        with open(f"/proc/{self.pid}/statm") as pages:
            used = int(pages.read().split()[1]) * resource.getpagesize()
        if time.monotonic() - self.moved > patience:
            self.stopped = Verdict("hung", f"longer than {patience:g} s")
        elif used > MEMORY:
            self.stopped = Verdict("hung", f"more than {MEMORY >> 30} GB")
        if self.stopped:
            os.kill(self.pid, signal.SIGKILL)

    def read(self) -> tuple[list[Look], bool]:
        """What it has found out since, and whether it goes on."""
        data = os.read(self.pipe, 1 << 16)
        *lines, self.rest = (self.rest + data).split(b"\n")
        looks = [json.loads(line) for line in lines]
        return [Look(*seen, Verdict(*verdict)) for *seen, verdict in looks], bool(data)

    def end(self) -> tuple[Verdict | None, str]:
        """What the file came to that it ended at, or None behind the last; its last words."""
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        self.words.seek(0)
        words = self.words.read().decode(errors="replace")
        if status == 0:
            return None, words
        number, busy = self.place()
        if not busy or os.waitstatus_to_exitcode(status) == OWN_FAULT:
            raise RuntimeError(f"a worker failed at {number}: {words}")
        return self.stopped or Verdict("crashed", what_crashed(status, words)), words


def what_crashed(status: int, words: str) -> str:
    """The sanitiser's summary, or the signal, in one line that is the same for the same fault."""
    lines = words.splitlines()
    frames = (re.search(r"#\d+ \S+ in ([^(<]*).*/(csrc/\S+)", line) for line in lines)
    ours = next((f" in {frame[1]} ({frame[2]})" for frame in frames if frame), "")
    for line in lines:
        fault = re.search(r"runtime error: .*|AddressSanitizer: [a-z-]+", line)
        if fault:
            return re.sub(r"0x[0-9a-f]+|-?\d{5,}", "...", fault[0]) + ours
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"ended with code {os.waitstatus_to_exitcode(status)}: {(lines or [''])[-1][:200]}"


def campaign(
    make: Callable[[int], Mutant],
    check: Callable[[Path, int], Verdict],
    *,
    seed: int,
    files: int | None,
    seconds: float | None,
    jobs: int,
    patience: float,
    folder: Path,
    say: Callable[[str], None],
) -> Result:
    """Judges files from `seed` on, until there were `files` of them or `seconds` are over.

    Args:
        make: the file with a number; check: what comes of one that was written.
        patience: seconds after which a file that takes longer is given up.
        folder: takes the files with faults.
        say: is given lines of text.
    """
    result = Result()
    begin = time.monotonic()
    deadline = None if seconds is None else begin + seconds
    end = None if files is None else seed + files

    with tempfile.TemporaryDirectory(dir=memory_folder()) as place:

        def look(number: int) -> Look:
            return look_at(number, make, check, Path(place, f"{os.getpid()}.safetensors"))

        def note(look: Look, words: str = "") -> None:
            if result.add(look):
                make(look.number).draft.write(folder / f"{look.number}.safetensors")
                if words:
                    (folder / f"{look.number}.txt").write_text(words)
                say(
                    f"FAILED {look.verdict.kind}: {look.verdict.detail}\n"
                    f"  {look.start}: {', '.join(look.fields)}\n"
                    f"  make fuzz-files FILE={look.number}"
                )

        workers = {}

        def start(first: int) -> None:
            worker = _Worker(first, end, jobs, look, deadline)
            workers[worker.pipe] = worker

        gc.freeze()  # nobody looks at torch's objects again in search of garbage
        for j in range(jobs):
            start(seed + j)
        try:
            while workers:
                ready, _, _ = select.select(list(workers), [], [], 0.1)
                for worker in list(workers.values()):
                    if worker.pipe not in ready:
                        worker.stop_if_in_trouble(patience)
                        continue
                    looks, goes_on = worker.read()
                    for seen in looks:
                        note(seen)
                    if goes_on:
                        continue
                    del workers[worker.pipe]
                    verdict, words = worker.end()
                    if verdict is not None:
                        number = worker.place()[0]
                        mutant = make(number)
                        note(Look(number, mutant.start, mutant.fields, verdict), words)
                        start(number + jobs)
        except KeyboardInterrupt:
            result.stopped = True
            say("stopped: what follows was found until then")
        finally:
            for worker in workers.values():
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
    result.seconds = time.monotonic() - begin
    return result


def limit_memory() -> None:
    """Lets this process fail where it wants more memory than any of the files should need.

    The address sanitiser reserves far more than it uses: there, the parent has to look.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not hasattr(ctypes.CDLL(None), "__asan_init"):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def look_at(number: int, make, check, path: Path) -> Look:
    """Makes, writes and judges one file."""
    mutant = make(number)
    mutant.draft.write(path)
    return Look(number, mutant.start, mutant.fields, check(path, number))


def memory_folder() -> str | None:
    """Where files are written that are read once, at the speed of memory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
