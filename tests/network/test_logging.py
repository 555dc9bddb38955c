"""Risk: nobody can see what was chosen, or saying it costs time where layers run."""

import logging
from contextlib import contextmanager

import pytest
import torch
from networks import images, settle
from torch import nn

import fskernel as fs
from fskernel.codes.neuron import FSNeuron
from fskernel.kernels import device, native
from fskernel.models import cifar_resnet8


@contextmanager
def heard(level):
    """The messages of fskernel from a level on, as (level, last part of the logger, text)."""
    found, logger = [], logging.getLogger("fskernel")

    class Keep(logging.Handler):
        def emit(self, record):
            place = record.name.rpartition(".")[2]
            found.append((record.levelname, place, record.getMessage()))

    handler, before = Keep(), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield found
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def small():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    ).eval()  # fmt: skip


def texts(found, place, level="INFO"):
    return [text for at, where, text in found if (at, where) == (level, place)]


@pytest.fixture
def untold(monkeypatch):
    """As in a process that has forced no instruction set and packed nothing yet."""
    fs.set_isa(None)
    monkeypatch.setattr(native, "_told", set())


def test_info_tells_what_was_chosen_and_debug_every_layer(untold, tmp_path):
    x = images(2, 12)
    with heard(logging.DEBUG) as found:
        net = fs.convert(small(), x, K=5)
        net.save(tmp_path / "net.safetensors")
        fs.load(tmp_path / "net.safetensors")
    isa = native.current_isa()
    (first,) = texts(found, "native")
    assert (
        first.startswith(f"kernels: {isa}, the newest") and ", ".join(fs.ops.built_isas()) in first
    )
    converted, folded = texts(found, "convert")
    assert converted.startswith("converted Sequential with alpha='max'")
    assert converted.endswith(repr(net))
    assert folded == "5 modules are folded into 4 steps; notes: 0"
    kernels = net.plan_kernels()
    for plan in texts(found, "plan"):
        assert plan.startswith(f"laid out 4 steps as one plan for {isa}: 1x encode")
        assert all(kernel in plan for kernel in kernels.values())
    assert len(texts(found, "plan")) == 2  # converted, and loaded
    assert f"plan for {isa}: 3 runs as {kernels['3']}" in texts(found, "plan", "DEBUG")
    assert texts(found, "load") == [f"loaded {tmp_path / 'net.safetensors'}: {net!r}"]
    layer = next(t for t in texts(found, "convert", "DEBUG") if t.startswith("0: "))
    assert "K=5" in layer and layer.endswith("folded into it: 1, 2")


def test_an_instruction_set_that_was_asked_for_is_called_that(untold):
    x = images(2, 12)
    net = fs.convert(small(), x)
    with heard(logging.INFO) as found:
        try:
            fs.set_isa("portable")
            net(x)
        finally:
            fs.set_isa(None)
    assert [t for t in texts(found, "native") if t.startswith("kernels: portable, set_isa asked")]


@pytest.mark.parametrize(
    "environment, why",
    [("portable", "FSKERNEL_ISA asks for it"), ("", "the newest that was built")],
)
def test_an_instruction_set_is_told_with_its_reason_and_once(untold, monkeypatch, environment, why):
    monkeypatch.setenv("FSKERNEL_ISA", environment)
    with heard(logging.INFO) as found:
        native.tell_isa("portable")
        native.tell_isa("portable")
    (said,) = texts(found, "native")
    assert said.startswith(f"kernels: portable, {why}")


def test_what_is_packed_again_says_why():
    x = images(2, 12)
    net = fs.convert(small(), x)
    with heard(logging.DEBUG) as found:
        net(x)
        assert not found  # nothing is decided where nothing has changed
        net.steps[1].groups[0].weight.mul_(1)
        net(x)
    assert any("made anew" in text for text in texts(found, "network", "DEBUG"))
    assert any(t.endswith("again: they changed") for t in texts(found, "synapses", "DEBUG"))


