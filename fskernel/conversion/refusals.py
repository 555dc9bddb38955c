"""What a layer cannot become: errors that name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fskernel.errors import ConversionError
from fskernel.graph import Layer


@contextmanager
def naming(layer: Layer) -> Iterator[None]:
    """Has what is refused inside name the layer."""
    try:
        yield
    except ValueError as error:
        reason, _, cure = str(error).partition(": ")
        raise ConversionError(layer.name, reason, cure[:1].upper() + cure[1:]) from error


def unmeasured(layer: Layer) -> ConversionError:
    """The error of a signed layer without calibration."""
    return ConversionError(
        layer.name,
        "its values are signed (no ReLU follows), so their range has to be measured",
        "Pass calibration images, or bottleneck='spiking' and alpha as a number",
    )
