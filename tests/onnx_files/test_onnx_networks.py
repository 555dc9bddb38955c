"""Risk: a whole network, as torch or TensorFlow writes it, answers otherwise than its runtime."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import torchvision
from onnx import helper
from onnx_models.cases import AUTO, array, assert_any_size, assert_same, exported, model
from torch import nn

import fskernel as fs

models = torchvision.models


class Segmenting(nn.Module):
    """Maps of two depths, upsampled to each other's and to the image's size."""

    example = (3, 40, 56)

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU6())
        self.head = nn.Conv2d(20, 5, 1)
        self.turn = nn.ConvTranspose2d(5, 5, 3, 2, 1, 1)

    def forward(self, x):
        y = self.down(x)
        z = F.interpolate(self.deep(y), y.shape[2:], mode="bilinear", align_corners=False)
        z = self.turn(self.head(torch.cat([y, z], 1)))
        return F.interpolate(z, x.shape[2:], mode="nearest")


class Sequence(nn.Module):
    """Convolutions over one axis."""

    example = (4, 50)

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(4, 8, 5, 2, 2),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.MaxPool1d(3, 2),
            nn.ReflectionPad1d((2, 1)),
            nn.Conv1d(8, 6, 3, dilation=2, groups=2),
            nn.PReLU(6),
            nn.AvgPool1d(2, ceil_mode=True),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        y = self.body(x)
        return self.head(y.mean(2)), y


class Perceptron(nn.Module):
    example = (3, 6, 5)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(90, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 4))

    def forward(self, x):
        return self.layers(x.view(x.size(0), -1))


class Odd(nn.Module):
    """What exporters write in many nodes: padding, parts of maps, a shuffle, gates, a mean."""

    example = (3, 21, 30)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect", bias=False)
        self.norm = nn.GroupNorm(4, 8)
        self.gate = nn.Linear(8, 8)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x):
        x = F.pad(self.conv(x), (1, 2, 0, 3))
        a, b = x.chunk(2, 1)
        n, c, h, w = x.shape
        y = torch.cat([a, F.hardswish(b)], 1).view(n, 2, c // 2, h, w).transpose(1, 2)
        y = self.norm(y.reshape(n, c, h, w))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        y = self.shuffle(y[:, :, 1:, :-2])
        return F.avg_pool2d(y, 3, 2, 1) - F.max_pool2d(y, 3, 2, 1)


def _of(make, *shape):
    """A network of torchvision with an example and batch norms that do something."""

    def made():
        torch.manual_seed(3)
        module = make()
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.3)
                m.running_var.uniform_(0.5, 2)
        module.example = shape
        return module

    return made


def resnet():
    return models.ResNet(models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=10, width_per_group=64)


NETWORKS = {
    "resnet": _of(resnet, 3, 64, 80),
    "mobilenet_v2": _of(lambda: models.mobilenet_v2(width_mult=0.25, num_classes=7), 3, 64, 48),
    "densenet": _of(lambda: models.DenseNet(8, (2, 3), 16, num_classes=7), 3, 64, 64),
    "squeezenet": _of(lambda: models.squeezenet1_1(num_classes=9), 3, 64, 70),
    "shufflenet": _of(lambda: models.shufflenet_v2_x0_5(num_classes=5), 3, 64, 64),
    "segmenting": Segmenting,
    "sequence": Sequence,
    "perceptron": Perceptron,
    "odd": Odd,
}
WITH_HEADS_FOR_ANY_SIZE = [n for n in NETWORKS if n not in ("sequence", "perceptron")]


def seeded(name):
    torch.manual_seed(5)
    return NETWORKS[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("opset", [11, 17])
def test_networks_that_torch_wrote(name, opset):
    make = seeded(name)
    example = make().example
    proto = exported(make, opset)
    assert_same(proto, array(2, *example))
    assert_same(proto, array(3, *example, seed=1))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_networks_of_torchs_new_exporter(name):
    pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")
    module = seeded(name)().eval()
    example = torch.zeros(2, *module.example)
    sizes = {0: AUTO} | {axis: AUTO for axis in range(2, example.dim())}
    program = torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=(sizes,))
    network = assert_same(program.model_proto, array(3, *module.example))
    layers = {n for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    found = {n for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert {n.removesuffix(".Conv") for n in found} == layers


@pytest.mark.parametrize("name", WITH_HEADS_FOR_ANY_SIZE)
def test_networks_stay_open_to_other_sizes(name):
    make = seeded(name)
    c, h, w = make().example
    proto = exported(make)
    network = assert_same(proto, array(2, c, h + 5, w + 2))
    first, *others = (torch.randn(n, c, h + d, w + e) for n, d, e in ((2, 0, 0), (3, 6, 9)))
    assert_any_size(network, first, *others)


def test_weights_that_the_exporter_did_not_fold():
    """Batch norms by themselves, transposed weights of linear layers, shapes made of constants."""
    make = seeded("resnet")
    options = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    network = assert_same(exported(make, 11, **options), array(2, *make().example))
    assert type(network.layer1.get_submodule("0.bn1")) is nn.BatchNorm2d


def test_names_are_those_of_the_module():
    """Of every layer with weights, and the weights are the module's, too."""
    make = seeded("squeezenet")
    module, network = make(), fs.from_onnx(exported(make))
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Conv2d)}
    assert len(layers) == 26
    for name, layer in layers.items():
        found = network.get_submodule(name)
        assert type(found) is nn.Conv2d and torch.equal(found.weight, layer.weight)


