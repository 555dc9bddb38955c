"""The networks that rows measure, and the images they are shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

import fskernel as fs
from fskernel.graph import Graph

TYPES = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Setting:
    """What a row's process is told.

    Attributes:
        device: where it measures.
        model: a function of torchvision.models, or one of fskernel.models ("cifar_resnet8").
        cache: a folder for converted networks, shared by the rows of a session, or None.
        folder: of the session.
        keep: puts what is known so far onto the disk.
    """

    device: torch.device
    model: str
    cache: Path | None = None
    folder: Path = Path()
    keep: Callable[[dict], None] = lambda _: None

    @property
    def pixels(self) -> int:
        """Rows and columns of an image."""
        return 32 if self.model.startswith("cifar") else 224

    def image(self, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Random images [batch, 3, H, W], channels last, on the device."""
        shape = (batch, 3, self.pixels, self.pixels)
        x = torch.randn(shape, device=self.device, dtype=dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def module(self) -> nn.Module:
        """The dense network on the CPU; random weights, on which no time here depends."""
        torch.manual_seed(0)
        if self.model.startswith("cifar"):
            return getattr(fs.models, self.model)().eval()
        import torchvision

        return getattr(torchvision.models, self.model)().eval()

    def dense(self, dtype: torch.dtype) -> nn.Module:
        """The dense network on the device, channels last, its batch norms folded away."""
        with torch.no_grad():
            folded = fuse(self.module())
        return folded.to(self.device, dtype, memory_format=torch.channels_last)

    def converted(self, K: int) -> fs.FSNetwork:
        """The FS network on the CPU, converted once in a session."""
        path = None if self.cache is None else self.cache / f"{self.model}_K{K}.safetensors"
        if path is not None and path.is_file():
            with suppress(ImportError, ValueError):
                return fs.load(path)
        net = fs.convert(self.module(), alpha=6.0, K=K)
        if path is not None:
            with suppress(ImportError, OSError):  # then the next row converts it, too
                net.save(path)
        return net

    def graph(self, K: int) -> Graph:
        """The float network behind the FS network; it is not part of what a file holds."""
        return fs.convert(self.module(), alpha=6.0, K=K).graph

    def spiking(self, K: int) -> fs.FSNetwork:
        """The FS network on the device, its weights packed."""
        net = self.converted(K).to(self.device)
        net.pack()
        return net
