"""Windows of an average-pool, read off the definition of torch's pools, one position at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fskernel.codes.windows import Windows


class Taps(NamedTuple):
    """The inputs that one output sums along an axis, and its share of the divisor."""

    inside: list[int]
    divisor: int


def taps_of(windows: Windows, size: int, axis: int) -> list[Taps]:
    """Of all outputs along an axis of a map; axis 0 are its rows."""
    if windows.kind == "adaptive":
        outputs = windows.output[axis] or size
        bounds = [(o * size // outputs, -(-(o + 1) * size // outputs)) for o in range(outputs)]
        return [Taps(list(range(*bound)), bound[1] - bound[0]) for bound in bounds]
    g = windows.geometry
    kernel, stride = g.kernel[axis], g.stride[axis]
    before, after = g.padding[2 * axis : 2 * axis + 2]
    whole = before + size + after
    found: list[Taps] = []
    first = 0  # of the window, counted from the beginning of the padding
    while first + kernel <= whole or (windows.ceil_mode and _reaches(first, windows, axis, size)):
        padded = range(first, min(first + kernel, whole))
        inside = [i - before for i in padded if before <= i < before + size]
        found.append(Taps(inside, len(padded if windows.include_pad else inside)))
        first += stride
    return found


def _reaches(first: int, windows: Windows, axis: int, size: int) -> bool:
    """Whether a window that reaches beyond the padding still counts, with ceil_mode.

    It has to begin before the padding behind the map, and the window in front of it, if there is
    one, must not have reached the end.
    """
    g = windows.geometry
    before, after = g.padding[2 * axis : 2 * axis + 2]
    end_before = first - g.stride[axis] + g.kernel[axis]
    return first < before + size and end_before < before + size + after
