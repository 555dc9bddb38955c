"""Risk: of the many ways to write one layer, one is read as another or is refused."""

import pytest
import torch
import torch.nn.functional as F
from networks import Clipped
from torch import nn
from traced import same_function

from fskernel.tracing.trace import trace


class Functional(nn.Module):
    """Everything as functions and methods, nothing as modules except weights."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 3 * 4, 5)

    def forward(self, x):
        x = self.a(x).relu_()
        x = F.max_pool2d(x, 2, stride=2)
        y = self.b(x)
        y += self.c(x)
        y = torch.add(y, x).relu()
        y = F.avg_pool2d(y, kernel_size=(2, 1))
        y = F.adaptive_avg_pool2d(y, (3, 4))
        return self.fc(y.view(y.size(0), -1))


def test_functional_style():
    same_function(Functional().eval(), torch.randn(2, 3, 14, 10))


class OwnConv(nn.Conv2d):
    """A convolution with a forward of its own, as timm and EfficientNet packages have."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


def test_functions_are_named_after_their_layer():
    body = nn.Sequential(OwnConv(3, 4, 2), nn.ReLU(), OwnConv(4, 4, 2), nn.ReLU())
    module = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    graph = same_function(module, torch.randn(1, 3, 6, 5))
    assert [layer.name for layer in graph.layers] == ["input", "0.0", "0.2", "3"]


class PaddedAndFunctional(nn.Module):
    """Zeros padded on before a convolution; weights used by functions."""

    def __init__(self):
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 2, 3))
        self.a = nn.Conv2d(3, 6, 3, stride=2, padding=(0, 1))
        self.weight, self.bias = nn.Parameter(torch.randn(8, 3, 3, 2)), nn.Parameter(torch.randn(8))
        self.head = nn.Parameter(torch.randn(5, 8))

    def forward(self, x):
        x = F.relu(self.a(self.pad(F.pad(x, (1, 0, 0, 0)))))
        x = F.conv2d(x, self.weight, self.bias, padding="same", dilation=2, groups=2)
        x = F.dropout(F.relu(x), 0.3, self.training)
        return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), self.head)


def test_padding_and_functional_weights():
    same_function(PaddedAndFunctional().eval(), torch.randn(2, 3, 11, 9))


@pytest.mark.parametrize(
    "clip,ceiling",
    [
        (nn.Hardtanh(0, 6), 6.0),
        (nn.Hardtanh(0.0, 1.5, inplace=True), 1.5),
        (nn.ReLU6(), 6.0),
        (lambda x: F.hardtanh(x, 0.0, 6.0), 6.0),
        (lambda x: F.hardtanh(x, min_val=0, max_val=2), 2.0),
        (lambda x: F.hardtanh_(x, 0, 2), 2.0),
        (lambda x: F.relu6(x, True), 6.0),
        (lambda x: x.clamp(0, 6), 6.0),
        (lambda x: x.clamp_(0, 6), 6.0),
        (lambda x: x.clamp(min=0), None),
        (lambda x: x.clamp(min=0, max=3), 3.0),
        (lambda x: x.clamp_min(0), None),
        (lambda x: torch.clamp(x, 0.0), None),
        (lambda x: torch.clamp(x, max=6, min=0.0), 6.0),
        (lambda x: torch.clip(x, 0, 6), 6.0),
        (lambda x: x.relu(), None),
        (torch.relu_, None),
    ],
)
def test_spellings_of_relu(clip, ceiling):
    module = Clipped(clip).eval()
    with torch.no_grad():
        module.conv.weight.mul_(20)  # so that ceilings are reached
    graph = same_function(module, torch.randn(2, 3, 8, 7))
    assert graph.layers[1].ceiling == ceiling


class OldStyle(nn.Module):
    """AlexNet's way to flatten, and a classifier that is a convolution."""

    def __init__(self, last):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), last

    def forward(self, x):
        x = F.relu(self.conv(x))
        if isinstance(self.last, nn.Linear):
            return self.last(x.view(x.size(0), 4 * 5 * 6))
        return torch.flatten(self.last(F.adaptive_avg_pool2d(x, 1)), 1)


@pytest.mark.parametrize("last", [nn.Linear(4 * 5 * 6, 3), nn.Conv2d(4, 3, 1)])
def test_old_and_convolutional_classifiers(last):
    same_function(OldStyle(last).eval(), torch.randn(2, 3, 7, 8))


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.fc = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Linear(4, 2)

    def forward(self, x):
        y = F.relu(input=F.conv2d(input=x, weight=self.weight, padding=1))
        y = torch.add(y, other=y)
        y = F.adaptive_avg_pool2d(input=F.relu(y), output_size=1)
        return self.fc(torch.flatten(input=y, start_dim=1))


def test_operands_passed_by_keyword():
    same_function(Keywords().eval(), torch.randn(2, 3, 6, 5))


class Between(nn.Module):
    """conv, what a function makes of it and of the module, pool, linear."""

    def __init__(self, between, channels=4):
        super().__init__()
        self.a, self.b, self.fc = (
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(4, 4, 3, 1, 1),
            nn.Linear(channels, 3),
        )
        self.gamma = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("factor", torch.tensor(-0.5))
        self.between = between

    def forward(self, x):
        return self.fc(self.between(self, torch.relu(self.a(x))))


