"""Builds ``fskernel._C``, the one native library of fskernel.

Everything that is static (names, dependencies, tools' settings) is in pyproject.toml; this file
does what needs the machine: it looks at the platform, the compiler and the CUDA toolkit, has ninja
compile ``csrc/`` and writes down in ``fskernel/_build.py`` what it found and used.

Of torch the build needs headers and two libraries, those of the torch that this Python has, which
it does not import:

    pip install torch
    pip install --no-build-isolation .

The library asks for the stable ABI alone, so that it runs with any torch from TORCH_TARGET on. Only
what lies in csrc/python/ and csrc/module.cpp knows Python: the objects of all the others are kept
in build/objects and serve every Python.

Environment: ``CXX`` chooses the compiler (it may be several words), ``CUDA_HOME`` the CUDA toolkit,
``MAX_JOBS`` the number of compilers that run at once. ``FSKERNEL_CUDA`` is 0 (CPU only), 1 (CUDA
kernels or an error) or auto (CUDA kernels where a toolkit is found that works),
``FSKERNEL_CUDA_ARCHS`` the architectures ("80 90+PTX"; native: those of this machine's GPUs), and
with ``FSKERNEL_STRICT=1`` every warning of nvcc is an error. Flags of others (``CFLAGS``,
``NVCC_APPEND_FLAGS``, ...) come first.
``FSKERNEL_TORCH`` names the folder of a torch package, for a Python that has no torch of its own.
``FSKERNEL_LABEL=cpu`` calls a wheel's version 0.1.0+cpu, say.
``FSKERNEL_SANITIZE=address,undefined`` builds with these sanitisers, for tests.

The functions are importable without side effects; tests/csrc/building tests them.
"""

from __future__ import annotations

import errno
import importlib.util
import locale
import os
import platform
import pprint
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent


class System(NamedTuple):
    """What differs between the systems that the library is built on."""

    name: str
    machines: tuple[str, ...]  # as platform.machine() calls them
    compiler: str  # where CXX names none
    prefix: str  # in front of a flag as gcc and clang call it
    module: tuple[str, ...]  # what makes the compiler link a Python module
    linked: str  # how a library of torch's is named, in the folder {folder}
    untried: bool = False


# The CPU kernels need vectors as gcc and clang have them, which Microsoft's own compiler lacks: on
# Windows they take clang-cl, which comes with Visual Studio as an option and makes what it links.
SYSTEMS = {
    "linux": System(
        "Linux", ("x86_64", "aarch64"), "c++", "", ("-shared", "-Wl,--as-needed"), "-l{name}"
    ),
    "darwin": System(
        *("macOS", ("arm64", "x86_64"), "c++", ""),
        *(("-bundle", "-undefined", "dynamic_lookup"), "-l{name}", True),
    ),
    "win32": System(
        "Windows", ("AMD64",), "clang-cl", "/clang:", ("/LD",), "{folder}/{name}.lib", True
    ),
}

# The stable ABI of LibTorch, as of this release, is what the library asks for: a later torch, and
# an earlier one down to this, can load the same library. The form is torch's: one byte each for
# major, minor and patch number, at the top of a 64-bit number.
TORCH_TARGET = (2, 11)

STANDARD = "-std=c++20"
# What Python's own flags ask of extension modules, whichever Python it is. The library's arithmetic
# does not overflow (`make sanitize` builds without -fwrapv), but gcc makes other code without it.
BASE_FLAGS = ("-Wall", "-DNDEBUG", "-fwrapv", "-fPIC", "-O2")
# Bit-for-bit equality of every instruction set rests on these: a compiler that fuses a*b+c on its
# own rounds differently where it finds a machine instruction for it, and -ffast-math, which may be
# in the CFLAGS of an environment, does away with NaN. They stand behind all flags of others, of
# which the last one wins; csrc/float_rules.h refuses to compile where one got through after all.
# All builders of our C++ read this file. The last one is the last because clang's -fno-fast-math
# resets it.
REQUIRED_FLAGS = tuple((ROOT / "csrc" / "float.flags").read_text().split())
# For the linker: told -ffast-math, gcc links code that flushes denormals in the whole process.
LINK_FLAGS = ("-O2", *REQUIRED_FLAGS)
# The same for nvcc.
NVCC_FLOAT_FLAGS = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")
# Variables with flags of others that setuptools, compilers and nvcc read.
NVCC_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
FLAG_VARIABLES = (
    *("CXX", "CPPFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS"),
    "CCC_OVERRIDE_OPTIONS",
    *NVCC_VARIABLES,
)
# Hidden symbols keep the library's own names out of other libraries' way. The two -fno-tree flags
# keep gcc from copying accumulators between vector registers in the inner loops. The cost model
# lets it vectorise plain loops that shuffle, the encoder's. The warning is about gcc's own
# intrinsics headers, whose "undefined" vectors initialize themselves.
OPTIONAL_FLAGS = (
    "-fvisibility=hidden",
    "-fno-tree-ter",
    "-fno-tree-coalesce-vars",
    "-fvect-cost-model=dynamic",
    "-Wno-maybe-uninitialized",
)

