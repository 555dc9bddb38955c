"""Networks with gates, made step by step by hand: of any K, with every form of gate."""

from __future__ import annotations

import torch

from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry
from fskernel.codes.windows import Windows
from fskernel.network.network import FSNetwork
from fskernel.network.steps import ConvStep, EncodeStep, GateStep, MeanPoolStep, ReadoutStep, Step
from fskernel.network.synapses import Synapses

PLAIN = {"notes": []}
ROUNDED = PLAIN | {"rounding": "nearest"}


class Made:
    """Steps under construction, with random weights.

    Args:
        channels: of the images. seed: of the weights.
    """

    def __init__(self, channels: int = 3, seed: int = 0):
        self.steps: list[Step] = [EncodeStep("image", [], Code.graded(3.0, 8191), ())]
        self.width = {"image": channels}
        self.dice = torch.Generator().manual_seed(seed)

    def code(self, name: str) -> Code:
        """What the codes of a step mean."""
        return next(step.code for step in self.steps if step.name == name)

    def conv(self, name: str, source: str, out: int, code: Code, kernel=(1, 1), padding=0) -> str:
        """A layer of neurons, or with graded values."""
        weight = torch.randn(out, self.width[source], *kernel, generator=self.dice).double()
        geometry = Geometry(kernel, padding=(padding,) * 4)
        weight /= (weight[0].numel() * 0.5) ** 0.5
        read = self.code(source)
        group, _ = Synapses.quantised(weight, 8, geometry, read, code.step)
        currents = group.weight.double() * group.m.double()[:, None, None, None]
        bias = (
            0.3 / code.step + code.zero + 0.5 * (code.K > 0) - read.zero * currents.sum((1, 2, 3))
        )
        info = ROUNDED if code.K else PLAIN
        made = ConvStep(name, [source], code, (), [group], bias.float(), None, info)
        return self._add(made, out)

    def one_pixel(self, name: str, source: str) -> str:
        """The mean of a map."""
        read = self.code(source)
        largest = max(read.x_max - read.zero, read.zero - read.x_min) * read.step
        windows = Windows("adaptive", (1, 1))
        step = MeanPoolStep(name, [source], Code.graded(largest, 4095), (), windows, read)
        return self._add(step, self.width[source])

    def gate(self, name: str, a: str, b: str, code: Code) -> str:
        """The product of two maps."""
        reads = (self.code(a), self.code(b))
        info = ROUNDED if code.K else PLAIN
        step = GateStep.of_codes(
            name, [a, b], code, (), reads, self.width[a], offset=0.5 * (code.K > 0), info=info
        )
        return self._add(step, self.width[a])

    def read_out(self, source: str, classes: int = 4) -> FSNetwork:
        """The network, with a readout behind a global average."""
        weight = torch.randint(-127, 128, (classes, self.width[source]), generator=self.dice)
        scale = torch.full((classes,), self.code(source).step / 127, dtype=torch.float64)
        bias = torch.randn(classes, generator=self.dice)
        head = ReadoutStep("head", [source], (), weight.to(torch.int8), scale, bias, True, PLAIN)
        return FSNetwork([*self.steps, head], input_size=(2, self.width["image"], 7, 6))

    def _add(self, step: Step, width: int) -> str:
        self.steps.append(step)
        self.width[step.name] = width
        return step.name


def gated(K: int = 5, words: bool = True, seed: int = 0, width: int = 21) -> FSNetwork:
    """Squeeze and excitation, attention to pixels, a square and a gate of the image.

    Args:
        K: of all neurons. words: whether gates give words, or graded values.
    """
    made = Made(seed=seed)
    relu, around = Code.words(K, 2.0), Code.signed_words(K, 2.0)
    product = around if words else Code.graded(2.0, 8191)
    x = made.conv("stem", "image", width, relu, (3, 3), 1)
    signed = made.conv("signed", x, width, around)
    squeezed = made.conv("squeezed", made.one_pixel("mean", x), 5, relu)
    excited = made.conv("excited", squeezed, width, around)
    x = made.gate("channels", signed, excited, product)
    pixels = made.conv("pixels", x, 1, Code.words(min(K + 3, 15), 1.0), (3, 3), 1)
    x = made.gate("places", x, pixels, relu if words else product)
    x = made.conv("mixed", x, width, relu, (2, 2))
    x = made.gate("square", x, x, Code.words(K, 4.0) if words else product)
    colours = made.conv("colours", x, 3, Code.graded(3.0, 32767))
    x = made.gate("dimmed", colours, made.one_pixel("light", "image"), Code.graded(9.0, 32767))
    return made.read_out(made.conv("last", x, 6, relu))


def images(n: int = 2, size: tuple[int, int] = (7, 6), seed: int = 3) -> torch.Tensor:
    """Float images for it."""
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed))
