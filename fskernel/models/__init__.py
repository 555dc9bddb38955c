"""Networks of the paper that torchvision does not have, and their trained weights."""

from fskernel.models.cifar import (
    CifarResNet,
    cifar_resnet8,
    cifar_resnet14,
    cifar_resnet20,
    cifar_resnet50,
)
from fskernel.models.shipped import card

__all__ = [
    "CifarResNet",
    "card",
    "cifar_resnet8",
    "cifar_resnet14",
    "cifar_resnet20",
    "cifar_resnet50",
]
