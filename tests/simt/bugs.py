"""Bugs planted into the text of the tensor-core kernel, and how each must be noticed.

All of them are compiled at once: every bug is a copy of the kernel's files in a namespace of its
own, with the line numbers that it has in the original.
"""

import functools
import re
from typing import NamedTuple

from simt import build

FILES = (
    "conv_config.cuh",
    "conv_loader.cuh",
    "conv_multiply.cuh",
    "vector.cuh",
    "conv_channels.cuh",
    "integrate.cuh",
    "tensor_conv.cuh",
)
# Tile 64x64 and two synapse groups: 4 warps, 3 stages, all four products.
CONFIG = "ConvConfig<64, 64, 32, 32, 3, 1, true, 2, {bits}, {rate}>"


class Bug(NamedTuple):
    """`old`, which must occur once in the kernel's files, becomes `new`."""

    name: str
    old: str
    new: str
    # What the emulator says, and a piece of the line that it must point to; or what else differs:
    # "words", "counts", "bank conflicts".
    fault: str
    at: str = ""
    layer: str = "plain"  # of test_simt_bugs.py
    bits: int = 8  # bit-planes in a multiplication
    rate: bool = False  # a step of rate-coded neurons


_TABLE = "      x_offset_[i] = piece_ * 16 + gpu::load_shared<uint32_t>("
_LOAD_X = "gpu::load_matrix_x4(x[i],"
_LOAD_W = "gpu::load_matrix_x4(w[j],"
_NOT_WAITED = "asynchronous copy that thread"
_BARRIER = "gpu::sync_threads();  // all copies of this stage"


def _any(*pieces):
    return "|".join(pieces)


