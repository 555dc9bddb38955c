"""Risk: sizes that the file computes from the image become constants, so that another size, or
another number of images, gives a wrong answer or none."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_models.cases import ANY_SIZE, array, assert_any_size, assert_same, model, run

import fskernel as fs
from fskernel import ConversionError

SIZES = ((2, 6, 8, 12), (3, 6, 10, 7), (1, 6, 9, 9))


def node(operator, reads, writes, **attributes):
    return helper.make_node(operator, reads.split(), writes.split(), **attributes)


def i64(*numbers):
    return np.array(numbers, np.int64)


def check(nodes, weights, opset=17, sizes=SIZES):
    """Equal to the runtime at several sizes, and so is what torch.export makes of one."""
    proto = model(nodes, {"x": ("n", "c", "h", "w")}, ["y"], weights, opset)
    network = [assert_same(proto, array(*size)) for size in sizes][0]
    assert_any_size(network, *(torch.from_numpy(array(*size)) for size in sizes))
    assert not {type(m).__name__ for m in network.modules()} & {"Shape"}
    return network


def test_flattening_by_computed_shapes():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 rest", "shape", axis=0),
        node("Reshape", "x shape", "y"),
    ]
    check(nodes, {"zero": np.array(0), "axis": i64(0), "rest": i64(-1)})


def test_a_channel_shuffle():
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s from2 to4", "map"),
        node("Slice", "s from0 to1", "n"),
        node("Gather", "s one", "c"),
        node("Div", "c three", "per"),
        node("Unsqueeze", "per from0", "per1"),
        node("Concat", "n three1 per1 map", "split", axis=0),
        node("Reshape", "x split", "apart"),
        node("Transpose", "apart", "turned", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "turned s", "y"),
    ]
    weights = {"from2": i64(2), "to4": i64(4), "from0": i64(0), "to1": i64(1)}
    check(nodes, {**weights, "one": np.array(1), "three": np.array(3), "three1": i64(3)})


def test_upsampling_to_the_size_of_another_map():
    """As in segmentation networks: the size of one map, the channels of the other."""
    kernel = array(4, 6, 3, 3)
    nodes = [
        node("Conv", "x kernel", "small", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Shape", "small", "s_small"),
        node("Shape", "x", "s"),
        node("Slice", "s_small zero two", "head"),
        node("Slice", "s two four", "tail"),
        node("Concat", "head tail", "to", axis=0),
        helper.make_node("Resize", ["small", "", "", "to"], ["up"], mode="linear"),
        node("Concat", "up x", "y", axis=1),
    ]
    check(nodes, {"kernel": kernel, "zero": i64(0), "two": i64(2), "four": i64(4)})


def test_upsampling_by_computed_scales():
    nodes = [
        node("Shape", "x", "s", start=2),
        node("Cast", "s", "f", to=TensorProto.FLOAT),
        node("Mul", "f twice", "doubled"),
        node("Div", "doubled f", "ratio"),
        node("Concat", "ones ratio", "scales", axis=0),
        helper.make_node(
            "Resize", ["x", "", "scales"], ["y"], mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
    ]  # fmt: skip
    weights = {"twice": np.array([2.0, 3.0], np.float32), "ones": np.ones(2, np.float32)}
    check(nodes, weights)


def test_sizes_through_floats_and_back():
    """Halves, rounded down and up, as the exporters of old cut maps."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s three", "w"),
        node("Cast", "w", "wf", to=TensorProto.FLOAT),
        node("Mul", "wf half", "middle"),
        node("Floor", "middle", "down"),
        node("Ceil", "middle", "up"),
        node("Cast", "down", "low", to=TensorProto.INT64),
        node("Cast", "up", "high", to=TensorProto.INT64),
        node("Sub", "high low", "odd"),
        node("Add", "low odd", "end"),
        node("Max", "end one", "least"),
        node("Unsqueeze", "least axis", "ends"),
        node("Slice", "x axis ends axes", "y"),
    ]
    weights = {"three": np.array(3), "one": np.array(1), "axis": i64(0), "axes": i64(3)}
    check(nodes, {**weights, "half": np.array(0.5, np.float32)})


