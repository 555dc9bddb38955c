"""What all rivals of one comparison share, and what a rival is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import fskernel as fs
from bench.measures.timing import Call

MODEL = "model.pt"
FS = "fs_K{K}.safetensors"
SETTING = "setting.pt"


@dataclass
class Setting:
    """What all rivals of one comparison share.

    Args:
        x: one batch of images, float32 [N, C, H, W], contiguous, on the CPU.
        calibration: images for everything that is calibrated, float32 [N, C, H, W].
        folder: where converted models are kept, so that another process need not make them again.
        threads: of the CPU.
        device: where all of them run.
        K: time steps of the FS networks.
        first: those of the one that others are compared with.
        convert: options of fskernel.convert beside K, by K.
        T: time steps of rate coding.
        rate: options of fskernel.RateNetwork.
        rate_images: calibration images that its thresholds are chosen on.
        transient: simulate 3 x depth steps of rate coding, and extrapolate its time.
        given: the dense network, float32, in evaluation mode, on the CPU; None: it is in folder.
    """

    x: Tensor
    calibration: Tensor
    folder: Path
    threads: int = 1
    device: torch.device = torch.device("cpu")
    K: tuple[int, ...] = (8,)
    first: int = 8
    convert: dict[int, dict[str, Any]] = field(default_factory=dict)
    T: int = 550
    rate: dict[str, Any] = field(default_factory=dict)
    rate_images: int = 4
    transient: bool = True
    given: nn.Module | None = None
    nets: dict[int, fs.FSNetwork] = field(default_factory=dict)

    @cached_property
    def model(self) -> nn.Module:
        """The dense network."""
        if self.given is not None:
            return self.given
        return torch.load(self.folder / MODEL, weights_only=False)  # our own file

    def net(self, K: int) -> fs.FSNetwork:
        """The model converted with K time steps, once, on the CPU."""
        if K not in self.nets:
            path = self.folder / FS.format(K=K)
            if path.exists():
                self.nets[K] = fs.load(path)
            else:
                options = self.convert.get(K, {})
                self.nets[K] = fs.convert(self.model, self.calibration, K=K, **options)
        return self.nets[K]

    def batches(self) -> list[Tensor]:
        """The calibration images in whole batches of x's size; some twice where they are few."""
        n = len(self.x)
        count = -(-len(self.calibration) // n)
        images = self.calibration.repeat(-(-count * n // len(self.calibration)), 1, 1, 1)
        return list(images[: count * n].contiguous().split(n))

    def keep(self) -> None:
        """Puts everything into the folder that another process needs for `kept`.

        Raises:
            Exception: whatever pickle says of a network that it cannot write.
        """
        torch.save(self.model, self.folder / MODEL)
        for K, net in self.nets.items():
            net.save(self.folder / FS.format(K=K))
        known = {name: value for name, value in vars(self).items() if name in _PLAIN}
        torch.save(known | {"device": str(self.device)}, self.folder / SETTING)


# What `Setting.keep` writes as it is.
_PLAIN = "x calibration threads K first convert T rate rate_images transient".split()


def kept(folder: Path) -> Setting:
    """The setting that `Setting.keep` left in a folder."""
    found = torch.load(folder / SETTING, weights_only=False)  # our own file
    device = torch.device(found.pop("device"))
    return Setting(**found, folder=folder, device=device)


class Answer(NamedTuple):
    """Logits, float [N, classes], and the spikes of each image [N] where there are some."""

    logits: Tensor
    spikes: Tensor | None = None


@dataclass
class Runner:
    """A rival that is ready to run.

    Attributes:
        call: runs the batch of the setting, or one time step of it.
        answer: what it answers to any images [N, C, H, W], of the batch's size at most.
        steps: how many calls make an answer.
        seconds: tells the time of an answer itself; None: calls are timed.
        per: what was timed, where it was no whole answer.
    """

    call: Call
    answer: Callable[[Tensor], Answer]
    steps: int = 1
    seconds: Callable[[], float] | None = None
    per: str | None = None


def fed(call: Call, buffer: Tensor, logits: Callable[[Any], Tensor] = torch.as_tensor) -> Runner:
    """A rival that always reads one buffer of a whole batch.

    Args:
        call: reads the buffer. buffer: [N, C, H, W]. logits: of what the call returns.
    """

    def answer(x: Tensor) -> Answer:
        buffer[: len(x)].copy_(x)
        return Answer(logits(call())[: len(x)].float().cpu())

    return Runner(call, answer)


def in_words(error: Exception) -> str:
    """What a rival's fault is, in a line."""
    return f"failed: {' '.join(f'{type(error).__name__}: {error}'.split())}"[:300]


@dataclass(frozen=True)
class Rival:
    """One row of the comparison.

    Attributes:
        name: what tables say; unique.
        kind: few spikes | float | integers | one by one | rate coding.
        build: makes it ready; raises ImportError where a package is missing.
        packages: that it needs, as pip names them.
        slow: gets fewer rounds and images.
    """

    name: str
    kind: str
    build: Callable[[Setting], Runner]
    packages: tuple[str, ...] = ()
    slow: bool = False
