"""What the tests of setup.py ask for: it, as a module, and the compiler."""

from __future__ import annotations

import importlib.util
import os
import shlex
from types import ModuleType

import pytest

from bench import ROOT


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """setup.py as a module; importing it must build nothing."""
    spec = importlib.util.spec_from_file_location("fskernel_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))
