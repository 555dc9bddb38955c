"""Risk: a wheel needs a compiler, one release of torch or a GPU, or computes other bits than here.

`make test-wheels` runs this; it fetches every torch that is named here, gigabytes each.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import from_a_wheel
import pytest
import torch

import fskernel as fs
from bench import ROOT

WHEELS = sorted((ROOT / "dist").glob("fskernel-*.whl"))
# The newest torch, the oldest that is promised, and one without CUDA; a row for each Python.
TORCHES = {
    "cp310": ["2.11.0"],
    "cp311": ["2.14.1", "2.13.0"],
    "cp312": ["2.11.0"],
    "cp313": ["2.14.1"],
}
CASES = [
    pytest.param(path, version, id=f"{path.name.split('-linux')[0]}-torch{version}")
    for path in WHEELS
    for version in TORCHES[path.name.split("-")[2]]
    if "+cpu" not in path.name or version == "2.13.0"
]

pytestmark = pytest.mark.wheels


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A converted network as a file, and what it gives with the library that was built here."""
    module = fs.models.cifar_resnet8(weights="cifar10")
    net = fs.convert(module, from_a_wheel.images(8), K=8)
    path = tmp_path_factory.mktemp("network") / "net.safetensors"
    net.save(path)
    return path, from_a_wheel.answers(net)


def interpreter(tag: str) -> str:
    """The Python that .ci/wheels.py built for."""
    folder = ROOT / "build" / "wheels" / f"python{tag[2]}.{tag[3:]}"
    return str((folder / "bin" / "python").resolve(strict=True))


def run(*command: object, **environ: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env=environ or None,
        cwd="/",
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_there_are_wheels_to_test() -> None:
    assert WHEELS, "make wheels"
    assert any("+cpu" in path.name for path in WHEELS)


@pytest.mark.parametrize("path, version", CASES)
def test_a_wheel_in_an_empty_environment_gives_the_same_bits(
    path: Path, version: str, network: tuple[Path, dict], tmp_path: Path
) -> None:
    tag = path.name.split("-")[2]
    python = interpreter(tag)
    folder = tmp_path / "environment"
    if python == str(Path(sys.executable).resolve()):
        venv.create(folder, with_pip=True)
    else:
        run(python, "-m", "venv", folder)
    inside = folder / "bin" / "python"
    run(inside, "-m", "pip", "install", "-q", "--only-binary", ":all:", f"torch=={version}", path)
    # No compiler on PATH, and nothing of this folder.
    text = run(
        *(inside, "-I", ROOT / "tests/csrc/building/from_a_wheel.py", network[0]),
        PATH=str(folder / "bin"),
        HOME=str(tmp_path),
    )
    found = json.loads(text.splitlines()[-1])
    assert found["torch"].split("+")[0] == version and found["compiler"] is None
    assert Path(found["file"]).is_relative_to(folder)
    assert {key: found[key] for key in network[1]} == network[1]
    if not torch.cuda.is_available():
        cause = "built without CUDA kernels" if "+cpu" in path.name else "(driver|without CUDA)"
        assert re.search(cause, found["cuda_fault"]), found["cuda_fault"]
