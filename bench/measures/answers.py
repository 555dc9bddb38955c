"""The answers of both networks on all images."""

from __future__ import annotations

import math

from omegaconf import DictConfig
from torch import nn

import fskernel as fs
from bench.errors import UserError
from bench.inputs.material import name_skipped
from bench.measures import networks, step_figures
from bench.measures.subject import Subject
from bench.output.progress import bar, say
from bench.output.record import Record


def evaluate(
    cfg: DictConfig, subject: Subject, ann: nn.Module, net: fs.FSNetwork, record: Record
) -> networks.Tally:
    """Answers and spikes on all images."""
    if cfg.check:
        say("comparing one image with the int64 oracle, bit for bit")
        networks.check(net, subject.net, subject.calibration[:1])
        record.add(fs=step_figures.executed(subject.net, subject.calibration))
    record.add(exact=True if cfg.check else None)
    images = subject.evaluated
    keep = math.ceil((cfg.baseline.images or 1) / cfg.batch)
    tally = networks.Tally()
    try:
        with bar("evaluating", subject.images) as advance:
            batches = images.batches(subject.images, cfg.batch)
            networks.evaluate(tally, ann, net, batches, keep, advance)
        record_answers(cfg, subject, tally, record)
    except KeyboardInterrupt:
        if tally.images < subject.images:
            record.note(f"interrupted after {tally.images} of {subject.images} images")
        record_answers(cfg, subject, tally, record)
        raise
    name_skipped(images)
    if not tally.images:
        raise UserError(f"data.root={cfg.data.root}: no image can be read")
    if tally.images < subject.images:
        record.note(f"{subject.images} images were asked for, {tally.images} could be read")
    if images.skipped:
        record.add(data={"skipped_files": [f"{k}: {v}" for k, v in images.skipped.items()]})
        record.note(f"{len(images.skipped)} unreadable image(s) skipped, named above")
    return tally


GATE = 0.99  # of the ANN's accuracy: what a network must keep for its speed to count


def gate(accuracy: dict, meaningful: bool) -> dict[str, object]:
    """Whether the FS network keeps the share of the ANN's top-1 accuracy that is asked for.

    Args:
        accuracy: of a tally. meaningful: whether the weights are trained ones.

    Returns:
        least: the share; ratio: what the FS network keeps; passed. Both None where nobody knows,
        without labels or with random weights.
    """
    known = meaningful and bool(accuracy["ann"])
    ratio = accuracy["fs"] / accuracy["ann"] if known else None
    return {"least": GATE, "ratio": ratio, "passed": ratio >= GATE if known else None}


def record_answers(
    cfg: DictConfig, subject: Subject, tally: networks.Tally, record: Record
) -> None:
    """What the images shown so far tell."""
    if not tally.images:
        return
    if tally.saturated:
        share = tally.saturated / tally.images
        record.note(f"{share:.2%} of the pixels lie beyond the input code's range")
    spikes = tally.spikes / tally.images
    accuracy = tally.accuracy(independent=cfg.data.kind != "samples")
    record.add(
        images=tally.images,
        data={
            "kind": cfg.data.kind,
            "shown": subject.evaluated.shown(tally.images),
            "skipped": len(subject.evaluated.skipped),
        },
        accuracy=accuracy,
        gate=gate(accuracy, not record.values["random_weights"]),
        fs={
            "spikes_per_image": spikes,
            "spikes_per_neuron": spikes / subject.net.neurons,
            "sops_per_image": tally.sops / tally.images,
        },
    )
