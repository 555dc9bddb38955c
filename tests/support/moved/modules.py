"""Small modules that move numbers in every way in which published networks do it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def turned(x: torch.Tensor, groups: int) -> torch.Tensor:
    """ShuffleNet's shuffle: channels of every group in turn."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def convs(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1):
    """Convolution, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Headed(nn.Module):
    """Features, and a linear layer that reads their average."""

    def __init__(self, width: int, classes: int = 5):
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class ShuffleNetV1(Headed):
    """Grouped convolutions with a shuffle between; one unit adds, one concatenates a pool."""

    def __init__(self):
        super().__init__(24)
        self.stem = convs(3, 12, 3, 2)
        self.a, self.b = convs(12, 6, 1, groups=3), nn.Conv2d(6, 12, 1, groups=3)
        self.depth = nn.Conv2d(6, 6, 3, 1, 1, groups=6)
        self.c, self.d = convs(12, 6, 1, groups=2), nn.Conv2d(6, 12, 3, 2, 1, groups=2)

    def features(self, x):
        x = self.stem(x)
        x = F.relu(x + self.b(self.depth(turned(self.a(x), 3))))
        return torch.cat([F.avg_pool2d(x, 3, 2, 1), F.relu(self.d(turned(self.c(x), 2)))], 1)


class ShuffleNetV2(Headed):
    """Halves, one of them through layers, and a unit that halves the map."""

    def __init__(self):
        super().__init__(20)
        self.stem, self.pool = convs(3, 10, 3), nn.MaxPool2d(3, 2, 1)
        self.right = nn.Sequential(convs(5, 7, 1), nn.Conv2d(7, 7, 3, 1, 1, groups=7),
                                   nn.BatchNorm2d(7), convs(7, 5, 1))  # fmt: skip
        self.down = nn.Sequential(nn.Conv2d(10, 10, 3, 2, 1, groups=10), convs(10, 10, 1))
        self.aside = nn.Sequential(convs(10, 6, 1), nn.Conv2d(6, 6, 3, 2, 1, groups=6),
                                   convs(6, 10, 1))  # fmt: skip

    def features(self, x):
        x = self.pool(self.stem(x))
        left, right = x.chunk(2, dim=1)
        x = turned(torch.cat((left, self.right(right)), dim=1), 2)
        x = torch.cat((self.down(x), self.aside(x)), dim=1)
        return F.channel_shuffle(x, 4)


class Focus(Headed):
    """YOLO's stem, which folds pixels of the image into channels, and its C2f block."""

    def __init__(self):
        super().__init__(9)
        self.stem, self.first = convs(12, 8, 3), convs(8, 10, 1)
        self.parts = nn.ModuleList(convs(5, 5, 3) for _ in range(2))
        self.last = convs(20, 9, 1)

    def features(self, x):
        x = torch.cat(
            [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1
        )
        y = list(self.first(self.stem(x)).split(5, 1))
        y.extend(part(y[-1]) for part in self.parts)
        return self.last(torch.cat(y, 1))


class ChannelsLast(Headed):
    """Linear layers on maps whose channels come last, and back."""

    def __init__(self):
        super().__init__(7)
        self.stem = convs(3, 6, 3, 2)
        self.wide, self.narrow = nn.Linear(6, 11), nn.Linear(11, 6)
        self.tail = nn.Conv2d(6, 7, 2)

    def features(self, x):
        x = self.stem(x)
        y = self.narrow(F.relu(self.wide(x.permute(0, 2, 3, 1))))
        x = x + y.permute(0, 3, 1, 2)
        return F.relu(self.tail(x.movedim(1, -1).relu().movedim(-1, 1)))


class Decoder(Headed):
    """Down and up again, in the three ways there are to make a map larger, with skips."""

    def __init__(self):
        super().__init__(4)
        self.stem, self.down, self.deep = convs(3, 6, 3), convs(6, 8, 3, 2), convs(8, 9, 3, 2)
        self.up = nn.ConvTranspose2d(9, 8, 3, 2, 1, 1)
        self.norm = nn.BatchNorm2d(8)
        self.joined, self.mixed = convs(16, 8, 1), convs(8 + 6, 5)
        self.last = nn.Sequential(convs(5, 16, 1), nn.PixelShuffle(2), nn.Conv2d(4, 4, 3, 2, 0))

    def features(self, x):
        a = self.stem(x)
        b = self.down(a)
        y = F.relu(self.norm(self.up(self.deep(b))))
        y = self.joined(torch.cat([y, b], 1))
        y = torch.cat([F.interpolate(y, scale_factor=2, mode="nearest"), a], 1)
        return F.relu(self.last(self.mixed(y)))


class Written(Headed):
    """Parts of maps that are written to, of words and of sums."""

    def __init__(self):
        super().__init__(6)
        self.stem, self.a, self.b = convs(3, 6, 3), nn.Conv2d(6, 6, 3, 1, 1), nn.Conv2d(6, 3, 1)
        self.c = nn.Conv2d(6, 6, 3)

    def features(self, x):
        x = self.stem(x)
        y = self.a(x)
        y[:, 1:4] = F.relu(self.b(x))
        y[:, 4:].relu_()
        first, _ = y.split([1, 5], 1)
        first.clamp_(0, 0.5)
        return F.relu(self.c(y))


class Context(Headed):
    """What all pixels say, added to each of them, and constants of each channel."""

    def __init__(self):
        super().__init__(8)
        self.stem, self.about, self.again = convs(3, 8, 3, 2), nn.Conv2d(8, 8, 1), convs(8, 8, 3)
        self.gamma = nn.Parameter(torch.linspace(-0.5, 1.5, 8).view(8, 1, 1))

    def features(self, x):
        x = self.stem(x)
        x = F.relu(x + F.relu(self.about(F.adaptive_avg_pool2d(x, 1))))
        y = F.relu(self.gamma * self.again(x) + x.mean((2, 3), keepdim=True) - 0.25)
        return y


class Windows(Headed):
    """Pools whose windows vary: padding that does not count, ceil_mode, grids."""

    def __init__(self):
        super().__init__(6)
        self.stem, self.a, self.b = convs(3, 6, 3), convs(6, 6, 3), convs(6, 6, 2)
        self.first = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.second = nn.AvgPool2d((2, 3), 2, ceil_mode=True)

    def features(self, x):
        x = self.a(self.first(self.stem(x)))
        return self.b(F.adaptive_avg_pool2d(self.second(x), (3, 2)))


class Padded(Headed):
    """Zeros around maps, rows cut off, and channels of zeros in a shortcut."""

    def __init__(self):
        super().__init__(9)
        self.stem, self.a = convs(3, 5, 3), nn.Conv2d(5, 9, 3, 2, 1)
        self.b, self.pool = convs(9, 9, 2), nn.MaxPool2d(3, 2)

    def features(self, x):
        x = F.pad(self.stem(x), (0, 1, 2, 0))
        x = F.relu(self.a(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3)))
        return self.b(F.pad(self.pool(F.pad(x, (1, 0, 1, 0))), (-1, 0, 0, 1)))


