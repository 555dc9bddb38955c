"""Risk: folding or fusing changes the function, or something is skipped in silence."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import Clipped, OptionAResNet, Ragged, settle
from torch import nn

from fskernel import ConversionError
from fskernel.models import cifar_resnet8
from fskernel.tracing.trace import trace


def same_function(module: nn.Module, x: torch.Tensor) -> None:
    graph = trace(module, tuple(x.shape))
    with torch.no_grad():
        expected = module.double()(x.double())
    got = graph.forward(x.double())
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-10 * (1 + expected.abs().max())


@pytest.mark.parametrize(
    "build,size",
    [
        (cifar_resnet8, 32),
        (Ragged, 37),
        (torchvision.models.resnet18, 64),
        (torchvision.models.resnet50, 64),
    ],
)
def test_float_graph_is_the_same_function(build, size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, size, size + (2 if size < 64 else 0))
    same_function(settle(build(), x), x)


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
    assert [layer.name for layer in trace(module).layers] == ["input", "0.0", "0.2", "3"]
    same_function(module, torch.randn(1, 3, 6, 5))


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


@pytest.mark.parametrize("size", range(4, 13))
@pytest.mark.parametrize(
    "pool", [(3, 2, 0, 1), (3, 2, 1, 1), (2, 2, 0, 1), (4, 3, 1, 1), (2, 2, 0, 2)]
)
def test_ceil_mode_of_max_pools(pool, size):
    kernel, stride, padding, dilation = pool
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(),
        nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    same_function(module.eval(), torch.randn(1, 3, size, size + 1))


class TwoIdentities(nn.Module):
    """A sum of two neuron outputs, and a ReLU of what is already one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y = F.relu(F.relu(self.a(x))) + torch.relu(self.b(x))
        z = F.relu(y)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(z, 1), 1))


def test_sum_of_two_neuron_outputs():
    graph = trace(TwoIdentities())
    assert [layer.kind for layer in graph.layers].count("neuron") == 3
    same_function(TwoIdentities().eval(), torch.randn(1, 3, 9, 9))


class ThreeBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 6, k, padding=k // 2) for k in (1, 3, 5))
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y = torch.relu(self.a(x) + self.b(x) + self.c(x))
        return self.fc(y.mean(dim=[2, 3]))


def test_more_branches_than_synapse_groups():
    same_function(ThreeBranches().eval(), torch.randn(1, 3, 9, 8))


class LinearBottleneck(nn.Module):
    """A convolution without ReLU that two consumers read: its values stay signed."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y = self.a(x)
        z = self.b(y) + y
        return self.fc(torch.relu(z).mean((2, 3)))


def test_linear_bottleneck_is_graded():
    graph = trace(LinearBottleneck())
    assert [layer.kind for layer in graph.layers] == ["input", "graded", "neuron", "readout"]
    same_function(LinearBottleneck().eval(), torch.randn(1, 3, 9, 8))


class Overwriting(nn.Module):
    """In-place operations on tensors that are read again: the later readers see the result."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.keep, self.how = nn.ReLU(inplace=True), nn.Identity(), how
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y = self.a(x)
        same = self.keep(y)
        if self.how == "module":
            z = self.relu(y)
        elif self.how == "alias":
            z = self.relu(same)
        elif self.how == "keyword":
            z = F.relu(y, inplace=True)
        elif self.how == "positional":
            z = F.relu6(y, True)
        elif self.how == "method":
            z = y.relu_()
        elif self.how == "statement":
            y.relu_()
            z = torch.relu(y)
        elif self.how == "function statement":
            F.relu(y, inplace=True)
            z = torch.relu(self.b(y))
        elif self.how == "add statement":
            z = self.b(torch.relu(y))
            z.add_(y)
            z = torch.relu(z)
        elif self.how == "add":
            z = F.relu(y.add_(self.b(torch.relu(y))))
        else:
            z = F.relu(y)
        return self.fc(torch.relu(self.b(z) + y).mean((2, 3)))


@pytest.mark.parametrize(
    "how",
    ["module", "alias", "keyword", "positional", "method", "add", "copy", "statement",
     "function statement", "add statement"],
)  # fmt: skip
def test_in_place_operations_change_what_is_read_later(how):
    torch.manual_seed(1)
    same_function(Overwriting(how).eval(), torch.randn(1, 3, 7, 6) * 5)


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
    assert trace(module).layers[1].ceiling == ceiling
    same_function(module, torch.randn(2, 3, 8, 7))


