"""What makes a list of steps a network: the one check of every network, wherever it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.geometry import check_geometry
from fskernel.codes.neuron import ROUNDINGS
from fskernel.network.neuron_checks import LARGEST, NeuronChecks
from fskernel.network.stats import map_sizes
from fskernel.network.steps import (
    ConcatStep,
    ConvStep,
    GateStep,
    MeanPoolStep,
    MoveStep,
    OutputStep,
    PoolStep,
    ReadoutStep,
    Step,
)
from fskernel.network.synapses import Synapses

MOST_STEPS = 10_000
MOST_CHANNELS = 2**24
MOST_SUMMED = 65_536  # pixels, whose 16-bit codes a readout sums in 32 bits


def check_steps(
    steps: Sequence[Step],
    input_size: tuple[int, ...] | None = None,
    fixed_size: tuple[int, int] | None = None,
) -> int:
    """Refuses steps that are no network that can run.

    Kernels rely on all of it: the order of the steps and who reads whom, channels, the lengths and
    types of tensors, ranges of codes, and that every layer's weights were made for the codes that
    its source gives. What depends on the size of an image is looked at for these sizes here, and
    for others when they come.

    Args:
        steps: in the order in which they run.
        input_size: (N, C, H, W) of the calibration images, or None.
        fixed_size: (H, W) of all its images, or None.

    Returns:
        The channels of the images, which the first layer that reads all of them knows; where all
        readers pick some, those of `input_size`, or else as many as they reach.

    Raises:
        ValueError: naming the step and what is wrong with it.
    """
    if not 1 <= len(steps) <= MOST_STEPS:
        raise ValueError(f"there are {len(steps)} steps: expected 1 to {MOST_STEPS}")
    walk = _Walk()
    for i, step in enumerate(steps):
        walk.check(i, step, last=i == len(steps) - 1)
    walk.settle_image(steps[0].name, input_size)
    walk.check_sizes(steps, input_size, fixed_size)
    return walk.channels[steps[0].name]


class _Walk(NeuronChecks):
    """The steps one after the other, with what is known of those before."""

    def __init__(self):
        self.codes: dict[str, Code] = {}
        self.channels: dict[str, int | None] = {}  # None: of the image, whose reader knows
        self.times: dict[str, Fraction] = {}  # then: how many, in channels of the image
        self.least: dict[str, int] = {}  # and at least

    def check(self, i: int, step: Step, last: bool) -> None:
        self.place = f"step {i}"
        if not isinstance(step.name, str) or not step.name:
            self.refuse(f"name is {step.name!r}: expected a text")
        self.place = f"step {i} ({step.name!r})"
        if step.name in self.codes:
            self.refuse("name: an earlier step has the same name")
        if (step.op == "encode") != (i == 0):
            self.refuse(f"op is {step.op!r}: a network has one 'encode', and begins with it")
        if last and step.code is not None:
            self.refuse(f"op is {step.op!r}: a network ends with a 'readout' or another head")
        for name in step.sources:
            if name not in self.codes:
                self.refuse(f"sources: there is no step {name!r} before it")
            if self.codes[name] is None:
                self.refuse(f"sources: {name!r} gives floats, which no step reads")
        kinds = {"encode": self.encode, "conv": self.conv, "readout": self.readout}
        kinds |= {"max_pool": self.pool, "sum_pool": self.pool, "mean_pool": self.mean_pool}
        kinds |= {"concat": self.concat, "move": self.move, "gate": self.gate}
        kinds |= {"map_readout": self.conv, "output": self.output}
        self.channels[step.name] = kinds[step.op](step)
        if (self.channels[step.name] or 1) > MOST_CHANNELS:
            self.refuse(f"it has {self.channels[step.name]} channels: at most {MOST_CHANNELS}")
        self.codes[step.name] = step.code

    def reads(self, step: Step, least: int, most: int | None = None) -> None:
        most = least if most is None else most
        if not least <= len(step.sources) <= most:
            wanted = f"{least}" if least == most else f"{least} or more"
            self.refuse(f"sources: it reads {len(step.sources)} steps, expected {wanted}")

    def check_info(
        self, step: ConvStep | GateStep | ReadoutStep, weights: Sequence[Tensor]
    ) -> None:
        """What the report will say of it."""
        bits = step.info.get("weight_bits")
        if bits is not None and any(bits != 8 * weight.element_size() for weight in weights):
            self.refuse(f"info.weight_bits is {bits}, but weight is {weights[0].dtype}")
        if step.info.get("rounding") not in (None, *ROUNDINGS):
            self.refuse(f"info.rounding is {step.info['rounding']!r}: expected one of {ROUNDINGS}")
        alpha, code = step.info.get("alpha"), step.code
        # Sums that are words with an offset reach from -alpha to alpha.
        spans = 2 if step.op == "conv" and code.zero and step.table is None else 1
        if alpha is not None and (code is None or code.step != spans * alpha * 2.0**-code.K):
            self.refuse(f"info.alpha is {alpha}, but code is {code}")

    def encode(self, step: Step) -> None:
        self.reads(step, 0)
        self.check_code(step.code)
        self.check_limit(step.code)
        if not 2.0**-126 <= step.code.step <= 2.0**126:
            self.refuse(f"code.step is {step.code.step}: float32 does not hold it and 1/step")
        self.times[step.name] = Fraction(1)

    def conv(self, step: ConvStep) -> int:
        if not 1 <= len(step.groups) <= 2:
            self.refuse(f"groups: there are {len(step.groups)}, a neuron has one or two")
        self.reads(step, len(step.groups) + (step.r is not None))
        if step.code is not None:  # it gives integers
            self.check_code(step.code)
            if step.code.kind == "graded":
                self.check_limit(step.code)
            elif (
                step.code.kind == "words"
                and step.table is None
                and step.code.zero not in (0, 2 ** (step.code.K - 1))
            ):
                self.refuse(f"code.zero is {step.code.zero}, which only shaped neurons have")
        channels = step.groups[0].out_channels
        for i, group in enumerate(step.groups):
            self.check_group(f"groups.{i}", step.sources[i], group, channels)
        self.check_info(step, [group.weight for group in step.groups])
        self.tensor("bias", step.bias, (torch.float32,), (channels,))
        if step.top is not None:
            self.check_top(step, channels)
        if step.table is not None:
            self.check_table(step, channels)
        self.check_fitted(step)
        if step.r is not None:
            self.tensor("r", step.r, (torch.float32,), (1,))
            residual = self.channels[step.sources[-1]]
            if residual != channels:
                self.refuse(
                    f"sources: the residual {step.sources[-1]!r} has {residual} channels, the "
                    f"step {channels}"
                )
        return channels

    def check_group(self, field: str, source: str, group: Synapses, channels: int) -> None:
        if group.out_channels != channels:
            self.refuse(
                f"{field}.weight is for {group.out_channels} channels, the first group's for "
                f"{channels}"
            )
        if self.channels[source] is None:  # the image, or a pool or move of it
            self.learn(source, group.in_channels)
        if self.channels[source] != group.in_channels:
            self.refuse(
                f"{field}.weight reads {group.in_channels} channels, {source!r} has "
                f"{self.channels[source]}"
            )
        self.tensor(f"{field}.m", group.m, (torch.float32,), (channels,))
        code = self.codes[source]
        if group.x_min > code.x_min or group.x_max < code.x_max:
            self.refuse(
                f"{field}.x_min, x_max are {group.x_min}, {group.x_max}: {source!r} gives "
                f"{code.x_min} to {code.x_max}"
            )
        if group.pad_code != code.zero:
            self.refuse(
                f"{field}.pad_code is {group.pad_code}: the code of zero of {source!r} is "
                f"{code.zero}"
            )

    def learn(self, source: str, channels: int) -> None:
        """The image has as many channels as its first reader says; those of its pools follow."""
        image = channels / self.times[source]
        for name, known in self.channels.items():
            if known is not None:
                continue
            own, least = image * self.times[name], self.least.get(name, 1)
            if own.denominator > 1 or own < least:
                self.refuse(
                    f"sources: {source!r} would have {channels} channels, and so {name!r} {own}: "
                    f"expected a whole number from {least} on"
                )
            self.channels[name] = int(own)

    def settle_image(self, image: str, input_size: tuple[int, ...] | None) -> None:
        """The channels of the image where every reader picks some of them."""
        if self.channels[image] is None:
            reached = [math.ceil(n / self.times[name]) for name, n in self.least.items()]
            given = [input_size[1]] if input_size is not None and len(input_size) == 4 else []
            self.place = "input_size" if given else "the image"
            self.learn(image, max(given or reached, default=1))

    def passes(self, step: Step, factor: Fraction = Fraction(1)) -> int | None:
        """Channels of what has so many times those of its source."""
        source = step.sources[0]
        if self.channels[source] is None:
            self.times[step.name] = factor * self.times[source]
            return None
        own = factor * self.channels[source]
        if own.denominator > 1:
            self.refuse(
                f"sources: {source!r} has {self.channels[source]} channels, which "
                f"{factor.denominator} does not divide"
            )
        return int(own)

    def pool(self, step: PoolStep) -> int | None:
        self.reads(step, 1)
        source, g = self.codes[step.sources[0]], step.geometry
        check_geometry(g, f"{self.place}: geometry")
        if g.groups != 1:
            self.refuse(f"geometry.groups is {g.groups}: a pool has 1")
        reach = [d * (k - 1) for d, k in zip(g.dilation, g.kernel, strict=True)]
        if max(g.padding[:2]) > reach[0] or max(g.padding[2:]) > reach[1]:
            self.refuse(
                f"geometry.padding is {g.padding}: windows of {g.kernel} with dilation "
                f"{g.dilation} would lie beside the map"
            )
        if any(
            d > 1 and pad for d, pad in zip(g.dilation, (g.padding[0], g.padding[2]), strict=True)
        ):
            self.refuse(
                f"geometry.padding is {g.padding}: windows with dilation {g.dilation} would lie "
                "beside small maps"
            )
        if not step.averages:
            if step.code != source:
                self.refuse(f"code: a max-pool gives what it reads, {source}")
            return self.passes(step)
        if g.dilation != (1, 1):
            self.refuse(f"geometry.dilation is {g.dilation}: an average-pool has (1, 1)")
        if step.code != source.pooled(g.kernel[0] * g.kernel[1]):
            self.refuse(
                f"code: it sums {g.kernel[0] * g.kernel[1]} codes of {step.sources[0]!r}, so it is "
                f"{source.pooled(g.kernel[0] * g.kernel[1])}"
            )
        if max(step.code.x_max, -step.code.x_min) > LARGEST:
            self.refuse(
                f"code.x_min, x_max are {step.code.x_min}, {step.code.x_max}: sums fit 16 bits"
            )
        if source.zero and any(g.padding):
            self.refuse(
                f"geometry.padding is {g.padding}, with the code 0: the code of zero of "
                f"{step.sources[0]!r} is {source.zero}"
            )
        return self.passes(step)

    def mean_pool(self, step: MeanPoolStep) -> int | None:
        self.reads(step, 1)
        self.check_code(step.code)
        self.check_limit(step.code)
        step.windows.check(f"{self.place}: windows")
        source = step.sources[0]
        if step.reads != self.codes[source]:
            self.refuse(f"reads is {step.reads}: {source!r} gives {self.codes[source]}")
        ratio = torch.tensor(step.reads.step / step.code.step, dtype=torch.float32)
        if not torch.isfinite(ratio):
            self.refuse(
                f"code.step is {step.code.step}, {source!r} has {step.reads.step}: float32 does "
                "not hold their ratio"
            )
        return self.passes(step)

    def concat(self, step: ConcatStep) -> int:
        self.reads(step, 1, len(step.sources))
        for name in step.sources:
            if self.channels[name] is None and not step.runs:
                self.refuse(f"sources: {name!r} is the image, whose channels nothing tells")
            if self.codes[name] != step.code:
                self.refuse(
                    f"code: {name!r} has {self.codes[name]}, what is concatenated has one code"
                )
        if not step.runs:
            return sum(self.channels[name] for name in step.sources)
        return self.check_runs(step)

    def check_runs(self, step: ConcatStep) -> int:
        """Runs of channels that exist; their number."""
        unread = set(range(len(step.sources)))
        for i, first, count in step.runs:
            if not 0 <= i < len(step.sources):
                self.refuse(f"runs: there is no source {i}, it reads {len(step.sources)}")
            name, end = step.sources[i], first + count
            there = self.channels[name]
            if first < 0 or count < 1 or end > (MOST_CHANNELS if there is None else there):
                self.refuse(
                    f"runs: {count} channels from {first} on are none of {name!r}, which has "
                    f"{'at most ' * (there is None)}{there or MOST_CHANNELS}"
                )
            if there is None:
                self.least[name] = max(self.least.get(name, 1), end)
            unread.discard(i)
        for i in unread:
            self.refuse(f"runs: none is of source {i}, {step.sources[i]!r}: leave it out")
        return sum(count for _, _, count in step.runs)

    def move(self, step: MoveStep) -> int | None:
        self.reads(step, 2 if step.move.kind == "expand" else 1)
        step.move.check(f"{self.place}: move")
        source = self.codes[step.sources[0]]
        if step.code != source:
            self.refuse(f"code: a move gives what it reads, {source}")
        return self.passes(step, step.move.channel_factor())

    def gate(self, step: GateStep) -> int:
        self.reads(step, 2)
        self.check_code(step.code)
        if step.code.kind == "graded":
            self.check_limit(step.code)
        elif step.code.kind == "fitted":
            self.refuse("code.kind is 'fitted': the neurons of a gate are not")
        self.check_info(step, [])
        channels = step.m.numel()
        for source, zero in zip(step.sources, step.zeros, strict=True):
            if self.channels[source] is None:  # the image, or a pool or move of it
                self.learn(source, channels)
            code = self.codes[source]
            if zero != code.zero:
                self.refuse(f"zeros are {step.zeros}: that of {source!r} is {code.zero}")
            # No code is further from its zero than 32,767, so products fit 32 bits.
        own, other = (self.channels[source] for source in step.sources)
        if other not in (own, 1):
            self.refuse(f"sources: they have {own} and {other} channels, expected as many or one")
        for name, tensor in (("m", step.m), ("bias", step.bias)):
            self.tensor(name, tensor, (torch.float32,), (own,))
            if not bool(torch.isfinite(tensor).all()):
                self.refuse(f"{name} holds what is no finite number")
        return own

    def output(self, step: OutputStep) -> int:
        self.reads(step, 1)
        source = step.sources[0]
        if step.reads != self.codes[source]:
            self.refuse(f"reads: {source!r} gives {self.codes[source]}")
        if self.channels[source] is None:
            self.refuse(f"sources: no layer reads the image before {source!r} is shown")
        if step.scale is not None:
            self.tensor("scale", step.scale, (torch.float64,), (self.channels[source],))
        return self.channels[source]

    def readout(self, step: ReadoutStep) -> int:
        self.reads(step, 1)
        source = step.sources[0]
        if self.channels[source] is None:
            self.refuse(f"sources: no layer reads the image before {source!r} is read out")
        weight, read = step.weight, self.channels[source]
        if weight.dim() != 2 or not weight.numel():
            self.refuse(f"weight has shape {tuple(weight.shape)}: expected [logits, features]")
        logits, features = weight.shape
        self.tensor("weight", weight, (torch.int8, torch.int16), (logits, features))
        self.check_info(step, [weight])
        self.tensor("scale", step.scale, (torch.float64,), (logits,))
        self.tensor("bias", step.bias, (torch.float32,), (logits,))
        if features != read if step.pool else features % read:
            self.refuse(
                f"weight reads {features} features, {source!r} has {read} channels"
                + ("" if step.pool else ", each of as many features as there are pixels")
            )
        code, summed = self.codes[source], MOST_SUMMED if step.pool else 1
        weights = 2 ** (8 * weight.element_size() - 1) * features
        if weights * summed * max(code.x_max, -code.x_min) >= 2**63:
            self.refuse(f"weight reads {features} features, whose sum may not fit 64 bits")
        return logits

    def check_sizes(
        self,
        steps: Sequence[Step],
        input_size: tuple[int, ...] | None,
        fixed_size: tuple[int, int] | None,
    ) -> None:
        """The sizes of images that are known: every map has one, and those that meet agree."""
        self.place = "input_size"
        sizes = []
        if input_size is not None:
            if len(input_size) != 4 or not all(0 <= n < 2**31 for n in input_size):
                self.refuse(f"it is {input_size}: expected (N, C, H, W)")
            if input_size[1] != self.channels[steps[0].name]:
                self.refuse(
                    f"it is {input_size}: the network reads {self.channels[steps[0].name]} channels"
                )
            sizes.append(tuple(input_size[2:]))
        if fixed_size is not None:
            self.place = "fixed_size"
            if len(fixed_size) != 2 or not all(1 <= n < 2**31 for n in fixed_size):
                self.refuse(f"it is {fixed_size}: expected (H, W)")
            if sizes and sizes[0] != tuple(fixed_size):
                self.refuse(f"it is {fixed_size}, but input_size {input_size}")
            sizes.append(tuple(fixed_size))
        for size in sizes:
            self.check_maps(steps, size)

    def check_maps(self, steps: Sequence[Step], size: tuple[int, int]) -> None:
        self.place = f"images of {size[0]}x{size[1]}"
        try:
            maps = map_sizes(steps, *size)
        except ValueError as error:
            self.refuse(str(error))
        for i, step in enumerate(steps):
            self.place = f"step {i} ({step.name!r}), for images of {size[0]}x{size[1]}"
            met = step.meeting([maps[name] for name in step.sources])
            if len(met) > 1:
                self.refuse(f"sources: maps of {sorted(met)} pixels meet in it")
            if isinstance(step, MeanPoolStep):
                try:
                    step.windows.check_sums(*maps[step.sources[0]], step.reads)
                except ValueError as error:
                    self.refuse(str(error))
            if step.op == "readout":
                rows, cols = maps[step.sources[0]]
                read = rows * cols * self.channels[step.sources[0]]
                if not step.pool and read != step.weight.shape[1]:
                    self.refuse(f"weight reads {step.weight.shape[1]} features of {read}")
                if step.pool and rows * cols > MOST_SUMMED:
                    self.refuse(f"it would sum {rows * cols} pixels: at most {MOST_SUMMED}")
