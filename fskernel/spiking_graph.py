"""The float graph with neurons that emit what their spike words stand for; no integer weights.

What `alphas.py`, `correct.py` and `weight_bits.py` measure with, on calibration pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fskernel.graph import Graph, Layer, affine, pool, readout, relu
from fskernel.pictures import Spool

JUDGED = 32  # pictures whose logits judge a choice


@dataclass
class Unit:
    """How the neurons of the network round: K of a layer, and "nearest" or "floor"."""

    K: Callable[[str], int]
    rounding: str

    def top(self, name: str) -> float:
        """Alpha over the value of its largest word."""
        words = 2.0 ** self.K(name)
        return words / (words - 1)

    def emit(self, layer: Layer, v: Tensor, alpha: Tensor | float) -> Tensor:
        """What the spike words of membranes v [N, C, H, W] stand for; alpha is a number or [C]."""
        K = self.K(layer.name)
        step = torch.as_tensor(alpha, dtype=v.dtype) * 2.0**-K
        step = step[:, None, None] if step.dim() else step
        offset = 0.5 if self.rounding == "nearest" else 0.0
        return torch.floor(v / step + offset).clamp_(0, 2.0**K - 1).mul_(step)


def singles(pictures: Spool) -> Iterator[Tensor]:
    """The pictures one by one, [1, C, H, W]."""
    for batch in pictures:
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
    return new[graph.layers[-1].name]


def evaluate(layer: Layer, of: Callable[[str], Tensor]) -> Tensor:
    """What a layer makes of its inputs; of neurons the membranes, without the threshold."""
    if layer.kind in ("max_pool", "avg_pool"):
        return pool(layer, of(layer.source))
    if layer.kind == "concat":
        return torch.cat([of(name) for name in layer.sources], 1)
    if layer.kind == "readout":
        return readout(layer, of(layer.groups[0].source))
    y = affine(layer.groups[0], of(layer.groups[0].source)) + layer.bias[:, None, None]
    for group in layer.groups[1:]:
        y = y + affine(group, of(group.source))
    return y if layer.residual is None else y + of(layer.residual)


@contextmanager
def progress_bar(title: str, total: int, shown: bool) -> Iterator[Callable[[str], None]]:
    """A bar that is advanced by layers, or nothing."""
    if not shown:
        yield lambda name: None
        return
    try:
        from rich.progress import Progress
    except ImportError as error:
        raise ImportError("progress=True needs rich: pip install rich") from error
    with Progress() as bar:
        task = bar.add_task(title, total=total)
        yield lambda name: bar.advance(task)
