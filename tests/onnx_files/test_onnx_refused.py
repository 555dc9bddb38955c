"""Risk: a file that cannot be read gives a wrong network, or an error that helps nobody."""

import sys

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models.cases import array, exported, model, one, value_info
from torch import nn

import fskernel as fs
from fskernel import ConversionError

MAP = {"x": ("n", 6, "h", "w")}
KERNEL = array(4, 6, 3, 3)


def node(operator, reads, writes="y", **attributes):
    return helper.make_node(operator, reads.split(), writes.split(), name="/a/b/Node", **attributes)


def norm(opset, outputs="y", **attributes):
    weights = {n: np.abs(array(6)) for n in "sbmv"}
    written = node("BatchNormalization", "x s b m v", outputs, **attributes)
    return model([written], MAP, ["y"], weights, opset)


def quantised():
    weights = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.uint8)}
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero"),
    ]
    return model(nodes, MAP, ["y"], weights)


def of_runtime():
    proto = model([node("Relu", "x")], MAP, ["y"])
    proto.graph.node[0].domain = "com.microsoft"
    proto.graph.node[0].op_type = "FusedConv"
    return proto


def quantised_of_runtime():
    proto = of_runtime()
    proto.graph.node[0].op_type = "QLinearAdd"
    return proto


def branching():
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])], "branch", [], [value_info("z")]
    )
    written = node("If", "which", then_branch=branch, else_branch=branch)
    proto = model([written], {**MAP, "which": ()}, ["y"], which=TensorProto.BOOL)
    return proto


def sparse():
    proto = model([node("Relu", "x")], MAP, ["y"])
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    where = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [4]))
    return proto


def invented():
    proto = model([node("Relu", "x")], MAP, ["y"])
    proto.graph.node[0].op_type = "Relu9"
    return proto


def unsorted():
    nodes = [node("Relu", "z"), node("Neg", "x", "z")]
    proto = model(nodes[::-1], MAP, ["y"])
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def of_opset(version):
    proto = model([node("Relu", "x")], MAP, ["y"])
    proto.opset_import[0].version = version
    return proto


def constant():
    return model([node("Identity", "w")], MAP, ["y"], {"w": array(3)})


def no_input():
    return model([node("Identity", "w")], {}, ["y"], {"w": array(3)})


def moving_weights():
    return model([node("Conv", "x w")], {**MAP, "w": (4, 6, 3, 3)}, ["y"])


def random_numbers():
    nodes = [node("RandomNormal", "", "r", shape=[1]), node("Add", "x r")]
    return model(nodes, MAP, ["y"])


def far_away():
    proto = model([node("Conv", "x w")], MAP, ["y"], {"w": KERNEL})
    weight = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, "w.bin")
    weight.ClearField("raw_data")
    return proto


