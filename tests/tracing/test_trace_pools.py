"""Risk: pools, padding or subsampled maps are folded into what reads other pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced import head, same_function

from fskernel.image_sizes import holds


def same_function_of_sizes(module, sizes):
    """Traced on images of the first size, and anew for those that the graph is not for."""
    graph = None
    for size in sizes:
        x = torch.randn(2, 3, *size)
        if graph is None or graph.size is not None or not fits(graph, size):
            graph = same_function(module.float(), x)
        else:
            with torch.no_grad():
                expected = module(x.double())
            assert torch.allclose(graph.answer(x.double()), expected, rtol=0, atol=1e-10), size


def fits(graph, size):
    return all(holds(condition, *size) for condition in graph.conditions)


@pytest.mark.parametrize(
    "pool", [(3, 2, 0, 1), (3, 2, 1, 1), (2, 2, 0, 1), (4, 3, 1, 1), (2, 2, 0, 2)]
)
def test_ceil_mode_of_max_pools(pool):
    kernel, stride, padding, dilation = pool
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(),
        nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    same_function_of_sizes(module.eval(), [(size, size + 1) for size in range(4, 13)])


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


@pytest.mark.parametrize("pool", [(2, 2, 0), (3, 2, 1), ((1, 3), (2, 3), (0, 1)), (2, 3, 1)])
@pytest.mark.parametrize("include", [True, False])
def test_average_pools_divide_by_what_lies_in_their_windows(pool, include):
    """Windows at the border are smaller, or begin in the padding and are dropped."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(*pool, True, include), nn.Conv2d(4, 4, 2),
        nn.ReLU(), *head(),
    ).eval()  # fmt: skip
    same_function_of_sizes(module, [(12, 8), (13, 8), (12, 9), (11, 7)])


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("padding", [0, 1])
def test_average_pools_count_their_padding_or_do_not(padding, include):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 2, padding, False, include), *head()
    ).eval()
    kinds = [layer.kind for layer in same_function(module, torch.randn(1, 3, 8, 9)).layers]
    assert kinds[2] == ("mean_pool" if padding and not include else "avg_pool")


@pytest.mark.parametrize("size", [(3, 3), (3, 4), (5, 3)])
@pytest.mark.parametrize("pool", [(3, 3, 1), (3, None, 0), (3, 1, 0), (3, 5, 1)])
def test_average_pools_of_about_the_whole_map(pool, size):
    body = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(*pool)]
    with torch.no_grad():
        features = nn.Sequential(*body)(torch.zeros(1, 3, *size)).numel()
    module = nn.Sequential(*body, nn.Flatten(), nn.Linear(features, 3)).eval()
    graph = same_function(module, torch.randn(2, 3, *size))
    assert graph.layers[-1].pool == (size == (3, 3) and pool[2] == 0)


@pytest.mark.parametrize(
    "pad,pool",
    [
        ((0, 1, 0, 1), (3, 2)), ((1, 0, 2, 1), (3, 2)), ((1, 1, 1, 1), (2, 2)),
        ((1, 0, 0, 1), (3, 2, 1)), ((2, 1, 0, 2), (3, 1)), ((1, 2, 2, 0), ((4, 3), (3, 1))),
    ],
)  # fmt: skip
def test_zeros_padded_on_before_pools(pad, pool):
    for kind in (nn.MaxPool2d, nn.AvgPool2d):
        body = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(1, 1), nn.ZeroPad2d(pad), kind(*pool)]
        with torch.no_grad():
            body[0].bias.fill_(-0.5)  # so that whole windows are zero
        module = nn.Sequential(*body, *head()).eval()
        same_function_of_sizes(module, [(size, size + 1) for size in range(4, 10)])


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
