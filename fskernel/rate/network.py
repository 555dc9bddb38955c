"""The rate-coded network that FS networks are compared with, in plain, unoptimised torch.

Integrate-and-fire neurons with reset by subtraction; the image enters as a constant current;
weights are normalised per layer by a percentile of its activations on calibration images
(Rueckauer et al., "Conversion of continuous-valued deep networks to efficient event-driven
networks for image classification", Frontiers in Neuroscience 2017).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fskernel import text
from fskernel.calibration.ranges import measure
from fskernel.graph import Graph, Group, Layer, check_size, evaluate
from fskernel.network.schedule import longest_path


@dataclass
class RateRun:
    """What a simulation of `steps` of T time steps gave.

    Attributes:
        logits: float32 [len(reported_at), N, classes], the readout's membrane divided by time.
        reported_at: the numbers of time steps after which those logits were taken.
        spikes_per_step: int64 [steps, N].
        seconds_per_step: wall time of each step, for the whole batch.
        depth: layers of spiking neurons on the longest path, and the readout.
    """

    T: int
    steps: int
    logits: Tensor
    reported_at: list[int]
    spikes_per_step: Tensor
    seconds_per_step: list[float]
    depth: int

    def __repr__(self) -> str:
        return f"RateRun(T={self.T}, {self.spikes_per_step.shape[1]} images)"

    def __str__(self) -> str:
        images = self.spikes_per_step.shape[1]
        rows = [("spikes", f"{text.count(float(self.spikes().mean()))} an image")]
        if self.extrapolated_from is not None:
            rows.append(("simulated", f"{self.steps:,} of them; spikes and time are extrapolated"))
        rows += [
            ("logits", f"after {_few(self.reported_at)} time steps"),
            ("time", f"{text.duration(self.seconds())} for all images"),
        ]
        return text.facts(f"RateRun: {self.T:,} time steps of {images:,} images", rows)

    @property
    def extrapolated_from(self) -> int | None:
        """The number of simulated steps if there were fewer than T, else None."""
        return self.steps if self.steps < self.T else None

    def spikes(self) -> Tensor:
        """Spikes of each image in T steps, float64 [N].

        Steps that were not simulated count as many spikes as the mean of the last `depth`
        simulated ones: by then (2 x depth steps) activity has reached every layer.
        """
        counted = self.spikes_per_step.sum(0).double()
        if self.extrapolated_from is None:
            return counted
        steady = self.spikes_per_step[-self.depth :].double().mean(0)
        return counted + steady * (self.T - self.steps)

    def seconds(self) -> float:
        """Wall time of T steps for the batch; steps not simulated take the median of the last."""
        measured = sum(self.seconds_per_step)
        if self.extrapolated_from is None:
            return measured
        steady = statistics.median(self.seconds_per_step[-self.depth :])
        return measured + steady * (self.T - self.steps)


class _Simulated(NamedTuple):
    """Logits [reports, N, classes] and spikes [steps, N], on the CPU; seconds of every step."""

    logits: Tensor
    spikes: Tensor
    seconds: list[float]


class RateNetwork:
    """A network of rate-coding integrate-and-fire neurons with the connections of a float graph.

    Every neuron adds its current to its membrane v at each step and, if v >= 1, fires once and
    loses 1; a rate of one spike a step stands for the layer's scale, which never exceeds the
    ceiling of a ReLU6: there the neuron saturates. A layer's current is
    sum_groups (w * scale_in/scale_out) z_in + bias/scale_out, an identity branch enters with
    weight scale_in/scale_out, average-pools average spikes, and a max-pool is a gate that passes
    the spikes of the input that has fired most so far (their spiking max-pool). Concatenated
    channels keep the scales of their layers, so scale_in may differ from channel to channel.
    Layers without a ReLU ("graded") pass on their current as it is. The readout does not fire.

    Args:
        graph: the float network, `fskernel.trace.trace(module)` or `FSNetwork.graph`.
        calibration: images, float [N, C, H, W], or an iterable of such batches.
        percentile: which percentile of a layer's positive activations is its scale.

    Raises:
        TypeError, ValueError: calibration holds no such images, or a percentile outside
            (0, 100].

    Attributes:
        scales: the scale of every layer of neurons.
    """

    def __init__(self, graph: Graph, calibration: Tensor | Iterable, percentile: float = 99.9):
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile={percentile}: must be in (0, 100]")
        self.scales = activation_scales(graph, calibration, percentile)
        self.depth = depth(graph)
        units = channel_scales(graph, self.scales)
        self.graph = _normalised(graph, units).to(torch.float32)
        self._ratios = {
            layer.name: _one_or_all(units[layer.residual] / units[layer.name])
            for layer in graph.layers
            if layer.residual is not None
        }
        self._gated = {layer.source for layer in graph.layers if layer.kind == "max_pool"}

    def __repr__(self) -> str:
        layers = len(self.scales)
        return f"{type(self).__name__}({layers} layers of neurons, depth {self.depth})"

    def __str__(self) -> str:
        return text.facts(f"{type(self).__name__}: rate coding, step by step", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """What is printed of it."""
        low, high = (f"{f(self.scales.values(), default=0):.4g}" for f in (min, max))
        return [
            ("layers", f"{len(self.scales)} of neurons; depth {self.depth}"),
            ("neurons", "integrate and fire, reset by subtraction, threshold 1"),
            ("scales", f"a spike at every step stands for {text.span(low, high)}"),
            ("more", "net.run(images, T=550) simulates and counts spikes"),
        ]

    @torch.no_grad()
    def run(
        self,
        x: Tensor,
        T: int = 550,
        report_every: int | None = None,
        until: int | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> RateRun:
        """Simulates images.

        Args:
            x: images, float [N, C, H, W], N >= 1.
            T: time steps of one presentation.
            report_every: give the logits after every so many steps; None: after the last only.
            until: simulate only so many steps, at least 3 x depth; RateRun extrapolates the rest.
            on_step: is called with the number of each finished step.

        Raises:
            ValueError: wrong shape, T < 1, report_every < 1, or until below 3 x depth.
        """
        _check_images(x)
        check_size(x, self.graph.size)
        steps = T if until is None else min(until, T)
        if T < 1 or (report_every is not None and report_every < 1):
            raise ValueError(f"T={T}, report_every={report_every}: both must be at least 1")
        if steps < T and steps < 3 * self.depth:
            raise ValueError(
                f"until={until}: simulate at least 3 x depth = {3 * self.depth} steps, before "
                "that activity has not settled and an extrapolation would mean nothing"
            )
        reported = [n for n in range(1, steps + 1) if report_every and n % report_every == 0]
        if steps not in reported:
            reported.append(steps)
        found = self._simulate(self._image(x), reported, on_step or (lambda _: None))
        return RateRun(T, steps, found.logits, reported, found.spikes, found.seconds, self.depth)

    def _image(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).contiguous(memory_format=torch.channels_last)

    def _simulate(
        self, x: Tensor, reported: list[int], on_step: Callable[[int], None]
    ) -> _Simulated:
        """Steps 1 ... reported[-1] on images x, with the logits after each of `reported`."""
        state, logits, spikes, seconds = _State(), [], [], []
        for step in range(1, reported[-1] + 1):
            start = time.perf_counter()
            membrane, fired = self._step(x, state)
            seconds.append(time.perf_counter() - start)
            spikes.append(fired)
            if step in reported:
                logits.append(membrane / step)
            on_step(step)
        return _Simulated(torch.stack(logits), torch.stack(spikes), seconds)

    def _step(self, x: Tensor, state: _State) -> tuple[Tensor, Tensor]:
        """One time step: the readout's membrane and the spikes of each image, int64 [N]."""
        fired = torch.zeros(len(x), dtype=torch.int64)

        def emitted(layer: Layer, of: Callable[[str], Tensor]) -> Tensor:
            if layer.kind == "max_pool":
                return _gate(layer, of(layer.source), state.totals[layer.source])
            if layer.kind == "readout":
                return state.integrate(layer.name, evaluate(layer, of))
            y = self._current(layer, of, state) if layer.groups else evaluate(layer, of)
            if layer.kind != "neuron":
                return y
            y = _fire(state.integrate(layer.name, y))
            # A bool sum counts in int64; a float one would round beyond 2^24 spikes.
            fired.add_(y.flatten(1).bool().sum(1))
            return y

        return self.graph.walk(x, emitted, self._adding(state)), fired

    def _adding(self, state: _State) -> Callable[[Layer, Tensor], None]:
        """What adds up the inputs of max-pools."""

        def add(layer: Layer, y: Tensor) -> None:
            if layer.name in self._gated:
                state.add(layer.name, y)

        return add

    def _current(self, layer: Layer, of: Callable[[str], Tensor], state: _State) -> Tensor:
        """The input current of a layer in units of its threshold."""
        if layer.name in state.constant:
            return state.constant[layer.name]

        def join(y: Tensor, x: Tensor) -> Tensor:
            ratio = self._ratios[layer.name]
            return y.add_(x, alpha=ratio) if isinstance(ratio, float) else y.addcmul_(x, ratio)

        y = evaluate(layer, of, join)
        if all(self.graph[name].kind == "input" for name in layer.inputs()):
            state.constant[layer.name] = y  # the image does not change: computed once
        return y


