"""Risk: CUDA kernels are left out in silence, built by a broken toolkit, or built again."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from toolchains import executable, toolkit

from bench import ROOT
from fskernel.kernels import ops


def test_a_toolkit_is_found_behind_a_wrapper_script(build: ModuleType, tmp_path: Path) -> None:
    root = toolkit(tmp_path / "opt" / "cuda-99.1")
    wrapper = executable(tmp_path / "bin" / "nvcc", f'#!/bin/sh\nexec {root}/bin/nvcc "$@"\n')
    outer = executable(tmp_path / "outer" / "nvcc", f'#!/bin/sh\nX={wrapper}\nexec "$X" "$@"\n')
    none = tmp_path / "none"
    for nvcc in (root / "bin" / "nvcc", wrapper, outer):
        assert build.find_cuda_toolkit({}, lambda _, p=nvcc: str(p), none) == root


def test_a_broken_nvcc_is_no_toolkit(build: ModuleType, tmp_path: Path) -> None:
    broken = executable(tmp_path / "bin" / "nvcc", "#!/bin/sh\nexit 3\n")
    assert build.toolkit_of_nvcc(broken) is None
    # One that names a folder without a toolkit in it is none either.
    liar = executable(tmp_path / "liar" / "nvcc", "#!/bin/sh\necho '#$ _HERE_=/no/where/bin'\n")
    assert build.toolkit_of_nvcc(liar) is None
    assert build.toolkit_of_nvcc(tmp_path / "absent") is None


def test_the_toolkit_that_was_asked_for_wins(build: ModuleType, tmp_path: Path) -> None:
    asked, usual, path = (toolkit(tmp_path / name) for name in ("asked", "usual", "path"))

    def which(_: str) -> str:
        return str(path / "bin" / "nvcc")

    assert build.find_cuda_toolkit({"CUDA_HOME": str(asked)}, which, usual) == asked
    assert build.find_cuda_toolkit({}, which, usual) == usual
    assert build.find_cuda_toolkit({}, which, tmp_path / "none") == path
    assert build.find_cuda_toolkit({}, lambda _: None, tmp_path / "none") is None
    with pytest.raises(SystemExit, match="CUDA_HOME"):
        build.find_cuda_toolkit({"CUDA_HOME": str(tmp_path / "none")}, which, usual)


FAILS = "echo 'x.cu(3): error: this host compiler is not supported' >&2; echo more; exit 2"


def test_a_toolkit_that_works_is_used_and_one_that_does_not_is_named(
    build: ModuleType, tmp_path: Path
) -> None:
    good, bad = toolkit(tmp_path / "good", "exit 0"), toolkit(tmp_path / "bad", FAILS)
    for wanted in ({}, {"FSKERNEL_CUDA": "auto"}, {"FSKERNEL_CUDA": "1"}):
        cuda, words = build.find_cuda(wanted, find=lambda _: good)
        assert cuda.toolkit == good and f"-L{good / 'lib64'}" in cuda.link
        assert words.startswith("CUDA kernels for ") and str(good) in words and "\n" not in words
    for wanted in ({}, {"FSKERNEL_CUDA": "auto"}):
        cuda, words = build.find_cuda(wanted, find=lambda _: bad)
        assert cuda is None and words.startswith("CPU only: ") and "\n" not in words
        assert str(bad) in words and "this host compiler is not supported" in words
    with pytest.raises(SystemExit, match="FSKERNEL_CUDA=1, but .*host compiler is not supported"):
        build.find_cuda({"FSKERNEL_CUDA": "1"}, find=lambda _: bad)


def test_a_toolkit_may_be_missing_incomplete_or_unwanted(build: ModuleType, tmp_path: Path) -> None:
    cuda, words = build.find_cuda({}, find=lambda _: None)
    assert cuda is None and words.startswith("CPU only: no CUDA toolkit was found")
    with pytest.raises(SystemExit, match="FSKERNEL_CUDA=1, but no CUDA toolkit"):
        build.find_cuda({"FSKERNEL_CUDA": "1"}, find=lambda _: None)
    root = toolkit(tmp_path, "exit 0")
    (root / "lib64" / "libcudart_static.a").unlink()
    cuda, words = build.find_cuda({}, find=lambda _: root)
    assert cuda is None and "libcudart_static.a" in words
    (root / "lib64" / "libcudart.so.13").touch()
    cuda, words = build.find_cuda({}, find=lambda _: root)
    assert cuda.link[0] == str(root / "lib64" / "libcudart.so.13")
    assert "there is no libcudart_static.a" in words


def test_a_runtime_of_torchs_packages_has_to_be_of_the_toolkits_version(
    build: ModuleType, tmp_path: Path
) -> None:
    root, packages = toolkit(tmp_path / "toolkit", "exit 0"), tmp_path / "packages"
    (root / "lib64" / "libcudart_static.a").unlink()
    (root / "include").mkdir()
    (root / "include" / "cuda_runtime_api.h").write_text("#define CUDART_VERSION  13000\n")
    for major, name in [(12, "libcudart_static.a"), (13, "libcudart.so.13")]:
        (packages / f"nvidia/cu{major}/lib").mkdir(parents=True)
        (packages / f"nvidia/cu{major}/lib" / name).touch()
    link, words = build.cuda_runtime(root, [str(packages)])
    assert link[0] == str(packages / "nvidia/cu13/lib/libcudart.so.13") and link[0] in words
    (packages / "nvidia/cu13/lib/libcudart_static.a").touch()
    link, words = build.cuda_runtime(root, [str(packages)])
    assert link[:2] == [f"-L{packages / 'nvidia/cu13/lib'}", "-lcudart_static"] and words
    assert build.cuda_runtime(root, []) is None


def test_native_is_this_machines_gpu_or_a_refusal(build: ModuleType, tmp_path: Path) -> None:
    good = toolkit(tmp_path / "good", "exit 0")
    cards = [(9, 0), (8, 0), (9, 0)]
    environ = {"FSKERNEL_CUDA": "1", "FSKERNEL_CUDA_ARCHS": "native"}
    cuda, words = build.find_cuda(environ, find=lambda _: good, capabilities=lambda: cards)
    assert "architectures 80, 90 (" in words and "code=sm_90" in " ".join(cuda.command)
    with pytest.raises(SystemExit, match="torch finds none: name an architecture"):
        build.find_cuda(environ, find=lambda _: good)


def test_every_kernel_of_the_list_is_compiled_once(build: ModuleType) -> None:
    units = build.cuda_units(ROOT / "csrc" / "cuda")
    rows = [flags for source, _, flags in units if source.stem == "tensor_row"]
    names = ops.cuda_kernels()[:-1]
    assert rows == [[f"-DFSKERNEL_ROW={i}"] for i in range(len(names))] and len(rows) >= 25
    assert len({name for _, name, _ in units}) == len(units)


def test_other_requests_than_known_ones_are_refused(build: ModuleType) -> None:
    def never(_):
        raise AssertionError("nobody asked for a toolkit")

    assert build.find_cuda({"FSKERNEL_CUDA": "0"}, find=never) == (
        None,
        "CPU only: FSKERNEL_CUDA=0",
    )
    with pytest.raises(SystemExit, match="FSKERNEL_CUDA=yes: expected 0, 1 or auto"):
        build.find_cuda({"FSKERNEL_CUDA": "yes"}, find=never)


def test_architectures_become_machine_code_and_ptx(build: ModuleType) -> None:
    sm_80 = "-gencode=arch=compute_80,code=sm_80"
    sm_90a = "-gencode=arch=compute_90a,code=sm_90a"
    ptx = "-gencode=arch=compute_120,code=compute_120"
    sm_120 = "-gencode=arch=compute_120,code=sm_120"
    assert build.arch_flags("8.0, 90a;12.0+PTX") == [sm_80, sm_90a, sm_120, ptx]
    for wrong, words in [
        ("75", "or later, '75' is older"),
        ("7.5+PTX", "older"),
        ("ampere", "'ampere' is no architecture"),
        ("90+SASS", "no architecture"),
        (" ", "is empty"),
    ]:
        with pytest.raises(SystemExit, match=words):
            build.arch_flags(wrong)


def test_only_a_strict_build_takes_warnings_for_errors(build: ModuleType, tmp_path: Path) -> None:
    lax = build.nvcc_command(tmp_path, "80", ["g++-12"])
    strict = build.nvcc_command(tmp_path, "80", ["ccache", "g++"], strict=True)
    assert "all-warnings" not in lax and lax[lax.index("-ccbin") + 1] == "g++-12"
    assert "-Werror all-warnings -Xptxas -warn-spills,-warn-lmem-usage" in " ".join(strict)
    assert "-ccbin" not in strict, "nvcc takes one command, not several words"
    assert "-fmad=false" in lax, "exactness rests on it"
    good = toolkit(tmp_path / "good", "exit 0")
    for value, errors in [("1", True), ("0", False), ("", False)]:
        cuda, _ = build.find_cuda({"FSKERNEL_STRICT": value}, find=lambda _: good)
        assert ("all-warnings" in cuda.command) == errors


def test_the_real_toolkit_compiles_the_probe_and_a_bad_host_compiler_is_noticed(
    build: ModuleType, tmp_path: Path
) -> None:
    root = build.find_cuda_toolkit()
    if root is None:
        pytest.skip("no CUDA toolkit on this machine")
    cuda, words = build.find_cuda({"FSKERNEL_CUDA": "1", "FSKERNEL_CUDA_ARCHS": "90"})
    assert cuda.toolkit == root and "90" in words
    broken = executable(tmp_path / "cxx", "#!/bin/sh\necho 'error: a bad day' >&2; exit 1\n")
    cuda, words = build.find_cuda({}, [str(broken)])
    assert cuda is None and words.startswith(f"CPU only: the CUDA toolkit in {root} fails")


def test_nvcc_runs_for_what_changed_and_no_more(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    record = (
        f'out= dep=; for a; do case "$last" in -o) out=$a;; -MF) dep=$a;; esac; last=$a; '
        f'case "$a" in *.cu) echo "$a" >> {log}; source=$a;; esac; done\n'
        f'echo "$out: $source {tmp_path}/csrc/cuda/shared.cuh" > "$dep"; touch "$out"'
    )
    nvcc = toolkit(tmp_path / "toolkit", record) / "bin" / "nvcc"
    linker = executable(tmp_path / "my ld", '#!/bin/sh\nfor a; do out=$a; done; : > "$out"\n')
    folder = tmp_path / "csrc" / "cuda" / "runtime"
    folder.mkdir(parents=True)
    shared = folder.parent / "shared.cuh"
    for path in (folder / "a.cu", folder / "b.cu", shared):
        path.touch()
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(build, "ROOT", tmp_path)
    objects = tmp_path / "objects"
    objects.mkdir()

    def ran(*flags: str) -> list[str]:
        log.write_text("")
        cuda = build.Cuda(tmp_path, [], [str(nvcc), *flags])
        commands = build.Commands(["false"], [], [str(linker)], [], cuda)
        build.write_manifest(objects / "x.ninja", commands, objects, tmp_path / "x.so")
        build.run_ninja(objects / "x.ninja", "2")
        assert sorted(path.name for path in (objects / "cuda").glob("*.o")) == ["a.o", "b.o"]
        return sorted(Path(line).name for line in log.read_text().split())

    assert ran() == ["a.cu", "b.cu"]
    assert ran() == []
    os.utime(folder / "b.cu")
    assert ran() == ["b.cu"]
    assert ran("-O3", "-DA=b  $c") == ["a.cu", "b.cu"], "other flags"
    assert ran("-O3", "-DA=b  $c") == []
    os.utime(shared)
    assert ran("-O3", "-DA=b  $c") == ["a.cu", "b.cu"]
    executable(nvcc, "#!/bin/sh\nexit 7\n")
    with pytest.raises(SystemExit, match="a compiler failed"):
        ran("-O1")
