"""Activations and arithmetic, element by element."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial, reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fskernel.onnx_files.nodes import Node, filled, tensor

_LARGEST = float(np.finfo(np.float32).max)  # the bounds of a Clip that has none, before opset 11


def clip(node: Node) -> nn.Module:
    """ReLU, ReLU6 and Hardtanh are Clip nodes, too; from opset 11 on the bounds are inputs."""
    if node.varies(1) or node.varies(2):
        return node.apply(_clip)
    low, high = (_bound(node, name, i) for i, name in ((1, "min"), (2, "max")))
    if node.integer() or (low is None and high is None):
        return node.apply(partial(_clip, low=low, high=high), reads=(0,))
    if (low, high) == (0.0, 6.0):
        return nn.ReLU6()
    if (low, high) == (0.0, None):
        return nn.ReLU()
    if low is not None and high is not None and low < high:
        return nn.Hardtanh(low, high)
    return node.apply(partial(_clip, low=low, high=high), reads=(0,))


def _bound(node: Node, name: str, i: int) -> float | None:
    found = node.setting(name, i)
    if not found or (isinstance(found[0], float) and abs(found[0]) >= _LARGEST):
        return None
    return found[0]


def _clip(x: Tensor, low=None, high=None) -> Tensor:
    if low is None and high is None:
        return x
    return torch.clamp(x, low, high)


def leaky_relu(node: Node) -> nn.Module:
    """One slope below zero, the same for all channels."""
    return nn.LeakyReLU(node.get("alpha", 0.01))


def prelu(node: Node) -> nn.Module:
    """A slope below zero for each channel is torch's; it may have any shape."""
    slope, rank = node.constant(1), node.rank()
    if slope is None or (slope.size > 1 and not _by_channel(slope, rank)):
        return node.apply(_prelu)
    return filled(nn.PReLU(slope.size, device="meta"), weight=tensor(slope).flatten())


def _by_channel(slope: np.ndarray, rank: int | None) -> bool:
    """Whether it has a number for each channel of [N, C, ...]."""
    return rank is not None and slope.ndim == rank - 1 and slope.shape[0] == slope.size


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def selu(node: Node) -> nn.Module:
    """The usual constants are torch's."""
    alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.0507010)
    if math.isclose(alpha, 1.6732632, rel_tol=1e-6) and math.isclose(gamma, 1.050701, rel_tol=1e-6):
        return nn.SELU()
    return node.apply(partial(_selu, alpha, gamma))


def _selu(alpha: float, gamma: float, x: Tensor) -> Tensor:
    return gamma * F.elu(x, alpha)


def hard_sigmoid(node: Node) -> nn.Module:
    """The slope of a sixth is torch's."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return nn.Hardsigmoid()
    return node.apply(partial(_hard_sigmoid, alpha, beta))


def _hard_sigmoid(alpha: float, beta: float, x: Tensor) -> Tensor:
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def gelu(node: Node) -> nn.Module:
    """Exact, or by tanh."""
    return nn.GELU(node.get("approximate", "none"))


def cast(node: Node) -> nn.Module:
    """Nothing, where the type is known to be the same."""
    import onnx

    kind = onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))
    operand = node.operand(0)
    if operand is not None and operand.dtype == kind:
        return nn.Identity()
    return node.apply(partial(_cast, tensor(np.zeros(0, kind)).dtype))


def _cast(dtype: torch.dtype, x: Tensor) -> Tensor:
    return x.to(dtype)


def _module(kind: Callable[..., nn.Module], **arguments: float) -> Callable[[Node], nn.Module]:
    """Builds a module of torch whose arguments are attributes with these defaults."""

    def build(node: Node) -> nn.Module:
        return kind(*(node.get(name, default) for name, default in arguments.items()))

    return build


def _calls(function: Callable) -> Callable[[Node], nn.Module]:
    """Builds an operation on tensors, some of which may be numbers."""

    def build(node: Node) -> nn.Module:
        return node.apply(function, scalars=True)

    return build


def _chain(function: Callable) -> Callable[[Node], nn.Module]:
    """Builds an operation on any number of operands, one after the other."""
    return _calls(partial(_reduced, function))


def _reduced(function: Callable, *operands):
    return reduce(function, operands)


def _mean(*operands):
    return reduce(operator.add, operands) / len(operands)


def divide(node: Node) -> nn.Module:
    """Integers are cut off towards zero."""
    if node.integer(0) or node.integer(1):
        return node.apply(partial(torch.div, rounding_mode="trunc"), scalars=True)
    return node.apply(operator.truediv, scalars=True)


def where(node: Node) -> nn.Module:
    """One of two, by a condition."""
    return node.apply(torch.where)


def _larger(a, b):
    return _extreme(torch.maximum, "min", a, b)


def _smaller(a, b):
    return _extreme(torch.minimum, "max", a, b)


def _extreme(function: Callable, bound: str, a, b) -> Tensor:
    """torch.maximum or minimum; a number is the bound of a clamp."""
    for value, operand in ((a, b), (b, a)):
        if isinstance(value, (int, float)):
            return torch.clamp(operand, **{bound: value})
    return function(a, b)


OPERATORS = {
    "Clip": clip,
    "Relu": _module(nn.ReLU),
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "Elu": _module(nn.ELU, alpha=1.0),
    "Celu": _module(nn.CELU, alpha=1.0),
    "Selu": selu,
    "Sigmoid": _module(nn.Sigmoid),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": _module(nn.Hardswish),
    "Tanh": _module(nn.Tanh),
    "Softplus": _module(nn.Softplus),
    "Softsign": _module(nn.Softsign),
    "Mish": _module(nn.Mish),
    "Gelu": gelu,
    "Cast": cast,
    "Add": _calls(operator.add),
    "Sub": _calls(operator.sub),
    "Mul": _calls(operator.mul),
    "Div": divide,
    "Pow": _calls(operator.pow),
    "Max": _chain(_larger),
    "Min": _chain(_smaller),
    "Sum": _chain(operator.add),
    "Mean": _calls(_mean),
    "Equal": _calls(operator.eq),
    "Greater": _calls(operator.gt),
    "GreaterOrEqual": _calls(operator.ge),
    "Less": _calls(operator.lt),
    "LessOrEqual": _calls(operator.le),
    "Where": where,
    "Neg": _calls(torch.neg),
    "Abs": _calls(torch.abs),
    "Sqrt": _calls(torch.sqrt),
    "Exp": _calls(torch.exp),
    "Log": _calls(torch.log),
    "Reciprocal": _calls(torch.reciprocal),
    "Floor": _calls(torch.floor),
    "Ceil": _calls(torch.ceil),
    "Erf": _calls(torch.erf),
    "Not": _calls(torch.logical_not),
    "And": _calls(operator.and_),
    "Or": _calls(operator.or_),
}
