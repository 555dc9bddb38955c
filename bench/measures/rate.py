"""The rate-coded baseline's part of the measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from bench.errors import UserError
from bench.measures.networks import Tally
from bench.measures.stats import quantile, wilson
from bench.measures.subject import Subject
from bench.output.progress import bar
from fskernel.network.network import FSNetwork
from fskernel.rate.fused import FusedRateNetwork, check_fused, has_kernels
from fskernel.rate.network import RateNetwork, RateRun
from fskernel.rate.trains import KernelRateNetwork

RATE_KEYS = (
    "T",
    "images",
    "images_per_s",
    "seconds_per_step_iqr",
    "seconds_per_step",
    "spikes_per_image",
    "spikes_per_neuron",
    "extrapolated_from",
    "normalise",
    "reset",
    "input",
    "burn_in",
    "further",  # with curve=true: the curve of further thresholds by their name, as below
    "curve",
    "curve_fs",
    "equal",
    "equal_interval",
    "equal_T",
    "equal_images_per_s",
    "equal_spikes_per_image",
    "equal_spikes_per_neuron",
)
EQUAL_KEYS = RATE_KEYS[RATE_KEYS.index("equal") :]
WEAK_AND_STRONG = ("percentile", "balanced")  # the thresholds that curve=true compares
READINGS = 64  # of a curve, if `every` does not say how often it is read
TOLERANCE = 0.005  # rate coding has reached a share of answers when it is at most this much below
ACCURACY_KEYS = (
    "rate",
    "rate_interval",
    "rate_agreement",
    "rate_agreement_interval",
    "rate_ann",  # of the ANN and the FS network, on the same images as rate coding
    "rate_ann_interval",
    "rate_fs",
    "rate_fs_interval",
    "rate_fs_agreement",
    "rate_fs_agreement_interval",
)


def check_device(conf: DictConfig, device: str) -> None:
    """Refuses settings of the baseline that a device does not have.

    Raises:
        UserError: naming the setting and the cure.
    """
    if conf.kind == "rate" and device not in ("cpu", "emulated"):
        if conf.simulator == "torch":
            raise UserError("baseline.simulator=torch: plain torch runs on the CPU: backend=cpu")
        try:
            check_fused(conf.reset, conf.input)
        except ValueError as error:
            raise UserError(f"baseline.{error}: backend=cpu") from error


def is_fused(conf: DictConfig) -> bool:
    """Whether the kernels simulate, of a CPU or a GPU."""
    if conf.simulator != "auto":
        return conf.simulator == "fused"
    return has_kernels(conf.reset, conf.input)


@torch.inference_mode()
def simulate(
    subject: Subject,
    conf: DictConfig,
    tally: Tally,
    device: str = "cpu",
    weight_bits: int = 8,
    seed: int = 0,
    independent: bool = True,
) -> tuple[dict[str, object], dict[str, object]]:
    """Runs the rate-coded network on the first evaluated images, in batches like the others.

    Args:
        subject: the dense and the FS network, and the images to calibrate on.
        conf: the baseline's configuration.
        tally: holds the images.
        device: cpu, or a GPU.
        weight_bits: of the integer weights of the kernels.
        seed: of Poisson input.
        independent: whether the images are, so that shares of them have intervals.

    Returns:
        What belongs under rate.* and under accuracy.*; answers are known only if all T steps ran,
        and the curve of them over time only if conf.every or conf.curve asks for it.
        Where kernels ran, rate.kernels says of how many layers which one was.
    """
    net, batches = subject.net, first(tally, conf.images)

    def run(normalise: str) -> tuple[RateNetwork, list[RateRun]]:
        given = subject.graph, subject.calibration[: conf.calibration], conf.percentile
        options = {"normalise": normalise, "balanced_for": conf.balanced_for}
        options |= {"reset": conf.reset, "input": conf.input}
        if not is_fused(conf):
            rated = RateNetwork(*given, **options, seed=seed)
        elif device == "cpu":
            rated = KernelRateNetwork(*given, **options, weight_bits=weight_bits, path=conf.path)
        else:
            rated = FusedRateNetwork(*given, **options, weight_bits=weight_bits, device=device)
        steps = conf.T if conf.simulate == "all" else min(conf.T, 3 * rated.depth)
        every = conf.every or (max(1, conf.T // READINGS) if conf.curve else None)
        title = f"rate-coded, {normalise} thresholds, {steps} steps"
        with bar(title, steps * len(batches)) as advance:
            return rated, [
                rated.run(x, conf.T, every, steps, lambda _: advance(1), burn_in=conf.burn_in)
                for x, _ in batches
            ]

    rated, runs = run(conf.normalise)
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
        **{key: conf[key] for key in ("normalise", "reset", "input", "burn_in")},
    }
    if isinstance(rated, FusedRateNetwork):
        rate["kernels"] = dict(Counter(rated.kernels.values()).most_common())
    if runs[0].extrapolated_from:
        return rate, nothing()[1]
    shown = Answers(subject.ann, net, batches, independent)
    if conf.every or conf.curve:
        rate |= over_time(shown, runs, net.neurons)
    if conf.curve:
        further = [name for name in WEAK_AND_STRONG if name != conf.normalise]
        rate["further"] = {name: over_time(shown, run(name)[1], net.neurons) for name in further}
    return rate, shown.shares(runs)


class Answers:
    """What the networks answer to the images that rate coding was shown, and the labels."""

    def __init__(self, ann: nn.Module, net: FSNetwork, batches: list, independent: bool):
        self.independent = independent
        self.ann = torch.cat([ann(x).argmax(1) for x, _ in batches])
        self.fs = torch.cat([net(x).argmax(1) for x, _ in batches])
        known = batches[0][1] is not None
        self.labels = torch.cat([labels for _, labels in batches]) if known else None

    def shares(self, runs: list[RateRun]) -> dict[str, object]:
        """Agreement with the ANN, and top-1 where there are labels, with 95 % intervals."""
        last = answers_of(runs)[-1]
        found = nothing()[1]
        found |= self.share("rate_agreement", last == self.ann)
        found |= self.share("rate_fs_agreement", self.fs == self.ann)
        if self.labels is not None:
            for name, given in (("rate", last), ("rate_ann", self.ann), ("rate_fs", self.fs)):
                found |= self.share(name, given == self.labels)
        return found

    def share(self, name: str, right: Tensor) -> dict[str, object]:
        """How many of the answers [images] are right, and the 95 % interval."""
        hits, images = int(right.sum()), len(right)
        interval = wilson(hits, images) if self.independent else None
        return {name: hits / images, f"{name}_interval": interval}


def answers_of(runs: list[RateRun]) -> Tensor:
    """The classes that rate coding names, int64 [readings, images]."""
    return torch.cat([run.logits.argmax(2) for run in runs], 1)


def over_time(shown: Answers, runs: list[RateRun], neurons: int) -> dict[str, object]:
    """The share of right answers after every reading, and when it is that of the FS network.

    Without labels an answer is right if it is the ANN's.
    """
    wanted = shown.ann if shown.labels is None else shown.labels
    images, readings = len(wanted), runs[0].reported_at
    right = answers_of(runs) == wanted
    fired = sum(run.spikes_per_step.sum(1).cumsum(0) for run in runs).tolist()
    fs_right = int((shown.fs == wanted).sum())
    found = dict.fromkeys(EQUAL_KEYS) | {
        "curve_fs": fs_right / images,
        "curve": [
            {"T": T, "spikes_per_image": fired[T - 1] / images} | shown.share("share", right[i])
            for i, T in enumerate(readings)
        ],
    }
    at = lasting(right.sum(1).tolist(), fs_right - TOLERANCE * images)
    if at is None:
        return found
    T = readings[at]
    spikes = fired[T - 1] / images
    return (
        found
        | shown.share("equal", right[at])
        | {
            "equal_T": T,
            "equal_images_per_s": images / sum(sum(run.seconds_per_step[:T]) for run in runs),
            "equal_spikes_per_image": spikes,
            "equal_spikes_per_neuron": spikes / neurons,
        }
    )


def in_words(found: dict) -> str:
    """When the answers of the curves are as good as those of the FS network."""
    near = f"{100 * TOLERANCE:.1f} points of the FS network's"
    if found["equal_T"] is None:
        said = f"rate coding does not stay within {near} answers in T={found['T']} steps"
    else:
        said = (
            f"rate coding is shown at T={found['equal_T']}: from there to T={found['T']} its share "
            f"of right answers stays within {near}"
        )
    for name, curve in (found["further"] or {}).items():
        when = "never does" if curve["equal_T"] is None else f"does from T={curve['equal_T']} on"
        said += f"; with {name} thresholds it {when}"
    return said


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


def nothing() -> tuple[dict[str, object], dict[str, object]]:
    """The same keys where no baseline was asked for."""
    return dict.fromkeys(RATE_KEYS), dict.fromkeys(ACCURACY_KEYS)
