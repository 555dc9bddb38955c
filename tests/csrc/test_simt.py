"""The emulator itself: what it must report, what it must let pass, its tensor-core fragments."""

import functools
import re
import subprocess
import zlib

import numpy as np
import pytest
from simt import build, emulated_conv
from simt.emulated_conv import ORDERS

MODES = [(order, late) for order in ORDERS for late in (False, True)]
SOURCE = "tests/simt/rules.cpp"


@functools.cache
def rules():
    return build.module("simt_rules", SOURCE, flags=("-O0",))  # they do little


NAMES = re.findall(r'^    \{"([^"]+)",', (build.ROOT / SOURCE).read_text(), re.M)
# Kernel of rules.cpp -> what the fault must say, in every thread order and copy mode.
FAULTS = {
    "no barrier": "race: shared (read after a write|write after a read) by thread|never written",
    "no sync_warp": "race: shared read after a write by thread|never written",
    "sync_warp for two warps": "race: shared read after a write by thread|never written",
    "a shuffle orders no memory": "race: shared read after a write by thread",
    "write after reads of a warp": "race: shared write after a read by several lanes of warp 0",
    "write after reads of all": "race: shared (read after a write|write after a read) by",
    "read among atomics": "race: shared (read after a write by atomics|write after a read)",
    "never written": "read of shared memory that was never written",
    "behind shared memory": "shared access out of bounds: 4 bytes at offset 128 of 128",
    "before shared memory": "shared access out of bounds: 4 bytes at offset -4 of 128",
    "misaligned": "misaligned shared access: offset 2",
    "global load behind": "global load of 4 bytes out of bounds, byte 1024 of in, which has 1024",
    "global misaligned": "misaligned global load of 8 bytes, byte 4 of in",
    "store into read-only": "global store into a read-only buffer, byte [0-9]+ of in",
    "two threads store": "race in global memory: store of a byte that was written",
    "two blocks store": r"block \(1,0,0\): race in global memory: store of a byte that was written",
    "another reads what is stored": "race in global memory: load of a byte that was written",
    "another stores what was read": "race in global memory: store of a byte that was read",
    "read-only and stored": "race in global memory: store of a byte that was read",
    "atomic and store": "race in global memory: store of a byte that was written",
    "copy not waited for": "asynchronous copy that thread [0-9]+ has not waited for",
    "copy not committed": "asynchronous copy that thread [0-9]+ has not waited for",
    "only the older copy waited for": "asynchronous copy that thread [0-9]+ has not waited for",
    "copy waited for by its thread only": "race: shared read|has not waited for|never written",
    "write over a copy": "shared write over an asynchronous copy",
    "copy over what is read": "race: shared (write after a read|read after a write) by|write over",
    "exit with a copy": "exits while its asynchronous copies are in flight",
    "two barriers": "barrier divergence: other threads wait at",
    "a barrier for half": "divergence in block .* from thread 32 on exited",
    "two warp functions": "warp divergence: (ballot|reduce_add) while other lanes wait for",
    "a warp function for half": "divergence in block .* wait for ballot at .*thread 16 on exited",
    "warp function against barrier": "divergence in block .* for reduce_add.* for barrier",
    "a sum beyond 32 bits": "overflow: the sum is 2147483648, and 32 bits say -2147483648",
    "a shift beyond 32 bits": "overflow: the sum is 4294967296, and 32 bits say 0",
}


KEPT = [name for name in NAMES if name not in FAULTS and name != "33 threads"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_rule_is_reported_with_its_place(name):
    text = (build.ROOT / SOURCE).read_text()
    lines = text[text.index(f'{{"{name}",') :].split('\n    {"')[0]
    first = text[: text.index(f'{{"{name}",')].count("\n") + 1
    places = {first + i for i, line in enumerate(lines.split("\n")) if "// HERE" in line}
    for order, late in MODES:
        with pytest.raises(rules().Fault, match=FAULTS[name]) as fault:
            rules().run(name, order, late, 3)
        file, line = re.match(r"(\S+):(\d+): ", str(fault.value)).groups()
        assert file == "rules.cpp" and int(line) in places, f"{fault.value}, not at {places}"


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_rule_is_not_reported_and_every_order_agrees(name):
    results = [rules().run(name, order, late, 5)[:4] for order, late in MODES]
    assert all(result == results[0] for result in results)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all",
        "-DFSKERNEL_SIMT_UCONTEXT=1",  # what other processors than x86-64 get
    ],
)
def test_the_standalone_emulator(flags):
    """Random layers against the C++ oracle, without Python; make sanitize runs more of them."""
    names = ("launch_test", "conv_case", "pool_readout_encode_cases", "on_emulator")
    sources = [f"tests/cuda/{name}.cpp" for name in names]
    sources += ["csrc/cuda/tensor_layout.cpp", "csrc/cuda/pack.cpp"]
    name = f"standalone{zlib.crc32(flags.encode())}.exe"
    program = build.build(name, sources, *flags.split())
    done = subprocess.run([program, "60", "1000"], capture_output=True, text=True)
    assert done.returncode == 0 and "60 cases, 0 failed" in done.stdout, done.stdout + done.stderr


