"""Risk: fskernel.replace fails on a module that runs, or changes the original."""

import copy
import threading

import pytest
import torch
from replacing import FINE, Body, X, error, replaced, rows, sane
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fskernel as fs


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def with_hook(conv):
    conv.register_forward_hook(lambda m, args, y: y + 1)
    return conv


def with_forward(conv):
    conv.forward = lambda x: F.conv2d(x, conv.weight) + 1
    return conv


@pytest.mark.parametrize(
    "conv, reason",
    [
        (Doubled(4, 4, 3), "may compute something else"),
        (with_hook(nn.Conv2d(4, 4, 3)), "hooks"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode"),
        (nn.LazyConv2d(4, 3), "lazy"),
        (nn.ConvTranspose2d(4, 4, 3), "no Few-Spikes layer"),
    ],
)
def test_other_convolutions_stay(conv, reason):
    module = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(4, 3, 1))
    hooks = len(conv._forward_hooks)
    new, report = fs.replace(module, X, **FINE)
    row = rows(report)
    assert row["0"].kind is None and reason in row["0"].reason, str(report)
    assert row["2"].kind == "FSConv2d" and type(new[1]) is nn.ReLU
    assert len(conv._forward_hooks) == hooks
    if reason != "lazy":
        assert error(module, new, X) < 5e-3


def test_a_forward_of_the_instance_stays():
    conv = with_forward(nn.Conv2d(4, 4, 3))
    new, report = fs.replace(nn.Sequential(conv, nn.ReLU()), X)
    assert not report.replaced and report.rows[0].reason
    assert error(nn.Sequential(conv, nn.ReLU()), new, X) < 1e-6


@pytest.mark.parametrize("kind", ["weight_norm", "old_weight_norm", "spectral_norm", "prune"])
def test_parametrised_layers(kind):
    conv = nn.Conv2d(4, 6, 3)
    if kind == "weight_norm":
        nn.utils.parametrizations.weight_norm(conv)
    elif kind == "old_weight_norm":
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(conv)
    elif kind == "spectral_norm":
        nn.utils.parametrizations.spectral_norm(conv)
    else:
        from torch.nn.utils import prune

        prune.l1_unstructured(conv, "weight", 0.5)
    module = nn.Sequential(conv, nn.ReLU()).eval()
    before = copy.copy(vars(conv))
    new, report = fs.replace(module, X, **FINE)
    assert type(new[0]) is fs.FSConv2d and new[0].relu, str(report)
    assert error(module, new, X) < 5e-3 and vars(conv).keys() == before.keys()
    assert "weight" in new[0]._parameters and set(new.state_dict()) == {"0.weight", "0.bias"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype):
    module = sane(Body(lambda m, x: m.other(m.relu(m.bn(m.conv(x))))), 8, 4, 9, 8).to(dtype)
    x = X.to(dtype)
    new, report = fs.replace(module, x, **FINE)
    assert len(report.replaced) == 2, str(report)
    y = new(x)
    assert y.dtype == dtype and new.conv.weight.dtype == dtype
    assert error(module, new, x) < (3e-2 if dtype == torch.bfloat16 else 5e-3)


def test_linear_layers():
    module = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.rand(16, 12)
    new, report = fs.replace(module, x, **FINE)
    first, last = report.rows
    assert first.relu and not first.signed_input and not last.relu and not last.signed_input
    assert type(new[1]) is nn.Identity and error(module, new, x) < 5e-3
    # The largest input and output are representable, and not clipped.
    neuron = new[0].input_neuron
    assert neuron.step * neuron.max_word == pytest.approx(float(x.max()), rel=1e-6)
    assert new[2].input_neuron.alpha == new[0].neuron.alpha
    deep = nn.Sequential(nn.Linear(12, 20), nn.ReLU())
    _, report = fs.replace(deep, torch.rand(2, 3, 12))
    assert not report.replaced and "3 dimensions" in report.rows[0].reason