REFUSED = {
    "quantised": (quantised, "a.b.Node", "another grid", "Export the float network"),
    "QLinear": (quantised_of_runtime, "a.b.Node", "another grid", "float network"),
    "domain": (of_runtime, "a.b.Node", "domain 'com.microsoft'", "without the optimisations"),
    "If": (branching, "a.b.Node", "depends on the image", "inference"),
    "sparse": (sparse, "by_hand", "sparse", "dense"),
    "invented": (invented, "a.b.Node", "no operator Relu9", "docs/onnx.md"),
    "unread": (
        lambda: model([node("NonZero", "x")], MAP, ["y"]),
        "a.b.Node",
        "NonZero: this operator is not read",
        "docs/onnx.md",
    ),
    "endless": (
        lambda: model(
            [node("ConstantOfShape", "n", "z"), node("Add", "x z")],
            *(MAP, ["y"], {"n": np.array([2**20, 2**30])}),
        ),
        "a.b.Node",
        "a constant of 1,125,899,906,842,624 numbers",
        "again",
    ),
    "twice": (
        lambda: model([node("Neg", "x", "w"), node("Add", "x w")], MAP, ["y"], {"w": array(7)}),
        "a.b.Node",
        "Neg: it makes 'w' a second time",
        "again",
    ),
    "groups": (
        lambda: one("Conv", MAP, (KERNEL,), group=3, name="/a/b/Node"),
        "a.b.Node",
        "attributes or inputs do not fit .*divisible",
        "again",
    ),
    "random": (random_numbers, "a.b.Node", "RandomNormal: its numbers are random", "docs/onnx.md"),
    "unsorted": (unsorted, "a.b.Node", "nothing before it makes 'z'", "Export"),
    "attribute": (
        lambda: model([node("Relu", "x", slope=0.1)], MAP, ["y"]),
        "a.b.Node",
        "onnx finds it wrong .*slope",
        "Export",
    ),
    "opset 6": (lambda: of_opset(6), "by_hand", "opset 6; from 7 on", "convert_version"),
    "opset 999": (lambda: of_opset(999), "by_hand", "opset 999, and onnx", "Update"),
    "constant": (constant, "by_hand", "'y' does not depend on an input", "Export"),
    "no input": (no_input, "by_hand", "it has no input", "Export"),
    "far": (far_away, "by_hand", "'w' lies in another file", "onnx.load"),
    "weights": (moving_weights, "a.b.Node", "weight depends on the image", "constants"),
    "training 15": (lambda: norm(15, training_mode=1), "a.b.Node", "training mode", "eval mode"),
    "training 9": (lambda: norm(9, "y m2 v2 m3 v3"), "a.b.Node", "training mode", "eval mode"),
    "spatial": (lambda: norm(7, spatial=0), "a.b.Node", "every pixel's own", "spatial=1"),
    "dropout": (
        lambda: one("Dropout", MAP, (np.array(0.3, np.float32), np.array(True)), name="/a/b/Node"),
        "a.b.Node",
        "training mode",
        "eval mode",
    ),
    "mask": (
        lambda: one("Dropout", MAP, outputs=2, name="/a/b/Node"),
        "a.b.Node",
        "mask are read",
        "alone",
    ),
    "indices": (
        lambda: one("MaxPool", MAP, kernel_shape=[2, 2], outputs=2, name="/a/b/Node"),
        "a.b.Node",
        "indices are read",
        "alone",
    ),
    "negative pads": (
        lambda: one("Conv", MAP, (KERNEL,), pads=[0, -1, 0, 0], name="/a/b/Node"),
        "a.b.Node",
        "pads .* are negative",
        "Slice",
    ),
    "auto_pad": (
        lambda: one("Conv", MAP, (KERNEL,), auto_pad="SAME", name="/a/b/Node"),
        "a.b.Node",
        "auto_pad=SAME",
        "explicit",
    ),
    "kernel": (
        lambda: one("Conv", MAP, (KERNEL,), kernel_shape=[5, 3], name="/a/b/Node"),
        "a.b.Node",
        r"kernel_shape is \[5, 3\], and its weight's \[3, 3\]",
        "again",
    ),
    "strides": (
        lambda: one("Conv", MAP, (KERNEL,), strides=[1], name="/a/b/Node"),
        "a.b.Node",
        "do not fit a kernel of 2",
        "again",
    ),
    "dilated": (
        lambda: one(
            "AveragePool", MAP, kernel_shape=[2, 2], dilations=[2, 1], name="/a/b/Node"
        ),
        "a.b.Node",
        "window is dilated",
        "convolution",
    ),
    "backwards": (
        lambda: one(
            "Slice", MAP, [np.array([n]) for n in (-1, -99, 2, -1)], name="/a/b/Node"
        ),
        "a.b.Node",
        r"steps are \[-1\]",
        "positive",
    ),
    "last": (
        lambda: one("ArgMax", MAP, select_last_index=1, name="/a/b/Node"),
        "a.b.Node",
        "last of equal",
        "first",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", REFUSED)
def test_a_file_is_refused_by_name_reason_and_cure(which):
    make, name, reason, cure = REFUSED[which]
    with pytest.raises(ConversionError, match=reason) as error:
        fs.from_onnx(make())
    assert error.value.node == name and cure in error.value.cure


RESIZE = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}


@pytest.mark.parametrize(
    "attributes, scales, said",
    [
        (RESIZE, (1, 1, 2, 2), "linear, with the pixels at asymmetric"),
        ({"coordinate_transformation_mode": "align_corners"}, (1, 1, 2, 2), "at align_corners"),
        ({"coordinate_transformation_mode": "asymmetric"}, (1, 1, 2, 2), "round_prefer_floor"),
        ({}, (1, 1, 1.5, 2), "half pixels, rounded down"),
        ({"mode": "cubic", "cubic_coeff_a": -0.5}, (1, 1, 2, 2), "cubic_coeff_a is -0.5"),
        ({"mode": "linear", "antialias": 1}, (1, 1, 0.5, 0.5), "antialias is 1"),
        ({"mode": "linear", "exclude_outside": 1}, (1, 1, 2, 2), "exclude_outside is 1"),
        ({"mode": "linear"}, (1, 2, 2, 2), "other axes than those behind the channels"),
    ],
)
def test_resizing_that_torch_does_not_know(attributes, scales, said):
    constants = (None, np.array(scales, np.float32))
    with pytest.raises(ConversionError, match=said):
        fs.from_onnx(one("Resize", MAP, constants, opset=18, **attributes))


def test_upsampling_of_old_that_is_linear():
    scales = np.array([1, 1, 2, 2], np.float32)
    with pytest.raises(ConversionError, match="linear aligns the pixels"):
        fs.from_onnx(one("Upsample", MAP, (scales,), opset=9, mode="linear"))


# ---- files --------------------------------------------------------------------------------------


def test_paths_that_lead_nowhere_and_what_is_no_path():
    with pytest.raises(FileNotFoundError, match="nowhere/net.onnx: there is no such file"):
        fs.from_onnx("nowhere/net.onnx")
    with pytest.raises(TypeError, match="source is a int: expected the path"):
        fs.from_onnx(3)
    with pytest.raises(TypeError, match="source is a ReLU"):
        fs.from_onnx(nn.ReLU())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"# a text\n" * 40, b"\x00" * 99])
