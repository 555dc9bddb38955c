"""Names of networks for completion, read from files: no network's package is imported."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path


def fskernels() -> list[str]:
    """The networks whose weights come with fskernel."""
    folder = _folder("fskernel")
    found = folder.glob("models/weights/*.safetensors") if folder else []
    return sorted(path.stem for path in found)


def torchvisions() -> list[str]:
    """The classification networks of torchvision, if it is installed: what its files register."""
    folder = _folder("torchvision")
    found = []
    for path in sorted(folder.glob("models/*.py")) if folder else []:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(
                "register_model" in ast.unparse(decorator) for decorator in node.decorator_list
            ):
                found.append(node.name)
    return sorted(found)


def complete(incomplete: str) -> list[str]:
    """What a name of a network that has been begun may become."""
    names = fskernels() + torchvisions()
    names += [f"fskernel:{name}" for name in fskernels()]
    names += [f"torchvision:{name}" for name in torchvisions()]
    return [name for name in names if name.startswith(incomplete)]


def _folder(package: str) -> Path | None:
    """Where a package lies; it is found, not imported."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
