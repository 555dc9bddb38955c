"""What a run costs: spikes, synaptic operations, multiply-accumulates of graded values, time."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fskernel import text
from fskernel.codes.geometry import Geometry, Walk
from fskernel.kernels import ops
from fskernel.network.recording import recorded
from fskernel.reference.maps import pad_map, window_view
from fskernel.spikes import FittedSpikes, SpikeTensor

if TYPE_CHECKING:
    from fskernel.kernels.backend import Backend

COSTLIEST = 8  # layers that are printed


@dataclass
class RunStats:
    """Per layer of one `FSNetwork.run`, in execution order; `print` shows them on one screen.

    Attributes:
        images: N. size: their rows and columns.
        spikes: int64 [N] per layer of neurons: set bits of its words, or of the trains of fitted
            neurons.
        sops: int64 [N] per layer that reads spikes: synaptic operations, one for each spike and
            existing synapse. Padding has no synapses, a residual identity is one, a max-pool
            forwards spikes without one, an average-pool belongs to the layer that reads it.
        neurons: neurons per layer and image.
        graded_macs: multiply-accumulates per image where the input is graded, not spikes.
        gate_ops: products of two maps per image, of every gate: one for each of its outputs.
        seconds: wall time per step, for the whole batch.
        input_saturated: fraction of the pixels beyond the range of the input code.
        recorded: the spikes of the layers that `run` was told to record, [N, C, H, W] on the
            network's device; `recorded[name].spikes()` is the train, bool [K, N, C, H, W]. Of
            fitted neurons `FittedSpikes`, else `SpikeTensor`.
    """

    images: int = 0
    size: tuple[int, int] = (0, 0)
    spikes: dict[str, Tensor] = field(default_factory=dict)
    sops: dict[str, Tensor] = field(default_factory=dict)
    neurons: dict[str, int] = field(default_factory=dict)
    graded_macs: dict[str, int] = field(default_factory=dict)
    gate_ops: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    input_saturated: float = 0.0
    recorded: dict[str, SpikeTensor | FittedSpikes] = field(default_factory=dict)

    def __repr__(self) -> str:
        found = [f"images={self.images}"]
        if self.images:
            found.append(f"spikes_per_image={text.count(_mean(self.total_spikes()))}")
            found.append(f"sops_per_image={text.count(_mean(self.total_sops()))}")
        return f"RunStats({', '.join(found)})"

    def __str__(self) -> str:
        if not self.images:
            return "RunStats of no image"
        images = "1 image" if self.images == 1 else f"{self.images:,} images"
        head = text.facts(f"RunStats of {images} of {text.size(*self.size)}", self._facts())
        return "\n".join([head, *self._costliest()])

    def _facts(self) -> list[tuple[str, str]]:
        spikes, sops = self.total_spikes(), self.total_sops()
        per_neuron = f"; {_mean(spikes) / self.neuron_count:.3g} a neuron" * bool(self.neurons)
        rows = [
            ("spikes", f"{_with_range(spikes)}{per_neuron}"),
            ("neurons", f"{self.neuron_count:,} in {len(self.neurons)} layers"),
            ("SOPs", _with_range(sops)),
        ]
        if self.graded_macs:
            where = ", ".join(text.shortened(name) for name in self.graded_macs)
            macs = text.count(sum(self.graded_macs.values()))
            rows.append(("graded MACs", f"{macs} an image, on values that are no spikes ({where})"))
        if self.gate_ops:
            products = text.count(sum(self.gate_ops.values()))
            rows.append(("gates", f"{products} products of two maps an image, which are no SOPs"))
        rows.append(("pixels", f"{text.percent(self.input_saturated)} % beyond the input's range"))
        if self.seconds:
            took = text.duration(sum(self.seconds.values()))
            rows.append(("time", f"{took}, layer by layer and counting; net(images) takes less"))
        if self.recorded:
            rows.append(("recorded", f"{len(self.recorded)} of the layers"))
        return rows

    def _costliest(self) -> list[str]:
        """The layers with most SOPs and graded MACs, as a table."""
        work = {name: _mean(counts) for name, counts in self.sops.items()}
        for name, macs in self.graded_macs.items():
            work[name] = work.get(name, 0.0) + macs
        found = sorted((name for name in work if work[name]), key=work.get, reverse=True)
        if not found:
            return []
        table = [("costliest layers", "SOPs", "graded MACs", "spikes", "a neuron", "time")]
        for name in found[:COSTLIEST]:
            spikes = _mean(self.spikes[name]) if name in self.spikes else None
            neurons = self.neurons.get(name)
            table.append(
                (
                    text.shortened(name),
                    text.count(_mean(self.sops[name])) if name in self.sops else "",
                    text.count(self.graded_macs[name]) if name in self.graded_macs else "",
                    "" if spikes is None else text.count(spikes),
                    f"{spikes / neurons:.3g}" if neurons and spikes is not None else "",
                    text.duration(self.seconds[name]) if name in self.seconds else "",
                )
            )
        return text.columns(table, right=range(1, 6))

    @property
    def pictures(self) -> int:
        """The former name of `images`; it warns."""
        warnings.warn("RunStats.pictures is now images", DeprecationWarning, stacklevel=2)
        return self.images

    def total_spikes(self) -> Tensor:
        """Spikes of every image, int64 [N]."""
        return self._total(self.spikes)

    def total_sops(self) -> Tensor:
        """Synaptic operations of every image, int64 [N]."""
        return self._total(self.sops)

    @property
    def neuron_count(self) -> int:
        """Neurons of the network for one image."""
        return sum(self.neurons.values())

    def _total(self, per_layer: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(self.images, dtype=torch.int64)
        for counts in per_layer.values():
            total += counts.to(total.device)
        return total


def _mean(counts: Tensor) -> float:
    """Of the images, in float64."""
    return float(counts.double().mean())


def _with_range(counts: Tensor) -> str:
    """The mean of counts [N], and where it lies between."""
    found = f"{text.count(_mean(counts))} an image"
    least, most = text.count(int(counts.min())), text.count(int(counts.max()))
    return found if least == most else f"{found} ({least} to {most})"


def map_sizes(steps: Iterable, height: int, width: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of every step's output for an image of height x width."""
    sizes: dict[str, tuple[int, int]] = {}
    for step in steps:
        read = [sizes[name] for name in step.sources]
        sizes[step.name] = step.output_size(read or [(height, width)])
    return sizes