def test_files_that_are_no_onnx(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match="it is no ONNX file") as error:
        fs.from_onnx(path)
    assert error.value.node == "net.onnx" and "download" in error.value.cure


def test_names_that_are_no_text():
    """protobuf gives them as bytes."""
    whole = model([node("Relu", "x")], MAP, ["y"]).SerializeToString()
    damaged = onnx.ModelProto.FromString(whole.replace(b"/a/b/Node", b"/a/\xffb/Nod"))
    with pytest.raises(ConversionError, match="names that are no text"):
        fs.from_onnx(damaged)


def test_a_file_that_was_cut_short(tmp_path):
    path = tmp_path / "net.onnx"
    whole = model([node("Conv", "x w")], MAP, ["y"], {"w": KERNEL}).SerializeToString()
    for part in (1, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        with pytest.raises(ConversionError):
            fs.from_onnx(path)
    path.write_bytes(whole)
    fs.from_onnx(path)


def of_many_parts():
    """Constants, sizes, attributes of all kinds."""
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s two four", "map"),
        node("Mul", "map two", "to"),
        node("Conv", "x w", "c", auto_pad="SAME_UPPER", strides=[2, 1]),
        node("Clip", "c least", "r"),
        node("Concat", "two four map", "sizes", axis=0),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], pads=[0, 1, 1, 0]),
        helper.make_node("Resize", ["p", "", "scales"], ["y"], mode="linear", name="/up/Resize"),
        node("Reshape", "y sizes", "z"),
    ]
    weights = {"two": np.array([2]), "four": np.array([4]), "w": KERNEL}
    weights |= {"least": np.float32(0), "scales": np.array([1, 1, 2, 2], np.float32)}
    return model(nodes, MAP, ["y", "z"], weights, 17)


WHOLE = of_many_parts().SerializeToString()


@example([])
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4))
def test_whatever_bytes_are_damaged_the_file_is_read_or_refused(changes):
    content = bytearray(WHOLE)
    for at, byte in changes:
        content[at] = byte
    try:
        proto = onnx.ModelProto.FromString(bytes(content))
    except Exception:  # of protobuf: see test_files_that_are_no_onnx
        return
    try:
        fs.from_onnx(proto)
    except ConversionError as error:
        assert changes and error.reason and error.cure


@pytest.mark.parametrize("fault", ["missing", "short", "outside"])
def test_weights_that_cannot_be_reached(tmp_path, fault):
    proto = far_away()
    folder = tmp_path / "inside"
    folder.mkdir()
    weights = KERNEL.tobytes()
    where = tmp_path / "w.bin" if fault == "outside" else folder / "w.bin"
    if fault != "missing":
        where.write_bytes(weights[:-4] if fault == "short" else weights)
    if fault == "outside":
        proto.graph.initializer[0].external_data[0].value = "../w.bin"
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    said = "'w': .*cannot reshape" if fault == "short" else "weight 'w' cannot be read from .*w.bin"
    with pytest.raises(ConversionError, match=said):
        fs.from_onnx(folder / "net.onnx")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        fs.from_onnx("net.onnx")


class Detached(nn.Module):
    example = (3, 8, 8)

    def forward(self, x):
        return x[:, :2] * 2


def test_what_is_read_is_left_as_it_is():
    proto = exported(Detached)
    before = proto.SerializeToString()
    fs.from_onnx(proto)
    assert proto.SerializeToString() == before
