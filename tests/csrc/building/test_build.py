"""Risk: setup.py builds where it cannot, leaves a file or a flag out, or refuses in riddles."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from toolchains import executable, run_python

from bench import ROOT


@pytest.mark.parametrize(
    ("system", "machine", "untried"),
    [
        *(("linux", "x86_64", False), ("linux", "aarch64", False), ("darwin", "arm64", True)),
        *(("darwin", "x86_64", True), ("win32", "AMD64", True)),
    ],
)
def test_platforms_with_rules_are_accepted_and_the_untried_known(
    build: ModuleType, system: str, machine: str, untried: bool
) -> None:
    assert build.platform_refusal(system, machine) is None
    assert build.SYSTEMS[system].untried == untried


@pytest.mark.parametrize(
    ("system", "machine"),
    [("freebsd14", "amd64"), ("win32", "ARM64"), ("linux", "i686"), ("linux", "riscv64")],
)
def test_other_platforms_are_refused_by_name(build: ModuleType, system: str, machine: str) -> None:
    words = build.platform_refusal(system, machine)
    assert system in words and machine in words and "not supported" in words


def test_a_build_without_torch_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "pip install torch" in done.stderr and "--no-build-isolation" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_stable_abi_version_has_torch_s_form(build: ModuleType) -> None:
    assert build.torch_target_macro((2, 11)) == "-DTORCH_TARGET_VERSION=0x020b000000000000"


def a_torch(folder: Path, version: str) -> Path:
    (folder / "include" / "torch" / "csrc" / "stable").mkdir(parents=True)
    (folder / "version.py").write_text(f"__version__ = '{version}'\ndebug = False\n")
    return folder


def test_a_torch_that_was_named_is_taken_and_not_imported(
    build: ModuleType, tmp_path: Path
) -> None:
    folder = a_torch(tmp_path / "a torch", "2.12.1+cpu")
    found = build.find_torch({"FSKERNEL_TORCH": str(folder)})
    assert found == (folder, "2.12.1+cpu")
    done = run_python(
        "import runpy, sys; m = runpy.run_path('setup.py'); print(m['find_torch']({}).version)\n"
        "assert 'torch' not in sys.modules; import torch; print(torch.__version__)"
    )
    assert len(set(done.stdout.split())) == 1, done.stderr


def test_a_torch_that_is_none_or_too_old_is_refused(build: ModuleType, tmp_path: Path) -> None:
    for name, version in (("old", "2.10.9"), ("older", "1.13.0")):
        old = {"FSKERNEL_TORCH": str(a_torch(tmp_path / name, version))}
        with pytest.raises(SystemExit, match=f"needs torch 2.11 or later and found {version}"):
            build.find_torch(old)
    (tmp_path / "empty").mkdir()
    (a_torch(tmp_path / "headless", "2.12.0") / "include/torch/csrc/stable").rmdir()
    for name in ("empty", "absent", "headless"):
        with pytest.raises(SystemExit, match=f"FSKERNEL_TORCH=.*{name} is no folder of a torch"):
            build.find_torch({"FSKERNEL_TORCH": str(tmp_path / name)})


def test_what_knows_python_is_what_includes_its_headers(build: ModuleType) -> None:
    """The objects of all others are shared by every Python."""
    for source in build.sources()[0]:
        text = (ROOT / source).read_text()
        assert build.knows_python(source) == ("pybind11" in text or "bindings.h" in text), source


def test_flags_are_spelled_for_the_compiler_of_the_system(build: ModuleType) -> None:
    flags = ["-O2", "-DA=1", "-ffp-contract=off", "-Ifolder"]
    assert build.spelled(flags, build.SYSTEMS["linux"]) == flags
    windows = build.spelled(flags, build.SYSTEMS["win32"])
    assert windows == ["/clang:-O2", "-DA=1", "/clang:-ffp-contract=off", "-Ifolder"]


def test_flags_are_probed(build: ModuleType, compiler: list[str]) -> None:
    flags = build.probe_flags(compiler)
    required = [*build.BASE_FLAGS, "-std=c++20", *build.REQUIRED_FLAGS]
    assert flags[: len(required)] == required
    assert set(flags[len(required) :]) <= set(build.OPTIONAL_FLAGS)


def test_an_unknown_optional_flag_is_left_out(
    build: ModuleType, compiler: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "OPTIONAL_FLAGS", ("-fno-such-flag-exists", "-fvisibility=hidden"))
    assert build.probe_flags(compiler)[-2:] == [build.REQUIRED_FLAGS[-1], "-fvisibility=hidden"]


def test_a_refused_required_flag_ends_the_build(
    build: ModuleType, compiler: list[str], tmp_path: Path
) -> None:
    picky = executable(
        tmp_path / "picky",
        '#!/bin/sh\nfor a; do [ "$a" = -ffp-contract=off ] && '
        '{ echo "unknown: $a" >&2; exit 1; }; done\nexec ' + shlex.join(compiler) + ' "$@"\n',
    )
    with pytest.raises(SystemExit, match="refuses -ffp-contract=off"):
        build.probe_flags([str(picky)])


def test_a_missing_compiler_is_named(build: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no-compiler"):
        build.probe_flags([str(tmp_path / "no-compiler")])


def test_isas_the_compiler_cannot_compile_are_left_out(
    build: ModuleType, compiler: list[str], tmp_path: Path
) -> None:
    # An assembler without VNNI, played by a compiler that refuses sources that mention it.
    old = executable(
        tmp_path / "old",
        '#!/bin/sh\nfor a; do case "$a" in *.cpp) grep -q vnni "$a" && exit 1;; esac; done\n'
        "exec " + shlex.join(compiler) + ' "$@"\n',
    )
    everything = build.probe_isas(compiler)
    if os.uname().machine == "x86_64":
        assert "avx2" in everything
    else:
        assert everything == []
    assert build.probe_isas([str(old)]) == [isa for isa in everything if "vnni" not in isa]


def test_everything_in_csrc_is_compiled_or_depended_on(build: ModuleType) -> None:
    compiled, headers = build.sources()
    files = {str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.is_file()}
    apart = ("csrc/simt/", "csrc/cuda/probe/")
    known = {name for name in files if not name.startswith(apart)}
    assert known == {*compiled, *headers}
    assert {"csrc/module.cpp", "csrc/ops/cpu.cpp"} <= set(compiled)
    assert not any("/simt/" in name for name in compiled)
    assert all((ROOT / name).is_file() for name in compiled)


def test_facts_survive_being_written(build: ModuleType, tmp_path: Path) -> None:
    facts = {"compiler": "g++ \"quoted\" 'twice' \\", "isas": ["avx2"], "cuda_toolkit": None}
    build.write_facts(tmp_path, facts)
    names: dict[str, object] = {}
    exec((tmp_path / "_build.py").read_text(), names)
    assert names["FACTS"] == facts
