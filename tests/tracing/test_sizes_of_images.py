"""Risk: a network takes images of sizes for which its module computes something else."""

import functools
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from traced import Net, conv, distance, head

import fskernel as fs
from fskernel.image_sizes import ImageSizes, holds, is_condition, simplified
from fskernel.tracing.trace import trace


def any_size_at_all(net, x):
    y = F.relu(net.a(x))
    return F.relu(net.b(F.max_pool2d(y, 3, 2, 1, ceil_mode=True)))


def strides_and_crops(net, x):
    y = F.relu(net.a(x))[:, :, ::2, ::3]
    return F.interpolate(F.relu(net.b(y)), scale_factor=2) + 0.5


def pools_without_padding(net, x):
    return F.max_pool2d(F.relu(net.b(F.avg_pool2d(F.relu(net.a(x)), (3, 2)))), (2, 5), (1, 2))


def large_or_small(net, x):
    y = F.relu(net.a(x))
    return F.relu(net.b(y)) if x.shape[2] > 40 else F.relu(net.c(y))


def upright(net, x):
    y = F.relu(net.a(x))
    return F.relu(net.b(y)) if x.shape[2] > x.shape[3] else F.relu(net.c(y))


def of_many_pixels(net, x):
    y = F.relu(net.a(x))
    return F.relu(net.b(y)) if x.shape[2] * x.shape[3] >= 400 else F.relu(net.c(y))


def until_it_is_narrow(net, x):
    y = F.relu(net.a(x))
    while y.shape[-1] > 10:
        y = F.max_pool2d(y, 2)
    return y


def square(net, x):
    y = F.relu(net.a(x))
    return F.relu(net.b(y)) if x.shape[2] == x.shape[3] else F.relu(net.c(y))


class Case(NamedTuple):
    """What a module is traced with, and what of its sizes is known then."""

    middle: object
    size: tuple[int, int]
    conditions: tuple[str, ...]
    taken: tuple[tuple[int, int], ...]
    refused: tuple[tuple[int, int], ...]


CASES = {
    "any": Case(any_size_at_all, (20, 13), (), ((1, 1), (7, 64), (33, 2)), ()),
    "strides": Case(strides_and_crops, (20, 13), (), ((1, 1), (7, 64), (21, 2)), ()),
    "pools": Case(
        pools_without_padding, (30, 27), ("h >= 6", "w >= 10"), ((6, 10), (31, 11)),
        ((5, 30), (30, 9)),
    ),
    "large": Case(large_or_small, (50, 33), ("h >= 41",), ((41, 1), (64, 64)), ((40, 64), (1, 1))),
    "small": Case(large_or_small, (24, 33), ("h <= 40",), ((40, 1), (1, 99)), ((41, 33), (64, 1))),
    "upright": Case(upright, (30, 20), ("h > w",), ((3, 2), (64, 63)), ((20, 30), (20, 20))),
    "pixels": Case(of_many_pixels, (30, 40), ("h*w >= 400",), ((1, 400), (20, 20)), ((19, 21),)),
    "narrow": Case(
        until_it_is_narrow, (50, 40), ("h >= 4", "w >= 22", "w <= 43"), ((4, 22), (9, 43)),
        ((3, 40), (50, 21), (50, 44), (50, 10)),
    ),
    "oblong": Case(square, (20, 23), ("h != w",), ((23, 20), (1, 2)), ((20, 20), (64, 64))),
}  # fmt: skip


@functools.cache
def traced(name):
    """The module in float64, and its graph."""
    case = CASES[name]
    module = Net(case.middle).eval()
    return trace(module, (2, 3, *case.size)), module.double()


@pytest.mark.parametrize("name", CASES)
def test_conditions_say_which_sizes_are_the_same_network(name):
    """Each of them is said, and no more than is true; both sides of the border are tried."""
    case, (graph, module) = CASES[name], traced(name)
    assert graph.size is None and graph.example == (3, *case.size)
    assert set(case.conditions) <= set(graph.conditions)
    for size in case.taken:
        x = torch.randn(2, 3, *size).double()
        assert torch.allclose(graph.forward(x), module(x), rtol=0, atol=1e-10)
    for height, width in case.refused:
        with pytest.raises(ValueError, match=f"{height}x{width} pixels.*for images with") as error:
            graph.forward(torch.randn(1, 3, height, width).double())
        assert any(c in str(error.value) for c in graph.conditions)


