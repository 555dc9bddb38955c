"""Network files that are valid in form and wrong in meaning: description and tensors are changed,
then the checksum is made right again, as whoever writes such a file would."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import fskernel as fs
from fskernel.network.stored.fingerprint import fingerprint

# A change gets the tensors by name and the description, and works on them in place.
Change = Callable[[dict, dict], object]


class AllKinds(nn.Module):
    """Every kind of step: ragged channels, two synapse groups, a residual, pools, values."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)
        self.b1, self.b2 = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 7, 3, padding=1)
        self.dw = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.lin = nn.Conv2d(12, 8, 1)
        self.e, self.f = nn.Conv2d(8, 17, 3, 2, 1), nn.Conv2d(8, 17, 1, 2)
        self.g, self.avg = nn.Conv2d(17, 17, 3, padding=1), nn.AvgPool2d(2)
        self.h, self.head = nn.Conv2d(17, 6, 1), nn.Linear(6, 5)

    def forward(self, x):
        x = self.pool(torch.relu(self.stem(x)))
        x = torch.cat([torch.relu(self.b1(x)), torch.relu(self.b2(x))], 1)
        x = self.lin(torch.relu(self.dw(x)))
        x = torch.relu(self.e(x) + self.f(x))
        x = torch.relu(self.g(x) + x)
        return self.head(torch.relu(self.h(self.avg(x))).mean((2, 3)))


# Steps of AllKinds by number.
STEM, POOL, B1, B2, CAT, DW, LIN, E, G, AVG, H, HEAD = range(1, 13)


def images(n: int = 2, seed: int = 3) -> torch.Tensor:
    """Float [n, 3, 18, 14]."""
    return torch.randn(n, 3, 18, 14, generator=torch.Generator().manual_seed(seed))


def write(path: Path, tensors: dict, description: object) -> Path:
    """A network file with a right checksum, whatever it says."""
    tensors = {name: t.contiguous().clone() for name, t in tensors.items()}
    text = description if isinstance(description, str) else json.dumps(description)
    metadata = {"fskernel": text, "sha256": fingerprint(text, tensors)}
    save_file(tensors, path, metadata=metadata)
    return path


def set_in(step, *keys, to):
    """A change of one field of a step."""

    def change(tensors, d):
        place = d["steps"][step]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


def insert(at: int, *steps: dict) -> Change:
    """A change that adds steps without tensors."""

    def change(tensors, description):
        description["steps"][at:at] = steps
        _renumber(tensors, at, len(steps))

    return change


def remove(at: int) -> Change:
    """A change that takes a step away, with its tensors."""

    def change(tensors, description):
        description["steps"].pop(at)
        for name in [name for name in tensors if name.startswith(f"steps.{at}.")]:
            del tensors[name]
        _renumber(tensors, at + 1, -1)

    return change


def _renumber(tensors: dict, first: int, by: int) -> None:
    moved = {}
    for name in list(tensors):
        _, number, own = name.split(".", 2)
        if int(number) >= first:
            moved[f"steps.{int(number) + by}.{own}"] = tensors.pop(name)
    tensors.update(moved)


class Template:
    """A good network, to be changed."""

    def __init__(self, net: fs.FSNetwork, folder: Path):
        self.path = folder / "bad.safetensors"
        net.save(folder / "good.safetensors")
        with safe_open(folder / "good.safetensors", framework="pt") as file:
            self.description = json.loads(file.metadata()["fskernel"])
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}

    def changed(self, change: Change) -> Path:
        """The file that the change makes of it."""
        tensors, description = dict(self.tensors), copy.deepcopy(self.description)
        replaced = change(tensors, description)
        return write(self.path, tensors, replaced if isinstance(replaced, str) else description)
