"""Risk: published networks with activations and gates become others, or have layers too many."""

from collections import Counter

import pytest
import torch
from torch import nn
from torchvision import models
from traced import same_function

from fskernel.tracing.trace import trace

COUNTED = ("neuron", "gate", "graded", "concat", "move")


def efficientnet():
    """Two blocks of EfficientNet, one of which has a residual connection."""
    config = models.efficientnet.MBConvConfig
    return models.EfficientNet([config(1, 3, 1, 32, 16, 1), config(6, 5, 1, 16, 16, 1)], 0.0)


def mobilenet():
    config = models.mobilenetv3.InvertedResidualConfig
    blocks = [
        config(16, 3, 16, 16, True, "RE", 2, 1, 1), config(16, 5, 24, 16, True, "HS", 1, 1, 1),
    ]  # fmt: skip
    return models.MobileNetV3(blocks, 32)


def regnet():
    stages = models.regnet.BlockParams.from_init_params(4, 16, 8.0, 2.0, 8, se_ratio=0.25)
    return models.RegNet(stages, 5)


def timm(name):
    return lambda: pytest.importorskip("timm", reason="pip install timm").create_model(name)


# Of each what it is made of: layers by their kind, and neurons by their function ("ReLU" is any,
# Hardsigmoid too).
NETWORKS = {
    "blocks of efficientnet": (efficientnet, "2 gate, 2 graded", "7 SiLU, 2 Sigmoid"),
    "blocks of mobilenet_v3": (mobilenet, "2 gate, 2 graded", "5 Hardswish, 5 ReLU"),
    "blocks of regnet_y": (regnet, "4 gate, 0 graded", "17 ReLU, 4 Sigmoid"),
    "efficientnet_b0": (models.efficientnet_b0, "16 gate, 16 graded", "49 SiLU, 16 Sigmoid"),
    "mobilenet_v3_small": (models.mobilenet_v3_small, "9 gate, 11 graded", "19 Hardswish, 23 ReLU"),
    "regnet_y_400mf": (models.regnet_y_400mf, "16 gate, 0 graded", "65 ReLU, 16 Sigmoid"),
    "tinynet_e": (timm("tinynet_e"), "10 gate, 10 graded", "31 SiLU, 10 Sigmoid"),
    "lcnet_050": (timm("lcnet_050"), "2 gate, 0 graded", "28 Hardswish, 4 ReLU"),
    "ghostnet_100": (timm("ghostnet_100"), "7 gate, 57 graded, 37 concat", "49 ReLU"),
    "hardcorenas_a": (timm("hardcorenas_a"), "8 gate, 11 graded", "15 Hardswish, 25 ReLU"),
    "fbnetv3_b": (timm("fbnetv3_b"), "18 gate, 29 graded", "77 Hardswish, 18 ReLU"),
    "seresnet18": (timm("seresnet18"), "8 gate, 8 graded", "25 ReLU, 8 Sigmoid"),
    "eca_resnet33ts": (timm("eca_resnet33ts"), "10 gate, 0 graded", "34 SiLU, 10 Sigmoid"),
    "cs3darknet_s": (timm("cs3darknet_s"), "0 gate, 13 graded, 12 concat", "32 SiLU"),
    "cspdarknet53": (timm("cspdarknet53"), "0 gate, 23 graded, 15 concat", "67 LeakyReLU(0.01)"),
}


def counts(text):
    """ "2 gate, 1 move" as numbers by name."""
    pairs = (part.split(" ", 1) for part in text.split(", "))
    return Counter({name: int(number) for number, name in pairs})


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n.startswith("blocks") else pytest.mark.slow) for n in NETWORKS],
)
def test_it_is_the_same_function_of_as_many_layers(name):
    build, kinds, functions = NETWORKS[name]
    torch.manual_seed(7)
    module = build().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    size = (33, 40) if name.startswith("blocks") else (64, 64)
    graph = trace(module, (1, 3, *size))
    assert graph.size is None
    found = Counter(layer.kind for layer in graph.layers)
    neurons = Counter(
        layer.activation.text() if layer.activation else "ReLU"
        for layer in graph.layers
        if layer.kind == "neuron"
    )
    assert neurons == counts(functions)
    assert {k: n for k, n in found.items() if k in COUNTED and k != "neuron"} == +counts(kinds)
    same_function(module, torch.randn(1, 3, *size))