@settings(max_examples=40)
@given(st.sampled_from(sorted(CASES)), st.integers(1, 70), st.integers(1, 70))
def test_of_any_size_the_graph_is_the_module_or_says_no(name, height, width):
    graph, module = traced(name)
    x = torch.randn(2, 3, height, width).double()
    if all(holds(c, height, width) for c in graph.conditions):
        assert torch.allclose(graph.forward(x), module(x), rtol=0, atol=1e-10)
    else:
        with pytest.raises(ValueError, match="this network is for images with"):
            graph.forward(x)


def same_pads(round_up):
    """TensorFlow's padding as packages compute it, from the shape at hand."""

    def middle(net, x):
        for layer in (net.a, net.b):
            rows, columns = (max((round_up(n) - 1) * 2 + 3 - n, 0) for n in x.shape[-2:])
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            x = F.relu(F.conv2d(x, layer.weight, layer.bias, 2))
        return x

    return middle


def until_fewer(net, x):
    y = F.relu(net.a(x))
    for _ in range(x.shape[2] // 8):
        y = F.relu(net.b(y))
    return y


class Flattened(Net):
    def __init__(self, pool, features):
        super().__init__()
        self.pool, self.fc = pool, nn.Linear(features, 4)

    def forward(self, x):
        return self.fc(self.pool(F.relu(self.a(x))).flatten(1))


OF_ONE_SIZE = {
    "pads, ceil": lambda: Net(same_pads(lambda n: math.ceil(n / 2))),
    "pads, floor": lambda: Net(same_pads(lambda n: -(-n // 2))),
    "flatten": lambda: Flattened(nn.Identity(), 6 * 20 * 13),
    "adaptive, some rows": lambda: Flattened(nn.AdaptiveAvgPool2d((None, 2)), 6 * 20 * 2),
    "adaptive, grid": lambda: Flattened(nn.AdaptiveAvgPool2d((3, 4)), 6 * 3 * 4),
    "window of the map's size": lambda: Net(lambda s, x: (lambda y: F.avg_pool2d(y, y.size()[2:]))(
        F.relu(s.a(x)))),
    "resized to another map": lambda: Net(lambda s, x: (lambda y: F.relu(s.c(F.interpolate(
        F.relu(s.b(F.max_pool2d(y, (2, 1)))), size=y.shape[2:]) + y)))(F.relu(s.a(x)))),
    "loop": lambda: Net(until_fewer),
    "even or odd": lambda: Net(lambda s, x: F.relu((s.a if x.shape[2] % 2 else s.a2)(x))),
    "rounded": lambda: Net(lambda s, x: F.relu(s.a(x) if math.ceil(x.shape[2] / 4) > 4 else x)),
    "square": None,
}  # fmt: skip


@pytest.mark.parametrize("how", OF_ONE_SIZE)
def test_where_other_sizes_are_other_networks_there_is_one_size(how):
    size, others = ((20, 13), ((19, 13), (20, 14), (13, 20)))
    if how == "square":
        module, size, others = Net(square), (20, 20), ((20, 21), (21, 21))
    else:
        module = OF_ONE_SIZE[how]()
    module.a2 = conv(3)
    graph = trace(module.eval(), (2, 3, *size))
    assert graph.size == size and graph.conditions == ()
    x = torch.randn(2, 3, *size).double()
    assert torch.allclose(graph.forward(x), module.double()(x), rtol=0, atol=1e-10)
    for height, width in others:
        with pytest.raises(ValueError, match=f"{height}x{width} pixels.*{size[0]}x{size[1]}"):
            graph.forward(torch.randn(1, 3, height, width).double())


def test_a_network_keeps_its_conditions_in_files_and_compiled(tmp_path):
    """A network of its own, because these are the steps: files, plan, compiled code."""
    x = torch.randn(4, 3, 44, 9)
    net = fs.convert(Net(large_or_small).eval(), x)
    net.save(tmp_path / "net.safetensors")
    loaded = fs.load(tmp_path / "net.safetensors")
    assert loaded.sizes == net.sizes == ImageSizes(None, ("h >= 41",))
    compiled = torch.compile(loaded, backend="eager")
    for network in (net, loaded, compiled):
        assert torch.equal(network(x), net(x))
        assert torch.equal(network(x[:, :, :41]), net(x[:, :, :41]))
        for call in (network, network.run, network.count_spikes):
            with pytest.raises(ValueError, match="40x9 pixels.*h >= 41.*convert it for this one"):
                call(x[:, :, :40])


@pytest.mark.parametrize("shape", [(7,), (3, 25), (3, 31, 18)])
def test_the_rank_of_what_is_read_is_kept(shape, tmp_path):
    """Vectors, sequences and maps; nothing else is taken, before and after a file."""
    layers = {
        1: [nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4)],
        2: [nn.Conv1d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 4)],
        3: [nn.Conv2d(3, 5, 3), nn.ReLU(), *head(5)],
    }[len(shape)]
    module, x = nn.Sequential(*layers).eval(), torch.randn(6, *shape)
    assert distance(module, x) < 0.01
    net = fs.convert(module, x)
    net.save(tmp_path / "net.safetensors")
    loaded = fs.load(tmp_path / "net.safetensors")
    assert torch.equal(loaded(x), net(x)) and loaded.sizes.rank == 1 + len(shape)
    for wrong in (x[..., None], x[0]):
        with pytest.raises(ValueError, match=r"shape.*expected \[N, "):
            loaded(wrong)


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('true')", "eval('h')", "print(h)", "h.__class__", "h.real > 1",
        "h[0]", "[h]", "{h}", "[h for h in (1, 2)]", "lambda: h", "(h := 3)", "h if w else h",
        "f'{h}'", "'h'", "1.5 < h", "1j", "...", "None", "x > 3", "min", "min(min, h)", "min()",
        "min(h)", "min(h, *[w])", "max(h, w, key=min)", "h(w)", "1(h)", "(h < w)(h)", "h is w",
        "h in w", "h / w > 1", "h ** w > 3", "9**9**9 > h", "h << 99 > w", "h @ w", "~h", "h;w",
        "h\n> 3", "h\x00", "", " ", "h >", "(" * 300 + "h" + ")" * 300, "-" * 1900 + "h",
        "h > 0" + " " * 3000, "await h", "yield h",
    ],
)  # fmt: skip
def test_conditions_out_of_files_are_comparisons_and_nothing_else(condition):
    with pytest.raises(ValueError, match="no condition on h and w, the rows and columns"):
        ImageSizes(None, (condition,))
    assert not is_condition(condition)


def test_conditions_that_divide_by_zero_hold_for_nothing():
    for condition in ("h // 0 == 0", "h % (w - w) < 1"):
        assert is_condition(condition) and not holds(condition, 5, 7)


def test_what_is_asked_of_both_axes_is_a_bound_of_neither():
    conditions = ("h*w >= 400", "3 <= h", "min(h, w) > 2", "w // 4 != 0")
    assert simplified(conditions, (40, 50)) == ("h >= 3", "w >= 4", "h*w >= 400")


def test_an_unknown_rank_is_refused():
    with pytest.raises(ValueError, match="rank is 5: expected one of"):
        ImageSizes(rank=5)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 3))
@settings(max_examples=25)
def test_the_least_size_is_the_least(height, width, stride):
    conditions = (f"(h - 3) // {stride} >= 4", "h // 2 + w >= 0", f"w > {stride}")
    assume(all(holds(c, height, width) for c in conditions))
    rows, columns = ImageSizes(None, conditions).least((height, width))
    assert all(holds(c, rows, columns) for c in conditions)
    assert not all(holds(c, rows - 1, columns) for c in conditions)
    assert not all(holds(c, rows, columns - 1) for c in conditions)
