"""Risk: reports call layers as nobody does, two nodes share a name, or one hides an attribute."""

import re

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx_models.cases import array, assert_same, model
from torch import nn

import fskernel as fs
from fskernel.onnx_files import names


def paths(*nodes):
    """Of nodes (name, operator, weight or nothing)."""
    made = [helper.make_node(op, ["x", *weight], ["y"], name=name) for name, op, *weight in nodes]
    return names.paths(names.spelt(made), [node.op_type for node in made])


@pytest.mark.parametrize(
    "nodes, wanted",
    [
        # torch, also of old, when the parts of a sequence were spelt out
        ([("/layer1/0/conv1/Conv", "Conv")], ["layer1.0.conv1"]),
        ([("/layer1/layer1.0/conv1/Conv", "Conv")], ["layer1.0.conv1"]),
        ([("/features/features.1/conv/conv.0/conv.0.0/Conv", "Conv")], ["features.1.conv.0.0"]),
        ([("/body/relu_1/Relu_3", "Relu")], ["body.relu_1"]),
        ([("Conv_0", "Conv")], ["Conv_0"]),
        ([("Conv_0", "Conv", "layer1.0.conv1.weight")], ["layer1.0.conv1"]),
        ([("node_conv2d_3", "Conv", "stem.weight")], ["stem"]),
        ([("/stem/Conv", "Conv", "elsewhere.weight")], ["stem"]),
        ([("Gemm_7", "Gemm", "onnx::Gemm_21")], ["Gemm_7"]),
        # TensorFlow
        ([("StatefulPartitionedCall/net/conv1/Conv2D__6", "Conv")],
         ["StatefulPartitionedCall.net.conv1.Conv2D__6"]),
        ([("net/relu/Relu", "Relu")], ["net.relu"]),
        # the operator stays where there is more in the same place
        ([("/fc/MatMul", "MatMul"), ("/fc/Add", "Add")], ["fc.MatMul", "fc.Add"]),
        ([("/block/Relu", "Relu"), ("/block/conv/Conv", "Conv")], ["block.Relu", "block.conv"]),
        ([("/fc/Gemm", "Gemm"), ("fc", "Relu")], ["fc.Gemm", "fc_2"]),
        # without a name
        ([("", "Conv"), ("", "Relu"), ("", "Conv")], ["Conv_0", "Relu_0", "Conv_1"]),
        ([("//", "Add"), ("/ /.", "Add")], ["Add_0", "_"]),
        # twice, inside another, and around another
        ([("a", "Relu"), ("a", "Neg"), ("a", "Exp")], ["a", "a_2", "a_3"]),
        ([("a", "Relu"), ("a/b/c", "Neg")], ["a", "a_.b.c"]),
        ([("a/b/c", "Neg"), ("a/b", "Relu"), ("a", "Exp")], ["a.b.c", "a.b_2", "a_2"]),
        # what a module has already
        ([("forward/x", "Relu"), ("train", "Neg"), ("a/half", "Neg"), ("inputs", "Neg")],
         ["forward_.x", "train_", "a.half_", "inputs_"]),
        ([("a b:0/c-d", "Relu"), ("größe", "Neg")], ["a_b_0.c_d", "gr__e"]),
    ],
)  # fmt: skip
def test_paths(nodes, wanted):
    assert paths(*nodes) == wanted


def scoped(operator, *scopes, name="node_7", weight="weight"):
    node = helper.make_node(operator, ["x", weight], ["y"], name=name)
    note = onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=str(list(scopes)))
    node.metadata_props.append(note)
    return node


def test_the_modules_that_torch_has_noted():
    """The new exporter names nodes by numbers."""
    nodes = [
        scoped(
            "Conv", "", "layer1", "layer1.0", "layer1.0.bn1", "x", weight="layer1.0.conv1.weight"
        ),
        scoped("BatchNormalization", "", "norm", "batch", weight="layer1.0.norm.weight"),
        scoped("Relu", "", "layer1", "layer1.0", "layer1.0.relu", "relu"),
        scoped("Conv", "", "layer1", "layer1.0", "layer1.0.conv2", "conv2d_4"),
        scoped("Add", "", "layer1", "layer1.0", "add_9"),
        scoped("Relu", "", "layer1", "layer1.0", "layer1.0.relu", "relu_1"),
        scoped("Flatten", "", "view"),
        scoped("Gemm", "", "fc", "addmm", name="/other/Gemm"),
        scoped("Neg"),
    ]
    assert names.paths(names.spelt(nodes), [node.op_type for node in nodes]) == [
        *("layer1.0.conv1", "norm", "layer1.0.relu.Relu", "layer1.0.conv2", "layer1.0.Add"),
        *("layer1.0.relu.Relu_2", "Flatten", "other", "Neg"),
    ]


SEGMENT = st.sampled_from(["a", "b", "a.b", "0", "Relu", "Relu_1", "relu", "training", "a_2", ""])
NAME = st.lists(SEGMENT, max_size=4).map("/".join)


@given(st.lists(NAME, min_size=1, max_size=9))
def test_whatever_the_names_every_node_has_a_module_of_its_own(spelt):
    values = [f"v{i}" for i in range(len(spelt) + 1)]
    nodes = [
        helper.make_node("Relu", [a], [b], name=name)
        for name, a, b in zip(spelt, values, values[1:])
    ]
    proto = model(nodes, {"v0": (2, 3)}, [values[-1]])
    network = fs.from_onnx(proto)
    relus = [name for name, m in network.named_modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == len(spelt)
    assert all(re.fullmatch(r"\w+(\.\w+)*", name) for name in relus)
    assert relus == [n for n, _ in fs.from_onnx(proto).named_modules() if n in set(relus)]
    x = torch.from_numpy(array(2, 3))
    assert torch.equal(network(x), x.relu())


def test_nodes_of_constants_and_sizes_take_no_names():
    nodes = [
        helper.make_node("Constant", [], ["zero"], name="/act/Constant", value_float=0.0),
        helper.make_node("Constant", [], ["six"], name="/act/Constant_1", value_float=6.0),
        helper.make_node("Clip", ["x", "zero", "six"], ["a"], name="/act/Clip"),
        helper.make_node("Shape", ["a"], ["s"], name="/flat/Shape"),
        helper.make_node("Reshape", ["a", "s"], ["y"], name="/flat/Reshape"),
    ]
    network = assert_same(model(nodes, {"x": (2, 3)}, ["y"], opset=13), array(2, 3))
    assert [n for n, m in network.named_modules() if n] == ["act", "flat"]
    assert type(network.act) is nn.ReLU6