def test_a_block_is_whole_warps():
    with pytest.raises(rules().Fault, match="a block of 33 threads: whole warps"):
        rules().run("33 threads", 0, True, 1)


def test_results_of_instructions():
    """Against their definitions, in Python."""
    out, *_ = rules().run("warp functions", 0, True, 1)
    assert out[:32] == [(i ^ 5) ** 2 for i in range(32)]
    assert out[32:64] == [(i + 7 if i < 25 else i) ** 2 for i in range(32)]
    assert out[64:96] == [sum(range(32)) - 40 * 32] * 32
    assert np.uint32(out[96] & 0xFFFFFFFF) == sum(1 << i for i in range(0, 32, 3))
    source = bytes.fromhex("0011223384556677")
    for i in range(32):
        nibbles = [i * 0x1357 >> 4 * j & 15 for j in range(4)]
        wanted = [source[n & 7] if n < 8 else 255 * (source[n & 7] >> 7) for n in nibbles]
        assert list((out[128 + i] & 0xFFFFFFFF).to_bytes(4, "little")) == wanted

    out, *_ = rules().run("byte products", 0, True, 1)
    for i in range(32):
        a = (0x80FF7F01 + 0x01010101 * i & 0xFFFFFFFF).to_bytes(4, "little")
        b = (0xFE80037F - 0x01020304 * i & 0xFFFFFFFF).to_bytes(4, "little")
        signed = [[x - 256 if x > 127 else x for x in v] for v in (a, b)]
        pairs = [(a, signed[1]), signed, (a, b), (signed[0], b)]
        for k, (x, w) in enumerate(pairs):
            assert out[32 * k + i] == sum(p * q for p, q in zip(x, w, strict=True))

    out, *_ = rules().run("sums wrap on their way", 0, True, 1)
    assert out[:32] == [-77 * 256] * 32

    out, *_ = rules().run("copy with zeros", 0, True, 1)
    given = np.arange(1000, 1256, dtype="<i4").tobytes()
    got = np.array(out, "<i4").tobytes()
    for i in range(32):
        n = i % 17
        assert got[16 * i : 16 * i + 16] == given[16 * i : 16 * i + n] + bytes(16 - n)
        n = i % 5
        assert got[512 + 4 * i : 516 + 4 * i] == given[4 * i : 4 * i + n] + bytes(4 - n)

    out, total, *_ = rules().run("atomics", 3, True, 1)
    assert out[0] == 128 and total == sum(range(64))


def test_bank_conflicts_and_sectors_are_counted():
    counted = {
        "words side by side": (0, 4),
        "words in two banks": (1, 8),
        "words in one bank": (31, 32),
        "one word for all": (0, 0),
        "16 bytes side by side": (0, 16),
        "16 bytes in half the banks": (4, 0),
    }
    for name, (conflicts, sectors) in counted.items():
        assert rules().run(name, 0, True, 1)[2:4] == (conflicts, sectors), name


def test_thread_orders():
    def started(order, seed=1):
        return rules().run("barrier", order, True, seed)[4]

    assert started(0) == list(range(64))
    assert started(1) == list(range(63, -1, -1))
    assert started(3) == [*range(32, 64), *range(32)]
    assert sorted(started(2)) == list(range(64))
    assert started(2, 1) == started(2, 1)
    assert len({tuple(started(2, seed)) for seed in range(8)}) > 4


# ---- fragments, derived a second time: from CUTLASS's published layouts of
# SM80_16x8x32_S32*_TN (thread and value indices, colexicographic, to offsets in a column-major
# matrix), where the emulator follows the figures of the PTX manual.


def _offset(shape, stride, index):
    total = 0
    for extent, step in zip(shape, stride, strict=True):
        total += index % extent * step
        index //= extent
    return total


def _a(lane, value):  # row, k of byte `value` of the lane's four words
    offset = _offset((4, 8), (64, 1), lane) + _offset((4, 2, 2), (16, 8, 256), value)
    return offset % 16, offset // 16


def _b(lane, value):  # k, column
    offset = _offset((4, 8), (32, 1), lane) + _offset((4, 2), (8, 128), value)
    return offset // 8, offset % 8


