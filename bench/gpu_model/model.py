"""What a layer costs on a GPU: the roofline, and the tile model of our kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.gpu_model.gpus import Gpu
from bench.gpu_model.tiles import Tile
from bench.measures.shapes import ConvShape
from fskernel.kernels import ops

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
    """Input pixels of one image that some tap meets."""
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
    """Whether the library computes it on tensor cores."""
    return all(ops.compiled().cuda_on_tensor_cores(g.ints) for g in layer.groups)


def choose(layer: Layer, batch: int, built: list[Tile], multiprocessors: int) -> Tile:
    """The tile that the library takes."""
    narrow = all(not g.signed and g.weight_bytes == 1 for g in layer.groups)
    pixels = batch * layer.first.out[0] * layer.first.out[1]
    row = ops.compiled().cuda_choose_tile(
        pixels, layer.first.outputs, len(layer.groups), narrow, multiprocessors
    )
    return next(tile for tile in built if tile.name == ops.cuda_kernels()[row])


def stored_channels(shape: ConvShape) -> int:
    """Channels of a pixel in the byte map that it reads."""
    return ops.compiled().cuda_stored_channels(shape.ints, shape.channels)


def steps(shape: ConvShape) -> int:
    """K-steps of 64 bytes in one pass."""
    return ops.compiled().cuda_steps(shape.ints, shape.channels)


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
