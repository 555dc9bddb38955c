"""The kernels without torch: the standalone comparison with the C++ reference under the address and
undefined-behaviour sanitisers, and what the compiler made of the hot loops."""

import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fskernel import _C

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def kernel_test(tmp_path_factory):
    """The executable, unoptimised: quick to compile, and every access is where it is written."""
    folder = tmp_path_factory.mktemp("kernel_test")
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    isas = [f"-DFSKERNEL_HAVE_{isa.upper()}=1" for isa in _C.built_isas() if "_" not in isa]
    flags = ["-std=c++20", "-O0", "-ffp-contract=off", *isas, f"-I{CSRC}"]
    sanitisers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    linked = subprocess.run(
        [*compiler, *sanitisers, str(probe), "-o", str(folder / "probe")],
        capture_output=True,
        check=False,
    )
    if linked.returncode == 0:
        flags += sanitisers
    sources = [*sorted((CSRC / "cpu").glob("*.cpp")), ROOT / "tests" / "cpp" / "kernel_test.cpp"]
    objects = [folder / (source.stem + ".o") for source in sources]
    with ThreadPoolExecutor(2) as pool:
        jobs = [[*compiler, *flags, "-c", str(s), "-o", str(o)] for s, o in zip(sources, objects)]
        list(pool.map(run, jobs))
    run([*compiler, *flags, *map(str, objects), "-o", str(folder / "kernel_test")])
    return folder / "kernel_test"


def test_kernels_equal_the_scalar_reference(kernel_test):
    out = run([str(kernel_test), "40", "1000"])
    for isa in _C.supported_isas():
        assert re.search(rf"^{isa} +40 cases, 0 failed$", out, re.M), out


def test_a_failure_can_be_repeated_alone(kernel_test):
    assert "1 cases, 0 failed" in run([str(kernel_test), "1", "1017", "portable"])
    unknown = subprocess.run([str(kernel_test), "1", "1", "sse9"], capture_output=True, text=True)
    assert unknown.returncode == 1 and "sse9" in unknown.stdout


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
    assert len(bodies) == 10  # in memory, and fused: three outputs, three kinds of extra input
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
