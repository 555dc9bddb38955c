"""Small networks and calibrated copies of big ones, shared by the tests."""

import torch
from torch import nn


def settle(module: nn.Module, x: torch.Tensor) -> nn.Module:
    """Random weights with batch-norm statistics measured on x, so activations neither die nor blow.

    Affine batch-norm parameters become random too, some of them negative: folding must notice.
    """
    generator = torch.Generator().manual_seed(7)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for m in norms:
            m.weight.copy_(torch.rand(m.weight.shape, generator=generator) + 0.3)
            m.weight[::5] *= -1
            m.bias.copy_(torch.randn(m.bias.shape, generator=generator) * 0.3)
            m.momentum = None
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
