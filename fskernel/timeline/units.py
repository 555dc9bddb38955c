"""What each step of a network does in one time step, with one state for all its images.

A unit has a clock of its own, which starts anew for every image: it listens for so many time steps,
then it may fire. From this clock alone it knows what a spike that arrives is worth: in the last
step of listening 1, in the one before 2, and so on. Trains of fewer steps begin later, so that all
that a unit reads ends in the same time step. A value that is no spike arrives whole, in that step.

The state of a unit (sums of currents while it listens, membranes while it fires) belongs to one
image at a time; a second one that needs it is an error, and so is what arrives at another time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fskernel.codes.exact_float import fma, to_float32
from fskernel.codes.neuron import graded, word_dtype
from fskernel.errors import ScheduleError
from fskernel.network.steps import (
    ConcatStep,
    ConvStep,
    EncodeStep,
    GateStep,
    MeanPoolStep,
    MoveStep,
    PoolStep,
    ReadoutStep,
    Step,
)
from fskernel.network.synapses import Synapses
from fskernel.reference.gates import at_once
from fskernel.reference.maps import current, pad_map, window_view
from fskernel.reference.oracles import collapsed, literal, membrane
from fskernel.timeline.delay_lines import Plane, Tap, Train


class Window(NamedTuple):
    """Time steps in which a step of the network was busy with an image.

    Attributes:
        first: the first one, in which it began to listen.
        fires: the first one in which it could fire; None for what has no neurons.
        last: the last one, after which it was free for the next image.
    """

    first: int
    fires: int | None
    last: int


class Unit:
    """Common to all: the clock, the windows, and who owns the state.

    Args:
        step: of the network. taps: on what it hears, in its order.
        first: the time step in which it begins to listen to the first image.
        images: how many come. interval: time steps between them.
        size: rows and columns of what it gives.

    Attributes:
        train: what it sends for an image, or None.
        windows: of each image, as they happened.
        sent: what it sent for each image, put together again: integers [1, H, W, C].
    """

    train: Train | None = None

    def __init__(
        self,
        step: Step,
        taps: list[Tap],
        first: int,
        images: int,
        interval: int,
        size: tuple[int, int],
    ):
        self.step, self.taps, self.images, self.interval = step, taps, images, interval
        self.first, self.size = first, size
        self.listens = listens(tap.train for tap in taps)
        self.windows: list[Window] = []
        self.sent: list[Tensor] = []
        self.busy = self.listens + self.own_steps()
        self._image: int | None = None  # whose the state is
        self._began = 0
        self._code: Tensor | None = None  # what was sent for it so far

    @property
    def last_step(self) -> int:
        """The time step in which it is done with the last image."""
        return self.first + (self.images - 1) * self.interval + self.busy - 1

    def own_steps(self) -> int:
        """Time steps for which it needs its state after it has listened."""
        return 0

    def begin(self) -> None:
        """Makes the state ready for an image."""

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        """Takes what arrives in one time step, None where nothing does yet."""

    def send(self, phase: int) -> Tensor | None:
        """What it sends in a time step of its own clock, which counts from 0."""
        raise NotImplementedError

    def advance(self, t: int) -> Plane | None:
        """One time step; what it sends, whatever its readers make of it.

        Raises:
            ScheduleError: a second image needs the state, or something arrives or stays away
                against what the unit's own clock says.
        """
        self._admit(t)
        image, phase = self._image, t - self._began
        planes = [self._arrived(tap, t, phase) for tap in self.taps]
        if image is None:
            return None
        if phase < self.listens:
            self.hear(planes, 2 ** (self.listens - 1 - phase))
        values = self.send(phase)
        if values is not None:
            before = 0 if self._code is None else 2 * self._code
            self._code = before + values.to(torch.int32)
        if phase == self.busy - 1:
            self._release(t)
        return None if values is None else Plane(image, values.to(torch.int16))

    def _admit(self, t: int) -> None:
        """Gives the state to the image that is due."""
        image, rest = divmod(t - self.first, self.interval)
        if rest or not 0 <= image < self.images:
            return
        if self._image is not None:
            last = self._began + self.busy - 1
            raise ScheduleError(
                self.step.name,
                image,
                t,
                f"it has to listen, but its state belongs to image {self._image} up to step {last}",
            )
        self._image, self._began, self._code = image, t, None
        self.begin()

    def _arrived(self, tap: Tap, t: int, phase: int) -> Tensor | None:
        """What a tap gives, if that is what the clock expects."""
        plane = tap.arrival(t)
        due = self._image is not None and self.listens - tap.train.steps <= phase < self.listens
        if plane is None and not due:
            return None
        if plane is None:
            raise ScheduleError(
                self.step.name, self._image, t, f"it listens to '{tap.source}', which sends nothing"
            )
        if not due or plane.image != self._image:
            to = "" if self._image is None else f" while it is busy with image {self._image}"
            raise ScheduleError(
                self.step.name,
                plane.image,
                t,
                f"what '{tap.source}' sent arrives outside its window{to}",
            )
        return plane.values

    def _release(self, t: int) -> None:
        fires = self._began + self.listens if self.step.spiking else None
        self.windows.append(Window(self._began, fires, t))
        if self._code is not None:
            self.sent.append(self._code.to(word_dtype(self.step.code.K)))
        self._image = None


def listens(trains) -> int:
    """Time steps for which a unit listens: the longest train that it reads."""
    return max((train.steps for train in trains), default=1)


class Entry(Unit):
    """The image, which enters as graded values, whole, in one time step."""

    def __init__(self, step: EncodeStep, taps, first, images, interval, size, x: Tensor):
        super().__init__(step, taps, first, images, interval, size)
        self._codes = step.run([x], collapsed)[0]
        self.train = Train(1, step.code.x_min, step.code.x_max)

    def send(self, phase: int) -> Tensor:
        return self._codes[self._image : self._image + 1]


class Synaptic(Unit):
    """A layer while it listens: a sum of currents for each synapse group, and for the residual."""

    step: ConvStep

    def begin(self) -> None:
        self._sums: list = [None] * len(self.taps)

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        groups = self.step.groups
        for i, plane in enumerate(planes):
            if plane is None:
                continue
            arrived, known = plane.to(torch.int64), self._sums[i]
            if i < len(groups):
                known = _of_padding(plane, groups[i]) if known is None else known
                padded = pad_map(plane, groups[i].geometry, 0)
                arrived = current(padded, groups[i].weight, groups[i].geometry)
            self._sums[i] = worth * arrived + (0 if known is None else known)

    def potential(self) -> Tensor:
        """The membrane that all that was heard gives."""
        step, n = self.step, len(self.step.groups)
        sums = ((acc, group.m) for acc, group in zip(self._sums, step.groups, strict=False))
        residual = None if step.r is None else (self._sums[n], step.r)
        v = membrane(sums, step.bias, residual)
        if step.table is not None:
            v = literal.shaped(v, step.table)
        return v if step.top is None else torch.minimum(v, step.top)


def _of_padding(plane: Tensor, synapses: Synapses) -> Tensor | int:
    """The current of padding, whose code of zero is no spike: it flows once for an image."""
    if not synapses.pad_code or not any(synapses.geometry.padding):
        return 0
    around = pad_map(torch.zeros_like(plane), synapses.geometry, synapses.pad_code)
    return current(around, synapses.weight, synapses.geometry)


class Gate(Unit):
    """A gate while it listens: what two trains stand for, which it multiplies when it has both."""

    step: GateStep

    def begin(self) -> None:
        self._values: list[Tensor | int] = [0, 0]

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        for i, plane in enumerate(planes):
            if plane is not None:
                self._values[i] = self._values[i] + worth * plane.to(torch.int64)

    def potential(self) -> Tensor:
        """The membrane that the product gives."""
        step = self.step
        return membrane([(at_once(*self._values, *step.zeros), step.m)], step.bias, None)


class Firing(Unit):
    """FS neurons: K time steps of firing behind those of listening.

    Attributes:
        spikes: of every time step with any, int64 [spikes, 3]: step, image, neuron (in the order of
            channel, row, column).
        count: neurons.
    """

    step: ConvStep | GateStep

    def __init__(self, step: ConvStep | GateStep, *args):
        super().__init__(step, *args)
        self.train = Train(step.code.K, 0, 1)
        self.spikes: list[Tensor] = []
        self.count = 0

    def own_steps(self) -> int:
        return self.step.code.K

    def potential(self) -> Tensor:
        """The membranes that all that was heard gives."""
        raise NotImplementedError

    def send(self, phase: int) -> Tensor | None:
        step = phase - self.listens + 1  # of the K steps
        if step < 1:
            return None
        if step == 1:
            self._v = self.potential()
            self.begin()  # what was heard has become membranes
        threshold = 2.0 ** (self.step.code.K - step)
        fires = self._v >= threshold
        self._v = torch.where(fires, self._v - threshold, self._v)
        self._record(self._began + phase, fires)
        return fires.to(torch.int16)

    def _record(self, t: int, fires: Tensor) -> None:
        neurons = fires.permute(0, 3, 1, 2).flatten().nonzero().flatten()
        rows = neurons.new_empty((len(neurons), 3))
        rows[:, 0], rows[:, 1], rows[:, 2] = t, self._image, neurons
        self.spikes.append(rows)
        self.count = fires.numel()


class Graded(Unit):
    """What has no neurons: its graded values are there as soon as it has heard everything."""

    step: ConvStep | GateStep

    def __init__(self, step: ConvStep | GateStep, *args):
        super().__init__(step, *args)
        self.train = Train(1, step.code.x_min, step.code.x_max)

    def potential(self) -> Tensor:
        """As of what fires."""
        raise NotImplementedError

    def send(self, phase: int) -> Tensor | None:
        return graded(self.potential(), self.step.limit) if phase == self.listens - 1 else None


class Neurons(Synaptic, Firing):
    """A layer of FS neurons."""


class Bottleneck(Synaptic, Graded):
    """A layer without neurons."""


class GateNeurons(Gate, Firing):
    """A gate with FS neurons behind it."""


class GradedGate(Gate, Graded):
    """A gate without neurons."""


class MaxPool(Unit):
    """A max-pool of spikes, step by step: what has lost against another spike no longer counts.

    Trains come with the most significant step first, so the larger of two is known at the first
    step in which they differ. The state is a bit for each input of a window: whether it may still
    be the largest.
    """

    step: PoolStep

    def __init__(self, step: PoolStep, *args):
        super().__init__(step, *args)
        self.train = self.taps[0].train

    def begin(self) -> None:
        self._leads: Tensor | None = None

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        geometry = self.step.geometry
        spikes = window_view(pad_map(planes[0], geometry, 0), geometry).bool()
        if self._leads is None:  # padding is never the largest
            self._leads = window_view(pad_map(torch.ones_like(planes[0]), geometry, 0), geometry)
            self._leads = self._leads.bool()
        fires = self._leads & spikes
        self._largest = fires.any(-1).any(-1)
        self._leads = torch.where(self._largest[..., None, None], fires, self._leads)

    def send(self, phase: int) -> Tensor:
        return self._largest.to(torch.int16)


class WholePool(Unit):
    """A max-pool of what is no spike, or rounded means: it sends when it has the whole values."""

    step: PoolStep | MeanPoolStep

    def __init__(self, step: PoolStep | MeanPoolStep, *args):
        super().__init__(step, *args)
        self.train = Train(1, step.code.x_min, step.code.x_max)

    def begin(self) -> None:
        self._values: Tensor | int = 0

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        self._values = self._values + worth * planes[0]

    def send(self, phase: int) -> Tensor | None:
        return self.step.run([self._values], collapsed)[0] if phase == self.listens - 1 else None


class Passing(Unit):
    """What is the same in every time step: sums of an average-pool, maps side by side."""

    def __init__(self, step: Step, *args):
        super().__init__(step, *args)
        one = self.taps[0].train
        n = step.geometry.kernel[0] * step.geometry.kernel[1] if step.averages else 1
        self.train = Train(one.steps, n * one.low, n * one.high)

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        self._passed = self.step.run(planes, collapsed)[0]

    def send(self, phase: int) -> Tensor:
        return self._passed


class Moving(Unit):
    """What is moved, plane by plane; padding has the code of zero in place of spikes."""

    step: MoveStep

    def __init__(self, step: MoveStep, *args):
        super().__init__(step, *args)
        self.train = self.taps[0].train

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        # Of words, or of sums of so many: what the word of zero has in this plane.
        summed = max(self.step.code.x_max // (2**self.train.steps - 1), 1)
        zero = summed * (self.step.code.zero // summed // worth & 1)
        self._moved = self.step.moved(planes[0], self.size, zero)

    def send(self, phase: int) -> Tensor:
        return self._moved


class Logits(Unit):
    """The readout: it listens, then its slot of time steps is there for the logits to be read.

    Attributes:
        logits: float32 [1, classes] of each image.
        complete: the time step in which they were complete.
    """

    step: ReadoutStep

    def __init__(self, step: ReadoutStep, taps, first, images, interval, size, slot: int):
        self._slot = slot
        super().__init__(step, taps, first, images, interval, size)
        self.logits: list[Tensor] = []
        self.complete: list[int] = []

    def own_steps(self) -> int:
        return self._slot

    def begin(self) -> None:
        self._sum: Tensor | int = 0

    def hear(self, planes: list[Tensor | None], worth: int) -> None:
        plane = planes[0].to(torch.int64)
        self._positions = plane.shape[1] * plane.shape[2]
        features = plane.sum(dim=(1, 2)) if self.step.pool else plane.flatten(1)
        self._sum = self._sum + worth * (features @ self.step.weight.to(torch.int64).T)

    def send(self, phase: int) -> None:
        if phase == self.listens - 1:
            m = self.step.multiplier(self._positions)
            self.logits.append(fma(to_float32(self._sum), m, self.step.bias))
            self.complete.append(self._began + phase)


def unit_of(step: Step, taps: list[Tap], *args) -> Unit:
    """The unit of a step between the image and the readout.

    Raises:
        NotImplementedError: nobody has written yet what such a step does in time.
    """
    one, *rest = (tap.train for tap in taps)
    if isinstance(step, ConvStep):
        kind = Neurons if step.spiking else Bottleneck
    elif isinstance(step, GateStep):
        kind = GateNeurons if step.spiking else GradedGate
    elif isinstance(step, MeanPoolStep):
        kind = WholePool
    elif isinstance(step, MoveStep):
        kind = Moving
    elif isinstance(step, PoolStep) and not step.averages:
        kind = MaxPool if one.binary else WholePool
    elif isinstance(step, (PoolStep, ConcatStep)) and all(train == one for train in rest):
        kind = Passing
    else:
        raise NotImplementedError(
            f"'{step.name}' is a step of kind {step.op!r} that reads {[one, *rest]}: what it does "
            "in a single time step is not known to fskernel.schedule"
        )
    return kind(step, taps, *args)
