"""The rate-coded network on the CPU's kernels: eight time steps of a layer in one pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fskernel.codes.geometry import Geometry
from fskernel.codes.moves import side_by_side
from fskernel.codes.neuron import GRADED_LIMIT
from fskernel.codes.weights import INT32_LIMIT
from fskernel.graph import Graph, Layer
from fskernel.kernels import ops, trains
from fskernel.network.synapses import Synapses
from fskernel.rate.fused import FusedRateNetwork
from fskernel.rate.network import _Simulated, _State

_AUTO = "auto"


@dataclass
class _Emitted:
    """What a layer emits in the time steps of a chunk."""

    trains: Tensor | None  # uint8 [N, H, W, C]
    steps: list[Tensor] | None  # else one tensor a step, or the same one at every step
    _planes: list[Tensor] | None = None

    def at(self, step: int) -> Tensor:
        """What it emits at a step; of trains, the spikes 0 or 1."""
        if self.trains is None:
            return self.steps[min(step, len(self.steps) - 1)]
        if self._planes is None:
            self._planes = [trains.at_step(self.trains, s) for s in range(trains.MOST_STEPS)]
        return self._planes[step]


class KernelRateNetwork(FusedRateNetwork):
    """`RateNetwork` with integer weights, on the CPU's kernels.

    The time steps are taken eight at a time, layer after layer: what a neuron fires in them is one
    byte, its spike train, and its membrane is read and written once for all of them. Layers of
    neurons that get spikes are computed by one kernel, `fskernel.kernels.trains`, densely or spike
    by spike. Layers that read the image alone have a constant current, which torch computes once.
    The rest, such as averages of spikes or concatenated channels of several scales as an identity
    branch, goes step by step, as in `FusedRateNetwork`, whose spikes these are, bit for bit.

    Args:
        graph, calibration, percentile, normalise, balanced_for, reset, input, weight_bits: as those
            of `FusedRateNetwork`.
        path: how a layer's sums are computed: "dense", "events" (spike by spike), or "auto": by
            whichever is expected to be faster, anew for every chunk, from the share of the layer's
            inputs that spike. One word for all layers, or a dictionary of words by layer name,
            "auto" for those that it does not name.

    Attributes:
        kernels: after a run, what computed each layer of neurons and the readout in the last chunk:
            "rate/events", "rate/" and the operand family and tile of the dense kernel,
            "rate/current", or "torch".

    Raises:
        TypeError, ValueError: as `FusedRateNetwork`; a path that does not exist, or of a layer that
            does not; "events" for a convolution in groups.
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
        path: str | Mapping[str, str] = _AUTO,
    ):
        super().__init__(
            graph,
            calibration,
            percentile,
            normalise=normalise,
            balanced_for=balanced_for,
            reset=reset,
            input=input,
            weight_bits=weight_bits,
            device="cpu",
        )
        self.path = dict(path) if isinstance(path, Mapping) else path
        self._check_paths()
        # Of the readout's sums, for one spike at each of its inputs.
        self._largest_read = (
            0
            if self._readout is None
            else int(self._readout[0].abs().sum(1, dtype=torch.int64).max())
        )
        self._rows: dict[tuple[str, str], tuple[Tensor, ...] | None] = {}
        self._readouts: dict[tuple[str, int], Synapses] = {}

    def _check_paths(self) -> None:
        named = self.path if isinstance(self.path, dict) else {None: self.path}
        for name, path in named.items():
            if path not in trains.PATHS:
                where = "path" if name is None else f"path[{name!r}]"
                raise ValueError(f"{where} is {path!r}: expected one of {', '.join(trains.PATHS)}")
            if name is not None and name not in self.fused:
                raise ValueError(
                    f"path names {name!r}: expected layers of neurons that get spikes, "
                    f"{', '.join(self.fused)}"
                )
            if name is not None and path == "events" and not self._has_rows(name):
                raise ValueError(
                    f"path[{name!r}] is 'events': a convolution in groups has the path 'dense' "
                    "alone"
                )

    def _has_rows(self, name: str) -> bool:
        return all(s.geometry.groups == 1 for s in self.fused[name].groups)

    def to(self, device: torch.device | str) -> KernelRateNetwork:
        """Stays where it is.

        Raises:
            ValueError: another device than the CPU.
        """
        if torch.device(device).type != "cpu":
            raise ValueError(
                f"device={device}: these kernels are the CPU's; on a GPU use "
                "fskernel.rate.fused.FusedRateNetwork"
            )
        super().to(device)
        return self

    def path_of(self, name: str) -> str:
        """The path that was asked for a layer; what cannot go by events goes densely."""
        path = self.path.get(name, _AUTO) if isinstance(self.path, dict) else self.path
        return path if self._has_rows(name) else "dense"

    def _simulate(
        self, x: Tensor, reported: list[int], on_step: Callable[[int], None], burn_in: int
    ) -> _Simulated:
        state, steps = _State(self._start), reported[-1]
        if steps > trains.MOST_TOTAL and any(
            layer.kind == "max_pool" for layer in self.graph.layers
        ):
            raise ValueError(
                f"T={steps}: max-pools compare at most {trains.MOST_TOTAL} spikes of a neuron; "
                "simulate fewer steps"
            )
        logits, spikes, seconds = [], [], []
        wanted = set(reported)
        for first in range(1, steps + 1, trains.MOST_STEPS):
            count = min(trains.MOST_STEPS, steps + 1 - first)

            def on_logits(step: int, summed: Tensor, first: int = first) -> None:
                done = first + step
                if done == burn_in:
                    summed.zero_()
                elif done in wanted:
                    logits.append(summed / (done - burn_in))

            start = time.perf_counter()
            fired = self._chunk(x, state, count, on_logits)
            seconds += [(time.perf_counter() - start) / count] * count
            spikes.append(fired)
            for step in range(first, first + count):
                on_step(step)
        return _Simulated(torch.stack(logits), torch.cat(spikes), seconds)

    @torch.no_grad()
    def _chunk(
        self, x: Tensor, state: _State, steps: int, on_logits: Callable[[int, Tensor], None]
    ) -> Tensor:
        """A few time steps. Returns the spikes of each and each image, int64 [steps, N].

        Args:
            on_logits: is called with each step, from 0, and the readout's membrane after it.
        """
        fired = torch.zeros(steps, len(x), dtype=torch.int64)

        def emitted(layer: Layer, of: Callable[[str], _Emitted]) -> _Emitted:
            inputs = [of(name) for name in layer.heard()]
            in_trains = all(i.trains is not None for i in inputs)
            if layer.name in self.fused and in_trains:
                y, counts = self._fused_steps(layer, of, state, steps)
                fired.add_(counts)
                return _Emitted(y, None)
            if layer.kind == "neuron" and self._from_image(layer):
                y, counts = self._constant_steps(layer, of, state, steps)
                fired.add_(counts)
                return _Emitted(y, None)
            if layer.kind == "max_pool" and in_trains and self._compared(layer):
                source = inputs[0].trains
                totals = state.totals.get(layer.name)
                if totals is None:
                    totals = state.totals[layer.name] = torch.zeros_like(source, dtype=torch.int32)
                return _Emitted(trains.gate_pool(source, totals, layer.geometry, steps=steps), None)
            if layer.kind == "concat" and in_trains:
                return _Emitted(side_by_side([i.trains for i in inputs], layer.runs, 3), None)
            if layer.kind == "move" and in_trains:
                y = self.moved(layer, inputs[0].trains, lambda name: of(name).at(0))
                return _Emitted(y, None)
            if layer.kind == "readout" and in_trains and self._sums_fit(layer, inputs[0].trains):
                currents = self.read_steps(layer, inputs[0].trains, steps)
                for step in range(steps):
                    on_logits(step, state.read(currents[:, step]))
                return inputs[0]
            outputs = []
            for step in range(steps):
                y, counts = self._emitted(layer, lambda name, s=step: of(name).at(s), state)
                if counts is not None:
                    fired[step].add_(counts)
                if layer.kind == "readout":
                    on_logits(step, y)
                outputs.append(y)
            if layer.kind == "neuron" or (layer.kind == "max_pool" and in_trains):
                return _Emitted(trains.of_steps(outputs), None)
            return _Emitted(None, outputs)

        self.graph.walk(_Emitted(None, [x]), emitted)
        return fired

    def _fused_steps(
        self, layer: Layer, of: Callable[[str], _Emitted], state: _State, steps: int
    ) -> tuple[Tensor, Tensor]:
        fused = self.fused[layer.name]
        groups = [(of(g.source).trains, s) for g, s in zip(layer.groups, fused.groups, strict=True)]
        residual = layer.residual and (of(layer.residual).trains, fused.r)
        found = trains.integrate_and_fire(
            groups,
            fused.bias,
            self._membrane(layer, groups[0][0], state),
            steps=steps,
            rows=self._rows_of(layer.name),
            residual=residual or None,
            path=self.path_of(layer.name),
        )
        self.kernels[layer.name] = self._ran()
        return found

    def _sums_fit(self, layer: Layer, x: Tensor) -> bool:
        """Whether the readout's sums fit the 32 bits of a layer's."""
        if self._readout is None:
            return False
        pixels = x.shape[1] * x.shape[2] if layer.pool else 1
        return pixels <= GRADED_LIMIT and pixels * self._largest_read < INT32_LIMIT

    def read_steps(self, layer: Layer, x: Tensor, steps: int) -> Tensor:
        """The readout's currents in all steps of trains, float32 [N, steps, classes].

        They are the membranes of a layer whose pixels are the steps, so that its weights are read
        once for all of them; the same float32 as those of `ops.readout`.
        """
        weight, scale, bias = self._readout
        pixels = x.shape[1] * x.shape[2] if layer.pool else 1
        whole = Geometry(tuple(x.shape[1:3]))
        features = []
        for step in range(steps):
            z = trains.at_step(x, step)
            features.append(ops.sum_pool(z, whole) if layer.pool else z.view(len(z), 1, 1, -1))
        dtype = torch.uint8 if pixels <= 255 else torch.int16
        codes = torch.cat(features, 2).to(dtype)
        key = layer.name, pixels
        if key not in self._readouts:
            m = (scale / pixels).to(torch.float32)
            self._readouts[key] = Synapses(
                weight[:, :, None, None], m, Geometry((1, 1)), x_min=0, x_max=pixels
            )
        y, _ = ops.conv([(codes, self._readouts[key])], bias, K=0, step=1.0, count=False)
        self.kernels[layer.name] = self._ran()
        return y[:, 0]

    def _rows_of(self, name: str) -> tuple[Tensor, ...] | None:
        """The weights for the path "events", made once for each instruction set."""
        if self.path_of(name) == "dense":
            return None
        key = name, ops.current_isa()
        if key not in self._rows:
            self._rows[key] = trains.pack_rows(self.fused[name].groups)
        return self._rows[key]

    @staticmethod
    def _compared(pool: Layer) -> bool:
        """Whether the kernel compares all inputs of a max-pool's window."""
        height, width = pool.geometry.kernel
        return height * width <= trains.MOST_GATED

    def _from_image(self, layer: Layer) -> bool:
        return all(self.graph[name].kind == "input" for name in layer.inputs())

    def _constant_steps(
        self, layer: Layer, of: Callable[[str], _Emitted], state: _State, steps: int
    ) -> tuple[Tensor, Tensor]:
        floats = partial(self._floats, of=lambda name: of(name).at(0))
        current = self._current(layer, floats, state).permute(0, 2, 3, 1).contiguous()
        v = state.membranes.get(layer.name)
        if v is None:
            v = state.membranes[layer.name] = torch.full_like(current, state.start)
        found = trains.integrate_current(current, v, steps=steps)
        self.kernels[layer.name] = self._ran()
        return found