_TRIVIAL = "int main() { return 0; }\n"

# Instruction sets are chosen inside the source files, so what matters is whether the compiler
# (and its assembler) can compile such a function, not what the building machine can run.
_ISA_SOURCE = """\
#if !defined(__x86_64__)
#error "an x86-64 instruction set"
#endif
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("{target}"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("{target}")
#endif
{type} probe({type} a, {type} b, {type} c) {{ return {body}; }}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
int main() {{ return 0; }}
"""

ISA_PROBES = {
    "avx2": _ISA_SOURCE.format(
        target="avx2,fma",
        type="__m256i",
        body="_mm256_add_epi32(c, _mm256_madd_epi16(a, b))",
    ),
    "avxvnni": _ISA_SOURCE.format(
        target="avx2,fma,avxvnni",
        type="__m256i",
        body="_mm256_dpwssd_avx_epi32(_mm256_dpbusd_avx_epi32(c, a, b), a, b)",
    ),
    "avx512vnni": _ISA_SOURCE.format(
        target="avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma",
        type="__m512i",
        body="_mm512_dpwssd_epi32(_mm512_dpbusd_epi32(c, a, b), a, b)",
    ),
}

TORCH_MISSING = (
    "fskernel is compiled against torch's headers, and this Python has no torch. Install torch "
    "first (pip install torch), then install fskernel with "
    "`pip install --no-build-isolation .`, so that the build sees that torch; "
    "or name the folder of a torch package with FSKERNEL_TORCH=."
)


def platform_refusal(system: str, machine: str) -> str | None:
    """Return why fskernel cannot be built on this platform, or None where it can.

    Args:
        system: ``sys.platform`` of the machine.
        machine: ``platform.machine()`` of the machine.
    """
    if system in SYSTEMS and machine in SYSTEMS[system].machines:
        return None
    return (
        "fskernel runs on Linux on x86-64 (tested) and aarch64 (portable kernels, untested), and "
        f"has build rules for macOS and Windows that nobody has tried; this is {system} on "
        f"{machine}, which is not supported. "
        "A Linux container or virtual machine on this computer will do."
    )


def words_of(environ: Mapping[str, str], name: str) -> list[str]:
    """Return the words of an environment variable, as a shell would split them.

    Raises:
        SystemExit: a quote is not closed, or the last character is a lone backslash.
    """
    try:
        return shlex.split(environ.get(name, ""))
    except ValueError as error:
        raise SystemExit(
            f"{name} is {environ[name]!r}, which a shell could not split into words "
            f"({str(error).lower()}): close the quote, or unset {name}."
        ) from None


def foreign_flags(environ: Mapping[str, str]) -> str:
    """Return the variables by which flags of others may reach a compiler, or "none".

    Raises:
        SystemExit: one of them cannot be split into words.
    """
    found = {name: shlex.join(words_of(environ, name)) for name in FLAG_VARIABLES}
    return "; ".join(f"{name}={value}" for name, value in found.items() if value) or "none"


# ninja has no way to write these in a path, or torch, which writes ninja's file, does not know it:
# in a folder of flags, and in one of files that are built.
_NO_FLAG = {"$": "$", "\n": "a newline", "\r": "a carriage return"}
_NO_PATH = _NO_FLAG | {":": ":", "|": "|"}


def path_refusal(what: str, folder: str, forbidden: Mapping[str, str] = _NO_PATH) -> str | None:
    """Return why fskernel cannot be built with this folder, or None where it can.

    Args:
        what: the folder is, for the sentence.
        folder: its path.
        forbidden: characters and their names.
    """
    encoding = locale.getpreferredencoding(False)
    found = [name for character, name in forbidden.items() if character in folder]
    if found:
        return (
            f"fskernel cannot be built, because ninja, which runs the compilers, cannot read "
            f"{' and '.join(found)} in the path of {what}, {folder!r}: move it to another folder."
        )
    try:
        folder.encode(encoding)
    except UnicodeEncodeError:
        return (
            f"fskernel cannot be built, because this locale's encoding, {encoding}, cannot write "
            f"the path of {what}, {folder!r}: set LC_ALL=C.UTF-8 or PYTHONUTF8=1."
        )
    return None


