"""How close a converted network is to the paper itself, with float weights in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fskernel.codes.neuron import FSNeuron
from fskernel.graph import Layer
from fskernel.network.network import FSNetwork
from fskernel.reference import paper_neuron


@torch.no_grad()
def fidelity(net: FSNetwork, images: Tensor) -> dict[str, float]:
    """Compares a network with the yardstick: eqs. (1)-(3) of the paper in float64, float weights.

    Both use the same K, alpha and rounding, so what is left are the integer weights, the graded
    input and float32 membranes. Weights are rounded per output channel; from there on the
    arithmetic is exact by contract.

    Args:
        net: a network made by `fskernel.convert` in this process (it needs the float graph).
        images: float [N, C, H, W].

    Returns:
        words_changed: fraction of spike words that differ from the yardstick's;
        spikes_ratio: spikes over the yardstick's spikes;
        agreement: fraction of images with the same largest logit;
        logit_error: norm of the logits' difference over the norm of the yardstick's logits;
        effective_bits: weight bits left in the worst output channel of the network.

    Raises:
        RuntimeError: the network was loaded from a file, which holds no float weights.
        ValueError: no images, or a network with fitted neurons, which are not the paper's.
    """
    if net.graph is None:
        raise RuntimeError(
            "the network has no float weights (it was loaded from a file): fidelity needs the "
            "network that fskernel.convert returned"
        )
    net.check_logits("fidelity")
    net.check_words("fidelity to the paper's neuron")
    images = net.check_input(images)
    if len(images) == 0:
        raise ValueError("images is empty: pass at least one image")
    steps = {step.name: step for step in net.steps}
    words: dict[str, Tensor] = {}

    def keep(step, inputs, y, counts) -> None:
        if step.spiking:
            words[step.name] = y.cpu()

    logits = net.execute(images, observe=keep).cpu().double()  # as the float graph, on the CPU
    changed = total = spikes = yardstick_spikes = 0

    def neuron(layer: Layer, v: Tensor) -> Tensor:
        nonlocal changed, total, spikes, yardstick_spikes
        info, code = steps[layer.name].info, steps[layer.name].code
        if code.K == 0:
            return v
        zero = code.zero * code.step  # where the membranes of words with an offset start
        unit = FSNeuron(code.K, math.ldexp(code.step, code.K), info["rounding"])
        scale = steps[layer.name].channel_scale
        scale = 1.0 if scale is None else scale[:, None, None]
        v = v if layer.activation is None else layer.activation(v)
        value, train = paper_neuron(
            v * scale + zero, unit.K, unit.alpha, unit.rounding, return_spikes=True
        )
        yardstick = (value / unit.step).round().to(torch.int32)
        ours = words[layer.name].permute(0, 3, 1, 2).to(torch.int32)
        changed += int((ours != yardstick).sum())
        total += ours.numel()
        yardstick_spikes += int(train.sum())
        spikes += sum(int(((ours >> bit) & 1).sum()) for bit in range(unit.K))
        return (value - zero) / scale

    expected = net.graph.forward(images.cpu().double(), neuron, neuron)
    norm = float(expected.norm())
    bits = [
        s.info["effective_bits"] for s in net.steps if "effective_bits" in getattr(s, "info", {})
    ]
    return {
        "words_changed": changed / max(total, 1),
        "spikes_ratio": spikes / yardstick_spikes if yardstick_spikes else float("nan"),
        "agreement": float((logits.argmax(1) == expected.argmax(1)).double().mean()),
        "logit_error": float((logits - expected).norm()) / norm if norm else float("nan"),
        "effective_bits": min(bits),
    }
