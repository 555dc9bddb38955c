"""Risk: layers change their names, so dictionaries of K and alpha name others or none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.resnet import BasicBlock
from traced import Net, X, conv, head

from fskernel.tracing.trace import trace


class GoogLeNetInSmall(nn.Module):
    """torchvision's blocks: functional ReLUs, and concatenations that only have a number."""

    def __init__(self):
        super().__init__()
        self.conv1 = BasicConv2d(3, 8, kernel_size=3, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(8, 4, 3, 5, 2, 3, 4)
        self.inception3b = Inception(16, 2, 3, 4, 2, 3, 5)
        self.avgpool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.2)
        self.fc = nn.Linear(14, 5)

    def forward(self, x):
        x = self.inception3b(self.inception3a(self.maxpool1(self.conv1(x))))
        return self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))


class Functions(nn.Module):
    """Functions alone, and modules that are called several times and under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(conv(3).weight), nn.Parameter(conv(6).weight)
        self.shared = nn.Conv2d(6, 6, 1)
        self.alias = self.shared
        self.cat = nn.ReLU()  # called like a function: it takes the first of its numbers
        self.hidden, self.last = nn.Parameter(torch.rand(8, 12)), nn.Parameter(torch.rand(5, 8))
        for name, start in (("mean", 0.1), ("var", 1.0)):
            self.register_buffer(name, torch.full((6,), start))

    def forward(self, x):
        x = F.relu(F.conv2d(x, self.first, padding=1))
        y = F.relu(F.conv2d(x, self.second, padding=1))
        z = self.cat(self.alias(y))
        z = torch.relu(self.shared(z))
        z = F.max_pool2d(z, 2)
        y = F.max_pool2d(F.relu(F.batch_norm(y, self.mean, self.var)), 2)
        z = F.relu(F.batch_norm(z, self.mean, self.var))
        z = F.avg_pool2d(torch.cat([z, y], 1), 2)
        return F.linear(F.relu(F.linear(z.mean((2, 3)), self.hidden)), self.last)


def resnet():
    return models.ResNet(BasicBlock, [1, 1, 1, 2])


def mobilenet():
    return models.MobileNetV2(7, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 1]])


def densenet():
    return models.DenseNet(8, (2, 3), 13, 2)


NETWORKS = {
    "resnet": resnet,
    "mobilenet": mobilenet,
    "densenet": densenet,
    "googlenet": GoogLeNetInSmall,
    "functions": Functions,
}


def of_inception(path):
    """Layers of one of torchvision's blocks."""
    branches = ["branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1"]
    convs = [f"{path}.{branch}.conv" for branch in branches]
    return [*convs, f"{path}.branch4.0", f"{path}.branch4.1.conv"]


def of_dense_layers(block, count, first_cat):
    """Layers of a block of DenseNet; a concatenation of a single map counts, but is no layer."""
    for i in range(1, count + 1):
        path = f"features.denseblock{block}.denselayer{i}"
        yield from (f"{path}.norm1", f"{path}.conv1", f"{path}.conv2", f"cat_{first_cat + i}")


# What fskernel called these layers when it traced with torch.fx, which numbers nodes as they come.
NAMES = {
    "resnet": [
        "input", "conv1", "maxpool", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1",
        "layer2.0.conv2", "layer3.0.conv1", "layer3.0.conv2", "layer4.0.conv1", "layer4.0.conv2",
        "layer4.1.conv1", "layer4.1.conv2", "fc",
    ],
    "mobilenet": [
        "input", "features.0.0", "features.1.conv.0.0", "features.1.conv.1", "features.2.conv.0.0",
        "features.2.conv.1.0", "features.2.conv.2", "features.3.conv.0.0", "features.3.conv.1.0",
        "features.3.conv.2", "features.4.conv.0.0", "features.4.conv.1.0", "features.4.conv.2",
        "features.5.0", "classifier.1",
    ],
    "densenet": [
        "input", "features.conv0", "features.pool0", *of_dense_layers(1, 2, 0),
        "features.pool0.identity", "features.transition1.norm", "features.transition1.conv",
        "features.transition1.pool", "features.transition1.pool.identity",
        *of_dense_layers(2, 3, 3), "features.norm5", "classifier",
    ],
    "googlenet": [
        "input", "conv1.conv", "maxpool1", *of_inception("inception3a"), "cat",
        *of_inception("inception3b"), "cat_1", "fc",
    ],
    "functions": [
        "input", "conv2d", "conv2d_1", "shared", "shared@2", "max_pool2d", "batch_norm",
        "max_pool2d_1", "batch_norm_1", "cat_1", "avg_pool2d", "avg_pool2d.averaged", "linear",
        "linear_1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_names_are_those_that_torch_fx_gave(name):
    graph = trace(NETWORKS[name](), (2, 3, 64, 56))
    names = [layer.name for layer in graph.layers]
    assert sorted(names) == sorted(NAMES[name])
    assert (names[0], names[-1]) == (NAMES[name][0], NAMES[name][-1])


class OwnConv(nn.Conv2d):
    """Calls several functions, of which the convolution alone is a layer."""

    def forward(self, x):
        return F.relu(F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight * 0.5, self.bias, self.stride))


class Twice(nn.Module):
    """A block that calls a layer of its own twice, and holds it by another name, too."""

    def __init__(self):
        super().__init__()
        self.z, self.relu = conv(6), nn.ReLU()
        self.a_later_name = self.z

    def forward(self, x):
        return self.relu(self.a_later_name(self.relu(self.z(x))))


def unread(net, x):
    F.conv2d(x, net.a.weight)
    return F.relu(F.conv2d(x, net.a.weight))


SHARED = Twice()


@pytest.mark.parametrize(
    "module,names",
    [
        (nn.Sequential(OwnConv(3, 4, 2), OwnConv(4, 4, 2), *head()), ["0", "1", "4"]),
        (nn.Sequential(nn.Sequential(conv(3), nn.ReLU()), Twice(), *head(6)),
         ["0.0", "1.z", "1.z@2", "4"]),
        (nn.Sequential(conv(3), nn.ReLU(), SHARED, SHARED, *head(6)),
         ["0", "2.z", "2.z@2", "2.z@3", "2.z@4", "6"]),
        (nn.Sequential(nn.DataParallel(conv(3)), nn.ReLU(), *head(6)), ["0", "4"]),
        (nn.DataParallel(nn.Sequential(conv(3), nn.ReLU(), *head(6))), ["0", "4"]),
        (Net(unread), ["conv2d", "fc"]),
        (Net(lambda s, x: F.relu(s.b(F.relu(s.a(x))) + F.relu(s.a(x)))),
         ["a", "a@2", "b", "fc"]),
        (Net(lambda s, x: F.relu(s.b(s.relu_(s.a(x))) + x.repeat(1, 2, 1, 1))),
         ["a", "repeat", "b", "fc"]),
    ],
)  # fmt: skip
def test_modules_called_several_times_or_by_several_names(module, names):
    graph = trace(module, tuple(X.shape))
    assert [layer.name for layer in graph.layers] == ["input", *names]


def test_a_module_keeps_its_name_whichever_it_is_called_by():
    """The one that is called lies behind the other among the submodules, or in front of it."""
    for called in ("aa", "zz"):
        module = Net(lambda s, x, called=called: F.relu(getattr(s, called)(x)))
        module.aa = module.zz = conv(3)
        assert trace(module, tuple(X.shape)).layers[1].name == "aa"
