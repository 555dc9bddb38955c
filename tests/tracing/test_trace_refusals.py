"""Risk: what has no Few-Spikes form is converted all the same, or refused without saying why."""

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn
from traced import same_function

from fskernel import ConversionError
from fskernel.models import cifar_resnet8
from fskernel.tracing.trace import trace


class Taking(nn.Module):
    """conv, ReLU, what a function makes of it, ReLU, average, linear."""

    def __init__(self, take):
        super().__init__()
        torch.manual_seed(6)
        self.conv, self.take = nn.Conv2d(3, 4, 3), take
        self.fc = nn.Linear(take(torch.zeros(2, 4, 7, 6)).shape[1], 2)

    def forward(self, x):
        return self.fc(F.relu(self.take(F.relu(self.conv(x)))).mean((2, 3)))


TAKEN = (2, 3, 9, 8)  # images for it


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x[:, :2],
        lambda x: x[:, :, 1::2, ::2],
        lambda x: x[:, :, :3],
        lambda x: x[:, ::2],
        lambda x: F.pad(x, (1, 1, 1, 1))[:, :, ::2, ::2],
        lambda x: F.pad(x[:, :, ::2, ::3], (1, 0, 0, 2)),
        lambda x: F.max_pool2d(F.pad(x, (0, 0, 0, 0, 1, 1)), 2),
        lambda x: F.pad(x, (1, 0, 0, 0, 1, 1)),
        lambda x: F.pad(x, (0, 0, 0, 0, -1, 0)),
        lambda x: x + F.pad(x[:, :2], (0, 0, 0, 0, 1, 1)),
        lambda x: x.reshape(-1, 2, 2, 7, 6).transpose(1, 2).flatten(1, 2),
        lambda x: torch.stack([x, 0.5 * x], 2).flatten(1, 2),
        lambda x: F.interpolate(x, scale_factor=(2, 3)),
        lambda x: nn.Upsample(size=(14, 6))(x),
        lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        lambda x: F.max_pool2d(x, 3, 3, 1, ceil_mode=True),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: F.adaptive_avg_pool2d(x, 3),
        lambda x: F.max_pool2d(F.pad(x, (0, 2, 0, 0)), 2),
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 0)), 3, ceil_mode=True),
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 0)), 2, dilation=2),
        lambda x: torch.add(x, x.flip(1), alpha=-2),
        lambda x: torch.cat([x[:, :2], torch.cat([x, x])[: len(x), 2:]], 1),
        lambda x: x.mean((2, 3), keepdim=True) + x,
        lambda x: F.adaptive_max_pool2d(x, (1, 3)) + x[:, :, :1, ::2],
        lambda x: F.relu(F.pad(x, (0, 0, 0, 0, 1, 1))) * x.repeat(1, 2, 1, 1)[:, :6],
        lambda x: torch.cat([x, x.mul(x)], 1),
        lambda x: x * x.mean((2, 3), keepdim=True),
        lambda x: x / (1 + x),  # of what is never negative
    ],
)
def test_what_only_moves_numbers_converts(take):
    same_function(Taking(take).eval(), torch.randn(TAKEN))


