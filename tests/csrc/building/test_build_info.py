"""Risk: what a build says of itself is wrong or incomplete, or missing when it is needed most."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from toolchains import run_python

import fskernel as fs
from bench import ROOT
from fskernel.kernels import device, info, ops

KEYS = {
    "fskernel",
    "torch_built",
    "torch_running",
    "compiler",
    "flags",
    "foreign_flags",
    "isas_built",
    "isas_supported",
    "isa_current",
    "last_kernel",
    "cuda",
    "library",
    "cpu",
    "threads",
    "python",
    "platform",
}


def test_build_info_has_every_key_and_a_line_for_each() -> None:
    answer = fs.build_info()
    assert set(answer) == KEYS
    lines = str(answer).splitlines()
    assert len(lines) == len(KEYS)
    for key, line in zip(answer, lines, strict=True):
        value = answer[key]
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        assert shown and line.endswith(shown), key


def test_build_info_agrees_with_the_library() -> None:
    answer = fs.build_info()
    assert "portable" in answer["isas_built"]
    assert set(answer["isas_supported"]) <= set(answer["isas_built"])
    assert answer["isa_current"] == ops.current_isa() or "FSKERNEL_ISA" in os.environ
    assert Path(answer["library"]).parent == Path(fs.__file__).parent


def test_build_info_states_the_flags_on_which_exactness_rests(build: ModuleType) -> None:
    answer = fs.build_info()
    assert set(build.REQUIRED_FLAGS) <= set(answer["flags"].split())
    assert {"-ffp-contract=off", "-fno-fast-math"} <= set(build.REQUIRED_FLAGS)
    assert answer["cuda"].startswith(("CPU only: ", "CUDA kernels for "))
    assert "\n" not in answer["cuda"]
    assert (ops.cuda_state() is None) == answer["cuda"].startswith("CPU only")


def test_build_info_reports_a_missing_library_instead_of_failing() -> None:
    # None in sys.modules makes the import of that module fail, as a missing file does. The package
    # is a bare one, because the real one may well need the library.
    code = (
        "import sys, types\n"
        "package = types.ModuleType('fskernel'); package.__path__ = ['fskernel']\n"
        "sys.modules |= {'fskernel': package, 'fskernel._C': None}\n"
        "from fskernel.kernels.info import build_info\n"
        "answer = build_info(); print(answer['library']); print(answer)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("not loaded: ")
    assert fs.__version__ in done.stdout


def test_the_command_without_a_file_prints_the_report() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fskernel", "info"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *lines, gpu = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(info.BuildInfo._TITLES.values())
    fault = device.cuda_fault()
    assert gpu.startswith("GPU ") and (fault is None or gpu.endswith(f"the CPU does all: {fault}"))


def test_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("fskernel") == fs.__version__


def test_the_library_needs_no_gpu() -> None:
    done = run_python(
        "import torch; from fskernel import ops\n"
        "print(torch.cuda.is_available(), ops.current_isa())",
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.returncode == 0, done.stderr
    gpu, isa = done.stdout.split()
    assert gpu == "False" and isa in ops.supported_isas()


def test_an_unknown_isa_is_told_by_build_info_and_refused_by_name() -> None:
    code = "import fskernel; print(fskernel.build_info()); fskernel.ops.current_isa()"
    done = run_python(code, FSKERNEL_ISA="nonsense")
    assert "FSKERNEL_ISA=nonsense" in done.stdout, done.stderr
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "FSKERNEL_ISA=nonsense: no such instruction set" in last, done.stderr
    assert "portable" in done.stderr, "the message should name what can be asked for"
