"""Risk: what follows a layer is taken for something else, and the module computes it wrongly."""

import pytest
import torch
from replacing import FINE, Body, X, error, replaced, rows, sane
from torch import nn
from torch.nn import functional as F

import fskernel as fs

RELUS = {
    "module": lambda m, x: m.relu(m.conv(x)),
    "functional": lambda m, x: F.relu(m.conv(x)),
    "in place": lambda m, x: F.relu(m.conv(x), inplace=True),
    "torch.relu": lambda m, x: torch.relu(m.conv(x)),
    "relu_": lambda m, x: m.conv(x).relu_(),
    "clamp": lambda m, x: m.conv(x).clamp(min=0),
    "clamp_": lambda m, x: m.conv(x).clamp_(0),
    "clamp_min": lambda m, x: m.conv(x).clamp_min(0),
    "threshold": lambda m, x: F.threshold(m.conv(x), 0.0, 0.0),
    "dropout between": lambda m, x: F.relu(F.dropout(m.conv(x), training=m.training)),
    "read again behind it": lambda m, x: (lambda y: y.relu_() + y)(m.conv(x)),
    "ceiling": lambda m, x: F.hardtanh(m.conv(x), 0, 0.4),
    "clamp with a ceiling": lambda m, x: m.conv(x).clamp(0, 0.4),
    "folded": lambda m, x: m.relu(m.bn(m.conv(x))),
    "folded, in place": lambda m, x: m.bn(m.conv(x)).relu_(),
    "sizes are read": lambda m, x: (lambda y: F.relu(y) + torch.zeros_like(y))(m.conv(x)),
}


@pytest.mark.parametrize("name", RELUS)
def test_a_relu_in_any_form(name):
    module = sane(Body(RELUS[name]), 8, 4, 9, 8)
    new, row = replaced(module, X)
    assert type(new.conv) is fs.FSConv2d and new.conv.relu and row["conv"].relu
    assert row["conv"].signed_input and row["other"].kind is None
    assert "not called" in row["other"].reason
    assert (row["conv"].norm == "bn") == ("folded" in name)
    assert type(new.bn) is (nn.Identity if "folded" in name else nn.BatchNorm2d)
    if "ceiling" in name:
        top = new.conv.neuron.max_word * new.conv.neuron.step
        assert abs(top - 0.4) < 1e-6


def kept_too(m, x):
    y = m.conv(x)
    m.box = [y]
    return F.relu(y)


def by_value(m, x):
    y = m.conv(x)
    return F.relu(y) if x.mean() > 0 else y


def through_numpy(m, x):
    y = m.conv(x)
    return torch.relu(y) + float(y.numpy().mean())


def twice(m, x):
    y = F.relu(m.conv(x))
    return m.conv(y)


def added_in_place(m, x):
    y = m.conv(x)
    y += x
    return F.relu(y)


def part_in_place(m, x):
    y = m.conv(x)
    y[:, :2].relu_()
    return y


def alias_first(m, x):
    y = m.conv(x)
    z = y.view(-1)
    F.relu_(y)
    return z.view_as(y)


def bn_and_more(m, x):
    y = m.conv(x)
    return F.relu(m.bn(y)) + y


NO_NEURONS = {
    "of .data": lambda m, x: torch.relu(m.conv(x).data),
    "returned": lambda m, x: m.conv(x),
    "returned too": lambda m, x: (lambda y: (F.relu(y), y))(m.conv(x)),
    "kept": kept_too,
    "residual": lambda m, x: (lambda y: F.relu(y) + y)(m.conv(x)),
    "two ReLUs": lambda m, x: (lambda y: F.relu(y) + F.relu(y))(m.conv(x)),
    "added in place": added_in_place,
    "added before": lambda m, x: F.relu(m.conv(x) + x),
    "flattened": lambda m, x: F.relu(m.conv(x).flatten(1)),
    "permuted": lambda m, x: F.relu(m.conv(x).permute(0, 2, 3, 1)),
    "chunks": lambda m, x: torch.cat([F.relu(p) for p in m.conv(x).chunk(2, 1)], 1),
    "split": lambda m, x: (lambda a, b: F.relu(a) + b)(*m.conv(x).split(2, 1)),
    "cat": lambda m, x: F.relu(torch.cat([m.conv(x), x], 1)),
    "pooled before": lambda m, x: F.relu(F.max_pool2d(m.conv(x), 2)),
    "leaky": lambda m, x: F.leaky_relu(m.conv(x), 0.5),
    "from -1 on": lambda m, x: F.hardtanh(m.conv(x)),
    "clamp by tensors": lambda m, x: m.conv(x).clamp(min=torch.zeros(4, 1, 1)),
    "called twice": twice,
    "in some calls": by_value,
    "numpy": through_numpy,
    "part in place": part_in_place,
    "alias": alias_first,
    "normed and more": bn_and_more,
}