def test_attention_stays():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    x = torch.randn(2, 5, 8)
    new, report = fs.replace(layer, x)
    assert not report.replaced and all(row.reason for row in report.rows)
    assert error(layer.eval(), new, x) < 1e-5


def test_script_modules_stay():
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()))
    module = nn.Sequential(nn.Conv2d(4, 4, 1), inner, nn.Conv2d(4, 2, 1))
    new, report = fs.replace(module, X, **FINE)
    row = rows(report)
    assert "ScriptModule" in row["1.0"].reason and row["0"].kind and row["2"].kind
    assert not row["0"].relu and error(module, new, X) < 5e-3
    _, report = fs.replace(inner, X)
    assert not report.replaced and "ScriptModule" in str(report)


def test_a_bare_convolution():
    conv = nn.Conv2d(4, 3, 3)
    new, report = fs.replace(conv, X, **FINE)
    assert type(conv) is nn.Conv2d and type(new) is fs.FSConv2d and not new.relu
    assert error(conv, new, X) < 5e-3 and "(itself)" in str(report)
    reference = copy.deepcopy(conv)
    same, _ = fs.replace(conv, X, inplace=True, **FINE)
    assert same is conv and type(conv) is fs.FSConv2d and error(reference, conv, X) < 5e-3


class Aliased(nn.Module):
    """A convolution under two names and in a list that torch does not know."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.unregistered = [self.first, self.norm]

    def forward(self, x):
        for part in self.unregistered:
            x = part(x)
        return F.relu(x)


@pytest.mark.parametrize("inplace", [False, True])
def test_all_names_of_a_module_get_the_same_new_one(inplace):
    module = sane(Aliased(), 8, 4, 9, 8)
    before = copy.deepcopy(module)
    new, report = fs.replace(module, X, inplace=inplace, **FINE)
    assert (new is module) == inplace and len(report.rows) == 1
    assert new.first is new.second is new.unregistered[0] and type(new.first) is fs.FSConv2d
    assert type(new.norm) is nn.Identity and error(before, new, X) < 5e-3


class Detector(nn.Module):
    """Reads a list of images of different sizes, takes ways that depend on values."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 4)

    def forward(self, images, scale=1.0):
        found = []
        for image in images:
            maps = self.body(image[None]) * scale
            y = self.head(maps.mean((2, 3)))
            while y.norm() > 1:
                y = y / 2
            found.append({"box": y, "size": image.shape[-1]})
        return found


def test_batches_of_all_forms():
    module = sane_detector = Detector()
    sane_detector([torch.randn(3, 9, 9)])
    module.eval()
    images = [torch.rand(3, 9, 8), torch.rand(3, 12, 7)]
    untouched = [p.clone() for p in images]
    for batch in (images, (images,), (images, 2.0), {"images": images, "scale": 2.0}):
        new, report = fs.replace(module, [batch], **FINE)
        assert len(report.replaced) == 2 and type(new.body[1]) is nn.Identity
        with torch.no_grad():
            for a, b in zip(module(images), new(images), strict=True):
                assert (a["box"] - b["box"]).norm() < 5e-3 * a["box"].norm()
    assert all(map(torch.equal, images, untouched))


def test_signs_and_ranges():
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    _, report = fs.replace(module, X.abs(), K=6)
    first, second, third = report.rows
    assert (first.signed_input, second.signed_input, third.signed_input) == (False, False, True)
    assert (first.input_K, second.input_K, third.input_K) == (6, 6, 12)
    assert first.input_alpha == pytest.approx(float(X.abs().max()) * 64 / 63)
    _, report = fs.replace(module, X.abs(), K=6, input_K=10, alpha=3.0, weight_bits=16)
    assert {row.input_K for row in report.rows} == {10} and report.rows[0].alpha == 3.0
    _, report = fs.replace(module, X.abs(), alpha={"0": 2.0, "default": "mse"})
    assert report.rows[0].alpha == 2.0
    for alpha in ("mse", "percentile:99"):
        _, report = fs.replace(module, X, K=4, alpha=alpha)
        graph = fs.convert(nn.Sequential(*module[:2], nn.Flatten(), nn.Linear(288, 2)), X, K=4,
                           alpha=alpha)  # fmt: skip
        assert report.rows[0].alpha == pytest.approx(graph.report().rows[1].alpha, rel=1e-3)
    _, report = fs.replace(module, torch.zeros(2, 4, 5, 5))
    assert report.rows[0].input_alpha == 1.0


