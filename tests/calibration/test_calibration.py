"""Alphas chosen by the logits, the correction, 8-bit layers: what they claim, on small networks."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.calibration import correct
from fskernel.calibration import ranges as calibrate
from fskernel.calibration.by_logits import channelwise
from fskernel.calibration.ranges import rounded
from fskernel.calibration.rounded_graph import Unit, resume
from fskernel.calibration.spool import Spool
from fskernel.tracing.trace import trace


class Uneven(nn.Module):
    """ReLU6, depthwise and linear layers; channels of very different size; a branch and a pool."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1, groups=6), nn.ReLU6())
        self.pool = nn.MaxPool2d(2)
        self.low = nn.Conv2d(6, 5, 1)
        self.one = nn.Sequential(nn.Conv2d(5, 7, 1), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(5, 4, 3, 1, 1), nn.ReLU())
        self.head = nn.Linear(11, 9)

    def forward(self, x):
        x = self.low(self.pool(self.deep(self.stem(x))))
        x = torch.cat([self.one(x), self.two(x)], 1)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def uneven():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Uneven().eval()
        with torch.no_grad():
            net.stem[0].weight.mul_(torch.logspace(-1.5, 0.5, 6)[:, None, None, None])
            net.stem[0].bias.mul_(torch.logspace(-1.5, 0.5, 6))
            net.deep[0].weight.mul_(torch.logspace(1, -1, 6)[:, None, None, None])
        return net, torch.randn(24, 3, 19, 13)


def error(net, ann, x):
    with torch.no_grad():
        logits = ann(x)
    return float((net(x) - logits).norm() / logits.norm())


UNIT = Unit(lambda name: 4, "nearest")


def parts(uneven):
    ann, x = uneven
    return trace(ann).to(torch.float32), Spool(x.split(5))


def test_channels_with_alphas_of_their_own_leave_the_network_what_it_is(uneven):
    """At K = 10 hardly anything is rounded: scaling must cancel, through pool and concatenation."""
    ann, x = uneven
    net = fs.convert(ann, x, K=10, alpha="logits", weight_bits=16)
    assert any(getattr(s, "channel_scale", None) is not None for s in net.steps)
    assert error(net, ann, x) < 3e-3
    assert fs.fidelity(net, x[:3])["words_changed"] < 0.05


@pytest.mark.parametrize("K", [3, 5, 8])
@pytest.mark.parametrize("how", [None, "bias", "least_squares"])
def test_kernels_equal_the_oracle_with_every_setting(uneven, K, how):
    ann, x = uneven
    net = fs.convert(ann, x, K=K, alpha="logits", weight_bits="auto", correct=how)
    assert torch.equal(net(x[:3]), net.execute(x[:3], reference.literal))


def test_alphas_by_the_logits_beat_one_alpha_on_images_not_seen(uneven):
    ann, x = uneven
    plain = fs.convert(ann, x[:16], K=4, weight_bits=16)
    chosen = fs.convert(ann, x[:16], K=4, alpha="logits", weight_bits=16)
    assert error(chosen, ann, x[16:]) < 0.8 * error(plain, ann, x[16:])


@pytest.mark.parametrize("how", ["bias", "least_squares"])
def test_correction_makes_means_of_membranes_equal(uneven, how):
    graph, images = parts(uneven)
    names = [layer.name for layer in graph.layers if layer.kind == "neuron"]
    alphas = dict.fromkeys(names, torch.tensor(3.0))
    new = correct.corrected(graph, images, UNIT, alphas, how)
    x = torch.cat(list(images))
    wanted, got = {}, {}
    graph.forward(x, observe=lambda layer, y: wanted.__setitem__(layer.name, y))
    new.forward(
        x,
        lambda layer, v: UNIT.emit(layer, v, alphas[layer.name]),
        observe=lambda layer, y: got.__setitem__(layer.name, y),
    )
    for layer in graph.layers:
        if layer.kind in ("graded", "readout"):
            axes = (0, *range(2, wanted[layer.name].dim()))
            a, b = wanted[layer.name].mean(axes), got[layer.name].mean(axes)
            assert torch.allclose(a, b, atol=1e-4 * float(wanted[layer.name].abs().max()))


