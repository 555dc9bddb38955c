"""The accuracy of rate coding over its time steps, and where it reaches that of Few Spikes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.measures.rate import TOLERANCE, lasting
from bench.measures.stats import wilson
from fskernel.files import write_text
from fskernel.network.network import FSNetwork
from fskernel.rate.network import RateNetwork

EVERY = 8  # time steps between two readings


@dataclass
class Rival:
    """An FS network on the images of the curve."""

    K: int
    latency_steps: int
    interval_steps: int
    right: int = 0
    spikes: int = 0  # of all images


@dataclass
class Curve:
    """Sums over the images seen so far; `right[i]` and `spikes[i]` are after `T[i]` steps.

    Attributes:
        asked: what decides the figures; a file of other settings is not gone on with.
        images: how many images were simulated.
        ann_right: of them, how many the ANN names rightly.
        rivals: the FS networks by the name of their setting.
        record: machine and versions.
        complete: whether all images were simulated that were asked for.
    """

    asked: dict
    T: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    images: int = 0
    ann_right: int = 0
    rivals: dict[str, Rival] = field(default_factory=dict)
    record: dict = field(default_factory=dict)
    complete: bool = False

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Curve:
        values = json.loads(path.read_text())
        rivals = {name: Rival(**rival) for name, rival in values.pop("rivals").items()}
        return Curve(**values, rivals=rivals)

    def accuracy(self, T: int) -> tuple[float, list[float]]:
        """The share of right answers after T steps, and its 95 % interval."""
        right = self.right[self.T.index(T)]
        return right / self.images, wilson(right, self.images)

    def spikes_per_image(self, T: int) -> float:
        """Spikes of one image in its first T steps."""
        return self.spikes[self.T.index(T)] / self.images

    def reached(self, right: int, tolerance: float = TOLERANCE) -> int | None:
        """The first T from which on the accuracy stays within the tolerance; None: never.

        Args:
            right: how many of the same images the rival names rightly.
            tolerance: how far the share may lie below the rival's.
        """
        at = lasting(self.right, right - tolerance * self.images)
        return None if at is None else self.T[at]


@torch.inference_mode()
def measure(
    curve: Curve,
    ann: nn.Module,
    nets: dict[str, FSNetwork],
    calibration: Tensor,
    batches: Iterable[tuple[Tensor, Tensor]],
    T: int,
    save: Callable[[Curve], None],
    advance: Callable[[int], None],
) -> Curve:
    """Shows images to the rate-coded network for T steps each, and once to the others.

    Args:
        curve: where it goes on; its first `images` images are left out.
        ann: the dense network.
        nets: FS networks by the name of their setting; the graph of the first one is simulated.
        calibration: images, float32 [N, C, H, W], for the percentile of the weights' scaling.
        batches: pairs of images and labels, always the same ones in the same order.
        T: time steps.
        save: is called after every batch, and when the curve is complete.
        advance: is told how many steps were done.
    """
    rated = RateNetwork(next(iter(nets.values())).graph, calibration)
    for name, net in nets.items():
        rival = Rival(net.K, net.latency_steps, net.interval_steps)
        curve.rivals.setdefault(name, rival)
    seen = 0
    for x, labels in batches:
        seen += len(x)
        if seen <= curve.images:
            advance(T)
            continue
        run = rated.run(x, T, report_every=EVERY, on_step=lambda _: advance(1))
        right = (run.logits.argmax(2) == labels).sum(1).tolist()
        total = run.spikes_per_step.sum(1).cumsum(0)
        spikes = [int(total[t - 1]) for t in run.reported_at]
        none = [0] * len(right)
        curve.T = run.reported_at
        curve.right = [a + b for a, b in zip(curve.right or none, right, strict=True)]
        curve.spikes = [a + b for a, b in zip(curve.spikes or none, spikes, strict=True)]
        curve.ann_right += int((ann(x).argmax(1) == labels).sum())
        for name, net in nets.items():
            logits, counts = net.count_spikes(x)
            curve.rivals[name].right += int((logits.argmax(1) == labels).sum())
            curve.rivals[name].spikes += sum(int(n.sum()) for n in counts.values())
        curve.images += len(x)
        save(curve)
    curve.complete = True
    save(curve)
    return curve


def figure(curves: dict[str, Curve]):
    """Accuracy over time steps, a panel a network; returns a matplotlib figure."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(4.2 * max(1, len(curves)), 3.6), layout="constrained")
    panels = plot.subplots(1, max(1, len(curves)), squeeze=False, sharey=True)[0]
    for panel, (title, curve) in zip(panels, curves.items(), strict=True):
        shares = [100 * curve.accuracy(T)[0] for T in curve.T]
        ends = [[100 * end for end in curve.accuracy(T)[1]] for T in curve.T]
        panel.fill_between(curve.T, *zip(*ends, strict=True), alpha=0.2, linewidth=0)
        panel.plot(curve.T, shares, label="rate-coded, 95 % interval")
        panel.axhline(100 * curve.ann_right / curve.images, color="grey", ls=":", label="ANN")
        for marker, (name, rival) in zip("os^v", curve.rivals.items(), strict=False):
            share = 100 * rival.right / curve.images
            at = [rival.interval_steps, rival.latency_steps]
            panel.plot(at, [share, share], f"{marker}--", label=f"FS, {name}: interval, latency")
        panel.set_xscale("log")
        panel.set_title(f"{title}, {curve.images} images", fontsize=10)
        panel.set_xlabel("time steps of an image")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("top-1, %")
    panels[0].legend(fontsize=7, loc="lower right")
    return plot
