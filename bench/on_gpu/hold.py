"""Holds a session: its parts in order, whatever happens to one of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from bench import ROOT
from bench.on_gpu import external, parts
from bench.on_gpu.plan import Part
from bench.on_gpu.session import Session
from bench.on_gpu.summary import missing, page
from bench.output import interrupt
from bench.output.faults import in_one_sentence
from bench.output.folders import own

DONE: dict[str, Callable[[Session], None]] = {
    "facts": parts.facts,
    "probe": external.probe,
    "rows": parts.all_rows,
    "tests": external.tests,
    "sanitizer": external.sanitizer,
    "fragments": parts.fragments,
}
NEEDS_THE_LIBRARY = ("rows", "tests", "fragments")


@in_one_sentence("--out")
def hold(plan: Sequence[Part], device: str, model: str, out: Path | None) -> int:
    """Runs the parts; returns the exit code.

    Args:
        plan: the parts, with limits.
        device: "cuda:N", or "cpu" for a rehearsal.
        model: whose speed is measured.
        out: the session's folder; None: a new one under outputs/gpu.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    session = Session(out or Path(own(f"{ROOT}/outputs/gpu/{stamp}")), plan, device, model)
    print(f"results: {session.folder}", flush=True)
    code = 0
    try:
        for part in plan:
            code = max(code, one(session, part.name))
            if code and not driver(session):
                break
        if "rehearsal" not in session.values.get("facts", {"rehearsal": None}):
            session.begin(None)
            parts.facts(session)  # cut before; without them the ledger refuses all of it
        if not code and "rows" in session.values:
            session.begin(None)
            parts.all_rows(session)
        session.values["complete"] = True
    except KeyboardInterrupt as error:
        code = interrupt.code(error)
        session.values["interrupted"] = f"exit code {code}"
    finally:
        session.write()
        session.close()
    print(page(session.values))
    print(f"{'written' if code < 128 else 'interrupted; kept'}: {session.folder}/summary.md")
    return code


def one(session: Session, name: str) -> int:
    """One part; 2 where the library cannot run on the device, else 0."""
    session.begin(name)
    fault = session.values.get("facts", {}).get("fault")
    if fault and name in NEEDS_THE_LIBRARY:
        why = {"skipped": fault}
        session.keep(name, why if name == "fragments" else {"all": why})
        return 2
    print(f"{name} ({session.left:.0f} s)", flush=True)
    try:
        DONE[name](session)
    except Exception as error:  # ours: the parts keep what happens to programs
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".split("\n")[0]
        session.keep("faults", {"error": text}, name)
    value = session.values.get(name, {})
    if why := missing(value):
        print(f"  {why}", flush=True)
    if name == "facts" and value.get("fault"):
        print(f"error: {value['fault']}", flush=True)
        return 2
    return 0


def driver(session: Session) -> bool:
    """Whether there is a GPU that what needs no library of ours could ask."""
    return bool(session.values.get("facts", {}).get("nvidia_smi"))
