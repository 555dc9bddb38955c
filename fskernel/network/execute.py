"""The steps of a network one after the other, on a backend; the native plan is the other way."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fskernel.kernels import ops
from fskernel.kernels.byte_maps import ByteMap, Halo, kept_maps
from fskernel.network.steps import Step
from fskernel.network.watched import Watched
from fskernel.text import plain

_log = logging.getLogger(__name__)

GPU_HERTZ = 2e9  # clocks a second that a fast GPU has at most: what makes it wait counts in clocks

Observer = Callable[[Step, list, Tensor, "Tensor | None"], None]


class Executor:
    """Runs steps one by one, and forgets what nobody reads any more.

    Args:
        steps: of a network; a step may be exchanged later for one of the same name and sources.

    Attributes:
        hooked: False; hooks of single steps are called.
    """

    hooked = False

    def __init__(self, steps: nn.ModuleList):
        self._steps = steps
        self._looked = False  # at images on a GPU
        self._kept: tuple[int, list[Step], dict[str, Halo]] | None = None
        last = {name: step.name for step in steps for name in step.sources}
        self._done = {
            step.name: [n for n in set(step.sources) if last[n] == step.name] for step in steps
        }

    def __call__(
        self,
        x: Tensor,
        backend,
        plane_bits: int = 0,
        observe: Observer | None = None,
        keep: bool = False,
    ) -> list[Tensor]:
        """What the heads give for images x, float32: the readout's logits, mostly.

        Args:
            backend: as of `FSNetwork.execute`. observe: called behind every step.
            keep: layers may leave byte maps for each other.
        """
        halos = self.halos() if keep and self._may_keep(x, backend) else {}
        values: dict[str, Tensor | ByteMap] = {}
        heads: list[Tensor] = []
        for step in self._steps:
            inputs = [values[name] for name in step.sources]
            options = {"plane_bits": plane_bits, "halo": halos.get(step.name)}
            y, counts = step.run(inputs or [x], backend, **options)
            if observe is not None:
                observe(step, inputs, y, counts)
            if step.code is None:
                heads.append(y)
            values[step.name] = y
            for name in self._done[step.name]:
                del values[name]
        return heads

    def calls(self, x: Tensor, plane_bits: int) -> dict[str, Callable[[], object]]:
        """Every step as a call of its own, by its name, on what it reads."""
        halos = self.halos() if self._may_keep(x, ops) else {}
        calls: dict[str, Callable[[], object]] = {}

        def observe(step: Step, inputs: list, y: Tensor, counts: Tensor | None) -> None:
            options = {"plane_bits": plane_bits, "halo": halos.get(step.name)}
            calls[step.name] = functools.partial(step.run, inputs or [x], ops, **options)

        self(x, ops, plane_bits, observe, keep=True)
        return calls

    def heads(self, x: Tensor, plane_bits: int) -> list[Tensor]:
        """What the heads give, float32: [N, classes] of a readout, for images x [N, C, H, W]."""
        return self(x, ops, plane_bits, keep=True)

    def count_spikes(self, x: Tensor, plane_bits: int) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The heads, and the spikes int64 [N] of every layer of neurons by its name."""
        spikes: dict[str, Tensor] = {}

        def observe(step: Step, inputs: list, y: Tensor, counts: Tensor | None) -> None:
            if step.spiking:
                spikes[step.name] = counts

        return self(x, ops, plane_bits, observe, keep=True), spikes

    def encoded(self, x: Tensor) -> tuple[int, int]:
        """How many values x has, and how many of them lie beyond the range of the first code.

        On a GPU, for which that has to wait, the first images alone are looked at.
        """
        if x.is_cuda and (self._looked or torch.cuda.is_current_stream_capturing()):
            return 0, 0
        self._looked = x.is_cuda
        code = self._steps[0].code
        return x.numel(), int((x.abs() > (code.x_max + 1) * code.step).sum())

    def seconds(self, x: Tensor, rounds: int, plane_bits: int) -> dict[str, list[float]]:
        """Seconds between a GPU's events behind the steps, of each round, by the step's name."""
        seconds: dict[str, list[float]] = {step.name: [] for step in self._steps}
        with torch.cuda.device(x.device):
            for _ in range(2):  # the first call packs
                begin = time.perf_counter()
                self(x, ops, plane_bits, keep=True)
                queueing = time.perf_counter() - begin
            torch.cuda.synchronize()
            for _ in range(rounds):
                torch.cuda._sleep(int(3 * queueing * GPU_HERTZ))
                events = [torch.cuda.Event(enable_timing=True) for _ in range(len(self._steps) + 1)]
                behind = iter(events)
                next(behind).record()
                self(x, ops, plane_bits, lambda *_, b=behind: next(b).record(), keep=True)
                torch.cuda.synchronize()
                for step, begin, end in zip(self._steps, events, events[1:], strict=True):
                    seconds[step.name].append(begin.elapsed_time(end) / 1000)
        return seconds

    def _may_keep(self, x: Tensor, backend) -> bool:
        hooked = (s._forward_hooks or s._forward_pre_hooks for s in self._steps)
        return backend.keeps_maps(x) and not any(hooked)

    def halos(self) -> dict[str, Halo]:
        """The layers that leave byte maps, decided anew where a step has changed."""
        if torch.compiler.is_compiling():  # as for the plan: what was there before
            return self._kept[2] if self._kept else {}
        steps = list(self._steps)
        if self._kept is None or self._kept[0] != Watched.exchanges or self._kept[1] != steps:
            self._kept = Watched.exchanges, steps, kept_maps(steps)
            if _log.isEnabledFor(logging.DEBUG):
                for name, halo in self._kept[2].items():
                    _log.debug("on a GPU %s leaves a byte map: %s", plain(name), halo)
        return self._kept[2]
