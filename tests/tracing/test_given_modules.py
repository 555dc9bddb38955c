"""Risk: what is traced is not the module that was given, or what cannot be is refused untruly."""

import copy
import functools
import re
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from traced import Net, X, a_slice, conv, distance

import fskernel as fs
from fskernel.tracing.trace import trace


class Optional(Net):
    def forward(self, x, taps=None, *more, twice=True, **others):
        h = F.relu(self.a(x))
        if taps is None and not more and not others:
            h = F.relu(self.b(h))
        return self.fc((F.relu(self.c(h)) if twice else h).mean((2, 3)))


class Forwarding(Net):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


def replaced(how):
    module = Net(lambda s, x: s.relu(s.a(x)))

    def leaky(self, x):
        return self.fc(F.relu6(2 * self.a(x)).mean((2, 3)))

    if how == "bound":
        module.forward = types.MethodType(leaky, module)
    elif how == "partial":
        module.forward = functools.partial(leaky, module)
    elif how == "child":
        module.relu.forward = lambda v: F.hardtanh(v, 0, 0.3)
    elif how == "class":
        module.relu.__class__ = type("Leaky", (nn.ReLU,), {"forward": lambda s, v: F.relu6(9 * v)})
    return module


def test_arguments_that_are_left_out_have_their_defaults():
    assert distance(Optional()) < 0.01
    assert distance(Forwarding(lambda s, x: F.relu(s.a(x)))) < 0.01
    with pytest.raises(fs.ConversionError, match="'other': it is a second input"):
        trace(Forwarded())


class Forwarded(Net):
    def forward(self, x, other, third=None):
        return self.fc(F.relu(self.a(x) + other).mean((2, 3)))


@pytest.mark.parametrize("how", ["bound", "partial", "child", "class"])
def test_forwards_that_were_replaced(how):
    assert distance(replaced(how)) < 0.01


def test_a_replaced_forward_that_has_no_form():
    module = nn.Sequential(
        conv(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    module[1].forward = lambda v: v.log()
    with pytest.raises(fs.ConversionError, match="'1': log: it is not finite"):
        fs.convert(module, X)


def test_wrappers_are_taken_off():
    inner = Net(lambda s, x: F.relu(s.a(x)))
    net = fs.convert(nn.DataParallel(inner), X)
    assert torch.equal(net(X), fs.convert(inner, X)(X))
    assert [s.name for s in net.steps] == ["input", "a", "fc"]
    inner.a = nn.DataParallel(inner.a)
    assert torch.equal(net(X), fs.convert(torch.compile(inner), X)(X))
    assert isinstance(inner.a, nn.DataParallel)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_modules_of_other_dtypes(dtype):
    module = Net(lambda s, x: F.relu(s.a(x)))
    other = copy.deepcopy(module).to(dtype)
    same = copy.deepcopy(other).float()
    assert torch.equal(fs.convert(other, X.to(dtype))(X), fs.convert(same, X.to(dtype))(X))
    assert next(other.parameters()).dtype == dtype


def test_parametrised_layers_are_what_they_compute():
    module = Net(lambda s, x: F.relu(s.b(F.relu(s.a(x)))))
    parametrizations.weight_norm(module.a)
    parametrizations.spectral_norm(module.b)
    parametrizations.orthogonal(module.fc)
    assert distance(module) < 0.01
    assert nn.utils.parametrize.is_parametrized(module.a)


def meta():
    with torch.device("meta"):
        return Net(lambda s, x: F.relu(s.a(x)))


class Locked(Net):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle '_thread.lock' object")


def lazy():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))


@pytest.mark.parametrize(
    "build,why",
    [
        (lazy, "'3': it is lazy.*neither shapes nor values.*Run the module on an image"),
        (lambda: nn.LazyConv2d(4, 3), "'LazyConv2d': it is lazy"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.LazyBatchNorm2d()), "'1': it is lazy"),
        (meta, "'meta'.*Load the weights"),
        (Locked, "cannot be copied.*_thread.lock.*state_dict"),
        (lambda: torch.jit.script(conv(3)), "torch.jit.*compiled from"),
    ],
)
def test_what_cannot_be_copied_or_traced_is_refused_truly(build, why):
    with pytest.raises(fs.ConversionError, match=why):
        fs.convert(build(), X)


def test_a_lazy_module_that_has_run_is_converted():
    module = lazy()
    module(X)
    assert distance(module) < 0.01


class Built(Net):
    def forward(self, x):
        return self.fc(nn.ReLU()(nn.BatchNorm2d(6).eval()(self.a(x))).mean((2, 3)))


def branch(net, x):
    return F.relu(net.a(x)) if x.dim() == 4 else x


def check(net, x):
    assert x.shape[1] == 3
    return F.relu(net.a(x))


@pytest.mark.parametrize(
    "module", [Built(), Net(branch), Net(check), Net(a_slice)], ids=lambda m: type(m).__name__
)
def test_python_that_shapes_decide_is_followed(module):
    assert distance(module) < 0.01


def loop(net, x):
    y = F.relu(net.a(x))
    while y.sum() > 1:
        y = F.relu(net.b(y))
    return y


def number(net, x):
    return F.relu(net.a(x)) * float(x.mean())


def largest(net, x):
    y = F.relu(net.a(x))
    if y.max() > 1:
        y = y / 2
    return y


def taken_out(net, x):
    y = F.relu(net.a(x))
    return y[:, : int(y.argmax())]


@pytest.mark.parametrize("middle", [loop, number, largest, taken_out])
def test_the_line_that_values_decide_is_named(middle):
    with pytest.raises(fs.ConversionError, match="numbers of the image at hand") as error:
        fs.convert(Net(middle), X)
    name, first = Path(middle.__code__.co_filename).name, middle.__code__.co_firstlineno
    line = int(re.search(rf"{re.escape(name)}:(\d+): `", error.value.reason)[1])
    assert first < line <= first + 3