class _State:
    """What a simulation remembers from step to step."""

    def __init__(self) -> None:
        self.membranes: dict[str, Tensor] = {}
        self.totals: dict[str, Tensor] = {}  # what the inputs of max-pools have emitted so far
        self.constant: dict[str, Tensor] = {}  # currents that depend on the image alone

    def integrate(self, name: str, current: Tensor) -> Tensor:
        """Adds the current to the layer's membrane, which is returned, not copied."""
        v = self.membranes.get(name)
        if v is None:
            v = self.membranes[name] = torch.zeros_like(current)
        return v.add_(current)

    def add(self, name: str, emitted: Tensor) -> None:
        """Adds what the input of a max-pool has emitted in this step."""
        total = self.totals.get(name)
        if total is None:
            total = self.totals[name] = torch.zeros_like(emitted, dtype=torch.float32)
        total.add_(emitted)

    def restart(self) -> None:
        """Back to the beginning, in the same memory."""
        for kept in (*self.membranes.values(), *self.totals.values()):
            kept.zero_()


def _fire(v: Tensor) -> Tensor:
    """Spikes (0 or 1) of membranes v, which are reset by subtraction in place."""
    z = (v >= 1).to(v.dtype)
    v.sub_(z)
    return z


def _gate(layer: Layer, spikes: Tensor, totals: Tensor) -> Tensor:
    """Max-pool of spikes: of each window, those of the input with the largest total so far."""
    g = layer.geometry
    top, bottom, left, right = g.padding
    sides = (left, right, top, bottom)
    totals = F.pad(totals, sides, value=float("-inf"))
    spikes = F.pad(spikes, sides)
    _, at = F.max_pool2d(totals, g.kernel, g.stride, 0, g.dilation, return_indices=True)
    return spikes.flatten(2).gather(2, at.flatten(2)).view(at.shape)