@pytest.mark.parametrize(
    "take,why",
    [
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "div: it has no"),
        (lambda x: F.softmax(x, 1), "attention"),
        (lambda x: torch.matmul(x, x.mT), "attention"),
        (lambda x: F.group_norm(x, 2), "group_norm: it divides by statistics.*batch norm"),
        (lambda x: F.layer_norm(x, (7, 6)), "layer_norm: it divides.*batch norm"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "upsample_bilinear2d"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "pads in mode 'reflect'|reflection_pad"),
        (lambda x: F.pad(x, (1, 1, 1, 1), value=0.5), "pads in mode 'constant' with 0.5.*zeros"),
        (lambda x: x.transpose(1, 2)[:, :4], "moved in a way that no layer has.*Supported"),
        (lambda x: x[..., [2, 0, 1], :], "moved in a way that no layer has.*Supported"),
        (lambda x: x + x.flip(3), "moved in a way that no layer has.*Supported"),
        (lambda x: x.flip(0), "mixes images|in a way that no layer"),
        (lambda x: x[:1] + x, "images|shapes"),
        (lambda x: x - x.mean(0, keepdim=True), "averages over dimensions .0,."),
        (lambda x: x.cumsum(1), "cumsum: it has no"),
        (lambda x: x + torch.rand(4, 7, 6), "rand draws random numbers"),
        (
            lambda x: x * torch.linspace(0, 1, 4 * 7 * 6).view(4, 7, 6),
            "constant of shape .4, 7, 6.",
        ),
        (lambda x: x + torch.linspace(0, 1, 6), "constant of shape .6.*one for each channel"),
        (lambda x: x * float("nan"), "factor holds NaN"),
        (lambda x: torch.where(x > x.flip(1), x, 0.0), "where: it has no|gt: it has no"),
        (lambda x: x.sort(1)[0], "sort: it has no"),
        (lambda x: torch.cat([x, torch.ones_like(x)], 1), "ones_like: it has no"),
    ],
)
def test_functions_without_a_form_are_refused_with_reason_and_cure(take, why):
    with pytest.raises(ConversionError, match=why) as error:
        trace(Taking(take), TAKEN)
    assert error.value.node and error.value.reason and error.value.cure


class Ending(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.fc, self.how = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), how

    def forward(self, x, other=None):
        y = self.conv(x)
        if self.how == "two inputs":
            y = y + other
        y = F.relu(y)
        logits = self.fc(y.mean((2, 3)))
        if self.how == "tuple":
            return logits, y
        if self.how == "dict":
            return {"logits": logits}
        return F.softmax(logits, 1) if self.how == "softmax" else logits


@pytest.mark.parametrize(
    "how,why",
    [
        ("two inputs", "y = y . other.*'Tensor' and 'NoneType'"),
    ],
)
def test_inputs_and_outputs_that_do_not_fit(how, why):
    with pytest.raises(ConversionError, match=why):
        trace(Ending(how), TAKEN)
    trace(Ending("fine"))  # an input with a default that nobody reads


