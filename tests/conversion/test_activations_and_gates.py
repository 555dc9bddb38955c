"""Risk: neurons that are no ReLUs, and products of activations, convert to something else: at K = 1
and 12, in concatenations with ReLUs, behind pools that pad, beside residuals, on other backends.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from networks import images, same_everywhere, settle
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.models import cifar_mobilenet, cifar_resnet20_silu

ACTIVATIONS = {
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
    "gelu of tanh": partial(nn.GELU, approximate="tanh"),
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": partial(nn.CELU, 0.7),
    "leaky relu": partial(nn.LeakyReLU, 0.1),
    "prelu": nn.PReLU,
    "prelu of channels": partial(nn.PReLU, 8),
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "clip below zero": partial(nn.Hardtanh, -0.7, 1.3),
}


def ragged(act) -> nn.Module:
    """Behind every neuron another reader: pools that pad, a depthwise layer, strides, a readout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), act(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, (3, 2), padding=1, groups=8), nn.BatchNorm2d(8), act(),
        nn.AvgPool2d(2, padding=1), nn.Conv2d(8, 17, 3, 2, 1), nn.BatchNorm2d(17), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(17, 10),
    )  # fmt: skip


def converted(module: nn.Module, x: torch.Tensor, **options):
    settle(module.eval(), x)
    for slopes in module.modules():
        if isinstance(slopes, nn.PReLU):
            nn.init.uniform_(slopes.weight, -0.2, 0.5)
    return fs.convert(module.requires_grad_(False), x, **options)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_word_is_the_literal_networks_and_with_many_steps_it_is_the_dense_one(name):
    x = images(3, 21)
    module = ragged(ACTIVATIONS[name])
    net = converted(module, x, K=12, weight_bits=16)
    same_everywhere(net, x[:1], reference.literal)
    error = (net(x) - module(x)).norm() / (module(x) - module(x).mean(0)).norm()
    assert error < 0.02
    shaped = [step for step in net.steps if getattr(step, "table", None) is not None]
    assert all(step.info["table_error"] < 0.5 for step in shaped)
    for K in (1, 8):  # of the graph, which is traced once
        few = fs.convert(net.graph, x, K=K)
        same_everywhere(few, x[:1], reference.literal)
        assert few.neurons == net.neurons


class Joined(nn.Module):
    """Concatenations of a ReLU, a SiLU and a tanh, and what is added before and behind neurons."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, n, 3, padding=1) for n in (5, 6, 7))
        self.mix, self.same = nn.Conv2d(18, 9, 1), nn.Conv2d(9, 9, 3, padding=1)
        self.fc = nn.Linear(9, 4)

    def forward(self, x):
        x = torch.cat([F.relu(self.a(x)), F.silu(self.b(x)), torch.tanh(self.c(x))], 1)
        x = F.gelu(self.mix(F.max_pool2d(x, 2)))
        x = F.silu(self.same(x) + x)
        return self.fc((F.silu(self.same(x)) + x).mean((2, 3)))


def test_what_is_concatenated_and_added():
    x = images(3, 20)
    net = converted(Joined(), x, K=8)
    codes = {step.name: step.code for step in net.steps}
    assert len({(codes[n].step, codes[n].zero) for n in "abc"}) == 1 and codes["a"].zero > 0
    same_everywhere(net, x[:1], reference.literal)
    fine = converted(Joined(), x, K=11, weight_bits=16)
    dense = fine.graph.answer(x.double()).float()
    assert (fine(x) - dense).norm() < 0.02 * (dense - dense.mean(0)).norm()


class Gated(nn.Module):
    """All gates: a number for a channel, one for a pixel, one for each; either side first."""

    def __init__(self, act):
        super().__init__()
        self.act = act()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12))
        self.down, self.up = nn.Conv2d(12, 5, 1), nn.Conv2d(5, 12, 1)
        self.place, self.both = nn.Conv2d(12, 1, 3, padding=1), nn.Conv2d(12, 24, 1)
        self.fc = nn.Linear(12, 6)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = x * torch.sigmoid(self.up(self.act(self.down(x.mean((2, 3), keepdim=True)))))
        x = F.hardsigmoid(self.place(x)) * x
        a, b = self.both(x).chunk(2, 1)
        x = F.relu(a * torch.sigmoid(b) + x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("bottleneck", ["graded", "spiking"])
@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU], ids=["relu", "silu"])
def test_gates(act, bottleneck, tmp_path):
    x = images(3, 23)
    net = converted(Gated(act), x, K=7, bottleneck=bottleneck)
    gates = [step for step in net.steps if step.op == "gate"]
    assert len(gates) == 3
    same_everywhere(net, x[:1], reference.literal)
    logits, stats = net.run(x)
    assert set(stats.gate_ops) == {step.name for step in gates}
    net.save(tmp_path / "gated.safetensors")
    assert torch.equal(fs.load(tmp_path / "gated.safetensors")(x), logits)
    fine = converted(Gated(act), x, K=12, weight_bits=16, bottleneck=bottleneck)
    dense = fine.graph.answer(x.double()).float()
    assert (fine(x) - dense).norm() < 0.03 * (dense - dense.mean(0)).norm()


@pytest.mark.parametrize("build", [cifar_mobilenet, cifar_resnet20_silu])
def test_the_librarys_own(build):
    x = images(2, 32)
    net = converted(build(), x, K=8)
    same_everywhere(net, x[:1], reference.literal)


def test_the_summary_says_which_functions_and_how_exactly():
    shown = str(converted(ragged(nn.SiLU), images(2, 16), K=8))
    assert "functions   SiLU in 2 layers; at most 0." in shown and "last thresholds off" in shown
    assert "functions" not in str(converted(ragged(nn.ReLU), images(2, 16), K=8))


def test_zero_has_a_word_and_small_ranges_keep_their_bits():
    """SiLU's words reach from -0.28 on: no bit is lost to a sign."""
    x = images(4, 16)
    net = converted(ragged(nn.SiLU), x, K=8)
    code = net.steps[1].code
    low, high = (code.x_min - code.zero) * code.step, (code.x_max - code.zero) * code.step
    assert -0.30 < low <= -0.2784 and 0 < code.zero < 128 and high > -low
    with torch.no_grad():
        largest = net.graph.layers[1].activation(torch.tensor(high * 2)).item()
    assert largest > high


