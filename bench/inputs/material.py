"""What a run measures: the dense network, images to score and images to calibrate on."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import fskernel as fs
from bench.errors import UserError
from bench.inputs import data, models
from bench.output.progress import say
from bench.output.record import Record
from fskernel.models import shipped


@dataclass
class Material:
    """The dense network and the images: what a conversion needs."""

    ann: nn.Module
    weights: models.Weights
    evaluated: data.Images
    calibration: Tensor  # float32 [N, C, H, W]
    labels: Tensor | None  # of the calibration images, int64 [N]


def gather(cfg: DictConfig, record: Record) -> Material:
    """Builds the ANN and reads the calibration images."""
    images = data.open_images(
        cfg.data, cfg.model.input, (cfg.images or data.SAMPLES) + cfg.calibration, cfg.seed
    )
    if images.others:
        say(f"left out, being no images: {dict(images.others)}")
    ann, weights = models.build(cfg.model, cfg.seed, say)
    if cfg.model.input.resize is None and weights.resize is not None:
        images.resize = weights.resize
    evaluated, calibrating = share_out(cfg, images, record)
    batches = list(calibrating.batches(cfg.calibration, 16))
    calibration = torch.cat([x for x, _ in batches] or [empty()])
    if not len(calibration):
        name_skipped(calibrating)
        raise UserError(f"data.root={cfg.data.root}: no image can be read")
    classes = models.classes(ann, calibration[:1])
    check_labels(classes, images, record)
    ann = ann.to(memory_format=torch.channels_last)
    if cfg.neuron.average_pool:
        ann = average_pools(ann, weights, record)
    if weights.random:
        models.settle(ann, calibration)
        record.note(
            f"the weights are {weights.name}: accuracy, agreement, spikes and energy mean nothing "
            "and are left out; times do not depend on the weights. Trained ones: make demo, or "
            "model.weights=FILE"
        )
    if not (weights.random or images.labelled):
        record.note(
            f"data={cfg.data.kind} has no labels, so there is no top-1 accuracy; images with "
            f"labels: {labelled_data(cfg.model)}"
        )
    labels = torch.cat([y for _, y in batches]) if batches[0][1] is not None else None
    return Material(ann, weights, evaluated, calibration, labels)


def share_out(
    cfg: DictConfig, images: data.Images, record: Record
) -> tuple[data.Images, data.Images]:
    """The images to evaluate and those to calibrate on."""
    if cfg.data.calibrate_on == "samples" and cfg.data.kind != "samples":
        record.note(f"calibrated on {cfg.calibration} sample photographs, which are not evaluated")
        items = data.sample_photographs(cfg.calibration)
        return images, replace(images, items=items)
    if cfg.data.calibrate_on == "train":
        record.note(f"calibrated on {cfg.calibration} training images, which are not evaluated")
        items = data.of_memory(data.load_split(cfg.data, "train"))
        random.Random(cfg.seed).shuffle(items)
        return images, replace(images, items=items)
    evaluated, calibrating, apart = images.split(cfg.images, cfg.calibration)
    if not apart:
        record.note(
            f"there are {len(images.items)} images: the ones that calibrate are among the "
            "evaluated ones"
        )
    return evaluated, calibrating


def check_labels(classes: int, images: data.Images, record: Record) -> None:
    """Whether the labels can be the network's classes."""
    if not images.labelled:
        return
    largest = max(item.label for item in images.items)
    if largest >= classes:
        raise UserError(
            f"data: there is a label {largest}, but the network knows {classes} classes (0 to "
            f"{classes - 1}): the images belong to another network"
        )
    if images.classes not in (None, classes):
        record.note(
            f"there are {images.classes} class folders and {classes} classes; a label is the "
            "position of its folder, so accuracies mean nothing unless folders are missing at "
            "the end only"
        )


def labelled_data(model: DictConfig) -> str:
    """What to type for images with labels that a network knows."""
    package, _, name = model["_target_"].rpartition(".")
    if package != "fskernel.models":
        return "data=imagefolder data.root=DIR"
    data = shipped.trained_on(name)
    return f"data={data}" if data == "digits" else f"data={data} data.root=DIR"


def name_skipped(images: data.Images) -> None:
    """Names the images that could not be read."""
    for path, reason in images.skipped.items():
        say(f"skipped {path}: {reason}")


def empty() -> Tensor:
    """No images."""
    return torch.empty(0, 3, 1, 1)


def average_pools(ann: nn.Module, weights: models.Weights, record: Record) -> nn.Module:
    """The paper's average-pools in the ANN, and the warning that belongs to them."""
    before = [m for m in ann.modules() if isinstance(m, nn.MaxPool2d)]
    if before and not weights.random:
        record.note(
            f"{len(before)} max-pool(s) replaced by average-pools, in the ANN too: these weights "
            "were not trained for that, and lose accuracy"
        )
    return fs.paper_pools(ann)
