"""The work of a network's layers, from their shapes."""

from __future__ import annotations

from typing import NamedTuple

from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import word_dtype
from fskernel.kernels.byte_maps import Halo, kept_maps, map_bytes
from fskernel.network.network import FSNetwork
from fskernel.network.stats import map_sizes


class ConvShape(NamedTuple):
    """One synapse group of a layer, for one image.

    Attributes:
        layer: the step's name; group: 0 or 1.
        size, out: rows and columns of the input and of the output.
        channels, outputs: of the input and of the output; groups: of the convolution.
        signed: input codes may be negative; x_bits: their bits, the sign included.
        weight_bytes: of one weight.
        residual: an identity is added, of residual_bits a code (0: none).
        K: time steps of the neurons, 0: graded output.
        x_kept: on a GPU, the layer before leaves x as the byte map that this one reads.
        halo_bytes: of the map that this layer leaves (group 0), its halo.
    """

    layer: str
    group: int
    size: tuple[int, int]
    out: tuple[int, int]
    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    signed: bool
    x_bits: int
    weight_bytes: int
    residual_bits: int
    K: int
    x_kept: bool = False
    halo_bytes: int = 0

    @property
    def ints(self) -> list[int]:
        """The geometry as the library takes it, but for padding, which decides no kernel."""
        return Geometry(self.kernel, self.stride, groups=self.groups).as_ints()

    @property
    def macs(self) -> int:
        """Multiply-accumulates that a kernel executes, with those that meet padding or zeros.

        And with those of groups that only pass channels on, which are none of the dense network's
        (`fskernel.energy.dense_macs`).
        """
        taps = self.kernel[0] * self.kernel[1]
        return self.out[0] * self.out[1] * self.outputs * self.channels // self.groups * taps


def convolutions(net: FSNetwork, height: int, width: int) -> list[ConvShape]:
    """Every synapse group of a network, in order, for images of height x width."""
    sizes = map_sizes(list(net.steps), height, width)
    by_name = {step.name: step for step in net.steps}
    kept = kept_maps(list(net.steps))

    def halo_bytes(step) -> int:
        if step.name not in kept:
            return 0
        size = (1, *sizes[step.name], step.out_channels)
        planes = word_dtype(step.code.bits).itemsize
        halo = kept[step.name]
        return map_bytes(size, planes, halo) - map_bytes(size, planes, Halo(0, 0, 0, 0, 0))

    def bits(source: str) -> int:
        code = by_name[source].code
        return max(code.x_max, -code.x_min - 1).bit_length() + (code.x_min < 0)

    found = []
    for step in net.steps:
        if step.op != "conv":
            continue
        for i, group in enumerate(step.groups):
            found.append(
                ConvShape(
                    step.name,
                    i,
                    sizes[step.sources[i]],
                    sizes[step.name],
                    group.in_channels,
                    group.out_channels,
                    group.geometry.kernel,
                    group.geometry.stride,
                    group.geometry.groups,
                    group.x_min < 0,
                    bits(step.sources[i]),
                    group.weight.element_size(),
                    bits(step.sources[-1]) if i == 0 and step.r is not None else 0,
                    step.code.K,
                    step.sources[i] in kept,
                    halo_bytes(step) if i == 0 else 0,
                )
            )
    return found
