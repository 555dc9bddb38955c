"""Risk: networks of other kinds than classifiers of images convert, but compute something else."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from networks import every_word, same_everywhere, same_tree, settle
from torch import nn
from torch.utils._pytree import tree_leaves
from torchvision import models
from torchvision.models import detection, segmentation
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

import fskernel as fs
from fskernel import reference
from fskernel.tracing.module.parts import parts_of
from fskernel.tracing.trace import trace

DISTINCT = 16  # words that every layer of neurons shows at least: dead layers prove nothing


class Unit(nn.Module):
    """Convolution, batch norm, ReLU or another activation."""

    act = staticmethod(F.relu)

    def __init__(self, inputs, outputs, kernel=1, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Focus(nn.Module):
    """Every other row and column, side by side as channels."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.unit = Unit(4 * inputs, outputs, 3)

    def forward(self, x):
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.unit(torch.cat(parts, 1))


class C2f(nn.Module):
    """Half of the channels goes through bottlenecks; all that is met on the way is joined."""

    def __init__(self, inputs, outputs, n, shortcut):
        super().__init__()
        self.half, self.shortcut = outputs // 2, shortcut
        self.first = Unit(inputs, 2 * self.half)
        self.last = Unit((2 + n) * self.half, outputs)
        self.middle = nn.ModuleList(
            nn.Sequential(Unit(self.half, self.half, 3), Unit(self.half, self.half, 3))
            for _ in range(n)
        )

    def forward(self, x):
        met = list(self.first(x).chunk(2, 1))
        for unit in self.middle:
            y = unit(met[-1])
            met.append(met[-1] + y if self.shortcut else y)
        return self.last(torch.cat(met, 1))


class SPPF(nn.Module):
    """A max-pool, three times over, and all of them joined."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.last = Unit(channels, channels // 2), Unit(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        x = self.first(x)
        y = self.pool(x)
        z = self.pool(y)
        return self.last(torch.cat((x, y, z, self.pool(z)), 1))


class Yolo(nn.Module):
    """A detector's trunk, the way down and up again, and three raw heads."""

    def __init__(self, width=16, outputs=21):
        super().__init__()
        w = width
        self.stem = Focus(3, w)
        self.down = nn.ModuleList(Unit(w * a, w * b, 3, 2) for a, b in ((1, 2), (2, 3), (3, 4)))
        self.c2f = nn.ModuleList(
            (C2f(2 * w, 2 * w, 1, True), C2f(3 * w, 3 * w, 2, True), C2f(4 * w, 4 * w, 1, True))
        )
        self.sppf = SPPF(4 * w)
        self.up4 = C2f(7 * w, 3 * w, 1, False)
        self.up3 = C2f(5 * w, 2 * w, 1, False)
        self.back = nn.ModuleList((Unit(2 * w, 2 * w, 3, 2), Unit(3 * w, 3 * w, 3, 2)))
        self.down4, self.down5 = C2f(5 * w, 3 * w, 1, False), C2f(7 * w, 4 * w, 1, False)
        self.heads = nn.ModuleList(
            nn.Sequential(Unit(n * w, n * w, 3), nn.Conv2d(n * w, outputs, 1)) for n in (2, 3, 4)
        )

    def forward(self, x):
        p3 = self.c2f[0](self.down[0](self.stem(x)))
        p4 = self.c2f[1](self.down[1](p3))
        p5 = self.sppf(self.c2f[2](self.down[2](p4)))
        h4 = self.up4(torch.cat((F.interpolate(p5, scale_factor=2), p4), 1))
        h3 = self.up3(torch.cat((F.interpolate(h4, scale_factor=2), p3), 1))
        h4 = self.down4(torch.cat((self.back[0](h3), h4), 1))
        h5 = self.down5(torch.cat((self.back[1](h4), p5), 1))
        return [head(h) for head, h in zip(self.heads, (h3, h4, h5), strict=True)]


def yolo_of_silu():
    net = Yolo(8)
    for unit in net.modules():
        if isinstance(unit, Unit):
            unit.act = F.silu
    return net


def mlp():
    layers = []
    for inputs, outputs in ((19, 64), (64, 33), (33, 40)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(40, 7))


def sequences():
    """A network for [N, 5, L]: strides, dilation, a depthwise layer, a pool."""
    return nn.Sequential(
        nn.Conv1d(5, 24, 7, 2, 3, bias=False), nn.BatchNorm1d(24), nn.ReLU(),
        nn.Conv1d(24, 24, 3, padding=2, dilation=2, groups=24), nn.BatchNorm1d(24), nn.ReLU6(),
        nn.MaxPool1d(3, 2), nn.Conv1d(24, 31, 4), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(31, 6),
    )  # fmt: skip


class Features(nn.Module):
    """The maps of a ResNet18 from stride 8 on, and three smaller ones behind them."""

    def __init__(self):
        super().__init__()
        net = models.resnet18()
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
        self.stages = nn.ModuleList((net.layer2, net.layer3, net.layer4))
        self.extra = nn.ModuleList((Unit(512, 64, 3, 2), Unit(64, 64, 3, 2)))
        self.out_channels = [128, 256, 512, 64, 64]

    def forward(self, x):
        x, found = self.stem(x), {}
        for i, stage in enumerate((*self.stages, *self.extra)):
            x = found[str(i)] = stage(x)
        return found


