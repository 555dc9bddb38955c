"""Risk: a converted network is not the function of its module, and nobody says so."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from networks import Branches, OptionAResNet, Ragged, images, settle
from torch import nn
from torch.nn.utils import parametrizations
from traced import Net, X, a_slice, conv, distance, right_or_refused

import fskernel as fs
from fskernel.tracing import compare
from fskernel.tracing.trace import trace


def statement(write):
    """conv, an operation whose result is dropped, conv."""

    def middle(net, x):
        y = net.a(x)
        write(y)
        return F.relu(net.b(y))

    return middle


@pytest.mark.parametrize(
    "write,converts",
    [
        (lambda y: F.hardtanh_(y, 0.0, 0.3), True),
        (lambda y: torch.clamp_(y, 0.0, 0.3), True),
        (lambda y: torch.clamp_min_(y, 0.0), True),
        (lambda y: y.mul_(0.3), True),
        (lambda y: y.div_(-3), True),
        (lambda y: y.detach().relu_(), True),
        (lambda y: y.data.clip_(0, 0.2), True),
        (lambda y: F.elu_(y), True),
        (lambda y: F.leaky_relu_(y, 0.2), True),
        (lambda y: F.threshold_(y, 0.1, 0.0), False),
        (lambda y: torch.sigmoid_(y), True),
        (lambda y: y.neg_(), True),
        (lambda y: torch.relu_(y.chunk(2, 1)[0]), True),
        (lambda y: y.split(2, 1)[1].mul_(0.5), True),
        (lambda y: y.unbind(1)[2].relu_(), False),
        (lambda y: y[:, 1::2].copy_(y[:, ::2]), True),
        (lambda y: y[:, :2].zero_(), True),
        (lambda y: y[:, 4:].fill_(0.5), False),
        (lambda y: y[:, :, ::2, ::2].relu_(), False),
        (lambda y: y[..., ::3].clamp_(0, 0.1), False),
        (lambda y: y.flatten(1).relu_(), True),
        (lambda y: y.transpose(2, 3).relu_(), True),
        (lambda y: torch.clamp(y, 0, 0.1, out=y), True),
        (lambda y: torch.add(y, y, out=y), True),
        (lambda y: y.masked_fill_(y < 0, 0), True),
        (lambda y: torch.relu(y), True),  # this one does drop its result
    ],
)
def test_what_is_written_in_place_is_read_or_refused(write, converts):
    assert right_or_refused(Net(statement(write))) == converts


def added(net, x):
    x = F.relu(net.a(x))
    kept = x
    x += net.b(x)
    return F.relu(net.c(F.relu(x)) + kept)


def multiplied(net, x):
    x = F.relu(net.a(x))
    kept = x
    x *= 0.5
    return F.relu(net.b(x) + kept)


def by_a_module(net, x):
    x = net.a(x)
    kept = x.detach()
    net.relu_(x)
    return F.relu(net.b(x) + kept)


def relu_of_words_then_add(net, x):
    y = F.relu(net.a(x))
    z = net.relu(y)
    z.add_(net.b(y))
    return F.relu(net.c(F.relu(z)) + y)


def a_clone(net, x):
    y = net.a(x)
    z = y.clone()
    y.relu_()
    return F.relu(net.b(y) + z)


@pytest.mark.parametrize(
    "middle,converts",
    [
        (added, None), (multiplied, None), (by_a_module, True), (a_slice, True),
        (relu_of_words_then_add, True), (a_clone, True),
    ],
)  # fmt: skip
def test_other_names_of_a_tensor(middle, converts):
    assert right_or_refused(Net(middle)) in ((True, False) if converts is None else (converts,))


def test_the_first_layer_that_differs_is_named(monkeypatch):
    """Faults of the tracer are planted: what each of them hides, at the right layer."""
    module = Net(lambda s, x: F.relu(s.c(F.max_pool2d(F.relu(s.b(F.relu(s.a(x)))), 2)))).eval()
    graph = trace(module, tuple(X.shape))
    compare.compare(graph, copy.deepcopy(module).double(), X)
    plant = {
        "b": lambda layer: layer.groups[0].weight.mul_(1.0 + 1e-5),
        "max_pool2d": lambda layer: setattr(
            layer, "geometry", layer.geometry._replace(padding=(1, 0, 0, 0))
        ),
        "c": lambda layer: layer.bias[2].add_(1e-4),
        "fc": lambda layer: layer.bias[1].sub_(1e-4),
        "a": lambda layer: setattr(layer, "ceiling", 3.0),  # reached by the wide images alone
    }
    assert set(plant) == {layer.name for layer in graph.layers[1:]}
    for name, fault in plant.items():
        wrong = copy.deepcopy(graph)
        fault(wrong[name])
        with pytest.raises(fs.ConversionError, match="nowhere.*times their spread") as error:
            compare.compare(wrong, copy.deepcopy(module).double(), X)
        assert error.value.node == name
    wrong = copy.deepcopy(graph)
    wrong["c"].groups[0].source = "a"  # maps of another size
    with pytest.raises(fs.ConversionError, match="'c'.*nowhere"):
        compare.compare(wrong, copy.deepcopy(module).double(), X)
    wrong["c"].groups[0].weight = torch.zeros(6, 5, 3, 3, dtype=torch.float64)
    with pytest.raises(fs.ConversionError, match="'c'.*nowhere.*channels"):
        compare.compare(wrong, copy.deepcopy(module).double(), X)


def option_a():
    return OptionAResNet(1, (5, 12, 24))


@pytest.mark.parametrize("build,size", [(Branches, 23), (Ragged, 37), (option_a, 32)])
def test_every_layer_of_a_right_graph_is_found_in_the_module(build, size):
    """Else a layer would be named that is not at fault."""
    x = images(3, size)
    module = settle(build(), x).double()
    graph = trace(module, tuple(x.shape))
    values = compare._Fingerprints(torch.float64)
    run = compare._Run(x.double(), compare._call(module, x.double(), graph, None), 0)
    compare._call(module, run.x, graph, values.add)
    assert compare._first_difference(graph, [run], values) == graph.layers[-1].name


def test_ceilings_are_compared_above_them():
    """A ReLU6 taken for a ReLU is seen by the wide images alone."""
    module = Net(lambda s, x: F.relu6(s.a(x))).eval()
    graph = trace(module, tuple(X.shape))
    with torch.no_grad():
        assert 1 < module.a(X).max() < 6
    graph.layers[1].ceiling = None
    with pytest.raises(fs.ConversionError, match="'a'.*nowhere"):
        compare.compare(graph, module.double(), X)


class Noisy(Net):
    def forward(self, x):
        return super().forward(x) * (1 + torch.rand(1))


class Counting(Net):
    """Numbers out of Python: torch.export keeps the first of them."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


