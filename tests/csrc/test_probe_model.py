"""Risk: the model of the hardware, which the emulator rests on, is not what the PTX ISA says."""

import numpy as np
import pytest
import torch
from probing import CONVOLUTIONS, SHAPES, calls
from torch.nn import functional as F


def product(call):
    """The registers after a product, by numpy from the tables of the PTX ISA."""
    n = call["n"]
    kinds = {0: ("uint8", "int8"), 1: ("int8", "int8"), 2: ("int8", "uint8"), 3: ("uint8", "uint8")}
    a_type, b_type = kinds[call["signs"]]
    shared = call["shared"]

    def operand(bits, rows):
        start, leading, stride = ((bits >> at & 0x3FFF) * 16 for at in (0, 16, 32))
        base, kind = bits >> 49 & 7, bits >> 62
        r, k = np.meshgrid(np.arange(rows), np.arange(32), indexing="ij")
        if kind == 0:  # core matrices of 8 rows of 16 bytes
            return shared[start + r // 8 * stride + r % 8 * 16 + k // 16 * leading + k % 16]
        # Bits 4... of an address are exchanged with bits 7..., as many as a row has pieces.
        address = start + r // 8 * stride + r % 8 * (256 >> kind) + k
        pieces = {1: 8, 2: 4, 3: 2}[kind]
        line = (address // 128 - base) % pieces
        piece = address // 16 % pieces
        return shared[address + 16 * ((piece ^ line) - piece)]

    if call["a_in_registers"]:
        # (warp, group, thread in group, depth half, row half, byte) -> (row, k)
        parts = call["a_registers"].view("uint8").reshape(4, 8, 4, 2, 2, 4)
        a = parts.transpose(0, 4, 1, 3, 2, 5).reshape(64, 32)
    else:
        a = operand(call["a"], 64)
    b = operand(call["b"], n)
    sums = a.view(a_type).astype("int64") @ b.view(b_type).astype("int64").T
    # rows 16w + 8i + g, columns 8j + 2t + e -> thread (w, g, t), register (j, i, e)
    laid = sums.reshape(4, 2, 8, n // 8, 4, 2).transpose(0, 2, 4, 3, 1, 5).reshape(128, n // 2)
    before = call["sums"].reshape(128, n // 2).astype("int64") * call["keep"]
    return (before + laid).astype("uint64").astype("uint32").view("int32")


@pytest.mark.parametrize("kind", ["shared", "registers"])
@pytest.mark.parametrize("n", SHAPES)
def test_products_of_the_model_are_those_of_numpy(golden, kind, n):
    found = calls(golden / "golden" / f"wgmma_{kind},n={n}.bin")
    assert {(c["signs"], c["keep"]) for c in found} == {(s, k) for s in range(4) for k in (0, 1)}
    for call in found:
        answer = call["answer"].view("int32").reshape(128, n // 2)
        assert np.array_equal(answer, product(call))
        if call["keep"]:  # some have wrapped
            before = call["sums"].reshape(answer.shape).astype("int64")
            assert (abs(answer.astype("int64") - before) > 2**31).any()


@pytest.mark.parametrize(
    "name",
    [*(f"swizzle_{w},{kind}" for w in (128, 64, 32) for kind in ("any-row", "base-set"))]
    + ["window_apart", "window_lbo=16"],
)
def test_operands_of_the_model_are_those_of_numpy(golden, name):
    found = calls(golden / "golden" / f"{name}.bin")
    assert len({c["b"] for c in found}) == len(found) or name.startswith("window")
    for call in found:
        assert np.array_equal(call["answer"].view("int32").reshape(128, -1), product(call))
    if name.startswith("swizzle"):
        width = int(name[8:].split(",")[0])
        starts = {((c["b"] & 0x3FFF) * 16 - 8192) // width for c in found}
        assert starts == set(range(8))


def swizzle(box, width):
    """Moves 16-byte pieces as CuTe's Swizzle<B, 4, 3> does: bits 7... are added to bits 4...."""
    if not width:
        return box
    bits = {128: 3, 64: 2, 32: 1}[width]
    at = np.arange(len(box))
    to = at ^ (at & ((1 << bits) - 1) << 7) >> 3
    assert np.array_equal(np.sort(to), at)  # a permutation
    moved = np.empty_like(box)
    moved[to] = box
    return moved


def tensor(call):
    return call["x"].reshape(call["x_n"], call["x_h"], call["x_w"], call["x_c"])


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_im2col_of_the_model_is_unfold(golden, name):
    kernel, stride, dilation, pad = CONVOLUTIONS[name]
    file = "cluster_im2col-multicast" if name == "multicast" else f"im2col_{name}"
    found = calls(golden / "golden" / f"{file}.bin")
    x = tensor(found[0])
    unfolded = F.unfold(
        torch.from_numpy(x.transpose(0, 3, 1, 2).astype("float32")),
        kernel,
        dilation=dilation,
        padding=pad,
        stride=stride,
    )
    # (n, channels, ky, kx, pixel) -> (ky, kx, pixels of all images, channels)
    pixels = unfolded.reshape(len(x), x.shape[3], kernel, kernel, -1).permute(2, 3, 0, 4, 1)
    pixels = pixels.flatten(2, 3).to(torch.uint8).numpy()
    out_w = (x.shape[2] + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    out_h = pixels.shape[2] // len(x) // out_w
    seen = set()
    for call in found:
        ky, kx = call["offset_h"] // dilation, call["offset_w"] // dilation
        first = (call["n"] * out_h + (call["h"] + pad) // stride) * out_w
        first += (call["w"] + pad) // stride
        part = pixels[ky, kx, first : first + call["box_pixels"], : call["box_bytes"]]
        box = np.zeros((call["box_pixels"], call["box_bytes"]), "uint8")
        box[: part.shape[0], : part.shape[1]] = part
        answer = np.split(call["answer"], call["blocks"])
        for block in answer:
            assert np.array_equal(block, swizzle(box.ravel(), call["swizzle"]))
        seen.add((first == 0, len(part) < len(box), first % (out_h * out_w) + len(part)))
    # The first tile, a ragged last one, one across two images.
    assert {True, False} == {s[0] for s in seen} and any(s[1] for s in seen)
    assert any(s[2] > out_h * out_w for s in seen)


@pytest.mark.parametrize("width", [0, 32, 64])
def test_boxes_of_the_model_are_padded_slices(golden, width):
    for call in calls(golden / "golden" / f"box_swizzle={width}.bin"):
        x = np.pad(tensor(call), ((0, 0), (40, 40), (40, 40), (0, 0)))
        h, w = call["h"] + 40, call["w"] + 40
        box = x[call["n"], h : h + call["box_h"], w : w + call["box_w"], : call["box_bytes"]]
        assert np.array_equal(call["answer"], swizzle(box.ravel(), width))
        assert call["h"] < 0 or call["w"] < 0 or call["h"] + call["box_h"] > call["x_h"]


def test_stores_of_the_model_are_clipped_slices(golden):
    for call in calls(golden / "golden" / "box_store.bin"):
        rows, columns = call["rows"], call["columns"]
        shape = call["box_rows"], call["box_columns"]
        at = swizzle(np.arange(shape[0] * shape[1], dtype="int64"), call["swizzle"])
        box = np.empty(shape[0] * shape[1], "uint8")
        box[at] = call["shared"]
        whole = np.full((rows + 100, columns + 200), 0xA5, "uint8")
        r, c = call["row"] + 50, call["column"] + 100
        whole[r : r + shape[0], c : c + shape[1]] = box.reshape(shape)
        guard = np.full(call["guard"], 0xA5, "uint8")
        inner = whole[50 : 50 + rows, 100 : 100 + columns]
        assert np.array_equal(call["answer"], np.concatenate([guard, inner.ravel(), guard]))


def test_transposed_moves_of_the_model_are_transposes(golden):
    for name in ("stmatrix", "ldmatrix"):
        (call,) = calls(golden / "golden" / f"fragments_{name}.trans.bin")
        # (lane = (row, pair), matrix, element) -> (matrix, row, column)
        registers = call["registers"] if call["store"] else call["answer"].view("uint32")
        halves = registers.view("uint16").reshape(8, 4, 4, 2).transpose(2, 0, 1, 3)
        halves = halves.reshape(4, 8, 8).transpose(0, 2, 1)
        memory = call["answer"] if call["store"] else call["memory"]
        lines = memory.view("uint16").reshape(64, 8)[call["row"] // 16].reshape(4, 8, 8)
        assert np.array_equal(lines, halves)