def ssd():
    """torchvision's SSD on a ResNet18, for three classes and images of 128x128 pixels."""
    anchors = DefaultBoxGenerator([[2], [2, 3], [2, 3], [2], [2]], min_ratio=10, max_ratio=90)
    return detection.ssd.SSD(Features(), anchors, (128, 128), num_classes=3)


def retinanet():
    return detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96
    )


def timm(name):
    return pytest.importorskip("timm", reason="pip install timm").create_model(name)


def of_five_classes(build):
    return build(weights=None, weights_backbone=None, num_classes=5)


def case(name, build, size=(3, 64, 80), outputs=None, slow=True):
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(build, size, outputs, id=name, marks=marks)


NETWORKS = [
    case("mlp", mlp, (19,), slow=False),
    case("sequences", sequences, (5, 101), slow=False),
    case("yolo", Yolo, (3, 64, 96), slow=False),
    case("yolo of silu", yolo_of_silu, (3, 64, 96), slow=False),
    case("shufflenet_v2_x1_0", models.shufflenet_v2_x1_0),
    case("squeezenet1_1", models.squeezenet1_1, (3, 65, 83)),
    case("mnasnet1_0", models.mnasnet1_0),
    case("fcn_resnet50", partial(of_five_classes, segmentation.fcn_resnet50), (3, 33, 40)),
    case(
        "deeplabv3_resnet50", partial(of_five_classes, segmentation.deeplabv3_resnet50),
        (3, 33, 40),
    ),
    case("ssd", ssd, (3, 128, 128), ["backbone", "head"]),
    case("retinanet", retinanet, (3, 64, 96), ["backbone", "head"]),
    *(
        case(f"timm {name}", partial(timm, name), (3, 64, 96))
        for name in (
            "selecsls42", "dla46x_c", "hrnet_w18_small", "res2net50_48w_2s", "spnasnet_100",
            "mobilenetv1_100", "mobilenet_edgetpu_v2_xs", "fbnetc_100", "xception41p",
            "mobilenetv2_035",
            # Activations that are no ReLUs, and gates.
            "efficientnet_b0", "tf_efficientnet_lite0", "efficientnet_es", "mixnet_s", "tinynet_e",
            "fbnetv3_b", "ghostnet_100", "lcnet_050", "mobilenetv3_small_050", "hardcorenas_a",
            "rexnet_100", "seresnet18", "cspresnet50", "cspdarknet53", "darknet53", "hgnet_tiny",
            "hrnet_w18_small_v2", "dpn48b", "res2next50", "gernet_s", "repvgg_a0", "regnetz_005",
            "semnasnet_075", "legacy_seresnet18", "eca_resnet33ts", "ese_vovnet19b_slim",
        )
    ),
    *(
        case(name, partial(models.get_model, name), (3, 64, 80))
        for name in (
            "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
            "efficientnet_v2_s", "mobilenet_v3_small", "mobilenet_v3_large", "regnet_y_400mf",
        )
    ),
]  # fmt: skip


def distinct_words(net, x):
    """Of every layer of neurons: how many different words it shows, and how many neurons it has."""
    words, counts, _ = every_word(net, x)
    return {name: (words[name].unique().numel(), words[name][0].numel()) for name in counts}


@pytest.mark.parametrize("build, size, outputs", NETWORKS)
def test_it_is_the_same_function_and_every_word_is_the_literal_networks(build, size, outputs):
    x = torch.randn(4, *size, generator=torch.Generator().manual_seed(4))
    whole = build().eval()
    module = whole if outputs is None else parts_of(whole, outputs, tuple(x.shape))
    settle(module, x)
    graph = trace(module, tuple(x.shape))
    with torch.no_grad():
        expected = tree_leaves(module.double()(x.double()))
        got = tree_leaves(graph.answer(x.double()))
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
    net = fs.convert(graph, x, K=8)
    shown = distinct_words(net, x[:1])
    if any(neurons < DISTINCT for _, neurons in shown.values()):
        few = distinct_words(net, x)
        shown = {n: few[n] if shown[n][1] < DISTINCT else shown[n] for n in shown}
    dead = {name: n for name, (n, _) in shown.items() if n < DISTINCT}
    assert shown and not dead, f"these layers show fewer than {DISTINCT} words"
    same_everywhere(net, x[:1], reference.literal)


def test_parts_of_a_detector_become_what_they_become_by_themselves():
    whole = ssd().eval()
    names, x = ["backbone", "head"], torch.randn(2, 3, 128, 128)
    parts = settle(parts_of(whole, names, tuple(x.shape)), x)
    assert not whole.load_state_dict(parts.state_dict()).missing_keys
    net, alone = fs.convert(whole, x, outputs=names), fs.convert(parts, x)
    found, expected = net(x), alone(x)
    assert set(found) == {"backbone", "head"}
    assert set(found["head"]) == {"bbox_regression", "cls_logits"}
    assert found["head"]["cls_logits"].shape[2] == 3
    assert same_tree(found, expected)
    with torch.no_grad():
        theirs = whole.backbone(x)
    for name in "012":  # the others are of few pixels, where batch norm enlarges what differs
        error = (found["backbone"][name] - theirs[name]).norm() / theirs[name].norm()
        assert error < 0.2, name