BUGS = [
    Bug(
        "no barrier behind the row table",
        "write_table<C>(args, shared, first_pixel);\n  gpu::sync_threads();",
        "write_table<C>(args, shared, first_pixel);\n",
        "race: shared read after a write|never written",
        _TABLE,
    ),
    Bug(
        "no barrier in the main loop",
        _BARRIER,
        "//",
        _any("never written", "race", _NOT_WAITED),
        _LOAD_W,
    ),
    Bug("no wait", "gpu::copy_wait<C::STAGES - 2>();", "", _NOT_WAITED, _LOAD_W),
    Bug(
        "wait off by one",
        "copy_wait<C::STAGES - 2>",
        "copy_wait<C::STAGES - 1>",
        _NOT_WAITED,
        _LOAD_W,
    ),
    Bug("no commit", "gpu::copy_commit();", "", _NOT_WAITED, _LOAD_W),
    Bug(
        "a stage in use is overwritten",
        "loader_.load(free_);",
        "loader_.load(stage_);",
        _any("race", _NOT_WAITED),
        _any(_LOAD_W, "gpu::copy_async_16_reused(x_to_", "gpu::copy_async_16(w_to_"),
    ),
    Bug(
        "a copy too early",
        "loader_.load(free_);",
        "loader_.load(stage_ + C::STAGE == C::STAGES * C::STAGE ? 0 : stage_ + C::STAGE);",
        _any("race", _NOT_WAITED),
        "gpu::copy_async_16_reused(x_to_",
    ),
    Bug(
        "a warp skips a barrier",
        _BARRIER,
        "if (gpu::thread() >= 32) gpu::sync_threads();  //",
        _any("never written", "race", "divergence", _NOT_WAITED),
        _any(_LOAD_W, _BARRIER),
    ),
    Bug(
        "threads exit early",
        "  if (args.counts && args.K) counter.finish();",
        "  if (count <= 0) return;\n  if (args.counts && args.K) counter.finish();",
        "divergence.*exited",
        _any("gpu::sync_threads();\n    for (int i = gpu::thread(); i <= last_", "gpu::reduce_add"),
        layer="ragged",
    ),
    Bug(
        "a warp function by half the warp",
        "            multiply<kProduct>(sum_[i][j], x[i]",
        "            if (gpu::thread() % 32 < 16) multiply<kProduct>(sum_[i][j], x[i]",
        "warp divergence|divergence in block",
        _any(_LOAD_X, _LOAD_W, "gpu::mma_u8s8(", "gpu::mma_s8s8("),
    ),
    Bug(
        "stage beyond the last",
        "stage_ == (C::STAGES - 1) * C::STAGE ? 0 : stage_ + C::STAGE",
        "stage_ + C::STAGE",
        "out of bounds|never written|race|misaligned",
        _any(_LOAD_X, _LOAD_W, "gpu::copy_async_16(w_to_", "gpu::copy_async_16_reused(x_to_"),
    ),
    Bug(
        "rows behind the last pixel are stored",
        "    if (first_pixel + row >= args.pixels || count <= 0) continue;",
        "    if (count <= 0) continue;",
        "race in global memory: store of a byte",
        "gpu::store_global",
    ),
    Bug(
        "rows behind the last pixel are read",
        "gpu::min(first + r, args.pixels - 1)",
        "first + r",
        "global load of 16 bytes out of bounds",
        "gpu::copy_async_16_reused(x_to_",
    ),
    Bug(
        "channels behind the last are stored",
        "i < gpu::min(N, count); ++i) {\n    const uint8_t",
        "i < N; ++i) {\n    const uint8_t",
        "race in global memory: store|global store of 1 bytes out of bounds",
        "gpu::store_global(",
        layer="ragged",
    ),
    Bug(
        "single channels pass through tiles that are in use",
        "if (args.one_by_one) gpu::sync_threads();",
        "",
        "race: shared (write after a read|read after a write)",
        layer="short",
    ),
    Bug(
        "alignment is not looked at",
        "  if (at.aligned && count >= N) {\n    if (at.form == kBytes) {",
        "  if (count >= N) {\n    if (at.form == kBytes) {",
        "misaligned global store of 8 bytes",
        "gpu::store_global(",
        layer="ragged",
    ),
    Bug(
        "a row too far",
        "gpu::load_shared<uint32_t>(table_entry<C>(shared, kY, row))",
        "gpu::load_shared<uint32_t>(table_entry<C>(shared, kY, row + 1000))",
        "out of bounds: 4 bytes",
        "table_entry<C>(shared, kY, row))",
    ),
    Bug(
        "spike counts are not cleared",
        "    gpu::store_shared<int>(shared + C::COUNTS + 4 * r, 0);\n",
        "\n",
        "update of shared memory that was never written",
        "gpu::atomic_add_shared",
    ),
    Bug(
        "no barrier before the counts are read",
        "    flush();\n    gpu::sync_threads();",
        "    flush();\n",
        "race: shared read after a write",
        "gpu::atomic_add(args_.counts",
    ),
    Bug(
        "counts across an image's border", "    if (pixel >= end_) {", "    if (false) {", "counts"
    ),
    Bug("a tile of two images counts as one", "if (first_ == last_) {", "if (true) {", "counts"),
    Bug("the last image is left out", "i <= last_ - first_", "i < last_ - first_", "counts"),
    Bug(
        "swapped fragments of x",
        "gpu::mma_u8s8(sum, x, w0, w1);",
        "{ const uint32_t y[4] = {x[0], x[2], x[1], x[3]}; gpu::mma_u8s8(sum, y, w0, w1); }",
        "words",
    ),
    Bug(
        "swapped fragments of the weights",
        "gpu::mma_u8s8(sum, x, w0, w1);",
        "gpu::mma_u8s8(sum, x, w1, w0);",
        "words",
    ),
    Bug(
        "forgotten Horner shift",
        "sum = gpu::shift_left(sum, pass.shift);",
        "(void)sum;",
        "words|overflow",
    ),
    Bug(
        "the high byte of x taken as unsigned",
        "gpu::mma_s8s8(sum, x, w0, w1);",
        "gpu::mma_u8s8(sum, x, w0, w1);",
        "words|overflow",
    ),
    Bug(
        "the low byte of a weight taken as signed",
        "gpu::mma_u8u8(sum, x, w0, w1);",
        "gpu::mma_u8s8(sum, x, w0, w1);",
        "words|overflow",
    ),
    Bug(
        "the low byte of x taken as signed",
        "gpu::mma_u8s8(sum, x, w0, w1);",
        "gpu::mma_s8s8(sum, x, w0, w1);",
        "words|overflow",
    ),
    Bug(
        "no sign in the topmost bit-planes",
        "if (kSigned) field |=",
        "if (false) field |=",
        "words|overflow",
        bits=4,
    ),
    Bug(
        "the wrong bit-planes",
        "bytes[i] >> first_bit",
        "bytes[i] >> (4 - first_bit)",
        "words|overflow",
        bits=4,
    ),
    Bug(
        "x is not swizzled on its way in",
        "((piece_ ^ (row_ / 2 & 3)) << 4)",
        "(piece_ << 4)",
        "words",
    ),
    Bug(
        "no swizzle of x at all",
        "((2 * k + lane / 16) ^ swizzle) * 16;",
        "(2 * k + lane / 16) * 16;",
        "bank conflicts",
    ),
    Bug(
        "copies of half pieces",
        "x_offset_[i] = piece_ * 16",
        "x_offset_[i] = piece_ * 8",
        "misaligned (source|global load)",
        "gpu::copy_async_16_reused(x_to_",
    ),
    Bug(
        "a k-step too many",
        "if (todo_ > 0) {",
        "if (todo_ >= 0) {",
        "exits while its asynchronous copies|out of bounds",
        "gpu::copy_async_16",
    ),
    Bug(
        "the second group's pixels are the first's",
        "shared_, group_ ? kX1 : kX0",
        "shared_, kX0",
        "words|out of bounds|overflow",
    ),
    Bug(
        "the row jump is forgotten",
        "x_ += group().order.row_jump;",
        ";",
        "words|overflow|out of bounds",
    ),
    Bug(
        "the next plane's weights are the first's",
        "pass.w_plane * group().w_plane",
        "0 * group().w_plane",
        "words|overflow",
    ),
    Bug(
        "the residual of another pixel",
        "table_entry<C>(shared, kResidual, row)",
        "table_entry<C>(shared, kResidual, row ^ 1)",
        "words",
    ),
    Bug(
        "the sum is used while it wraps",
        "i < group.passes; ++i",
        "i < group.passes - 1; ++i",
        "words|overflow|divergence|copies",
    ),
    Bug(
        "the membrane is not written back",
        "store_kept(kept, args.membrane_aligned, count, slot, u);",
        "",
        "membrane",
        rate=True,
    ),
    Bug("no reset", "if (spike) u = gpu::add(u, -1.0f);", "", "membrane", rate=True),
    Bug(
        "reset to zero, not by subtraction",
        "if (spike) u = gpu::add(u, -1.0f);",
        "if (spike) u = 0.0f;",
        "membrane",
        rate=True,
    ),
    Bug("fires above the threshold only", "u >= 1.0f", "u > 1.0f", "words", rate=True),
    Bug(
        "the membrane of the neighbouring image",
        "static_cast<int64_t>(pixel) * args.channels",
        "static_cast<int64_t>((pixel + args.out_h * args.out_w) % args.pixels) * args.channels",
        "words",
        rate=True,
    ),
    Bug(
        "membranes behind the last channel are changed",
        "i < gpu::min(N, count); ++i)\n    gpu::store_global(to + i, gpu::load_shared<float>",
        "i < N; ++i)\n    gpu::store_global(to + i, gpu::load_shared<float>",
        "race in global memory|global store of 4 bytes out of bounds",
        "gpu::store_global(to + i",
        layer="ragged",
        rate=True,
    ),
    Bug(
        "alignment of the membrane is not looked at",
        "  if (aligned && count >= N) {\n    FS_UNROLL\n    for (int i = 0; i < N; i += 4) {\n"
        "      gpu::Bytes16 v;",
        "  if (count >= N) {\n    FS_UNROLL\n    for (int i = 0; i < N; i += 4) {\n"
        "      gpu::Bytes16 v;",
        "misaligned global store of 16 bytes",
        "gpu::store_global(reinterpret_cast<gpu::Bytes16*>(to + i), v)",
        layer="odd",
        rate=True,
    ),
    Bug(
        "ceilings are dropped",
        "code[c] = fire(v[c], top[c]);",
        "code[c] = fire(v[c], args.top);",
        "words",
        layer="capped",
    ),
    Bug(
        "every channel has the ceiling of the first",
        "code[c] = fire(v[c], top[c]);",
        "code[c] = fire(v[c], top[0]);",
        "words",
        layer="floats",
    ),
    Bug(
        "floats are not scaled",
        "gpu::scaled(code[c], args.step)",
        "gpu::to_float(code[c])",
        "words",
        layer="floats",
    ),
    Bug(
        "floats leave no spikes",
        "      int spikes = 0;\n      if (args.K) {\n        FS_UNROLL\n"
        "        for (int c = 0; c < N; ++c) {\n          v[c] = gpu::scaled(code[c], args.step);\n"
        "          spikes += gpu::popcount(static_cast<uint32_t>(code[c]));",
        "      int spikes = 0;\n      if (args.K) {\n        FS_UNROLL\n"
        "        for (int c = 0; c < N; ++c) {\n          v[c] = gpu::scaled(code[c], args.step);",
        "counts",
        layer="floats",
    ),
]

