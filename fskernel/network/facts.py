"""What a network is made of, before anything is shown to it."""

from __future__ import annotations

import torch
from torch import nn

from fskernel.graph import other_outputs
from fskernel.network import schedule
from fskernel.network.plan import Plan
from fskernel.network.report import Report, report
from fskernel.network.stats import map_sizes


class Facts(nn.Module):
    """Mixed into networks: counts and sizes that its steps alone decide."""

    steps: nn.ModuleList
    input_size: tuple[int, ...] | None

    def plan(self) -> Plan:
        """The native plan of its steps."""
        raise NotImplementedError

    @property
    def K(self) -> int:
        """Time steps of its neurons; the largest, where layers differ (`report` has them all)."""
        return max((s.code.K for s in self.steps if s.spiking), default=0)

    @property
    def depth(self) -> int:
        """FS layers on the longest path plus the readout."""
        return schedule.depth(self.steps)

    @property
    def latency_steps(self) -> int:
        """Time steps from an image to its logits: depth * K, or the sum of its layers' own K."""
        return schedule.latency_steps(self.steps)

    @property
    def interval_steps(self) -> int:
        """Time steps between images in a pipeline: 2 * K."""
        return schedule.interval_steps(self.K)

    @property
    def device(self) -> torch.device:
        """Where its weights are, and its input has to be."""
        return next(self.buffers()).device

    @property
    def heads(self) -> list:
        """The steps that give floats: the readout, mostly."""
        return [step for step in self.steps if step.code is None]

    @property
    def classes(self) -> int | None:
        """Its logits, of an image or of a pixel; None where it has several outputs."""
        biases = [step.bias for step in self.heads if step.affine]
        return len(biases[0]) if len(biases) == len(self.heads) == 1 else None

    @property
    def gives_logits(self) -> bool:
        """Whether it has one readout, and no other output."""
        return [step.op for step in self.heads] == ["readout"]

    def check_logits(self, what: str) -> None:
        """Refuses a network that has other outputs than logits.

        Args:
            what: needs them, as a sentence begins.

        Raises:
            ValueError: naming its outputs.
        """
        if not self.gives_logits:
            raise ValueError(other_outputs(what, [step.name for step in self.heads]))

    @property
    def fitted(self) -> list[str]:
        """Names of the layers of fitted neurons, whose codes are no spike words."""
        return [s.name for s in self.steps if s.spiking and s.code.kind == "fitted"]

    def check_words(self, what: str) -> None:
        """Refuses a network with fitted neurons.

        Args:
            what: is for spike words alone, as a sentence begins.

        Raises:
            ValueError: naming the first layer of fitted neurons, and the cure.
        """
        if self.fitted:
            raise ValueError(
                f"{what} is for spike words, and '{self.fitted[0]}' has fitted neurons, whose "
                "codes are none: convert with another neuron than 'fitted'"
            )

    @property
    def neurons(self) -> int:
        """Neurons (ReLU outputs) for images of `input_size`.

        Raises:
            RuntimeError: the image size is not known; use `count_neurons(height, width)`.
        """
        if self.input_size is None:
            raise RuntimeError("the image size is not known: use net.count_neurons(height, width)")
        return self.count_neurons(*self.input_size[2:])

    def count_neurons(self, height: int, width: int) -> int:
        """Neurons for one image of height x width: ReLU outputs; pixels, sums, pools are none."""
        sizes = map_sizes(self.steps, height, width)
        return sum(
            s.out_channels * sizes[s.name][0] * sizes[s.name][1] for s in self.steps if s.spiking
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of integer weights and their multipliers and biases, as saved."""
        return sum(t.numel() * t.element_size() for t in self.buffers())

    def activation_bytes(self, height: int, width: int) -> int:
        """Bytes of activations and scratch that one image in flight needs.

        What the native plan reserves for an image of height x width: words, graded values, their
        halos. Threads that run images side by side need it once each.
        """
        return self.plan().arena_bytes(height, width)

    def report(self) -> Report:
        """What became of every module: alpha, K, effective weight bits, neurons, what was fused."""
        return report(self)
