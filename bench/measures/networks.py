"""Measures the dense network (ANN) and the FS network: answers, spikes, time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

import fskernel as fs
from bench.measures.stats import (
    median_interval,
    median_iqr,
    relative_error,
    relative_error_interval,
    wilson,
)
from bench.measures.timing import clock_of, repeats, replayable
from fskernel import reference
from fskernel.graph import Graph, Layer
from fskernel.kernels import ops
from fskernel.kernels.backend import Backend

SHORTEST = 0.02  # seconds: shorter calls are repeated within one measurement
MOST_CALLS = 100  # in one measurement
BUFFERS = 4  # different batches that the timed rounds go through


@dataclass
class Tally:
    """Sums over the evaluated images."""

    images: int = 0
    labelled: int = 0
    agree: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    spikes: int = 0
    sops: int = 0
    saturated: float = 0.0
    errors: list[float] = field(default_factory=list)  # |FS - ANN|^2 of each image's logits
    norms: list[float] = field(default_factory=list)  # |ANN|^2
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    kept: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)  # the first batches

    def add(self, ann: Tensor, logits: Tensor, stats, labels: Tensor | None) -> None:
        """One batch: the logits of both networks and what the FS network spent."""
        n = len(logits)
        self.images += n
        self.agree += int((ann.argmax(1) == logits.argmax(1)).sum())
        ann, logits = ann.double(), logits.double()
        self.errors += (logits - ann).square().sum(1).tolist()
        self.norms += ann.square().sum(1).tolist()
        for name, given in (("ann", ann), ("fs", logits)) if labels is not None else ():
            best = given.topk(min(5, given.shape[1])).indices
            right = best == labels[:, None]
            self._hit(name, int(right[:, 0].sum()))
            self._hit(f"{name}_top5", int(right.any(1).sum()))
        self.labelled += n if labels is not None else 0
        self.spikes += int(stats.total_spikes().sum())
        self.sops += int(stats.total_sops().sum())
        self.saturated += stats.input_saturated * n
        for key in ("spikes", "sops"):
            for name, counts in getattr(stats, key).items():
                layer = self.layers.setdefault(name, {"spikes": 0, "sops": 0})
                layer[key] += int(counts.sum())

    def spikes_of_layers(self) -> dict[str, int]:
        """The spikes of each layer, on all images."""
        return {name: counts["spikes"] for name, counts in self.layers.items()}

    def buffers(self, batch: int) -> list[Tensor]:
        """Some full batches to time; images are repeated if there are fewer than one batch."""
        full = [x for x, _ in self.kept if len(x) == batch][:BUFFERS]
        if not full:
            x = self.kept[0][0]
            x = x.repeat(math.ceil(batch / len(x)), 1, 1, 1)[:batch]
            full = [x.contiguous(memory_format=torch.channels_last)]
        return full

    def _hit(self, key: str, count: int) -> None:
        self.hits[key] = self.hits.get(key, 0) + count

    def accuracy(self, independent: bool = True) -> dict[str, object]:
        """Top-1 and top-5 (None without labels), agreement and logit error, with 95 % intervals.

        Args:
            independent: whether the images are; crops of the same photographs have no intervals.
        """
        found: dict[str, object] = {
            "agreement": self.agree / self.images,
            "agreement_interval": wilson(self.agree, self.images),
            "logit_error": relative_error(self.errors, self.norms),
            "logit_error_interval": relative_error_interval(self.errors, self.norms),
        }
        for key in ("ann", "ann_top5", "fs", "fs_top5"):
            known = self.labelled > 0
            found[key] = self.hits[key] / self.labelled if known else None
            found[f"{key}_interval"] = wilson(self.hits[key], self.labelled) if known else None
        if not independent:
            found |= {key: None for key in found if key.endswith("_interval")}
        return found


@torch.inference_mode()
def evaluate(
    tally: Tally,
    ann: nn.Module,
    net: fs.FSNetwork,
    batches: Iterable,
    keep: int,
    advance: Callable[[int], None],
) -> None:
    """Shows every image to both networks.

    Args:
        tally: what is found is added to it batch by batch.
        ann: the dense network.
        net: what it was converted into.
        batches: pairs of images, float32 [n, C, H, W], and labels, int64 [n] or None.
        keep: how many batches the tally keeps for what is measured later.
        advance: is told how many images were shown.
    """
    for x, labels in batches:
        there = x.to(net.device)
        logits, stats = net.run(there)
        tally.add(ann(there).cpu(), logits.cpu(), stats, labels)
        if len(tally.kept) < max(BUFFERS, keep):
            tally.kept.append((x, labels))
        advance(len(x))


@torch.inference_mode()
def check(
    net: fs.FSNetwork, on_cpu: fs.FSNetwork, x: Tensor, oracle: Backend = reference.collapsed
) -> None:
    """Compares every layer's words and spikes on images x with an oracle, bit for bit.

    Args:
        net: the network as it is measured; on_cpu: the same on the CPU, for the oracle.
        x: float32 [N, C, H, W], on the CPU.
        oracle: of `fskernel.reference`.

    Raises:
        RuntimeError: naming the first layer that differs.
    """
    wanted: dict[str, tuple[Tensor, Tensor | None]] = {}
    on_cpu.execute(x, oracle, lambda step, _, y, n: wanted.update({step.name: (y, n)}))

    def compare(step, inputs, y, counts) -> None:
        y = y.cpu()
        expected, spikes = wanted[step.name]
        if spikes is not None and not torch.equal(counts.cpu(), spikes):
            raise RuntimeError(
                f"the kernel '{ops.last_kernel()}' is wrong: it counts {counts.tolist()} spikes in "
                f"layer '{step.name}', the oracle {spikes.tolist()}. Please report this with "
                "python -m fskernel info"
            )
        if not torch.equal(y, expected):
            different = int((y != expected).sum())
            raise RuntimeError(
                f"the kernel '{ops.last_kernel()}' is wrong: layer '{step.name}' differs from "
                f"the oracle in {different} of {y.numel()} values. Please report this with "
                "python -m fskernel info"
            )

    net.execute(x.to(net.device), observe=compare)


@torch.inference_mode()
def interleave(
    ann: nn.Module,
    net: fs.FSNetwork,
    buffers: list[Tensor],
    rounds: int,
    warmup: int,
    advance: Callable[[int], None],
) -> dict[str, dict[str, object]]:
    """Times both networks in turn, so that a slow phase of the machine meets both.

    On a GPU both run as CUDA graphs, timed by events: neither waits for Python or for copies.

    Returns:
        Groups for the record: images/s as median and quartiles, and the paired ratio.
    """
    batch, device = len(buffers[0]), buffers[0].device
    clock = clock_of(device)
    calls = {
        name: [replayable(partial(network, x), device) for x in buffers]
        for name, network in (("ann", ann), ("fs", net))
    }
    times = {}
    for name, replays in calls.items():
        seconds = [clock(replays[i % len(buffers)], 1) for i in range(max(1, warmup))]
        times[name] = repeats(min(seconds), SHORTEST, MOST_CALLS)
    advance(warmup)
    rates: dict[str, list[float]] = {"ann": [], "fs": []}
    for i in range(rounds):
        order = ("ann", "fs") if i % 2 == 0 else ("fs", "ann")
        for name in order:
            seconds = clock(calls[name][i % len(buffers)], times[name]) / times[name]
            rates[name].append(batch / seconds)
        advance(1)
    groups: dict[str, dict[str, object]] = {}
    for name, values in rates.items():
        middle, quartiles = median_iqr(values)
        groups[name] = {"images_per_s": middle, "images_per_s_iqr": quartiles}
    pairs = [f / a for a, f in zip(rates["ann"], rates["fs"], strict=True)]
    middle, quartiles = median_iqr(pairs)
    groups["ratio"] = {
        "fs_to_ann": middle,
        "fs_to_ann_iqr": quartiles,
        "fs_to_ann_interval": median_interval(pairs),
    }
    return groups


@torch.inference_mode()
def layers(net: fs.FSNetwork, x: Tensor, tally: Tally, repeats: int = 5) -> list[dict[str, object]]:
    """One row per step of the FS network: what it is, its time for the batch x, what it spends."""
    runs = [net.run(x)[1] for _ in range(repeats)]
    seconds = {name: [run.seconds[name] for run in runs] for name in runs[0].seconds}
    if x.is_cuda:
        seconds = net.layer_seconds(x, repeats)
    made = {row.name: row for row in net.report().rows}
    rows = []
    for name in runs[0].seconds:
        counts = tally.layers.get(name, {"spikes": 0, "sops": 0})
        rows.append(
            {
                "layer": name,
                "kind": made[name].kind,
                "K": made[name].K,
                "alpha": made[name].alpha,
                "weight_bits": made[name].weight_bits,
                "effective_bits": made[name].effective_bits,
                "milliseconds": 1e3 * median(seconds[name]),
                "neurons": runs[0].neurons.get(name, 0),
                "spikes_per_image": counts["spikes"] / tally.images,
                "sops_per_image": counts["sops"] / tally.images,
                "graded_macs": runs[0].graded_macs.get(name, 0),
            }
        )
    return rows


def ann_bytes(ann: nn.Module, graph: Graph, x: Tensor) -> dict[str, int]:
    """Bytes of the ANN's weights, and of its float32 activations alive at once for one image.

    Counted on the fused layers, as for the FS network: the eager ANN needs a little more.
    """
    last = graph.last_reader()
    alive: dict[str, int] = {}
    peak = 0

    def observe(layer: Layer, value: Tensor) -> None:
        nonlocal peak
        if layer.kind == "readout":
            return
        alive[layer.name] = value.numel() * value.element_size()
        peak = max(peak, sum(alive.values()))
        for name in set(layer.inputs()):
            if last[name] == layer.name:
                del alive[name]

    graph.to(torch.float32).forward(x[:1], observe=observe)
    weights = sum(t.numel() * t.element_size() for t in ann.state_dict().values())
    return {"weight_bytes": weights, "activation_bytes": peak}
