"""What a GPU could and should do on ResNet50: the roofline, and the tile model of our kernels.

    python bench/roofline.py --batch 128 --gpu h100 --out outputs/roofline

The roofline moves every tensor once and computes at the peak: a bound, not an expectation. The tile
model takes the machine code of the built kernels (instructions a k-step), the bytes that a tile
moves from the L2 cache, whole waves of blocks, and the making of byte maps. Nothing in it was
measured on a GPU; what is assumed is in GPUS and below it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import fskernel as fs
from bench import interrupt
from bench.faults import in_one_sentence
from bench.folders import ready
from bench.shapes import ConvShape, convolutions
from bench.tiles import Tile, tiles
from fskernel import ops
from fskernel.files import write_text


@dataclass(frozen=True)
class Gpu:
    """Peaks from the data sheet, and what is assumed because nobody here could measure it."""

    name: str
    arch: int
    multiprocessors: int
    ghz: float
    int8_macs: float  # a clock and multiprocessor
    memory: float  # bytes/s
    imma_clocks: float  # assumed: of one m16n8k32 product in one of the four sub-cores
    l2_bytes: float  # assumed: a clock and multiprocessor

    @property
    def int8_peak(self) -> float:
        """Multiply-accumulates a second."""
        return self.int8_macs * self.multiprocessors * self.ghz * 1e9


GPUS = {
    "a100": Gpu("A100 SXM", 80, 108, 1.41, 2048, 2.039e12, 8.0, 33.0),
    # mma.sync is said to reach 62 % of the peak that wgmma has; L2 5.5 TB/s.
    "h100": Gpu("H100 SXM", 90, 132, 1.755, 4096, 3.35e12, 4 / 0.62, 23.7),
}
# Assumed: clocks to fill and drain a block; those of a k-step before its first product; clocks of
# a launch; instructions a thread spends on one output behind the main loop (read off machine code).
FILL_DRAIN, EXPOSED = 1500, 100
LAUNCH_SECONDS = 2e-6
EPILOGUE, EPILOGUE_RESIDUAL = 8.0, 12.0


def step_clocks(tile: Tile, gpu: Gpu) -> dict[str, float]:
    """Clocks that a block's k-step keeps each unit of its multiprocessor busy."""
    bytes_in = (tile.pixels + tile.channels) * 64
    return {
        "tensor": tile.warps * tile.imma / 4 * gpu.imma_clocks,
        "issue": tile.warps * tile.issued / 4,
        "shared memory": tile.warps * tile.ldsm * 4 + bytes_in / 128,
        "L2": bytes_in / gpu.l2_bytes,
    }


# ---- one layer ----------------------------------------------------------------------------------


@dataclass
class Layer:
    """Both synapse groups of one kind of layer, and how often a network has it."""

    name: str
    groups: list[ConvShape]
    calls: int = 1

    @property
    def first(self) -> ConvShape:
        """The first group, which has the output."""
        return self.groups[0]

    def key(self) -> tuple:
        """Equal for layers that cost the same."""
        return tuple(g._replace(layer="") for g in self.groups)

    def title(self) -> str:
        """Kernel, channels and size."""
        texts = []
        for g in self.groups:
            stride = f" s{g.stride[0]}" if g.stride[0] > 1 else ""
            texts.append(f"{g.kernel[0]}x{g.kernel[1]}{stride} {g.channels}->{g.outputs}")
        residual = " + residual" if self.first.residual_bits else ""
        return " & ".join(texts) + f" @{self.first.out[0]}" + residual


def layers(shapes: Iterable[ConvShape]) -> list[Layer]:
    """Layers in order, those of equal shape put together."""
    by_name: dict[str, Layer] = {}
    for shape in shapes:
        by_name.setdefault(shape.layer, Layer(shape.layer, [])).groups.append(shape)
    merged: dict[tuple, Layer] = {}
    for layer in by_name.values():
        if layer.key() in merged:
            merged[layer.key()].calls += 1
        else:
            merged[layer.key()] = layer
    return list(merged.values())


def planes(bits: int) -> int:
    """Byte planes of a code."""
    return (bits + 7) // 8


def passes(shape: ConvShape) -> int:
    """Times that the tensor core goes over all synapses: planes of x times planes of weights."""
    return planes(shape.x_bits) * shape.weight_bytes