@pytest.mark.parametrize(
    "kind,why",
    [(Noisy, "rand draws random numbers"), (Counting, "other logits.*same images again.*random")],
)
def test_modules_that_do_not_repeat_themselves(kind, why):
    module, state = kind(lambda s, x: F.relu(s.a(x))), torch.random.get_rng_state()
    with pytest.raises(fs.ConversionError, match=why):
        fs.convert(module.eval(), X)
    assert kind is Noisy or module.calls == 0
    if kind is Counting:
        assert torch.equal(torch.random.get_rng_state(), state)


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(
        conv(3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5),
        parametrizations.spectral_norm(conv(6)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4),
    ).train()  # fmt: skip
    x, before = X.clone(), copy.deepcopy(module.state_dict())
    fs.convert(module, x)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(m.training for m in module.modules()) and torch.equal(x, X)
    assert all(p.grad is None and p.dtype == torch.float32 for p in module.parameters())


class Mixed(Net):
    """Does not run in float64: a weight that is no parameter."""

    def __init__(self, middle=None):
        super().__init__(middle)
        self.kernel = torch.randn(6, 6, 1, 1)

    def forward(self, x):
        return self.fc(F.relu(F.conv2d(F.relu(self.a(x)), self.kernel)).mean((2, 3)))


def test_what_does_not_run_in_float64_is_compared_in_float32(monkeypatch):
    with pytest.warns(UserWarning, match="Mixed does not run in float64.*in float32, to 0.0001"):
        assert distance(Mixed()) < 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(Net(lambda s, x: F.relu(s.a(x))))
    graph = trace(Net(lambda s, x: F.relu(s.a(x))))
    graph.layers[1].bias[0] += 0.01

    class Single(Net):
        def forward(self, x):
            assert x.dtype == torch.float32
            return super().forward(x)

    with pytest.warns(UserWarning), pytest.raises(fs.ConversionError, match="'a'.*nowhere"):
        compare.compare(graph, Single(lambda s, x: F.relu(s.a(x))).eval().double(), X)


