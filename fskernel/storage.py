"""Networks on disk: a safetensors file with the canonical tensors and the steps as metadata.

safetensors is imported where a file is written or read: everything else works without it.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from fskernel.fields import Fields, shown
from fskernel.files import replacing
from fskernel.fingerprint import fingerprint
from fskernel.network import FSNetwork
from fskernel.steps import read_step

FORMAT = 1
KEY = "fskernel"
TYPES = ("I8", "I16", "F32", "F64")  # of its tensors, as safetensors calls them


def save(net: FSNetwork, path: str | Path) -> None:
    """Writes a network; an interrupted write leaves no half file behind.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: the folder {path.parent} does not exist")
    # Copies: safetensors refuses tensors that lie in one block of memory.
    tensors = {name: tensor.cpu().clone() for name, tensor in net.named_buffers()}
    description = {
        "format": FORMAT,
        "input_size": list(net.input_size) if net.input_size else None,
        "fixed_size": list(net.fixed_size) if net.fixed_size else None,
        "steps": [step.spec() for step in net.steps],
    }
    if net.search is not None:
        description["search"] = net.search
    text = json.dumps(description)
    metadata = {KEY: text, "sha256": fingerprint(text, tensors)}
    with replacing(path) as part:
        try:
            save_file(tensors, part, metadata=metadata)
        except SafetensorError as error:  # of the disk: the tensors are plain
            raise OSError(f"path={str(path)!r} cannot be written: {error}") from error


def load(path: str | Path) -> FSNetwork:
    """Reads a network that `FSNetwork.save` wrote.

    The file may come from a stranger: it is data, no code in it is run, and whatever it says is
    checked (`step_checks`) before a kernel is told.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, was not written by fskernel, by a newer version of it, or
            describes no network that can run: the file, the step and the field.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r} is not a file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            for name in file.keys():
                if (kind := file.get_slice(name).get_dtype()) not in TYPES:
                    raise ValueError(f"{path} is damaged: its tensor {shown(name)} is {kind}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or not a safetensors file ({error}): save the network again"
        ) from error
    if KEY not in metadata:
        raise ValueError(
            f"{path} is a safetensors file, but not one of fskernel's: convert the network with "
            "fskernel.convert and save it with net.save"
        )
    try:
        description = json.loads(metadata[KEY])
        json.dumps(description, ensure_ascii=False).encode()  # text that cannot be printed
        fields = Fields(description, "the description")
        version = fields.take("format", int)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its description is unreadable ({error})") from error
    if version != FORMAT:
        raise ValueError(
            f"{path} has format {version}, this fskernel reads format {FORMAT}: update fskernel"
        )
    if metadata.get("sha256") != fingerprint(metadata[KEY], tensors):
        raise ValueError(f"{path} is damaged: its checksum is wrong; save the network again")
    try:
        net = _network(fields, tensors)
        net.pack()
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; save the network again") from error
    return net


def _network(fields: Fields, tensors: dict[str, Tensor]) -> FSNetwork:
    sizes = {}
    for key, length in (("input_size", 4), ("fixed_size", 2)):
        given = fields.take(key, list, None)
        if given is not None:
            if len(given) != length or any(type(n) is not int for n in given):
                raise ValueError(f"{key} is {shown(given)}: expected {length} integers")
            sizes[key] = tuple(given)
    specs, search = fields.take("steps", list), fields.optional("search", dict)
    fields.end()
    by_step: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        step, _, own = name.removeprefix("steps.").partition(".")
        by_step.setdefault(step, {})[own] = tensor
    steps = [read_step(spec, by_step.get(f"{i}", {}), f"step {i}") for i, spec in enumerate(specs)]
    net = FSNetwork(steps, **sizes)
    unknown = set(tensors) - {name for name, _ in net.named_buffers()}
    if unknown:
        raise ValueError(f"it holds tensors of no layer ({shown(min(unknown))})")
    net.search = search
    return net
