"""Ranges of a float graph's layers on calibration images, and the alphas chosen from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from fskernel.graph import Graph, Layer
from fskernel.image_sizes import SHAPES
from fskernel.progress import progress_bar

# A positive float32, read as an integer and shifted, is its own logarithmic histogram bin:
# exponent and 11 bits of mantissa, so a percentile is known to 0.05 %.
_SHIFT = 12
_BINS = 2 ** (31 - _SHIFT)


def rounded(v: Tensor, step: Tensor | float, K: int, rounding: str) -> Tensor:
    """What spike words of K steps, of last threshold `step`, stand for; v are membranes."""
    offset = 0.5 if rounding == "nearest" else 0.0
    return torch.floor(v / step + offset).clamp_(0, 2.0**K - 1).mul_(step)


@dataclass
class Ranges:
    """What calibration saw, per layer: the largest magnitude, and how magnitudes spread."""

    largest: dict[str, float] = field(default_factory=dict)
    histogram: dict[str, Tensor] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)  # values, zeros included
    input_size: tuple[int, ...] | None = None
    images: int = 0

    def count(self, name: str, values: Tensor) -> None:
        """Adds float32 values to the layer's histogram; only positive ones count."""
        key = values[values > 0].view(torch.int32) >> _SHIFT
        seen = torch.bincount(key, minlength=_BINS)
        self.histogram[name] = self.histogram.get(name, 0) + seen
        self.counted[name] = self.counted.get(name, 0) + values.numel()

    def percentile(self, name: str, percent: float, zeros: bool = False) -> float:
        """Smallest magnitude that `percent` % of the layer's do not exceed.

        Args:
            name: of the layer.
            percent: in (0, 100].
            zeros: whether zeros count too; else they are left out.
        """
        bins = self.histogram[name]
        positive = int(bins.sum())
        total = self.counted[name] if zeros else positive
        rank = max(1, math.ceil(total * percent / 100.0)) - (total - positive)
        if positive == 0 or rank < 1:
            return 0.0
        index = int(torch.searchsorted(bins.cumsum(0), rank))
        upper = torch.tensor(((index + 1) << _SHIFT) - 1, dtype=torch.int32)
        return min(float(upper.view(torch.float32)), self.largest[name])

    def least_error(self, name: str, K: int, rounding: str) -> float:
        """The value for the largest word that rounds the layer's magnitudes best, in mean square.

        A grid of 80 values from 5 to 100 % of the largest magnitude.
        """
        bins = self.histogram[name]
        if int(bins.sum()) == 0:
            return 0.0
        used = bins.nonzero().squeeze(1)
        middle = ((used << _SHIFT) + (1 << (_SHIFT - 1))).to(torch.int32).view(torch.float32)
        values, counts = middle.double(), bins[used].double()
        best = (math.inf, 0.0)
        for i in range(80):
            top = self.largest[name] * (0.05 + 0.95 * i / 79)
            error = counts @ (rounded(values, top / (2.0**K - 1), K, rounding) - values).square()
            best = min(best, (float(error), top))
        return best[1]


def batches(calibration: Tensor | Iterable) -> Iterator[Tensor]:
    """Float batches [N, C, H, W] out of a tensor, a DataLoader or any iterable of either.

    Sequences [N, C, L] and vectors [N, F] stay what they are.

    Raises:
        TypeError, ValueError: for what is not a float image batch, names what it got.
    """
    if isinstance(calibration, Tensor):
        calibration = calibration.split(16) if calibration.dim() in SHAPES else [calibration]
    elif not isinstance(calibration, Iterable):
        raise TypeError(
            f"calibration is a {type(calibration).__name__}: expected a float tensor [N, C, H, W] "
            "or an iterable of them"
        )
    for batch in calibration:
        if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Tensor):
            batch = batch[0]  # (images, labels) of a DataLoader
        if not isinstance(batch, Tensor) or not batch.is_floating_point():
            what = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
            raise TypeError(f"calibration holds {what}: expected float images [N, C, H, W]")
        if batch.dim() not in SHAPES:
            raise ValueError(
                f"calibration has shape {tuple(batch.shape)}: expected [N, C, H, W] (or [N, C, L] "
                "or [N, F]); a single image needs .unsqueeze(0)"
            )
        if not torch.isfinite(batch).all():
            raise ValueError("calibration holds NaN or infinite values: check the preprocessing")
        yield batch.detach().to("cpu", torch.float32)


