"""Shared by the tests of networks on the CUDA kernels: small networks, and the words of a run."""

import copy
import functools

import torch
from moved import networks as moved
from networks import POOLS, Bottlenecks, Branches, OptionAResNet, Ragged, settle
from torch import nn

import fskernel as fs


def images(n, size, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def kept(make):
    """Converts once a process: every test gets a copy, which it may move and change."""
    made = functools.cache(make)

    @functools.wraps(make)
    def copied(*given):
        net, x = made(*given)
        return copy.deepcopy(net), x

    return copied


@kept
def resnet8():
    x = images(2, 32)
    return fs.convert(settle(fs.models.cifar_resnet8(), x), x, K=8), images(1, 32, 1)


class FirstBlocks(nn.Module):
    """The stem and the first bottlenecks of ResNet50, and those behind its first stride."""

    def __init__(self):
        super().__init__()
        from torchvision.models import resnet50

        whole = resnet50()
        self.stem = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool)
        self.blocks = nn.Sequential(*whole.layer1[:2], whole.layer2[0])
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)

    def forward(self, x):
        return self.fc(self.pool(self.blocks(self.stem(x))).flatten(1))


@kept
def mixed_words():
    """Every layer has another K than those it reads: words of bytes and of 16 bits meet."""
    x = images(2, 16)
    module = settle(fs.models.cifar_resnet8(), x)
    names = [s.name for s in fs.convert(module, x).steps if s.op == "conv"]
    K = {name: (10, 4, 8)[i % 3] for i, name in enumerate(names)}
    return fs.convert(module, x, K=K), images(1, 16, 1)


@kept
def first_blocks(K=10, weight_bits=8):
    torch.manual_seed(1)
    x = images(1, 32)
    net = fs.convert(settle(FirstBlocks(), x), x, K=K, weight_bits=weight_bits)
    return net, images(1, 32, 1)


@kept
def ragged():
    torch.manual_seed(2)
    x = images(2, 24)
    return fs.convert(settle(Ragged(), x), x, K=10, weight_bits=16), images(2, 24, 1)


@kept
def branches():
    torch.manual_seed(3)
    x = images(2, 24)
    return fs.convert(settle(Branches(), x), x, K=6), images(2, 24, 1)


@kept
def offset_words(K=8, pool="none"):
    """Linear bottlenecks as words whose zero is not 0: padded, pooled, added, read out."""
    torch.manual_seed(4)
    x = images(2, 19)
    module = settle(Bottlenecks(pool=POOLS[pool], width=12), x)
    net = fs.convert(module, x, K=K, bottleneck="spiking")
    padded = {g.pad_code for s in net.steps if s.op == "conv" for g in s.groups}
    assert padded >= {0, 2 ** (K - 1)}
    return net, images(2, 19, 1)


def wide_offset_words():
    return offset_words(10, "average")


@kept
def option_a():
    """Shortcuts that drop pixels and add channels of zeros: one synapse an output channel."""
    torch.manual_seed(5)
    x = images(2, 16)
    net = fs.convert(settle(OptionAResNet(1, (5, 18, 35)), x), x, K=8)
    assert sum(g.one_to_one for s in net.steps if s.op == "conv" for g in s.groups) == 2
    assert net.steps[-1].weight.dtype == torch.int8
    return net, images(2, 16, 1)


@kept
def densenet():
    """Batch norms of their own, one synapse a channel, and graded values side by side."""
    from torchvision.models import DenseNet

    torch.manual_seed(6)
    x = images(2, 33)
    net = fs.convert(settle(DenseNet(8, (2, 2), 13, 2, num_classes=10), x), x, K=8)
    assert any(s.op == "concat" and s.code.kind == "graded" for s in net.steps)
    assert any(
        g.geometry.groups == s.out_channels > 1 and s.code.K
        for s in net.steps
        if s.op == "conv"
        for g in s.groups
    )
    return net, images(2, 33, 1)


