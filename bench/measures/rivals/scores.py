"""What the rivals answer to the same images, and how many spikes that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.measures.answers import GATE
from bench.measures.rivals.rival import Answer, Rival, Runner, in_words
from bench.measures.stats import wilson

LEAST = 100  # images, of which one is a percent: with fewer, the gate is not judged


@dataclass
class Score:
    """Of one rival.

    Attributes:
        images: it was shown. right: of its answers; ann_right: of the dense network's, on the same
            images; None without labels. agree: answers that are the dense network's.
        spikes: on all images; None where there are none.
    """

    images: int = 0
    right: int | None = None
    ann_right: int | None = None
    agree: int = 0
    spikes: int | None = None

    def add(self, answer: Answer, ann: Tensor, labels: Tensor | None) -> None:
        """A batch: its answer, the dense network's classes, int64 [n], and labels, int64 [n]."""
        given, spikes = answer.logits.argmax(1), answer.spikes
        self.images += len(given)
        self.agree += int((given == ann).sum())
        if labels is not None:
            self.right = (self.right or 0) + int((given == labels).sum())
            self.ann_right = (self.ann_right or 0) + int((ann == labels).sum())
        if spikes is not None:
            self.spikes = (self.spikes or 0) + int(spikes.sum())

    def told(self, independent: bool) -> dict[str, object]:
        """For the record: shares with 95 % intervals where images are independent, and the gate."""
        found: dict[str, object] = {"images": self.images}
        for name, hits in (("accuracy", self.right), ("agreement", self.agree)):
            known = hits is not None and self.images > 0
            found[name] = hits / self.images if known else None
            found[f"{name}_interval"] = wilson(hits, self.images) if known and independent else None
        judged = self.images >= LEAST and self.right is not None and self.ann_right
        kept = self.right / self.ann_right if judged else None
        spikes = None if self.spikes is None else self.spikes / self.images
        return found | {
            "gate_ratio": kept,
            "gate_passed": None if kept is None else kept >= GATE,
            "spikes_per_image": spikes,
        }


@torch.inference_mode()
def score(
    found: dict[str, Score],
    rivals: Sequence[Rival],
    runners: Mapping[str, Runner],
    ann: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor | None]],
    slow_images: int,
    failed: dict[str, str],
    advance: Callable[[int], None],
) -> None:
    """Shows every image to all rivals that run.

    Args:
        found: what is found is added to it batch by batch, by their names.
        rivals: who. runners: those that can run.
        ann: the dense network, float32 images on the CPU to logits there.
        batches: of images, float32 [n, C, H, W], and labels, int64 [n] or None.
        slow_images: that slow rivals are shown.
        failed: takes who could not answer, and why; that rival is shown nothing more.
        advance: is told how many images were shown.
    """
    for x, labels in batches:
        wanted = ann(x).argmax(1)
        for rival in rivals:
            if rival.name not in runners or rival.name in failed:
                continue
            one = found.setdefault(rival.name, Score())
            n = min(len(x), slow_images - one.images) if rival.slow else len(x)
            if n <= 0:
                continue
            try:
                given = runners[rival.name].answer(x[:n].contiguous())
            except Exception as error:  # a rival's fault is a row, not the end
                failed[rival.name] = in_words(error)
                del found[rival.name]
                continue
            one.add(given, wanted[:n], None if labels is None else labels[:n])
        advance(len(x))
