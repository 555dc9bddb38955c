"""Small networks and calibrated copies of big ones, shared by the tests."""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_flatten

import fskernel as fs
from fskernel.tracing.trace import trace


def settle(module: nn.Module, x: torch.Tensor) -> nn.Module:
    """Random weights with batch-norm statistics measured on x, so activations neither die nor blow.

    Affine batch-norm parameters become random too, some of them negative: folding must notice.
    """
    generator = torch.Generator().manual_seed(7)
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    with torch.no_grad():
        for m in norms:
            m.momentum = None
            if not m.affine:
                continue
            m.weight.copy_(torch.rand(m.weight.shape, generator=generator) + 0.3)
            m.weight[::5] *= -1
            m.bias.copy_(torch.randn(m.bias.shape, generator=generator) * 0.3)
        module.train()
        module(x)
    return module.eval()


class Ragged(nn.Module):
    """Odd sizes everywhere: asymmetric kernels, strides, dilation, groups, a downsample join."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 21, (3, 5), (2, 1), (1, 2), bias=False)
        self.a_bn = nn.BatchNorm2d(21)
        self.b = nn.Conv2d(21, 21, 3, padding="same", dilation=2, groups=3)
        self.c = nn.Conv2d(21, 13, 1, stride=2)
        self.down = nn.Conv2d(21, 13, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.d = nn.Conv2d(13, 13, 3, padding=1, groups=13)
        self.mean = nn.AvgPool2d(2)
        self.head = nn.Linear(13, 7)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.a_bn(self.a(x)))
        y = torch.relu(self.b(x))
        y = self.relu(self.c(y) + self.down(x))
        y = self.pool(y)
        y = torch.nn.functional.relu6(self.d(y) + y)
        y = self.mean(y)
        return self.head(torch.nn.functional.dropout(y.mean((2, 3)), training=self.training))


class Branches(nn.Module):
    """Inception in small: branches side by side, one of them only pooled, then again."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.a, self.b, self.c = (
            nn.Conv2d(6, n, k, padding=k // 2) for n, k in ((5, 1), (7, 3), (4, 5))
        )
        self.d, self.e = nn.Conv2d(16, 3, 3, 2), nn.Conv2d(16, 5, 3, 2)
        self.head = nn.Linear(24, 9)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x)), torch.relu(self.c(x))], 1)
        y = torch.nn.functional.max_pool2d(x, 3, 2, ceil_mode=False)
        x = torch.cat((torch.relu(self.d(x)), torch.relu(self.e(x)), y), dim=1)
        return self.head(x.mean((2, 3)))


def images(n: int, size: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def every_word(net, x: torch.Tensor, backend=None):
    """All integer activations by layer, the spike counts, and the logits."""
    words, counts = {}, {}

    def keep(step, inputs, y, count):
        if step.code is not None:
            words[step.name] = y
        if count is not None:
            counts[step.name] = count

    logits = net.execute(x, backend, keep)
    return words, counts, logits


def same_tree(one, other) -> bool:
    """Whether two results of a network, which may be dictionaries of tensors, are equal."""
    (ours, shape), (theirs, other_shape) = tree_flatten(one), tree_flatten(other)
    return shape == other_shape and all(map(torch.equal, ours, theirs))


def same_everywhere(net, x: torch.Tensor, oracle) -> None:
    """Words, counts and logits of the layers one by one, and logits and counts of the plan."""
    words, counts, logits = every_word(net, x)
    expected, expected_counts, expected_logits = every_word(net, x, oracle)
    for name, value in expected.items():
        assert torch.equal(words[name], value), f"{name} differs from the oracle"
    for name, value in expected_counts.items():
        assert torch.equal(counts[name], value), f"counts of {name} differ from the oracle"
    assert same_tree(logits, expected_logits)
    planned, spikes = net.count_spikes(x)
    assert same_tree(planned, expected_logits), "the plan differs from the oracle"
    for name, value in spikes.items():
        assert torch.equal(value, expected_counts[name]), f"the plan's counts of {name} differ"


class Clipped(nn.Module):
    """A ReLU or ReLU6 in one of its many spellings."""

    def __init__(self, clip):
        super().__init__()
        self.conv, self.clip, self.fc = nn.Conv2d(3, 6, 3), clip, nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.clip(self.conv(x)).mean([2, 3]))