@kept
def moved_words():
    """Parts of maps, one pixel for all, upsampling, padding, rounded means: of words of bytes."""
    x = moved.images("pyramid", 2, (6, 8))
    return fs.convert(moved.pyramid(), x, K=8), moved.images("pyramid", 1, (6, 8), 1)


@kept
def moved_signed_words():
    """Pixel shuffles and padding of words whose zero is not 0, of 16 bits."""
    x = moved.images("signed", 2, (6, 8))
    net = fs.convert(moved.signed(), x, K=10, bottleneck="spiking")
    return net, moved.images("signed", 2, (6, 8), 1)


class Shaped(nn.Module):
    """Neurons that are no ReLUs, on tensor cores and depthwise; gates of channels and of pixels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, 2, 1)
        self.depth = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.slopes, self.wide = nn.PReLU(20), nn.Conv2d(20, 33, 1)
        self.excite, self.place = nn.Conv2d(33, 33, 1), nn.Conv2d(33, 1, 3, padding=1)
        self.same, self.fc = nn.Conv2d(33, 33, 3, padding=1), nn.Linear(33, 7)
        nn.init.uniform_(self.slopes.weight, -0.2, 0.5)

    def forward(self, x):
        x = self.slopes(self.depth(torch.nn.functional.silu(self.stem(x))))
        x = torch.nn.functional.gelu(self.wide(x))
        x = x * torch.sigmoid(self.excite(x.mean((2, 3), keepdim=True)))
        x = torch.sigmoid(self.place(x)) * x
        x = torch.nn.functional.silu(self.same(x) + x)
        return self.fc(x.mean((2, 3)))


@kept
def shaped(K, bottleneck):
    """Of K steps, so that words are bytes or wider."""
    x = images(2, 19)
    module = settle(Shaped().eval(), x).requires_grad_(False)
    return fs.convert(module, x, K=K, bottleneck=bottleneck), images(1, 19, 1)


class Swishes(nn.Module):
    """SiLU behind whole, depthwise and narrow layers, a gate, a concatenation and a residual."""

    def __init__(self):
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(3, 20, 3, 2, 1), nn.Conv2d(20, 5, 1)
        self.depth = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.excite, self.same = nn.Conv2d(25, 25, 1), nn.Conv2d(25, 25, 3, padding=1)
        self.fc = nn.Linear(25, 7)

    def forward(self, x):
        x = torch.nn.functional.silu(self.stem(x))
        narrow = torch.nn.functional.silu(self.narrow(x))
        x = torch.cat([torch.nn.functional.silu(self.depth(x)), narrow], 1)
        x = x * torch.sigmoid(self.excite(x.mean((2, 3), keepdim=True)))
        x = torch.nn.functional.silu(self.same(x) + x)
        return self.fc(x.mean((2, 3)))


@kept
def fitted(K):
    """Of K steps, with codes of more than 8 bits."""
    x = images(2, 19)
    module = settle(Swishes().eval(), x).requires_grad_(False)
    return fs.convert(module, x, K=K, neuron="fitted"), images(1, 19, 1)


NETWORKS = {
    f.__name__: f
    for f in (
        resnet8,
        mixed_words,
        first_blocks,
        ragged,
        branches,
        offset_words,
        wide_offset_words,
        option_a,
        densenet,
        moved_words,
        moved_signed_words,
    )
} | {
    "activations and gates": functools.partial(shaped, 8, "graded"),
    "activations and gates that spike, of 11 steps": functools.partial(shaped, 11, "spiking"),
    "fitted neurons": functools.partial(fitted, 12),
}


def words_of(net, x, backend=None):
    """Every step's output and spike counts."""
    seen = {}

    def observe(step, inputs, y, counts):
        seen[step.name] = y.cpu(), None if counts is None else counts.cpu()

    net.execute(x, backend, observe)
    return seen


def assert_same_words(got, wanted):
    assert got.keys() == wanted.keys()
    for name, (y, counts) in wanted.items():
        assert torch.equal(got[name][0], y), name
        assert counts is None or torch.equal(got[name][1], counts), name