# The kernels without a bug, behind the last one.
WITHOUT = [
    Bug("none", "", "", ""),
    Bug("none, 4 bit-planes", "", "", "", bits=4),
    Bug("none, rate-coded", "", "", "", rate=True),
]


def _apply(bug, texts):
    """The files with the bug in them."""
    places = [name for name in FILES if bug.old in texts[name]]
    count = sum(texts[name].count(bug.old) for name in places)
    assert count == 1, f"{bug.name}: {bug.old!r} occurs {count} times, not once"
    changed = texts[places[0]].replace(bug.old, bug.new)
    if bug.name.startswith("no swizzle"):
        pair = "((piece_ ^ (row_ / 2 & 3)) << 4)"
        loader = texts["conv_loader.cuh"].replace(pair, "(piece_ << 4)")
        return {**texts, places[0]: changed, "conv_loader.cuh": loader}
    return {**texts, places[0]: changed}


def texts():
    """The kernel's files."""
    folder = build.ROOT / "csrc" / "cuda" / "kernel"
    return {path.name: path.read_text() for path in folder.rglob("*") if path.name in FILES}


def lines_of(pieces):
    """Places, as the emulator names them, of lines that hold one of the pieces."""
    found = set()
    for name, text in texts().items():
        for piece in pieces.split("|"):
            for match in re.finditer(re.escape(piece), text):
                found.add(f"{name}:{text.count(chr(10), 0, match.start()) + 1}")
    return found


