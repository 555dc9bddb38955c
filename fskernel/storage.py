"""Networks on disk: a safetensors file with the canonical tensors and the steps as metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fskernel.files import replacing
from fskernel.network import FSNetwork
from fskernel.steps import STEPS

FORMAT = 1
KEY = "fskernel"


def save(net: FSNetwork, path: str | Path) -> None:
    """Writes a network; an interrupted write leaves no half file behind.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: the folder {path.parent} does not exist")
    # Copies: safetensors refuses tensors that lie in one block of memory.
    tensors = {name: tensor.clone() for name, tensor in net.named_buffers()}
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
        save_file(tensors, part, metadata=metadata)


def fingerprint(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the description and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def load(path: str | Path) -> FSNetwork:
    """Reads a network that `FSNetwork.save` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, was not written by fskernel, or by a newer version of it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r} is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
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
        version = description["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: its description is unreadable ({error})") from error
    if version != FORMAT:
        raise ValueError(
            f"{path} has format {version}, this fskernel reads format {FORMAT}: update fskernel"
        )
    if metadata.get("sha256") != fingerprint(metadata[KEY], tensors):
        raise ValueError(f"{path} is damaged: its checksum is wrong; save the network again")
    steps: list = []
    try:
        for i, spec in enumerate(description["steps"]):
            prefix = f"steps.{i}."
            own = {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}
            steps.append(STEPS[spec["op"]].from_spec(spec, own))
        sizes = {key: description[key] for key in ("input_size", "fixed_size")}
        net = FSNetwork(steps, **{k: tuple(size) if size else None for k, size in sizes.items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged: its layers do not fit its tensors ({error!r})"
        ) from error
    unknown = set(tensors) - {name for name, _ in net.named_buffers()}
    if unknown:
        raise ValueError(f"{path} is damaged: it holds tensors of no layer ({sorted(unknown)[0]})")
    net.search = description.get("search")
    net.pack()
    return net
