"""Risk: a published architecture becomes another network, or is refused without saying why."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from networks import OptionAResNet, same_everywhere, settle
from torch.overrides import TorchFunctionMode
from torchvision import models
from traced import same_function

import fskernel as fs
from fskernel import reference
from fskernel.tracing.trace import trace

RELUS = (F.relu, F.relu6, F.hardtanh, torch.relu, torch.relu_, torch.Tensor.relu_)


class CountReLUs(TorchFunctionMode):
    """Outputs of all ReLUs that run meanwhile, for one image."""

    outputs = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        if function in RELUS:
            self.outputs += y[0].numel()
        return y


def lite(i):
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch"
    )
    return package.EfficientNet.from_name(f"efficientnet-lite{i}")


def timm(name):
    return pytest.importorskip("timm", reason="pip install timm").create_model(name)


def narrow_vgg():
    """VGG16 with batch norm, adaptive pool and three linear layers, an eighth as wide."""
    widths = [w if w == "M" else w // 8 for w in models.vgg.cfgs["D"]]
    net = models.VGG(models.vgg.make_layers(widths, batch_norm=True), num_classes=11)
    net.classifier[0] = torch.nn.Linear(64 * 7 * 7, 64)
    net.classifier[3], net.classifier[6] = torch.nn.Linear(64, 50), torch.nn.Linear(50, 11)
    return net


def case(name, build, size, slow=False):
    return pytest.param(build, size, id=name, marks=[pytest.mark.slow] if slow else [])


NETWORKS = [
    case("resnext50_32x4d", models.resnext50_32x4d, (33, 40), slow=True),
    case("wide_resnet50_2", models.wide_resnet50_2, (33, 40), slow=True),
    case("vgg16_bn narrow", narrow_vgg, (224, 224), slow=True),
    case("vgg16_bn", models.vgg16_bn, (224, 224), slow=True),
    case("mobilenet_v2", models.mobilenet_v2, (33, 40)),
    case("mnasnet0_5", models.mnasnet0_5, (33, 40), slow=True),
    case("googlenet", partial(models.googlenet, init_weights=False), (33, 40), slow=True),
    case(
        "inception_v3",
        partial(models.inception_v3, init_weights=False, aux_logits=False),
        (75, 80),
        slow=True,
    ),
    case("densenet, small", partial(models.DenseNet, 8, (2, 3), 13, 2), (33, 40)),
    case("densenet121", models.densenet121, (33, 40), slow=True),
    case("shufflenet_v2_x0_5", models.shufflenet_v2_x0_5, (33, 40)),
    case("squeezenet1_1", models.squeezenet1_1, (33, 40), slow=True),
    case("regnet_x_400mf", models.regnet_x_400mf, (33, 40), slow=True),
    case("efficientnet-lite0", partial(lite, 0), (33, 40), slow=True),
    case("efficientnet-lite1", partial(lite, 1), (33, 40), slow=True),
    case("efficientnet-lite2", partial(lite, 2), (33, 40), slow=True),
    case("CIFAR ResNet-20, option A", OptionAResNet, (32, 32)),
    *(
        case(f"timm {name}", partial(timm, name), (96, 128), slow)
        for name, slow in [
            ("resnet10t", False), ("resnet18", True), ("resnet26d", True), ("resnet34", True),
            ("resnet50", True), ("resnet50d", True), ("resnetaa50", True), ("resnetv2_50", True),
            ("dla34", True), ("repvgg_a0", True), ("regnetx_002", True), ("densenet121", True),
            ("efficientnet_lite0", True), ("mobilenetv2_050", True), ("inception_v3", True),
            ("gernet_s", True), ("vovnet39a", True),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize("build,size", NETWORKS)
def test_it_is_the_same_function_and_every_word_is_the_literal_networks(build, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(4))
    module = settle(build(), x)
    with torch.no_grad(), CountReLUs() as relus:
        ann = module(x[:1])
    graph = trace(module, tuple(x.shape))
    with torch.no_grad():
        expected = module.double()(x.double())
    assert (graph.forward(x.double()) - expected).abs().max() <= 1e-9 * expected.abs().max()
    net = fs.convert(graph, x)
    assert net.neurons == relus.outputs and net(x[:1]).shape == ann.shape
    same_everywhere(net, x[:1] * 0.8, reference.literal)
    linear = [s.name for s in net.steps if s.op == "conv" and s.code.K == 0]
    if linear:
        net = fs.convert(graph, x, bottleneck="spiking")
        assert [s.name for s in net.steps if s.op == "conv" and s.code.zero] == linear
        same_everywhere(net, x[:1] * 0.8, reference.literal)


CUT = {  # the same architectures of a few blocks
    "vit_b_16": lambda: models.VisionTransformer(64, 16, 1, 2, 32, 32),
    "swin_t": lambda: models.SwinTransformer([4, 4], 32, [1, 1], [2, 2], [7, 7]),
    "convnext_tiny": lambda: models.ConvNeXt(
        [models.convnext.CNBlockConfig(32, 64, 1), models.convnext.CNBlockConfig(64, None, 1)]
    ),
}


@pytest.mark.parametrize("cut", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name,node,reason,cure",
    [
        ("vit_b_16", "encoder.layers.encoder_layer_0.self_attention", "attention", "convolutional"),
        ("swin_t", "features.1.0.attn", "ShiftedWindowAttention: attention", "convolutional"),
        ("convnext_tiny", "features.0.1", "LayerNorm2d.*statistics of the image", "batch norm"),
    ],
)
def test_what_has_no_few_spikes_form_is_refused_with_reason_and_cure(name, node, reason, cure, cut):
    net, size = (CUT[name](), 64) if cut else (models.get_model(name, weights=None), 224)
    with pytest.raises(fs.ConversionError, match=reason) as error:
        trace(net, (1, 3, size, size))
    assert error.value.node == node
    with pytest.raises(fs.ConversionError, match=cure):
        raise error.value


def test_a_transform_of_the_image_is_folded_into_what_reads_it():
    """It takes channels apart, scales each and puts them together again."""
    x = torch.randn(2, 3, 33, 40)
    module = models.GoogLeNet(7, aux_logits=False, transform_input=True, init_weights=False)
    for name in ("3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):  # one block is enough
        setattr(module, f"inception{name}", torch.nn.Identity())
    module.fc = torch.nn.Linear(256, 7)
    same_function(settle(module, x), x)
