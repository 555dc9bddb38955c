"""The rate-coded baseline's part of the measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from bench.measures.networks import Tally
from bench.measures.stats import quantile, wilson
from bench.output.progress import bar
from fskernel.network.network import FSNetwork
from fskernel.rate.fused import FusedRateNetwork
from fskernel.rate.network import RateNetwork, RateRun
from fskernel.tracing.trace import trace

RATE_KEYS = (
    "T",
    "images",
    "images_per_s",
    "seconds_per_step_iqr",
    "seconds_per_step",
    "spikes_per_image",
    "spikes_per_neuron",
    "extrapolated_from",
    "curve",
    "curve_fs",
    "equal",
    "equal_interval",
    "equal_T",
    "equal_images_per_s",
    "equal_spikes_per_image",
    "equal_spikes_per_neuron",
)
TOLERANCE = 0.005  # rate coding has reached a share of answers when it is at most this much below
ACCURACY_KEYS = ("rate", "rate_interval", "rate_agreement", "rate_agreement_interval")


@torch.inference_mode()
def simulate(
    ann: nn.Module,
    net: FSNetwork,
    conf: DictConfig,
    calibration: Tensor,
    tally: Tally,
    device: str = "cpu",
    weight_bits: int = 8,
) -> tuple[dict[str, object], dict[str, object]]:
    """Runs the rate-coded network on the first evaluated images, in batches like the others.

    Args:
        ann: the dense network.
        net: the FS network, for its float graph.
        conf: the baseline's configuration.
        calibration: images, float32 [N, C, H, W].
        tally: holds the images.
        device: cpu, or a GPU, where the layers are fused steps.
        weight_bits: of the integer weights on a GPU.

    Returns:
        What belongs under rate.* and under accuracy.*; answers are known only if all T steps ran,
        and the curve of them over time only if conf.every asks for it.
        On a GPU rate.kernels says of how many layers which kernel was.
    """
    # net.graph may be a corrected one; what was converted was compared with the ANN already.
    graph = trace(ann, tuple(calibration.shape), compared=False)
    given = graph, calibration[: conf.calibration], conf.percentile
    if device == "cpu":
        rated = RateNetwork(*given)
    else:
        rated = FusedRateNetwork(*given, weight_bits=weight_bits, device=device)
    steps = conf.T if conf.simulate == "all" else min(conf.T, 3 * rated.depth)
    batches = first(tally, conf.images)
    with bar(f"rate-coded, {steps} steps", steps * len(batches)) as advance:
        runs = [
            rated.run(x, conf.T, conf.every, until=steps, on_step=lambda _: advance(1))
            for x, _ in batches
        ]
    images = sum(len(x) for x, _ in batches)
    spikes = sum(float(run.spikes().sum()) for run in runs) / images
    settled = [s for run in runs for s in late_seconds(run)]
    rate = nothing()[0] | {
        "T": conf.T,
        "images": images,
        "images_per_s": images / sum(run.seconds() for run in runs),
        "seconds_per_step": median(settled),
        "seconds_per_step_iqr": [quantile(settled, q) for q in (0.25, 0.75)],
        "spikes_per_image": spikes,
        "spikes_per_neuron": spikes / net.neurons,
        "extrapolated_from": runs[0].extrapolated_from,
    }
    if isinstance(rated, FusedRateNetwork):
        rate["kernels"] = dict(Counter(rated.kernels.values()).most_common())
    if conf.every and steps == conf.T:
        rate |= over_time(ann, net, batches, runs)
    return rate, answers(ann, batches, runs) if steps == conf.T else nothing()[1]


def over_time(ann: nn.Module, net: FSNetwork, batches: list, runs: list[RateRun]) -> dict:
    """The share of right answers after every reading, and when it is that of the FS network.

    Without labels an answer is right if it is the ANN's.
    """
    wanted = [ann(x).argmax(1) if labels is None else labels for x, labels in batches]
    images = sum(map(len, wanted))
    right = sum((run.logits.argmax(2) == y).sum(1) for run, y in zip(runs, wanted)).tolist()
    fired = sum(run.spikes_per_step.sum(1).cumsum(0) for run in runs).tolist()
    readings = runs[0].reported_at
    fs_right = sum(int((net(x).argmax(1) == y).sum()) for (x, _), y in zip(batches, wanted))
    found = {
        "curve_fs": fs_right / images,
        "curve": [
            {
                "T": T,
                "share": n / images,
                "interval": wilson(n, images),
                "spikes_per_image": fired[T - 1] / images,
            }
            for T, n in zip(readings, right)
        ],
    }
    at = lasting(right, fs_right - TOLERANCE * images)
    if at is None:
        return found
    T, spikes = readings[at], fired[readings[at] - 1] / images
    return found | {
        "equal": right[at] / images,
        "equal_interval": wilson(right[at], images),
        "equal_T": T,
        "equal_images_per_s": images / sum(sum(run.seconds_per_step[:T]) for run in runs),
        "equal_spikes_per_image": spikes,
        "equal_spikes_per_neuron": spikes / net.neurons,
    }


def in_words(found: dict) -> str:
    """When the answers of the curve are as good as those of the FS network."""
    near = f"{100 * TOLERANCE:.1f} points of the FS network's"
    if found["equal_T"] is None:
        return f"rate coding does not stay within {near} answers in T={found['T']} steps"
    return (
        f"rate coding is shown at T={found['equal_T']}: from there to T={found['T']} its share of "
        f"right answers stays within {near}"
    )


def lasting(values: Sequence[float], least: float) -> int | None:
    """The first place from which on no value is below `least`; None: the last one is."""
    found = None
    for i in reversed(range(len(values))):
        if values[i] < least:
            break
        found = i
    return found


def late_seconds(run: RateRun) -> list[float]:
    """Time of the steps after the transient."""
    return run.seconds_per_step[-run.depth :]


def first(tally: Tally, images: int | None) -> list[tuple[Tensor, Tensor | None]]:
    """The first `images` evaluated images in their batches; None: one batch."""
    if images is None:
        return tally.kept[:1]
    batches = []
    for x, labels in tally.kept:
        take = min(images, len(x))
        if take == 0:
            break
        batches.append((x[:take], None if labels is None else labels[:take]))
        images -= take
    return batches


def answers(ann: nn.Module, batches: list, runs: list[RateRun]) -> dict[str, object]:
    """Agreement with the ANN, and top-1 accuracy where there are labels."""
    found = nothing()[1]
    images = sum(len(x) for x, _ in batches)
    given = [run.logits[-1].argmax(1) for run in runs]
    agree = sum(int((g == ann(x).argmax(1)).sum()) for g, (x, _) in zip(given, batches))
    found |= {
        "rate_agreement": agree / images,
        "rate_agreement_interval": wilson(agree, images),
    }
    if batches[0][1] is not None:
        right = sum(int((g == labels).sum()) for g, (_, labels) in zip(given, batches))
        found |= {"rate": right / images, "rate_interval": wilson(right, images)}
    return found


def nothing() -> tuple[dict[str, object], dict[str, object]]:
    """The same keys where no baseline was asked for."""
    return dict.fromkeys(RATE_KEYS), dict.fromkeys(ACCURACY_KEYS)
