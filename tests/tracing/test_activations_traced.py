"""Risk: of the many ways to write an activation, one becomes another function, or needs layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced import same_function

import fskernel as fs
from fskernel import ConversionError
from fskernel.tracing.trace import trace

SHAPE = (2, 3, 9, 8)


class Between(nn.Module):
    """A convolution, a function, a convolution, ReLU, average, linear."""

    def __init__(self, function, channels=8):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.function = nn.Conv2d(3, 8, 3, padding=1), function
        self.last, self.fc = nn.Conv2d(channels, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(F.relu(self.last(self.function(self.first(x)))).mean((2, 3)))


def layers(module):
    """Of each layer of neurons what it is called and computes; other layers by their kinds."""
    found = []
    for layer in trace(module.eval(), SHAPE).layers[1:-1]:
        if layer.kind != "neuron":
            found.append((layer.name, layer.kind))
        elif layer.activation is None:
            found.append((layer.name, "ReLU" if layer.ceiling is None else layer.ceiling))
        else:
            found.append((layer.name, layer.activation.text()))
    assert found.pop() == ("last", "ReLU")
    return found


class Swish(nn.Module):
    """With a slope that was learned."""

    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(1.25))

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


def gelu_by_hand(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def gelu_by_tanh(x):
    return 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x.pow(3))))


def gelu_in_steps(x):
    inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x * x * x)
    return x.mul(0.5).mul(inner.tanh().add(1.0))


def squared_relu(x):
    return F.relu(x) ** 2


ONE_LAYER = [
    (nn.SiLU(), "SiLU"),
    (lambda x: x * torch.sigmoid(x), "SiLU"),
    (lambda x: x.sigmoid().mul(x), "SiLU"),
    (lambda x: x.mul_(x.sigmoid()), "SiLU"),
    (lambda x: F.silu(x, inplace=True), "SiLU"),
    (lambda x: x / (1 + torch.exp(-x.clamp(-30, 30))) * 1.0, None),
    (lambda x: x * torch.sigmoid(1.702 * x), "Swish(1.702)"),
    (lambda x: torch.sigmoid(x * 1.702).mul_(x), "Swish(1.702)"),
    (Swish(), "Swish(1.25)"),
    (nn.Hardswish(), "Hardswish"),
    (lambda x: x * F.relu6(x + 3) / 6, "Hardswish"),
    (lambda x: x * (F.relu6(x + 3) / 6), "Hardswish"),
    (lambda x: x * (x + 3).clamp(0, 6) * (1 / 6), "Hardswish"),
    (lambda x: F.hardsigmoid(x) * x, "Hardswish"),
    (lambda x: x.mul_(F.relu6(x + 3.0).div_(6.0)), "Hardswish"),
    (nn.GELU(), "GELU"),
    (gelu_by_hand, "GELU"),
    (lambda x: x * (torch.erf(x / 1.4142135381698608) + 1) * 0.5, "GELU"),  # a float32
    (nn.GELU("tanh"), "GELU (tanh)"),
    (gelu_by_tanh, "GELU (tanh)"),
    (gelu_in_steps, "GELU (tanh)"),
    (nn.Mish(), "Mish"),
    (lambda x: x * torch.tanh(F.softplus(x)), "Mish"),
    (nn.Sigmoid(), "Sigmoid"),
    (nn.LogSigmoid(), "LogSigmoid"),
    (nn.Tanh(), "Tanh"),
    (nn.Softsign(), "Softsign"),
    (nn.Tanhshrink(), "Tanhshrink"),
    (nn.Softshrink(0.1), "Softshrink(0.1)"),
    (nn.Hardshrink(0.1), "Hardshrink(0.1)"),
    (nn.Threshold(0.1, 0.05), "Threshold(0.1, 0.05)"),
    (nn.Softplus(2, 5), "Softplus(2, 5)"),
    (nn.ELU(0.5), "ELU(0.5)"),
    (nn.CELU(2.0), "CELU(2)"),
    (nn.SELU(), "SELU"),
    (nn.LeakyReLU(0.1), "LeakyReLU(0.1)"),
    (lambda x: torch.maximum(x, 0.1 * x), "LeakyReLU(0.1)"),
    (lambda x: torch.where(x > 0, x, 0.2 * x), "LeakyReLU(0.2)"),
    (nn.RReLU(0.1, 0.3), "LeakyReLU(0.2)"),
    (nn.PReLU(), "LeakyReLU(0.25)"),
    (nn.PReLU(8), "PReLU (8 slopes)"),
    (nn.Hardtanh(-2, 0.5), "Clip(-2, 0.5)"),
    (nn.Hardtanh(0.25, 6), "Clip(0.25, 6)"),
    (lambda x: x.clamp(-0.5), "Clip(-0.5, inf)"),
    (lambda x: x.clamp(max=0.5), "Clip(-inf, 0.5)"),
    (lambda x: torch.clamp(x, torch.tensor(-0.5), torch.tensor(0.5)), "Clip(-0.5, 0.5)"),
    (lambda x: torch.maximum(x, torch.tensor(-0.25)), "Clip(-0.25, inf)"),
    (lambda x: torch.minimum(torch.tensor(0.25), x), "Clip(-inf, 0.25)"),
    (lambda x: x.abs(), "abs(x)"),
    (lambda x: x * x, "x * x"),
    (lambda x: x**2, "x ** 2"),
    (lambda x: torch.exp(-x * x), None),
    (lambda x: x + torch.sin(x) ** 2, None),
    (lambda x: torch.where(x > 0.1, x, 0.0), None),
    (lambda x: x + F.silu(x), "x + silu(x)"),
    (squared_relu, None),
    # ReLUs after all, which need no table
    (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), "ReLU"),
    (nn.Hardsigmoid(), 1.0),
    (lambda x: F.relu6(x + 3) / 6, 1.0),
    (lambda x: F.relu6(x + 3.0).mul_(1 / 6), 1.0),
    (lambda x: (x / 6 + 0.5).clamp(0, 1), 1.0),
]


@pytest.mark.parametrize(("function", "text"), ONE_LAYER)
def test_it_is_one_layer_of_neurons_with_that_function(function, text):
    if isinstance(function, nn.PReLU) and function.num_parameters > 1:
        function.weight.data = torch.linspace(-0.5, 0.5, 8)
    module = Between(function).eval()
    found = layers(module)
    assert [name for name, _ in found] == ["first"]
    assert text is None or found == [("first", text)]
    same_function(module, 3 * torch.randn(SHAPE))


SEVERAL = [
    (lambda x: F.silu(F.relu(x)), ["ReLU", "SiLU"]),
    (lambda x: F.relu(F.silu(x)), ["SiLU", "ReLU"]),
    (lambda x: F.silu(F.silu(x)), ["SiLU", "SiLU"]),
    (lambda x: torch.tanh(F.max_pool2d(x, 2)), ["graded", "max_pool", "Tanh"]),
    # what is left as it is by its function is no new layer
    (lambda x: F.leaky_relu(F.relu(x), 0.1), ["ReLU"]),
    (lambda x: F.elu(F.relu(x)), ["ReLU"]),
    (lambda x: torch.tanh(x).clamp(-1, 1), ["Tanh"]),
    (lambda x: F.relu6(torch.sigmoid(x)), ["Sigmoid"]),
    (lambda x: F.relu(F.softplus(x)), ["Softplus(1, 20)"]),
    (lambda x: F.relu6(x.clamp(0, 3)), [3.0]),
    (lambda x: F.relu(x).clamp(-1, 6), ["ReLU", 6.0]),
    (lambda x: F.hardtanh(F.relu(x), -5, -1e-3) + x, None),
]


@pytest.mark.parametrize(("function", "kinds"), SEVERAL)
def test_functions_one_after_the_other(function, kinds):
    module = Between(function).eval()
    assert kinds is None or [kind for _, kind in layers(module)] == kinds
    same_function(module, 3 * torch.randn(SHAPE))


def test_slopes_follow_their_channels():
    """Channels are shuffled between the sum and its slopes, and picked afterwards."""
    slopes = nn.PReLU(8)
    slopes.weight.data = torch.linspace(-1, 1, 8)
    shuffled = nn.Sequential(nn.ChannelShuffle(4), slopes)
    assert [kind for _, kind in layers(Between(shuffled))] == ["PReLU (8 slopes)"]
    same_function(Between(shuffled).eval(), torch.randn(SHAPE))
    same_function(Between(lambda x: shuffled(x)[:, 2:7], 5).eval(), torch.randn(SHAPE))
    same_function(Between(lambda x: slopes(F.silu(x.flip(1)))).eval(), torch.randn(SHAPE))


def test_residual_connections_of_activations():
    same_function(Between(lambda x: F.silu(x) + x).eval(), torch.randn(SHAPE))
    same_function(Between(lambda x: F.gelu(x + F.silu(x))).eval(), torch.randn(SHAPE))
    same_function(Between(lambda x: F.silu(F.relu(x) + F.tanh(x))).eval(), torch.randn(SHAPE))


def test_zeros_in_front_of_a_max_pool_show_where_values_are_negative():
    """A max-pool's own padding is below everything; zeros that are padded on are not."""

    def pooled(x):
        return F.max_pool2d(F.pad(F.silu(x - 4), (1, 1, 1, 1)), 3, 2)

    assert "move" in [kind for _, kind in layers(Between(pooled))]
    same_function(Between(pooled).eval(), torch.randn(SHAPE))
    unsigned = Between(lambda x: F.max_pool2d(F.pad(F.softplus(x), (1, 1, 1, 1)), 3, 2))
    assert [kind for _, kind in layers(unsigned)] == ["Softplus(1, 20)", "max_pool"]
    same_function(unsigned.eval(), torch.randn(SHAPE))


