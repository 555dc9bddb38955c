"""What the tests of fskernel.replace share: a small module, the comparison with the original."""

import copy

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import fskernel as fs

FINE = {"K": 12, "weight_bits": 16}  # so fine that what is left is a mistake in the structure


def sane(module, *shape, rounds=4):
    """Gives batch norms the statistics of random inputs."""
    module.train()
    with torch.no_grad():
        for _ in range(rounds):
            module(torch.randn(*shape))
    return module.eval()


def rows(report):
    return {row.name: row for row in report.rows}


def error(module, other, *args):
    with torch.no_grad():
        a, b = module(*args), other(*args)
    a, b = (torch.cat([t.flatten() for t in tree_leaves(v)]) for v in (a, b))
    return float((a - b).norm() / a.norm())


def replaced(module, x, tolerance=5e-3, **kwargs):
    """The new module and its rows, after a comparison on the calibration images."""
    state = copy.deepcopy(module.state_dict())
    flags = {name: part.training for name, part in module.named_modules()}
    new, report = fs.replace(module, x, **(FINE | kwargs))
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert flags == {name: part.training for name, part in module.named_modules()}
    assert not any(p._forward_hooks or p._forward_pre_hooks for p in new.modules())
    assert not any("forward" in vars(p) for p in new.modules())
    found = error(copy.deepcopy(module).eval(), new, x)
    assert found < tolerance, (found, str(report))
    return new, rows(report)


class Body(nn.Module):
    """Two convolutions, a batch norm and a ReLU; `how` says what forward does with them."""

    def __init__(self, how, relu=None, channels=4):
        super().__init__()
        self.conv, self.other = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.bn = nn.BatchNorm2d(channels)
        self.relu = relu or nn.ReLU()
        self.how = how

    def forward(self, x):
        return self.how(self, x)


X = torch.randn(6, 4, 9, 8, generator=torch.Generator().manual_seed(0))