def test_least_squares_of_a_linear_layer_is_the_ridge_regression(uneven):
    """Against torch.linalg.lstsq on the stacked system, for the bottleneck of the network."""
    graph, images = parts(uneven)
    names = [layer.name for layer in graph.layers if layer.kind == "neuron"]
    alphas = dict.fromkeys(names, torch.tensor(2.0))
    new = correct.corrected(graph, images, UNIT, alphas, "least_squares")
    x = torch.cat(list(images))
    seen, exact = {}, {}
    new.forward(
        x,
        lambda layer, v: UNIT.emit(layer, v, alphas[layer.name]),
        observe=lambda layer, y: seen.__setitem__(layer.name, y),
    )
    graph.forward(x, observe=lambda layer, y: exact.__setitem__(layer.name, y))
    low = next(layer for layer in graph.layers if layer.kind == "graded")
    source = low.groups[0].source
    u = seen[source].permute(0, 2, 3, 1).flatten(0, 2).double()
    target = exact[low.name].permute(0, 2, 3, 1).flatten(0, 2).double()
    w0 = low.groups[0].weight.flatten(1).double()
    ridge = u.square().mean() * correct.RIDGE / len(x) * len(u)
    centred = u - u.mean(0)
    rest = target - u @ w0.T
    rest = rest - rest.mean(0)
    stacked = torch.cat([centred, ridge.sqrt() * torch.eye(u.shape[1], dtype=torch.float64)])
    wanted = torch.cat([rest, torch.zeros(u.shape[1], rest.shape[1], dtype=torch.float64)])
    moved = torch.linalg.lstsq(stacked, wanted).solution.T
    got = new[low.name].groups[0].weight.flatten(1).double()
    assert torch.allclose(got, w0 + moved, rtol=1e-3, atol=1e-4 * float(w0.abs().max()))
    assert not torch.allclose(got, w0, rtol=1e-3)


def test_resuming_at_a_layer_is_running_the_whole_network(uneven):
    graph, images = parts(uneven)
    x = next(iter(images))
    values = {}
    expected = graph.forward(x, observe=lambda layer, y: values.__setitem__(layer.name, y))
    for layer in graph.layers[:-1]:
        assert torch.equal(resume(graph, values, layer.name, values[layer.name]), expected)
        if layer.kind == "neuron":
            changed = resume(graph, values, layer.name, values[layer.name] * 0.5)
            whole = graph.forward(x, lambda at, v, layer=layer: at_half(at, v, layer.name))
            assert torch.allclose(changed, whole, rtol=1e-5, atol=1e-6)


def at_half(layer, v, name):
    y = v.clamp(min=0) if layer.ceiling is None else v.clamp(0, layer.ceiling)
    return y * 0.5 if layer.name == name else y


