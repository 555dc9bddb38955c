"""What the neurons of a layer compute, as the tables of shaped neurons need it."""

from __future__ import annotations

from fskernel.codes.shape import Functions
from fskernel.graph import Layer, relu


def low_of(layer: Layer) -> float:
    """What a layer of neurons gives at least."""
    return 0.0 if layer.activation is None else layer.activation.low


def functions_of(layer: Layer) -> Functions:
    """What its neurons compute, of float64 [M]: one function, [1, M], or one of each channel."""
    if layer.activation is None or not layer.activation.per_channel:
        return lambda x: relu(layer, x)[None]
    channels = len(layer.bias)
    return lambda x: relu(layer, x[:, None].expand(-1, channels)).T