class Bottlenecks(nn.Module):
    """Inverted residuals on ragged maps: everything that may read words with an offset.

    Args:
        kernel, dilation: of the depthwise convolution, "same" padding, so even kernels pad
            asymmetrically.
        pool: reads the first bottleneck; convolutions and an addition read the pool.
    """

    def __init__(self, kernel=(3, 3), dilation=1, pool=None, width=7):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, 2, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(5)
        self.first = nn.Conv2d(5, width, (2, 3), padding=(1, 0))
        self.pool = pool or nn.Identity()
        self.expand = nn.Conv2d(width, 11, (1, 2), padding="same")
        self.depth = nn.Conv2d(11, 11, kernel, padding="same", dilation=dilation, groups=11)
        self.project = nn.Conv2d(11, width, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(width)
        self.again = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 9, 3, 2, 1)  # read by the readout
        self.skip = nn.Conv2d(width, 9, 1, 2)
        self.head = nn.Linear(9, 6)

    def forward(self, x):
        x = torch.relu(self.stem_bn(self.stem(x)))
        x = self.pool(self.first(x))
        y = nn.functional.relu6(self.depth(torch.relu(self.expand(x))))
        x = x + self.project_bn(self.project(y))
        x = x + self.again(x)
        return self.head((self.last(x) + self.skip(x)).mean((2, 3)))


SPIKING = ["first", "project", "again", "last"]  # the layers of Bottlenecks without a ReLU

POOLS = {  # for Bottlenecks
    "none": None,
    "max": nn.MaxPool2d(3, 2, 1),
    "max ceil": nn.MaxPool2d(2, 2, ceil_mode=True),
    "average": nn.AvgPool2d((2, 1), (1, 2)),
}


class LambdaLayer(nn.Module):
    """The option-A shortcut as it is commonly written for CIFAR ResNets."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class OptionABlock(nn.Module):
    """A residual block whose shortcut subsamples and pads channels with zeros."""

    def __init__(self, inputs, outputs, stride, how="lambda"):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        front = (outputs - inputs) // 2
        zeros = (front, outputs - inputs - front)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = LambdaLayer(
                {
                    "lambda": lambda x: F.pad(
                        x[:, :, ::stride, ::stride], (0, 0, 0, 0, *zeros), "constant", 0
                    ),
                    "ellipsis": lambda x: F.pad(x, (0, 0, 0, 0, *zeros))[..., ::stride, ::stride],
                    "pool": lambda x: F.pad(F.avg_pool2d(x, 1, stride), (0, 0, 0, 0, *zeros)),
                }[how]
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return F.relu(y)


class OptionAResNet(nn.Module):
    """A CIFAR ResNet of 6n + 2 layers without projections."""

    def __init__(self, blocks=3, widths=(16, 32, 64), how="lambda"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages, inputs = [], widths[0]
        for i, width in enumerate(widths):
            for j in range(blocks):
                stages.append(OptionABlock(inputs, width, 2 if i and not j else 1, how))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x):
        y = self.stages(F.relu(self.bn1(self.conv1(x))))
        y = F.avg_pool2d(y, y.size()[3])
        return self.linear(y.view(y.size(0), -1))


def brute_force_sops(words: torch.Tensor, K: int, group) -> torch.Tensor:
    """Convolve every spike with a kernel of ones: each product is one synapse carrying a spike."""
    spikes = fs.to_spikes(words, K).sum(0).permute(0, 3, 1, 2).double()
    g = group.geometry
    ones = torch.ones(group.weight.shape, dtype=torch.float64)
    top, bottom, left, right = g.padding
    padded = nn.functional.pad(spikes, (left, right, top, bottom))
    return nn.functional.conv2d(padded, ones, None, g.stride, 0, g.dilation, g.groups).sum(
        (1, 2, 3)
    )


class Crossed(nn.Module):
    """Fitted neurons behind pools that pad, concatenations, moves, an average-pool, a residual."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.c = nn.Conv2d(7, 6, (3, 2), padding=(1, 0))
        self.d = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.e, self.f = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 5, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (4, 3, 6, 6, 6))
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        norms = iter(self.norms)
        a, b = F.silu(next(norms)(self.a(x))), F.gelu(next(norms)(self.b(x)))
        x = F.max_pool2d(torch.cat([a, b], 1), 3, 2, 1)
        x = F.silu(next(norms)(self.c(x)))
        x = F.max_pool2d(F.pad(x, (2, 1, 1, 2)), 2, 1)  # whole windows of padding
        y = F.silu(next(norms)(self.d(x)))
        x = F.silu(next(norms)(self.e(y)) + y)
        x = torch.relu(self.f(F.avg_pool2d(x, 2)))
        return self.fc(x.mean((2, 3)))


@functools.cache
def crossed():
    """The graph of `Crossed`, on images of 9x8 pixels."""
    torch.manual_seed(4)
    x = images(3, 9)[..., :8]
    return trace(settle(Crossed(), x).requires_grad_(False), images=x)


@functools.cache
def crossed_net(K: int = 16, **options):
    """`Crossed` with fitted neurons; nobody may change it."""
    x = images(3, 9)[..., :8]
    return fs.convert(crossed(), x, K=K, neuron="fitted", **options)