def test_concatenations_of_functions_share_a_step_and_need_no_copies():
    module = Between(lambda x: torch.cat([F.relu(x), torch.tanh(x)], 1), 16).eval()
    assert [kind for _, kind in layers(module)] == ["graded", "ReLU", "Tanh", "concat"]
    tied = trace(module, SHAPE).tied()
    assert len(tied["first@2"]) == 2
    same_function(module, torch.randn(SHAPE))


def test_vectors_and_sequences_have_activations():
    slopes = nn.PReLU(5)
    slopes.weight.data = torch.linspace(-1, 1, 5)
    vectors = nn.Sequential(nn.Linear(7, 5), slopes, nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 2))
    same_function(vectors.eval(), torch.randn(3, 7))
    sequences = nn.Sequential(
        nn.Conv1d(3, 5, 3), slopes, nn.Conv1d(5, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    same_function(sequences.eval(), torch.randn(2, 3, 12))


def test_behind_the_last_weights_functions_are_neurons_and_sigmoids_are_torchs():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))

    def kinds(end):
        return [layer.kind for layer in trace(nn.Sequential(body, end), SHAPE).layers[2:]]

    assert kinds(nn.SiLU()) == ["neuron", "output"]
    assert kinds(nn.Sigmoid()) == ["map_readout"]
    for end in (nn.SiLU(), nn.Sigmoid(), Swish(), nn.Hardsigmoid()):
        same_function(nn.Sequential(body, end).eval(), torch.randn(SHAPE))