def head(channels=4):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


@pytest.mark.parametrize("kernel", [(2, 2), (4, 3), (1, 2), (5, 5), (2, 6)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_padding_also_of_even_kernels(kernel, dilation):
    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, kernel, padding="same", dilation=dilation)
            self.weight = nn.Parameter(torch.randn(4, 2, *kernel))
            self.head = nn.Sequential(*head())

        def forward(self, x):
            x = torch.relu(self.a(x))
            x = F.conv2d(x, self.weight, None, 1, "same", (dilation, 1), 2)
            return self.head(torch.relu(x))

    same_function(Same().eval(), torch.randn(1, 3, 9, 11))


class PreActivation(nn.Module):
    """Batch norm in front of convolutions: of an image, of a sum, of a pool."""

    def __init__(self):
        super().__init__()
        self.input, self.first = nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3)
        self.bn1, self.a = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)
        self.bn2, self.b = nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 6, 3, padding=1)
        self.bn3, self.hidden = nn.BatchNorm2d(6), nn.Linear(6, 8)
        self.flat, self.fc = nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.first(self.input(x))
        x = x + self.b(F.relu(self.bn2(self.a(F.relu(self.bn1(x))))))
        x = F.relu(self.bn3(F.max_pool2d(x, 2)))
        x = F.relu(self.flat(self.hidden(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))))
        return self.fc(x)


def test_batch_norm_anywhere_and_layers_behind_a_global_pool():
    x = torch.randn(4, 3, 11, 9)
    module = settle(PreActivation(), x)
    same_function(module, x)
    assert trace(module.float(), tuple(x.shape)).size == (11, 9)
    with pytest.raises(ConversionError, match="'hidden'|size is not known"):
        trace(module)


class FunctionalNorm(nn.Module):
    def __init__(self, training=False):
        super().__init__()
        self.conv, self.fc, self.training_too = (
            nn.Conv2d(3, 4, 3, bias=False),
            nn.Linear(4, 2),
            training,
        )
        self.bn = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x, features_only=False):
        y = self.conv(x)
        torch._assert(y.ndim == 4, "a batch")
        batch, channels, rows, columns = y.shape
        y = F.batch_norm(
            y, self.bn.running_mean, self.bn.running_var, self.scale, None, self.training_too,
            eps=0.1,
        )  # fmt: skip
        y = F.relu(y)
        y = sum([y, y])
        y = F.avg_pool2d(F.relu(y), (rows, columns))
        return self.fc(y.view(batch, channels))


def test_functional_batch_norm_and_sizes_that_are_computed():
    module = FunctionalNorm().eval()
    with torch.no_grad():
        module.bn.running_mean.copy_(torch.randn(4))
        module.bn.running_var.copy_(torch.rand(4) + 0.2)
    graph = trace(module, (1, 3, 7, 9))
    assert [layer.kind for layer in graph.layers] == ["input", "neuron", "neuron", "readout"]
    assert graph.layers[-1].pool and graph.size == (7, 9)
    same_function(module, torch.randn(2, 3, 7, 9))
    module.float()
    with pytest.raises(ValueError, match="8x9 pixels.*made for 7x9"):
        graph.forward(torch.randn(1, 3, 8, 9).double())
    with pytest.raises(ConversionError, match="size of the image.*calibration"):
        trace(module)
    with pytest.raises(ConversionError, match="statistics of the batch"):
        trace(FunctionalNorm(training=True), (1, 3, 7, 9))


@pytest.mark.parametrize("how", ["lambda", "ellipsis", "pool"])
def test_option_a_shortcuts_add_synapses_and_nothing_else(how):
    module = settle(OptionAResNet(1, (5, 12, 24), how), torch.randn(2, 3, 21, 21))
    graph = trace(module, (1, 3, 21, 21))
    assert [layer.kind for layer in graph.layers] == ["input", *["neuron"] * 7, "readout"]
    group = graph.layers[5].groups[1]
    assert group.one_to_one and group.geometry.stride == (2, 2)
    assert group.weight.sum(0).flatten().tolist() == [1.0] * 5
    assert group.weight.flatten(1).sum(1).tolist() == [0.0] * 3 + [1.0] * 5 + [0.0] * 4
    same_function(module, torch.randn(2, 3, 21, 21))


