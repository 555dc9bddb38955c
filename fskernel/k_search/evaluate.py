"""What a search measures: a network of given K beside the ANN, on the calibration images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

import torch
from torch import Tensor

from fskernel._version import __version__
from fskernel.calibration.ranges import batches
from fskernel.graph import Graph
from fskernel.network.network import FSNetwork
from fskernel.network.stats import wilson

TIMED = 16  # images of one timed call, at most
ROUNDS = 5


class Images:
    """The calibration images, and labels if there are any, read anew for every network.

    Only one batch is in memory at a time. The first reading notes what there is; later readings
    must give the same images in the same order, or an error says so.

    Args:
        calibration: float images [N, C, H, W], a pair (images, labels [N]), or an iterable of
            batches of either, such as a DataLoader, that can be iterated again and again.

    Attributes:
        source: what `fskernel.convert` is told.
        count: N.
        size: shape of the first batch.
        labels: int64 [N], or None.
        digest: of images and labels; batching does not matter.

    Raises:
        TypeError, ValueError: what is not such images, named, with the cure.
    """

    def __init__(self, calibration: Tensor | tuple[Tensor, Tensor] | Iterable):
        if _is_pair(calibration):
            calibration = [calibration]
        if isinstance(calibration, Iterator):
            raise ValueError(
                f"calibration is a {type(calibration).__name__}, which can be read only once, but "
                "a search reads it for every K: pass a tensor, a list of batches or a DataLoader"
            )
        self.source = calibration
        self.size: tuple[int, ...] | None = None
        self.digest: str | None = None
        self.count, labels, bare = 0, [], 0
        for x, y in self._read():
            self.size = self.size or tuple(x.shape)
            self.count += len(x)
            if y is None:
                bare += 1
            else:
                labels.append(y)
        if not self.count:
            raise ValueError("calibration is empty: pass at least one image")
        if labels and bare:
            raise ValueError(
                f"calibration has labels in {len(labels)} batch(es) and none in {bare}: give "
                "labels with all images or with none"
            )
        self.labels = torch.cat(labels) if labels else None
        self.digest = self._seen

    def batches(self) -> Iterator[tuple[Tensor, slice]]:
        """Float32 images [n, C, H, W] and which of the N they are.

        Raises:
            ValueError: they are not the images of the first reading.
        """
        start = 0
        for x, _ in self._read():
            if start + len(x) > self.count:
                break
            yield x, slice(start, start + len(x))
            start += len(x)
        if start != self.count or self._seen != self.digest:
            raise ValueError(
                "calibration gives other images, or another order, when it is read again: use "
                "shuffle=False and no random augmentation"
            )

    def _read(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        digest, shape = hashlib.sha256(), None
        for item in self._items():
            (x,) = batches([item])
            if len(x) == 0:
                continue
            y = _labels(item, len(x))
            if x.shape[1:] != shape:
                shape = x.shape[1:]
                digest.update(repr(tuple(shape)).encode())
            for image, label in zip(x, y.tolist() if y is not None else [None] * len(x)):
                digest.update(repr(label).encode())
                digest.update(image.contiguous().numpy().tobytes())
            yield x, y
        self._seen = digest.hexdigest()

    def _items(self) -> Iterable:
        if not isinstance(self.source, Tensor):
            return self.source if isinstance(self.source, Iterable) else batches(self.source)
        return self.source.split(TIMED) if self.source.dim() == 4 else [self.source]


def _is_pair(value: object) -> bool:
    """Whether it is (images, labels), not a tuple of batches."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(v, Tensor) for v in value)
        and value[1].dim() == 1
    )


def _labels(item: object, n: int) -> Tensor | None:
    """The labels int64 [n] of a batch that is (images, labels, ...); None for images alone."""
    if not isinstance(item, (tuple, list)) or len(item) < 2 or item[1] is None:
        return None
    try:
        y = torch.as_tensor(item[1]).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"calibration has labels of type {type(item[1]).__name__}: give class numbers [N]"
        ) from error
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.shape != (n,):
        raise TypeError(
            f"calibration has labels {y.dtype} {tuple(y.shape)} for {n} images: give integer "
            f"class numbers [{n}]"
        )
    return y.to(torch.int64)


