"""Clocks: of a CPU, and of a GPU, where CUDA graphs are replayed between events.

Of replays no input is copied and nobody waits for the host in between. A GPU sleeps in front of
every sample until the replays stand in its queue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

import torch

from bench.measures.stats import median_interval, median_iqr

Call = Callable[[], object]
Clock = Callable[[Call, int], float]  # seconds of so many calls, one behind the other

SHORTEST = 5e-3  # seconds of a sample, at least
SAMPLES = 25
WARM = 0.3  # seconds of calls before the first sample: clocks and power settle
LAUNCH_CLOCKS = 60_000  # of the GPU, some 30 us: more than a replay costs the host
MOST_QUEUED = 400  # replays: the driver's queue has room for about a thousand


def events(device: torch.device) -> Clock:
    """The clock of a GPU: events around the calls on its current stream."""

    def seconds(call: Call, times: int) -> float:
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(LAUNCH_CLOCKS * times)
            begin.record()
            for _ in range(times):
                call()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1000

    return seconds


def host(call: Call, times: int) -> float:
    """The clock of a CPU."""
    begin = perf_counter()
    for _ in range(times):
        call()
    return perf_counter() - begin


def second_call(call: Call) -> float:
    """Seconds of the second of two calls: nobody pays for what stood in the caches before."""
    call()
    return host(call, 1)


def clock_of(device: torch.device) -> Clock:
    """The clock for calls that run there."""
    return events(device) if device.type == "cuda" else host


@torch.inference_mode()
def replayable(call: Call, device: torch.device, copies: int = 1, warmup: int = 3) -> Call:
    """`copies` calls as one CUDA graph; on a CPU, the calls themselves.

    The tensors that the call reads must stay where they are; its result is overwritten.
    """

    def several() -> None:
        for _ in range(copies):
            call()

    if device.type != "cuda":
        return torch.inference_mode()(several)
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(warmup):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            several()

    def replay(kept: object = call) -> None:  # what the call holds stays alive with the graph
        graph.replay()

    return replay


def repeats(once: float, shortest: float, most: int) -> int:
    """How many calls, of which one takes `once` seconds, make a sample long enough."""
    return max(1, min(most, math.ceil(shortest / max(once, 1e-7))))


def times_for(replay: Call, clock: Clock, warm: float = WARM) -> int:
    """How many replays make a sample long enough, measured behind `warm` seconds of them."""
    clock(replay, 1)
    once, spent = clock(replay, 1), 0.0
    while spent < warm:
        several = repeats(once, warm - spent, MOST_QUEUED)
        taken = max(clock(replay, several), 1e-6)
        once, spent = taken / several, spent + taken
    return repeats(once, SHORTEST, MOST_QUEUED)


def timed(
    replay: Call,
    clock: Clock,
    *,
    samples: int = SAMPLES,
    most: float = 4.0,
    copies: int = 1,
    warm: float = WARM,
) -> dict[str, object]:
    """Seconds of one call: the median and quartiles of samples.

    Args:
        replay: `copies` calls.
        clock: tells the time of replays.
        samples: that are taken; fewer, but at least 3, where they would take longer than
        most: seconds.
        copies: calls in a replay.
        warm: seconds of calls before the first sample.
    """
    times = times_for(replay, clock, warm)
    found: list[float] = []
    spent = 0.0
    while len(found) < samples and (len(found) < 3 or spent < most):
        taken = clock(replay, times)
        spent += taken
        found.append(taken / times / copies)
    middle, quartiles = median_iqr(found)
    return {"median": middle, "iqr": quartiles, "samples": len(found), "replays": times}


def paired(
    replays: Mapping[str, Call], clock: Clock, *, rounds: int = 40, most: float = 12.0
) -> dict[str, object]:
    """Two calls in turn, the second first in every other round.

    Returns:
        Seconds of each by its name, and how many times as fast as the second the first is: the
        median over the rounds, quartiles, and the 95 % interval of the median.
    """
    times = {name: times_for(replay, clock) for name, replay in replays.items()}
    seconds: dict[str, list[float]] = {name: [] for name in replays}
    spent = 0.0
    for i in range(rounds):
        if i >= 6 and spent > most:
            break
        for name in list(replays)[:: 1 if i % 2 == 0 else -1]:
            taken = clock(replays[name], times[name])
            spent += taken
            seconds[name].append(taken / times[name])
    ours, theirs = seconds.values()
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    middle, quartiles = median_iqr(ratios)
    return {
        "seconds": {name: median(values) for name, values in seconds.items()},
        "ratio": middle,
        "ratio_iqr": quartiles,
        "ratio_interval": median_interval(ratios),
        "rounds": len(ratios),
        "replays": times,
    }