def _c(lane, value):  # row, column
    offset = _offset((4, 8), (32, 1), lane) + _offset((2, 2), (16, 8), value)
    return offset % 16, offset // 16


@pytest.mark.parametrize("product", ["s8s8", "s8u8", "u8s8", "u8u8"])
def test_fragments_of_the_tensor_core(product):
    random = np.random.default_rng(1)
    types = {"s8": np.int8, "u8": np.uint8}
    a = random.integers(0, 256, (16, 32), dtype=np.uint8).view(types[product[:2]])
    b = random.integers(0, 256, (32, 8), dtype=np.uint8).view(types[product[2:]])
    c = random.integers(-(2**31), 2**31, (16, 8), dtype=np.int64)
    lanes = range(32)
    a_words = np.array([[a[_a(t, v)] for v in range(16)] for t in lanes]).view(np.uint32)
    b_words = np.array([[b[_b(t, v)] for v in range(8)] for t in lanes]).view(np.uint32)
    c_words = np.array([[c[_c(t, v)] for v in range(4)] for t in lanes]).astype(np.int32)
    got = emulated_conv.native().mma(product, a_words, b_words, c_words)
    wanted = (a.astype(np.int64) @ b.astype(np.int64) + c).astype(np.int32)  # wraps
    assert got.tolist() == [[wanted[_c(t, v)] for v in range(4)] for t in lanes]


@pytest.mark.parametrize("pitch", [32, 48, 64])
def test_matrix_loads_make_those_fragments(pitch):
    """The addresses that the kernel forms: x4 for a, x2 and x4 for b, which is stored n by k."""
    random = np.random.default_rng(2)
    memory = random.integers(0, 256, (16, pitch), dtype=np.uint8)
    native = emulated_conv.native()
    lane = np.arange(32)

    def loaded(row, byte, matrices):
        rows = (row * pitch + byte).astype(np.uint32)
        return native.load_matrix(memory.reshape(-1), rows, matrices).view(np.uint8)

    got = loaded(lane % 16, lane // 16 * 16, 4)
    assert got.tolist() == [[memory[_a(t, v)] for v in range(16)] for t in lane]
    got = loaded(lane % 8, lane // 8 % 2 * 16, 2)
    assert got.tolist() == [[memory[_b(t, v)[::-1]] for v in range(8)] for t in lane]
    got = loaded(lane % 8 + lane // 16 * 8, lane // 8 % 2 * 16, 4)
    for tile in (0, 1):
        wanted = [[memory[8 * tile :][_b(t, v)[::-1]] for v in range(8)] for t in lane]
        assert got[:, 8 * tile : 8 * tile + 8].tolist() == wanted


# ---- the seam


def kernel_files():
    return sorted((build.ROOT / "csrc" / "cuda" / "kernel").rglob("*.cuh"))


def test_kernels_keep_to_the_names_of_gpu_h():
    """No assembly, no built-in of CUDA, no pointer into shared memory, no torch, no runtime."""
    banned = (
        r"\basm\b|__shared__|__device__|__global__|threadIdx|blockIdx|blockDim|gridDim|__sync|__shfl"
        r"|\batomicAdd|__ldg|__cvta|\b__[a-z0-9]+_r[nzud]\b|torch|ATen|cuda_runtime|cudaStream"
        r"|#include <(?!cstdint>)"
    )
    assert len(kernel_files()) >= 6
    for path in kernel_files():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not re.search(banned, line.split("//")[0]), f"{path.name}:{number}: {line}"


def test_every_name_of_gpu_h_has_a_twin():
    """With as many arguments, not counting the twin's place."""

    def functions(path, prefix):
        text = (build.ROOT / "csrc" / path).read_text()
        text = re.sub(r"//.*", "", text)
        if path.startswith("cuda"):
            text = text[text.index("#else") :]
        found = {}
        for name, arguments in re.findall(prefix + r"[\w:<>\s*&]*?\b(\w+)\(([^{;]*)\)\s*\{", text):
            kept = re.sub(r",?\s*Where where = [^,]*\(\)", "", re.sub(r"<[^<>]*>", "", arguments))
            found.setdefault(name, set()).add(len(kept.split(",")) if kept.strip() else 0)
        return found

    device = functions("cuda/kernel/gpu.h", r"FS_DEVICE\s+")
    host = functions("simt/gpu.h", r"(?:inline|>)\s+")
    assert len(device) > 40
    for name, counts in device.items():
        if name != "name":  # of the macro that makes the four products
            assert counts <= host.get(name, set()), f"{name}: {counts}, {host.get(name)}"
