"""The networks of our tables, and the paper's own figures: Stöckl & Maass, arXiv 2002.00860."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the paper says of one network, K=10 and alpha=25.

    Attributes:
        neurons: ReLU outputs for one image.
        spikes: of one image, mean over the test set.
        ann, fs: top-1 of the dense and of the FS network, percent.
    """

    neurons: int
    spikes: float
    ann: float
    fs: float


PAPER = {
    "cifar_resnet8": Published(73_728, 103_753, ann=87.22, fs=87.05),
    "cifar_resnet14": Published(131_072, 190_107, ann=90.49, fs=90.39),
    "cifar_resnet20": Published(188_416, 261_779, ann=91.58, fs=91.45),
    "cifar_resnet50": Published(475_136, 647_245, ann=92.99, fs=92.42),
    "resnet50": Published(9_608_704, 14.061e6, ann=75.22, fs=75.10),
}
# Against rate coding: images per time step, and spikes.
THROUGHPUT_CLAIMS = (25, 125)
SPIKES_CLAIM = 40

TITLES = {
    "cifar_resnet8": "ResNet8",
    "cifar_resnet14": "ResNet14",
    "cifar_resnet20": "ResNet20",
    "cifar_resnet50": "ResNet50 (CIFAR)",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "resnet50": "ResNet50 (ImageNet)",
}
NETWORKS = tuple(TITLES)
SETTINGS = ("default", "paper")  # files of conf/neuron
LONG_T, LONG_NETWORK = 2000, "cifar_resnet20"  # the longest curve of rate coding


def is_cifar(name: str) -> bool:
    """Whether the network reads CIFAR-10."""
    return name.startswith("cifar")