@pytest.mark.parametrize(
    "options, why",
    [
        ({}, None),
        ({"K": 9}, "its input has more than 8 time steps"),
        ({"signed_input": True}, "its input is signed"),
        ({"weight_bits": 16}, "its weights have 16 bits"),
    ],
)
def test_a_layer_that_needs_wider_integers_says_so_once(options, why):
    layer = fs.FSConv2d(3, 4, 3, alpha=1.0, **options).requires_grad_(False)
    with heard(logging.INFO) as found:
        layer(torch.rand(1, 3, 5, 5))
        layer.weight.mul_(2)
        layer(torch.rand(2, 3, 6, 5))
    said = [t for t in texts(found, "layers") if "does not fit" in t]
    assert said == (
        [] if why is None else [f"{layer} does not fit the kernels of 8-bit integers: {why}"]
    )


def test_what_replace_leaves_alone_is_told():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 3))
    with heard(logging.DEBUG) as found:
        _, report = fs.replace(module, images(1, 8))
    (kept,) = report.kept
    assert texts(found, "replace") == ["replaced 1 of 2 layers", f"2 stays: {kept.reason}"]
    assert texts(found, "replace", "DEBUG")[0].startswith("0 is now FSConv2d, K=8, alpha=")


def test_a_gpu_that_cannot_be_used_is_told_with_the_reason(monkeypatch):
    monkeypatch.setattr(device, "cuda_fault", lambda _: "it is made of paper")
    with heard(logging.INFO) as found, pytest.raises(ValueError, match="made of paper"):
        device.check_device("cuda:7", "x is on")
    assert texts(found, "device") == ["cuda:7 cannot be used: it is made of paper"]


def test_a_gpu_that_can_be_used_is_told_once(monkeypatch):
    monkeypatch.setattr(device, "cuda_fault", lambda _: None)
    monkeypatch.setattr(device, "_usable", set())
    monkeypatch.setattr(native, "cuda_device", lambda i: (f"Card {i}", 9, 0, 132, 2**37))
    with heard(logging.INFO) as found:
        device.check_device("cuda:1", "x is on")
        device.check_device("cuda:1", "x is on")
    assert texts(found, "device") == ["cuda:1 can be used: a Card 1, compute capability 9.0"]


def test_silent_and_free_until_somebody_listens(monkeypatch, capfd):
    """Nothing is formatted: not a name, not a report, not a kernel's description."""

    def refuse(*_):
        raise AssertionError("formatted for nobody")

    x = images(2, 12)
    monkeypatch.setattr(fs.FSNetwork, "__repr__", refuse)
    monkeypatch.setattr(fs.FSNetwork, "report", refuse)
    monkeypatch.setattr(fs.FSConv2d, "extra_repr", refuse)
    monkeypatch.setattr(FSNeuron, "__repr__", refuse)
    monkeypatch.setattr("fskernel.network.plan.Plan.kernels", refuse)
    monkeypatch.setattr("fskernel.network.synapses.Synapses._tell", refuse)
    net = fs.convert(small(), x)
    net(x)
    fs.FSConv2d(3, 4, 3, alpha=1.0, K=9).requires_grad_(False)(torch.rand(1, 3, 5, 5))
    assert capfd.readouterr() == ("", "")


def test_calls_that_decide_nothing_say_nothing():
    x = images(2, 32)
    net = fs.convert(settle(cifar_resnet8(), x), x)
    layer = fs.FSConv2d(3, 4, 3, alpha=9.0).requires_grad_(False)
    layer(x.abs())
    with heard(logging.DEBUG) as found:
        for _ in range(2):
            net(x)
            net.run(x)
            net.count_spikes(x)
            layer(x.abs())
    assert not found


def test_graphs_are_whole_while_somebody_listens():
    layer = fs.FSConv2d(3, 4, 3, alpha=9.0, K=9).requires_grad_(False)
    x = images(2, 12)
    net = fs.convert(small(), x)
    torch._dynamo.reset()
    with heard(logging.DEBUG) as found:
        for module, given in ((layer, x.abs()), (net, x)):
            compiled = torch.compile(module, fullgraph=True, backend="eager")
            assert torch.equal(compiled(given), module(given))
    torch._dynamo.reset()
    assert texts(found, "layers")
