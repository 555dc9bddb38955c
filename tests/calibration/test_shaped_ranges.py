"""Risk: neurons that are no ReLUs get ranges without their values, or rounding by other words."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fskernel as fs
from fskernel.activations import Activation
from fskernel.calibration.by_logits import channelwise, shaped
from fskernel.calibration.ranges import HEADROOM, Range, choose_range, measure, shared_range
from fskernel.calibration.rounded_graph import Unit
from fskernel.codes.code import Code
from fskernel.tracing.trace import trace

IMAGES = torch.randn(24, 3, 9, 8, generator=torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """Functions with and without bounds, a gate, a ReLU that shares a step, and one alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b, self.c = (nn.Conv2d(i, 6, 3, padding=1) for i in (3, 6, 12))
        self.gate, self.fc = nn.Conv2d(6, 6, 1), nn.Linear(6, 4)
        self.act, self.leaky = nn.SiLU(), nn.LeakyReLU(0.1)
        for layer in (self.a, self.b, self.c, self.gate):
            layer.weight.data.mul_(4)

    def forward(self, x):
        x = self.act(self.a(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        y = self.leaky(self.b(x))
        return self.fc(F.relu(self.c(torch.cat([y, F.relu(self.b(y))], 1))).mean((2, 3)))


@pytest.fixture(scope="module")
def mixed():
    module = Mixed().eval()
    graph = trace(module, (2, 3, 9, 8))
    return module, graph, measure(graph, IMAGES)


def values(graph):
    """What layers give for the images, and membranes, float32."""
    seen, membranes = {}, {}

    def neuron(layer, v):
        membranes[layer.name] = v
        return v.relu() if layer.activation is None else layer.activation(v)

    graph.to(torch.float32).forward(
        IMAGES, neuron, observe=lambda layer, y: seen.__setitem__(layer.name, y)
    )
    return seen, membranes


def test_what_is_measured_of_functions_and_gates(mixed):
    _, graph, ranges = mixed
    seen, membranes = values(graph)
    for layer in graph.layers:
        y = seen[layer.name]
        if layer.activation is not None:
            assert ranges.largest[layer.name] == pytest.approx(float(y.max()), rel=1e-6)
            assert ranges.least[layer.name] == pytest.approx(min(float(y.min()), 0), rel=1e-6)
            v = membranes[layer.name]
            ends = (float(v.min()), float(v.max()))
            assert ranges.membranes[layer.name] == pytest.approx(ends, rel=1e-6)
        elif layer.kind == "gate":
            assert ranges.largest[layer.name] == pytest.approx(float(y.abs().max()), rel=1e-6)
            assert ranges.least[layer.name] == pytest.approx(float(y.min()), rel=1e-6)
        else:
            assert layer.name not in ranges.least and layer.name not in ranges.membranes


def test_ranges_begin_at_the_infimum_or_below_what_was_seen(mixed):
    _, graph, ranges = mixed
    silu = choose_range("max", graph["a"], ranges, 8)
    assert silu == (Activation("silu").low, ranges.largest["a"])
    leaky = next(n for n in graph.layers if n.activation and n.activation.name == "leaky_relu")
    found = choose_range("max", leaky, ranges, 8)
    assert found == (HEADROOM * ranges.least[leaky.name], ranges.largest[leaky.name])
    sigmoid = choose_range("max", graph["gate"], ranges, 8)
    assert sigmoid == (0.0, ranges.largest["gate"]) and sigmoid.high < 1


def test_policies_choose_the_end(mixed):
    _, graph, ranges = mixed
    ends = [
        choose_range(policy, graph["a"], ranges, 4).high
        for policy in ("max", "logits", "percentile:100", "percentile:90", "mse")
    ]
    assert ends[0] == ends[1] == pytest.approx(ends[2], rel=1e-3)
    assert ends[3] < ends[0] and ends[4] < ends[0]
    chosen = choose_range(2.0, graph["a"], ranges, 10)
    assert Code.shaped(10, *chosen).step * 2**10 == pytest.approx(2.0, rel=0.01)
    assert choose_range(25.0, graph["gate"], ranges, 10) == (0.0, 1.0), "never beyond the supremum"
    given = {"a": Range(-1.0, 5.0), "default": "max"}
    assert choose_range(given, graph["a"], ranges, 4) == (-1.0, 5.0)
    assert choose_range(given, graph["gate"], ranges, 4) == (0.0, ranges.largest["gate"])


@pytest.mark.parametrize("K", [3, 5, 8])
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_mse_is_near_the_best_of_all_ends(mixed, K, rounding):
    _, graph, ranges = mixed
    y = values(graph)[0]["a"].double()
    low = Activation("silu").low

    def error(high):
        return float((Range(low, high).rounded(y, K, rounding) - y).square().mean())

    best = min(error(float(high)) for high in torch.linspace(0.1, 1.0, 91) * y.max())
    assert error(choose_range("mse", graph["a"], ranges, K, rounding).high) <= 1.1 * best + 1e-9


def test_without_images_functions_without_an_infimum_end_at_their_value_for_alpha(mixed):
    _, graph, _ = mixed
    leaky = next(n for n in graph.layers if n.activation and n.activation.name == "leaky_relu")
    found = choose_range(4.0, leaky, None, 8)
    assert found.low == pytest.approx(-0.4) and found.high - found.low == pytest.approx(
        4 * 255 / 256
    )


@pytest.mark.parametrize(
    ("name", "numbers", "end"),
    [("log_sigmoid", (), 0.0), ("hardtanh", (-3.0, -1.0), 0.0), ("silu", (), 0.2784645)],
)
def test_what_is_never_above_zero_has_a_range_all_the_same(name, numbers, end):
    class Below(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
            self.conv.bias.data.fill_(-30.0)

        def forward(self, x):
            y = self.conv(x)
            y = F.logsigmoid(y) if name == "log_sigmoid" else y
            y = y.clamp(-3, -1) if name == "hardtanh" else y
            return self.fc((F.silu(y) if name == "silu" else y).mean((2, 3)))

    graph = trace(Below().eval(), (2, 3, 9, 8), compared=False)
    found = choose_range("max", graph["conv"], measure(graph, IMAGES), 8)
    assert found.high == pytest.approx(end) and found.low < 0
    assert math.isfinite(found.low) and Code.shaped(8, *found).zero > 0


def test_layers_that_are_concatenated_share_the_widest_range(mixed):
    _, graph, ranges = mixed
    (tied,) = {t for t in graph.tied().values() if len(t) > 1}
    found = shared_range("max", [graph[name] for name in tied], ranges, 8, "nearest")
    leaky, relu = (graph[name] for name in sorted(tied, key=lambda n: graph[n].activation is None))
    assert found.low == choose_range("max", leaky, ranges, 8).low
    assert found.high == pytest.approx(max(ranges.largest[leaky.name], ranges.largest[relu.name]))
    assert relu.activation is None and {leaky.name, relu.name} <= shaped(graph)


def test_only_relus_that_share_no_step_have_channels_of_their_own(mixed):
    _, graph, _ = mixed
    assert channelwise(graph) == {"c"}
    assert shaped(graph) >= {"a", "gate"} and "c" not in shaped(graph)


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_rounded_values_are_what_words_of_the_code_stand_for(rounding):
    unit = Unit(lambda name: 5, rounding)
    layer = type("Layer", (), {"name": "x", "activation": Activation("silu")})
    v, found = 2 * torch.randn(1, 2, 9, 7), Range(-0.2784645, 3.0)
    got, code = unit.emit(layer, v, found), found.code(5)
    words = got / code.step + code.zero
    assert torch.allclose(words, words.round(), atol=1e-4)
    assert words.min() >= -1e-4 and words.max() <= 31 + 1e-4
    near = (F.silu(v) <= 3.0 - code.step) & (F.silu(v) > -0.27)
    error = (F.silu(v) - got)[near]
    assert error.abs().max() <= code.step * (0.5 if rounding == "nearest" else 1.0) + 1e-5
    assert torch.equal(unit.near(layer, F.silu(v), found), got)


OPTIONS = [
    {},
    {"alpha": "mse"},
    {"alpha": "percentile:99.9"},
    {"alpha": "logits"},
    {"correct": "bias"},
    {"alpha": "logits", "correct": "least_squares", "weight_bits": "auto"},
    {"rounding": "floor", "weight_bits": 16},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_converts_functions_and_gates(mixed, options):
    module, _, _ = mixed
    with torch.no_grad():
        logits = module(IMAGES)
    net = fs.convert(module, IMAGES, K=8, **options)
    spread = (logits - logits.mean(0)).norm()
    most = 0.4 if options.get("rounding") == "floor" else 0.1
    assert (net(IMAGES) - logits).norm() / spread < most


def test_corrections_help(mixed):
    module, _, _ = mixed
    with torch.no_grad():
        logits = module(IMAGES)

    def error(**options):
        return float((fs.convert(module, IMAGES, K=4, **options)(IMAGES) - logits).norm())

    assert error(correct="bias") < error() or error(correct="least_squares") < error()
