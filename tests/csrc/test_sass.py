"""What nvcc made of the tensor-core kernels: the machine code inside the built library.

Counts that follow from the source hold for every nvcc. Registers and the other instructions of a
main loop are exact for the nvcc that they were noted for, and bounded for any other.
"""

import functools
import re
import subprocess
from pathlib import Path

import pytest
from simt.emulated_conv import KERNELS

from bench.gpu_model import sass
from bench.gpu_model.tiles import cuobjdump
from fskernel import _C
from fskernel.kernels.info import build_facts

NVCC = "V13.0.88"
# Kernel -> registers, and other instructions of a round of the main loop, for sm_80 and sm_90;
# where the loops of the four products differ, from the least to the most.
NOTED = {
    "256x128": {80: (214, 39, 39), 90: (222, 37, 37)},
    "128x128": {80: (214, 40, 40), 90: (222, 39, 39)},
    "256x64": {80: (222, 47, 47), 90: (230, 45, 45)},
    "128x64": {80: (222, 47, 47), 90: (230, 45, 45)},
    "64x64": {80: (94, 35, 35), 90: (96, 33, 33)},
    "32x64": {80: (92, 35, 35), 90: (96, 33, 33)},
    "256x128/wide": {80: (211, 36, 36), 90: (220, 34, 34)},
    "128x128/wide": {80: (211, 37, 37), 90: (220, 36, 36)},
    "256x64/wide": {80: (218, 44, 44), 90: (224, 42, 42)},
    "128x64/wide": {80: (218, 44, 44), 90: (224, 42, 42)},
    "64x64/wide": {80: (92, 32, 32), 90: (98, 30, 30)},
    "32x64/wide": {80: (91, 32, 32), 90: (98, 30, 30)},
    "128x128/pair": {80: (207, 33, 33), 90: (212, 32, 32)},
    "128x64/pair": {80: (209, 37, 37), 90: (214, 36, 36)},
    "64x64/pair": {80: (131, 33, 33), 90: (132, 32, 32)},
    "32x64/pair": {80: (130, 33, 33), 90: (131, 32, 32)},
    "64x64/planes4": {80: (132, 65, 97), 90: (133, 64, 96)},
    "64x64/planes2": {80: (132, 65, 97), 90: (133, 64, 96)},
    "64x64/planes1": {80: (132, 65, 97), 90: (133, 64, 96)},
    "256x128/rate": {80: (210, 39, 39), 90: (218, 37, 37)},
    "128x128/rate": {80: (210, 40, 40), 90: (218, 39, 39)},
    "128x64/rate": {80: (218, 47, 47), 90: (226, 45, 45)},
    "64x64/rate": {80: (94, 35, 35), 90: (98, 33, 33)},
    "128x128/rate-pair": {80: (208, 33, 33), 90: (214, 32, 32)},
    "64x64/rate-pair": {80: (132, 33, 33), 90: (133, 32, 32)},
}
REGISTERS = 65536  # of a multiprocessor