def test_logits_without_a_spread():
    module = Net(lambda s, x: F.relu(s.a(x)))
    with torch.no_grad():
        module.fc.weight.zero_()
    assert torch.equal(fs.convert(module, X)(X), module(X).detach())  # of equal images
    fs.convert(module, X[:1])
    fs.convert(Net(lambda s, x: F.relu(s.a(x))), torch.ones(3, 3, 8, 8))  # images without one
    graph = trace(module)
    graph.layers[-1].bias[0] += 1e-6
    with pytest.raises(fs.ConversionError, match="'fc'.*inf times"):
        compare.compare(graph, module.eval().double(), X)


def test_logits_that_are_no_numbers():
    module = nn.Sequential(conv(3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(594, 2))
    module[1].running_var[3] = -0.5
    with pytest.raises(fs.ConversionError, match="'1'.*running_var goes down to -0.5"):
        fs.convert(module, X)
    module = Net(lambda s, x: F.relu(s.b(F.relu(s.a(x) * s.k))))
    module.k = torch.tensor(1e300, dtype=torch.float64)
    module.b.weight.data *= 1e15
    with pytest.raises(fs.ConversionError, match="NaN or infinite.*Repair"):
        fs.convert(module, X)


class Squares(Net):
    """Runs on squares of one size alone, and says so."""

    def __init__(self, square):
        super().__init__(lambda s, x: F.relu(s.a(x)))
        self.square = square

    def forward(self, x):
        if x.shape[2:] != (self.square, self.square):
            raise RuntimeError("another size")
        return super().forward(x)


@pytest.mark.parametrize("square", [64, 28, 299])
def test_a_size_is_found_where_none_is_given(square):
    graph = trace(Squares(square))
    assert graph.example == (3, square, square) and graph.size == (square, square)


def test_a_size_that_is_not_among_those_that_are_tried_is_asked_for():
    with pytest.raises(fs.ConversionError, match="raise RuntimeError.*another size.*input_size"):
        trace(Squares(31))
    assert trace(Squares(31), (1, 3, 31, 31)).size == (31, 31)


def test_large_images_cost_little(monkeypatch):
    seen = []
    called = compare._call

    def call(module, x, *rest):
        seen.append(tuple(x.shape))
        return called(module, x, *rest)

    monkeypatch.setattr(compare, "_call", call)
    module = Net(lambda s, x: F.relu(s.a(x)))
    trace(module, (9, 3, 224, 224), images=torch.randn(9, 3, 224, 224))
    assert seen == [(2, 3, 224, 224), (2, 3, 65, 52)]
    seen.clear()
    trace(module, (9, 3, 31, 33), images=torch.randn(9, 3, 31, 33))
    assert seen == [(4, 3, 31, 33), (2, 3, 31, 33)]
    seen.clear()
    trace(module, (9, 3, 31, 33))
    assert seen == [(4, 3, 31, 33)]  # two of each spread


def test_average_pools_of_the_papers_setting_are_compared_with_averages():
    x = images(3, 21)
    module = settle(Branches(), x)
    graph = trace(module, tuple(x.shape), average=True)
    assert graph.averaged == ("max_pool2d",)
    graph.averaged = ()
    with pytest.raises(fs.ConversionError, match="'max_pool2d'.*nowhere"):
        compare.compare(graph, module.double(), x)
    pooled = nn.Sequential(
        conv(3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(180, 2)
    )
    assert trace(pooled, tuple(X.shape), average=True).averaged == ("2",)


class Amplifying(nn.Module):
    """Sines of large numbers: with every layer, what is rounded is a digit further up."""

    def __init__(self, layers, scale=1.0):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers))
        self.fc, self.scale = nn.Linear(3, 4), scale

    def forward(self, x):
        for layer in self.convs:
            x = torch.sin(self.scale * layer(x))
        return self.fc(x.mean((2, 3)))


def test_modules_that_amplify_rounding_are_no_other_functions():
    torch.manual_seed(0)
    module = Amplifying(7, 60.0).eval().requires_grad_(False)
    x = torch.randn(2, 3, 40, 33)
    graph = trace(module, tuple(x.shape), compared=False)
    runs = compare._runs(module, graph.to(torch.float64), x, None)
    got = [compare._answer(graph.to(torch.float64), run) for run in runs]
    assert compare._error(got, runs) > 1e-6, "it does not amplify"
    trace(module, tuple(x.shape), images=x)
    # What is wrong is still far more than that.
    graph[graph.layers[3].name].bias.add_(1e-3)
    with pytest.raises(fs.ConversionError, match="gives what the module gives nowhere"):
        compare.compare(graph, module, x)
