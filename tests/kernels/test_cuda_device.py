"""Asking for a GPU: precise words where something is missing, and nothing in the way of the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fskernel as fs
from bench import ROOT
from fskernel.codes.geometry import Geometry
from fskernel.kernels import device, native, ops
from fskernel.network.synapses import Synapses

GPU = {"runtime": 13000, "driver": 13000, "devices": 2, "words": "no error"}


@pytest.fixture
def machine(monkeypatch):
    """Plays a machine: machine(state, torch's CUDA version, compute capability)."""

    def play(state, cuda="13.0", capability=(9, 0)):
        monkeypatch.setattr(device, "_usable", set())
        monkeypatch.setattr(native, "cuda_state", lambda: state)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(
            native, "cuda_device", lambda i: ("Test GPU", *capability, 132, 1 << 36)
        )

    return play


def test_what_is_missing_is_named(machine) -> None:
    machine(None)
    assert "built without CUDA kernels" in device.cuda_fault()
    assert "FSKERNEL_CUDA=1" in device.cuda_fault()
    machine(GPU, cuda=None)
    assert f"this torch ({torch.__version__}) was built without CUDA" in device.cuda_fault()
    machine(GPU | {"driver": 0, "devices": 0, "words": "insufficient"})
    assert "no NVIDIA driver" in device.cuda_fault()
    machine(GPU | {"driver": 12080, "devices": 0, "words": "no CUDA-capable device is detected"})
    assert "(for CUDA 12.8), but no GPU" in device.cuda_fault()
    assert "no CUDA-capable device is detected" in device.cuda_fault()
    machine(GPU, capability=(7, 5))
    assert "Test GPU, has compute capability 7.5" in device.cuda_fault()
    machine(GPU)
    assert device.cuda_fault() is None and device.cuda_fault("cuda:1") is None
    assert "there is no GPU 2: this machine has 2" in device.cuda_fault("cuda:2")


def test_modules_say_it_when_they_shall_go_to_a_gpu(machine) -> None:
    layer = fs.FSConv2d(3, 4, 3, alpha=1.0)
    machine(GPU | {"driver": 0, "devices": 0})
    for move in (
        lambda: layer.cuda(),
        lambda: layer.cuda(0),
        lambda: layer.to("cuda"),
        lambda: layer.to(device=torch.device("cuda", 0)),
        lambda: layer.to(torch.empty(0, device="cpu")).to("cuda", torch.float32),
    ):
        with pytest.raises(ValueError, match="the layer shall go to cuda.*no NVIDIA driver"):
            move()
    with pytest.raises(ValueError, match="fskernel runs on 'cpu' and 'cuda'"):
        layer.to("xpu")
    assert layer.to("cpu") is layer and layer.to(torch.float64).weight.dtype == torch.float64


def test_the_stream_of_torch_is_found_by_every_way_it_has() -> None:
    if ops.cuda_state() is None:
        pytest.skip("built without CUDA kernels")
    ways = set(ops.compiled().cuda_streams)
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    assert ("native" in ways) == (version >= (2, 13)), "torch's stable ABI has it since 2.13"
    # A CPU-only torch has no libtorch_cuda, so nothing may be found there.
    assert ("shim" in ways) == (torch.version.cuda is not None)


def test_the_library_needs_no_cuda_library_and_imports_without_a_gpu() -> None:
    library = Path(ops.compiled().__file__)
    assert b"libcudart.so" not in library.read_bytes(), "CUDA's runtime is linked statically"
    code = "import fskernel as f, torch; print(f.encode(torch.ones(1, 1), f.FSNeuron(8, 2.0)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_fakes_know_shapes_and_devices_without_a_gpu() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    o = torch.ops.fskernel
    geometry = Geometry((3, 3), (2, 1), (1, 1, 0, 0)).as_ints()
    with FakeTensorMode():
        weight = torch.empty(8, 16, 3, 3, dtype=torch.int8, device="cuda:1")
        packed = o.pack(weight, geometry, 0, 255)
        x = torch.empty(2, 5, 6, 16, dtype=torch.uint8, device="cuda:1")
        m = torch.empty(8, device="cuda:1")
        one = (x, packed, m, geometry, m, None, None, None, [], None, None)
        y, counts = o.conv(*one, 10, 127, 0)
        z, fired = o.integrate_and_fire(*one, torch.empty(2, 3, 4, 8, device="cuda:1"))
    on_cpu = Synapses(
        torch.ones(8, 16, 3, 3, dtype=torch.int8), torch.ones(8), Geometry((3, 3)), x_min=0, x_max=9
    )
    assert packed.shape != on_cpu.packed().shape, "another layout than the CPU's"
    assert (y.shape, y.dtype) == ((2, 3, 4, 8), torch.int16)
    assert (z.shape, z.dtype) == ((2, 3, 4, 8), torch.uint8)
    for t in (packed, y, counts, z, fired):
        assert t.device == torch.device("cuda", 1)


def test_a_kernel_can_be_forced_by_name_only() -> None:
    assert "direct" in ops.cuda_kernels() and "256x128" in ops.cuda_kernels()
    with pytest.raises(ValueError, match="there is no CUDA kernel '1x1': there are 256x128"):
        ops.set_cuda_kernel("1x1")
    if ops.cuda_state() is not None:
        ops.set_cuda_kernel("direct")
        ops.set_cuda_kernel(None)
