"""The converted network: runs its steps, counts spikes, saves and loads itself."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fskernel.graph import Graph
from fskernel.image_sizes import ImageSizes
from fskernel.kernels import ops
from fskernel.kernels.backend import Backend
from fskernel.kernels.device import Movable, check_device
from fskernel.network.execute import Executor
from fskernel.network.facts import Facts
from fskernel.network.inputs import InputRange, as_input
from fskernel.network.plan import Plan, gather
from fskernel.network.recording import layers_to_record
from fskernel.network.report import headline, summary
from fskernel.network.stats import Collector, RunStats
from fskernel.network.step_checks import check_steps
from fskernel.network.steps import Step
from fskernel.network.stored import files
from fskernel.network.synapses import Synapses
from fskernel.preprocessing import Preprocessing
from fskernel.tail import Tail
from fskernel.torch_rules.compiling import constant_in_graphs
from fskernel.torch_rules.exporting import NOT_PACKED, Untraceable, refuse_onnx, refuse_tracer

_log = logging.getLogger(__name__)


class FSNetwork(Movable, Untraceable, Facts):
    """A network of FS neurons, made by `fskernel.convert` or `fskernel.load`.

    `net(x)` maps float images [N, C, H, W] (any strides) to float32 logits [N, classes];
    `net.run(x)` also returns what was spent; `print(net)` tells on one screen what it is.
    Inference only. On the CPU it runs as one native plan, on a GPU (`net.to("cuda")`) layer by
    layer, with the same words bit for bit.

    Attributes:
        plane_bits: how many bit-planes a multiplication takes at once: 0 (all, the default), 1, 2,
            4 or 8. The result is the same bit for bit. Networks with fitted neurons have no planes.
        in_channels: of the images it reads.
        graph: the float network it was converted from (None after `load`).
        input_size: (N, C, H, W) of the calibration images, or None.
        sizes: which sizes of images it takes.
        fixed_size: (H, W) of its images, where the structure depends on it, or None.
        search: how `fskernel.search` found its K (`SearchResult.summary`), or None; saved with it.

    Raises:
        ValueError: the steps are no network that can run: the step, the field and why.
    """

    _preprocessing: Preprocessing | None = None  # here, as older pickles hold none

    if TYPE_CHECKING:  # at run time nn.Module's, which runs hooks; its type is Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def __init__(
        self,
        steps: list[Step],
        graph: Graph | None = None,
        input_size: tuple[int, ...] | None = None,
        sizes: ImageSizes | None = None,
        tail: Tail | None = None,
    ):
        super().__init__()
        self.sizes = ImageSizes() if sizes is None else sizes
        self.in_channels = check_steps(steps, input_size, self.sizes.fixed)
        self.steps = nn.ModuleList(steps)
        self.tail = tail
        if tail is not None and len(tail.shapes) != len(self.heads):
            raise ValueError(
                f"the tail takes {len(tail.shapes)} outputs, the steps give {len(self.heads)}"
            )
        self.graph = graph
        self.input_size = input_size
        self.search: dict | None = None
        self.plane_bits = 0
        self._plan: Plan | None = None
        self._executor = Executor(self.steps)
        self._range = InputRange(self.steps)
        self.eval()

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(H, W) of its images, where the structure depends on it, or None."""
        return self.sizes.fixed

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images are made ready for it, and its classes; None: unknown. Saved with it."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing | None) -> None:
        if value is not None:
            if not isinstance(value, Preprocessing):
                raise TypeError(
                    f"preprocessing is a {type(value).__name__}: expected a fskernel.Preprocessing"
                )
            value.check(self.in_channels, self.fixed_size, self.classes)
        self._preprocessing = value

    # ---- running -------------------------------------------------------------------------------

    def pack(self) -> None:
        """Lays weights and activations out for the current ISA (otherwise the first call does).

        Needed after anything but a tensor or a step was exchanged, and before torch.export of a
        network that was unpickled.
        """
        on_gpu = self._on_gpu()
        gather(self.steps)
        for module in self.modules():
            if isinstance(module, Synapses):
                module.packed()
        self._plan = None
        if on_gpu:
            self._executor.halos()
        elif self.gives_logits:
            self.plan()

    def _answer(self, heads: list[Tensor]) -> Tensor:
        """What the module that was converted returns."""
        return heads[0] if self.tail is None else self.tail(heads)

    def _on_gpu(self) -> bool:
        """Whether it runs layer by layer on a GPU; refuses devices that it cannot run on."""
        check_device(self.device, "the network is on")
        return self.device.type == "cuda"

    def plan(self) -> Plan:
        """The native plan of its steps, made anew where a step or its weights have changed."""
        if torch.compiler.is_dynamo_compiling():
            _lay_out(self)
            return self._plan
        if torch.compiler.is_exporting():  # an exported graph keeps the plan that was there before
            if self._plan is None:
                raise RuntimeError(f"the network: {NOT_PACKED}")
            return self._plan
        return self._made_plan()

    def _made_plan(self) -> Plan:
        plan = self._plan
        if plan is None or plan.stale(self.steps):
            if not self.gives_logits:
                raise RuntimeError(
                    "a native plan ends with one readout; this network has other outputs "
                    f"({', '.join(step.name for step in self.heads)}) and runs layer by layer"
                )
            if plan is not None:
                _log.debug("a plan is made anew: the instruction set, a step or weights changed")
            plan = self._plan = Plan(list(self.steps), self.in_channels)
        return plan

    def _runner(self, x: Tensor) -> Plan | Executor:
        """What runs images x fastest: the plan, and on a GPU the steps one by one."""
        # torch.compile goes on with what it has read once, so it must not read None here.
        laid_out = not torch.compiler.is_compiling() and self._plan is not None
        return self.plan() if (laid_out or self.gives_logits) and not x.is_cuda else self._executor

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32 [N, classes] of float images x [N, C, H, W].

        Of a network with other outputs, what the module returns: tensors, or tuples, lists or
        dictionaries of them. x is [N, C, L] or [N, F] if the module takes sequences or vectors.

        Raises:
            TypeError, ValueError, RuntimeError: x is not such a tensor, or requires grad.
        """
        x = self.check_input(x)
        runner = self._runner(x)
        if runner.hooked:  # somebody waits for what the layers give
            runner = self._executor
        heads = runner.heads(x, self.plane_bits)
        self._range.judge(x, runner)
        return self._answer(heads)

    def count_spikes(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and the spikes of every layer of neurons, counted on the way at nearly full speed.

        Returns:
            Float32 [N, classes], and int64 [N] by the layer's name. `run` tells more, but runs the
            layers one by one.
        """
        x = self.check_input(x)
        runner = self._runner(x)
        heads, spikes = runner.count_spikes(x, self.plane_bits)
        self._range.judge(x, runner)
        return self._answer(heads), spikes

    def layer_seconds(self, x: Tensor, rounds: int = 10) -> dict[str, list[float]]:
        """Wall time of every step inside the plan, for the whole batch x [N, C, H, W].

        On a GPU, the time between events behind the steps on its stream. The GPU is kept busy until
        all of them are queued, so that none waits for Python.

        Returns:
            By the step's name, seconds of each round. The clock costs some 0.1 us a step.

        Raises:
            ValueError: rounds is below 1, or x is not a batch of images.
        """
        if rounds < 1:
            raise ValueError(f"rounds={rounds}: expected at least 1")
        x = self.check_input(x)
        return self._runner(x).seconds(x, rounds, self.plane_bits)

    def layer_calls(self, x: Tensor) -> dict[str, Callable[[], object]]:
        """Every step as a call of its own, on what it reads when images x are shown.

        For what times single kernels. All activations of the batch are alive as long as the calls
        are; on a GPU layers read and leave byte maps, as in `forward`.
        """
        x = self.check_input(x)
        return self._executor.calls(x, self.plane_bits)

    def plan_kernels(self) -> dict[str, str]:
        """What runs each step: operands and tile of a convolution ("u8s8/7x4"), or the operator."""
        return self.plan().kernels()

    def execute(self, x: Tensor, backend: Backend | None = None, observe=None) -> Tensor:
        """`forward` on a chosen backend: `fskernel.ops` or an oracle of `fskernel.reference`.

        Args:
            backend: a `Backend` (`fskernel/kernels/backend.py`); default `fskernel.ops`.
            observe: called as observe(step, inputs, output, counts) after every step; counts is
                int64 [N], the spikes of each image, or None where there are no neurons. While
                somebody observes, or has hooks, all activations are ordinary tensors.
        """
        return self._executed(self.check_input(x), backend, observe)

    def _executed(self, x: Tensor, backend: Backend | None, observe) -> Tensor:
        """As `execute`, of images that have been checked."""
        heads = self._executor(
            x, ops if backend is None else backend, self.plane_bits, observe, keep=observe is None
        )
        self._range.judge(x, self._executor)
        return self._answer(heads)

    def run(
        self, x: Tensor, backend: Backend | None = None, record: str | Iterable[str] | None = None
    ) -> tuple[Tensor, RunStats]:
        """Logits and what was spent: spikes and SOPs per layer and image, neurons, time.

        Args:
            x: float images [N, C, H, W].
            backend: as of `execute`.
            record: layers of neurons whose spikes are kept in `RunStats.recorded`: their names, or
                "all". The others are forgotten as soon as they have been read.

        Returns:
            Float32 logits [N, classes] and a `RunStats`.

        Raises:
            ValueError: a layer to record does not exist or has no neurons (before any work).
        """
        chosen = layers_to_record(list(self.steps), record)
        x = self.check_input(x)
        collector = Collector(self.steps, x, chosen, ops if backend is None else backend)
        logits = self._executed(x, backend, collector)
        if len(x):
            collector.stats.input_saturated = self.saturated(x)
        return logits, collector.stats

    def saturated(self, x: Tensor) -> float:
        """Fraction of the pixels of x that lie beyond the range of the input code."""
        return self._range.saturated(x)

    def check_input(self, x: Tensor) -> Tensor:
        """X as float32, or an error that names what is wrong with it."""
        refuse_tracer(x, self)
        if self.plane_bits:
            self.check_words(f"plane_bits={self.plane_bits}")
        return as_input(x, self.in_channels, self.sizes, self.device)

    # ---- keeping -------------------------------------------------------------------------------

    def get_extra_state(self) -> str:
        """What, beside the tensors, makes the network: part of its state_dict."""
        refuse_onnx(self)  # the exporter to ONNX asks for it first, and takes it for a tensor
        return json.dumps([step.spec() for step in self.steps])

    def set_extra_state(self, state: str) -> None:
        """Refuses a state_dict of a network that was converted otherwise.

        Raises:
            ValueError: K, alpha, layers or another setting differs.
        """
        if state != self.get_extra_state():
            raise ValueError(
                "the state_dict belongs to a network that was converted with other settings or "
                "calibration: save whole networks with net.save and fskernel.load"
            )

    def save(self, path: str | Path) -> None:
        """Writes the network to a safetensors file; `fskernel.load` reads it.

        The file holds the canonical integer weights and the float32 multipliers, so the loaded
        network gives the same bits on every backend. The float graph is not saved.
        """
        description = {
            "input_size": list(self.input_size) if self.input_size else None,
            "fixed_size": list(self.fixed_size) if self.fixed_size else None,
            "steps": [step.spec() for step in self.steps],
        }
        if self.sizes.conditions:
            description["size_conditions"] = list(self.sizes.conditions)
        if self.sizes.rank != 4:
            description["rank"] = self.sizes.rank
        if self.tail is not None:
            description["tail"] = self.tail.spec()
        if self.search is not None:
            description["search"] = self.search
        if self.preprocessing is not None:
            description["preprocessing"] = self.preprocessing.spec()
        files.write(path, description, dict(self.named_buffers()))

    def __repr__(self) -> str:
        return headline(self)

    def __str__(self) -> str:
        plan = self._plan
        return summary(self, None if plan is None or plan.stale(self.steps) else plan)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_plan": None}  # made of addresses: of this process only

    def __deepcopy__(self, memo):
        net = FSNetwork(
            [copy.deepcopy(step, memo) for step in self.steps],
            graph=self.graph,  # read only, shared
            input_size=self.input_size,
            sizes=self.sizes,
            tail=copy.deepcopy(self.tail, memo),
        )
        net.plane_bits = self.plane_bits
        net.search = copy.deepcopy(self.search)
        net.preprocessing = self.preprocessing
        if self._plan is not None:
            net.plan()  # as ready for torch.compile as this one
        memo[id(self)] = net
        return net


@constant_in_graphs
def _lay_out(net: FSNetwork) -> None:
    """Lays a network out while it is being compiled."""
    refuse_onnx(net)
    net._made_plan()
