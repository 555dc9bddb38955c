"""The rate-coded network on a GPU: its layers are fused integrate-and-fire steps.

The same simulation as `fskernel.rate`, with the weights in integers as FS networks have them, so
that both codes can be compared on one device with the same care.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.moves import side_by_side
from fskernel.codes.neuron import GRADED_LIMIT
from fskernel.codes.weights import quantise_weights, ratio
from fskernel.graph import Graph, Layer, evaluate
from fskernel.kernels import ops
from fskernel.kernels.device import check_device
from fskernel.network.synapses import Synapses
from fskernel.rate.network import RateNetwork, _fire, _gate, _Simulated, _State

STEPS_OF_A_GRAPH = 25  # a step has one launch a layer, and graphs take memory for each


@dataclass
class _Codes:
    """What a layer's integer output means: values up to `largest`, each worth `unit` spikes."""

    largest: int
    unit: float


@dataclass
class _Fused:
    """A layer that one kernel computes."""

    groups: list[Synapses]
    bias: Tensor
    r: Tensor | None


def check_fused(reset: str, input: str) -> None:
    """Refuses the settings of `RateNetwork` that the kernels do not have.

    Raises:
        ValueError: naming the setting, its value and the cure.
    """
    for name, value, had in (("reset", reset, "subtract"), ("input", input, "analog")):
        if value != had:
            raise ValueError(
                f"{name}={value!r}: the kernels have {name}={had!r} alone; use that, or "
                "RateNetwork in plain torch"
            )


def has_kernels(reset: str, input: str) -> bool:
    """Whether the kernels have these settings of `RateNetwork`."""
    try:
        check_fused(reset, input)
    except ValueError:
        return False
    return True


