"""Networks of the paper that torchvision does not have."""

from fskernel.models.cifar import (
    CifarResNet,
    cifar_resnet8,
    cifar_resnet14,
    cifar_resnet20,
    cifar_resnet50,
)

__all__ = ["CifarResNet", "cifar_resnet8", "cifar_resnet14", "cifar_resnet20", "cifar_resnet50"]
