"""A mobile network for CIFAR images: inverted residuals with Hardswish and gates.

The blocks are those of MobileNetV3-Small (Howard et al., arXiv:1905.02244, table 2), with strides
and kernels for images of 32x32 pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from fskernel.models import shipped

# Kernel, width inside, channels, squeeze-and-excitation, Hardswish (else ReLU), stride.
BLOCKS = (
    (3, 16, 16, True, False, 1),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (3, 240, 40, True, True, 1),
    (3, 120, 48, True, True, 1),
    (3, 144, 48, True, True, 1),
    (3, 288, 96, True, True, 2),
    (3, 576, 96, True, True, 1),
)
STEM, LAST = 16, 288
SQUEEZE = 4  # channels of a map over those of its gate's first layer


class Gate(nn.Module):
    """Squeeze-and-excitation: every channel times a number made of all channels' means."""

    def __init__(self, channels: int):
        super().__init__()
        squeezed = max(8, channels // SQUEEZE)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.scale = nn.Hardsigmoid(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(self.fc2(self.relu(self.fc1(self.avgpool(x)))))


def _unit(inputs: int, outputs: int, kernel: int, stride: int, groups: int, act) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act(inplace=True)] if act else []))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, gate and projection, with a shortcut where shapes agree."""

    def __init__(
        self, inputs: int, kernel: int, inside: int, outputs: int, gated: bool, act, stride: int
    ):
        super().__init__()
        layers = [] if inside == inputs else [_unit(inputs, inside, 1, 1, 1, act)]
        layers.append(_unit(inside, inside, kernel, stride, inside, act))
        if gated:
            layers.append(Gate(inside))
        layers.append(_unit(inside, outputs, 1, 1, 1, None))
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.shortcut else self.block(x)


class CifarMobileNet(nn.Module):
    """The network for images [N, 3, 32, 32], normalised.

    Args:
        num_classes: size of the logits.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.stem = _unit(3, STEM, 3, 1, 1, nn.Hardswish)
        blocks, inputs = [], STEM
        for kernel, inside, outputs, gated, swish, stride in BLOCKS:
            act = nn.Hardswish if swish else nn.ReLU
            blocks.append(InvertedResidual(inputs, kernel, inside, outputs, gated, act, stride))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = _unit(inputs, LAST, 1, 1, 1, nn.Hardswish)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(LAST, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.last(self.blocks(self.stem(x)))).flatten(1))


def cifar_mobilenet(num_classes: int = 10, weights: str | None = None) -> CifarMobileNet:
    """The mobile network. weights="cifar10": trained, see `card`."""
    module = CifarMobileNet(num_classes)
    if weights is not None:
        shipped.load(module, "cifar_mobilenet", weights, num_classes)
    return module