class Subsampled(nn.Module):
    """Subsampled maps, read by a convolution, an addition, a concatenation and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 1, 1)
        self.fc = nn.Linear(8 * 2 * 3, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))[:, :, ::2, 0::3]
        y = torch.relu(self.b(x) + x)
        x = torch.cat([F.max_pool2d(x, 1, 2), y[..., ::2, ::2]], 1)
        return self.fc(x.reshape(x.shape[0], -1))


def test_subsampled_maps():
    same_function(Subsampled().eval(), torch.randn(2, 3, 10, 18))


@pytest.mark.parametrize("size,fits", [((12, 8), True), ((13, 8), False), ((12, 9), False)])
def test_ceil_mode_of_average_pools_only_where_no_window_is_smaller(size, fits):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(2, 2, 0, True, False), nn.Conv2d(4, 4, 3),
        nn.ReLU(), *head(),
    ).eval()  # fmt: skip
    if not fits:
        with pytest.raises(ConversionError, match="ceil_mode.*divide by another.*divisible"):
            trace(module, (1, 3, *size))
        return
    with pytest.raises(ConversionError, match="size of the image.*calibration images"):
        trace(module)
    same_function(module, torch.randn(2, 3, *size))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("padding", [0, 1])
def test_average_pools_count_their_padding_or_are_refused(padding, include):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 2, padding, False, include), *head()
    ).eval()
    if padding and not include:
        with pytest.raises(
            ConversionError, match="count_include_pad=False.*count_include_pad=True"
        ):
            trace(module)
    else:
        same_function(module, torch.randn(1, 3, 8, 9))


@pytest.mark.parametrize("size", [(3, 3), (3, 4), (5, 3)])
@pytest.mark.parametrize("pool", [(3, 3, 1), (3, None, 0), (3, 1, 0), (3, 5, 1)])
def test_average_pools_of_about_the_whole_map(pool, size):
    body = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(*pool)]
    with torch.no_grad():
        features = nn.Sequential(*body)(torch.zeros(1, 3, *size)).numel()
    module = nn.Sequential(*body, nn.Flatten(), nn.Linear(features, 3)).eval()
    graph = trace(module, (1, 3, *size))
    assert graph.layers[-1].pool == (size == (3, 3) and pool[2] == 0)
    same_function(module, torch.randn(2, 3, *size))


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


def test_the_module_is_left_alone():
    module = cifar_resnet8().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    trace(module)
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


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


@pytest.mark.parametrize("size", range(4, 10))
@pytest.mark.parametrize(
    "pad,pool",
    [
        ((0, 1, 0, 1), (3, 2)), ((1, 0, 2, 1), (3, 2)), ((1, 1, 1, 1), (2, 2)),
        ((1, 0, 0, 1), (3, 2, 1)), ((2, 1, 0, 2), (3, 1)), ((1, 2, 2, 0), ((4, 3), (3, 1))),
    ],
)  # fmt: skip
def test_zeros_padded_on_before_pools(pad, pool, size):
    for kind in (nn.MaxPool2d, nn.AvgPool2d):
        body = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(1, 1), nn.ZeroPad2d(pad), kind(*pool)]
        with torch.no_grad():
            body[0].bias.fill_(-0.5)  # so that whole windows are zero
        module = nn.Sequential(*body, *head()).eval()
        same_function(module, torch.randn(2, 3, size, size + 1))


class PoolTwice(nn.Module):
    """Zeros beside pools of pools and of words side by side."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, x):
        y = torch.cat([F.relu(self.a(x)), F.avg_pool2d(F.relu(self.b(x)), 3, 1, 1)[:, :, ::1]], 1)
        y = F.max_pool2d(F.pad(F.relu(y), (0, 1, 0, 1)), 3, 2)
        return self.fc(F.max_pool2d(F.pad(y, (1, 0, 1, 0)), 2).mean((2, 3)))


def test_zeros_beside_pools_of_pools():
    same_function(PoolTwice().eval(), torch.randn(2, 3, 13, 12))
