"""The tensor-core convolution in the emulator, called as the oracles are."""

import functools
from dataclasses import asdict

import torch

from bench.gpu_model import tiles
from simt import build

ORDERS = range(4)  # forward, reverse, random, greedy

KERNELS = [asdict(row) for row in tiles.rows()]
FS_KERNELS = [k for k in KERNELS if not k["rate"]]
RATE_KERNELS = [k for k in KERNELS if k["rate"]]


@functools.cache
def native():
    """The module with all kernels of configs.inc."""
    sources = ("tests/simt/module.cpp", "csrc/cuda/tensor_layout.cpp")
    return build.module("simt_kernels", *sources, flags=("-O1",))


def arguments(layer):
    """What the modules take, made of a layer."""
    residual = layer.residual
    given = [
        (
            x.contiguous().numpy(),
            s.weight.numpy(),
            s.m.numpy(),
            s.geometry.as_ints(s.pad_code),
            s.x_min,
            s.x_max,
        )
        for x, s in layer.groups
    ]
    top = None if layer.top is None else layer.top.numpy()
    codes, r = (None, 0.0) if residual is None else (residual[0].numpy(), float(residual[1]))
    rest = layer.K, layer.limit, layer.plane_bits, top, layer.step or 0.0
    return given, layer.bias.numpy(), codes, r, *rest


def fitting(layer, kernels=FS_KERNELS):
    """Names of the kernels that can run the layer, by the rules of configs.inc's columns."""
    channels = -(-len(layer.bias) // 64) * 64
    narrow = all(s.weight.dtype == torch.int8 and s.x_min >= 0 for _, s in layer.groups)
    return [
        k["name"]
        for k in kernels
        if k["plane_bits"] == (layer.plane_bits or 8)
        and len(layer.groups) <= k["groups"]
        and channels % k["channels"] == 0
        and (narrow or k["wide"])
    ]


def run(layer, kernel="", *, membrane=None, multiprocessors=132, **settings):
    """y, counts, the kernel's name and what the emulator counted.

    membrane: of rate-coded neurons, which is updated; None: FS neurons.
    """
    module = native()
    given = arguments(layer)
    kept = None if membrane is None else membrane.numpy()
    y, counts, name, report = module.conv(
        *given, kept, module.Settings(**settings), kernel, multiprocessors
    )
    return torch.from_numpy(y), torch.from_numpy(counts), name, report
