"""Risk: networks that move numbers become others, in floats or in integers, somewhere."""

import functools

import pytest
import torch
from moved.modules import MODULES
from networks import every_word, same_everywhere, settle

import fskernel as fs
from fskernel import reference
from fskernel.tracing.trace import trace

LEAST_WORDS = 16  # of a layer, so that what is compared is not nearly empty


@functools.cache
def traced(name):
    """The module, settled, images, and its graph: exporting costs more than all else."""
    build, shape = MODULES[name]
    x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(11))
    torch.manual_seed(5)
    module = settle(build(), x)
    return module, x, trace(module, tuple(x.shape), images=x)


@pytest.mark.parametrize("name", MODULES)
@torch.no_grad()
def test_the_float_graph_is_the_same_function(name):
    module, x, graph = traced(name)
    expected = module.double()(x.double())
    module.float()
    assert (graph.forward(x.double()) - expected).abs().max() <= 1e-10 * expected.abs().max()
    others = [torch.randn(2, *[n + more for n in x.shape[2:]]) for more in (1, 5, 16)]
    for y in others if graph.size is None else ():
        y = torch.cat([y[:, None]] * x.shape[1], 1)
        expected = module(y)
        got = graph.forward(y.double())
        assert torch.allclose(got.float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_every_word_is_the_literal_networks(name):
    module, x, graph = traced(name)
    net = fs.convert(graph, x, K=7)
    words, _, _ = every_word(net, x)
    few = {n: len(w.unique()) for n, w in words.items() if len(w.unique()) < LEAST_WORDS}
    assert not few, f"hardly anything to compare: {few}"
    same_everywhere(net, x[:2] * 0.8, reference.literal)


@pytest.mark.parametrize("name", ["written", "context", "channels last", "sequences"])
def test_finer_words_come_closer_to_the_module(name):
    module, x, graph = traced(name)
    with torch.no_grad():
        expected = module(x)
    errors = [
        float((fs.convert(graph, x, K=K, weight_bits=16)(x) - expected).norm()) for K in (4, 8, 12)
    ]
    spread = float((expected - expected.mean(0)).norm())
    assert errors[2] < 0.01 * spread and errors[0] > 4 * errors[1] > 16 * errors[2]
