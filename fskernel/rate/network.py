"""The rate-coded network that FS networks are compared with, in plain, unoptimised torch.

If nothing else is said: integrate-and-fire neurons with reset by subtraction; the image enters as a
constant current; weights are normalised per layer by a percentile of its activations on calibration
images (Rueckauer et al., "Conversion of continuous-valued deep networks to efficient event-driven
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
from fskernel.calibration.ranges import batches, measure
from fskernel.calibration.spool import Spool
from fskernel.graph import Graph, Group, Layer, evaluate
from fskernel.network.schedule import longest_path
from fskernel.rate.poisson import PoissonImages
from fskernel.rate.thresholds import (
    MOST_BALANCED,
    NORMALISATIONS,
    balanced_scales,
    channel_scales,
    layer_scales,
    shuffled_alike,
)

RESETS = ("subtract", "zero")
INPUTS = ("analog", "poisson")


@dataclass
class RateRun:
    """What a simulation of `steps` of T time steps gave.

    Attributes:
        logits: float32 [len(reported_at), N, classes], the readout's membrane divided by the time
            it has summed.
        reported_at: the numbers of time steps after which those logits were taken.
        spikes_per_step: int64 [steps, N].
        seconds_per_step: wall time of each step, for the whole batch.
        depth: layers of spiking neurons on the longest path, and the readout.
        burn_in: first steps that the readout did not sum; their spikes are counted all the same.
    """

    T: int
    steps: int
    logits: Tensor
    reported_at: list[int]
    spikes_per_step: Tensor
    seconds_per_step: list[float]
    depth: int
    burn_in: int = 0

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
    the spikes of the input that has fired most so far (the spiking max-pool of Rueckauer et al.
    2017). What only moves spikes passes them on. Concatenated channels keep the scales of their
    layers, so scale_in may differ from channel to channel; channels that a pixel shuffle makes one
    of have the largest scale of them all. Layers without a ReLU ("graded") pass on their current as
    it is. The readout does not fire.

    Args:
        graph: the float network, `fskernel.trace.trace(module)` or `FSNetwork.graph`.
        calibration: images, float [N, C, H, W], or an iterable of such batches.
        percentile: which percentile of a layer's activations is its scale, under "percentile" and
            "robust".
        normalise: what a layer's scale is, on the calibration images. "percentile": the percentile
            of its positive activations (Rueckauer et al. 2017). "robust": that of all its
            activations, zeros included, which is smaller (robust normalisation as SpikingJelly has
            it). "max": the largest one (data-based normalisation, Diehl et al. 2015). "balanced": a
            scale for each channel, the one whose rates after `balanced_for` steps have the least
            mean square error, and membranes that start at half a threshold. That is local threshold
            balancing (Bu et al., CVPR 2025), which weighs only what is cut off, with the rounding
            to whole spikes weighed as well (Li et al., ICML 2021); the start is that of Bu et al.,
            AAAI 2022.
        balanced_for: time steps, 1 to 256, that "balanced" scales are best for.
        reset: "subtract": a spike lowers the membrane by 1 (Rueckauer et al. 2017). "zero": it
            becomes 0, and what it had beyond 1 is lost (Diehl et al. 2015), so rates stay too low.
        input: "analog": the pixels are a constant current. "poisson": at each step a pixel x spikes
            with the probability |x|/a, and a spike is a current of a with the pixel's sign; a is
            the largest |x| of the calibration images, and pixels beyond it saturate. Pixels are no
            neurons: their spikes are not counted.
        seed: of "poisson". The spikes of an image depend on it and on its pixels alone.

    Raises:
        TypeError, ValueError: calibration holds no such images, or a setting is none of these.

    Attributes:
        scales: the scale of every layer of neurons; with "balanced", of its channels, float64 [C].
    """

    def __init__(
        self,
        graph: Graph,
        calibration: Tensor | Iterable,
        percentile: float = 99.9,
        *,
        normalise: str = "percentile",
        balanced_for: int = 32,
        reset: str = "subtract",
        input: str = "analog",
        seed: int = 0,
    ):
        _one_of("normalise", normalise, NORMALISATIONS)
        _one_of("reset", reset, RESETS)
        _one_of("input", input, INPUTS)
        graph.check_logits("the rate-coded network")
        _refuse_functions(graph)
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile={percentile}: must be in (0, 100]")
        if not 1 <= balanced_for <= MOST_BALANCED:
            raise ValueError(
                f"balanced_for={balanced_for}: must be 1 to {MOST_BALANCED} time steps; thresholds "
                f"for more are those for {MOST_BALANCED}"
            )
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed={seed}: must be in 0 to 2^64 - 1")
        self.normalise, self.reset, self.input, self.seed = normalise, reset, input, seed
        balanced = normalise == "balanced"
        if balanced and not isinstance(calibration, Tensor):
            calibration = Spool(batches(calibration))  # gone through several times
        ranges = measure(graph, calibration)
        self.scales: dict[str, float | Tensor] = (
            balanced_scales(graph, calibration, balanced_for)
            if balanced
            else layer_scales(graph, ranges, normalise, percentile)
        )
        self.scales = shuffled_alike(graph, self.scales)
        self._start = 0.5 if balanced else 0.0  # of the membranes, in thresholds
        self._largest_pixel = ranges.largest[graph.layers[0].name] or 1.0
        self.depth = depth(graph)
        units = channel_scales(graph, self.scales)
        self.graph = _normalised(graph, units).to(torch.float32)
        self._ratios = {
            layer.name: _one_or_all(units[layer.residual] / units[layer.name])
            for layer in graph.layers
            if layer.residual is not None
        }

    def __repr__(self) -> str:
        layers = len(self.scales)
        return f"{type(self).__name__}({layers} layers of neurons, depth {self.depth})"

    def __str__(self) -> str:
        return text.facts(f"{type(self).__name__}: rate coding, step by step", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """What is printed of it."""
        scales = [torch.as_tensor(scale) for scale in self.scales.values()]
        low = min((float(scale.min()) for scale in scales), default=0)
        high = max((float(scale.max()) for scale in scales), default=0)
        span = text.span(f"{low:.4g}", f"{high:.4g}")
        reset = {"subtract": "by subtraction", "zero": "to zero"}[self.reset]
        return [
            ("layers", f"{len(self.scales)} of neurons; depth {self.depth}"),
            ("neurons", f"integrate and fire, reset {reset}, threshold 1"),
            ("input", {"analog": "a constant current", "poisson": "random spikes"}[self.input]),
            ("thresholds", self.normalise),
            ("scales", f"a spike at every step stands for {span}"),
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
        *,
        burn_in: int = 0,
    ) -> RateRun:
        """Simulates images.

        Args:
            x: images, float [N, C, H, W], N >= 1.
            T: time steps of one presentation.
            report_every: give the logits after every so many steps; None: after the last only.
            until: simulate only so many steps, at least 3 x depth; RateRun extrapolates the rest.
            on_step: is called with the number of each finished step.
            burn_in: the readout sums only what comes after so many steps, while the rates of the
                deep layers are still rising (the delayed evaluation of Bu et al., CVPR 2025), and
                is not reported before. Spikes count from the first step on.

        Raises:
            ValueError: wrong shape, T < 1, report_every < 1, until below 3 x depth, or a burn_in
                that leaves no step.
        """
        _check_images(x)
        self.graph.sizes.check(x)
        steps = T if until is None else min(until, T)
        if T < 1 or (report_every is not None and report_every < 1):
            raise ValueError(f"T={T}, report_every={report_every}: both must be at least 1")
        if steps < T and steps < 3 * self.depth:
            raise ValueError(
                f"until={until}: simulate at least 3 x depth = {3 * self.depth} steps, before "
                "that activity has not settled and an extrapolation would mean nothing"
            )
        if not 0 <= burn_in < steps:
            raise ValueError(
                f"burn_in={burn_in}: must be 0 to {steps - 1}, so that of {steps} time steps the "
                "readout sums one or more"
            )
        reported = [
            n for n in range(burn_in + 1, steps + 1) if report_every and n % report_every == 0
        ]
        if steps not in reported:
            reported.append(steps)
        found = self._simulate(self._image(x), reported, on_step or (lambda _: None), burn_in)
        return RateRun(
            T, steps, found.logits, reported, found.spikes, found.seconds, self.depth, burn_in
        )

    def _image(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).contiguous(memory_format=torch.channels_last)

    def _simulate(
        self, x: Tensor, reported: list[int], on_step: Callable[[int], None], burn_in: int
    ) -> _Simulated:
        """Steps 1 ... reported[-1] on images x, with the logits after each of `reported`."""
        state, logits, spikes, seconds = _State(self._start), [], [], []
        show = self._shown(x)
        for step in range(1, reported[-1] + 1):
            start = time.perf_counter()
            summed, fired = self._step(show(), state)
            seconds.append(time.perf_counter() - start)
            spikes.append(fired)
            if step == burn_in:
                summed.zero_()
            if step in reported:
                logits.append(summed / (step - burn_in))
            on_step(step)
        return _Simulated(torch.stack(logits), torch.stack(spikes), seconds)

    def _shown(self, x: Tensor) -> Callable[[], Tensor]:
        """What gives the input of the next time step."""
        if self.input == "poisson":
            return PoissonImages(x, self._largest_pixel, self.seed).next
        return lambda: x

    def _step(self, x: Tensor, state: _State) -> tuple[Tensor, Tensor]:
        """One time step: the readout's membrane itself, and the spikes of each image, int64 [N]."""
        fired = torch.zeros(len(x), dtype=torch.int64)

        def emitted(layer: Layer, of: Callable[[str], Tensor]) -> Tensor:
            if layer.kind == "max_pool":
                return _gate(layer, of(layer.source), state.fired(layer.name, of(layer.source)))
            if layer.kind == "readout":
                return state.read(evaluate(layer, of))
            y = self._current(layer, of, state) if layer.groups else evaluate(layer, of)
            if layer.kind != "neuron":
                return y
            y = _fire(state.integrate(layer.name, y), self.reset)
            # A bool sum counts in int64; a float one would round beyond 2^24 spikes.
            fired.add_(y.flatten(1).bool().sum(1))
            return y

        return self.graph.walk(x, emitted), fired

    def _current(self, layer: Layer, of: Callable[[str], Tensor], state: _State) -> Tensor:
        """The input current of a layer in units of its threshold."""
        if layer.name in state.constant:
            return state.constant[layer.name]

        def join(y: Tensor, x: Tensor) -> Tensor:
            ratio = self._ratios[layer.name]
            return y.add_(x, alpha=ratio) if isinstance(ratio, float) else y.addcmul_(x, ratio)

        y = evaluate(layer, of, join)
        from_image = all(self.graph[name].kind == "input" for name in layer.inputs())
        if from_image and self.input == "analog":
            state.constant[layer.name] = y  # the image does not change: computed once
        return y


class _State:
    """What a simulation remembers from step to step.

    Args:
        start: the membranes of neurons before the first step, in thresholds.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self.membranes: dict[str, Tensor] = {}
        self.readout: Tensor | None = None
        self.totals: dict[str, Tensor] = {}  # what the inputs of each max-pool have emitted
        self.constant: dict[str, Tensor] = {}  # currents that depend on the image alone

    def integrate(self, name: str, current: Tensor) -> Tensor:
        """Adds the current to the layer's membrane, which is returned, not copied."""
        v = self.membranes.get(name)
        if v is None:
            v = self.membranes[name] = torch.full_like(current, self.start)
        return v.add_(current)

    def read(self, current: Tensor) -> Tensor:
        """Adds the current to the readout's membrane, which is returned, not copied."""
        if self.readout is None:
            self.readout = torch.zeros_like(current)
        return self.readout.add_(current)

    def fired(self, name: str, emitted: Tensor) -> Tensor:
        """What the inputs of a max-pool have emitted so far, with what they do in this step."""
        total = self.totals.get(name)
        if total is None:
            total = self.totals[name] = torch.zeros_like(emitted, dtype=torch.float32)
        return total.add_(emitted)

    def restart(self) -> None:
        """Back to the beginning, in the same memory."""
        for v in self.membranes.values():
            v.fill_(self.start)
        for total in self.totals.values():
            total.zero_()
        if self.readout is not None:
            self.readout.zero_()


def _fire(v: Tensor, reset: str) -> Tensor:
    """Spikes (0 or 1) of membranes v, which are reset in place."""
    fired = v >= 1
    z = fired.to(v.dtype)
    if reset == "zero":
        v.masked_fill_(fired, 0)
    else:
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
        (layer.name, layer.heard(), layer.kind in ("neuron", "readout")) for layer in graph.layers
    )


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


def _refuse_functions(graph: Graph) -> None:
    """Refuses what spikes of rate-coded neurons cannot compute."""
    for layer in graph.layers:
        if layer.kind == "gate":
            raise ValueError(
                f"'{layer.name}' multiplies two maps: rate coding has no such neuron, as a synapse "
                "multiplies spikes by a weight; give a network without gates"
            )
        if layer.activation is not None:
            raise ValueError(
                f"'{layer.name}' computes {layer.activation.text()}: the rate of an "
                "integrate-and-fire neuron is a ReLU of its current, and no other function; give "
                "a network of ReLUs"
            )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, known))}")


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 4 or not len(x):
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x is {given}: expected images, float [N >= 1, C, H, W]")
    if not torch.isfinite(x).all():
        raise ValueError("x contains NaN or infinite values: repair the images")