def pixels_read(shape: ConvShape) -> int:
    """Input pixels of one picture that some tap meets."""
    if shape.kernel == (1, 1):
        return shape.out[0] * shape.out[1]
    return shape.size[0] * shape.size[1]


def traffic(layer: Layer, batch: int, code_bytes=None, packed: bool = False) -> float:
    """Bytes of one call if every tensor moves once.

    Args:
        code_bytes: of all codes and weights; None: as they are.
        packed: codes take their bits and no more, a layout that no kernel here has.
    """

    def size(bits: int) -> float:
        if packed:
            return bits / 8
        return code_bytes if code_bytes else planes(bits)

    total = 0.0
    for g in layer.groups:
        total += batch * pixels_read(g) * g.channels * size(g.x_bits)
        taps = g.kernel[0] * g.kernel[1]
        total += g.outputs * g.channels // g.groups * taps * (code_bytes or g.weight_bytes)
    first = layer.first
    outputs = batch * first.out[0] * first.out[1] * first.outputs
    total += outputs * size(first.K or 16)
    if first.residual_bits:
        total += outputs * size(first.residual_bits)
    return total


def roofline(layer: Layer, batch: int, gpu: Gpu) -> dict[str, float]:
    """Seconds of one call at the peaks: ours, and a dense network's in fp16."""
    macs = batch * sum(g.macs for g in layer.groups)
    ours = batch * sum(g.macs * passes(g) for g in layer.groups)
    return {
        "compute": ours / gpu.int8_peak,
        "memory": traffic(layer, batch) / gpu.memory,
        "packed": max(ours / gpu.int8_peak, traffic(layer, batch, packed=True) / gpu.memory),
        "fp16": max(macs / (gpu.int8_peak / 2), traffic(layer, batch, 2) / gpu.memory),
    }


def on_tensor_cores(layer: Layer) -> bool:
    """As pack_header in csrc/cuda/pack.cpp says."""
    return all(g.groups == 1 for g in layer.groups)