def averaged(f):
    return lambda m, y: torch.relu(f(m, y)).mean((2, 3))


@pytest.mark.parametrize(
    "between",
    [
        averaged(lambda m, y: y + 0.2 * m.b(y)),
        averaged(lambda m, y: m.b(y) * 0.2 + y),
        averaged(lambda m, y: torch.mul(m.b(y), -3) + y),
        averaged(lambda m, y: m.b(y).mul(other=2) + y),
        averaged(lambda m, y: m.b(y) / 3 + torch.div(y, -4)),
        averaged(lambda m, y: m.b(y).div_(2.5)),
        averaged(lambda m, y: m.gamma * m.b(y) + y),
        averaged(lambda m, y: m.gamma * y + m.b(y)),
        averaged(lambda m, y: m.factor * m.b(y) + y),
        averaged(lambda m, y: 0.5 * (m.b(y) + y)),
        averaged(lambda m, y: 0.5 * (m.b(y) + m.b(torch.relu(m.b(y))) + y) + y),
        averaged(lambda m, y: (lambda z: z + z)(m.b(y)) + y),
        averaged(lambda m, y: y.clone().detach() + m.b(y.data)),
        averaged(lambda m, y: nn.ReLU6()(nn.Identity()(m.b(y)))),
        averaged(lambda m, y: nn.Sequential(nn.MaxPool2d(2), nn.ReLU())(y)),
        averaged(lambda m, y: torch.cat([m.b(y)], axis=1)),
        lambda m, y: y.mean(axis=(-1, -2)),
        lambda m, y: torch.mean(y, axis=(2, 3), keepdims=False),
        lambda m, y: y.mean((2, 3), keepdim=True).flatten(1),
        lambda m, y: F.adaptive_avg_pool2d(y, 1).squeeze(-1).squeeze(-1),
        lambda m, y: torch.squeeze(F.adaptive_avg_pool2d(y, (1, 1)).squeeze(3), dim=2),
        lambda m, y: F.adaptive_avg_pool2d(y, 1).squeeze(),
        lambda m, y: F.adaptive_avg_pool2d(y, 1).squeeze((2, 3)),
        lambda m, y: F.adaptive_avg_pool2d(y, 1)[:, :, 0, 0],
        lambda m, y: F.avg_pool2d(y, y.shape[2:]).squeeze(2).squeeze(2),
        lambda m, y: F.avg_pool2d(y, y.size()[2:]).flatten(1),
        lambda m, y: F.avg_pool2d(y, y.size()[-2:]).mean((2, 3)),
        lambda m, y: F.avg_pool2d(y, (y.size(2), y.shape[-1])).view(y.size(0), -1),
        averaged(lambda m, y: F.adaptive_avg_pool2d(y, (None, 3))),
        averaged(lambda m, y: nn.AdaptiveAvgPool2d((2, None))(y)),
        averaged(lambda m, y: nn.AdaptiveAvgPool2d((None, None))(y)),
    ],
)
def test_other_ways_to_write_what_converts(between):
    torch.manual_seed(2)
    same_function(Between(between).eval(), torch.randn(3, 3, 8, 11))


def test_factors_of_logits_and_of_signed_values():
    class Scaled(Between):
        def forward(self, x):
            y = self.b(torch.relu(self.a(x)))
            return self.fc((0.3 * y + torch.relu(y)).mean((2, 3))) / 0.07

    same_function(Scaled(None).eval(), torch.randn(2, 3, 8, 7))


class Placed(nn.Module):
    """A bias that is computed of positions, which forward makes in torch's own dtype."""

    def __init__(self):
        super().__init__()
        self.conv, self.places, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(2, 6), nn.Linear(6, 4)

    def forward(self, x):
        places = torch.stack((torch.ones(1), torch.arange(1.0)), 1)
        bias = self.places(places)[:, :, None, None]
        return self.fc(torch.relu(self.conv(x) + bias).mean((2, 3)))


def test_constants_may_be_made_of_floats_of_another_dtype_than_the_weights():
    module, x = Placed().eval(), torch.randn(3, 3, 8, 11)
    with torch.no_grad(), pytest.warns(UserWarning, match="does not run in float64"):
        expected = module(x)
        got = trace(module, tuple(x.shape)).forward(x.double())
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


class ContextOfAll(nn.Module):
    """The mean of a map, enlarged to its size again and joined to it (as in DeepLabV3)."""

    def __init__(self, mode):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1), nn.Conv2d(9, 7, 3)
        self.fc, self.mode = nn.Linear(7, 3), mode

    def forward(self, x):
        x = F.relu(self.a(x))
        y = F.relu(self.b(F.adaptive_avg_pool2d(x, 1)))
        y = F.interpolate(y, x.shape[-2:], mode=self.mode, align_corners=False)
        return self.fc(F.relu(self.c(torch.cat((x, y), 1))).mean((2, 3)))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_one_pixel_may_be_enlarged_in_any_way(mode):
    same_function(ContextOfAll(mode).eval(), torch.randn(2, 3, 11, 14))
