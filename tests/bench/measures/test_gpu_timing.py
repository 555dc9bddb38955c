"""Risk: what is timed on a GPU is Python, or a figure has no spread that can be believed."""

import itertools

import pytest
import torch

import fskernel as fs
from bench.measures import timing
from bench.measures.stats import median_interval
from fskernel import reference


class Clock:
    """Seconds that replays take; a launch that were in it would show."""

    def __init__(self, *seconds):
        self.each = dict(zip("ab", seconds, strict=False))
        self.asked = []
        self.drift = itertools.count()

    def __call__(self, replay, times):
        self.asked.append((replay, times))
        return times * self.each[replay]


def test_samples_hold_enough_replays_and_give_the_time_of_one():
    clock = Clock(1e-4)
    found = timing.timed("a", clock, copies=20)
    assert found["replays"] == 50, "5 ms of 0.1 ms"
    assert found["median"] == pytest.approx(1e-4 / 20) and found["samples"] == timing.SAMPLES
    assert found["iqr"] == pytest.approx([5e-6, 5e-6])
    warm = sum(times for _, times in clock.asked[: -timing.SAMPLES])
    assert warm * 1e-4 >= timing.WARM
    assert max(times for _, times in clock.asked) <= timing.MOST_QUEUED


@pytest.mark.parametrize("seconds, replays, samples", [(3.0, 1, 3), (1e-9, 400, 25), (6e-3, 1, 25)])
def test_long_and_short_calls_are_sampled_within_bounds(seconds, replays, samples):
    found = timing.timed("a", Clock(seconds))
    assert (found["replays"], found["samples"]) == (replays, samples)


def test_pairs_are_in_turn_and_the_ratio_says_how_many_times_as_fast():
    clock = Clock(2e-3, 5e-3)
    found = timing.paired({"a": "a", "b": "b"}, clock, rounds=10)
    order = [replay for replay, _ in clock.asked[-20:]]
    assert order == list("abba" * 5)
    assert found["ratio"] == pytest.approx(2.5) and found["rounds"] == 10
    assert found["ratio_interval"] == pytest.approx([2.5, 2.5])


def test_the_interval_of_the_median_holds_it_as_often_as_it_says():
    assert median_interval(range(5)) is None
    assert median_interval(range(6)) == [0, 5]
    assert median_interval(range(1, 26)) == [8, 18], "as in tables"
    draws = torch.rand(2000, 40, generator=torch.Generator().manual_seed(0)).tolist()
    intervals = [median_interval(values) for values in draws]
    assert 0.94 < sum(low <= 0.5 <= high for low, high in intervals) / 2000 < 0.98


def test_a_replay_on_a_cpu_is_so_many_calls():
    calls = []
    timing.replayable(lambda: calls.append(torch.is_inference_mode_enabled()), CPU, copies=3)()
    assert calls == [True] * 3
    assert timing.clock_of(CPU)(lambda: calls.append(0), 4) > 0 and len(calls) == 7


CPU = torch.device("cpu")


def test_layers_are_called_on_what_they_read_in_the_network():
    net = fs.convert(fs.models.cifar_resnet8(), alpha=6.0, K=8)
    x = torch.randn(2, 3, 32, 32)
    wanted = {}
    net.execute(x, reference.collapsed, lambda step, _, y, counts: wanted.update({step.name: y}))
    calls = net.layer_calls(x)
    assert list(calls) == [step.name for step in net.steps]
    for name, call in calls.items():
        assert torch.equal(call()[0], wanted[name]), name
