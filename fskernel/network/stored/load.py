"""A network from its file."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor

from fskernel.image_sizes import ImageSizes
from fskernel.network.network import FSNetwork
from fskernel.network.steps import read_step
from fskernel.network.stored import files
from fskernel.network.stored.fields import Fields, shown
from fskernel.preprocessing import Preprocessing
from fskernel.tail import Tail

_log = logging.getLogger(__name__)


def load(path: str | Path) -> FSNetwork:
    """Reads a network that `FSNetwork.save` wrote.

    The file may come from a stranger: it is data, no code in it is run, and whatever it says is
    checked (`step_checks`) before a kernel is told.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, was not written by fskernel, by a newer version of it, or
            describes no network that can run: the file, the step and the field.
    """
    fields, tensors = files.read(path)
    try:
        net = _network(fields, tensors)
        net.pack()
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; save the network again") from error
    _log.info("loaded %s: %r", path, net)
    return net


def _network(fields: Fields, tensors: dict[str, Tensor]) -> FSNetwork:
    sizes = {}
    for key, length in (("input_size", 4), ("fixed_size", 2)):
        given = fields.take(key, list, None)
        if given is not None:
            if len(given) != length or any(type(n) is not int for n in given):
                raise ValueError(f"{key} is {shown(given)}: expected {length} integers")
            sizes[key] = tuple(given)
    rank = fields.optional("rank", int)
    conditions = fields.optional_list("size_conditions", str)
    image_sizes = ImageSizes(
        sizes.pop("fixed_size", None), tuple(conditions), 4 if rank is None else rank
    )
    specs, search = fields.take("steps", list), fields.optional("search", dict)
    told = fields.optional("preprocessing", dict)
    spec = fields.optional("tail", dict)
    fields.end()
    by_step: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        step, _, own = name.removeprefix("steps.").partition(".")  # or "tail"
        by_step.setdefault(step, {})[own] = tensor
    steps = [read_step(spec, by_step.get(f"{i}", {}), f"step {i}") for i, spec in enumerate(specs)]
    behind = None
    if spec is not None:
        behind = Tail.from_fields(Fields(spec, "tail"), by_step.get("tail", {}))
    net = FSNetwork(steps, sizes=image_sizes, tail=behind, **sizes)
    unknown = set(tensors) - {name for name, _ in net.named_buffers()}
    if unknown:
        raise ValueError(f"it holds tensors of no layer ({shown(min(unknown))})")
    net.search = search
    if told is not None:
        net.preprocessing = Preprocessing.from_fields(Fields(told, "preprocessing"))
    return net