def source():
    """C++ of all planted kernels."""
    original = texts()
    parts = ['#include "neuron.h"\n#include "cuda/kernel/seal.cuh"\n#include "python_conv.h"\n']
    for number, bug in enumerate([*BUGS, *WITHOUT]):
        files = _apply(bug, original) if bug.old else original
        parts.append(f"namespace fskernel::bug{number} {{ using namespace fskernel::cuda;\n")
        for name in FILES:
            body = files[name]
            # Includes and namespaces go, lines stay.
            body = re.sub(r"^#(include|pragma) .*$", "", body, flags=re.M)
            body = body.replace("namespace fskernel::cuda {", "").replace(
                "}  // namespace fskernel::cuda", ""
            )
            parts.append(f'#line 1 "{name}"\n{body}')
        config = CONFIG.format(bits=bug.bits, rate=str(bug.rate).lower())
        parts.append(f"using Config = {config};\n}}\n")
    parts.append('#line 1 "bugs.py"\nnamespace {\nusing fskernel::cuda::TensorKernel;\n')
    parts.append(
        "template <class C>\n"
        "TensorKernel kernel(void (*kernel)(fskernel::cuda::TensorConvArgs)) {\n"
        '  return {{"bug", C::BM, C::BN, true, 2, C::PLANE_BITS, C::RATE, 1},\n'
        "          C::THREADS, C::SHARED, kernel};\n"
        "}\nconst TensorKernel kernels[] = {\n"
    )
    for number in range(len(BUGS) + len(WITHOUT)):
        bug = f"fskernel::bug{number}"
        parts.append(f"kernel<{bug}::Config>(&{bug}::tensor_conv<{bug}::Config>),\n")
    parts.append("};\n}\nPYBIND11_MODULE(simt_bugs, m) {\n  using namespace fskernel::testing;\n")
    parts.append(
        "  bind_settings(m);\n"
        '  m.def("conv", [](int number, const std::vector<Group>& groups, const Floats& bias,\n'
        "      const std::optional<Array>& residual, float r, int K, int limit, int plane_bits,\n"
        "      const std::optional<Floats>& top, double step,\n"
        "      const std::optional<Floats>& membrane, const Settings& settings) {\n"
        "    const auto choose = [&](const auto&) { return kernels[number]; };\n"
        "    return run_conv(choose, groups, bias, residual, r, K, limit, plane_bits, top, step,\n"
        "                    membrane, settings);\n"
        "  });\n}\n"
    )
    return "".join(parts)


@functools.cache
def native():
    """The module of the planted kernels; behind the last bug are the kernels without one."""
    build.FOLDER.mkdir(parents=True, exist_ok=True)
    path = build.FOLDER / "simt_bugs.cpp"
    text = source()
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    sources = str(path.relative_to(build.ROOT)), "csrc/cuda/tensor_layout.cpp"
    return build.module("simt_bugs", *sources, flags=("-O1",))
