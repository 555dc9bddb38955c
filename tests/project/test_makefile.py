"""Risk: make installs, or wants the network, where it was told to take a Python as it is."""

import shutil
import subprocess
import sys
from importlib import metadata

import pytest
from own_make import CLEAN

from bench import ROOT
from fskernel.kernels import ops

# What this run was itself told by the make that started it.


def run(*command):
    return subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, cwd=ROOT, env=CLEAN, check=False
    )


def test_a_python_that_is_taken_as_it_is_says_what_it_lacks():
    done = run(".ci/packages", sys.executable, "torch", "no_such_package", "nor_this")
    assert done.returncode == 1 and not done.stdout
    said = done.stderr.strip()
    assert said.startswith(
        f"VENV=none takes {sys.executable} as it is, and it lacks no_such_package"
    )
    assert "nor_this: install these" in said and "\n" not in said
    done = run(".ci/packages", sys.executable, "torch", "numpy")
    assert done.returncode == 0 and f"torch {metadata.version('torch')}" in done.stdout


def test_a_gpu_without_network_needs_no_environment_and_no_pip():
    done = run("make", "-n", "VENV=none", f"PYTHON={sys.executable}", "gpu")
    assert done.returncode == 0, done.stderr
    assert "pip" not in done.stdout.replace(str(ROOT), "") and ".venv" not in done.stdout.replace(
        sys.executable, ""
    )
    assert "FSKERNEL_CUDA=1 FSKERNEL_CUDA_ARCHS=native" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith(sys.executable)]
    assert [line.split()[1] for line in lines] == ["setup.py", "bench/gpu.py"]


def test_other_targets_build_for_the_usual_architectures():
    done = run("make", "-n", "setup")
    assert done.returncode == 0 and "native" not in done.stdout
    done = run("make", "-n", "gpu", "FSKERNEL_CUDA_ARCHS=90")
    assert "FSKERNEL_CUDA_ARCHS=90 " in done.stdout and "native" not in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_the_launchers_are_tested_without_torch():
    if ops.cuda_state() is None:
        pytest.skip("built without CUDA kernels")
    done = run("make", "-f", "tests/cpp/Makefile", "build/launch/launch_test")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("build/launch/launch_test", "20")
    assert done.returncode in (0, 2)
    assert ("20 cases, 0 failed" if done.returncode == 0 else "no GPU: ") in done.stdout