def test_policies_and_corrections_take_them():
    x = images(8, 24)
    module = ragged(nn.SiLU)
    plain = converted(module, x, K=6)
    dense, spread = module(x), (module(x) - module(x).mean(0)).norm()
    error = (plain(x) - dense).norm() / spread
    for policy, correct in (
        ("mse", None),
        ("percentile:99.9", None),
        ("logits", "bias"),
        (3.0, None),
    ):
        net = fs.convert(plain.graph, x, K=6, alpha=policy, correct=correct)
        same_everywhere(net, x[:1], reference.literal)
        assert (net(x) - dense).norm() / spread < 2 * error + 0.1, (policy, correct)


def test_a_function_that_no_table_holds_is_refused_with_its_error():
    fs.register_activation("Wave", lambda x: torch.sin(40 * x) + x)

    class Wave(nn.Module):
        def forward(self, x):
            return torch.sin(40 * x) + x

    x = images(2, 16)
    with pytest.raises(fs.ConversionError, match="a table of 256 segments misses its function by"):
        converted(nn.Sequential(nn.Conv2d(3, 4, 3), Wave(), nn.Flatten(), nn.LazyLinear(3)), x, K=8)


def test_a_registered_function_is_neurons():
    fs.register_activation("Snake", lambda x: x + torch.sin(x).square())

    class Snake(nn.Module):
        def forward(self, x):
            return x + torch.sin(x).square()

    x = images(2, 16)
    module = ragged(Snake)
    net = converted(module, x, K=10, weight_bits=16)
    assert "Snake" in str(net.report())
    same_everywhere(net, x[:1], reference.literal)
    assert (net(x) - module(x)).norm() < 0.05 * (module(x) - module(x).mean(0)).norm()


def activations(module: nn.Module, x: torch.Tensor) -> dict[type, int]:
    """How many numbers its SiLUs and sigmoids give for an image."""
    found = {nn.SiLU: 0, nn.Sigmoid: 0}

    def count(part, inputs, y):
        found[type(part)] += y[0].numel()

    hooks = [m.register_forward_hook(count) for m in module.modules() if type(m) in found]
    module(x)
    for hook in hooks:
        hook.remove()
    return found


def test_efficientnet_has_as_many_neurons_as_it_has_activations():
    """259,366,992 of B7 are the SiLUs that Stöckl & Maass count in their sequel."""
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        found = activations(models.efficientnet_b7().eval(), torch.empty(1, 3, 600, 600))
    assert found == {nn.SiLU: 259_366_992, nn.Sigmoid: 70_240}
    x = images(2, 33)
    module = settle(models.efficientnet_b0().eval(), x).requires_grad_(False)
    assert fs.convert(module, x, K=4).neurons == sum(activations(module, x[:1]).values())