def choose(layer: Layer, batch: int, built: list[Tile], multiprocessors: int) -> Tile:
    """The tile that the library takes: choose_tile of csrc/cuda/tensor_tile.h."""
    narrow = all(not g.signed and g.weight_bytes == 1 for g in layer.groups)
    padded = -(-layer.first.outputs // 64) * 64
    pixels = batch * layer.first.out[0] * layer.first.out[1]

    def time(tile: Tile) -> float:
        blocks = -(-pixels // tile.pixels) * (padded // tile.channels)
        return -(-blocks // multiprocessors) * tile.pixels * tile.channels / tile.percent

    fitting = [
        t
        for t in built
        if t.plane_bits == 8
        and not t.rate
        and len(layer.groups) <= t.groups
        and padded % t.channels == 0
        and (t.wide or narrow)
    ]
    return min(fitting, key=time)


def stored_channels(shape: ConvShape) -> int:
    """Channels of a pixel in a byte map: stored_channels of csrc/cuda/tensor_layout.cpp."""
    if shape.channels <= 8 and shape.stride[1] % 2 == 0:
        return 8
    return -(-shape.channels // 16) * 16


def steps(shape: ConvShape) -> int:
    """K-steps of 64 bytes in one pass, as step_order in csrc/cuda/tensor_layout.cpp has them."""
    stored = stored_channels(shape)
    kh, kw = shape.kernel
    if stored % 64 and (kh, kw) != (1, 1):
        return kh * -(-kw * stored // 64)
    return kh * kw * -(-stored // 64)


def map_bytes(shape: ConvShape, batch: int) -> float:
    """Bytes moved to make the byte map that the tensor-core kernel reads; 0 if x is one already."""
    if shape.x_kept:
        return 0.0
    h, w = shape.size
    halo = shape.kernel != (1, 1)
    if not halo and shape.x_bits <= 8 and shape.channels % 64 == 0:
        return 0.0
    x_bytes = 1 if shape.x_bits <= 8 else 2
    pads = (shape.kernel[0] // 2 * 2, shape.kernel[1] // 2 * 2) if halo else (0, 0)
    inside = batch * h * w * shape.channels * x_bytes
    written = batch * (h + pads[0]) * (w + pads[1]) * stored_channels(shape)
    return inside + written * planes(shape.x_bits)


def predict(layer: Layer, batch: int, built: list[Tile], gpu: Gpu) -> dict[str, object]:
    """Seconds of one call by the tile model, and what limits it."""
    bound = traffic(layer, batch) / gpu.memory
    moved = [map_bytes(g, batch) for g in layer.groups]
    moved.append(layer.first.halo_bytes * batch)  # written around the layer's own output
    maps = sum(moved) / gpu.memory
    launches = 1 + sum(m > 0 for m in moved)
    if not on_tensor_cores(layer):
        return {"kernel": "direct", "seconds": None, "limit": "not modelled", "maps": 0.0}
    tile = choose(layer, batch, built, gpu.multiprocessors)
    busy = step_clocks(tile, gpu)
    limit = max(busy, key=busy.get)
    rounds = sum(steps(g) * passes(g) for g in layer.groups)
    each = EPILOGUE_RESIDUAL if layer.first.residual_bits else EPILOGUE
    epilogue = tile.pixels * tile.channels * each / 32 / 4

    def clocks(together: int) -> float:
        """Of blocks that share a multiprocessor: by throughput, or one block's own chain."""
        alone = rounds * max(busy[limit], busy["tensor"] + EXPOSED) + epilogue + FILL_DRAIN
        return max(together * (rounds * busy[limit] + epilogue), alone)

    pixels = batch * layer.first.out[0] * layer.first.out[1]
    padded = -(-layer.first.outputs // 64) * 64
    blocks = -(-pixels // tile.pixels) * (padded // tile.channels)
    waves, rest = divmod(math.ceil(blocks / gpu.multiprocessors), tile.blocks)
    total = waves * clocks(tile.blocks) + (clocks(rest) if rest else 0)
    seconds = total / gpu.ghz / 1e9
    if seconds < bound:
        seconds, limit = bound, "memory"
    elif waves == 0:
        limit = "too few blocks"
    return {
        "kernel": tile.name,
        "seconds": seconds + maps + launches * LAUNCH_SECONDS,
        "limit": limit,
        "maps": maps,
    }


# ---- the network --------------------------------------------------------------------------------


def resnet50(K: int) -> list[ConvShape]:
    """The layers of fskernel's own ResNet50, at 224 x 224; the weights do not matter."""
    from torchvision.models import resnet50 as build

    torch.manual_seed(0)
    net = fs.convert(build().eval(), alpha=6.0, K=K)
    return convolutions(net, 224, 224)


def table(K: int, batch: int, gpu: Gpu, built: list[Tile]) -> dict[str, object]:
    """All layers of ResNet50 and their sums."""
    rows = []
    for layer in layers(resnet50(K)):
        bound, model = roofline(layer, batch, gpu), predict(layer, batch, built, gpu)
        macs = batch * sum(g.macs for g in layer.groups)
        ours = max(bound["compute"], bound["memory"])
        seconds = model["seconds"]
        rows.append(
            {
                "layer": layer.title(),
                "calls": layer.calls,
                "gmacs": macs / 1e9,
                "megabytes": traffic(layer, batch) / 1e6,
                "roofline_us": ours * 1e6,
                "bound": "compute" if bound["compute"] > bound["memory"] else "memory",
                "fp16_roofline_us": bound["fp16"] * 1e6,
                "packed_roofline_us": bound["packed"] * 1e6,
                "kernel": model["kernel"],
                "model_us": None if seconds is None else seconds * 1e6,
                "of_it_maps_us": model["maps"] * 1e6,
                "limit": model["limit"],
                "share_of_int8_peak": None if not seconds else macs / seconds / gpu.int8_peak,
            }
        )
    modelled = [r for r in rows if r["model_us"] is not None]

    def total(key: str, some: list[dict]) -> float:
        return sum(r["calls"] * r[key] for r in some)

    return {
        "K": K,
        "batch": batch,
        "gpu": asdict(gpu),
        "rows": rows,
        "roofline_us": total("roofline_us", rows),
        "fp16_roofline_us": total("fp16_roofline_us", rows),
        "packed_roofline_us": total("packed_roofline_us", rows),
        "model_us": total("model_us", modelled),
        "fp16_roofline_of_modelled_us": total("fp16_roofline_us", modelled),
        "not_modelled": [r["layer"] for r in rows if r["model_us"] is None],
    }


def markdown(found: dict[str, object]) -> str:
    """The table as Markdown."""
    lines = [
        f"K={found['K']}, batch {found['batch']}, {found['gpu']['name']}; microseconds a call",
        "",
        "| layer | calls | GMAC | MB | roofline | fp16 roofline | kernel | tile model | of it maps "
        "| limit | of int8 peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in found["rows"]:
        model = "-" if r["model_us"] is None else f"{r['model_us']:.1f}"
        share = "-" if r["share_of_int8_peak"] is None else f"{r['share_of_int8_peak']:.0%}"
        lines.append(
            f"| {r['layer']} | {r['calls']} | {r['gmacs']:.1f} | {r['megabytes']:.0f} | "
            f"{r['roofline_us']:.1f} {r['bound']} | {r['fp16_roofline_us']:.1f} | {r['kernel']} | "
            f"{model} | {r['of_it_maps_us']:.1f} | {r['limit']} | {share} |"
        )
    batch, ratio = found["batch"], found["fp16_roofline_us"] / found["roofline_us"]
    against = found["fp16_roofline_of_modelled_us"] / found["model_us"]
    missing = ", ".join(found["not_modelled"])
    lines += [
        "",
        f"All convolutions, a picture: roofline {found['roofline_us'] / batch:.2f} us; fp16's "
        f"{found['fp16_roofline_us'] / batch:.2f} us, {ratio:.2f} times ours. Tile model"
        f"{f', without {missing}' if missing else ''}: {found['model_us'] / batch:.2f} us; fp16's "
        f"roofline of the same layers is {against:.2f} times that.",
    ]
    if found["K"] > 8:
        packed = found["packed_roofline_us"]
        ratio = found["fp16_roofline_us"] / packed
        lines[-1] += (
            f" Words packed into {found['K']} bits, which no kernel here reads: roofline "
            f"{packed / batch:.2f} us; fp16's is {ratio:.2f} times that."
        )
    return "\n".join(lines)


def tile_table(built: list[Tile], gpu: Gpu) -> str:
    """Machine-code counts and clocks of every tile, as Markdown."""
    lines = [
        f"Main loop of every kernel, a warp's instructions in a k-step (64 bytes of synapses), "
        f"sm_{gpu.arch}; clocks of a block's k-step over those of the int8 peak, {gpu.name}",
        "",
        "| kernel | blocks x warps | IMMA | LDSM | LDGSTS | other | issue slots per IMMA "
        "| MAC per L2 byte | tensor | issue | shared memory | L2 | of int8 peak "
        "| instructions in all |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for t in built:
        ideal = t.pixels * t.channels * 64 / gpu.int8_macs
        clocks = {k: v / ideal for k, v in step_clocks(t, gpu).items()}
        lines.append(
            f"| {t.name} | {t.blocks}x{t.warps} | {t.imma} | {t.ldsm} | {t.ldgsts} | {t.other} | "
            f"{t.issued / t.imma:.2f} | {t.macs_per_byte:.1f} | "
            + " | ".join(f"{v:.2f}" for v in clocks.values())
            + f" | {1 / max(clocks.values()):.0%} | {t.code:,} |"
        )
    return "\n".join(lines)


@in_one_sentence("--out")
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--K", type=int, nargs="+", default=[8, 10])
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--out", type=Path, default=Path("outputs/roofline"))
    args = parser.parse_args(arguments)
    ready(args.out, "--out")
    gpu = GPUS[args.gpu]
    try:
        built = tiles(Path(ops._native().__file__), gpu.arch)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = [table(K, args.batch, gpu, built) for K in args.K]
    text = "\n\n".join([tile_table(built, gpu), *map(markdown, found)]) + "\n"
    write_text(args.out / "roofline.md", text)
    kept = {"tiles": [asdict(t) for t in built], "tables": found}
    write_text(args.out / "roofline.json", json.dumps(kept, indent=1) + "\n")
    print(text)
    print(f"written: {args.out}/roofline.md, roofline.json")
    return 0


if __name__ == "__main__":
    interrupt.raise_once()
    sys.exit(main())