def test_a_layer_that_is_never_positive():
    conv = nn.Conv2d(4, 4, 1)
    nn.init.constant_(conv.bias, -100)
    new, report = fs.replace(nn.Sequential(conv, nn.ReLU()), X)
    assert report.rows[0].alpha == 1.0 and not new(X).any()


def test_random_states_hooks_and_the_original_after_an_exception():
    class Fails(Body):
        def forward(self, x):
            self.steps = getattr(self, "steps", 0) + 1
            y = F.relu(self.conv(x)) + torch.rand(())
            if x.mean() > 50:
                raise KeyError("no such image")
            return y

    module = Fails(None).train()
    module.conv.register_forward_pre_hook(lambda m, args: None)
    state, rng = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    with pytest.raises(KeyError, match="no such image"):
        fs.replace(module, [X, X + 100], inplace=True)
    assert torch.equal(rng, torch.get_rng_state()) and module.training and module.conv.training
    assert len(module.conv._forward_pre_hooks) == 1 and not module.conv._forward_hooks
    assert type(module.conv) is nn.Conv2d and not hasattr(module, "steps")
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    fs.replace(module, [X])
    assert torch.equal(rng, torch.get_rng_state())


def test_a_closure_that_calls_the_original_leaves_it_as_it_was():
    module = Body(lambda m, x: m.held(x))
    module.held = lambda x: F.relu(module.bn(module.conv(x)))  # of the copy, too
    module.train()
    state = copy.deepcopy(module.state_dict())
    new, report = fs.replace(module, X)
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert not report.replaced and "not called" in rows(report)["conv"].reason


def test_errors_of_a_layer_that_the_module_catches():
    class Tries(Body):
        def forward(self, x):
            try:
                self.conv(x[:, :2])
            except RuntimeError:
                pass
            return F.relu(self.other(x))

    new, report = fs.replace(Tries(None), X)
    assert rows(report)["conv"].kind is None and rows(report)["other"].relu


class Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)


def under_autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return F.relu(m.conv(x)).float()


def in_a_thread(m, x):
    found = []
    thread = threading.Thread(target=lambda: found.append(F.relu(m.conv(x.detach())).detach()))
    thread.start()
    thread.join()
    return found[0]


def in_a_cycle(m, x):
    y = m.conv(x)
    cycle = [y]
    cycle.append(cycle)
    return F.relu(y)


def bn_fails_once(m, x):
    y = m.conv(x)
    try:
        m.other_bn(y)
    except RuntimeError:
        pass
    return F.relu(y)


@pytest.mark.parametrize(
    "how, kind, relu",
    [
        (lambda m, x: Rectify.apply(m.conv(x)), "FSConv2d", True),
        (lambda m, x: checkpoint(m.relu, m.conv(x), use_reentrant=False), "FSConv2d", True),
        (in_a_cycle, "FSConv2d", True),
        (bn_fails_once, "FSConv2d", False),
        (under_autocast, None, False),
        (in_a_thread, None, False),
    ],
)
def test_ways_around_a_plain_call(how, kind, relu):
    module = Body(how)
    module.other_bn = nn.BatchNorm2d(5)
    _, row = replaced(module, X)
    assert (row["conv"].kind, row["conv"].relu) == (kind, relu)


@pytest.mark.parametrize("which", [1, 2])
def test_hooks_behind_the_layer_are_kept(which):
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    module[which].register_forward_hook(lambda m, args, y: 2 * y + args[0].mean())
    new, report = fs.replace(module.eval(), X, **FINE)
    assert not report.rows[0].relu and (report.rows[0].norm is None) == (which == 1)
    assert len(new[which]._forward_hooks) == 1 and error(module, new, X) < 5e-3


