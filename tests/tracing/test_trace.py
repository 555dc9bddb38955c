"""Risk: folding or fusing changes the function, or something is skipped in silence."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import OptionAResNet, Ragged, settle
from torch import nn
from traced import same_function

from fskernel import ConversionError
from fskernel.models import cifar_resnet8
from fskernel.tracing.trace import trace


def resnet(block):
    """A ResNet of torchvision's with a block a stage."""
    return lambda: torchvision.models.ResNet(block, [1, 1, 1, 1])


@pytest.mark.parametrize(
    "build,size",
    [
        (cifar_resnet8, 32),
        (Ragged, 37),
        (resnet(torchvision.models.resnet.BasicBlock), 64),
        (resnet(torchvision.models.resnet.Bottleneck), 64),
        pytest.param(torchvision.models.resnet50, 64, marks=pytest.mark.slow),
    ],
)
def test_float_graph_is_the_same_function(build, size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, size, size + (2 if size < 64 else 0))
    same_function(settle(build(), x), x)


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
    graph = same_function(TwoIdentities().eval(), torch.randn(1, 3, 9, 9))
    assert [layer.kind for layer in graph.layers].count("neuron") == 3


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
    graph = same_function(LinearBottleneck().eval(), torch.randn(1, 3, 9, 8))
    assert [layer.kind for layer in graph.layers] == ["input", "graded", "neuron", "readout"]


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
    graph = same_function(module, x)
    assert graph.size is None
    other = torch.randn(2, 3, 14, 6).double()
    assert torch.allclose(graph.forward(other), module.double()(other), rtol=0, atol=1e-10)


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
    graph = same_function(module, torch.randn(2, 3, 7, 9))
    assert [layer.kind for layer in graph.layers] == ["input", "neuron", "neuron", "readout"]
    assert graph.layers[-1].pool and graph.size == (7, 9)
    module.float()
    with pytest.raises(ValueError, match="8x9 pixels.*made for 7x9"):
        graph.forward(torch.randn(1, 3, 8, 9).double())
    assert trace(module).size == (224, 224)  # the first one that is tried
    with pytest.raises(ConversionError, match="statistics of the batch"):
        trace(FunctionalNorm(training=True), (1, 3, 7, 9))


@pytest.mark.parametrize("how", ["lambda", "ellipsis", "pool"])
def test_option_a_shortcuts_add_synapses_and_nothing_else(how):
    module = settle(OptionAResNet(1, (5, 12, 24), how), torch.randn(2, 3, 21, 21))
    graph = same_function(module, torch.randn(2, 3, 21, 21))
    assert [layer.kind for layer in graph.layers] == ["input", *["neuron"] * 7, "readout"]
    group = graph.layers[5].groups[1]
    assert group.one_to_one and group.geometry.stride == (2, 2)
    assert group.weight.sum(0).flatten().tolist() == [1.0] * 5
    assert group.weight.flatten(1).sum(1).tolist() == [0.0] * 3 + [1.0] * 5 + [0.0] * 4


def test_the_module_is_left_alone():
    module = cifar_resnet8().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    trace(module)
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("ceiling", [None, 6.0])
def test_the_relu_of_averaged_or_joined_words_is_no_layer(ceiling):
    """Means of words, and words side by side, are within what their neurons are."""

    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3)
            self.c, self.fc = nn.Conv2d(9, 6, 1), nn.Linear(6, 2)
            self.relu = nn.ReLU() if ceiling is None else nn.ReLU6()

        def forward(self, x):
            y = self.relu(torch.cat([self.relu(3 * self.a(x)), self.relu(3 * self.b(x))], 1))
            y = self.relu(F.avg_pool2d(y, 2))
            return self.fc(self.relu(F.adaptive_avg_pool2d(self.relu(self.c(y)), 1)).flatten(1))

    module = Again().eval()
    graph = same_function(module, 4 * torch.randn(2, 3, 9, 11))
    kinds = [layer.kind for layer in graph.layers]
    assert kinds.count("neuron") == 3 and "graded" not in kinds and kinds[-1] == "readout"
