"""Risk: a backend that a network runs on takes other arguments, or computes something else."""

import inspect

import pytest
import torch
from cuda_backends import emulator
from oracle_cases import Kind, random_weights

from bench.measures.simulate import StepByStep
from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops
from fskernel.kernels.backend import Backend
from fskernel.network.synapses import Synapses

BACKENDS = {
    "kernels": lambda: ops,
    "literal": lambda: reference.literal,
    "collapsed": lambda: reference.collapsed,
    "emulated": emulator,
    "step by step": StepByStep,
}
FUNCTIONS = ("conv", "max_pool", "sum_pool", "gate", "readout", "encode", "keeps_maps")
G = Geometry((3, 2), (2, 1), (1, 0, 1, 1))


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]()


def arguments(function):
    """Names, kinds and defaults, without types and self."""
    return [
        (p.name, p.kind, p.default)
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]


def test_it_takes_what_the_protocol_says(backend):
    assert isinstance(backend, Backend)
    for name in FUNCTIONS:
        assert arguments(getattr(backend, name)) == arguments(getattr(Backend, name)), name


def test_a_wrong_signature_is_seen():
    class Wrong(StepByStep):
        def max_pool(self, x, window):
            return x

    with pytest.raises(AssertionError):
        test_it_takes_what_the_protocol_says(Wrong())


def layer(kind, out=9):
    g = torch.Generator().manual_seed(4)
    weight = random_weights((out, 5, *G.kernel), 8, kind, g)
    m = torch.rand(out, generator=g) * 0.01
    return kind.codes((2, 7, 6, 5), g), Synapses(weight, m, G, x_min=0, x_max=kind.range[1])


@pytest.mark.parametrize("K", [0, 3, 11])
@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_it_computes_what_the_oracle_does(backend, K, floats, residual):
    x, synapses = layer(Kind(6, 0))
    bias = torch.linspace(-1, 4, 9)
    options = {"K": K, "step": (0.3 if K else 1.0) if floats else None}
    if K:
        options["top"] = torch.arange(9).float() % 2**K
    if residual and not floats:
        codes = Kind(4, 0).codes((2, 3, 7, 9), torch.Generator().manual_seed(5))
        options["residual"] = codes, torch.tensor([0.25])
    wanted, spikes = reference.literal.conv([(x, synapses)], bias, **options)
    got, counts = backend.conv([(x, synapses)], bias, **options)
    assert torch.equal(counts, spikes) and got.dtype == wanted.dtype
    if isinstance(backend, StepByStep) and K == 0 and floats:  # without fma
        assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-5)
    else:
        assert torch.equal(got, wanted)
    uncounted = backend.conv([(x, synapses)], bias, count=False, **options)
    assert torch.equal(uncounted[0], got) and uncounted[1].shape == (0,)


def test_pools_encoder_and_readout(backend):
    x, _ = layer(Kind(7, 0))
    window = Geometry((2, 3), (2, 2), (0, 1, 1, 1))
    oracle = reference.literal
    assert torch.equal(backend.max_pool(x, window), oracle.max_pool(x, window))
    assert torch.equal(backend.sum_pool(x, window), oracle.sum_pool(x, window))
    image = torch.randn(2, 3, 5, 4)
    assert torch.equal(
        backend.encode(image, 900.0, limit=2000), oracle.encode(image, 900.0, limit=2000)
    )
    weight = torch.randint(-99, 99, (4, 5), dtype=torch.int8)
    given = (x, weight, torch.full((4,), 0.01), torch.arange(4.0))
    assert torch.equal(backend.readout(*given, pool=True), oracle.readout(*given, pool=True))
