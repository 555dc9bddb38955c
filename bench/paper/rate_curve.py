"""The accuracy of rate coding over its time steps, and where it reaches that of Few Spikes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.measures.rate import TOLERANCE, lasting
from bench.measures.stats import wilson
from fskernel.analysis import style
from fskernel.files import write_text
from fskernel.network.network import FSNetwork
from fskernel.rate.trains import KernelRateNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EVERY = 8  # time steps between two readings
KINDS = {"percentile": "weak", "balanced": "strong"}  # what thresholds are called


@dataclass
class Rival:
    """An FS network on the images of the curve."""

    K: int
    latency_steps: int
    interval_steps: int
    right: int = 0
    spikes: int = 0  # of all images
    seconds: float = field(default=0.0, compare=False)  # of all images


@dataclass
class Curve:
    """Sums over the images seen so far; `right[i]` and `spikes[i]` are after `T[i]` steps.

    Attributes:
        asked: what decides the figures; a file of other settings is not gone on with.
        thresholds: of the rate-coded network, "percentile" (weak) or "balanced" (strong).
        images: how many images were simulated.
        seconds: of all T steps of all images, on the CPU's kernels.
        ann_right: of them, how many the ANN names rightly.
        rivals: the FS networks by the name of their setting.
        record: machine and versions.
        complete: whether all images were simulated that were asked for.
    """

    asked: dict
    thresholds: str = "percentile"
    T: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    images: int = 0
    seconds: float = field(default=0.0, compare=False)
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

    def step_seconds(self) -> float:
        """Of one step of one image, the mean of all."""
        return self.seconds / (self.images * self.T[-1])

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
        calibration: images, float32 [N, C, H, W], for the thresholds.
        batches: pairs of images and labels, always the same ones in the same order.
        T: time steps.
        save: is called after every batch, and when the curve is complete.
        advance: is told how many steps were done.
    """
    graph = next(iter(nets.values())).graph
    rated = KernelRateNetwork(graph, calibration, normalise=curve.thresholds)
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
        curve.seconds += run.seconds()
        curve.ann_right += int((ann(x).argmax(1) == labels).sum())
        for name, net in nets.items():
            logits, counts = net.count_spikes(x)
            start = time.perf_counter()
            net(x)
            curve.rivals[name].seconds += time.perf_counter() - start
            curve.rivals[name].right += int((logits.argmax(1) == labels).sum())
            curve.rivals[name].spikes += sum(int(n.sum()) for n in counts.values())
        curve.images += len(x)
        save(curve)
    curve.complete = True
    save(curve)
    return curve


@style.styled
def figure(curves: dict[str, list[Curve]]) -> Figure:
    """Accuracy over time steps, a panel a network with a curve for each kind of thresholds."""
    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    plot = style.new(4.2 * columns, 0.9 + 2.5 * rows)
    panels = plot.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for panel, (title, found) in zip(panels, curves.items()):
        draw(panel, title, found)
    for panel in list(panels)[len(curves) :]:
        panel.remove()
    plot.legend(
        *plot.axes[0].get_legend_handles_labels(),
        loc="outside lower left",
        ncols=2,
        title="Open marker: Few Spikes take a new image every so many steps. Filled: the answer "
        "is there.",
        alignment="left",
        title_fontsize=8,
    )
    return plot


def draw(panel: Axes, title: str, curves: list[Curve]) -> None:
    """The curves of one network, its ANN, and each FS network from interval to latency."""
    lines = {"percentile": "-", "balanced": "--"}
    for curve in curves:
        shares = [curve.accuracy(T)[0] for T in curve.T]
        ends = [curve.accuracy(T)[1] for T in curve.T]
        panel.fill_between(curve.T, *zip(*ends), color=style.BLUE, alpha=0.12, linewidth=0)
        label = f"rate coding, {KINDS[curve.thresholds]} thresholds, after so many time steps"
        panel.plot(curve.T, shares, lines[curve.thresholds], color=style.BLUE, label=label)
    ann = curve.ann_right / curve.images
    panel.axhline(ann, color=style.GREY, linestyle=":", label="the ANN")
    for marker, colour, (name, rival) in zip(
        "os^v", (style.ORANGE, style.GREEN, style.PINK, style.SKY), curve.rivals.items()
    ):
        share = rival.right / curve.images
        at = [rival.interval_steps, rival.latency_steps]
        panel.plot(
            at,
            [share, share],
            color=colour,
            marker=marker,
            markevery=[1],
            label=f"Few Spikes, K={rival.K}, {name}",
        )
        panel.plot(at[:1], [share], marker, color=colour, markerfacecolor="white")
        panel.vlines(at[1], *wilson(rival.right, curve.images), color=colour, linewidth=1)
    panel.set_xscale("log", base=2)
    panel.set_ylim(0, 1)
    style.counts(panel.xaxis)
    style.percents(panel.yaxis)
    said = f"{title}: {curve.images:,} images, up to {curve.T[-1]:,} steps"
    panel.set_title(said, loc="left", color=style.INK)
    panel.set(xlabel="time steps of an image", ylabel="top-1 accuracy, 95 % interval")
    panel.label_outer()