class Sequences(nn.Module):
    """Conv1d: strides, dilation, groups, transposed, pools, and parts that are joined."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv1d(3, 8, 5, 2, 2, bias=False), nn.BatchNorm1d(8)
        self.b, self.up = nn.Conv1d(8, 8, 3, 1, 2, 2, groups=4), nn.ConvTranspose1d(8, 6, 4, 2, 1)
        self.c, self.pool = nn.Conv1d(14, 7, 1), nn.AvgPool1d(3, 2, 1)
        self.fc = nn.Linear(7, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        y = F.max_pool1d(F.relu(self.b(x) + x), 2)
        y = F.relu(self.up(y))[..., : x.shape[-1]]
        y = self.pool(torch.cat([y, x[..., : y.shape[-1]]], 1))
        return self.fc(F.adaptive_avg_pool1d(F.relu(self.c(y)), 1).squeeze(-1))


class Vectors(nn.Module):
    """Linear layers, batch norm and a residual."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(17, 20, bias=False), nn.BatchNorm1d(20)
        self.b, self.c, self.fc = nn.Linear(20, 20), nn.Linear(40, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        x = torch.cat([F.relu(self.b(x) + x), x.flip(1) if self.training else x], 1)
        return self.fc(F.relu(self.c(x)))


class Ordered(nn.Module):
    """Maps that a linear layer reads in another order than they have, rows first."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = convs(3, 6, 3, 2), nn.PixelUnshuffle(2)
        self.mixed = convs(24, 4, 1)
        self.hidden, self.fc = nn.Linear(4 * 3 * 4, 14), nn.Linear(14, 5)

    def forward(self, x):
        x = self.mixed(self.down(self.stem(x)))
        x = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)
        return self.fc(F.relu(self.hidden(x)))


# The shape of an image for each: ragged where the module allows it.
MODULES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "shuffles in groups": (ShuffleNetV1, (3, 21, 18)),
    "halves in turn": (ShuffleNetV2, (3, 19, 22)),
    "focus": (Focus, (3, 14, 18)),
    "channels last": (ChannelsLast, (3, 15, 20)),
    "decoder": (Decoder, (3, 12, 20)),
    "written": (Written, (3, 11, 9)),
    "context": (Context, (3, 17, 14)),
    "windows": (Windows, (3, 15, 18)),
    "padded": (Padded, (3, 16, 13)),
    "sequences": (Sequences, (3, 45)),
    "vectors": (Vectors, (17,)),
    "ordered": (Ordered, (3, 12, 16)),
}