class Tied(nn.Module):
    """An identity branch behind an average-pool, and one whose source is also concatenated."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU())
        self.pool = nn.AvgPool2d(2)
        self.body = nn.Conv2d(6, 6, 3, 2, 1)
        self.next = nn.Conv2d(6, 6, 3, 1, 1)
        self.side = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.body(x) + self.pool(x))
        y = torch.relu(self.next(x) + x)
        return self.head(torch.cat([x, y, self.side(x)], 1).mean((2, 3)))


def test_what_reaches_an_identity_branch_through_a_pool_or_is_concatenated_too():
    with torch.random.fork_rng():
        torch.manual_seed(7)
        ann, x = Tied().eval(), torch.randn(16, 3, 12, 12)
        with torch.no_grad():
            ann.stem[0].weight.mul_(torch.logspace(-1.5, 0.5, 6)[:, None, None, None])
            ann.side[0].weight.mul_(8)
    net = fs.convert(ann, x, K=10, alpha="logits", weight_bits=16)
    assert error(net, ann, x) < 5e-3


def test_identity_branches_keep_one_alpha():
    graph = trace(fs.models.cifar_resnet14())
    own = channelwise(graph)
    for layer in graph.layers:
        if layer.residual is not None:
            assert layer.name not in own and layer.residual not in own
    assert len(own) >= 4


def test_auto_gives_8_bits_while_weights_err_less_than_spikes(uneven):
    ann, x = uneven
    few = fs.convert(ann, x, K=3, weight_bits="auto")
    many = fs.convert(ann, x, K=12, weight_bits="auto")
    bits = [
        [s.info["weight_bits"] for s in net.steps if s.op in ("conv", "readout")]
        for net in (few, many)
    ]
    assert set(bits[0]) == {8} and 16 in bits[1]
    best = fs.convert(ann, x, K=12, weight_bits=16)
    worst = fs.convert(ann, x, K=12, weight_bits=8)
    assert error(many, ann, x) < error(worst, ann, x)
    assert error(many, ann, x) < 4 * error(best, ann, x) + 1e-3


def test_batches_and_repetition_change_nothing(uneven):
    ann, x = uneven
    options = dict(K=4, alpha="logits", weight_bits="auto", correct="least_squares")
    first = fs.convert(ann, x, **options)
    second = fs.convert(ann, x.clone(), **options)
    assert all(map(torch.equal, first.buffers(), second.buffers()))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=16)
    third = fs.convert(ann, (batch for batch in loader), **options)  # a generator: read once
    assert all(map(torch.equal, first.buffers(), third.buffers()))


def test_saved_and_loaded(uneven, tmp_path):
    ann, x = uneven
    net = fs.convert(ann, x, K=5, alpha="logits", correct="bias", weight_bits="auto")
    net.save(tmp_path / "net.safetensors")
    again = fs.load(tmp_path / "net.safetensors")
    assert torch.equal(net(x), again(x))
    assert str(net.report()) == str(again.report())


@settings(max_examples=40, deadline=None)
@given(
    K=st.integers(1, 8),
    rounding=st.sampled_from(["nearest", "floor"]),
    seed=st.integers(0, 10**6),
    spread=st.floats(0.1, 3.0),
)
def test_mse_finds_the_range_that_rounds_best(K, rounding, seed, spread):
    dice = torch.Generator().manual_seed(seed)
    values = (torch.randn(1, 2, 40, 40, generator=dice) * spread).exp()
    ranges = calibrate.Ranges()
    key = values.view(torch.int32) >> calibrate._SHIFT
    ranges.histogram["a"] = torch.bincount(key.flatten(), minlength=calibrate._BINS)
    ranges.largest["a"] = float(values.max())
    best = ranges.least_error("a", K, rounding)

    def loss(top):
        v = values.double()
        return float((rounded(v, top / (2.0**K - 1), K, rounding) - v).square().sum())

    tops = [float(values.max()) * (0.05 + 0.95 * i / 79) for i in range(80)]
    assert loss(best) <= 1.02 * min(map(loss, tops)) + 1e-12
    assert 0 < best <= float(values.max()) * 1.0001


def test_a_spool_gives_back_what_it_got_from_memory_and_from_files():
    batches = [torch.randn(n, 3, 4, 5) for n in (3, 1, 7)]
    spool = Spool(iter(batches), limit=300 * 4)
    for _ in range(2):
        assert len(spool) == 3
        assert all(torch.equal(a, b) for a, b in zip(spool, batches, strict=True))
    assert any(not isinstance(kept, torch.Tensor) for kept in spool._kept)


def test_refusals(uneven):
    ann, x = uneven
    with pytest.raises(ValueError, match="correct='weights' is unknown"):
        fs.convert(ann, x, correct="weights")
    with pytest.raises(ValueError, match="weight_bits='auto' is measured on images"):
        fs.convert(ann, alpha=6.0, weight_bits="auto")
    with pytest.raises(ValueError, match="correct='bias' is measured on images"):
        fs.convert(ann, alpha=6.0, correct="bias")
    with pytest.raises(ValueError, match="'logits' is measured on images"):
        fs.convert(ann, alpha="logits")
    with pytest.raises(ValueError, match="needs at least 2 calibration images"):
        fs.convert(ann, x[:1], alpha="logits")
    with pytest.raises(ValueError, match="for the whole network"):
        fs.convert(ann, x, alpha={"default": "logits"})
    before = copy.deepcopy(ann.state_dict())
    fs.convert(ann, x, K=4, correct="least_squares")
    assert all(torch.equal(a, before[k]) for k, a in ann.state_dict().items())
