"""The race of bench/peers.py: who is timed how, and which goals were reached."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from bench.measures.speed.rivals import FEW_SPIKES, RIVALS, Rival, Setting
from bench.measures.stats import median_iqr
from bench.measures.timing import second_call
from bench.output import interrupt, machine
from bench.output.progress import bar, console, say
from fskernel.files import write_text

SLOW_ROUNDS = 3


@dataclass(frozen=True)
class Goal:
    """`ours` shall be so many times as fast as the fastest of `theirs`, by batch size."""

    ours: str
    theirs: tuple[str, ...]
    times: dict[int, float]

    @property
    def title(self) -> str:
        """For the table."""
        return f"{self.ours} against {' / '.join(self.theirs)}"


FLOAT = ("ONNX Runtime fp32", "OpenVINO fp32")
# For one thread of a processor with AVX512-VNNI and ResNet50 at 224x224.
GOALS = [
    Goal(FEW_SPIKES, FLOAT, {1: 4.0, 8: 3.6}),
    Goal(FEW_SPIKES, ("OpenVINO int8",), {1: 1.10, 8: 1.0}),
    Goal(FEW_SPIKES, ("ONNX Runtime int8",), {1: 1.30, 8: 1.15}),
    Goal("FS K=10", FLOAT, {1: 2.1, 8: 2.0}),
    Goal(FEW_SPIKES, ("torch fp32, eager",), {1: 5.8, 8: 5.5}),
    Goal("FS K=8, 2 threads", (FEW_SPIKES,), {1: 1.6, 8: 1.9}),
]


def prepare(rivals: list[Rival], setting: Setting) -> tuple[dict[str, object], dict[str, str]]:
    """The calls of those rivals that can run, warm, and why the others cannot."""
    calls, reasons = {}, {}
    with bar("preparing", len(rivals)) as advance:
        for rival in rivals:
            torch.set_num_threads(rival.threads or setting.threads)
            try:
                calls[rival.name] = rival.build(setting)
                calls[rival.name]()
            except ImportError as error:
                packages = " ".join(rival.packages)
                reasons[rival.name] = f"not installed ({error.name}): pip install {packages}"
            except Exception as error:  # a rival's fault is a row, not the end
                calls.pop(rival.name, None)
                reasons[rival.name] = f"failed: {type(error).__name__}: {error}"[:300]
            advance(1)
    return calls, reasons


def measure(
    rivals: list[Rival], calls: dict, rounds: int, threads: int, seed: int = 0
) -> dict[str, list[float | None]]:
    """Seconds of every call in every finished round; None where a slow one sat the round out.

    Every call is made twice, and the second is timed, so that nobody pays for what the one before
    it left in the caches. Ctrl-C, or a signal like it, ends it and keeps the finished rounds.
    """
    order = random.Random(seed)
    running = [rival for rival in rivals if rival.name in calls]
    seconds: dict[str, list[float | None]] = {rival.name: [] for rival in running}
    with bar("timing", rounds) as advance:
        try:
            for i in range(rounds):
                now: dict[str, float | None] = dict.fromkeys(seconds)
                for rival in order.sample(running, len(running)):
                    if rival.slow and i >= SLOW_ROUNDS:
                        continue
                    torch.set_num_threads(rival.threads or threads)
                    now[rival.name] = second_call(calls[rival.name])
                for name, value in now.items():
                    seconds[name].append(value)
                advance(1)
        except KeyboardInterrupt:
            done = len(next(iter(seconds.values()), []))
            say(f"stopped: {done} of {rounds} rounds are kept")
    return seconds


def ratios(ours: list[float | None], theirs: list[list[float | None]]) -> list[float]:
    """Their best time over ours, round by round, where all of them ran."""
    rows = zip(ours, *theirs, strict=True)
    return [min(other) / mine for mine, *other in rows if mine and None not in other]


def judge(goals: list[Goal], seconds: dict, batch: int, applies: bool) -> list[dict]:
    """Every goal with the ratio that was reached, and whether that is enough; None: not judged."""
    out = []
    for goal in goals:
        wanted = goal.times.get(batch)
        ran = [seconds[name] for name in goal.theirs if name in seconds]
        values = ratios(seconds[goal.ours], ran) if goal.ours in seconds and ran else []
        complete = len(ran) == len(goal.theirs)
        reached = median_iqr(values) if values else (None, None)
        met = reached[0] >= wanted if values and complete and wanted and applies else None
        out.append(
            {
                "goal": goal.title,
                "wanted": wanted,
                "ratio": reached[0],
                "quartiles": reached[1],
                "met": met,
            }
        )
    return out


def milliseconds(seconds: dict[str, list[float | None]], batch: int) -> dict[str, dict]:
    """Milliseconds an image of everyone who ran: the median and the quartiles of the rounds.

    `per` says what one call was, if that was no batch.
    """
    found = {}
    for rival in RIVALS:
        ran = [1e3 * s / batch for s in seconds.get(rival.name, []) if s is not None]
        if ran:
            median, quartiles = median_iqr(ran)
            numbers = {"median": median, "quartiles": quartiles, "rounds": len(ran)}
            found[rival.name] = numbers | {"per": rival.per}
    return found


def rows_table(record: dict) -> Table:
    """Milliseconds an image of every rival."""
    table = Table(title=f"batch {record['batch']}, {record['threads']} thread(s)", box=box.SIMPLE)
    for title in ("", "ms/image", "quartiles", "FS K=8 is ... times as fast", "rounds"):
        table.add_column(title, justify="left" if not title else "right")
    ours = record["seconds"].get(FEW_SPIKES)
    for rival in RIVALS:
        if rival.name in record["reasons"]:
            table.add_row(rival.name, record["reasons"][rival.name])
        if rival.name not in record["milliseconds"]:
            continue
        times = record["milliseconds"][rival.name]
        faster = ratios(ours, [record["seconds"][rival.name]]) if ours else []
        name = rival.name if rival.per == "batch" else f"{rival.name} (ms per {rival.per})"
        table.add_row(
            name,
            f"{times['median']:.2f}",
            "–".join(f"{q:.2f}" for q in times["quartiles"]),
            f"{median_iqr(faster)[0]:.2f}x" if faster else "-",
            str(times["rounds"]),
        )
    return table


def goals_table(record: dict) -> Table:
    """Goals, and what was reached."""
    table = Table(box=box.SIMPLE)
    for title in ("goal", "wanted", "reached", "quartiles", ""):
        table.add_column(title)
    for row in record["goals"]:
        if row["ratio"] is None:
            continue
        verdict = {True: "met", False: "MISSED", None: "not judged here"}[row["met"]]
        table.add_row(
            row["goal"],
            f"{row['wanted']:.2f}x" if row["wanted"] else "-",
            f"{row['ratio']:.2f}x",
            "–".join(f"{q:.2f}" for q in row["quartiles"]),
            verdict,
        )
    return table


def chosen(only: list[str] | None) -> list[Rival]:
    """The rivals whose names contain one of the words; all of them without words."""
    return [r for r in RIVALS if not only or any(word.lower() in r.name.lower() for word in only)]


def run(args: argparse.Namespace, command: str) -> None:
    """Measures, prints and saves.

    Args:
        args: of bench/peers.py. command: what was typed, for the record.
    """
    import torchvision

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = getattr(torchvision.models, args.model)(weights=None).eval()
    calibration = torch.randn(2, 3, args.size, args.size)
    facts = machine.measured_by(command)
    published = ("resnet50", 224, 1)
    applies = facts["isa"] == "avx512vnni" and (args.model, args.size, args.threads) == published
    results = facts | {"model": args.model, "size": args.size, "batches": []}
    for batch in args.batch:
        with tempfile.TemporaryDirectory(prefix="fskernel-peers-") as folder:
            x = torch.randn(batch, 3, args.size, args.size)
            setting = Setting(model, x, calibration, Path(folder), args.threads)
            rivals = chosen(args.only)
            calls, reasons = prepare(rivals, setting)
            seconds = measure(rivals, calls, args.rounds, args.threads)
        record = {"batch": batch, "threads": args.threads, "seconds": seconds, "reasons": reasons}
        record["milliseconds"] = milliseconds(seconds, batch)
        record["goals"] = judge(GOALS, seconds, batch, applies)
        results["batches"].append(record)
        write_text(args.out, json.dumps(results, indent=1))  # after every batch: nothing is lost
        console.print(rows_table(record), goals_table(record))
        if interrupt.came():
            break
    cpu, isa = facts["machine"]["cpu"], facts["isa"]
    console.print(f"{cpu}, {isa}; saved in {args.out}", highlight=False)