class Evaluator:
    """Compares networks with the ANN, whose logits are computed once, when first needed."""

    def __init__(self, images: Images):
        self.images = images
        self._ann: Tensor | None = None

    @torch.no_grad()
    def ann(self, graph: Graph) -> Tensor:
        """Float32 logits [N, classes] of the float network (batch norms folded)."""
        if self._ann is None:
            graph = graph.to(torch.float32)
            found = [
                graph.forward(x.contiguous(memory_format=torch.channels_last))
                for x, _ in self.images.batches()
            ]
            ann = torch.cat(found)
            labels = self.images.labels
            if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < len(ann.T):
                raise ValueError(
                    f"calibration has labels from {int(labels.min())} to {int(labels.max())}, but "
                    f"the network has {len(ann.T)} classes: the images belong to another network"
                )
            self._ann = ann
        return self._ann

    @torch.no_grad()
    def measure(self, net: FSNetwork) -> dict:
        """Agreement, accuracy, error and cost of a network; see `SearchResult.rows`.

        Beside those, "ann_top1" and "layer_spikes" (spikes per image by layer).
        """
        ann, labels = self.ann(net.graph), self.images.labels
        n = self.images.count
        agree = right = 0
        error = 0.0
        spikes: dict[str, int] = {}
        for x, at in self.images.batches():
            logits, counts = net.count_spikes(x)
            answers = logits.argmax(1)
            agree += int((answers == ann[at].argmax(1)).sum())
            if labels is not None:
                right += int((answers == labels[at]).sum())
            error += float((logits.double() - ann[at].double()).square().sum())
            for name, of_images in counts.items():
                spikes[name] = spikes.get(name, 0) + int(of_images.sum())
        norm = float(ann.double().square().sum())
        known = labels is not None
        return {
            "agreement": agree / n,
            "agreement_interval": wilson(agree, n),
            "top1": right / n if known else None,
            "top1_interval": wilson(right, n) if known else None,
            "logit_error": (error / norm) ** 0.5 if norm else float("inf" if error else 0),
            "spikes_per_image": sum(spikes.values()) / n,
            "latency_steps": net.latency_steps,
            "interval_steps": net.interval_steps,
            "images_per_s": None,
            "ann_top1": float((ann.argmax(1) == labels).double().mean()) if known else None,
            "layer_spikes": {name: count / n for name, count in spikes.items()},
        }

    @torch.no_grad()
    def images_per_s(self, net: FSNetwork) -> float:
        """Images a second in calls of up to 16 images, the median of 5 calls."""
        x = next(iter(self.images.batches()))[0][:TIMED]
        net(x)
        seconds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            net(x)
            seconds.append(time.perf_counter() - start)
        return len(x) / median(seconds)


def is_row(value: object, labelled: bool, layers: Sequence[str]) -> bool:
    """Whether a value, as JSON has it, can be what `Evaluator.measure` gives.

    Args:
        value: any.
        labelled: whether the images have labels.
        layers: that spike.
    """
    if not isinstance(value, dict):
        return False

    def number(x: object) -> bool:
        return isinstance(x, float) or (type(x) is int and abs(x) < 2**63)

    def interval(ends: object) -> bool:
        return isinstance(ends, list) and len(ends) == 2 and all(map(number, ends))

    def by_layer(spikes: object) -> bool:
        known = isinstance(spikes, dict) and set(layers) <= set(spikes)
        return known and all(map(number, spikes.values()))

    def missing(x: object) -> bool:
        return x is None

    costs = ("logit_error", "spikes_per_image", "latency_steps", "interval_steps")
    kinds = {
        **dict.fromkeys(("agreement", *costs), number),
        "agreement_interval": interval,
        "top1": number if labelled else missing,
        "top1_interval": interval if labelled else missing,
        "ann_top1": number if labelled else missing,
        "images_per_s": lambda x: missing(x) or number(x),
        "layer_spikes": by_layer,
    }
    return all(name in value and kind(value[name]) for name, kind in kinds.items())


def fingerprint(graph: Graph, images: Images, options: dict) -> str:
    """SHA-256 of all that a measurement depends on, beside K."""
    digest = hashlib.sha256(__version__.encode())
    digest.update(json.dumps(options, sort_keys=True, default=repr).encode())
    digest.update(images.digest.encode())
    for layer in graph.layers:
        facts = (layer.name, layer.kind, layer.residual, layer.source, layer.sources)
        digest.update(
            repr((*facts, layer.geometry, layer.pool, layer.ceiling, layer.activation)).encode()
        )
        for group in layer.groups:
            digest.update(repr((group.source, group.geometry, group.one_to_one)).encode())
        for tensor in (*(group.weight for group in layer.groups), layer.bias):
            if tensor is not None:
                digest.update(repr(tuple(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
