"""What is under way between layers: one time step's spikes of a layer, and delay lines for them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Plane(NamedTuple):
    """What a step of the network sends in one time step.

    Attributes:
        image: to which it belongs; nobody computes with it, it is there to be checked.
        values: int16 [1, H, W, C]: spikes 0 or 1, sums of spikes, or graded values.
    """

    image: int
    values: Tensor


class Train(NamedTuple):
    """What a step of the network sends for an image: planes, the most significant one first.

    Attributes:
        steps: how many, one a time step; the last one is worth 1, each before twice the next.
        low, high: the range of the integers in a plane; (0, 1) are spikes.
    """

    steps: int
    low: int
    high: int

    @property
    def binary(self) -> bool:
        """Whether a plane is of spikes, so that trains can be compared from the first step on."""
        return (self.low, self.high) == (0, 1)

    @property
    def bits(self) -> int:
        """Of one integer of a plane."""
        return (self.high - self.low).bit_length()


class Line:
    """A delay line behind one step of the network, with a tap for each of its readers."""

    def __init__(self, train: Train):
        self.train = train
        self._longest = 0
        self._sent: dict[int, Plane] = {}

    def reach(self, delay: int) -> None:
        """Keeps planes for that many time steps, for a tap."""
        self._longest = max(self._longest, delay)

    def send(self, t: int, plane: Plane | None) -> None:
        """Takes what is sent at time step t, and drops what has left the line."""
        if plane is not None:
            self._sent[t] = plane
        self._sent.pop(t - self._longest - 1, None)

    def at(self, t: int) -> Plane | None:
        """What was sent at time step t."""
        return self._sent.get(t)

    def held(self, t: int, delay: int | None = None) -> int:
        """Bits of the first image that wait at the end of time step t.

        Args:
            delay: of a tap; None: of the longest, which holds what the others wait for.
        """
        delay = self._longest if delay is None else delay
        waiting = (p.values.numel() for s, p in self._sent.items() if s > t - delay and not p.image)
        return sum(waiting) * self.train.bits


class Tap:
    """Where a step of the network reads another: what was sent `delay` time steps ago."""

    def __init__(self, source: str, line: Line, delay: int):
        self.source, self.train, self.delay = source, line.train, delay
        self._line = line
        line.reach(delay)

    def arrival(self, t: int) -> Plane | None:
        """What arrives at time step t."""
        return self._line.at(t - self.delay)

    def held(self, t: int) -> int:
        """Bits of the first image that wait for it at the end of time step t."""
        return self._line.held(t, self.delay)


class Held:
    """The bits that wait in delay lines while an endless row of images comes through.

    All images wait alike, each an interval after the one before. So what waits at once is what
    waits of one image, added up over all time steps that are whole intervals apart.
    """

    def __init__(self, interval: int):
        self._bits = [0] * interval

    def add(self, t: int, bits: int) -> None:
        """Bits of one image that wait at the end of time step t."""
        self._bits[t % len(self._bits)] += bits

    @property
    def peak(self) -> int:
        """The most at once."""
        return max(self._bits)
