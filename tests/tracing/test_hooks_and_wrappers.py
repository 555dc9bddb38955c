"""Risk: what users hang on modules - hooks, wrappers, other weights - is left out or doubled."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from traced import Net, X, distance, same_function

import fskernel as fs
from fskernel.tracing.trace import trace


def plain():
    """conv, ReLU, conv, ReLU; the linear layer reads the average."""
    return Net(lambda s, x: s.relu(s.b(s.relu(s.a(x))))).eval()


def hooked(where):
    module = plain()
    if where == "child":
        module.b.register_forward_hook(lambda m, args, y: y * 2)
    elif where == "child, before":
        module.b.register_forward_pre_hook(lambda m, args: (args[0][:, [2, 0, 1, 5, 4, 3]],))
    elif where == "root":
        module.register_forward_hook(lambda m, args, y: y - 1)
    elif where == "root, before":
        module.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
    elif where == "ReLU":
        module.relu.register_forward_hook(lambda m, args, y: y.clamp(max=0.7))
    elif where == "watches":
        module.b.register_forward_hook(lambda m, args, y: None)
    return module


@pytest.mark.parametrize(
    "where", ["child", "child, before", "root", "root, before", "ReLU", "watches"]
)
def test_hooks_are_part_of_the_function(where):
    same_function(hooked(where), X)


def test_global_hooks_are_part_of_the_function():
    def halved(module, args, y):
        return y / 2 if isinstance(module, nn.Conv2d) else None

    handle = register_module_forward_hook(halved)
    try:
        same_function(plain(), X)
    finally:
        handle.remove()


def test_hooks_that_keep_numbers_keep_those_of_shapes():
    kept, module = [], plain()
    module.b.register_forward_hook(lambda m, args, y: kept.append(float(y.detach().shape[1])))
    assert distance(module) < 0.01
    assert set(kept) == {6.0}


def test_hooks_that_take_numbers_out_are_refused():
    module = plain()
    module.b.register_forward_hook(lambda m, args, y: y / y.max().item())
    with pytest.raises(fs.ConversionError, match="'b'.*a number out of the image.*without .item"):
        trace(module, tuple(X.shape))


def old_weight_norm(module):
    nn.utils.weight_norm(module.b)


def old_spectral_norm(module):
    nn.utils.spectral_norm(module.b)
    module.train()(X)  # it takes a step towards the largest singular value
    module.eval()


def pruned(module):
    prune.l1_unstructured(module.b, "weight", 0.5)
    prune.random_structured(module.a, "weight", 2, dim=0)


@pytest.mark.parametrize("change", [old_weight_norm, old_spectral_norm, pruned])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_older_reparametrisations_are_what_they_compute(change):
    module = plain()
    change(module)
    module(X)  # as training leaves them: tensors with a history
    assert not module.b.weight.is_leaf
    assert distance(module) < 0.01


def test_averaged_and_compiled_modules_are_what_they_wrap():
    module = plain()
    expected = fs.convert(module, X)(X)
    averaged = AveragedModel(module)
    averaged.update_parameters(module)
    assert torch.equal(fs.convert(averaged, X)(X), expected)
    module.b = torch.compile(module.b)
    module.a.compile()
    assert torch.equal(fs.convert(module, X)(X), expected)
    assert hasattr(module.b, "_orig_mod") and module.a._compiled_call_impl is not None


def without_gradient(net, x):
    with torch.no_grad():
        y = F.relu(net.a(x))
    return F.relu(net.b(y))


def recomputed(net, x):
    return F.relu(net.b(checkpoint(lambda v: F.relu(net.a(v)), x, use_reentrant=False)))


def in_autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=x.dtype == torch.float16):
        return F.relu(net.b(F.relu(net.a(x))))


@pytest.mark.parametrize("middle", [without_gradient, recomputed, in_autocast])
def test_blocks_that_do_not_change_the_function(middle):
    same_function(Net(middle).eval(), X)


def test_halves_within_forward_are_refused_or_close():
    """Casts are left out, so the graph is more exact than the module."""
    module = Net(lambda s, x: F.relu(s.b(F.relu(s.a(x)).half().to(x.dtype))))
    try:
        assert distance(module) < 0.02
    except fs.ConversionError as error:
        assert error.node and error.reason and error.cure


@pytest.mark.parametrize(
    "dropout", [lambda x: F.dropout(x, 0.2), lambda x: F.dropout2d(x, 0.2, True)]
)
def test_dropout_that_stays_on_is_refused(dropout):
    with pytest.raises(fs.ConversionError, match="random.*training=self.training"):
        trace(Net(lambda s, x: dropout(F.relu(s.a(x)))), tuple(X.shape))
