"""A network file while it is being changed, and how it is written with a checksum that fits."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fskernel.codes.geometry import Geometry
from fskernel.codes.moves import Move
from fskernel.codes.weights import INT32_LIMIT, largest_sum
from fskernel.codes.windows import Windows
from fskernel.network.stored.files import KEY, fingerprint

from .seeds import HEIGHT, WIDTH, File

INT8, INT16 = (-127, 127), (-32767, 32767)


class Draft:
    """A copy of a file's description and tensors, to be changed.

    Attributes:
        description: parsed JSON; every part of it may become anything.
        tensors: by name; never changed in place, because all drafts share those of the file.
        text: what is done at last to the description's text.
        metadata: what is done at last to the metadata of the safetensors file.
    """

    def __init__(self, file: File, dice: random.Random):
        self.description = json.loads(file.text)
        self.tensors = dict(file.tensors)
        self.dice = dice
        self.text: list[Callable[[str], str]] = []
        self.metadata: list[Callable[[dict], object]] = []

    # ---- the steps of a file that is still valid ---------------------------------------------

    @property
    def steps(self) -> list[dict]:
        """The descriptions of the steps."""
        return self.description["steps"]

    def convs(self) -> list[int]:
        """Which steps are convolutions."""
        return [i for i, step in enumerate(self.steps) if step["op"] == "conv"]

    def groups(self) -> list[tuple[int, int]]:
        """All synapse groups, as step and group."""
        return [(i, g) for i in self.convs() for g in range(len(self.steps[i]["groups"]))]

    def index(self, name: str) -> int:
        """Which step has this name."""
        return next(i for i, step in enumerate(self.steps) if step["name"] == name)

    def readers(self, name: str) -> list[tuple[int, int]]:
        """Who reads a step, as step and place in its sources."""
        return [
            (i, k)
            for i, step in enumerate(self.steps)
            for k, source in enumerate(step["sources"])
            if source == name
        ]

    def channels(self) -> dict[str, int]:
        """Channels of every step's output, by name."""
        found: dict[str, int] = {}
        for i, step in enumerate(self.steps):
            read = [found.get(source, 0) for source in step["sources"]]
            if step["op"] == "encode":
                found[step["name"]] = self.pixels()
            elif step["op"] == "concat":
                runs = step.get("runs", ())
                found[step["name"]] = sum(count for *_, count in runs) or sum(read)
            elif step["op"] == "move":
                found[step["name"]] = int(read[0] * move_of(step).channel_factor())
            elif step["op"] == "conv":
                found[step["name"]] = len(self.weight(i, 0))
            elif step["op"] == "readout":
                found[step["name"]] = len(self.tensors[f"steps.{i}.weight"])
            else:
                found[step["name"]] = read[0]
        return found

    def sizes(self) -> dict[str, tuple[int, int]] | None:
        """Rows and columns of every step's output for the images of seeds.py, if those fit."""
        found: dict[str, tuple[int, int]] = {}
        for step in self.steps:
            size = found[step["sources"][0]] if step["sources"] else (HEIGHT, WIDTH)
            try:
                if step["op"] == "move":
                    size = move_of(step).output_size(*size, found[step["sources"][-1]])
                elif step["op"] == "mean_pool":
                    size = windows_of(step).output_size(*size)
            except ValueError:
                return None
            geometries = [step["geometry"]] if "geometry" in step else []
            geometries += [group["geometry"] for group in step.get("groups", [])[:1]]
            for geometry in geometries:
                size = output_size(geometry, size)
            found[step["name"]] = size
        return found if all(min(size) > 0 for size in found.values()) else None

    def pixels(self) -> int:
        """Channels of the images."""
        i = self.convs()[0]
        return self.weight(i, 0).shape[1] * self.steps[i]["groups"][0]["geometry"]["groups"]

    def weight(self, i: int, g: int) -> Tensor:
        """The weights of a synapse group."""
        return self.tensors[f"steps.{i}.groups.{g}.weight"]

    def set_weight(self, i: int, g: int, weight: Tensor) -> None:
        """New weights, made smaller until their sums fit 32 bits."""
        group = self.steps[i]["groups"][g]
        while weight.numel() and bool(
            (largest_sum(weight, group["x_min"], group["x_max"]) >= INT32_LIMIT).any()
        ):
            weight = torch.div(weight, 2, rounding_mode="trunc")
        self.tensors[f"steps.{i}.groups.{g}.weight"] = weight.contiguous()

    def settle(self) -> None:
        """Codes and ranges of every step follow from those of the encoder and the convolutions."""
        codes: dict[str, dict] = {}
        for i, step in enumerate(self.steps):
            read = [codes[source] for source in step["sources"]]
            if step["op"] in ("max_pool", "concat", "move"):
                step["code"] = dict(read[0])
            elif step["op"] == "mean_pool":
                one, limit = read[0], step["code"]["x_max"]
                largest = max(one["x_max"] - one["zero"], one["zero"] - one["x_min"])
                step["reads"] = dict(one)
                step["code"]["step"] = one["step"] * largest / limit
            elif step["op"] == "sum_pool":
                n = step["geometry"]["kernel"][0] * step["geometry"]["kernel"][1]
                one = read[0]
                step["code"] = {
                    "kind": "graded",
                    "step": one["step"] / n,
                    "x_min": n * one["x_min"],
                    "x_max": n * one["x_max"],
                    "K": 0,
                    "zero": n * one["zero"],
                }
            elif step["op"] == "gate":
                step["zeros"] = [one["zero"] for one in read]
            for g, group in enumerate(step.get("groups", [])):
                group["x_min"], group["x_max"] = read[g]["x_min"], read[g]["x_max"]
                group["pad_code"] = read[g]["zero"]
                self.set_weight(i, g, self.weight(i, g))
            codes[step["name"]] = step["code"]

    def resize(self) -> None:
        """Maps have other sizes now: whether the old images still fit is not known."""
        self.description["input_size"] = self.description["fixed_size"] = None
        self.settle()

    def reorder(self, order: list[int]) -> None:
        """Steps in another order, or some more than once or not at all, with their tensors."""
        kept = self.tensors
        self.tensors = {}
        for i, old in enumerate(order):
            for name, tensor in kept.items():
                if name.startswith(f"steps.{old}."):
                    self.tensors[f"steps.{i}." + name.split(".", 2)[2]] = tensor
        self.description["steps"] = [copy.deepcopy(self.steps[old]) for old in order]

    def insert(self, i: int, step: dict) -> None:
        """A new step without tensors in front of step i."""
        self.reorder([*range(i), i, *range(i, len(self.steps))])
        for name in [n for n in self.tensors if n.startswith(f"steps.{i}.")]:
            del self.tensors[name]
        self.steps[i] = step

    def noise(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Weights as they may come: anything, few, extremes, equal ones."""
        low, high = INT8 if dtype == torch.int8 else INT16
        make = torch.Generator().manual_seed(self.dice.getrandbits(62))
        values = torch.randint(low, high + 1, shape, generator=make)
        kind = self.dice.choice(("any", "any", "few", "extreme", "one", "zero", "small"))
        if kind == "few":
            values *= torch.rand(shape, generator=make) < 0.1
        elif kind == "extreme":
            values = torch.where(values < 0, low, high)
        elif kind == "one":
            values = torch.full(shape, self.dice.choice((low, high, 1, -1)))
        elif kind == "zero":
            values = torch.zeros(shape)
        elif kind == "small":
            values %= 3
        return values.to(dtype)

    # ---- anywhere ------------------------------------------------------------------------------

    def places(self) -> Iterator[tuple[str, object, object]]:
        """Every value of the description: the name of its field, what holds it, at which key."""

        def walk(held, field: str):
            items = held.items() if isinstance(held, dict) else enumerate(held)
            for key, value in items:
                name = field
                if isinstance(key, str):
                    name = key if field in _ANONYMOUS else f"{field}.{key}"
                yield name, held, key
                if isinstance(value, (dict, list)):
                    yield from walk(value, name)

        yield from walk(self.description, "")

    def write(self, path: Path) -> None:
        """A safetensors file with a checksum that fits what it holds.

        Of tensors that cannot be hashed the checksum is wrong, which they are refused for anyway.
        """
        text = json.dumps(self.description)
        for change in self.text:
            text = change(text)
        try:
            checksum = fingerprint(text, self.tensors)
        except (TypeError, ValueError, RuntimeError):
            checksum = "0" * 64
        metadata = {KEY: text, "sha256": checksum}
        for change in self.metadata:
            change(metadata)
        path.unlink(missing_ok=True)  # a network may still have the old one mapped into memory
        # Copies: safetensors refuses tensors that lie in one block of memory.
        save_file({k: t.clone() for k, t in self.tensors.items()}, path, metadata=metadata)


def move_of(step: dict) -> Move:
    """The move that a step describes."""
    return Move(step["move"]["kind"], tuple(step["move"]["numbers"]))


def windows_of(step: dict) -> Windows:
    """The windows that a step describes."""
    given = dict(step["windows"])
    geometry = Geometry(**given.pop("geometry"))
    return Windows(geometry=geometry, **given)


def output_size(geometry: dict, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a window gives for a map of `size`; 0 or less where it does not fit."""
    names = ("kernel", "stride", "dilation")
    (kernels, strides, dilations), padding = (geometry[n] for n in names), geometry["padding"]
    return tuple(
        (size[i] + sum(padding[2 * i : 2 * i + 2]) - dilations[i] * (kernels[i] - 1) - 1)
        // strides[i]
        + 1
        for i in (0, 1)
    )


# What the description and its parts are called where a field of theirs is named.
_ANONYMOUS = ("", "steps", "groups")
