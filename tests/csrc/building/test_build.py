"""Building and reporting: what can go wrong before the first image is seen."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fskernel as fs
from bench import ROOT
from fskernel.kernels import info, ops

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


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def toolkit(root: Path, compile: str = "exit 1") -> Path:
    """A mock CUDA toolkit: its nvcc answers a dry run as NVIDIA's does, else it runs `compile`."""
    executable(
        root / "bin" / "nvcc",
        '#!/bin/sh\nif [ "$1" = --dryrun ]; then\n'
        'printf "#\\$ _SPACE_= \\n#\\$ _HERE_=%s\\n#\\$ TOP=..\\n" "$(dirname "$0")" >&2\n'
        f"else\n{compile}\nfi\n",
    )
    (root / "lib64").mkdir(exist_ok=True)
    (root / "lib64" / "libcudart_static.a").touch()
    return root


def run_python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --- what a build says of itself ----------------------------------------------------------------


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


def test_the_package_run_as_a_program_prints_the_report() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fskernel"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == [
        title for title in info.BuildInfo._TITLES.values()
    ]


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


def test_an_unknown_isa_is_refused_by_name() -> None:
    code = "from fskernel import ops; ops.current_isa()"
    done = run_python(code, FSKERNEL_ISA="nonsense")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "FSKERNEL_ISA" in done.stderr and "nonsense" in last, done.stderr
    assert "portable" in done.stderr, "the message should name what can be asked for"


def test_build_info_survives_an_unknown_isa() -> None:
    done = run_python("import fskernel; print(fskernel.build_info())", FSKERNEL_ISA="nonsense")
    assert done.returncode == 0, done.stderr
    assert "FSKERNEL_ISA=nonsense" in done.stdout


# --- setup.py: the platform ---------------------------------------------------------------------


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


# --- setup.py: the compiler ---------------------------------------------------------------------


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


# --- setup.py: flags of others ------------------------------------------------------------------

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


# --- setup.py: where and with what it runs ------------------------------------------------------


