"""Risk: a product of activations is read as another one, or is refused in one of its spellings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced import same_function

from fskernel import ConversionError
from fskernel.tracing.trace import trace

SHAPE = (2, 3, 9, 8)


class Gated(nn.Module):
    """A convolution, a part with a gate, a convolution, ReLU, average, linear."""

    def __init__(self, part, channels=8):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.part = nn.Conv2d(3, 8, 3, padding=1), part
        self.last, self.fc = nn.Conv2d(channels, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(F.relu(self.last(self.part(self.first(x)))).mean((2, 3)))


def layers(module, shape=SHAPE):
    """The layers between the first and the last convolution, by their kinds."""
    graph = trace(module.eval(), shape)
    names = [layer.name for layer in graph.layers]
    return [layer.kind for layer in graph.layers[1 : names.index("last")]], graph


class Excited(nn.Module):
    """Squeeze-and-excitation as torchvision, timm and many others write it.

    Args:
        how: the spelling. gate: the function that multiplies. first: the function in front.
    """

    def __init__(self, how, gate=torch.sigmoid, first=F.silu):
        super().__init__()
        torch.manual_seed(6)
        self.how, self.gate, self.first = how, gate, first
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 8)

    def forward(self, x):
        x, how = self.first(x), self.how
        if how == "linear":
            b, c, _, _ = x.shape
            return x * self.gate(self.linear(self.pool(x).view(b, c))).view(b, c, 1, 1).expand_as(x)
        if how == "unsqueezed":
            return x * self.gate(self.linear(x.mean((2, 3))))[:, :, None, None]
        if how == "expanded":
            return x * self.gate(self.linear(x.mean([-1, -2]))).view(-1, 8, 1, 1).expand(x.shape)
        if how == "transposed":  # of channels that come last
            y = x.permute(0, 2, 3, 1) * self.gate(self.linear(x.mean((2, 3))))[:, None, None]
            return y.permute(0, 3, 1, 2)
        y = self.pool(x) if how == "pool" else x.mean((2, 3), keepdim=True)
        y = self.excite(F.relu(self.squeeze(y)))
        if how == "in place":
            return x.mul_(self.gate(y))
        return self.gate(y) * x if how == "left" else x * self.gate(y)


@pytest.mark.parametrize(
    "how",
    ["pool", "mean", "left", "in place", "linear", "unsqueezed", "expanded", "transposed"],
)
def test_squeeze_and_excitation(how):
    module = Gated(Excited(how))
    kinds, graph = layers(module)
    weighted = ["neuron", "neuron"] if how in ("pool", "mean", "left", "in place") else ["neuron"]
    assert kinds == ["neuron", "mean_pool", *weighted, "gate"] and graph.size is None
    gate = next(layer for layer in graph.layers if layer.kind == "gate")
    assert gate.sources[0] == "first" and gate.bias is None and not gate.groups
    assert graph.widths()[gate.name] == 8
    same_function(module.eval(), torch.randn(SHAPE))


@pytest.mark.parametrize(
    "gate", [torch.sigmoid, F.hardsigmoid, torch.tanh, F.relu6, F.softplus, lambda x: x]
)
@pytest.mark.parametrize("first", [F.relu, F.hardswish, lambda x: x])
def test_what_multiplies_and_what_is_multiplied_may_be_anything(gate, first):
    module = Gated(Excited("mean", gate, first))
    kinds, graph = layers(module)
    assert kinds[-1] == "gate" and kinds.count("gate") == 1
    same_function(module.eval(), torch.randn(SHAPE))


class Places(nn.Module):
    """A number for each pixel, for all of its channels."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(1 if how == "mean" else 8, 1, 3, padding=1), how
        self.pixel = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = F.relu(x)
        if self.how == "mean":
            return torch.sigmoid(self.conv(x.mean(1, keepdim=True))) * x
        if self.how == "squeezed":
            return x * torch.sigmoid(self.conv(x)).mean(1)[:, None]
        places = torch.sigmoid(self.conv(x))
        if self.how == "expanded":
            return x * places.expand(-1, 8, -1, -1)
        if self.how == "product":  # of a number for each channel with one for each pixel
            return x * (torch.sigmoid(self.pixel(x.mean((2, 3), keepdim=True))) * places)
        return x * places


@pytest.mark.parametrize("how", ["conv", "mean", "squeezed", "expanded", "product"])
def test_gates_of_places(how):
    module = Gated(Places(how))
    kinds, graph = layers(module)
    assert kinds.count("gate") == (2 if how == "product" else 1) and graph.size is None
    same_function(module.eval(), torch.randn(SHAPE))


