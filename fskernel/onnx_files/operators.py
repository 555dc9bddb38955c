"""All operators that become modules, and what nodes make of constants when a file is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fskernel.errors import ConversionError
from fskernel.onnx_files import layout, normalisation, pointwise, pools, resizing, weighted
from fskernel.onnx_files.nodes import Node, tensor
from fskernel.onnx_files.reading import AGAIN, UNKNOWN_CURE, first_line, onnx_package

OPERATORS: dict[str, Callable[[Node], nn.Module]] = {
    **weighted.OPERATORS,
    **pools.OPERATORS,
    **pointwise.OPERATORS,
    **normalisation.OPERATORS,
    **layout.OPERATORS,
    **resizing.OPERATORS,
}
# Outputs of all others but the first are of no use here: masks, indices, statistics.
SEVERAL_OUTPUTS = ("Split",)
# What makes many numbers out of few, by the input that says how many; more are refused: where the
# system hands out more memory than it has, the process would be ended.
_GROWS = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
_MOST = 2**28
_RANDOM = ("Random", "Bernoulli", "Multinomial")


def build(node: Node) -> nn.Module:
    """The module of a node.

    Raises:
        ConversionError: there is none, or what it is told makes no sense.
    """
    if node.operator not in OPERATORS:
        node.refuse("this operator is not read", UNKNOWN_CURE)
    try:
        return OPERATORS[node.operator](node)
    except ConversionError:
        raise
    except Exception as error:  # whatever torch says of attributes and weights that do not fit
        node.refuse(f"its attributes or inputs do not fit ({first_line(error)})", AGAIN)


def folded(node: Node, proto) -> dict[str, np.ndarray]:
    """What a node makes of constants: by its module, else by onnx's own evaluator.

    The module comes first because the evaluator computes operators of old opsets like new ones.
    """
    if node.operator.startswith(_RANDOM):
        node.refuse("its numbers are random", UNKNOWN_CURE)
    counts = node.constant(_GROWS.get(node.operator, -1))
    if counts is not None and counts.dtype.kind == "i" and math.prod(counts.tolist()) > _MOST:
        node.refuse(f"it makes a constant of {math.prod(counts.tolist()):,} numbers", AGAIN)
    outputs = [name for name in node.outputs if name]
    try:
        made = _by_module(node)
    except Exception:  # there is no such module, or torch cannot do it: the other may
        return dict(zip(outputs, _by_onnx(node, proto)))
    return dict(zip(outputs, made))


def _by_module(node: Node) -> list[np.ndarray]:
    first = node.operand(0)
    if first is None or first.value is None:
        node.refuse("it reads nothing", UNKNOWN_CURE)
    data = tensor(first.value)
    varying = replace(first, kind="tensor", value=None)
    module = build(replace(node, operands=[varying, *node.operands[1:]])).eval()
    with torch.no_grad():
        made = module(data)
    several = node.operator in SEVERAL_OUTPUTS
    return [part.numpy() for part in (made if several else [made])]


def _by_onnx(node: Node, proto) -> list[np.ndarray]:
    onnx = onnx_package()
    helper = onnx.helper
    known = {o.name: o.value for o in node.operands if o is not None}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in known.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    graph = helper.make_graph([proto], "constants", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)])
    try:
        found = onnx.reference.ReferenceEvaluator(model).run(None, known)
    except Exception as error:  # whatever numpy raises
        node.refuse(f"onnx cannot compute it of its constants ({first_line(error)})", AGAIN)
    return [np.asarray(value) for value in found]
