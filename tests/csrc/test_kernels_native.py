"""The kernels without torch: the standalone comparison with plain loops at the edge of memory, and
what the compiler made of the hot loops."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess

import pytest

from bench import ROOT
from fskernel import _C


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def native():
    """The folder of the executables, unoptimised: every access is where it is written.

    Accesses beyond memory end in a page that may not be touched (tests/cpp/memory.h); the
    sanitisers, which take the compiler twice as long, are for `make sanitize`.
    """
    compiler = os.environ.get("CXX", "g++")
    conditional = (ROOT / "csrc" / "cpu" / "isa" / "kernels.inc").read_text()
    # Those that this processor can run; `make sanitize` compiles all of them.
    entries = re.findall(r"#if (.*)\nFSKERNEL_ISA_ENTRY\((\w+)\)", conditional)
    needs = " ".join(needed for needed, isa in entries if isa in _C.supported_isas())
    isas = sorted(set(re.findall(r"FSKERNEL_HAVE_(\w+)", needs)))
    flags = "-O0"
    folder = ROOT / "build" / "native"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["make", "-f", "tests/cpp/Makefile", "-j2", "OUT=build/native", f"CXX={compiler}"]
    command += [f"ISAS={' '.join(isas)}", f"FLAGS={flags}"]
    with open(folder / "lock", "w") as lock:  # of several test processes, one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        run([*command, "build/native/kernel_test", "build/native/fuzz"])
    return folder


def test_kernels_equal_the_scalar_reference(native):
    out = run([str(native / "kernel_test"), "60", "1000"])
    for isa in _C.supported_isas():
        assert re.search(rf"^{isa} +60 cases, 0 failed$", out, re.M), out


def test_a_failure_can_be_repeated_alone(native):
    kernel_test = str(native / "kernel_test")
    assert "1 cases, 0 failed" in run([kernel_test, "1", "1017", "portable"])
    unknown = subprocess.run([kernel_test, "1", "1", "sse9"], capture_output=True, text=True)
    assert unknown.returncode == 1 and "sse9" in unknown.stdout


def test_random_cases_at_the_edge_of_memory(native):
    out = run([str(native / "fuzz"), "--cases", "100", "--seed", "2000"])
    for isa in _C.supported_isas():
        assert re.search(rf"^{isa} +100 cases$", out, re.M), out


@pytest.mark.parametrize("fault", ["wrong", "read", "write"])
def test_a_planted_fault_is_reported_with_its_case(native, fault):
    """A wrong output, a read and a write beside it, all behind the kernel's back."""

    def fuzz(*arguments):
        command = [str(native / "fuzz"), "--isa", "portable", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = fuzz("--cases", "100", "--seed", "3000", "--plant", fault)
    assert found.returncode == 1, found.stdout
    case = re.search(r"FAILED.*\n  make fuzz CASE=([0-9a-f]+)", found.stdout)[1]
    assert fuzz("--case", case, "--plant", fault).returncode == 1
    assert fuzz("--case", case).returncode == 0


@pytest.fixture(scope="module")
def assembly():
    """The built library's functions, by demangled name."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump is missing: install binutils")
    text = run(["objdump", "-d", "-C", "--no-show-raw-insn", _C.__file__])
    functions = {}
    for block in text.split("\n\n"):
        head = re.match(r"[0-9a-f]+ <(.*)>:", block.strip())
        if head:
            functions.setdefault(head[1], []).extend(block.strip().splitlines()[1:])
    return functions


def hot_loop(lines, mnemonic):
    """The smallest backward jump's range that holds all the most of an instruction."""
    at = [int(line.split(":")[0], 16) for line in lines]
    best = (0, 0, [])
    for i, line in enumerate(lines):
        jump = re.search(r"\tj\w+ +([0-9a-f]+) ", line)
        if jump and at[0] <= int(jump[1], 16) < at[i]:
            body = lines[next(k for k in range(len(at)) if at[k] >= int(jump[1], 16)) : i + 1]
            count = sum(mnemonic in each for each in body)
            best = max(best, (count, -len(body), body), key=lambda b: b[:2])
    return best[2]


@pytest.mark.parametrize(
    "isa, tile, mnemonic, count",
    [
        ("avx512vnni", "Avx512Vnni, 7, 4, 0", "vpdpbusd", 28),
        ("avx512vnni", "Avx512Vnni, 7, 4, 1", "vpdpwssd", 28),
        ("avxvnni", "AvxVnni, 6, 2, 0", "vpdpbusd", 12),
        ("avxvnni", "AvxVnni, 6, 2, 1", "vpdpwssd", 12),
        ("avx2", "Avx2, 6, 2, 1", "vpmaddwd", 12),
    ],
)
def test_hot_loops_keep_their_sums_in_registers(assembly, isa, tile, mnemonic, count):
    if isa not in _C.built_isas():
        pytest.skip(f"the compiler could not build {isa}")
    assert any(mnemonic in line for body in assembly.values() for line in body)
    ours = re.compile(rf"(accumulate|fused)<.*::{tile}, (false|\d, \d)>")
    bodies = {name: body for name, body in assembly.items() if ours.search(name)}
    if not bodies:
        pytest.skip("the library is stripped: its functions have no names")
    # In memory, and fused: every output (full bytes only where stores saturate) with three kinds of
    # extra input, and without: floats, and both widths of shaped neurons' words (and full bytes).
    assert len(bodies) == (5 + 3 * 4 if isa == "avx512vnni" else 4 + 3 * 3)
    for name, body in bodies.items():
        loop = hot_loop(body, mnemonic)
        assert sum(mnemonic in line for line in loop) == count, name
        spilled = [line for line in loop if "%rsp" in line or "%rbp)" in line]
        assert not spilled, name + "\n" + "\n".join(spilled)


def test_wide_instructions_stay_in_their_files(assembly):
    """No code of a newer instruction set may be linked into what runs everywhere."""
    own = re.compile(r"Avx2|AvxVnni|Avx512Vnni|anonymous")
    for name, body in assembly.items():
        if not own.search(name):
            assert not any("%zmm" in line or "%ymm" in line for line in body), name
