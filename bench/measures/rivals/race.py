"""The race: all rivals in one process, in a new random order every round."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import torch

from bench.measures.rivals.listed import FLOAT, TORCH
from bench.measures.rivals.rival import Rival, Runner, Setting, in_words
from bench.measures.stats import median_interval, median_iqr
from bench.measures.timing import clock_of, host, replayable, times_for
from bench.output.progress import bar, say

SLOW_ROUNDS = 3
LONG = 1.0  # seconds: what stood in the caches before is nothing beside such a call

Seconds = Mapping[str, Sequence[float | None]]  # of an answer to a batch, round by round


def prepare(
    rivals: Sequence[Rival], s: Setting, advance: Callable[[int], None] = lambda _: None
) -> tuple[dict[str, Runner], dict[str, str]]:
    """Those rivals that can run, warm, and why the others cannot."""
    runners: dict[str, Runner] = {}
    reasons: dict[str, str] = {}
    torch.set_num_threads(s.threads)
    for rival in rivals:
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # their own bars
                runners[rival.name] = rival.build(s)
                if not rival.slow:
                    runners[rival.name].call()
        except ImportError as error:
            runners.pop(rival.name, None)
            packages = " ".join(rival.packages)
            absent = (error.name or "").partition(".")[0]
            reasons[rival.name] = f"not installed ({absent}): pip install {packages}"
        except Exception as error:  # a rival's fault is a row, not the end
            runners.pop(rival.name, None)
            reasons[rival.name] = in_words(error)
        advance(1)
    return runners, reasons


def clocks(runners: Mapping[str, Runner], device: torch.device) -> dict[str, Callable[[], float]]:
    """What tells the seconds of an answer of each rival.

    On a CPU every call is made twice and the second is timed, so that nobody pays for what the one
    before it left in the caches. On a GPU calls are CUDA graphs, replayed between events.
    """

    def on_cpu(runner: Runner) -> Callable[[], float]:
        def seconds() -> float:
            first = host(runner.call, 1)
            return runner.steps * (first if first > LONG else host(runner.call, 1))

        return runner.seconds or seconds

    def on_gpu(runner: Runner) -> Callable[[], float]:
        clock, replay = clock_of(device), replayable(runner.call, device)
        times = times_for(replay, clock)
        return lambda: runner.steps * clock(replay, times) / times

    made = on_gpu if device.type == "cuda" else on_cpu
    return {name: made(runner) for name, runner in runners.items()}


def measure(
    rivals: Sequence[Rival],
    seconds_of: Mapping[str, Callable[[], float]],
    rounds: int,
    threads: int | Mapping[str, int],
    slow_rounds: int = SLOW_ROUNDS,
    seed: int = 0,
) -> tuple[dict[str, list[float | None]], KeyboardInterrupt | None]:
    """Seconds of every rival in every finished round; None where a slow one sat the round out.

    Args:
        rivals: who races. seconds_of: tells the seconds of an answer, by their names.
        rounds: of all. threads: of all, or by their names. slow_rounds: of those that are slow.
        seed: of the order.

    Returns:
        The seconds, and what ended it before its time: Ctrl-C, or a signal like it, keeps the
        finished rounds.
    """
    order = random.Random(seed)
    running = [rival for rival in rivals if rival.name in seconds_of]
    seconds: dict[str, list[float | None]] = {rival.name: [] for rival in running}
    with bar("racing", rounds) as advance:
        try:
            for i in range(rounds):
                now: dict[str, float | None] = dict.fromkeys(seconds)
                for rival in order.sample(running, len(running)):
                    if rival.slow and i >= slow_rounds:
                        continue
                    torch.set_num_threads(
                        threads if isinstance(threads, int) else threads[rival.name]
                    )
                    now[rival.name] = seconds_of[rival.name]()
                for name, value in now.items():
                    seconds[name].append(value)
                advance(1)
        except KeyboardInterrupt as error:
            done = len(next(iter(seconds.values()), []))
            say(f"stopped: {done} of {rounds} rounds are kept")
            return seconds, error
    return seconds, None


def ratios(ours: Sequence[float | None], theirs: Sequence[Sequence[float | None]]) -> list[float]:
    """Their best time over ours, round by round, where all of them ran."""
    rows = zip(ours, *theirs, strict=True)
    return [min(other) / mine for mine, *other in rows if mine and None not in other]


def times(name: str, seconds: Seconds, reference: str, batch: int) -> dict[str, object]:
    """Milliseconds an image of a rival, and how many times as fast the reference is.

    Medians with quartiles; of ratios, which are taken within a round, the 95 % interval of the
    median, too, from six rounds on. Nothing where no round was finished.
    """
    ran = [1e3 * s / batch for s in seconds.get(name, []) if s is not None]
    if not ran:
        return {}
    middle, quartiles = median_iqr(ran)
    found: dict[str, object] = {"ms": middle, "ms_quartiles": quartiles, "rounds": len(ran)}
    pairs = ratios(seconds[reference], [seconds[name]]) if reference in seconds else []
    if pairs and name != reference:
        ratio, ends = median_iqr(pairs)
        interval = median_interval(pairs)
        found |= {"ratio": ratio, "ratio_quartiles": ends, "ratio_interval": interval}
    return found


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


# For one thread of a processor with AVX512-VNNI and ResNet50 at 224x224.
GOALS = (
    Goal("FS K=8", FLOAT, {1: 4.0, 8: 3.6}),
    Goal("FS K=8", ("OpenVINO int8",), {1: 1.10, 8: 1.0}),
    Goal("FS K=8", ("ONNX Runtime int8",), {1: 1.30, 8: 1.15}),
    Goal("FS K=10", FLOAT, {1: 2.1, 8: 2.0}),
    Goal("FS K=8", (TORCH,), {1: 5.8, 8: 5.5}),
)


def judge(goals: Sequence[Goal], seconds: Seconds, batch: int, applies: bool) -> list[dict]:
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
