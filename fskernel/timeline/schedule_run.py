"""What a simulation of a network in time found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fskernel.timeline.units import Window


class Edge(NamedTuple):
    """The way from one step of a network to a reader of it.

    Attributes:
        source, reader: names of the two.
        delay: time steps for which everything sent on this way waits in a delay line.
        peak_bits: the most bits that wait there at once: one for a spike or its absence, more for
            sums and graded values. As for `ScheduleRun`, of an endless row of images.
    """

    source: str
    reader: str
    delay: int
    peak_bits: int


@dataclass
class ScheduleRun:
    """A network that was run one time step after the other, by `fskernel.schedule`.

    Time steps are global: image i enters at step i * interval_steps, and the first layer fires from
    the step behind that on.

    Attributes:
        logits: float32 [N, classes].
        words: what every step of the network but the readout sent, put together again: integers
            [N, H, W, C] by its name, of a layer of neurons its spike words.
        windows: by the name, for each image the time steps `first` (it began to listen), `fires`
            (the first one in which its neurons could fire; None without neurons) and `last`.
        spikes: of every layer of neurons, int64 [spikes, 3]: time step, image, neuron (counted in
            the order of channel, row, column). `fskernel.plots.pipeline_raster` draws them.
        neurons: of each of these layers.
        edges: who reads whom, with the delay and what it holds; see `Edge`.
        interval_steps: time steps between two images.
        latency_steps: from an image's entry to the end of the readout's own time steps: the
            readout is counted as a layer of K steps, as in the paper.
        complete_steps: from an image's entry to the last spike that reaches the readout, with
            which its logits are complete.
        least_interval: the longest time for which any state belonged to one image. Images cannot
            follow each other faster; where K differs between layers, it may be less than 2K.
        peak_bits: the most bits that all delay lines hold at once, when as many images are on
            their way as there can be. What several readers wait for is held once.
    """

    logits: Tensor
    words: dict[str, Tensor]
    windows: dict[str, list[Window]]
    spikes: dict[str, Tensor]
    neurons: dict[str, int]
    edges: list[Edge]
    interval_steps: int
    latency_steps: int
    complete_steps: int
    least_interval: int
    peak_bits: int

    def __str__(self) -> str:
        """The figures, and the delays that are not 0."""
        held = [
            f"  {edge.source} -> {edge.reader}: {edge.delay} steps, at most {edge.peak_bits:,} bits"
            for edge in self.edges
            if edge.delay
        ]
        count = "one image" if len(self.logits) == 1 else f"{len(self.logits)} images"
        images = f"{count}, one every {self.interval_steps} time steps"
        return "\n".join(
            [
                f"{images} (at least {self.least_interval})",
                f"logits complete after {self.complete_steps} steps, latency {self.latency_steps}",
                f"delay lines hold at most {self.peak_bits:,} bits at once" + ":" * bool(held),
                *held,
            ]
        )