def test_inference_mode_and_gradients():
    module = Body(lambda m, x: F.relu(m.bn(m.conv(x)) + x)).eval()
    with torch.inference_mode():
        new, report = fs.replace(module, X.clone(), **FINE)
    assert len(report.replaced) == 1 and not any(p.requires_grad for p in new.parameters())
    assert all(p.requires_grad for p in module.parameters())
    assert error(module, new, X) < 5e-3 and not new(X).requires_grad


@pytest.mark.parametrize(
    "module, calibration, kwargs, match",
    [
        (lambda x: x, X, {}, "module is a function"),
        (nn.ReLU(), 3, {}, "calibration is a int"),
        (nn.ReLU(), {"x": X}, {}, "calibration is a dict"),
        (nn.ReLU(), X[:0], {}, "calibration is empty"),
        (nn.ReLU(), [], {}, "calibration is empty"),
        (nn.ReLU(), X, {"K": 0}, "K=0"),
        (nn.ReLU(), X, {"K": 8.0}, "K=8.0"),
        (nn.ReLU(), X, {"input_K": 16}, "input_K=16"),
        (nn.ReLU(), X, {"weight_bits": 4}, "weight_bits=4"),
        (nn.ReLU(), X, {"rounding": "up"}, "rounding='up'"),
        (nn.ReLU(), X, {"alpha": "logits"}, "alpha='logits'"),
        (nn.ReLU(), X, {"alpha": -1.0}, "alpha=-1.0"),
        (nn.ReLU(), X, {"alpha": {"a": 1.0}}, "no 'default'"),
    ],
)
def test_bad_arguments(module, calibration, kwargs, match):
    with pytest.raises((TypeError, ValueError), match=match):
        fs.replace(module, calibration, **kwargs)


def test_nothing_to_replace():
    new, report = fs.replace(nn.ReLU(), X)
    assert type(new) is nn.ReLU and not report.rows and "nothing is replaced" in str(report)


@pytest.mark.parametrize("name, layers", [("cifar_resnet20", 22), ("cifar_resnet50", 52)])
def test_trained_networks(name, layers):
    """Of what differs between the images; random weights may give all of them the same logits."""
    pytest.importorskip("safetensors")
    samples = pytest.importorskip("skimage").data
    photographs = [samples.astronaut(), samples.chelsea(), samples.coffee(), samples.rocket()]
    maps = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 255 for p in photographs]
    cut = [m[:, :, i : i + 160, j : j + 160] for m in maps for i in (0, 90) for j in (0, 90, 180)]
    x = torch.cat([F.interpolate(c, (32, 32), mode="area") for c in cut]).sub(0.47).div(0.25)
    module = getattr(fs.models, name)(weights="cifar10").eval()
    new, report = fs.replace(module, x[::2])
    assert len(report.replaced) == layers and not report.kept, str(report)
    with torch.no_grad():
        a, b = module(x[1::2]), new(x[1::2])
    assert (a - b).norm() < 0.05 * (a - a.mean(0)).norm()
    assert torch.equal(a.argmax(1), b.argmax(1))


@pytest.mark.slow
@pytest.mark.parametrize("name, layers", [("resnet50", 54), ("mobilenet_v2", 53), ("detector", 73)])
def test_whole_networks(name, layers):
    pytest.importorskip("torchvision")
    from bench.measures.speed.modules import classifier, detector, error_of

    module, images = (
        detector("fasterrcnn_mobilenet_v3_large_320_fpn", 160)
        if name == "detector"
        else classifier(name, 160)
    )
    calibration = images(8)
    new, report = fs.replace(module, [calibration])
    assert len(report.replaced) == layers and not report.kept, str(report)
    assert error_of(module, new, images(4)) < 0.05
    with torch.no_grad():
        found = new(images(2))
    assert len(found) == 2