@pytest.mark.parametrize("name", NO_NEURONS)
def test_without_a_relu_of_its_own_it_has_no_neurons(name):
    module = Body(NO_NEURONS[name])
    calibration = [X + 1, X - 1] if name == "in some calls" else X
    with torch.no_grad():
        module.conv.bias.add_(0.1)
    new, report = fs.replace(module, calibration, **FINE)
    row = rows(report)["conv"]
    assert row.kind == "FSConv2d" and not row.relu and row.reason, str(report)
    assert row.alpha is None and row.norm is None
    assert type(new.bn) is nn.BatchNorm2d
    module.eval()
    for batch in calibration if isinstance(calibration, list) else [X]:
        assert error(module, new, batch) < 5e-3


def test_a_list_that_is_kept_does_not_carry_the_calibration():
    module = Body(kept_too)
    new, _ = fs.replace(module, X)
    assert not hasattr(module, "box") and not hasattr(new, "box")


def two_convs(m, x):
    return F.relu(m.bn(m.conv(x))) + F.relu(m.bn(m.other(x)))


def other_batch_norm(m, x):
    return F.relu(m.bn(m.conv(x))) + m.conv(x)


UNFOLDED = {
    "of two convolutions": two_convs,
    "in one of two calls": other_batch_norm,
    "of the input, too": lambda m, x: F.relu(m.bn(m.conv(m.bn(x)))),
    "its weight is read": lambda m, x: F.relu(m.bn(m.conv(x))) * m.bn.weight.mean(),
    "its forward": lambda m, x: F.relu(m.bn.forward(m.conv(x))),
    "functional": lambda m, x: F.relu(
        F.batch_norm(m.conv(x), m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias)
    ),
    "of a view": lambda m, x: F.relu(m.bn(m.conv(x).transpose(2, 3))),
}


@pytest.mark.parametrize("name", UNFOLDED)
def test_a_batch_norm_that_is_not_only_its_own_stays(name):
    module = sane(Body(UNFOLDED[name]), 8, 4, 9, 8)
    new, row = replaced(module, X)
    assert type(new.bn) is nn.BatchNorm2d and row["conv"].norm is None
    assert row["conv"].kind == "FSConv2d" and not row["conv"].relu


class Stubborn(nn.Module):
    """A batch norm inside always normalises with the batch's own statistics."""

    def __init__(self, **options):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, **options)

    def train(self, mode=True):
        super().train(mode)
        self.bn.train()
        return self

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


@pytest.mark.parametrize("options", [{}, {"track_running_stats": False}])
def test_a_batch_norm_that_reads_the_batch_stays(options):
    new, row = replaced(Stubborn(**options), X, 1e-2)
    assert type(new.bn) is nn.BatchNorm2d and not row["conv"].relu
    assert row["conv"].kind == "FSConv2d"


def test_batch_norm_of_torchvision():
    torchvision = pytest.importorskip("torchvision")
    module = Body(lambda m, x: F.relu(m.bn(m.conv(x))))
    module.bn = torchvision.ops.FrozenBatchNorm2d(4)
    for t in (module.bn.weight, module.bn.running_var):
        t.uniform_(0.5, 2)
    module.bn.running_mean.normal_()
    new, row = replaced(module, X)
    assert row["conv"].norm == "bn" and type(new.bn) is nn.Identity


def test_relu_modules_go_where_only_neurons_are_in_front_of_them():
    for relu, gone in ((nn.ReLU(inplace=True), True), (nn.ReLU6(), True)):
        new, _ = replaced(Body(lambda m, x: m.relu(m.conv(x)), relu), X)
        assert (type(new.relu) is nn.Identity) == gone
    for how in (
        lambda m, x: m.relu(m.conv(x)) + m.relu(x),
        lambda m, x: m.relu(m.conv(x)) + m.relu.forward(x),
        lambda m, x: m.relu(m.conv(x) + x),
    ):
        new, row = replaced(Body(how), X)
        assert type(new.relu) is nn.ReLU


STAYS = {
    "its weight is read": (
        lambda m, x: F.relu(m.conv(x)) + F.conv2d(x, m.conv.weight, padding=1),
        "weights are also read",
    ),
    "its weight alone is read": (
        lambda m, x: F.conv2d(x, m.conv.weight, padding=1),
        "weights are also read",
    ),
    "its forward": (lambda m, x: m.conv.forward(x), "weights are also read"),
    "unbatched": (lambda m, x: m.conv(x[0]), "3 dimensions"),
    "by name": (lambda m, x: m.conv(input=x), "named argument"),
    "no values": (lambda m, x: m.conv(x[:0]).sum() + x, "sees no values"),
    "not finite": (lambda m, x: m.conv(x / 0), "NaN or infinite"),
    "vmap": (lambda m, x: torch.vmap(lambda v: m.conv(v[None])[0])(x), "torch.func"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays_says_why(name):
    how, reason = STAYS[name]
    module = Body(how)
    new, report = fs.replace(module, X)
    row = rows(report)["conv"]
    assert row.kind is None and reason in row.reason, str(report)
    assert type(new.conv) is nn.Conv2d
    if name != "not finite":
        assert error(module.eval(), new, X) < 1e-6
    assert "nothing is replaced" in str(report)
