"""Risk: setup.py builds where it cannot, leaves a file or a flag out, or refuses in riddles."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from toolchains import executable

from bench import ROOT


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_linux_is_accepted(build: ModuleType, machine: str) -> None:
    assert build.platform_refusal("linux", machine) is None


@pytest.mark.parametrize(
    ("system", "machine"),
    [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "i686"), ("linux", "riscv64")],
)
def test_other_platforms_are_refused_by_name(build: ModuleType, system: str, machine: str) -> None:
    words = build.platform_refusal(system, machine)
    assert system in words and machine in words and "not supported" in words


def test_a_build_without_torch_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
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


def test_flags_are_probed(build: ModuleType, compiler: list[str]) -> None:
    flags = build.probe_flags(compiler)
    required = ["-O2", "-std=c++20", *build.REQUIRED_FLAGS]
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
