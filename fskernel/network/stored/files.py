"""Networks on disk: a safetensors file with the canonical tensors and the steps as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fskernel.files import replacing
from fskernel.network.stored.fields import Fields, shown
from fskernel.network.stored.fingerprint import fingerprint

try:
    import safetensors
    import safetensors.torch
except ImportError:  # all but files works without, on a machine that is taken as it is
    safetensors = None

FORMAT = 1
KEY = "fskernel"
TYPES = ("I8", "I16", "F32", "F64")  # of its tensors, as safetensors calls them


def write(path: str | Path, description: dict, tensors: Mapping[str, Tensor]) -> None:
    """Writes a network; an interrupted write leaves no half file behind.

    Args:
        description: what, beside the tensors, makes the network (JSON).

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the file cannot be written.
    """
    require_safetensors()
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: the folder {path.parent} does not exist")
    # Copies: safetensors refuses tensors that lie in one block of memory.
    tensors = {name: tensor.cpu().clone() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **description})
    metadata = {KEY: text, "sha256": fingerprint(text, tensors)}
    with replacing(path) as part:
        try:
            safetensors.torch.save_file(tensors, part, metadata=metadata)
        except safetensors.SafetensorError as error:  # of the disk: the tensors are plain
            raise OSError(f"path={str(path)!r} cannot be written: {error}") from error


def require_safetensors() -> None:
    """Refuses files where the package that reads and writes them is missing.

    Raises:
        ImportError: with what installs it.
    """
    if safetensors is None:
        raise ImportError("files of networks need safetensors: pip install safetensors")


def read(path: str | Path) -> tuple[Fields, dict[str, Tensor]]:
    """The description and the tensors of a file, as `write` was given them.

    It may come from a stranger: it is data, and no code in it is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, was not written by fskernel, by a newer version of it, or
            describes no network that can run: the file, the step and the field.
    """
    require_safetensors()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r} is not a file")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            for name in file.keys():
                if (kind := file.get_slice(name).get_dtype()) not in TYPES:
                    raise ValueError(f"{path} is damaged: its tensor {shown(name)} is {kind}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
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
    return fields, tensors
