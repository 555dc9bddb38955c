"""The float graph with neurons that emit what their spike words stand for; no integer weights.

What `by_logits.py`, `correct.py` and `weight_bits.py` measure with, on calibration images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fskernel.calibration.fitted_trains import Trains
from fskernel.calibration.ranges import Range, rounded
from fskernel.calibration.spool import Spool
from fskernel.graph import Graph, Layer, evaluate, flattened, relu

JUDGED = 32  # images whose logits judge a choice


@dataclass
class Unit:
    """How the neurons of the network round: K of a layer, and "nearest" or "floor"."""

    K: Callable[[str], int]
    rounding: str

    def top(self, name: str) -> float:
        """Alpha over the value of its largest word."""
        words = 2.0 ** self.K(name)
        return words / (words - 1)

    def emit(self, layer: Layer, v: Tensor, alpha: Tensor | float | Range | Trains) -> Tensor:
        """What the spikes of membranes v [N, C, H, W] stand for.

        Args:
            alpha: as of `near`; of fitted neurons what they say, whose rounding is their own.
        """
        if isinstance(alpha, Trains):
            return alpha.values(v)
        # The words of a ReLU begin at 0 and end at alpha anyhow.
        return self.near(layer, relu(layer, v) if isinstance(alpha, Range) else v, alpha)

    def near(self, layer: Layer, y: Tensor, alpha: Tensor | float | Range) -> Tensor:
        """What the spike words for a layer's values y [N, C, H, W] stand for.

        Args:
            alpha: a number or [C]; a range where the layer, or one that it shares a step with,
                computes another function than a ReLU.
        """
        K = self.K(layer.name)
        if isinstance(alpha, Range):
            return alpha.rounded(y, K, self.rounding)
        step = torch.as_tensor(alpha, dtype=y.dtype) * 2.0**-K
        return rounded(y, step[:, None, None] if step.dim() else step, K, self.rounding)


def singles(images: Spool) -> Iterator[Tensor]:
    """The images one by one, [1, C, H, W]."""
    for batch in images:
        yield from batch.split(1)


def resume(graph: Graph, values: dict[str, Tensor], name: str, y: Tensor) -> Tensor:
    """The logits when layer `name` gives y and all that does not depend on it gives `values`."""
    new = {name: y}
    started = False
    for layer in graph.layers:
        if not started:
            started = layer.name == name
            continue
        if not any(source in new for source in layer.inputs()):
            continue
        new[layer.name] = evaluate(layer, lambda source: new.get(source, values.get(source)))
        if layer.kind == "neuron":
            new[layer.name] = relu(layer, new[layer.name])
    return flattened([new.get(h.name, values.get(h.name)) for h in graph.heads])