# ---- as tf2onnx writes it -----------------------------------------------------------------------


def tensorflow_like():
    """Channels last but in convolutions, SAME pads, a Pad node, Relu6 as a Clip, a dense layer."""
    weights = {
        "stem": array(8, 3, 3, 3),
        "depthwise": array(8, 1, 3, 3, seed=1),
        "point": array(12, 8, 1, 1, seed=2),
        **{f"bn{i}": array(n, seed=i) for n, i in ((8, 3), (8, 4), (8, 5), (12, 6))},
        "variance": np.abs(array(8, seed=7)) + 0.5,
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "pads": np.array([0, 0, 0, 0, 0, 1, 1, 0], np.int64),
        "kernel": array(12, 5, seed=8),
        "bias": array(5, seed=9),
    }

    def node(operator, reads, writes, name, **attributes):
        name = f"StatefulPartitionedCall/net/{name}"
        return helper.make_node(operator, reads.split(), [writes], name=name, **attributes)

    nodes = [
        node("Transpose", "image", "nchw", "stem/Conv2D__5", perm=[0, 3, 1, 2]),
        node("Conv", "nchw stem", "a", "stem/Conv2D", strides=[2, 2], auto_pad="SAME_UPPER"),
        node("BatchNormalization", "a bn3 bn4 bn5 variance", "b", "bn/FusedBatchNormV3"),
        node("Clip", "b zero six", "c", "relu/Relu6"),
        node("Transpose", "c", "c_nhwc", "pad__7", perm=[0, 2, 3, 1]),
        node("Pad", "c_nhwc pads", "padded", "pad/Pad"),
        node("Transpose", "padded", "d", "depthwise__9", perm=[0, 3, 1, 2]),
        node("Conv", "d depthwise", "e", "depthwise/depthwise", strides=[2, 2], group=8),
        node("Relu", "e", "f", "relu_1/Relu"),
        node("Conv", "f point bn6", "g", "point/Conv2D", auto_pad="SAME_UPPER"),
        node("MaxPool", "g", "h", "pool/MaxPool", kernel_shape=[3, 3], strides=[2, 2],
             auto_pad="SAME_UPPER"),
        node("Transpose", "h", "h_nhwc", "mean__11", perm=[0, 2, 3, 1]),
        node("ReduceMean", "h_nhwc", "mean", "mean/Mean", axes=[1, 2], keepdims=0),
        node("MatMul", "mean kernel", "dense", "dense/MatMul"),
        node("Add", "dense bias", "logits", "dense/BiasAdd"),
    ]  # fmt: skip
    return model(nodes, {"image": ("n", "h", "w", 3)}, ["logits"], weights, opset=13)


@pytest.mark.parametrize("size", [(32, 32), (33, 40), (47, 31)])
def test_a_network_of_tensorflow(size):
    network = assert_same(tensorflow_like(), array(2, *size, 3))
    names = dict(network.named_modules())
    assert type(names["StatefulPartitionedCall.net.point.Conv2D"]) is nn.Conv2d
    assert type(names["StatefulPartitionedCall.net.relu.Relu6"]) is nn.ReLU6
    assert names["StatefulPartitionedCall.net.dense"].bias is not None


@pytest.mark.parametrize(
    "layer, weight, bias, merged",
    [
        ("MatMul", (6, 4), (4,), True),
        ("MatMul", (6, 4), (1, 4), True),
        ("MatMul", (6, 4), (1, 1, 4), False),  # the Add adds a dimension, too
        ("MatMul", (6, 4), (1,), False),
        ("Conv", (4, 6, 1, 1), (4, 1, 1), True),
        ("Conv", (4, 6, 1, 1), (1, 4, 1, 1), True),
        ("Conv", (4, 6, 1, 1), (4,), False),  # along the columns
        ("Conv", (4, 6, 1, 1), (4, 1, 4), False),
        ("ConvTranspose", (6, 4, 2, 2), (4, 1, 1), True),
        ("Gemm", (6, 4), (4,), False),  # has a place for its bias
    ],
)
@pytest.mark.parametrize("bias_first", [False, True])
def test_an_addition_behind_a_layer_is_its_bias(layer, weight, bias, merged, bias_first):
    reads = ["b", "h"] if bias_first else ["h", "b"]
    nodes = [
        helper.make_node(layer, ["x", "w"], ["h"], name="layer"),
        helper.make_node("Add", reads, ["y"], name="sum"),
    ]
    shape = ("n", 6, "h", 4) if len(weight) == 4 else ("n", 6)
    proto = model(nodes, {"x": shape}, ["y"], {"w": array(*weight), "b": array(*bias)})
    network = assert_same(proto, array(2, *(6, 4, 4)[: len(shape) - 1]))
    assert hasattr(network, "sum") != merged and (network.layer.bias is not None) == merged


