"""What every row measures: functions of a `Setting` and the row's options, which give a dict."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from bench.gpu_model import model
from bench.measures.rivals import trt
from bench.measures.shapes import convolutions
from bench.measures.simulate import StepByStep
from bench.measures.timing import Call, clock_of, replayable, timed
from bench.measures.timing import paired as in_turn
from bench.on_gpu.facts import clocks, gathered
from bench.on_gpu.fragments import compared
from bench.on_gpu.subjects import TYPES, Setting
from fskernel.kernels import ops
from fskernel.network.network import FSNetwork
from fskernel.rate.fused import FusedRateNetwork

COPIES = 20  # of a layer in one graph: graphs of one short kernel would be timed, not the kernel


class Skip(Exception):
    """The row cannot be measured here; says why."""


def speed(s: Setting, call: Call, batch: int) -> dict[str, object]:
    """Images/s of a call that runs one batch."""
    found = timed(replayable(call, s.device), clock_of(s.device))
    return {
        "images_per_s": batch / found["median"],
        "seconds": found,
        "gpu": clocks(s.device),
    }


def facts(s: Setting) -> dict[str, object]:
    """What it runs on."""
    return gathered(s.device)


def fragments(s: Setting) -> dict[str, object]:
    """Golden files, compared with the emulator."""
    return compared(s)


def few_spikes(s: Setting, K: int, batch: int) -> dict[str, object]:
    """The FS network."""
    net, x = s.spiking(K), s.image(batch)
    found = speed(s, lambda: net(x), batch)
    return found | {"work": total(s, batch, net), "kernel": ops.last_kernel()}


def dense(s: Setting, kind: str, batch: int) -> dict[str, object]:
    """The dense network as torch and cuDNN run it, with cuDNN's own search for algorithms."""
    net, x = _dense(s, kind, batch)
    found = speed(s, lambda: net(x), batch)
    return found | {"tf32": torch.backends.cudnn.allow_tf32} if kind == "fp32" else found


def _dense(s: Setting, kind: str, batch: int) -> tuple[nn.Module, Tensor]:
    torch.backends.cudnn.benchmark = True
    return s.dense(TYPES[kind]), s.image(batch, TYPES[kind])


def paired(s: Setting, K: int, batch: int) -> dict[str, object]:
    """FS against fp16, in turn: how many times as fast it is."""
    net, x = s.spiking(K), s.image(batch)
    ours = replayable(lambda: net(x), s.device)
    ann, half = _dense(s, "fp16", batch)
    theirs = replayable(lambda: ann(half), s.device)
    found = in_turn({"fs": ours, "fp16": theirs}, clock_of(s.device))
    return found | {"gpu": clocks(s.device)}


def compiled(s: Setting, batch: int, mode: str) -> dict[str, object]:
    """The dense network by torch.compile, weights frozen."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    net, x = s.dense(torch.float16), s.image(batch, torch.float16)
    fast = torch.compile(net, mode=None if mode == "default" else mode)
    return speed(s, lambda: fast(x), batch)


def tensorrt(s: Setting, kind: str, batch: int) -> dict[str, object]:
    """The dense network as a TensorRT engine."""
    if s.device.type != "cuda":
        raise Skip("TensorRT needs a GPU")
    try:
        made = trt.engine(s.module(), (batch, 3, s.pixels, s.pixels), kind, s.device)
    except ImportError as error:
        raise Skip(f"not installed ({error.name})") from error
    return speed(s, made.call, batch) | made.facts


def rate_step(s: Setting, batch: int) -> dict[str, object]:
    """One time step of the rate-coded network, and the kernels of its layers."""
    if s.device.type != "cuda":
        raise Skip("the kernels of a rate-coded step exist for GPUs only")
    x = s.image(batch)
    net = FusedRateNetwork(s.graph(8), x[:2].cpu(), device=s.device)
    step = net.step_of(x)
    found = speed(s, lambda: step(x), batch)
    return found | {"kernels": dict(Counter(net.kernels.values()).most_common())}


def explicit(s: Setting, K: int, batch: int) -> dict[str, object]:
    """All K steps one by one in torch."""
    net, x, backend = s.spiking(K), s.image(batch), StepByStep()
    return speed(s, lambda: net.execute(x, backend), batch)


def peaks(s: Setting) -> dict[str, float]:
    """What this device reaches: bytes/s of a copy, and multiply-accumulates/s of large products.

    On values of the full range: those that are mostly zeros draw less power, and run faster.
    """
    on_gpu, clock = s.device.type == "cuda", clock_of(s.device)

    def seconds(call: Call) -> float:
        return timed(replayable(call, s.device), clock)["median"]

    n = 2**30 if on_gpu else 2**24
    a = torch.randint(-(2**63), 2**63 - 1, (n // 8,), device=s.device)
    b = torch.empty_like(a)
    found: dict[str, float] = {"memory_bytes": 2 * n / seconds(lambda: b.copy_(a))}
    s.keep(found)
    side = 8192 if on_gpu else 256
    x, w = (torch.randint(-128, 128, (side, side), device=s.device).to(torch.int8) for _ in "xw")
    found["int8_macs"] = side**3 / seconds(lambda: torch._int_mm(x, w.t()))
    s.keep(found)
    x, w = (torch.randn(side, side, device=s.device, dtype=torch.float16) for _ in "xw")
    found["fp16_macs"] = side**3 / seconds(lambda: x @ w)
    return found | {"gpu": clocks(s.device)}


def layers(s: Setting, K: int, batch: int) -> dict[str, object]:
    """Every layer: a graph of several of it, and its part of a pass through the network.

    Two ways, so that each can be believed: alone, a layer finds in the L2 cache what fits there;
    in the network there is an event behind every layer.
    """
    net, x = s.spiking(K), s.image(batch)
    work, clock = works(s, batch, net), clock_of(s.device)
    copies = COPIES if s.device.type == "cuda" else 1
    in_turns = torch.inference_mode()(net.layer_seconds)(x, 10)
    found = {}
    for name, call in torch.inference_mode()(net.layer_calls)(x).items():
        replay = replayable(call, s.device, copies)
        one = timed(replay, clock, samples=9, most=0.5, copies=copies, warm=0.05)
        middle = sorted(in_turns[name])[len(in_turns[name]) // 2]
        found[name] = {
            "us": 1e6 * one["median"],
            "us_iqr": [1e6 * v for v in one["iqr"]],
            "us_in_network": 1e6 * middle,
            "kernel": ops.last_kernel(),
            **work.get(name, {}),
        }
        s.keep({"layers": found})
    return {"layers": found, "gpu": clocks(s.device)}


def works(s: Setting, batch: int, net: FSNetwork) -> dict[str, dict[str, float]]:
    """By layer: int8 multiply-accumulates, every byte plane counted, and bytes at the least."""
    shapes: dict[str, list] = {}
    for shape in convolutions(net, s.pixels, s.pixels):
        shapes.setdefault(shape.layer, []).append(shape)
    return {
        name: {
            "int8_macs": batch * sum(g.macs * model.passes(g) for g in groups),
            "memory_bytes": model.traffic(model.Layer(name, groups), batch),
        }
        for name, groups in shapes.items()
    }


def total(s: Setting, batch: int, net: FSNetwork) -> dict[str, float]:
    """Of all convolutions of one batch."""
    each = works(s, batch, net).values()
    return {key: sum(w[key] for w in each) for key in ("int8_macs", "memory_bytes")}