def depth(graph: Graph) -> int:
    """Layers of neurons on the longest path through the graph, plus the readout."""
    return longest_path(
        (layer.name, layer.inputs(), layer.kind in ("neuron", "readout")) for layer in graph.layers
    )


def activation_scales(
    graph: Graph, calibration: Tensor | Iterable, percentile: float
) -> dict[str, float]:
    """The value one spike a step stands for in the output of each layer of neurons.

    The percentile of its positive activations (1 if it has none), the largest of those that are
    concatenated with it, but never more than its ceiling: one spike a step is the most a neuron can
    fire, so it saturates at its scale, and a ReLU6 must not pass 6 because its neighbour does.
    """
    ranges = measure(graph, calibration)
    scales: dict[str, float] = {}
    for name, tied in graph.tied().items():
        layer = graph[name]
        if layer.kind == "neuron":
            scale = max(ranges.percentile(n, percentile) for n in tied) or 1.0
            scales[name] = scale if layer.ceiling is None else min(scale, layer.ceiling)
    return scales


def channel_scales(graph: Graph, scales: dict[str, float]) -> dict[str, Tensor]:
    """The value of one spike a step in every channel of each layer, float64 [C].

    That of the layer of neurons which the channel comes from, through pools and concatenations; 1
    where values are not scaled. The input has one number, [1]: how many channels an image has the
    graph does not say.
    """
    units: dict[str, Tensor] = {}
    for layer in graph.layers:
        if layer.kind == "concat":
            units[layer.name] = torch.cat([units[name] for name in layer.sources])
        elif layer.source is not None:
            units[layer.name] = units[layer.source]
        else:
            channels = 1 if layer.bias is None else len(layer.bias)
            unit = torch.full((channels,), scales.get(layer.name, 1.0), dtype=torch.float64)
            units[layer.name] = unit
    return units


def _normalised(graph: Graph, units: dict[str, Tensor]) -> Graph:
    """The graph with weights and biases in units of each layer's threshold (in float64)."""
    layers = []
    for layer in graph.layers:
        groups = [
            replace(g, weight=_in_units(g, units[g.source], units[layer.name]))
            for g in layer.groups
        ]
        bias = None if layer.bias is None else layer.bias.double() / units[layer.name]
        layers.append(replace(layer, groups=groups, bias=bias))
    return replace(graph, layers=layers)


def _in_units(group: Group, source: Tensor, out: Tensor) -> Tensor:
    """Weights [O, I/groups, kh, kw], float64, from spikes worth `source` to thresholds of `out`."""
    outputs, inputs = group.weight.shape[:2]
    groups = group.geometry.groups
    # Row o reads the channels of its own group alone.
    read = source.expand(groups * inputs).view(groups, inputs)
    read = read.repeat_interleave(outputs // groups, 0)
    return group.weight.double() * (read / out[:, None])[:, :, None, None]


def _one_or_all(ratios: Tensor) -> float | Tensor:
    """What a spike of the identity branch adds to a membrane: a number, or float32 [C, 1, 1]."""
    first = float(ratios[0])
    return first if bool((ratios == first).all()) else ratios.to(torch.float32)[:, None, None]


def _few(numbers: list[int]) -> str:
    """Numbers, the first and the last of them where there are many."""
    if len(numbers) > 4:
        return f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 4 or not len(x):
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x is {given}: expected images, float [N >= 1, C, H, W]")
    if not torch.isfinite(x).all():
        raise ValueError("x contains NaN or infinite values: repair the images")
