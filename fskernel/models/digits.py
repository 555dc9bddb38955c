"""A small network for scikit-learn's handwritten digits: the one that demonstrates."""

from __future__ import annotations

from torch import Tensor, nn

from fskernel.models import shipped


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions of 16, 32 and 64 channels for grey images [N, 1, 8, 8], normalised.

    Args:
        num_classes: size of the logits.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        stages: list[nn.Module] = []
        for inputs, outputs, stride in ((1, 16, 1), (16, 32, 1), (32, 64, 2)):
            conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            stages += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(x)).flatten(1))


def digits_cnn(num_classes: int = 10, weights: str | None = None) -> DigitsCNN:
    """A CNN of 4,096 neurons for 8x8 digits. weights="digits": trained, see `card`."""
    module = DigitsCNN(num_classes)
    if weights is not None:
        shipped.load(module, "digits_cnn", weights, num_classes)
    return module
