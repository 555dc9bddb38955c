"""Micro-benchmarks of the fused convolution on ResNet50's layers, each checked with the oracle.

    pytest tests/kernels/test_bench_kernels.py -n0 --benchmark-group-by=group

`make test` runs each once, untimed, so that they cannot rot. extra_info holds GMAC/s and threads.
"""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.codes.weights import quantise_weights
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses


class Shape(NamedTuple):
    """One convolution of ResNet50: map size, channels, kernel, stride."""

    size: int
    channels: int
    out: int
    kernel: int
    stride: int = 1

    def __str__(self):
        text = f"{self.size}x{self.size} {self.channels}-{self.out} {self.kernel}x{self.kernel}"
        return text + (f" stride {self.stride}" if self.stride > 1 else "")


SHAPES = [
    Shape(56, 64, 64, 3),
    Shape(56, 64, 256, 1),
    Shape(56, 128, 128, 3, 2),
    Shape(28, 512, 128, 1),
    Shape(14, 256, 256, 3),
    Shape(7, 512, 512, 3),
    Shape(7, 512, 2048, 1),
]
ISAS = [isa for isa in ops.supported_isas() if not isa.endswith("_emulated")]


@pytest.fixture(autouse=True)
def one_thread_and_any_isa():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    ops.set_isa(None)


def layer(shape, K, bits=8):
    """Words, a synapse group and a bias whose membranes cover the neuron's range."""
    torch.manual_seed(shape.size * shape.out + K)
    top = 2**K - 1
    word = torch.uint8 if K <= 8 else torch.int16
    x = torch.randint(0, top + 1, (1, shape.size, shape.size, shape.channels)).to(word)
    w = torch.randn(shape.out, shape.channels, shape.kernel, shape.kernel)
    edge = (shape.kernel - 1) // 2
    geometry = Geometry((shape.kernel,) * 2, (shape.stride,) * 2, (edge,) * 4)
    weight, scale, _ = quantise_weights(w, bits, 0, top)
    m = (scale / w[0].numel() ** 0.5).float()
    return x, Synapses(weight, m, geometry, x_min=0, x_max=top), torch.full((shape.out,), 0.5)


def macs(shape):
    """Multiply-accumulates of the convolution, padding included."""
    pixels = ((shape.size - 1) // shape.stride + 1) ** 2
    return pixels * shape.channels * shape.out * shape.kernel**2


@pytest.mark.parametrize("shape, known", [(SHAPES[4], 115_605_504), (SHAPES[2], 115_605_504)])
def test_multiply_accumulates_are_those_of_the_convolution(shape, known):
    x, synapses, bias = layer(shape, 8)
    y, _ = ops.conv([(x, synapses)], bias, K=8)
    assert macs(shape) == known == y.numel() * synapses.weight[0].numel()


def report(benchmark, shape, isa):
    benchmark.extra_info["isa"] = isa
    benchmark.extra_info["threads"] = torch.get_num_threads()
    if benchmark.enabled:
        median = benchmark.stats.stats.median
        benchmark.extra_info["gmac_per_s"] = macs(shape) / median / 1e9


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("K", [8, 10])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused_convolution(benchmark, shape, K, isa):
    benchmark.group = str(shape)
    x, synapses, bias = layer(shape, K)
    ops.set_isa(isa)
    y, counts = benchmark(ops.conv, [(x, synapses)], bias, K=K)
    assert ops.last_kernel().startswith(isa)
    wanted, wanted_counts = reference.collapsed.conv([(x, synapses)], bias, K=K)
    assert torch.equal(y, wanted) and torch.equal(counts, wanted_counts)
    assert 0 < (y > 0).float().mean() < 1  # neither silent nor saturated
    report(benchmark, shape, isa)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torch_float_convolution(benchmark, shape):
    """What the fused convolution is compared with: torch fp32, channels_last, conv and ReLU."""
    benchmark.group = str(shape)
    x, synapses, _ = layer(shape, 8)
    x = x.float().permute(0, 3, 1, 2)
    w = synapses.weight.float().contiguous(memory_format=torch.channels_last)
    edge = (shape.kernel - 1) // 2
    with torch.inference_mode():
        y = benchmark(lambda: F.conv2d(x, w, None, shape.stride, edge).relu_())
    assert y.is_contiguous(memory_format=torch.channels_last) and (y >= 0).all()
    report(benchmark, shape, "torch fp32")