class Neighbours(nn.Module):
    """ECA: a convolution over the channels of the mean pixel."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv1d(1, 1, 3, padding=0 if how == "circular" else 1), how

    def forward(self, x):
        x = F.silu(x)
        y = x.mean((2, 3))
        if self.how == "transposed":
            y = self.conv(F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2))
            return x * torch.sigmoid(y.transpose(-1, -2).unsqueeze(-1)).expand_as(x)
        if self.how == "circular":
            y = y.view(len(x), 1, -1)
            y = torch.cat([y[:, :, -1:], y, y[:, :, :1]], 2)
            return x * torch.sigmoid(self.conv(y)).view(len(x), -1, 1, 1)
        return x * torch.sigmoid(self.conv(y[:, None])).view(len(x), -1, 1, 1)


@pytest.mark.parametrize("how", ["plain", "transposed", "circular"])
def test_a_convolution_over_channels_is_a_linear_layer_of_one_pixel(how):
    module = Gated(Neighbours(how))
    kinds, graph = layers(module)
    assert kinds[-1] == "gate"
    same_function(module.eval(), torch.randn(SHAPE))


def halves(x):
    a, b = x.chunk(2, 1)
    return a * b


def channels_of_both(x):
    y = F.relu(x)
    return y.flip(1)[:, :5] * F.silu(x)[:, 2:7]


@pytest.mark.parametrize(
    ("part", "channels", "gates"),
    [
        (halves, 4, 1),
        (lambda x: F.glu(x, 1), 4, 1),
        (nn.GLU(1), 4, 1),
        (channels_of_both, 5, 1),
        (lambda x: F.relu(x) * F.relu(1 - x), 8, 0),  # a function of x alone
        (lambda x: F.relu(x) * F.silu(x).flip(1), 8, 1),
        (lambda x: F.relu(x.flip(1) * x), 8, 1),
        (lambda x: x * torch.sigmoid(F.avg_pool2d(x, 3, 1, 1)), 8, 1),
        (lambda x: x * torch.sigmoid(F.max_pool2d(x, 3, 1, 1)) + x, 8, 1),
        (lambda x: 2 * x * torch.sigmoid(x.flip(1)) - 0.5, 8, 1),
        (lambda x: F.relu(x) * (1 - torch.sigmoid(x.flip(1))), 8, 1),
        (lambda x: torch.cat([F.relu(x), x * F.silu(x.flip(1))], 1), 16, 1),
        (lambda x: F.interpolate(x * x.flip(1), scale_factor=2), 8, 1),
        (lambda x: x * x.amax((2, 3), keepdim=True), 8, 1),
        (lambda x: x * F.silu(x[:, :, :1, :1]), 8, 1),
        (lambda x: x * F.silu(x[:, 3:4]), 8, 1),
    ],
)
def test_products_of_maps(part, channels, gates):
    module = Gated(part, channels)
    kinds, _ = layers(module)
    assert kinds.count("gate") == gates
    same_function(module.eval(), torch.randn(SHAPE))


def test_a_relu_of_a_product_that_is_never_negative_is_no_new_layer():
    kinds, _ = layers(Gated(lambda x: F.relu(F.relu(x) * torch.sigmoid(x.flip(1)))))
    assert kinds[-1] == "gate"
    kinds, _ = layers(Gated(lambda x: F.relu(x * torch.sigmoid(x.flip(1)))))
    assert kinds[-2:] == ["gate", "neuron"]


def test_products_share_steps_with_sums_that_they_are_concatenated_with():
    module = Gated(lambda x: torch.cat([x * torch.sigmoid(x.flip(1)), x.flip(1)], 1), 16)
    _, graph = layers(module)
    assert ("first", "mul") in [tuple(tied) for tied in graph.tied().values()]
    same_function(module.eval(), torch.randn(SHAPE))


def test_products_of_vectors_and_of_sequences():
    class Vectors(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(7, 6), nn.Linear(7, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(F.relu(self.a(x)) * torch.sigmoid(self.b(x)))

    same_function(Vectors().eval(), torch.randn(4, 7))

    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv1d(3, 6, 3), nn.Conv1d(6, 6, 1), nn.Linear(6, 3)

        def forward(self, x):
            y = F.silu(self.a(x))
            return self.fc((y * torch.sigmoid(self.b(y.mean(2, keepdim=True)))).mean(2))

    same_function(Sequences().eval(), torch.randn(2, 3, 12))


def test_products_behind_the_last_weights_are_torchs():
    class Ending(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = F.relu(self.a(x))
            return y * torch.sigmoid(self.b(y))

    kinds = [layer.kind for layer in trace(Ending(), SHAPE).layers]
    assert kinds == ["input", "neuron", "map_readout", "output"]
    same_function(Ending().eval(), torch.randn(SHAPE))


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (lambda x: x * F.silu(x).flatten(1)[:, :8].flip(0)[:, :, None, None], "images|no layer"),
        (lambda x: F.silu(x) * F.silu(x).mean((2, 3)), "multiplies maps of shapes.*one number for"),
        (lambda x: x * F.silu(x)[0], "multiplies maps of shapes|images|no layer"),
        (lambda x: x * F.silu(x.flip(2)), "moved in a way that no layer has"),
        (lambda x: x * F.softmax(x, 1), "attention"),
        (lambda x: torch.matmul(x, x.mT), "attention"),
    ],
)
def test_products_of_another_kind_are_refused(part, says):
    with pytest.raises(ConversionError, match=says) as error:
        trace(Gated(part), SHAPE)
    assert error.value.node and error.value.reason and error.value.cure