def run_setup(
    root: Path, compiler: str, log: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """A whole build in a copy of the repository, by a compiler that compiles nothing.

    log: every command line of the compiler is written there.
    """
    stand_in = executable(
        root.parent / "stand-in",
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {shlex.quote(str(log))}\nout= dep= last=\n'
        'for a; do case "$last" in -o) out=$a;; -MF) dep=$a;; esac; last=$a; done\n'
        'case "$*" in *-MMD*) : > "$dep"; '
        f'exec {compiler} -fPIC -x c++ -c /dev/null -o "$out";; esac\nexec {compiler} "$@"\n',
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc", "fskernel"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__", "_build.py")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            root.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", *(arguments or ["build_ext", "--inplace"])],
        env={**os.environ, "FSKERNEL_CUDA": "0", "CXX": f"env A=b {stand_in}", **environ},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_build_with_a_compiler_of_several_words_in_an_odd_folder(
    build: ModuleType, compiler: list[str], tmp_path: Path
) -> None:
    root, log = tmp_path / 'it\'s a "folder"; `x`', tmp_path / "log"
    hostile = {"CFLAGS": "-O3 -ffast-math", "CPPFLAGS": "-Ofast", "LDFLAGS": "-ffast-math"}
    done = run_setup(root, shlex.join(compiler), log, **hostile)
    assert done.returncode == 0, done.stderr
    assert list((root / "fskernel").glob("_C*.so"))
    names: dict[str, dict[str, str]] = {}
    exec((root / "fskernel" / "_build.py").read_text(), names)
    foreign = names["FACTS"]["foreign_flags"]
    assert foreign.startswith("CXX=env A=b ")
    assert foreign.endswith("; CFLAGS=-O3 -ffast-math; CPPFLAGS=-Ofast; LDFLAGS=-ffast-math")
    lines = log.read_text().splitlines()
    builds = [words for words in map(str.split, lines) if {"-MMD", "-shared"} & set(words)]
    assert len(builds) == len(build.sources()[0]) + 1
    for words in builds:  # every compilation, and the link
        last_hostile = max(i for i, w in enumerate(words) if w in ("-ffast-math", "-Ofast"))
        assert set(build.LINK_FLAGS) <= set(words[last_hostile:]), words


def test_a_compiler_of_one_word_is_taken_as_it_is(build: ModuleType, tmp_path: Path) -> None:
    assert build.one_word(["/opt/gcc-13/bin/g++"], tmp_path / "unused") == "/opt/gcc-13/bin/g++"
    assert not (tmp_path / "unused").exists()
    spaced = executable(tmp_path / "my c++", '#!/bin/sh\nprintf "$@"\n')
    for words in (["env", "A=b c", "printf"], [str(spaced)]):
        name = build.one_word(words, tmp_path / "a folder")
        command = [tmp_path / "a folder" / name, "%s", "a b"]
        assert shlex.split(name) == [name]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"a b"


@pytest.mark.parametrize("character", ["$", ":", "|", "\n", "\r"])
def test_paths_that_ninja_cannot_read_are_refused(build: ModuleType, character: str) -> None:
    words = build.path_refusal("the repository", f"/home/a{character}b")
    assert "ninja" in words and "the repository" in words and "move it to another" in words
    assert "\n" not in words and "\r" not in words
    assert build.path_refusal("the repository", "/home/a b'\"`;&#%~?*()[]") is None


def test_paths_that_the_locale_cannot_write_are_refused(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build.path_refusal("the repository", "/home/ä") is None
    monkeypatch.setattr(build.locale, "getpreferredencoding", lambda _: "ascii")
    words = build.path_refusal("the repository", "/home/ä")
    assert "ascii" in words and "LC_ALL=C.UTF-8" in words


def test_a_refused_folder_ends_the_build_in_a_sentence(tmp_path: Path) -> None:
    done = run_setup(tmp_path / "d$HOME", "false", tmp_path / "log")
    assert done.returncode == 1
    assert "d$HOME" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("fskernel cannot be built, because ninja")


def test_an_unclosed_quote_ends_the_build_in_a_sentence(tmp_path: Path) -> None:
    done = run_setup(tmp_path / "x", "false", tmp_path / "log", CXX='g++ "x')
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("CXX is 'g++ \"x'")


def test_a_tree_that_cannot_be_written_is_said_in_a_sentence(build: ModuleType) -> None:
    def failing(error: OSError) -> SystemExit:
        """As setuptools hides it."""
        try:
            try:
                try:
                    raise error
                except OSError as inner:
                    raise RuntimeError(f"could not create: {inner}") from inner
            except RuntimeError as outer:
                raise SystemExit(f"error: {outer}")  # noqa: B904
        except SystemExit as stop:
            return stop

    for number in (errno.EROFS, errno.EACCES, errno.ENOSPC):
        words = build.write_refusal(failing(OSError(number, os.strerror(number), "build/x.o")))
        assert "'build/x.o' cannot be written" in words and os.strerror(number) in words
        assert "copy it to a folder" in words
    assert build.write_refusal(failing(OSError(errno.ENOENT, "no", "x"))) is None
    assert build.write_refusal(SystemExit("nvcc failed")) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_build_in_a_tree_that_may_not_be_written(compiler: list[str], tmp_path: Path) -> None:
    root = tmp_path / "x"
    run_setup(root, "false", tmp_path / "log", "--version")
    root.chmod(0o555)
    done = run_python(
        f"import os, runpy, sys; os.chdir({str(root)!r}); sys.argv = ['setup.py', 'egg_info']\n"
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    root.chmod(0o755)
    assert "fskernel cannot be built here" in done.stderr


# --- setup.py: the CUDA toolkit -----------------------------------------------------------------


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
    record = f'for a; do case "$a" in *.cu) echo "$a" >> {log};; *.o) touch "$a";; esac; done'
    nvcc = toolkit(tmp_path / "toolkit", record) / "bin" / "nvcc"
    folder = tmp_path / "csrc" / "cuda" / "runtime"
    folder.mkdir(parents=True)
    for name in ("a.cu", "b.cu", "shared.cuh"):
        (folder / name).touch()
        os.utime(folder / name, (1e9, 1e9))
    monkeypatch.setattr(build, "ROOT", tmp_path)

    def ran(*flags: str) -> list[str]:
        log.write_text("")
        cuda = build.Cuda(tmp_path, [], [str(nvcc), *flags])
        objects = build.compile_cuda(cuda, tmp_path / "out", 2)
        assert [Path(o).name for o in objects] == ["a.o", "b.o"]
        assert all(Path(o).is_file() for o in objects)
        return sorted(Path(line).name for line in log.read_text().split())

    assert ran() == ["a.cu", "b.cu"]
    assert ran() == []
    (folder / "b.cu").touch()
    os.utime(folder / "b.cu", (4e9, 4e9))
    assert ran() == ["b.cu"]
    os.utime(folder / "b.cu", (1e9, 1e9))
    assert ran("-O3") == ["a.cu", "b.cu"], "other flags"
    os.utime(folder / "shared.cuh", (4e9, 4e9))
    assert ran("-O3") == ["a.cu", "b.cu"]
    executable(nvcc, "#!/bin/sh\nexit 7\n")
    with pytest.raises(SystemExit, match="nvcc failed on [ab]:"):
        build.compile_cuda(build.Cuda(tmp_path, [], [str(nvcc)]), tmp_path / "out", 1)


# --- .ci/preflight ------------------------------------------------------------------------------


def preflight(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / ".ci" / "preflight"), *arguments],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_preflight_accepts_the_machine_the_tests_run_on() -> None:
    done = preflight(sys.executable, "0")
    assert done.returncode == 0, done.stderr


def test_preflight_names_everything_that_is_missing_at_once(tmp_path: Path) -> None:
    done = preflight("no-such-python", str(10**12), CXX="no-such-compiler")
    assert done.returncode == 1
    assert "no-such-python" in done.stderr and "no-such-compiler" in done.stderr
    assert "disk space" in done.stderr
    assert "sudo apt-get install python3 g++" in done.stderr


def test_preflight_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    # It fails the version question and answers the one for its name.
    old = executable(
        tmp_path / "python3.6",
        '#!/bin/sh\ncase "$2" in *platform*) echo 3.6.9;; *) exit 1;; esac\n',
    )
    done = preflight(str(old), "0")
    assert done.returncode == 1 and "Python 3.6.9" in done.stderr
