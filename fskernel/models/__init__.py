"""Networks that torchvision does not have, the paper's and a small one, and trained weights."""

from fskernel.models.cifar import (
    CifarResNet,
    cifar_resnet8,
    cifar_resnet14,
    cifar_resnet20,
    cifar_resnet20_silu,
    cifar_resnet50,
)
from fskernel.models.cifar_mobile import CifarMobileNet, cifar_mobilenet
from fskernel.models.digits import DigitsCNN, digits_cnn
from fskernel.models.shipped import card, preprocessing

__all__ = [
    "CifarMobileNet",
    "CifarResNet",
    "DigitsCNN",
    "card",
    "cifar_mobilenet",
    "cifar_resnet8",
    "cifar_resnet14",
    "cifar_resnet20",
    "cifar_resnet20_silu",
    "cifar_resnet50",
    "digits_cnn",
    "preprocessing",
]
