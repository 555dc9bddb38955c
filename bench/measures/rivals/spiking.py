"""Spiking rivals: ourselves, all time steps one by one, and rate-coded networks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

import fskernel as fs
from bench.measures.rivals.rival import Answer, Runner, Setting
from bench.measures.simulate import StepByStep
from fskernel.network.network import FSNetwork
from fskernel.rate.fused import FusedRateNetwork, has_kernels
from fskernel.rate.trains import KernelRateNetwork
from fskernel.tracing.trace import trace

Build = Callable[[Setting], Runner]


def few_spikes(K: int, plane_bits: int = 0) -> Build:
    """The converted network through its public call."""

    def build(s: Setting) -> Runner:
        net = s.net(K)
        if plane_bits or s.device.type != "cpu":
            net = copy.deepcopy(net).to(s.device)
        net.plane_bits = plane_bits or net.plane_bits
        net.pack()
        x = s.x.to(s.device)
        return Runner(lambda: net(x), lambda images: counted(net, images.to(s.device)))

    return build


def one_by_one(K: int) -> Build:
    """The same network, all K steps one after the other in torch."""

    def build(s: Setting) -> Runner:
        net, backend = s.net(K), StepByStep()
        if s.device.type != "cpu":
            net = copy.deepcopy(net).to(s.device)
        x = s.x.to(s.device)
        call = torch.inference_mode()(lambda: net.execute(x, backend))
        return Runner(call, lambda images: counted(net, images.to(s.device), backend))

    return build


def counted(net: FSNetwork, x: Tensor, backend: StepByStep | None = None) -> Answer:
    """Logits and spikes of images."""
    logits, stats = net.run(x, backend)
    return Answer(logits.float().cpu(), stats.total_spikes().cpu())


def rate_coded(s: Setting) -> Runner:
    """Our rate-coded network for T steps: on kernels, or in torch where these lack an option."""
    graph = trace(s.model, tuple(s.calibration.shape), compared=False)
    options, images = dict(s.rate), s.calibration[: s.rate_images]
    in_kernels = {key: value for key, value in options.items() if key != "seed"}
    if s.device.type == "cuda":
        net = FusedRateNetwork(graph, images, **in_kernels, device=s.device)
    elif has_kernels(options.get("reset", "subtract"), options.get("input", "analog")):
        net = KernelRateNetwork(graph, images, **in_kernels)
    else:
        net = fs.RateNetwork(graph, images, **options)
    x = s.x.to(s.device)

    @torch.inference_mode()
    def answer(images: Tensor) -> Answer:
        run = net.run(images.to(s.device), s.T)
        return Answer(run.logits[-1].float().cpu(), run.spikes().cpu())

    if s.device.type == "cuda":
        step = net.step_of(x)
        return Runner(lambda: step(x), answer, steps=s.T, per=f"one of {s.T} steps")
    until = min(s.T, 3 * net.depth) if s.transient else s.T

    @torch.inference_mode()
    def seconds() -> float:
        return net.run(x, s.T, until=until).seconds()

    per = f"{until} of {s.T} steps" if until < s.T else None
    return Runner(seconds, answer, seconds=seconds, per=per)


def spikingjelly(s: Setting) -> Runner:
    """SpikingJelly's rate-coded network, converted by its own recipe, for T steps."""
    from spikingjelly.activation_based import ann2snn, functional, neuron

    data = [(image[None], torch.zeros(1, dtype=torch.long)) for image in s.calibration]
    recipe = ann2snn.RateCodingRecipe(data, mode="Max")
    net = ann2snn.Converter(recipe).convert(copy.deepcopy(s.model)).eval().to(s.device)
    neurons = [part for part in net.modules() if isinstance(part, neuron.BaseNode)]
    functional.reset_net(net)
    x = s.x.to(s.device)

    @torch.inference_mode()
    def answer(images: Tensor) -> Answer:
        functional.reset_net(net)
        images = images.to(s.device)
        spikes = torch.zeros(len(images), dtype=torch.int64, device=s.device)

        def count(_: nn.Module, __: object, z: Tensor) -> None:
            spikes.add_(z.detach().flatten(1).count_nonzero(1))

        hooks = [part.register_forward_hook(count) for part in neurons]
        try:
            logits = sum(net(images) for _ in range(s.T)) / s.T
        finally:
            for hook in hooks:
                hook.remove()
            functional.reset_net(net)
        return Answer(logits.float().cpu(), spikes.cpu())

    call = torch.inference_mode()(lambda: net(x))
    return Runner(call, answer, steps=s.T, per=f"one of {s.T} steps")
