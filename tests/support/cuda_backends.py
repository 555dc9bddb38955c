"""What the CUDA kernels run on in tests: the emulator everywhere, a GPU where there is one."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from bench.emulated import backend
from fskernel.kernels import device, ops

GPU_FAULT = device.cuda_fault()
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(GPU_FAULT is not None, reason=f"no GPU: {GPU_FAULT}"),
]


def needs_gpu_marks(function):
    for mark in needs_gpu:
        function = mark(function)
    return function


@functools.cache
def emulator(order: str = "forward", late_copies: bool = True, kernel: str = ""):
    return backend.Emulated(order, late_copies, seed=7, kernel=kernel)


class OnGpu:
    """The functions of `fskernel.ops`, computed on a GPU, for tensors on the CPU."""

    def __init__(self, index: int = 0, kernel: str = ""):
        self.device, self.kernel = torch.device("cuda", index), kernel

    @property
    def last(self) -> str:
        return ops.last_kernel().removeprefix("cuda/")

    def _there(self, value):
        if isinstance(value, Tensor):
            return value.to(self.device)
        return value

    def conv(self, groups, bias, *, residual=None, **options):
        """As `ops.conv`."""
        return self._call(ops.conv, groups, bias, residual=residual, **options)

    def integrate_and_fire(self, groups, bias, membrane, *, residual=None):
        """As `ops.integrate_and_fire`."""
        v = self._there(membrane)
        found = self._call(ops.integrate_and_fire, groups, bias, v, residual=residual)
        membrane.copy_(v)
        return found

    def _call(self, op, groups, bias, *args, residual=None, **options):
        there = [(self._there(x), _moved(g, self.device)) for x, g in groups]
        if residual is not None:
            residual = self._there(residual[0]), residual[1]
        ops.set_cuda_kernel(self.kernel or None)
        try:
            y, counts = op(there, self._there(bias), *args, residual=residual, **options)
        finally:
            ops.set_cuda_kernel(None)
        return y.cpu(), counts.cpu()

    def __getattr__(self, name):
        def call(*args, **kwargs):
            return getattr(ops, name)(*map(self._there, args), **kwargs).cpu()

        return call


def _moved(group, to):
    import copy

    return copy.deepcopy(group).to(to)


def on_gpu(order: str = "", late_copies: bool = True, kernel: str = "") -> OnGpu:
    return OnGpu(kernel=kernel)


def backends():
    """Parameters for tests: how to get a backend, given the thread order that was drawn."""
    return [
        pytest.param(emulator, id="emulated"),
        pytest.param(on_gpu, id="gpu", marks=needs_gpu),
    ]
