"""Images as random spikes, the input of early rate-coded networks."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class PoissonImages:
    """Shows images as independent random spikes whose rates are the pixels' sizes.

    At each step a pixel x spikes with the probability |x| / largest, at most 1, and a spike has the
    pixel's sign and is worth `largest`. So its mean over time is the pixel, but one beyond
    +-largest saturates. (Such trains are Bernoulli trains; the literature calls them Poisson.)

    What an image becomes is fixed by the seed and its own pixels, whatever batch it is in; equal
    images get equal spikes.

    Args:
        x: images, float32 [N, C, H, W], on the CPU.
        largest: the pixel that spikes at every step, positive.
        seed: of the random numbers, 0 to 2^64 - 1.
    """

    def __init__(self, x: Tensor, largest: float, seed: int):
        key = seed.to_bytes(8, "little")
        self._generators = []
        for image in x:
            content = image.contiguous().numpy().tobytes()
            digest = hashlib.blake2b(content, digest_size=8, key=key).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            self._generators.append(generator)
        self._probability = x.abs() / largest
        self._worth = x.sign() * largest

    def next(self) -> Tensor:
        """The input of the next time step, float32 [N, C, H, W]."""
        shape = self._probability.shape[1:]
        # In [0, 1): probability 1 spikes always, and 0 never.
        drawn = torch.stack([torch.rand(shape, generator=g) for g in self._generators])
        fired = self._worth * (drawn < self._probability)
        return fired.contiguous(memory_format=torch.channels_last)
