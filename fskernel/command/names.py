"""Names of networks for completion, read from files: no network's package is imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

REGISTERED = re.compile(r"^@register_model\(\)$.*?^def (\w+)", re.MULTILINE | re.DOTALL)


def fskernels() -> list[str]:
    """The networks whose weights come with fskernel."""
    folder = _folder("fskernel")
    found = folder.glob("models/weights/*.safetensors") if folder else []
    return sorted(path.stem for path in found)


def torchvisions() -> list[str]:
    """The classification networks of torchvision, if it is installed: what its files register."""
    folder = _folder("torchvision")
    paths = folder.glob("models/*.py") if folder else []
    return sorted(name for p in paths for name in REGISTERED.findall(p.read_text("utf-8")))


def complete(incomplete: str) -> list[str]:
    """What a name of a network that has been begun may become."""
    ours, theirs = fskernels(), torchvisions()
    prefixed = [f"fskernel:{name}" for name in ours] + [f"torchvision:{name}" for name in theirs]
    return [name for name in (*ours, *theirs, *prefixed) if name.startswith(incomplete)]


def _folder(package: str) -> Path | None:
    """Where a package lies; it is found, not imported."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
