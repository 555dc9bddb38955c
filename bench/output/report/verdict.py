"""What a run comes to, in a sentence or two: the ratio, its interval, and the gate."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.output.tables.numbers import count, factor, percent, rounded, share

Values = dict[str, Any]


class Verdict(NamedTuple):
    """What stands at the top of a report.

    Attributes:
        speed: the sentence on speed.
        gate: whether the accuracy lets that speed count.
        state: "passed", "failed" or "unknown".
    """

    speed: str
    gate: str
    state: str


def verdict(v: Values) -> Verdict:
    """Of a complete record that was timed."""
    low, high = v["ratio.fs_to_ann_interval"] or v["ratio.fs_to_ann_iqr"]
    kind = "95 % interval" if v["ratio.fs_to_ann_interval"] else "quartiles"
    speed = (
        f"Few Spikes with K={v['K']} runs {v['model']} {rounded(v['ratio.fs_to_ann'])} times as "
        f"fast as the dense network ({kind} {rounded(low)} to {rounded(high)}, batch {v['batch']}, "
        f"{place(v)})."
    )
    return Verdict(speed, *gate(v))


def place(v: Values) -> str:
    """What it ran on."""
    return v["machine"].get("gpu") or f"{count(v['threads'], 'thread')} of {v['machine']['cpu']}"


def gate(v: Values) -> tuple[str, str]:
    """The sentence on the gate, and its state."""
    least, ratio, passed = v["gate.least"], v["gate.ratio"], v["gate.passed"]
    if v["random_weights"]:
        return (
            "No gate: the weights are random, so that accuracy, spikes and energy mean nothing and "
            "are left out.",
            "unknown",
        )
    if ratio is None and v["accuracy.ann"] is not None:
        return "No gate: the dense network has no right answer itself.", "unknown"
    if ratio is None:
        ends = v["accuracy.agreement_interval"]
        same = share(v["accuracy.agreement"], v["images"], ends) + (" of the" if ends else "")
        return (
            f"No gate: data={v['data.kind']} has no labels, so that nobody knows the accuracy. On "
            f"{v['data.shown']} it gives the dense network's answer in {same} cases.",
            "unknown",
        )
    kept = (
        f"its top-1 accuracy of {percent(v['accuracy.fs'])} is {percent(ratio)} of the dense "
        f"network's {percent(v['accuracy.ann'])}, on {v['data.shown']}"
    )
    if passed:
        return f"Valid: {kept}; at least {least:.0%} is asked for.", "passed"
    return (
        f"Not valid: {kept}; at least {least:.0%} is asked for. Its speed is that of a worse "
        "network.",
        "failed",
    )


def against_previous(v: Values) -> str | None:
    """How fast it is beside the previous run; None: there is none."""
    before = v["previous"]
    if before is None:
        return None
    now, then = when(v["started"], v["versions"]["commit"]), when(**dates(before))
    changes = [
        factor(v[key] / before[key], "faster", "slower")
        for key in ("fs.images_per_s", "ann.images_per_s")
    ]
    return (
        f"The FS network is {changes[0]} now ({now}) than then ({then}), and the dense network, "
        f"which shows how the machine has changed, {changes[1]}."
    )


def dates(before: Values) -> dict[str, str | None]:
    """When a previous run was, and of which commit."""
    return {key: before[key] for key in ("started", "commit")}


def when(started: str, commit: str | None) -> str:
    """A date to the minute, and the commit where it is known."""
    date = started[:16].replace("T", " ")
    return date if commit is None else f"{date}, commit {commit}"