def test_an_addition_that_others_read_around_stays():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["s"]),
        helper.make_node("Mul", ["h", "s"], ["y"]),
    ]
    weights = {"w": array(6, 4), "b": array(4)}
    assert_same(model(nodes, {"x": ("n", 6)}, ["y"], weights), array(2, 6))
    assert_same(model(nodes[:2], {"x": ("n", 6)}, ["s", "h"], weights), array(2, 6))


# ---- inputs and outputs -------------------------------------------------------------------------


def test_several_inputs_and_outputs_keep_their_order():
    nodes = [
        helper.make_node("Add", ["b", "a"], ["sum"]),
        helper.make_node("Sub", ["b", "a"], ["difference"]),
    ]
    proto = model(nodes, {"b": (2, 3), "a": (2, 3)}, ["sum", "difference"])
    network = assert_same(proto, array(2, 3), array(2, 3, seed=1))
    assert network.inputs == ("b", "a") and network.outputs == ("sum", "difference")
    assert isinstance(network(torch.zeros(2, 3), torch.zeros(2, 3)), tuple)
    with pytest.raises(ValueError, match=r"1 input\(s\) were given: the file has 2, b, a"):
        network(torch.zeros(2, 3))


def test_weights_that_are_listed_as_inputs_are_weights():
    """As files were written before IR version 4."""
    proto = model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        {"x": ("n", 3, 8, 9), "w": (4, 3, 3, 3)},
        ["y"],
        {"w": array(4, 3, 3, 3)},
        opset=8,
    )
    proto.ir_version = 3
    network = assert_same(proto, array(2, 3, 8, 9))
    assert network.inputs == ("x",) and type(network.conv) is nn.Conv2d


def test_functions_of_the_file_are_part_of_it():
    inner = [
        helper.make_node("Conv", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    function = helper.make_function(
        "local", "Block", ["x", "w"], ["y"], inner, [helper.make_opsetid("", 18)]
    )
    call = helper.make_node("Block", ["x", "w"], ["y"], domain="local")
    proto = model([], {"x": ("n", 3, 8, 9)}, [], {"w": array(4, 3, 3, 3)}, opset=18)
    proto.graph.node.append(call)
    proto.graph.output.append(helper.make_tensor_value_info("y", 1, ("n", 4, 6, 7)))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.append(function)
    assert_same(proto, array(2, 3, 8, 9))


def test_what_no_output_needs_is_no_reason_to_refuse_it():
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    network = assert_same(model(nodes, {"x": (2, 3)}, ["y"]), array(2, 3))
    assert [type(m) for m in network.children()] == [nn.ReLU]


def test_weights_in_a_file_of_their_own(tmp_path):
    make = seeded("mobilenet_v2")
    proto = exported(make)
    x = torch.from_numpy(array(2, *make().example))
    wanted = fs.from_onnx(proto)(x)
    path = tmp_path / "net.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, path, save_as_external_data=True, location="net.weights")
    assert (tmp_path / "net.weights").stat().st_size > path.stat().st_size
    assert torch.equal(fs.from_onnx(str(path))(x), wanted)


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_types_of_weights_are_kept(kind):
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="gemm"),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    weights = {"w": array(4, 5).astype(kind)}
    proto = model(nodes, {"x": ("n", 4)}, ["y"], weights, opset=13, x=dtype)
    network = fs.from_onnx(proto)
    assert network.gemm.weight.dtype == torch.from_numpy(weights["w"]).dtype
    x = array(3, 4).astype(kind)
    wanted = np.maximum(x.astype(np.float64) @ weights["w"], 0)
    assert np.allclose(network(torch.from_numpy(x)).detach().numpy(), wanted, atol=1e-2)


def test_the_module_can_be_copied_stored_and_moved_to_other_types(tmp_path):
    make = seeded("odd")
    network = fs.from_onnx(exported(make))
    assert not network.training
    x = torch.from_numpy(array(2, *make().example))
    torch.save(network, tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    assert torch.equal(again(x), network(x))
    state = network.state_dict()
    again.load_state_dict(state, strict=True)
    exact = again.double()(x.double())
    assert exact.dtype == torch.float64
    assert torch.allclose(exact.float(), network(x), atol=1e-5)
