"""A network's steps as one native plan: no Python between the layers."""

from __future__ import annotations

import json
import logging
import operator
import weakref
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fskernel.kernels import ops
from fskernel.network.steps import Step
from fskernel.network.stored.fingerprint import fingerprint
from fskernel.network.watched import Watched, changes
from fskernel.text import plain
from fskernel.torch_rules.float_environment import in_float_environment

_log = logging.getLogger(__name__)

_VERSION = operator.attrgetter("_version")  # faster than a loop over some hundred tensors


def check_on_cpu(tensor: Tensor) -> None:
    """Refuses a tensor of a network that is elsewhere."""
    if tensor.device.type != "cpu":
        raise ValueError(
            f"the network is on {tensor.device}: plans are for the CPU; use net.to('cpu')"
        )


def gather(module: nn.Module) -> None:
    """Moves the buffers of a module on the CPU into one block of memory a type; they are views.

    Views share their base's count of changes, so that a call sees at a few looks whether any of
    some hundred tensors has changed: each look of its own would miss the caches, full of weights.
    """
    places = _places(module)
    by_type: dict[torch.dtype, list[tuple[dict, str]]] = {}
    for buffers, name in places:
        by_type.setdefault(buffers[name].dtype, []).append((buffers, name))
    tensors = [buffers[name] for buffers, name in places]
    if any(t.device.type != "cpu" for t in tensors) or len(_bases(tensors)) <= len(by_type):
        return
    for dtype, some in by_type.items():
        sizes = [buffers[name].numel() for buffers, name in some]
        pieces = torch.empty(sum(sizes), dtype=dtype, device="cpu").split(sizes)
        for (buffers, name), piece in zip(some, pieces, strict=True):
            buffers[name] = piece.view(buffers[name].shape).copy_(buffers[name])


def _places(module: nn.Module) -> list[tuple[dict, str]]:
    return [
        (m._buffers, name)
        for m in module.modules()
        for name, tensor in m._buffers.items()
        if tensor is not None
    ]


def _bases(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, or what they are views of, each once."""
    bases = [t if t._base is None else t._base for t in tensors]
    return list({id(t): t for t in bases}.values())


class Plan:
    """The steps of one network, packed for the current instruction set.

    Args:
        steps: in the order in which they run; the last is the readout.
        in_channels: of the images.

    Raises:
        ValueError: a tensor is not on the CPU, or a step does not fit those it reads.

    Attributes:
        id: its number, for `ops.run_plan`: 63 bits of a fingerprint of the steps and tensors, so
            that it stands for this network in every process, and for no other.
        isa: the instruction set that it is packed for.
        names: of the nodes, in the order in which they run.
        neurons: names of the layers of neurons, in the order of the counts.
        hooked: somebody waits for the outputs of single steps, which a plan does not give; known
            since the last call of `stale`.
    """

    @in_float_environment
    def __init__(self, steps: Sequence[Step], in_channels: int):
        self.steps = list(steps)
        self.names = [step.name for step in self.steps]
        self.neurons = [step.name for step in self.steps if step.spiking]
        self._specs = [step.spec() for step in self.steps]
        self._places = [place for step in self.steps for place in _places(step)]
        self._tensors = [buffers[name] for buffers, name in self._places]
        for tensor in self._tensors:
            check_on_cpu(tensor)
        self._counted = _bases([t for t in self._tensors if not t.is_inference()])
        self._versions = [changes(t) for t in self._counted]
        self.hooked = False
        native = ops.compiled().Plan()
        self.isa: str = native.isa
        at: dict[str, int] = {}
        self._kept: list[np.ndarray] = []  # the native side reads them until it registers
        for step in self.steps:
            inputs = [at[name] for name in step.sources]
            at[step.name] = step.add_to(native, inputs, in_channels, self._kept)
        self._native = native
        text = json.dumps([in_channels, self._specs])
        named = {f"{i}": tensor for i, tensor in enumerate(self._tensors)}
        self.id = int(fingerprint(text, named)[:16], 16) >> 1
        native.register(self.id)
        self._kept.clear()
        self._exchanges = -1
        if _log.isEnabledFor(logging.INFO):
            self._tell()
        weakref.finalize(self, ops.compiled().drop_plan, self.id, native)

    def _tell(self) -> None:
        """Logs what runs the steps."""
        kernels = self.kernels()
        counted = ", ".join(f"{n}x {kernel}" for kernel, n in Counter(kernels.values()).items())
        _log.info("laid out %d steps as one plan for %s: %s", len(kernels), self.isa, counted)
        for name, kernel in kernels.items():
            _log.debug("plan for %s: %s runs as %s", self.isa, plain(name), kernel)

    def stale(self, steps: nn.ModuleList) -> bool:
        """Whether the instruction set, a step or a tensor is not what the plan was made of."""
        if ops.current_isa() != self.isa or list(steps._modules.values()) != self.steps:
            return True
        if self.hooked or self._exchanges != Watched.exchanges:
            now = Watched.exchanges
            if self._exchanged():
                return True
            self.hooked = any(s._forward_hooks or s._forward_pre_hooks for s in self.steps)
            self._exchanges = now
        return list(map(_VERSION, self._counted)) != self._versions

    def _exchanged(self) -> bool:
        now = (buffers.get(name) for buffers, name in self._places)
        if not all(map(operator.is_, now, self._tensors)):
            return True
        return [step.spec() for step in self.steps] != self._specs

    def heads(self, x: Tensor, plane_bits: int) -> list[Tensor]:
        """The readout's logits, float32 [N, classes], of images x [N, C, H, W]."""
        return [ops.run_plan(x, self.id, plane_bits, count=False)[0]]

    def count_spikes(self, x: Tensor, plane_bits: int) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The logits, and the spikes int64 [N] of every layer of neurons by its name."""
        logits, counts = ops.run_plan(x, self.id, plane_bits)
        return [logits], dict(zip(self.neurons, counts.unbind(1), strict=True))

    def seconds(self, x: Tensor, rounds: int, plane_bits: int) -> dict[str, list[float]]:
        """Wall time of every step in every round, by the step's name."""
        seconds = [ops.time_plan(x, self.id, plane_bits).tolist() for _ in range(rounds)]
        return {n: list(s) for n, s in zip(self.names, zip(*seconds, strict=True), strict=True)}

    def encoded(self, x: Tensor) -> tuple[int, int]:
        """Of the values encoded since the last call: how many, and how many beyond the range."""
        return self._native.take_encoded()

    def kernels(self) -> dict[str, str]:
        """What runs each step: operand family and tile of a convolution, else the operator."""
        return dict(zip(self.names, self._native.describe(), strict=True))

    def arena_bytes(self, height: int, width: int) -> int:
        """Bytes of activations and scratch that one image in flight needs."""
        return self._native.arena_bytes(height, width)