class Net(nn.Module):
    """conv, a module under test, pool, linear."""

    def __init__(self, middle):
        super().__init__()
        self.conv, self.middle, self.fc = nn.Conv2d(3, 4, 3), middle, nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.middle(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "middle,why",
    [
        (nn.GroupNorm(2, 4), "batch norm"),
        (nn.BatchNorm2d(4, track_running_stats=False), "running statistics"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()), "zeros"),
    ],
)
def test_unsupported_modules_are_refused_by_name(middle, why):
    with pytest.raises(ConversionError, match=why) as error:
        trace(Net(middle))
    assert "middle" in error.value.node
    assert error.value.reason and error.value.cure


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Odd(nn.Module):
    """What looks almost like something that is supported."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.fc, self.how = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), how

    def forward(self, x):
        x = F.relu(self.conv(x))
        if self.how == "dropout":
            x = F.dropout(x)
        elif self.how == "mean":
            return self.fc(x.mean(2).mean(2))
        elif self.how == "reflect":
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        elif self.how == "pad and flatten":
            return self.fc(F.pad(x, (0, 0, 0, 0, 0, 0)[:4]).flatten(1) + F.pad(x, (1, 0, 0, 0)))
        elif self.how == "rows":
            return self.fc(x.view(-1, 4))
        elif self.how == "one row":
            return self.fc(x.view(1, -1))
        elif self.how == "overpadded":
            x = F.max_pool2d(x, 2, padding=2)
        elif self.how == "dilated":
            x = F.max_pool2d(x, 2, 1, 1, 5)
        return self.fc(x.mean((2, 3)))


ODD = [
    Odd(how)
    for how in (
        "dropout", "mean", "reflect", "pad and flatten", "rows", "one row", "overpadded", "dilated",
    )
]  # fmt: skip


@pytest.mark.parametrize("module", [Branching(), nn.Sequential(nn.Conv2d(3, 4, 1)), *ODD])
def test_what_has_no_form_is_refused(module):
    with pytest.raises(ConversionError, match=r"cannot convert '\w+'"):
        trace(module, TAKEN)  # without a size seven are tried, in two dtypes


def test_nan_weights_are_refused():
    module = cifar_resnet8()
    with torch.no_grad():
        module.layer2[0].conv1.weight[3, 2, 1, 0] = float("nan")
    with pytest.raises(ConversionError, match="layer2.0.conv1.*NaN"):
        trace(module)


def test_the_name_of_a_class_is_no_reason_where_there_is_another():
    class LayerNormAttention(nn.Sequential):
        pass

    module = Net(LayerNormAttention(nn.Conv2d(4, 4, 1), nn.ReLU()))
    trace(module)
    with torch.no_grad():
        module.middle[0].bias[1] = float("inf")
    with pytest.raises(ConversionError, match="'middle.0'.*NaN or infinite"):
        trace(module)


def test_a_linear_network_without_neurons_is_refused():
    with pytest.raises(ConversionError, match="no layer of neurons"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (1, 3, 2, 2))


def test_not_a_module():
    with pytest.raises(TypeError, match="expected a torch.nn.Module"):
        trace("resnet50")


X = torch.randn(2, 3, 8, 7, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    def __init__(self, around, last=lambda y: y):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
        self.around, self.last = around, last

    def forward(self, x):
        y = F.relu(self.a(x))
        return self.last(self.fc(F.relu(self.around(self, y)).mean((2, 3))))


@pytest.mark.parametrize(
    "around",
    [
        lambda m, y: y + F.relu(m.b(F.adaptive_avg_pool2d(y, 1))),
        lambda m, y: m.b(y) + m.b(F.avg_pool2d(y, (8, 7))),
        lambda m, y: m.b(F.avg_pool2d(y, (8, 1))) + y,
        lambda m, y: y.mean((2, 3), keepdim=True) + m.b(y),
        lambda m, y: m.b(y.mean((2, 3), keepdim=True)) + F.max_pool2d(y, (8, 1)) + y[:, :, :1],
        lambda m, y: torch.cat([y[:, :2], y[:, 2:]], 1),
        lambda m, y: y[:, ::2].repeat(1, 2, 1, 1),
        lambda m, y: F.max_pool2d(F.pad(m.b(y), (1, 1, 1, 1)), 3),
        lambda m, y: F.max_pool2d(F.pad(y, (1, 1, 2, 1)), 2),
        lambda m, y: y.squeeze(3),
        lambda m, y: F.conv2d(y, m.b.weight[:, :1] * 2, groups=4),
        lambda m, y: y + m.fc.bias[0],
        lambda m, y: torch.add(y, m.b(y), alpha=2),
        lambda m, y: torch.add(y, y, out=y),
        lambda m, y: m.b(y) - torch.linspace(-1, 1, 4).view(1, 4, 1, 1),
    ],
)
def test_sums_pads_and_parts_that_were_refused_once(around):
    same_function(Around(around).eval(), X)


class Scaled(nn.Sequential):
    def forward(self, x):
        return super().forward(2 * x - 0.5)


def test_arithmetic_on_the_image_is_folded():
    module = Scaled(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(120, 2))
    same_function(module.eval(), X)


def test_modules_that_do_not_run_are_refused_by_the_line():
    module = Around(lambda m, y: y)
    module.fc = nn.Linear(5, 2)
    with pytest.raises(ConversionError, match=r"'Around': torch.export cannot follow.*self.fc\("):
        trace(module, TAKEN)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten())
    with pytest.raises(ConversionError, match="5"):
        trace(module)


@pytest.mark.parametrize(
    "last",
    [
        torch.sigmoid,
        nn.LogSigmoid(),
        nn.LogSoftmax(1),
        lambda y: y.softmax(1),
        torch.tanh,
        lambda y: y.argmax(1),
        lambda y: F.normalize(y),
        lambda y: y.exp(),
    ],
)
def test_what_is_done_to_logits_is_done_to_them(last):
    same_function(Around(lambda m, y: m.b(y), last).eval(), X)
