"""What this fskernel is: how it was built, what runs here, on which machine.

``fskernel info`` prints it; a bug report should contain it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import torch

from fskernel._version import __version__
from fskernel.kernels import native

try:
    from fskernel._build import FACTS  # what setup.py wrote down
except ImportError:
    FACTS: dict[str, object] = {}

_UNKNOWN = "unknown (the library was not built by setup.py)"


class BuildInfo(dict[str, object]):
    """The facts as a dict; ``str()`` of it is a table of one fact a line.

    Keys: ``fskernel``, ``torch_built``, ``torch_running``, ``compiler``, ``flags``,
    ``foreign_flags``, ``isas_built``, ``isas_supported``, ``isa_current``, ``last_kernel``,
    ``cuda``, ``library``, ``cpu``, ``threads``, ``python``, ``platform``. ``foreign_flags`` are
    those of the environment (CFLAGS, ...) that were compiled or linked with, too; they stand before
    ``flags``. ``isas_built`` and ``isas_supported`` are lists of names, ``threads`` is an int,
    every other value is a string.
    """

    _TITLES = {
        "fskernel": "fskernel",
        "torch_built": "torch, built with",
        "torch_running": "torch, running",
        "compiler": "compiler",
        "flags": "flags",
        "foreign_flags": "flags of the environment",
        "isas_built": "instruction sets built",
        "isas_supported": "supported here",
        "isa_current": "in use",
        "last_kernel": "last kernel",
        "cuda": "CUDA",
        "library": "library",
        "cpu": "CPU",
        "threads": "threads",
        "python": "Python",
        "platform": "platform",
    }

    def __str__(self) -> str:
        titles = {key: self._TITLES.get(key, key) for key in self}
        width = max((len(title) for title in titles.values()), default=0)
        return "\n".join(f"{titles[key]:<{width}}  {_text(self[key])}" for key in self)


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _cpu_model() -> str:
    """Return the processor's name as Linux knows it, or its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.machine() or "unknown"


def build_facts() -> dict[str, object]:
    """Return what setup.py wrote down, or nothing if the library was built in another way."""
    return dict(FACTS)


def _asked(function: Callable[[], object]) -> object:
    """Return the library's answer, or why it gives none: a report has to survive a bad setting."""
    try:
        return function()
    except (RuntimeError, ValueError) as error:
        return f"error: {error}"


def _listed(answer: object) -> list[str]:
    return [answer] if isinstance(answer, str) else [str(name) for name in answer]  # type: ignore


def _library() -> dict[str, object]:
    """Return what the native library says of itself, or that it could not be loaded, and why."""
    if native._C is None:
        missing = f"not loaded: {native.import_error}"
        lists: dict[str, object] = {"isas_built": [], "isas_supported": []}
        return lists | {"isa_current": "none", "last_kernel": "none", "library": missing}
    return {
        "isas_built": _listed(_asked(native.built_isas)),
        "isas_supported": _listed(_asked(native.supported_isas)),
        "isa_current": _text(_asked(native.current_isa)),
        "last_kernel": _text(_asked(native.last_kernel)) or "none yet",
        "library": str(native._C.__file__),
    }


def build_info() -> BuildInfo:
    """Return how fskernel was built, what it uses now and where it runs; see ``BuildInfo``.

    Never raises for a library that is missing or refuses its settings: that is part of the report.
    """
    facts = build_facts()
    library = _library()
    forced = os.environ.get("FSKERNEL_ISA")
    if forced:
        library["isa_current"] = f"{library['isa_current']} (FSKERNEL_ISA={forced})"
    answers: dict[str, object] = {
        "fskernel": __version__,
        "torch_built": facts.get("torch", _UNKNOWN),
        "torch_running": torch.__version__,
        "compiler": facts.get("compiler", _UNKNOWN),
        "flags": facts.get("flags", _UNKNOWN),
        "foreign_flags": facts.get("foreign_flags", _UNKNOWN),
        "cuda": facts.get("cuda", _UNKNOWN),
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    } | library
    return BuildInfo((key, answers[key]) for key in BuildInfo._TITLES)
