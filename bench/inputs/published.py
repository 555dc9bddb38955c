"""The published networks of networks.yaml, built with random weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

LIST = Path(__file__).with_name("networks.yaml")


@dataclass(frozen=True)
class Published:
    """One network of the list.

    Attributes:
        name: in its package. package: torchvision or timm.
        family: classification, segmentation or detection; of timm its module.
        image: rows and columns of the images that it is tried on.
        outputs: the submodules that are converted, where the whole cannot be; else empty.
    """

    name: str
    package: str
    family: str
    image: int
    outputs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name and where it is from; some networks are in both packages."""
        return f"{self.package}/{self.name}"

    def build(self) -> nn.Module:
        """The network in eval mode, with random weights, the same ones every time."""
        torch.manual_seed(0)
        if self.package == "timm":
            import timm

            return timm.create_model(self.name, pretrained=False).eval()
        from torchvision.models import get_model

        asked = {"weights": None}
        if self.family != "classification":
            asked["weights_backbone"] = None
        if self.family == "detection" and not self.name.startswith("ssd"):
            asked |= {"min_size": self.image, "max_size": self.image}  # else images become larger
        if self.name in ("googlenet", "inception_v3"):
            asked |= {"init_weights": False, "aux_logits": False}  # SciPy would take a minute
        return get_model(self.name, **asked).eval()


def published(only: Iterable[str] = ()) -> list[Published]:
    """The networks of the list.

    Args:
        only: patterns such as "resnet*" or "timm/*", one of which a name, or package and name,
            matches; none: all.
    """
    names = OmegaConf.to_container(OmegaConf.load(LIST))
    found = []
    for family, networks in names["torchvision"].items():
        for name, what in networks.items():
            known = what if isinstance(what, dict) else {"image": what}
            outputs = tuple(known.get("outputs", ()))
            found.append(Published(name, "torchvision", family, known["image"], outputs))
    for family, networks in names["timm"].items():
        found += [Published(name, "timm", family, image) for name, image in networks.items()]
    only = list(only)
    return [
        network
        for network in found
        if not only
        or any(fnmatch.fnmatchcase(n, p) for n in (network.name, network.key) for p in only)
    ]