class FusedRateNetwork(RateNetwork):
    """`RateNetwork` with integer weights, on the kernels of a GPU.

    A layer of neurons whose inputs are spikes, or sums of spikes from an average-pool, is one
    `ops.integrate_and_fire`: uint8 spikes in and out, membranes kept in memory. What reads the
    image or graded layers, or adds concatenated channels of several scales as an identity branch,
    is computed by torch on the same device, and so are max-pool gates, averages whose divisor
    varies, and what only moves spikes; the current of a layer that reads the image alone is
    computed once. On a GPU the time steps run as CUDA graphs of many
    steps each, which count their spikes on the GPU; nothing is waited for between the steps of a
    graph.

    Args:
        graph, calibration, percentile, normalise, balanced_for: as those of `RateNetwork`;
            calibration is measured on the CPU.
        reset, input: "subtract" and "analog"; the others are `RateNetwork`'s alone.
        weight_bits: 8 or 16, of the integer weights.
        device: where to simulate.
        backend: an object with the functions of `fskernel.ops`.

    Attributes:
        fused: the layers that one kernel computes, by name.
        kernels: after a run, what computed each layer of neurons and the readout: a kernel's name,
            or "torch".

    Raises:
        TypeError, ValueError: as `RateNetwork`; weight_bits other than 8 or 16; a device that
            cannot be used, and why; what the kernels do not have.
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
        weight_bits: int = 8,
        device: torch.device | str = "cuda",
        backend: ModuleType | object = ops,
    ):
        check_fused(reset, input)
        super().__init__(
            graph, calibration, percentile, normalise=normalise, balanced_for=balanced_for
        )
        self.device, self.backend = torch.device(device), backend
        self.kernels: dict[str, str] = {}
        self._readout: tuple[Tensor, ...] | None = None
        self._codes: dict[str, _Codes] = {}
        self.fused: dict[str, _Fused] = {}
        for layer in self.graph.layers:
            if codes := self._codes_of(layer):
                self._codes[layer.name] = codes
            inputs = [self._codes.get(name) for name in layer.inputs()]
            # A kernel multiplies all channels of an identity branch by one number.
            one = not isinstance(self._ratios.get(layer.name), Tensor)
            if layer.kind == "neuron" and all(inputs) and len(layer.groups) <= 2 and one:
                self.fused[layer.name] = self._fuse(layer, weight_bits)
            if layer.kind == "readout" and all(inputs):
                self._readout = self._integer_readout(layer, weight_bits)
        self.to(self.device)

    def _facts(self) -> list[tuple[str, str]]:
        fused = f"{len(self.fused)} of {len(self.scales)} layers of neurons"
        rows = [("kernels", f"{fused}, on {self.device}; torch computes the others")]
        if self.kernels:
            ran = Counter(self.kernels.values()).most_common()
            rows.append(("ran last", ", ".join(f"{kernel} ({n}x)" for kernel, n in ran)))
        first, *rest = super()._facts()
        return [first, *rows, *rest]

    def to(self, device: torch.device | str) -> FusedRateNetwork:
        """Moves it to a device, in place."""
        check_device(device, "the network shall go to")
        self.device = torch.device(device)
        for fused in self.fused.values():
            fused.groups = [s.to(self.device) for s in fused.groups]
            fused.bias = fused.bias.to(self.device)  # r stays: the host reads it
        if self._readout is not None:
            self._readout = tuple(t.to(self.device) for t in self._readout)
        for layer in self.graph.layers:
            layer.groups = [replace(g, weight=g.weight.to(self.device)) for g in layer.groups]
            layer.bias = None if layer.bias is None else layer.bias.to(self.device)
        for name, found in self._ratios.items():
            self._ratios[name] = found.to(self.device) if isinstance(found, Tensor) else found
        return self

    def _codes_of(self, layer: Layer) -> _Codes | None:
        """How the layer's output is written in integers; None: it is float."""
        if layer.kind == "neuron":
            return _Codes(1, 1.0)
        sources = [self._codes.get(name) for name in layer.heard()]
        if not sources or None in sources:
            return None
        if layer.kind in ("max_pool", "move"):
            return sources[0]
        if layer.kind == "avg_pool":
            cells = layer.geometry.kernel[0] * layer.geometry.kernel[1]
            largest = sources[0].largest * cells
            return _Codes(largest, sources[0].unit / cells) if largest <= GRADED_LIMIT else None
        same = layer.kind == "concat" and all(s == sources[0] for s in sources)
        return sources[0] if same else None

    def _fuse(self, layer: Layer, bits: int) -> _Fused:
        groups = []
        for group in layer.groups:
            codes = self._codes[group.source]
            source = Code("words", codes.unit, 0, codes.largest)
            groups.append(Synapses.quantised(group.weight, bits, group.geometry, source, 1.0)[0])
        r = None
        if layer.residual is not None:
            r = ratio(self._ratios[layer.name] * self._codes[layer.residual].unit, 1.0)
        return _Fused(groups, layer.bias, r)

    def _integer_readout(self, layer: Layer, bits: int) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [O, F], features in NHWC order; the scales; the bias."""
        weight = layer.groups[0].weight.permute(0, 2, 3, 1).flatten(1)
        q = quantise_weights(weight[:, :, None, None], bits, 0, 0)
        scale = q.scale * self._codes[layer.groups[0].source].unit
        ints = q.weight.flatten(1).contiguous()
        return ints, scale, layer.bias

    def step_of(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """A call that simulates the next time step of images x; its argument is not read."""
        x, state = self._image(x), _State(self._start)
        return lambda _: self._step(x, state)[0]

    def _image(self, x: Tensor) -> Tensor:
        return super()._image(x.to(self.device))

    def _simulate(
        self, x: Tensor, reported: list[int], on_step: Callable[[int], None], burn_in: int
    ) -> _Simulated:
        steps = reported[-1]
        state, player = _State(self._start), _Player(self.device)
        spikes = torch.zeros(steps, len(x), dtype=torch.int64, device=self.device)
        at = torch.zeros(1, dtype=torch.int64, device=self.device)  # the next step

        def advance(count: int) -> None:
            for _ in range(count):
                _, fired = self._step(x, state)
                spikes.index_copy_(0, at, fired[None])
                at.add_(1)

        with player.on_device():
            player.warm(lambda: self._step(x, state))  # packs, makes the tensors that are kept
            state.restart()
            logits, seconds, done = [], [], 0
            for end in [burn_in, *reported]:
                while done < end:
                    count = STEPS_OF_A_GRAPH if end - done >= STEPS_OF_A_GRAPH else 1
                    seconds += [player.play(count, advance) / count] * count
                    for step in range(done + 1, done + count + 1):
                        on_step(step)
                    done += count
                if end == burn_in:
                    state.readout.zero_()
                else:
                    logits.append((state.readout / (end - burn_in)).cpu())
        return _Simulated(torch.stack(logits), spikes.cpu(), seconds)

    @torch.no_grad()
    def _step(self, x: Tensor, state: _State) -> tuple[Tensor, Tensor]:
        fired = torch.zeros(len(x), dtype=torch.int64, device=x.device)

        def emitted(layer: Layer, of: Callable[[str], Tensor]) -> Tensor:
            y, counts = self._emitted(layer, of, state)
            if counts is not None:
                fired.add_(counts)
            return y

        return self.graph.walk(x, emitted), fired

    def _emitted(
        self, layer: Layer, of: Callable[[str], Tensor], state: _State
    ) -> tuple[Tensor, Tensor | None]:
        """What a layer emits in one time step, and its spikes, int64 [N], if it has neurons.

        Codes [N, H, W, C] of layers in _codes, else floats [N, C, H, W]; `of` gives the same.
        """
        if layer.kind == "readout":
            return state.read(self.read(layer, of)), None
        if layer.name in self.fused:
            return self._fused_step(layer, of, state)
        coded, floats = layer.name in self._codes, partial(self._floats, of=of)
        if layer.kind == "max_pool":
            inputs = [of(layer.source), state.fired(layer.name, of(layer.source))]
            if not coded:
                return _gate(layer, *inputs), None
            y = _gate(layer, *(t.permute(0, 3, 1, 2) for t in inputs))
            return y.permute(0, 2, 3, 1).contiguous(), None
        if layer.kind == "avg_pool" and coded:
            return self.backend.sum_pool(of(layer.source), layer.geometry), None
        if layer.kind == "concat" and coded:
            return side_by_side([of(source) for source in layer.sources], layer.runs, 3), None
        if layer.kind == "move" and coded:
            return self.moved(layer, of(layer.heard()[0]), of), None
        if not layer.groups:
            return evaluate(layer, floats), None
        y = self._current(layer, floats, state)
        if layer.kind != "neuron":
            return y, None
        v = state.integrate(layer.name, y)
        y = _fire(v, self.reset).permute(0, 2, 3, 1).to(torch.uint8).contiguous()
        self.kernels[layer.name] = "torch"
        return y, y.flatten(1).sum(1)

    def moved(self, layer: Layer, x: Tensor, of: Callable[[str], Tensor]) -> Tensor:
        """What a move makes of spikes or trains of them, [N, H, W, C]; `of` as of `_emitted`."""
        size = None
        for like in layer.inputs()[1:]:
            size = of(like).shape[1:3] if like in self._codes else of(like).shape[2:]
        y = layer.move.apply(x.permute(0, 3, 1, 2), size=size)
        return y.permute(0, 2, 3, 1).contiguous()

    def _fused_step(
        self, layer: Layer, of: Callable[[str], Tensor], state: _State
    ) -> tuple[Tensor, Tensor]:
        fused = self.fused[layer.name]
        groups = [(of(g.source), s) for g, s in zip(layer.groups, fused.groups, strict=True)]
        v = self._membrane(layer, groups[0][0], state)
        residual = None if layer.residual is None else (of(layer.residual), fused.r)
        found = self.backend.integrate_and_fire(groups, fused.bias, v, residual=residual)
        self.kernels[layer.name] = self._ran()
        return found

    def _membrane(self, layer: Layer, source: Tensor, state: _State) -> Tensor:
        """The membranes of a fused layer, float32 [N, OH, OW, O], for codes of its first group."""
        v = state.membranes.get(layer.name)
        if v is None:
            size = layer.groups[0].geometry.output_size(*source.shape[1:3])
            shape = (len(source), *size, len(layer.bias))
            v = state.membranes[layer.name] = torch.full(shape, state.start, device=source.device)
        return v

    def read(self, layer: Layer, of: Callable[[str], Tensor]) -> Tensor:
        """The readout's current in one time step, float32 [N, classes]; `of` as of `_emitted`."""
        source = layer.groups[0].source
        if self._readout is None:
            self.kernels[layer.name] = "torch"
            return evaluate(layer, partial(self._floats, of=of))
        weight, scale, bias = self._readout
        x = of(source)
        pixels = x.shape[1] * x.shape[2] if layer.pool else 1
        m = (scale / pixels).to(torch.float32)
        y = self.backend.readout(x, weight, m, bias, pool=layer.pool)
        self.kernels[layer.name] = self._ran()
        return y

    def _ran(self) -> str:
        """The name of the kernel that ran last."""
        return ops.last_kernel() if self.backend is ops else getattr(self.backend, "last", "oracle")

    def _floats(self, name: str, of: Callable[[str], Tensor]) -> Tensor:
        """A layer's output in spikes, float32 [N, C, H, W]."""
        if name not in self._codes:
            return of(name)
        return of(name).permute(0, 3, 1, 2).to(torch.float32) * self._codes[name].unit


class _Player:
    """Plays steps: on a GPU as CUDA graphs, one for each number of steps, else by calling them."""

    def __init__(self, device: torch.device):
        self.device = device
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def on_device(self) -> contextlib.AbstractContextManager:
        """While it plays, that device is the current one."""
        on_gpu = self.device.type == "cuda"
        return torch.cuda.device(self.device) if on_gpu else contextlib.nullcontext()

    def warm(self, call: Callable[[], object]) -> None:
        """Calls once what shall be captured later: on a stream of its own, as CUDA graphs ask."""
        if self.device.type != "cuda":
            call()
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)

    def play(self, count: int, advance: Callable[[int], None]) -> float:
        """Runs `advance(count)` and waits for its end; returns the seconds it took."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            advance(count)
            return time.perf_counter() - start
        if count not in self._graphs:
            self._graphs[count] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graphs[count]):
                advance(count)
            torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._graphs[count].replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000
