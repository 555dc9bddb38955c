"""Risk: an operator computes something else than ONNX Runtime, in a corner of its attributes, in an
older opset, or with an input that is left out."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models.cases import array, assert_same, model

from fskernel.onnx_files.operators import OPERATORS

MAP = array(2, 6, 5, 7)
POSITIVE = np.abs(MAP) + 0.1
WIDE = 4 * MAP
INTS = np.arange(-4, 8).reshape(3, 4)


@dataclass
class Case:
    """A node with these inputs, then these constants (None: left out)."""

    operator: str
    inputs: tuple = (MAP,)
    constants: tuple = ()
    opset: int = 21
    outputs: int = 1
    attributes: dict = field(default_factory=dict)

    def __str__(self):
        told = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.operator}-{self.opset}-{len(self.constants)}-{told}"[:80]


def case(operator, *inputs, constants=(), opset=21, outputs=1, **attributes):
    return Case(operator, inputs or (MAP,), constants, opset, outputs, attributes)


def f32(*numbers):
    return np.array(numbers, np.float32)


def i64(*numbers):
    return np.array(numbers, np.int64)


def zero_dim(number):
    return np.array(number, np.float32)


def channels(n=6, seed=3):
    return array(n, seed=seed)


UNARY = "Relu Sigmoid Tanh Softsign HardSwish Mish Softplus Neg Abs Exp Floor Ceil Erf Identity"
ACTIVATIONS = [
    *(case(name, WIDE, opset=18) for name in UNARY.split()),
    *(case(name, POSITIVE) for name in ("Sqrt", "Log", "Reciprocal")),
    case("LeakyRelu"),
    case("LeakyRelu", alpha=0.3),
    case("Elu", alpha=0.7),
    case("Celu", alpha=1.5),
    case("Selu"),
    case("Selu", alpha=1.2, gamma=0.9),
    case("HardSigmoid", WIDE),
    case("HardSigmoid", WIDE, alpha=1 / 6, beta=0.5),
    case("HardSigmoid", WIDE, alpha=0.3, beta=0.1),
    case("Gelu", WIDE),
    case("Gelu", WIDE, approximate="tanh"),
    case("PRelu", constants=(f32(0.2),)),
    case("PRelu", constants=(array(6, 1, 1),)),
    case("PRelu", constants=(array(6, 1, 7),)),
    case("PRelu", constants=(array(7),)),
    case("Clip", WIDE, constants=(zero_dim(0), zero_dim(6))),
    case("Clip", WIDE, constants=(zero_dim(0),)),
    case("Clip", WIDE, constants=(None, zero_dim(1.5)), opset=11),
    case("Clip", WIDE, constants=(zero_dim(-1), zero_dim(np.finfo(np.float32).max))),
    case("Clip", WIDE, constants=(zero_dim(2), zero_dim(1))),
    case("Clip", WIDE),
    case("Clip", WIDE, opset=9, min=0.0, max=6.0),
    case("Clip", WIDE, opset=7, min=0.0),
    case("Clip", WIDE, opset=7, max=0.5),
    case("Clip", INTS, constants=(np.array(-1), np.array(5))),
]

ARITHMETIC = [
    *(case(name, MAP, array(6, 1, 7, seed=1)) for name in ("Add", "Sub", "Mul", "Div", "Max")),
    *(case(name, constants=(array(6, 1, 1),)) for name in ("Add", "Sub", "Mul", "Div", "Max")),
    *(case(name, constants=(zero_dim(0.3),)) for name in ("Add", "Sub", "Mul", "Div", "Min")),
    case("Add", array(4), constants=(array(1, 1, 1),)),  # the constant has the higher rank
    case("Max", MAP, array(7, seed=1), array(5, 1, seed=2)),
    case("Min", MAP, array(7, seed=1), array(5, 1, seed=2)),
    case("Min", MAP),
    case("Max", constants=(f32(0.0),)),
    case("Sum", MAP, array(7, seed=1), array(5, 1, seed=2)),
    case("Mean", MAP, array(7, seed=1), array(5, 1, seed=2)),
    case("Pow", POSITIVE, constants=(zero_dim(1.7),)),
    case("Pow", POSITIVE, array(6, 1, 1)),
    case("Div", INTS, constants=(np.array(3),)),
    case("Add", INTS, constants=(i64(1, 2, 3, 4),)),
    case("Mul", INTS, INTS.T[:, :1].copy()[:1]),
    *(case(name, MAP, array(5, 7, seed=1)) for name in ("Greater", "Less", "LessOrEqual")),
    case("GreaterOrEqual", constants=(zero_dim(0.1),)),
    case("Equal", INTS, constants=(np.array(2),)),
]

WEIGHTED = [
    case("Conv", constants=(array(4, 3, 3, 2), array(4)), group=2, pads=[1, 0, 2, 1]),
    case("Conv", array(2, 3, 9), constants=(array(4, 3, 4),), strides=[2], dilations=[2]),
    case("Conv", array(1, 2, 4, 5, 6), constants=(array(3, 2, 2, 3, 2),), pads=[1, 0, 0, 1, 0, 0]),
    case("ConvTranspose", constants=(array(6, 4, 3, 2), array(4))),
    case("ConvTranspose", constants=(array(6, 2, 3, 3), array(4)), group=2, strides=[2, 3]),
    case("ConvTranspose", constants=(array(6, 4, 3, 3),), strides=[2, 2], pads=[1, 1, 1, 1]),
    case("ConvTranspose", constants=(array(6, 4, 3, 3),), strides=[2, 2], pads=[0, 1, 2, 1]),
    case(
        "ConvTranspose",
        constants=(array(6, 4, 3, 3), array(4)),
        strides=[2, 2],
        pads=[0, 1, 1, 1],
        output_padding=[1, 0],
    ),
    case("ConvTranspose", constants=(array(6, 4, 3, 3),), dilations=[2, 1], pads=[1, 0, 0, 2]),
    case("ConvTranspose", constants=(array(6, 4, 3, 3),), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", constants=(array(6, 4, 3, 3),), strides=[2, 2], auto_pad="SAME_LOWER"),
    case("ConvTranspose", constants=(array(6, 4, 3, 3),), strides=[2, 2], auto_pad="VALID"),
    case("ConvTranspose", constants=(array(6, 4, 3, 3),), strides=[2, 2], output_shape=[10, 14]),
    case("ConvTranspose", array(2, 3, 9), constants=(array(3, 4, 4),), strides=[3]),
    case("Gemm", array(3, 4), constants=(array(4, 5), array(5))),
    case("Gemm", array(3, 4), constants=(array(5, 4), array(1, 5)), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", array(3, 4), constants=(array(4, 5), zero_dim(0.7))),
    case("Gemm", array(3, 4), constants=(array(4, 5),)),
    case("Gemm", array(3, 4), constants=(array(4, 5), array(3, 1)), beta=0.5),
    case("Gemm", array(4, 3), constants=(array(4, 5), array(5)), transA=1),
    case("Gemm", array(3, 4), array(5, 4), transB=1, alpha=3.0),
    case("Gemm", array(3, 4), array(4, 5), array(3, 5), beta=-1.0),
    case("MatMul", array(3, 4), constants=(array(4, 5),)),
    case("MatMul", array(2, 3, 4), constants=(array(4, 5),)),
    case("MatMul", array(2, 3, 4), constants=(array(2, 4, 5),)),
    case("MatMul", array(2, 3, 4), constants=(array(4),)),
    case("MatMul", array(2, 3, 4), array(2, 4, 2)),
]

NORMS = [
    *(
        case(
            "BatchNormalization",
            x,
            opset=o,
            constants=(*(channels(6, s) for s in range(3)), np.abs(channels())),
        )
        for x, o in ((MAP, 15), (array(4, 6), 9), (array(2, 6, 5), 7), (array(1, 6, 2, 3, 4), 14))
    ),
    case("InstanceNormalization", constants=(channels(), channels(6, 1)), epsilon=1e-2),
    case("InstanceNormalization", array(2, 6, 9), constants=(channels(), channels(6, 1))),
    case("LayerNormalization", constants=(array(7), array(7, seed=1))),
    case("LayerNormalization", constants=(array(5, 7),), axis=2, epsilon=1e-3),
    case("LayerNormalization", constants=(array(6, 5, 7),), axis=-3),
    case("GroupNormalization", constants=(channels(), channels(6, 1)), num_groups=3),
    *(case(n, axis=a) for n in ("Softmax", "LogSoftmax") for a in (1, -1, 3)),
    *(case(n, axis=a, opset=11) for n in ("Softmax", "LogSoftmax") for a in (1, 0, 3, -1)),
    case("Softmax", opset=11),
    case("Softmax"),
]

REDUCTIONS = [
    *(case(f"Reduce{n}", constants=(i64(2, 3),), opset=18) for n in ("Mean", "Max", "Min", "Sum")),
    *(case(f"Reduce{n}", opset=11, axes=[-1, 1], keepdims=0) for n in ("Mean", "Max", "Sum")),
    case("ReduceMean", opset=18),
    case("ReduceMean", opset=18, noop_with_empty_axes=1),
    case("ReduceSum", opset=13, constants=(i64(-2),), keepdims=0),
    *(
        case(name, x)
        for name in ("GlobalAveragePool", "GlobalMaxPool")
        for x in (MAP, array(2, 3, 9))
    ),
    case("MaxPool", array(2, 3, 9), kernel_shape=[4], strides=[3], pads=[1, 2]),
    case("MaxPool", array(1, 2, 4, 5, 6), kernel_shape=[2, 2, 3], pads=[0, 1, 1, 1, 0, 1]),
    case("AveragePool", array(2, 3, 9), kernel_shape=[4], strides=[3], pads=[1, 2]),
    case("AveragePool", array(1, 2, 4, 5, 6), kernel_shape=[2, 2, 3], pads=[0, 1, 1, 1, 0, 1]),
    case("ArgMax"),
    case("ArgMax", axis=-1, keepdims=0),
]

LAYOUT = [
    case("Reshape", constants=(i64(0, -1, 7),)),
    case("Reshape", constants=(i64(-1, 3, 2, 35),)),
    case("Reshape", array(2, 0, 3), constants=(i64(0, 3, 4),), allowzero=1),
    case("Flatten"),
    *(case("Flatten", axis=axis) for axis in (0, 2, 4, -1)),
    case("Transpose"),
    case("Transpose", perm=[0, 2, 3, 1]),
    case("Squeeze", array(2, 1, 3, 1), constants=(i64(1),)),
    case("Squeeze", array(2, 1, 3, 1), opset=11, axes=[-1, 1]),
    case("Squeeze", array(2, 1, 3, 1)),
    case("Unsqueeze", array(2, 3), constants=(i64(-1, 0),)),
    case("Unsqueeze", array(2, 3), opset=9, axes=[3, 1]),
    case("Concat", MAP, array(2, 6, 2, 7), axis=-2),
    case("Concat", MAP, constants=(array(2, 1, 5, 7),), axis=1),
    case("Split", outputs=3, opset=13, axis=1),
    case("Split", outputs=3, axis=-1, num_outputs=3),
    case("Split", outputs=2, constants=(i64(1, 5),), axis=1),
    case("Split", outputs=2, opset=11, split=[2, 4], axis=1),
    case("Slice", opset=9, starts=[1, -3], ends=[4, 2**31], axes=[1, 3]),
    case("Slice", opset=9, starts=[0, 2], ends=[1, -1]),
    case("Slice", constants=(i64(1), i64(-1), i64(-1), i64(2))),
    case("Slice", constants=(i64(0, 1), i64(2**62, 5))),
    case("Slice", constants=(i64(-100, 1), i64(100, -1), None, i64(2, 1))),
    case("Gather", constants=(np.array(-2),), axis=1),
    case("Gather", constants=(i64(3, 0, -1),), axis=1),
    case("Gather", constants=(i64(2, 3, 4),), axis=3),
    case("Gather", constants=(np.array([[0, -1], [2, 2]]),), axis=2),
    case("Expand", array(3, 1), constants=(i64(2, 1, 4),)),
    case("Expand", array(2, 3, 4), constants=(i64(4),)),
    case("Where", MAP > 0, MAP, array(7, seed=1)),
    case("Where", MAP > 0, MAP, constants=(zero_dim(0.5),)),
    case("Not", MAP > 0),
    *(case(name, MAP > 0, MAP > 1) for name in ("And", "Or")),
    case("Or", MAP > 0, constants=(np.array(True),)),
    case("Cast", WIDE, to=TensorProto.INT64),
    case("Cast", INTS, to=TensorProto.FLOAT),
    case("Cast", to=TensorProto.FLOAT),
    case("Cast", to=TensorProto.DOUBLE),
    case("Cast", to=TensorProto.BOOL),
    *(case("DepthToSpace", array(2, 12, 3, 4), blocksize=2, mode=m) for m in ("DCR", "CRD")),
    case("SpaceToDepth", array(2, 3, 4, 6), blocksize=2),
    case("Dropout"),
    case("Dropout", constants=(zero_dim(0.3), np.array(False)), opset=13),
    case("Dropout", opset=10, ratio=0.4),
    case("Pad", constants=(i64(0, 1, 2, 0, 1, 0, 0, 3),)),
    case("Pad", constants=(i64(0, 0, 1, 2, 0, 0, 0, 1), zero_dim(-1.5)), opset=13),
    case("Pad", constants=(i64(0, 0, -1, 2, 0, 0, 1, -2),)),
    case("Pad", constants=(i64(1, 2), None, i64(-1)), opset=19),
    case("Pad", constants=(i64(*[0] * 8),)),
    case("Pad", opset=9, pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5),
    *(case("Pad", constants=(i64(0, 0, 1, 2, 0, 0, 3, 1),), mode=m) for m in ("reflect", "edge")),
    *(case("Pad", constants=(i64(0, 1, 2, 0, 0, 3, 1, 0),), mode=m) for m in ("reflect", "edge")),
    case("Pad", constants=(i64(0, 2, 0, 0, 0, 3, 0, 0),), mode="edge"),
    case("Pad", array(2, 3, 9), constants=(i64(0, 0, 2, 0, 0, 3),), mode="reflect"),
    case("Pad", constants=(i64(0, 0, 1, 2, 0, 0, 3, 1),), mode="wrap"),
]

NEAREST = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
HALF = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
CORNERS = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}


def scaled(*scales, **attributes):
    return case("Resize", constants=(None, f32(*scales)), **attributes)


def sized(*sizes, **attributes):
    return case("Resize", constants=(None, None, i64(*sizes)), **attributes)


RESIZES = [
    scaled(1, 1, 2, 3, **NEAREST),
    scaled(1, 1, 1.5, 2.5, **NEAREST),
    scaled(1, 1, 0.5, 0.4, **NEAREST),
    scaled(1, 1, 3, 2),  # half pixels, rounded down
    scaled(1, 1, 1.5, 2.4, nearest_mode="round_prefer_ceil"),
    scaled(
        1, 1, 1.7, 0.6, coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"
    ),
    sized(2, 6, 15, 9, **NEAREST),
    sized(2, 6, 10, 21),
    scaled(1, 1, 2, 3, **HALF),
    scaled(1, 1, 1.5, 0.7, **HALF),
    sized(2, 6, 3, 20, **HALF),
    sized(2, 6, 3, 20, **{**HALF, "coordinate_transformation_mode": "pytorch_half_pixel"}),
    scaled(1, 1, 2, 3, **CORNERS),
    sized(2, 6, 3, 20, **CORNERS),
    sized(2, 6, 8, 9, **{**HALF, "mode": "cubic"}),
    case("Resize", array(2, 3, 9), constants=(None, f32(1, 1, 2)), **HALF),
    case("Resize", constants=(None, f32(2, 3)), opset=18, axes=[2, -1], **NEAREST),
    case("Resize", constants=(None, None, i64(9)), opset=18, axes=[3], **HALF),
    case("Resize", constants=(f32(1, 1, 2, 1.5),), opset=10, mode="nearest"),
    case("Resize", constants=(f32(), f32(1, 1, 2, 2)), opset=11, **NEAREST),
    case("Upsample", constants=(f32(1, 1, 2, 3),), opset=9),
    case("Upsample", opset=7, scales=[1.0, 1.0, 2.0, 1.5], mode="nearest"),
]

CASES = [
    *(*ACTIVATIONS, *ARITHMETIC, *WEIGHTED, *NORMS),
    *(*REDUCTIONS, *LAYOUT, *RESIZES),
]


def built(c):
    names = [f"x{i}" for i in range(len(c.inputs))]
    weights = {f"c{i}": v for i, v in enumerate(c.constants) if v is not None}
    read = [*names, *(f"c{i}" if v is not None else "" for i, v in enumerate(c.constants))]
    outputs = [f"y{i}" for i in range(c.outputs)]
    node = helper.make_node(c.operator, read, outputs, name="node", **c.attributes)
    kinds = {n: helper.np_dtype_to_tensor_dtype(x.dtype) for n, x in zip(names, c.inputs)}
    shapes = {n: [f"{n}_{d}" for d in range(x.ndim)] for n, x in zip(names, c.inputs)}
    return model([node], shapes, outputs, weights, c.opset, **kinds)


@pytest.mark.parametrize("c", CASES, ids=str)
def test_an_operator_is_that_of_the_runtime(c):
    assert_same(built(c), *c.inputs)


def test_every_operator_has_a_case():
    assert {c.operator for c in CASES} == set(OPERATORS) - {
        "ConstantOfShape"
    }  # see test_onnx_sizes