def write_refusal(stop: BaseException) -> str | None:
    """Return a sentence for a build that ended because it could not write, else None.

    Args:
        stop: what ended it; setuptools hides the system's error behind errors of its own.
    """
    error: BaseException | None = stop
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            where = f" {error.filename!r}" if error.filename else ""
            return (
                f"fskernel cannot be built here, because{where} cannot be written: "
                f"{error.strerror}. The build writes into build/ and fskernel/ of the repository: "
                "copy it to a folder on a disk with 500 MB free, and that you may write into."
            )
        error = error.__cause__ or error.__context__
    return None


_CANNOT_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


def spelled(flags: Sequence[str], system: System) -> list[str]:
    """Return flags as gcc and clang call them, as this system's compiler takes them."""
    common = ("-D", "-I")
    return [flag if flag.startswith(common) else system.prefix + flag for flag in flags]


def command_line(words: Sequence[str]) -> str:
    """Return words as ninja hands them on: to a shell, and on Windows to the program itself."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def compiles(compiler: Sequence[str], source: str, flags: Sequence[str] = ()) -> tuple[bool, str]:
    """Try to compile one C++ source to an object file; returns success and the compiler's words.

    Warnings count as refusals, because compilers often accept an unknown flag with only a warning.
    """
    with tempfile.TemporaryDirectory(prefix="fskernel-probe-") as folder:
        path = Path(folder, "probe.cpp")
        path.write_text(source)
        command = [*compiler, "-Werror", *flags, "-c", str(path), "-o", str(path) + ".o"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return False, str(error)
        return done.returncode == 0, (done.stderr or done.stdout).strip()


def probe_flags(compiler: Sequence[str], system: System = SYSTEMS[sys.platform]) -> list[str]:
    """Return the flags to compile with: the required ones, and of the optional ones those it knows.

    Args:
        compiler: its words. system: whose compiler it is.

    Raises:
        SystemExit: the compiler does not run, has no C++20, or refuses a required flag.
    """
    name = shlex.join(compiler)
    ok, words = compiles(compiler, _TRIVIAL)
    if not ok:
        raise SystemExit(
            f"fskernel needs a C++ compiler, and `{name}` does not compile an empty program: "
            f"{words}\nInstall one (sudo apt-get install g++) or name yours with CXX=."
        )
    standard = spelled([STANDARD], system)
    required = spelled(REQUIRED_FLAGS, system)
    for flag in (*standard, *required):
        ok, words = compiles(compiler, _TRIVIAL, [*standard, flag])
        if not ok:
            raise SystemExit(
                f"fskernel cannot be built with `{name}`, because it refuses {flag}: {words}\n"
                "gcc 11 or later and clang 14 or later have it; name one with CXX=."
            )
    known = [f for f in spelled(OPTIONAL_FLAGS, system) if compiles(compiler, _TRIVIAL, [f])[0]]
    return [*spelled(BASE_FLAGS, system), *standard, *required, *known]


def probe_isas(compiler: Sequence[str], system: System = SYSTEMS[sys.platform]) -> list[str]:
    """Return the instruction sets, of those fskernel has special kernels for, it can compile."""
    standard = spelled([STANDARD], system)
    return [isa for isa, text in ISA_PROBES.items() if compiles(compiler, text, standard)[0]]


def isa_macro(isa: str) -> str:
    """Return the macro that tells csrc/ the compiler has this instruction set."""
    return f"FSKERNEL_HAVE_{isa.upper()}"


def compiler_name(compiler: Sequence[str]) -> str:
    """Return the first line of the compiler's own version text."""
    command = [*compiler, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return lines[0].strip() if lines else shlex.join(compiler)


def toolkit_of_nvcc(nvcc: str | os.PathLike[str]) -> Path | None:
    """Return the root folder of the CUDA toolkit to which this nvcc belongs, or None.

    The folder above the command is no answer where the command is a wrapper script, as it is on
    many clusters; so nvcc itself is asked, which names its folder in a dry run.
    """
    with tempfile.TemporaryDirectory(prefix="fskernel-probe-") as folder:
        source = Path(folder, "probe.cu")
        source.write_text(_TRIVIAL)
        try:
            done = subprocess.run(
                [os.fspath(nvcc), "--dryrun", str(source)],
                capture_output=True,
                text=True,
                check=False,
                cwd=folder,
                timeout=60,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
    for line in (done.stderr + done.stdout).splitlines():
        key, equals, value = line.removeprefix("#$ ").partition("=")
        if equals and key == "_HERE_":
            root = Path(value.strip()).parent
            return root if (root / "bin" / "nvcc").is_file() else None
    return None


def find_cuda_toolkit(
    environ: Mapping[str, str] = os.environ,
    which: Callable[[str], str | None] = shutil.which,
    default: Path = Path("/usr/local/cuda"),
) -> Path | None:
    """Return the CUDA toolkit's root folder: CUDA_HOME, the usual place, or the nvcc on PATH.

    Raises:
        SystemExit: CUDA_HOME is set and holds no bin/nvcc. What a person asked for by name is not
            replaced by a guess.
    """
    home = environ.get("CUDA_HOME")
    if home:
        if (Path(home) / "bin" / "nvcc").is_file():
            return Path(home)
        raise SystemExit(
            f"CUDA_HOME is {home}, but {home}/bin/nvcc does not exist. Set CUDA_HOME to the root "
            "of a CUDA toolkit, or unset it to let the build look for one."
        )
    if (default / "bin" / "nvcc").is_file():
        return default
    nvcc = which("nvcc")
    return toolkit_of_nvcc(nvcc) if nvcc else None


# Kernels use tensor-core and asynchronous-copy instructions that came with this architecture.
OLDEST_ARCH = 80
DEFAULT_ARCHS = "80 90+PTX"

# Compiled and linked before anything else: an nvcc too old for the language, a host compiler that
# it does not support, or a toolkit without the runtime fails here and not in the middle of a build.
_CUDA_PROBE = """\
#include <cuda_runtime.h>
template <class T> requires(sizeof(T) == 4) __global__ void probe(T* x) { *x = __fadd_rd(*x, 2); }
extern "C" int launch(float* x) { return probe<<<1, 1>>>(x), cudaGetLastError(); }
"""


class Cuda(NamedTuple):
    """How the CUDA kernels of a build are compiled and linked."""

    toolkit: Path
    link: list[str]  # what links CUDA's runtime
    command: list[str]  # nvcc and its flags


def _names(archs: str) -> list[str]:
    return archs.replace(",", " ").replace(";", " ").split()


def arch_flags(archs: str) -> list[str]:
    """Return nvcc's flags for architectures such as "80 9.0+PTX" (spaces, commas or semicolons).

    Raises:
        SystemExit: none is given, or one is no architecture or too old for the kernels.
    """
    flags = []
    for name in _names(archs):
        number, plus, ptx = name.partition("+")
        digits = number.replace(".", "").rstrip("af")
        if not digits.isdecimal() or (plus and ptx.upper() != "PTX"):
            raise SystemExit(
                f"FSKERNEL_CUDA_ARCHS={archs!r}: {name!r} is no architecture; write for example "
                f"{DEFAULT_ARCHS!r}"
            )
        if int(digits) < OLDEST_ARCH:
            raise SystemExit(
                f"FSKERNEL_CUDA_ARCHS={archs!r}: the kernels need sm_{OLDEST_ARCH} (Ampere) or "
                f"later, {name!r} is older"
            )
        arch = number.replace(".", "")
        flags.append(f"-gencode=arch=compute_{arch},code=sm_{arch}")
        if plus:
            flags.append(f"-gencode=arch=compute_{arch},code=compute_{arch}")
    if not flags:
        raise SystemExit("FSKERNEL_CUDA_ARCHS is empty: unset it, or name an architecture")
    return flags


def native_archs(capabilities: Sequence[tuple[int, int]]) -> str:
    """Return the architectures of this machine's GPUs, as FSKERNEL_CUDA_ARCHS names them.

    Raises:
        SystemExit: there is no GPU.
    """
    if not capabilities:
        raise SystemExit(
            "FSKERNEL_CUDA_ARCHS=native asks for this machine's GPU, and torch finds none: name an "
            f"architecture, such as {DEFAULT_ARCHS!r}"
        )
    return " ".join(sorted({f"{major}{minor}" for major, minor in capabilities}))


def nvcc_command(
    toolkit: Path,
    archs: str,
    host: Sequence[str] = (),
    strict: bool = False,
    foreign: Sequence[str] = (),
) -> list[str]:
    """Return the nvcc command line, less the files.

    Args:
        toolkit: its root folder.
        archs: see `arch_flags`.
        host: the C++ compiler the user named; nvcc's own choice if it is empty or several words.
        strict: warnings are errors, spilled registers and local memory included.
        foreign: flags of NVCC_VARIABLES, which nvcc must not read itself: it would put them last.
    """
    command = [str(toolkit / "bin" / "nvcc"), *foreign, STANDARD, "-O3", *NVCC_FLOAT_FLAGS]
    command += arch_flags(archs)
    if len(host) == 1:
        command += ["-ccbin", host[0]]
    command += ["-Xcompiler", ",".join(("-fPIC", "-fvisibility=hidden", *REQUIRED_FLAGS, "-Wall"))]
    if strict:
        command += ["-Werror", "all-warnings", "-Xptxas", "-warn-spills,-warn-lmem-usage"]
    return command


def nvcc_environment() -> dict[str, str]:
    """Return this process's environment without NVCC_VARIABLES; see `nvcc_command`."""
    return {name: value for name, value in os.environ.items() if name not in NVCC_VARIABLES}


def cuda_runtime(toolkit: Path, packages: Sequence[str]) -> tuple[list[str], str] | None:
    """Return what links CUDA's runtime, and words about it where it is not the usual one; or None.

    The static library is wanted, with which fskernel loads where there is no CUDA at all. A toolkit
    may lack it; torch's own packages may hold one, of the toolkit's version. Else the shared one is
    taken, which has to be found again when fskernel is imported: torch has loaded one by then.

    Args:
        toolkit: its root folder.
        packages: folders of Python packages, where torch's CUDA libraries are.
    """
    target = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}.get(platform.machine(), "")
    folders = [toolkit / name for name in ("lib64", f"targets/{target}/lib", "lib")]
    header = toolkit / "include" / "cuda_runtime_api.h"
    text = header.read_text(errors="replace") if header.is_file() else ""
    found = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", text)
    major = str(int(found[1]) // 1000) if found else "*"
    if found:
        folders += [Path(p, "nvidia", f"cu{major}", "lib") for p in packages]
    for folder in folders:
        if (folder / "libcudart_static.a").is_file():
            words = "" if toolkit in folder.parents else f"CUDA's static runtime from {folder}"
            return [f"-L{folder}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"], words
    for folder in folders:
        for library in sorted(folder.glob(f"libcudart.so.{major}")):
            words = (
                f"linked against {library}, because there is no libcudart_static.a: fskernel "
                "loads only where CUDA's runtime is found"
            )
            return [str(library), f"-Wl,-rpath,{folder}"], words
    return None


def probe_cuda(command: Sequence[str], link: Sequence[str]) -> str | None:
    """Compile and link a small kernel; return what went wrong, in one line, or None."""
    with tempfile.TemporaryDirectory(prefix="fskernel-probe-") as folder:
        source = Path(folder, "probe.cu")
        source.write_text(_CUDA_PROBE)
        words = [
            word for word in link if not word.startswith("-Wl,")
        ]  # nvcc passes these otherwise
        try:
            done = subprocess.run(
                [*command, "-shared", "-cudart", "none", "-o", str(source) + ".so", str(source)]
                + words,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
                env=nvcc_environment(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return (telling or lines or [f"it ends with code {done.returncode}"])[0].replace(
        folder + "/", ""
    )


def find_cuda(
    environ: Mapping[str, str],
    host: Sequence[str] = (),
    find: Callable[[Mapping[str, str]], Path | None] | None = None,
    capabilities: Callable[[], Sequence[tuple[int, int]]] = lambda: (),
) -> tuple[Cuda | None, str]:
    """Decide whether CUDA kernels are built; returns how, or None, and one line that says it.

    Args:
        environ: FSKERNEL_CUDA, FSKERNEL_CUDA_ARCHS, FSKERNEL_STRICT and CUDA_HOME are read.
        host: the C++ compiler the user named.
        find: finds the toolkit; `find_cuda_toolkit` if None.
        capabilities: tells the compute capabilities of this machine's GPUs, for "native".

    Raises:
        SystemExit: FSKERNEL_CUDA=1 and it cannot be done, or a variable has no sensible value.
    """
    wanted = environ.get("FSKERNEL_CUDA") or "auto"
    if wanted not in ("0", "1", "auto"):
        raise SystemExit(f"FSKERNEL_CUDA={wanted}: expected 0, 1 or auto")
    if wanted == "0":
        return None, "CPU only: FSKERNEL_CUDA=0"
    toolkit = (find or find_cuda_toolkit)(environ)
    if toolkit is None:
        fault = "no CUDA toolkit was found (CUDA_HOME, /usr/local/cuda, nvcc on PATH)"
    elif (runtime := cuda_runtime(toolkit, sys.path)) is None:
        fault = f"the CUDA toolkit in {toolkit} has neither libcudart_static.a nor libcudart.so"
    else:
        archs = environ.get("FSKERNEL_CUDA_ARCHS") or DEFAULT_ARCHS
        if archs == "native":
            archs = native_archs(capabilities())
        strict = environ.get("FSKERNEL_STRICT", "0") not in ("", "0")
        foreign = [word for name in NVCC_VARIABLES for word in words_of(environ, name)]
        command = nvcc_command(toolkit, archs, host, strict, foreign)
        link, words = runtime
        fault = probe_cuda(command, link)
        if fault is None:
            names = ", ".join(_names(archs))
            words = f"toolkit in {toolkit}" + (f"; {words}" if words else "")
            return Cuda(toolkit, link, command), f"CUDA kernels for architectures {names} ({words})"
        fault = f"the CUDA toolkit in {toolkit} fails on a small kernel: {fault}"
    if wanted == "1":
        raise SystemExit(f"FSKERNEL_CUDA=1, but {fault}")
    return None, f"CPU only: {fault}"


def library_files() -> list[Path]:
    """Return the files of csrc that the library is made of.

    The emulator in csrc/simt is built by its tests only, the probe in csrc/cuda/probe is a program
    of its own.
    """
    csrc = ROOT / "csrc"
    apart = csrc / "simt", csrc / "cuda" / "probe"
    everything = (p for p in sorted(csrc.rglob("*")) if p.is_file())
    return [p for p in everything if not any(p.is_relative_to(folder) for folder in apart)]


def cuda_units(folder: Path) -> list[tuple[Path, str, list[str]]]:
    """Return what nvcc compiles, each a source, a name and flags: a unit for every kernel's row.

    Args:
        folder: csrc/cuda. runtime/tensor_row.cu makes the kernel of one row of kernel/configs.inc.
    """
    units = []
    for source in sorted((folder / "runtime").glob("*.cu")):
        if source.stem != "tensor_row":
            units.append((source, source.stem, []))
            continue
        rows = (folder / "kernel" / "configs.inc").read_text()
        names = re.findall(r'^FS_TENSOR_CONV\("([^"]+)"', rows, re.M)
        for row, name in enumerate(names):
            units.append((source, f"conv_{name.replace('/', '_')}", [f"-DFSKERNEL_ROW={row}"]))
    return units


def torch_target_macro(version: tuple[int, int] = TORCH_TARGET) -> str:
    """Return the compiler flag that fixes the release of LibTorch's stable ABI to ask for."""
    major, minor = version
    return f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}{0:012x}"


def sources() -> tuple[list[str], list[str]]:
    """Return what to compile and what it depends on, as paths relative to the repository root.

    nvcc's files are dependencies here.
    """
    files = library_files()
    compiled = [p for p in files if p.suffix == ".cpp"]
    suffixes = (".h", ".inc", ".cu", ".cuh", ".flags")
    headers = [p for p in files if p.suffix in suffixes]
    return [p.relative_to(ROOT).as_posix() for p in compiled], [
        p.relative_to(ROOT).as_posix() for p in headers
    ]


# Given to the files that ask for it alone: the objects of all the others serve a library without
# CUDA kernels, too.
CUDA_MACRO = "FSKERNEL_HAVE_CUDA"


def knows_python(source: str) -> bool:
    """Whether a file of csrc is compiled for one Python; the others serve all."""
    return source == "csrc/module.cpp" or source.startswith("csrc/python/")


class Torch(NamedTuple):
    """The torch that is compiled against."""

    folder: Path
    version: str


def find_torch(environ: Mapping[str, str]) -> Torch:
    """Return FSKERNEL_TORCH, or the torch that this Python would import; none is imported.

    Raises:
        SystemExit: there is none, or it is too old.
    """
    named = environ.get("FSKERNEL_TORCH")
    if named:
        folder = Path(named).expanduser().absolute()
    else:
        spec = importlib.util.find_spec("torch")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(TORCH_MISSING)
        folder = Path(spec.submodule_search_locations[0])
    try:
        found = re.search(r"__version__ = ['\"]([^'\"]+)", (folder / "version.py").read_text())
    except OSError:
        found = None
    if not found or not (folder / "include" / "torch" / "csrc" / "stable").is_dir():
        raise SystemExit(
            f"{f'FSKERNEL_TORCH={named}' if named else folder} is no folder of a torch package "
            "with headers of the stable ABI: name the one that holds version.py and include/, of "
            f"torch {'.'.join(map(str, TORCH_TARGET))} or later."
        )
    if tuple(int(part) for part in found[1].split(".")[:2]) < TORCH_TARGET:
        wanted = ".".join(map(str, TORCH_TARGET))
        raise SystemExit(
            f"fskernel needs torch {wanted} or later and found {found[1]}. "
            "Upgrade it first: pip install --upgrade torch"
        )
    return Torch(folder, found[1])


class Commands(NamedTuple):
    """What compiles and links: the words of each command, less the files."""

    compile: list[str]
    python: list[str]  # further ones for the files that know Python
    link: list[str]
    libraries: list[str]  # behind the objects
    cuda: Cuda | None


def write_manifest(path: Path, commands: Commands, objects: Path, library: Path) -> None:
    """Write ninja's file: every object of csrc, and the library that is linked of them.

    Args:
        path: of ninja's file. Its name without suffix is the Python's: objects of files that know
            Python go into a folder of that name.
        objects: the folder of all objects, and of what ninja remembers.
        library: what is linked.
    """
    from ninja import ninja_syntax

    csrc = ROOT / "csrc"
    with path.open("w", encoding=locale.getpreferredencoding(False)) as file:
        writer = ninja_syntax.Writer(file, width=10**9)  # wrapping would eat spaces

        def rule(name: str, words: Sequence[str], files: str, depends: str = "") -> None:
            found = {"deps": "gcc", "depfile": "$out.d"} if depends else {}
            command = [ninja_syntax.escape(command_line(words)), depends, files]
            writer.rule(name, " ".join(filter(None, command)), "$name", **found)

        # On Windows the compiler takes its dependencies' file as a flag of clang's, too.
        prefix = SYSTEMS[sys.platform].prefix
        depends = f"{prefix}-MMD {prefix}-MF{'' if prefix else ' '}$out.d"
        behind = ninja_syntax.escape(command_line(commands.libraries))
        writer.variable("builddir", ninja_syntax.escape(str(objects)))
        rule("compile", commands.compile, "$flags -c $in -o $out", depends)
        rule("compile_python", commands.compile + commands.python, "$flags -c $in -o $out", depends)
        rule("link", commands.link, f"$in -o $out {behind}")
        linked: list[str] = []

        def build(target: Path, rule: str, source: Path, name: str, **variables: str) -> None:
            writer.build(str(target), rule, str(source), variables={"name": name, **variables})
            linked.append(str(target))

        if commands.cuda:
            rule("nvcc", commands.cuda.command, "$flags -c $in -o $out", "-MMD -MF $out.d")
            for source, name, flags in cuda_units(csrc / "cuda"):
                words = command_line([*flags, f"-I{csrc}"])
                target = objects / "cuda" / f"{name}.o"
                build(target, "nvcc", source, f"nvcc {name}", flags=ninja_syntax.escape(words))
        for source in sources()[0]:
            python = knows_python(source)
            target = (objects / path.stem if python else objects) / f"{source}.o"
            kind = "compile_python" if python else "compile"
            asks = CUDA_MACRO in (ROOT / source).read_text(encoding="utf-8")
            flags = f"-D{CUDA_MACRO}=1" if asks and commands.cuda else ""
            build(target, kind, ROOT / source, source.removeprefix("csrc/"), flags=flags)
        writer.build(str(library), "link", linked, variables={"name": library.name})


def run_ninja(manifest: Path, jobs: str) -> None:
    """Compile and link what has changed, `jobs` files at once.

    Raises:
        SystemExit: a compiler fails; its words have been printed.
    """
    import ninja

    command = [str(Path(ninja.BIN_DIR) / "ninja"), "-f", str(manifest), "-j", jobs]
    environ = {"NINJA_STATUS": "   [%f/%t] ", **nvcc_environment()}
    done = subprocess.run(command, check=False, env=environ)
    if done.returncode:
        raise SystemExit("fskernel is not built: a compiler failed, and what it says stands above.")


def write_facts(folder: Path, facts: Mapping[str, object]) -> None:
    """Write the facts of a build into ``folder/_build.py``, which fskernel.build_info() reads."""
    text = pprint.pformat(dict(facts), sort_dicts=False, width=96)
    (folder / "_build.py").write_text(
        f'"""What setup.py found and used; written by every build."""\n\nFACTS = {text}\n'
    )


def sanitised(flags: Sequence[str], names: str) -> list[str]:
    """Return flags to compile and link with sanitisers ("address,undefined"), for these flags.

    Without what makes kernels fast, which costs gcc many minutes here, and without -fwrapv, which
    would define what the sanitiser looks for.
    """
    kept = [flag for flag in flags if not flag.startswith("-fno-tree")]
    return [*kept, f"-fsanitize={names}", "-fno-sanitize-recover=all", "-fno-wrapv", "-O1", "-g1"]


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the compute capability of every GPU that this Python's torch finds."""
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]


def look(environ: Mapping[str, str]) -> tuple[Commands, dict[str, object]]:
    """Look at the machine; return what compiles and links, and the facts of the build.

    Raises:
        SystemExit: it cannot be built here; the message says why and what helps.
    """
    import pybind11

    system = SYSTEMS[sys.platform]
    foreign = foreign_flags(environ)
    torch = find_torch(environ)
    named = words_of(environ, "CXX")
    compiler = named or [system.compiler]
    flags = probe_flags(compiler, system)
    isas = probe_isas(compiler, system)
    if sys.platform == "linux":
        cuda, cuda_sentence = find_cuda(environ, named, capabilities=gpu_capabilities)
    else:
        cuda, cuda_sentence = None, "CPU only: the CUDA kernels are built on Linux"
    print(f"fskernel: {cuda_sentence}")
    if system.untried:
        print(f"fskernel: nobody has built it on {system.name} yet; please tell how it went")
    flags += [torch_target_macro(), *(f"-D{isa_macro(isa)}=1" for isa in isas)]
    sanitisers = environ.get("FSKERNEL_SANITIZE")
    if sanitisers:
        flags = sanitised(flags, sanitisers)
    # Flags of others come first. The headers of the installed pybind11 come before the copy that
    # torch bundles.
    others = [w for name in ("CPPFLAGS", "CFLAGS", "CXXFLAGS") for w in words_of(environ, name)]
    includes = [ROOT / "csrc", torch.folder / "include"]
    python = [pybind11.get_include(), *dict.fromkeys(map(sysconfig.get_path, _PYTHON_HEADERS))]
    libraries = torch.folder / "lib"
    link = [*compiler, *system.module, *others, *words_of(environ, "LDFLAGS")]
    link += spelled(LINK_FLAGS, system)
    behind = [system.linked.format(folder=libraries, name=name) for name in ("torch_cpu", "c10")]
    if not system.prefix:
        behind.insert(0, f"-L{libraries}")
    if cuda:
        # A runtime inside this library is hidden, so that it does not get into the way of the one
        # that torch may bring.
        behind += [*cuda.link, "-Wl,--exclude-libs,libcudart_static.a"]
    if sanitisers:
        behind.append(f"-fsanitize={sanitisers}")
    commands = Commands(
        [*compiler, *others, *(f"-I{folder}" for folder in includes), *flags],
        [f"-I{folder}" for folder in python],
        link,
        behind,
        cuda,
    )
    facts = {
        "compiler": compiler_name(compiler),
        "flags": " ".join(flags),
        "foreign_flags": foreign,
        "isas": isas,
        "torch": torch.version,
        "torch_target": ".".join(map(str, TORCH_TARGET)),
        "python": sys.version.split()[0],
        "cuda": cuda_sentence,
        "cuda_toolkit": str(cuda.toolkit) if cuda else None,
        "cuda_command": shlex.join(cuda.command) if cuda else None,
    }
    return commands, facts


_PYTHON_HEADERS = ("include", "platinclude")


def make_build_ext(base: type) -> type:
    """Return a build_ext command that has ninja build the library, and records the facts."""

    class BuildLibrary(base):  # type: ignore[misc, valid-type]
        def run(self) -> None:
            refusal = path_refusal("the repository", str(ROOT)) or path_refusal(
                "Python's environment", sys.prefix, _NO_FLAG
            )
            if refusal:
                raise SystemExit(refusal)
            self.commands, facts = look(os.environ)
            super().run()
            in_source = self.inplace or getattr(self, "editable_mode", False)
            write_facts((ROOT if in_source else Path(self.build_lib)) / "fskernel", facts)

        def build_extension(self, extension) -> None:
            library = Path(self.get_ext_fullpath(extension.name)).absolute()
            kept = "sanitised" if os.environ.get("FSKERNEL_SANITIZE") else "objects"
            objects = ROOT / "build" / kept
            for folder in (objects, library.parent):
                folder.mkdir(parents=True, exist_ok=True)
            manifest = objects / f"{sys.implementation.cache_tag}.ninja"
            write_manifest(manifest, self.commands, objects, library)
            run_ninja(manifest, os.environ.get("MAX_JOBS") or str(usable_cores()))

    return BuildLibrary


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> None:
    """Run setuptools; the machine is looked at when the library is built."""
    from setuptools import Extension, setup
    from setuptools.command.build_ext import build_ext

    refusal = platform_refusal(sys.platform, platform.machine())
    if refusal:
        raise SystemExit(refusal)
    os.chdir(ROOT)
    compiled, headers = sources()
    label = os.environ.get("FSKERNEL_LABEL")
    try:
        setup(
            ext_modules=[Extension("fskernel._C", compiled, depends=headers)],
            cmdclass={"build_ext": make_build_ext(build_ext)},
            options={"egg_info": {"tag_build": f"+{label}"}} if label else {},
        )
    except (SystemExit, OSError) as stop:
        refusal = write_refusal(stop)
        if refusal:
            raise SystemExit(refusal) from None
        raise


if __name__ == "__main__":
    main()