def layer_sops(step, inputs: list[Tensor], by_name: dict, kept: dict[str, Tensor], y) -> Tensor:
    """Synaptic operations of one layer, int64 [N].

    Args:
        step: a ConvStep or ReadoutStep; inputs: what it read, NHWC.
        by_name: the network's steps; kept: of some, the words whose spikes are counted for them;
            of fitted neurons and what passes their codes on, the trains.
    """
    total = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    for i, (source, x) in enumerate(zip(step.sources, inputs, strict=True)):
        words, chain = _spikes_behind(source, kept.get(source, x), by_name)
        if words is not None:
            rows, cols = step.synapses_of(i, chain, *words.shape[1:3])
            total += _events(words, rows, cols)
    return total


def _events(words: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    return ops.synaptic_events(words, rows.to(words.device), cols.to(words.device))


def _spikes_behind(source: str, words: Tensor, by_name: dict):
    """The words whose spikes cross this layer's synapses, and the average-pools between."""
    chain: list[Walk] = []
    while by_name[source].averages:
        chain.insert(0, by_name[source].walk)
        source = by_name[source].sources[0]
    if not by_name[source].code.of_neurons:
        return None, []
    return words, chain


def graded_macs(step, inputs: list[Tensor], by_name: dict) -> int:
    """Multiply-accumulates per image that a layer spends on graded inputs that hold no spikes."""

    def graded(source: str) -> bool:
        while by_name[source].averages:
            source = by_name[source].sources[0]
        return not by_name[source].code.of_neurons

    return sum(
        step.macs_of(i, tuple(x.shape[1:3]))
        for i, (source, x) in enumerate(zip(step.sources, inputs, strict=True))
        if graded(source)
    )


class Collector:
    """Counts what every step spends: an observer of `FSNetwork.execute`.

    Args:
        steps: of the network. x: the images that it is shown.
        recorded: names of the layers whose spikes are kept.
        backend: as of `FSNetwork.execute`; fitted neurons fire once more on it, for their trains.
    """

    def __init__(self, steps: Iterable, x: Tensor, recorded: set[str], backend: Backend):
        self.stats = RunStats(len(x), tuple(x.shape[2:]))
        self._recorded, self._by_name = recorded, {step.name: step for step in steps}
        self._backend = backend
        # Of average-pools the words in front of them: the synapses are their readers'. Behind
        # padding of words with an offset, those whose padding is silent: its code is no spike. Of
        # fitted neurons the trains, also behind what only passes their codes on.
        self._words: dict[str, Tensor] = {}
        self._last = {name: step.name for step in steps for name in step.sources}
        self._clock = time.perf_counter()

    def __call__(self, step, inputs: list[Tensor], y: Tensor, counts: Tensor | None) -> None:
        stats = self.stats
        if y.is_cuda:
            torch.cuda.synchronize(y.device)
        stats.seconds[step.name] = time.perf_counter() - self._clock
        if step.spiking:
            stats.spikes[step.name] = counts
            stats.neurons[step.name] = y.shape[1:].numel()
        fitted = step.code is not None and step.code.kind == "fitted"
        if fitted and step.spiking:
            self._words[step.name] = step.trains(inputs, self._backend)
        if step.name in self._recorded:
            stats.recorded[step.name] = recorded(step, self._words.get(step.name, y))
        if step.averages:
            self._words[step.name] = self._words.get(step.sources[0], inputs[0])
        elif fitted or (step.code is not None and step.code.kind == "words" and step.code.zero):
            self._keep_silent(step, inputs, y)
        if step.affine:
            stats.sops[step.name] = layer_sops(step, inputs, self._by_name, self._words, y)
            macs = graded_macs(step, inputs, self._by_name)
            if macs:
                stats.graded_macs[step.name] = macs
        if step.op == "gate":
            stats.gate_ops[step.name] = step.gate_ops(tuple(y.shape[1:3]))
        for name in step.sources:
            if self._last[name] == step.name:
                self._words.pop(name, None)
        self._clock = time.perf_counter()

    def _keep_silent(self, step, inputs: list[Tensor], y: Tensor) -> None:
        """Remembers words with an offset without the spikes that padding seems to have.

        Of the codes of fitted neurons, the trains behind them.

        Args:
            step: that passes words on; others have none to remember. y: what it gave.
        """
        pads = step.op == "move" and step.move.kind == "pad"
        if step.spiking or not (pads or any(name in self._words for name in step.heard)):
            return
        words = [self._words.get(name, x) for name, x in zip(step.sources, inputs, strict=True)]
        if step.op == "max_pool" and step.code.kind == "fitted":
            self._words[step.name] = trains_of_largest(inputs[0], words[0], step.geometry)
        elif step.op == "max_pool":  # where padding has won, nothing spikes
            silent = ops.max_pool(words[0], step.geometry)
            self._words[step.name] = torch.where(silent == y, y, 0)
        else:
            self._words[step.name] = step.forward(*words, **({"zero": 0} if pads else {}))


def trains_of_largest(codes: Tensor, trains: Tensor, geometry: Geometry) -> Tensor:
    """The trains of those neurons that a max-pool passes on: of equal codes, the first in a window.

    Args:
        codes: [N, H, W, C], not negative. trains: of the same neurons, words.
        geometry: of the windows; padding is never the largest.

    Returns:
        Words [N, OH, OW, C] of the dtype of `trains`.
    """
    windows = window_view(pad_map(codes.to(torch.int32), geometry, -1), geometry).flatten(4)
    found = window_view(pad_map(trains, geometry, 0), geometry).flatten(4)
    return found.gather(4, windows.argmax(4, keepdim=True)).squeeze(4).contiguous()


def wilson(hits: int, trials: int, z: float = 1.96) -> list[float]:
    """Wilson's score interval of a proportion, 95 % for z = 1.96; it stays within [0, 1]."""
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"hits={hits}, trials={trials}: need 0 <= hits <= trials, trials >= 1")
    p = hits / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (centre - half) / scale, (centre + half) / scale
    return [max(0.0, low) if hits else 0.0, min(1.0, high) if hits < trials else 1.0]