def measure(graph: Graph, calibration: Tensor | Iterable, progress: bool = False) -> Ranges:
    """Runs the dense network over the calibration images and records every layer's range.

    Streaming: one batch is in memory at a time, and the result does not depend on batching.

    Raises:
        ValueError: no images, or images the network cannot read.
    """
    ranges = Ranges()
    graph = graph.to(torch.float32)

    def observe(layer: Layer, value: Tensor) -> None:
        if layer.kind in ("neuron", "graded", "input"):
            peak = float(value.abs().amax()) if value.numel() else 0.0
            if not math.isfinite(peak):
                raise ValueError(
                    f"layer '{layer.name}' gives {peak} on the calibration images: the network "
                    "overflows; check its weights and the preprocessing"
                )
            ranges.largest[layer.name] = max(ranges.largest.get(layer.name, 0.0), peak)
        if layer.kind in ("neuron", "graded"):
            ranges.count(layer.name, value.abs())

    with progress_bar("calibrating", None, progress) as advance:
        for batch in batches(calibration):
            if len(batch) == 0:
                continue
            try:
                graph.forward(batch.contiguous(memory_format=torch.channels_last), observe=observe)
            except RuntimeError as error:
                raise ValueError(
                    f"calibration has a batch of shape {tuple(batch.shape)} that the network "
                    f"cannot read ({error})"
                ) from error
            ranges.images += len(batch)
            ranges.input_size = (1, *batch.shape[1:])
            advance("")
    if ranges.images == 0:
        raise ValueError("calibration is empty: pass at least one image")
    return ranges


POLICIES = ("max", "mse", "logits")  # and "percentile:p"


def check_policy(alpha: object, has_calibration: bool) -> None:
    """Refuses an alpha policy that is malformed, or needs images that are not there.

    Raises:
        TypeError, ValueError: naming alpha, its value and the cure.
    """
    if isinstance(alpha, dict):
        for name, value in alpha.items():
            check_policy(value, has_calibration)
            if isinstance(value, dict):
                raise TypeError(f"alpha[{name!r}] is itself a dict: use a number or a policy")
            if value == "logits":
                raise ValueError(
                    f"alpha[{name!r}]='logits': this policy is for the whole network; say "
                    "alpha='logits'"
                )
        return
    if isinstance(alpha, str):
        if alpha not in POLICIES and not alpha.startswith("percentile:"):
            raise ValueError(
                f"alpha={alpha!r} is not a policy: use 'max', 'percentile:99.9', 'mse', 'logits', "
                "a number or a dict"
            )
        if alpha not in POLICIES:
            try:
                percent = float(alpha.split(":", 1)[1])
            except ValueError:
                percent = math.nan
            if not 0 < percent <= 100:
                raise ValueError(f"alpha={alpha!r}: the percentile must lie in (0, 100]")
        if not has_calibration:
            raise ValueError(
                f"alpha={alpha!r} is measured on images: pass calibration=..., or give alpha as "
                "a number"
            )
        return
    if isinstance(alpha, bool) or not isinstance(alpha, Real):
        raise TypeError(f"alpha={alpha!r} is not a number, a policy or a dict of layers")
    if not math.isfinite(alpha) or alpha <= 0:
        raise ValueError(f"alpha={alpha!r} must be positive and finite")


def choose_alpha(
    policy: object,
    layer: Layer,
    ranges: Ranges | None,
    K: int,
    signed: bool = False,
    rounding: str = "nearest",
) -> float:
    """Alpha of one layer of neurons under a policy.

    Under "max" and "percentile:p" the range is measured; the top word stands for
    alpha*(1 - 2^-K), so alpha is the measured value times 2^K/(2^K - 1). Where words are signed
    half of them are on either side of zero: 2^(K-1) takes the place of 2^K. A layer that is silent
    on all images gets alpha 1. "mse" and "logits" are for neurons; words with an offset get the
    largest magnitude under both. ReLU6 layers never measure beyond 6.
    """
    if isinstance(policy, dict):
        policy = policy[layer.name] if layer.name in policy else policy["default"]
    if isinstance(policy, Real):
        return float(policy)
    if policy == "mse" and not signed:
        seen = ranges.least_error(layer.name, K, rounding)
    elif policy in ("max", "mse", "logits"):  # what is signed has no ceiling to choose
        seen = ranges.largest[layer.name]
    else:
        seen = ranges.percentile(layer.name, float(policy.split(":", 1)[1]))
    words = 2.0 ** (K - 1 if signed else K)
    # A signed word of one step can only say -alpha or 0.
    return seen * words / max(words - 1, 1.0) if seen > 0 else 1.0
