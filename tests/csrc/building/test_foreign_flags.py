"""Risk: compiler flags of others change what the kernels compute, and nobody says so."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from toolchains import run_python, toolkit

from bench import ROOT

# What changes bits, alone or in parts; gcc and clang have all of it.
HOSTILE = [
    "-ffast-math",
    "-Ofast",
    "-funsafe-math-optimizations",
    "-fassociative-math -fno-signed-zeros -fno-trapping-math",
    "-freciprocal-math",
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-ffast-math -fno-signed-zeros -fassociative-math -ffp-contract=fast",
]


RULES = '#include "float_rules.h"\n#include "neuron.h"\n'


def compiled(compiler: list[str], flags: str, source: str = RULES) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*compiler, *shlex.split(flags), "-I", str(ROOT / "csrc"), "-x", "c++", "-", "-S", "-o-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_flags_are_undone_and_where_they_are_not_refused(
    build: ModuleType, compiler: list[str], hostile: str
) -> None:
    ours = shlex.join(["-O2", build.STANDARD, *build.REQUIRED_FLAGS])
    done = compiled(compiler, f"{hostile} {ours}")
    assert done.returncode == 0, done.stderr
    done = compiled(compiler, f"{build.STANDARD} {hostile}")
    assert done.returncode != 0 and "fskernel's results would be wrong" in done.stderr


def test_hostile_flags_leave_the_same_code(build: ModuleType, compiler: list[str]) -> None:
    """Of arithmetic that each of them would change."""
    source = (
        "float f(float a, float b, float c) { return a * b + c; }\n"
        "float g(float a, float b) { return (a + b) - a; }\n"
        "float h(float a) { return a / 3.0f; }\n"
        "bool i(float a) { return a != a; }\n"
        "float j(float a) { return a + 0.0f; }\n"
    )
    target = " -mfma" if os.uname().machine == "x86_64" else ""
    ours = shlex.join(["-O2", build.STANDARD, *build.REQUIRED_FLAGS]) + target
    plain = compiled(compiler, ours, source)
    assert plain.returncode == 0, plain.stderr
    for hostile in HOSTILE:
        assert compiled(compiler, f"{hostile} {ours}", source).stdout == plain.stdout, hostile
    changed = compiled(compiler, f"{ours} {HOSTILE[0]}", source)
    assert changed.stdout != plain.stdout, "else the source shows nothing"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="elsewhere x87 is not")
@pytest.mark.parametrize("flag", ["-mfpmath=387", "-fsingle-precision-constant"])
def test_what_gcc_alone_knows_is_refused(build: ModuleType, compiler: list[str], flag: str) -> None:
    ours = shlex.join([build.STANDARD, *build.REQUIRED_FLAGS])
    if not build.compiles(compiler, "int main() { return 0; }\n", [flag])[0]:
        pytest.skip(f"this compiler has no {flag}")
    done = compiled(compiler, f"{flag} {ours}")
    assert done.returncode != 0 and "fskernel's results would be wrong" in done.stderr


def test_all_sources_include_the_rules(compiler: list[str]) -> None:
    """Every kernel is refused where its flags are wrong, whoever compiles it."""
    for path in sorted((ROOT / "csrc" / "cpu").rglob("*.cpp")):
        command = [*compiler, "-std=c++20", "-ffast-math", "-E", str(path), "-o", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "fskernel's results would be wrong" in done.stderr, path.name


@pytest.mark.parametrize("hostile", ["-ffast-math", "-Ofast", "-funsafe-math-optimizations"])
def test_linking_brings_no_flush_to_zero(
    build: ModuleType, compiler: list[str], tmp_path: Path, hostile: str
) -> None:
    """gcc links a start-up file that flushes denormals in every process that loads the library."""
    source = tmp_path / "empty.cpp"
    source.touch()
    command = [*compiler, "-###", "-shared", hostile, str(source), "-o", str(tmp_path / "x.so")]
    done = subprocess.run([*command, *build.LINK_FLAGS], capture_output=True, text=True, check=True)
    assert "crtfastmath" not in done.stderr


def test_loading_the_library_leaves_denormals_alone() -> None:
    done = run_python("import fskernel, torch; print((torch.tensor([1e-40]) * 1 != 0).item())")
    assert done.stdout.strip() == "True", done.stderr


def test_flags_of_others_are_recorded(build: ModuleType) -> None:
    assert build.foreign_flags({"PATH": "/bin", "CFLAGS": "", "MAX_JOBS": "2"}) == "none"
    given = {
        "NVCC_APPEND_FLAGS": "--use_fast_math",
        "CFLAGS": "-O3  '-DA=b c'",
        "CXX": "ccache g++",
    }
    words = build.foreign_flags(given)
    assert words == "CXX=ccache g++; CFLAGS=-O3 '-DA=b c'; NVCC_APPEND_FLAGS=--use_fast_math"
    for name in ("CXX", "CFLAGS", "LDFLAGS", "NVCC_PREPEND_FLAGS"):
        with pytest.raises(SystemExit, match=f"{name} is .*close the quote"):
            build.foreign_flags({name: "g++ 'x"})
        with pytest.raises(SystemExit, match=f"{name} is .*unset {name}"):
            build.foreign_flags({name: "g++ \\"})


def test_nvcc_gets_flags_of_others_in_front_of_ours(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = toolkit(tmp_path / "good", 'test -z "$NVCC_APPEND_FLAGS$NVCC_PREPEND_FLAGS"')
    given = {"NVCC_PREPEND_FLAGS": "-ftz=true", "NVCC_APPEND_FLAGS": "--use_fast_math -lineinfo"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    cuda, words = build.find_cuda(given, find=lambda _: good)
    assert cuda is not None, words  # nvcc itself, which would append them, has not seen them
    assert cuda.command[1:4] == ["-ftz=true", "--use_fast_math", "-lineinfo"]
    behind = cuda.command[4:]
    assert set(build.NVCC_FLOAT_FLAGS) <= set(behind)
    host = behind[behind.index("-Xcompiler") + 1].split(",")
    assert set(build.REQUIRED_FLAGS) <= set(host)


def test_the_real_nvcc_is_not_made_faster_and_wrong(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build.find_cuda_toolkit()
    if root is None:
        pytest.skip("no CUDA toolkit on this machine")
    source = tmp_path / "x.cu"
    source.write_text(
        "__global__ void f(float* x) { x[0] = x[1] / x[2] + x[3] * x[4] + sqrtf(x[5]); }\n"
    )
    ptx = []
    for given in ({}, {"NVCC_APPEND_FLAGS": "--use_fast_math", "NVCC_PREPEND_FLAGS": "-ftz=true"}):
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        foreign = [word for name in given for word in build.words_of(given, name)]
        command = build.nvcc_command(root, "90", foreign=foreign)
        done = subprocess.run(
            [*command, "-ptx", str(source), "-o", str(tmp_path / "x.ptx")],
            env=build.nvcc_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ptx.append((tmp_path / "x.ptx").read_text())
    assert "div.rn.f32" in ptx[0] and "fma" not in ptx[0]
    assert ptx[0] == ptx[1]
