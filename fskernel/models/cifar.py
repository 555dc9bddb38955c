"""CIFAR ResNets in the paper's layout: stages of 16, 32, 64 channels, projection shortcuts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fskernel.models import shipped

STAGES = (16, 32, 64)
Activation = Callable[..., nn.Module]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation = nn.ReLU):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = activation(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet of 6*n + 2 layers for images [N, 3, 32, 32], normalised.

    Args:
        blocks: n, blocks per stage.
        num_classes: size of the logits.
        activation: class of the modules behind the convolutions.
    """

    def __init__(self, blocks: int, num_classes: int = 10, activation: Activation = nn.ReLU):
        super().__init__()
        if blocks < 1 or num_classes < 1:
            raise ValueError(f"blocks={blocks}, num_classes={num_classes} must be at least 1")
        self.conv1 = nn.Conv2d(3, STAGES[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        self.relu = activation(inplace=True)
        stages, inputs = [], STAGES[0]
        for i, outputs in enumerate(STAGES):
            stage = []
            for j in range(blocks):
                stage.append(Block(inputs, outputs, 2 if i > 0 and j == 0 else 1, activation))
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(STAGES[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _network(
    name: str, blocks: int, num_classes: int, weights: str | None, activation: Activation = nn.ReLU
) -> CifarResNet:
    """The network, with random or with shipped weights."""
    module = CifarResNet(blocks, num_classes, activation)
    if weights is not None:
        shipped.load(module, name, weights, num_classes)
    return module


def cifar_resnet8(num_classes: int = 10, weights: str | None = None) -> CifarResNet:
    """ResNet8: 73,728 neurons. weights="cifar10": trained, see `card`."""
    return _network("cifar_resnet8", 1, num_classes, weights)


def cifar_resnet14(num_classes: int = 10, weights: str | None = None) -> CifarResNet:
    """ResNet14: 131,072 neurons. weights="cifar10": trained, see `card`."""
    return _network("cifar_resnet14", 2, num_classes, weights)


def cifar_resnet20(num_classes: int = 10, weights: str | None = None) -> CifarResNet:
    """ResNet20: 188,416 neurons. weights="cifar10": trained, see `card`."""
    return _network("cifar_resnet20", 3, num_classes, weights)


def cifar_resnet50(num_classes: int = 10, weights: str | None = None) -> CifarResNet:
    """ResNet50 of basic blocks: 475,136 neurons. weights="cifar10": trained, see `card`."""
    return _network("cifar_resnet50", 8, num_classes, weights)


def cifar_resnet20_silu(num_classes: int = 10, weights: str | None = None) -> CifarResNet:
    """ResNet20 with SiLU in place of ReLU: 188,416 neurons. weights="cifar10": trained."""
    return _network("cifar_resnet20_silu", 3, num_classes, weights, nn.SiLU)
