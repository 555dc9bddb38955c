"""Risk: the caller's dtype, device, autocast or inference mode change a network, or are changed."""

import logging
import os

import pytest
import torch
import torch.nn.functional as F
from networks import Ragged, images, settle
from traced import Net, X

import fskernel as fs
from fskernel.torch_rules.neutral import _default_dtype
from fskernel.tracing.trace import trace

OPTIONS = dict(alpha="logits", correct="least_squares", weight_bits="auto")


@pytest.fixture(scope="module")
def usual():
    """A module, images, and the answers of two networks made of it with torch's own settings."""
    torch.manual_seed(0)
    x = images(4, 37)
    module = settle(Ragged(), x)
    graph = trace(module, images=x)
    return module, x, [fs.convert(graph, x, **o)(x) for o in ({}, OPTIONS)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_default_dtype_changes_nothing(dtype, usual):
    module, x, expected = usual
    torch.set_default_dtype(dtype)
    try:
        graph = trace(module, images=x)
        got = [fs.convert(module, x)(x), fs.convert(graph, x, **OPTIONS)(x)]
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_autocast_inference_mode_and_default_devices_change_nothing():
    module = Net(lambda s, x: F.relu(s.a(x)))
    expected = fs.convert(module, X)(X)
    with torch.autocast("cpu"):
        assert torch.equal(fs.convert(module, X)(X), expected)
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        assert torch.equal(fs.convert(module, X)(X), expected)
    torch.set_default_device("meta")
    try:
        net = fs.convert(module, X)
        assert torch.empty(0).is_meta
    finally:
        torch.set_default_device(None)
    assert torch.equal(net(X), expected)


@pytest.mark.skipif("TORCH_TRACE" in os.environ, reason="TORCH_TRACE asks for torch's trace log")
def test_the_trace_log_of_torch_ends_itself():
    """Kept from its first message it would make up every other one, with a traceback each."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "torch.__trace")]
    before = [logger.disabled for logger in loggers]
    trace(Net(lambda s, x: F.relu(s.a(x))), tuple(X.shape))
    assert not loggers[-1].handlers and [logger.disabled for logger in loggers] == before


def test_the_default_dtype_is_put_back_by_whoever_leaves_last():
    first, second = _default_dtype(), _default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
        with pytest.raises(fs.ConversionError):
            fs.convert(Net(lambda s, x: s.b(F.relu(s.a(x))).cumsum(1)), X)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