# ---- registered ----------------------------------------------------------------------------------


class Wave(nn.Module):
    """torch.export would see a power here, which is no number for sums below zero."""

    def forward(self, x):
        return torch.sin(x) + (x.relu() + 1e-3) ** 0.5


def wave(x):
    return torch.sin(x) + (x.relu() + 1e-3) ** 0.5


def test_a_registered_module_is_one_operation_and_its_layer_is_called_after_it():
    fs.register_activation("Wave", wave)
    module = Between(Wave()).eval()
    forward = module.function.forward
    graph = trace(module, SHAPE)
    layer = graph.layers[1]
    assert (layer.name, layer.activation.text()) == ("first", "Wave")
    assert layer.fused == ("function",) and dict(graph.kinds)["function"] == "Wave"
    assert module.function.forward == forward and "forward" not in vars(module.function)
    same_function(module, torch.randn(SHAPE))


def test_a_module_that_is_another_function_than_the_one_of_its_name_is_refused():
    class Lying(nn.Module):
        def forward(self, x):
            return torch.sin(2 * x)

    fs.register_activation("Lying", torch.sin)
    with pytest.raises(
        ConversionError, match="first layer that gives what the module gives nowhere"
    ):
        trace(Between(Lying()), SHAPE)


def test_a_registered_operator_is_an_activation():
    library = torch.library.Library("own_for_test", "FRAGMENT")
    library.define("bend(Tensor x) -> Tensor")
    library.impl("bend", lambda x: x * torch.cos(x), "CompositeExplicitAutograd")
    torch.library.register_fake("own_for_test::bend", torch.empty_like, lib=library)
    module = Between(lambda x: torch.ops.own_for_test.bend(x))
    with pytest.raises(ConversionError, match="bend: it has no.*register_activation"):
        trace(module, SHAPE)
    fs.register_activation("bend", lambda x: x * torch.cos(x))
    assert layers(module) == [("first", "bend")]
    same_function(module.eval(), torch.randn(SHAPE))


# ---- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: torch.log(x), "log: it is not finite everywhere.*register_activation"),
        (lambda x: torch.exp(x), "exp: it is not finite everywhere"),
        (lambda x: x.sqrt() + x, "sqrt: it is not finite everywhere"),
        (lambda x: 1 / (1 + x), "reciprocal: it is not finite everywhere"),
        (lambda x: x / (0.123456 + x), "divides by 'add'"),
        (lambda x: x / (1 + x), "divides by 'add'"),
        (lambda x: F.relu(x) / F.relu(x).mean((2, 3), keepdim=True), "divides by 'mean'"),
        (lambda x: x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1), "rsqrt: it divides by stat"),
        (lambda x: x.clamp(1, 1), r"clips to \[1, 1\], which is one number"),
        (lambda x: x.clamp(torch.zeros(8, 1, 1)), r"lower bound has shape \[8, 1, 1\]"),
        (lambda x: torch.maximum(x, F.silu(x.flip(1))), "maximum: it has no"),
    ],
)
def test_what_is_no_function_of_one_number_is_refused(function, says):
    with pytest.raises(ConversionError, match=says) as error:
        trace(Between(function), SHAPE)
    assert error.value.node and error.value.reason and error.value.cure