def lines(*options):
    """What cuobjdump says about the library."""
    if not build_facts().get("cuda_toolkit"):
        pytest.skip("the library was built without CUDA kernels: install a CUDA toolkit with nvcc")
    try:
        tool = cuobjdump()
    except RuntimeError as error:
        pytest.skip(str(error))
    done = subprocess.run([tool, *options, _C.__file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def is_noted_nvcc():
    nvcc = Path(build_facts()["cuda_toolkit"]) / "bin" / "nvcc"
    return NVCC in subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout


def config(kernel):
    """The part of a mangled name that tells the row of configs.inc."""
    numbers = "pixels channels warp_pixels warp_channels stages blocks".split()
    mangled = "".join(f"Li{kernel[n]}E" for n in numbers)
    mangled += f"Lb{int(kernel['wide'])}ELi{kernel['groups']}ELi{kernel['plane_bits']}E"
    return f"tensor_convINS0_10ConvConfigI{mangled}Lb{int(kernel['rate'])}E"


@functools.cache
def machine_code(arch):
    return sass.kernels(lines("-sass", "-arch", f"sm_{arch}"))


@functools.cache
def resources(arch):
    """Mangled name -> what a kernel uses, by cuobjdump's words."""
    found = {}
    for name, uses in re.findall(
        r"Function (\S+):\s*\n\s*(REG:.*)", lines("-res-usage", "-arch", f"sm_{arch}")
    ):
        found[name] = {k: int(v) for k, v in re.findall(r"(\w+)(?:\[\d\])?:(\d+)", uses)}
    return found


def of(kernel, table):
    found = [value for name, value in table.items() if config(kernel) in name]
    assert len(found) == 1, f"{kernel['name']} is {len(found)} times in the library"
    return found[0]


def threads(kernel):
    warps = (
        kernel["pixels"] // kernel["warp_pixels"] * kernel["channels"] // kernel["warp_channels"]
    )
    return 32 * warps


each = pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k["name"])
archs = pytest.mark.parametrize("arch", [pytest.param(80, marks=pytest.mark.slow), 90])


@pytest.mark.slow
@archs
@each
def test_main_loops(arch, kernel):
    code = of(kernel, machine_code(arch))
    assert not [i for i in code if i.name.startswith(("LDL", "STL"))]
    loops = sass.main_loops(code)
    products = ["U8.S8", "S8.S8", "S8.U8", "U8.U8"] if kernel["wide"] else ["U8.S8"]
    assert len(loops) == len(products)
    rows = threads(kernel) // 4
    tiles = kernel["warp_pixels"] // 16, kernel["warp_channels"] // 8
    seen, others = [], []
    for loop in loops:
        names = {i.name for i in loop if i.kind == "IMMA"}
        assert len(names) == 1
        seen.append(names.pop().removeprefix("IMMA.16832."))
        counts = sass.counts(loop)
        assert counts["IMMA"] == 2 * tiles[0] * tiles[1]
        assert counts["LDSM"] == 2 * (tiles[0] + tiles[1] // 2)
        assert {i.name for i in loop if i.kind == "LDSM"} == {"LDSM.16.M88.4"}
        copies = [i.name for i in loop if i.kind == "LDGSTS"]
        assert copies.count("LDGSTS.E.128") == kernel["pixels"] // rows  # x
        assert copies.count("LDGSTS.E.BYPASS.128") == kernel["channels"] // rows  # weights
        assert len(copies) == counts["LDGSTS"]
        assert sum(i.name.startswith("BAR") for i in loop) == 1
        others.append(counts["other"])
    assert sorted(seen) == sorted(products)
    least, most = NOTED[kernel["name"]][arch][1:]
    if is_noted_nvcc():
        assert (min(others), max(others)) == (least, most)
    else:
        assert max(others) <= 1.3 * most


@archs
@each
def test_registers_and_memory(arch, kernel):
    """No spills, no local memory, and as many blocks on a multiprocessor as configs.inc wants."""
    uses = of(kernel, resources(arch))
    assert uses["STACK"] == uses["LOCAL"] == 0
    whole_warps = -(-uses["REG"] // 8) * 8
    assert whole_warps * threads(kernel) * kernel["blocks"] <= REGISTERS
    if is_noted_nvcc():
        assert uses["REG"] == NOTED[kernel["name"]][arch][0]


@pytest.mark.slow
@archs
def test_no_kernel_of_the_library_uses_local_memory_or_other_doubles(arch):
    """The one product in float64 is that of float output, a word times its step."""
    assert resources(arch)
    for name, uses in resources(arch).items():
        assert uses["STACK"] == uses["LOCAL"] == 0, name
    for name, code in machine_code(arch).items():
        doubles = {i.name for i in code if re.match(r"(DFMA|DADD|DMUL|DSETP|F2F)", i.name)}
        writes_floats = "conv" in name or "decode" in name
        allowed = {"DMUL", "F2F.F32.F64"} if writes_floats and "rate" not in name else set()
        assert doubles <= allowed, f"{name}: {doubles}"