def test_expanding_as_torch_writes_it():
    """-1 keeps a size: ConstantOfShape, Mul, Equal and Where on the target."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s two", "h"),
        node("Gather", "s three", "w"),
        node("Unsqueeze", "h zero", "h1"),
        node("Unsqueeze", "w zero", "w1"),
        node("Concat", "minus minus h1 w1", "asked", axis=0),
        node("Shape", "asked", "length"),
        node("ConstantOfShape", "length", "ones", value=numpy_helper.from_array(i64(1))),
        node("Mul", "ones scalar", "negative"),
        node("Equal", "asked negative", "is_kept"),
        node("Where", "is_kept ones asked", "shape"),
        node("ReduceMean", "x", "mean", axes=[2, 3]),
        node("Expand", "mean shape", "y"),
    ]
    weights = {"two": np.array(2), "three": np.array(3), "zero": i64(0)}
    check(nodes, {**weights, "minus": i64(-1), "scalar": np.array(-1)})


def test_zeros_of_a_computed_shape_and_arithmetic_with_sizes():
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "zeros"),
        node("Size", "x", "many"),
        node("Cast", "many", "manyf", to=TensorProto.FLOAT),
        node("Sqrt", "manyf", "root"),
        node("Mul", "x root", "scaled"),
        node("Add", "scaled zeros", "y"),
    ]
    check(nodes, {}, sizes=SIZES[:2])


def test_rows_by_a_product_of_sizes():
    nodes = [
        node("Shape", "x", "s", start=0, end=2),
        node("ReduceProd", "s", "rows", keepdims=1),
        node("Concat", "rows rest", "shape", axis=0),
        node("Reshape", "x shape", "flat"),
        node("Squeeze", "rows", "scalar"),
        node("Neg", "scalar", "negative"),
        node("Cast", "negative", "f", to=TensorProto.FLOAT),
        node("Add", "flat f", "y"),
    ]
    check(nodes, {"rest": i64(-1)}, sizes=SIZES[:2])


def test_padding_to_a_multiple():
    """The amount depends on the size; what is cut off again does, too."""
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s two four", "map"),
        node("Add", "map seven", "more"),
        node("Div", "more eight", "blocks"),
        node("Mul", "blocks eight", "whole"),
        node("Sub", "whole map", "end"),
        node("Concat", "none end", "pads", axis=0),
        node("Pad", "x pads", "padded"),
        node("AveragePool", "padded", "y", kernel_shape=[8, 8], strides=[8, 8]),
    ]
    weights = {"two": i64(2), "four": i64(4), "seven": i64(7), "eight": i64(8)}
    sizes = ((2, 6, 18, 21), (3, 6, 25, 30), (1, 6, 17, 55))
    check(nodes, {**weights, "none": i64(0, 0, 0, 0, 0, 0)}, sizes=sizes)


def test_a_file_of_one_image_takes_several():
    """The number of images stands in the file as a constant: torch writes it so unless told."""
    proto = model(
        [node("Relu", "x", "r"), node("Reshape", "r shape", "flat"), node("Gemm", "flat w", "y")],
        {"x": (1, 3, 4, 5)},
        ["y"],
        {"shape": i64(1, -1), "w": array(60, 7)},
    )
    network = assert_same(proto, array(1, 3, 4, 5))
    three = array(3, 3, 4, 5)
    (found,) = run(network, three)
    assert found.shape == (3, 7)
    for i in range(3):
        assert torch.allclose(found[i : i + 1], run(network, three[i : i + 1])[0], atol=1e-6)


def test_a_size_as_an_output():
    nodes = [node("Relu", "x", "y"), node("Shape", "x", "s"), node("Gather", "s two", "h")]
    proto = model(nodes, {"x": ("n", 3, "h", "w")}, ["h", "y", "s"], {"two": np.array(2)})
    assert_same(proto, array(2, 3, 5, 4))


@pytest.mark.parametrize(
    "nodes, weights, said",
    [
        (
            [
                node("Shape", "x", "s"),
                node("Reshape", "s pairs", "matrix"),
                node("Transpose", "matrix", "t"),
                node("Cast", "t", "y", to=TensorProto.FLOAT),
            ],
            {"pairs": i64(-1, 2)},
            "makes a matrix of sizes",
        ),
        (
            [
                node("ReduceSum", "x", "sum", keepdims=0),
                node("Cast", "sum", "n", to=TensorProto.INT64),
                node("Unsqueeze", "n zero", "shape"),
                node("Reshape", "x shape", "y"),
            ],
            {"zero": i64(0)},
            "'shape' depends on the pixels",
        ),
        (
            [
                node("ArgMax", "x", "where", axis=3),
                node("Gather", "x where", "y", axis=3),
            ],
            {},
            "indices depend on the image",
        ),
    ],
)
def test_what_is_no_arithmetic_of_sizes_is_refused(nodes, weights, said):
    with pytest.raises(ConversionError, match=said):
        fs.from_onnx(model(nodes, {"x": ("n", 3, "h", "w")}, ["y"], weights, 17))


def test_half_pixels_rounded_down_want_whole_multiples():
    proto = model(
        [helper.make_node("Resize", ["x", "", "", "to"], ["y"])],
        {"x": ("n", 2, "h", "w")},
        ["y"],
        {"to": i64(1, 2, 8, 8)},
    )
    network = assert_same(proto, array(1, 2, 4, 8))
    with pytest.raises(ValueError, match="only whole multiples"):
        run(network, array(1, 2, 3, 8))


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel, stride", [(3, 2), (5, 3), (2, 3), (1, 2), (4, 1), (3, 1)])
def test_padding_that_follows_the_size(auto, kernel, stride):
    """Of both parities, from a program that was exported for one of them."""
    nodes = [
        node("Conv", "x w", "a", auto_pad=auto, strides=[stride, stride]),
        node("AveragePool", "a", "b", auto_pad=auto, strides=[2, 1], kernel_shape=[3, 2]),
        node("MaxPool", "b", "y", auto_pad=auto, strides=[1, 2], kernel_shape=[2, 3]),
    ]
    sizes = ((2, 3, 24, 32), (3, 3, 25, 33), (2, 3, 30, 31), (4, 3, 23, 42))
    check(nodes, {"w": array(5, 3, kernel, kernel)}, sizes=sizes)


def test_shapes_are_no_data_of_the_exported_program():
    network = check(
        [node("Shape", "x", "s"), node("Reshape", "x s", "r"), node("Relu", "r", "y")], {}
    )
    exported = torch.export.export(
        network, (torch.zeros(2, 6, 8, 9),), dynamic_shapes=ANY_SIZE, strict=False
    )
    tensors = [n for n in exported.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    assert {n.meta["val"].dtype for n in tensors} == {torch.float32}


# ---- constants ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes, weights, opset",
    [
        # as the exporter of old writes torch.nn.functional.pad: its pairs are turned round
        (
            [
                node("ConstantOfShape", "four", "zeros", value=numpy_helper.from_array(i64(0))),
                node("Concat", "asked zeros", "all", axis=0),
                node("Reshape", "all pairs", "rows"),
                node("Slice", "rows last least axis back", "turned"),
                node("Transpose", "turned", "columns", perm=[1, 0]),
                node("Reshape", "columns flat", "pads"),
                node("Cast", "pads", "pads64", to=TensorProto.INT64),
                node("Pad", "x pads64", "y"),
            ],
            {
                **{"four": i64(4), "asked": i64(1, 2, 0, 3), "pairs": i64(-1, 2)},
                **{"last": i64(-1), "least": i64(-(2**62)), "axis": i64(0), "back": i64(-1)},
                "flat": i64(-1),
            },
            13,
        ),
        # over all axes from the first on, which later opsets do not
        ([node("Softmax", "w", "s"), node("Mul", "x s", "y")], {"w": array(2, 3, 4, 5)}, 11),
        ([node("Split", "w", "a b", axis=1), node("Sub", "a b", "c"), node("Add", "x c", "y")],
         {"w": array(3, 8, 1)}, 11),
        ([node("Range", "no five one", "r"), node("Mul", "x r", "y")],
         {"no": np.float32(0), "five": np.float32(5), "one": np.float32(1)}, 13),
        ([node("Constant", "", "c", value_floats=[1.0, 2.0, 0.0, 3.0, 4.0]),
          node("Unsqueeze", "c", "c1", axes=[0]), node("Div", "x c1", "y")], {}, 12),
    ],
)  # fmt: skip
def test_what_is_made_of_constants_is_made_when_the_file_is_read(nodes, weights, opset):
    proto = model(nodes, {"x": (2, 3, 4, 5)}, ["y"], weights, opset)
    network = assert_same(proto, array(2, 3, 4, 5))
    assert len([m for m in network.modules() if not list(m.children())]) == 1
