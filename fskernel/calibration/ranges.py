"""Ranges of a float graph's layers on calibration images, and the alphas chosen from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.graph import SIGNED, Graph, Layer, relu
from fskernel.image_sizes import SHAPES
from fskernel.progress import progress_bar

# A positive float32, read as an integer and shifted, is its own logarithmic histogram bin:
# exponent and 11 bits of mantissa, so a percentile is known to 0.05 %.
_SHIFT = 12
_BINS = 2 ** (31 - _SHIFT)

_DRAWN = 64  # membranes that are kept of each image

# Images seen later may be brighter than those of the calibration, and signed sums larger.
# Clipping the sums costs EfficientNet-Lite0 more than rounding them to 14 bits does.
HEADROOM = 1.25


def rounded(v: Tensor, step: Tensor | float, K: int, rounding: str) -> Tensor:
    """What spike words of K steps, of last threshold `step`, stand for; v are membranes."""
    offset = 0.5 if rounding == "nearest" else 0.0
    return torch.floor(v / step + offset).clamp_(0, 2.0**K - 1).mul_(step)


class Range(NamedTuple):
    """From where to where the words of neurons reach that compute another function than a ReLU."""

    low: float
    high: float

    def code(self, K: int) -> Code:
        """What their words of K steps mean."""
        return Code.shaped(K, self.low, self.high)

    def rounded(self, y: Tensor, K: int, rounding: str) -> Tensor:
        """What the words of values y stand for."""
        code, offset = self.code(K), 0.5 if rounding == "nearest" else 0.0
        words = torch.floor(y / code.step + (code.zero + offset)).clamp_(0, code.x_max)
        return words.sub_(code.zero).mul_(code.step)


@dataclass
class Ranges:
    """What calibration saw, per layer: the largest value, and how values above zero spread.

    Of signed values that are no neurons' (sums and products) magnitudes take the place of values.
    Of activations other than ReLUs, and of products, `least` is the smallest value (a number that
    is not above zero), and of such activations `membranes` are the least and the largest membrane,
    and `drawn` some of every image, at random.
    """

    largest: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    membranes: dict[str, tuple[float, float]] = field(default_factory=dict)
    drawn: dict[str, list[Tensor]] = field(default_factory=dict)
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

    def draw(self, name: str, v: Tensor) -> None:
        """Keeps some membranes [N, ...] of each image, where its number says."""
        for i, image in enumerate(v.flatten(1), self.images):
            places = torch.randint(
                len(image), (_DRAWN,), generator=torch.Generator().manual_seed(i)
            )
            self.drawn.setdefault(name, []).append(image[places])

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

    def least_error(self, name: str, K: int, rounding: str, low: float = 0.0) -> float:
        """The value for the largest word that rounds the layer's values best, in mean square.

        A grid of 80 values from 5 to 100 % of the largest one.

        Args:
            low: what word 0 stands for. Values below zero count as if they were spread evenly
                between two words.
        """
        bins = self.histogram[name]
        if int(bins.sum()) == 0:
            return 0.0
        used = bins.nonzero().squeeze(1)
        middle = ((used << _SHIFT) + (1 << (_SHIFT - 1))).to(torch.int32).view(torch.float32)
        values, counts = middle.double(), bins[used].double()
        others = self.counted[name] - int(bins.sum()) if low < 0 else 0
        uneven = others / (12.0 if rounding == "nearest" else 3.0)
        best = (math.inf, 0.0)
        for i in range(80):
            top = self.largest[name] * (0.05 + 0.95 * i / 79)
            near = Range(low, top).rounded(values, K, rounding)
            error = counts @ (near - values).square() + uneven * Range(low, top).code(K).step ** 2
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

    def neuron(layer: Layer, v: Tensor) -> Tensor:
        if layer.activation is not None and v.numel():
            low, high = ranges.membranes.get(layer.name, (math.inf, -math.inf))
            seen = min(low, float(v.amin())), max(high, float(v.amax()))
            ranges.membranes[layer.name] = seen
            ranges.draw(layer.name, v)
        return relu(layer, v)

    def observe(layer: Layer, value: Tensor) -> None:
        if layer.kind in ("neuron", "input", *SIGNED):
            seen = value if layer.activation is not None else value.abs()
            peak = float(seen.amax()) if value.numel() else 0.0
            least = float(value.amin()) if value.numel() else 0.0
            if not math.isfinite(peak - least):
                worst = least if math.isfinite(peak) else peak
                raise ValueError(
                    f"layer '{layer.name}' gives {worst} on the calibration images: the network "
                    "overflows; check its weights and the preprocessing"
                )
            ranges.largest[layer.name] = max(ranges.largest.get(layer.name, 0.0), peak)
            if layer.kind != "input":
                ranges.count(layer.name, seen)
            if layer.activation is not None or layer.kind == "gate":
                ranges.least[layer.name] = min(ranges.least.get(layer.name, 0.0), least)

    with progress_bar("calibrating", None, progress) as advance:
        for batch in batches(calibration):
            if len(batch) == 0:
                continue
            try:
                x = batch.contiguous(memory_format=torch.channels_last)
                graph.forward(x, neuron, observe=observe)
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
    policy = _asked(policy, layer)
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


def choose_range(
    policy: object, layer: Layer, ranges: Ranges | None, K: int, rounding: str = "nearest"
) -> Range:
    """The range of one layer of neurons that compute another function than a ReLU.

    It begins at the function's infimum; where there is none, at HEADROOM times the smallest value
    that was seen. Its end follows the policy, by the values above zero, but is never above the
    function's supremum. A number is the alpha of the layer, 2^K times its step; without images, a
    function without an infimum then begins at what it gives for -alpha. Zero is always inside.

    Args:
        policy: as of `choose_alpha`; of a dictionary, a Range is taken as it is.
    """
    policy = _asked(policy, layer)
    if isinstance(policy, Range):
        return policy
    function = layer.activation
    low, most = min(function.low, 0.0), max(function.high, 0.0)
    if math.isinf(low):
        if ranges is None:
            channels = len(layer.bias)
            ends = torch.full((1, channels, 1, 1), -float(policy), dtype=torch.float64)
            low = min(float(function(ends).min()), 0.0)
        else:
            low = HEADROOM * ranges.least[layer.name]
    if isinstance(policy, Real):
        high = low + float(policy) * (1 - 2.0**-K)
    elif policy == "mse":
        high = ranges.least_error(layer.name, K, rounding, low)
    elif policy in ("max", "logits"):
        high = ranges.largest[layer.name]
    else:
        high = ranges.percentile(layer.name, float(policy.split(":", 1)[1]))
    if high <= 0:  # nothing above zero was seen
        high = -low or 1.0
    high = min(high, most)
    return Range(low, high) if low < high else Range(0.0, 1.0)


def shared_range(
    policy: object, layers: Iterable[Layer], ranges: Ranges | None, K: int, rounding: str
) -> Range:
    """The range of layers of neurons that are concatenated, of which one is no ReLU's.

    A product's is what was seen of it, under all policies.
    """
    found = []
    for layer in layers:
        asked = _asked(policy, layer)
        if layer.kind == "gate":
            found.append(Range(HEADROOM * ranges.least[layer.name], ranges.largest[layer.name]))
        elif layer.activation is not None or isinstance(asked, Range):
            found.append(choose_range(asked, layer, ranges, K, rounding))
        else:
            alpha = choose_alpha(asked, layer, ranges, K, rounding=rounding)
            found.append(Range(0.0, alpha * (1 - 2.0**-K)))
    return Range(min(r.low for r in found), max(r.high for r in found))


def _asked(policy: object, layer: Layer) -> object:
    """Of a dictionary, what it says of a layer."""
    if isinstance(policy, dict):
        return policy[layer.name] if layer.name in policy else policy["default"]
    return policy
