"""Risk: folding or fusing changes the function, or something is skipped in silence."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
import torchvision
from networks import Ragged, settle
from torch import nn

from fskernel import ConversionError
from fskernel.models import cifar_resnet8
from fskernel.trace import trace


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
        (torchvision.models.vgg11_bn, 224),
        (torchvision.models.mobilenet_v2, 64),
        (partial(torchvision.models.googlenet, init_weights=False), 64),
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


def test_the_module_is_left_alone():
    module = cifar_resnet8().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    trace(module)
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


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
        (nn.SiLU(), "ReLU"),
        (nn.GELU(), "ReLU"),
        (nn.Sigmoid(), "gate"),
        (nn.GroupNorm(2, 4), "batch norm"),
        (nn.BatchNorm2d(4, track_running_stats=False), "running statistics"),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode"),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 3, 1, ceil_mode=True)), "ceil_mode"),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True)), "indices"),
        (
            nn.Sequential(nn.ReLU(), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
            "count_include_pad",
        ),
        (nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(3)), "size of the picture"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()), "zeros"),
        (nn.Upsample(scale_factor=2), "Supported"),
    ],
)
def test_unsupported_modules_are_refused_by_name(middle, why):
    with pytest.raises(ConversionError, match=why) as error:
        trace(Net(middle))
    assert "middle" in error.value.node
    assert error.value.reason and error.value.cure


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        y = F.relu(self.conv(x))
        return self.fc((y * y.mean((2, 3), keepdim=True)).mean((2, 3)))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Odd(nn.Module):
    """What looks almost like something that is supported."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.fc, self.how = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), how
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        x = F.relu(self.conv(x))
        if self.how == "dropout":
            x = F.dropout(x)
        elif self.how == "mean":
            return self.fc(x.mean(2).mean(2))
        elif self.how == "pad":
            x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 2)
        elif self.how == "reflect":
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        elif self.how == "weight":
            x = F.relu(F.conv2d(x, self.conv.weight[:, :1] * 2, groups=4))
        elif self.how == "pad and flatten":
            return self.fc(F.pad(x, (0, 0, 0, 0, 0, 0)[:4]).flatten(1) + F.pad(x, (1, 0, 0, 0)))
        elif self.how == "out":
            torch.add(x, x, out=x)
        elif self.how == "rows":
            return self.fc(x.view(-1, 4))
        elif self.how == "one row":
            return self.fc(x.view(1, -1))
        elif self.how == "overpadded":
            x = F.max_pool2d(x, 2, padding=2)
        elif self.how == "dilated":
            x = F.max_pool2d(x, 2, 1, 1, 5)
        elif self.how == "constant":
            x = x + self.shift
        elif self.how == "scaled":
            x = torch.add(x, x, alpha=2)
        return self.fc(x.mean((2, 3)))


ODD = [
    Odd(h)
    for h in (  # fmt: skip
        "dropout",
        "mean",
        "pad",
        "reflect",
        "weight",
        "constant",
        "scaled",
        "pad and flatten",
        "out",
        "rows",
        "one row",
        "overpadded",
        "dilated",
    )
]


@pytest.mark.parametrize("module", [Gate(), Branching(), nn.Sequential(nn.Conv2d(3, 4, 1)), *ODD])
def test_what_has_no_form_is_refused(module):
    with pytest.raises(ConversionError, match=r"cannot convert '\w+'"):
        trace(module)


def test_nan_weights_are_refused():
    module = cifar_resnet8()
    with torch.no_grad():
        module.layer2[0].conv1.weight[3, 2, 1, 0] = float("nan")
    with pytest.raises(ConversionError, match="layer2.0.conv1.*NaN"):
        trace(module)


def test_hooks_are_refused():
    module = cifar_resnet8()
    module.layer2[0].conv1.register_forward_hook(lambda m, args, y: y * 2)
    with pytest.raises(ConversionError, match="layer2.0.conv1.*hooks"):
        trace(module)
    module = cifar_resnet8()
    nn.utils.prune.l1_unstructured(module.layer1[0].conv1, "weight", 0.5)
    with pytest.raises(ConversionError, match="layer1.0.conv1.*remove"):
        trace(module)


def test_a_linear_network_without_convolution_is_refused():
    with pytest.raises(ConversionError, match="no convolution"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (1, 3, 2, 2))


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


def test_not_a_module():
    with pytest.raises(TypeError, match="expected a torch.nn.Module"):
        trace("resnet50")
