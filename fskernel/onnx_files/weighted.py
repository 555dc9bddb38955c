"""Convolutions and linear layers, as modules of torch that hold the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fskernel.onnx_files.nodes import Node, filled, tensor
from fskernel.onnx_files.windows import Pads, Window, flat


class _Padded:
    """A convolution whose padding differs at both ends, or depends on the size of the map."""

    window: Window

    def forward(self, x: Tensor) -> Tensor:
        pads = self.window.pads(x.shape[2:])
        return super().forward(F.pad(x, flat(pads)))  # type: ignore[misc]


class PaddedConv1d(_Padded, nn.Conv1d):
    """See _Padded."""


class PaddedConv2d(_Padded, nn.Conv2d):
    """See _Padded."""


class PaddedConv3d(_Padded, nn.Conv3d):
    """See _Padded."""


class _Cropped:
    """A transposed convolution whose padding differs at both ends, or depends on the size.

    Padding of a transposed convolution is what is cut off its output.
    """

    crop: Callable[[list[int]], Pads]

    def forward(self, x: Tensor) -> Tensor:
        pads = self.crop(x.shape[2:])
        y = super().forward(x)  # type: ignore[misc]
        return F.pad(y, [-number for number in flat(pads)])


class CroppedConvTranspose1d(_Cropped, nn.ConvTranspose1d):
    """See _Cropped."""


class CroppedConvTranspose2d(_Cropped, nn.ConvTranspose2d):
    """See _Cropped."""


class CroppedConvTranspose3d(_Cropped, nn.ConvTranspose3d):
    """See _Cropped."""


_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_PADDED = (PaddedConv1d, PaddedConv2d, PaddedConv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CROPPED = (CroppedConvTranspose1d, CroppedConvTranspose2d, CroppedConvTranspose3d)


def _weights(node: Node) -> tuple[Tensor, Tensor | None, int]:
    """Weight, bias and the number of axes of a convolution's image."""
    weight = node.weight(1, "weight")
    axes = weight.dim() - 2
    if not 1 <= axes <= 3:
        node.refuse(
            f"its weight has {weight.dim()} dimensions",
            "Convolutions over one, two and three axes are read",
        )
    kernel = tuple(weight.shape[2:])
    if tuple(node.get("kernel_shape", kernel)) != kernel:
        node.refuse(
            f"kernel_shape is {node.get('kernel_shape')}, and its weight's {list(kernel)}",
            "Export the network again",
        )
    return weight, node.weight(2, "bias"), axes


def conv(node: Node) -> nn.Module:
    """A layer of torch, which pads by itself where both ends are padded alike."""
    weight, bias, axes = _weights(node)
    window = Window.of(node, tuple(weight.shape[2:]))
    groups = node.get("group", 1)
    kinds = _CONV if window.symmetric else _PADDED
    module = kinds[axes - 1](
        weight.shape[1] * groups,
        weight.shape[0],
        window.kernel,
        window.stride,
        window.begin if window.symmetric else 0,
        window.dilation,
        groups,
        bias is not None,
        device="meta",
    )
    if not window.symmetric:
        module.window = window
    return filled(module, weight=weight, bias=bias)


def conv_transpose(node: Node) -> nn.Module:
    """A layer of torch, and what is cut off its output where that differs from end to end."""
    weight, bias, axes = _weights(node)
    extra = tuple(node.get("output_padding", [0] * axes))
    size, auto = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    window = Window.of(replace(node, attributes=_explicit(node)), weight.shape[2:])
    groups = node.get("group", 1)
    if size is None and auto in ("NOTSET", "VALID"):
        crop = window.pads
        plain = window.symmetric
    else:
        # What is cut off leaves this size, or the input's size times the stride.
        crop = partial(_surplus, window, extra, size and size[-axes:], auto == "SAME_UPPER")
        plain = False
    module = (_TRANSPOSED if plain else _CROPPED)[axes - 1](
        weight.shape[0],
        weight.shape[1] * groups,
        window.kernel,
        window.stride,
        window.begin if plain else 0,
        extra,
        groups,
        bias is not None,
        window.dilation,
        device="meta",
    )
    if not plain:
        module.crop = crop
    return filled(module, weight=weight, bias=bias)


def _explicit(node: Node) -> dict:
    """The attributes with the padding that the size of the output does not decide."""
    auto = node.get("auto_pad", "NOTSET")
    kept = {key: value for key, value in node.attributes.items() if key != "auto_pad"}
    if auto != "NOTSET":
        kept.pop("pads", None)
    return kept


def _surplus(
    window: Window, extra: tuple[int, ...], size: list[int] | None, upper: bool, sizes: list[int]
) -> Pads:
    found = []
    for axis, n in enumerate(sizes):
        stride = window.stride[axis]
        wanted = n * stride if size is None else size[axis]
        total = (n - 1) * stride + extra[axis] + window.reach[axis] - wanted
        less = total // 2
        found.append((less, total - less) if upper else (total - less, less))
    return found


def gemm(node: Node) -> nn.Module:
    """A linear layer, where the second operand is a constant."""
    a_turned, b_turned = node.get("transA", 0), node.get("transB", 0)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    weight, bias = node.constant(1), node.constant(2)
    outputs = None if weight is None else weight.shape[0 if b_turned else 1]
    one_row = bias is None or (bias.ndim <= 2 and bias.shape[:-1] in ((), (1,)))
    if weight is None or a_turned or not one_row or node.given(2) != (bias is not None):
        function = partial(_gemm, bool(a_turned), bool(b_turned), alpha, beta)
        return node.apply(function)
    weight = tensor(weight)
    weight = weight if b_turned else weight.t().contiguous()
    return _linear(
        weight if alpha == 1 else alpha * weight,
        None if bias is None else (beta * tensor(bias)).broadcast_to(1, outputs)[0].clone(),
    )


def _gemm(a_turned: bool, b_turned: bool, alpha: float, beta: float, a, b, c=None) -> Tensor:
    product = (a.t() if a_turned else a) @ (b.t() if b_turned else b)
    product = product if alpha == 1 else alpha * product
    return product if c is None else product + (c if beta == 1 else beta * c)


def matmul(node: Node) -> nn.Module:
    """A third input is the bias that `with_bias` found."""
    weight = node.constant(1)
    if weight is None or weight.ndim != 2:
        return node.apply(torch.matmul)
    return _linear(tensor(weight).t().contiguous(), node.weight(2, "bias"))


def with_bias(node: Node, add: Node) -> Node | None:
    """A layer without a bias and the Add behind it as one layer; None: it adds something else.

    Dense layers of TensorFlow are a MatMul and an Add, and there are convolutions of that kind.
    """
    weight = node.constant(1)
    constants = [o for o in add.operands if o is not None and o.value is not None]
    if weight is None or len(constants) != 1 or node.given(2):
        return None
    if node.operator == "MatMul" and weight.ndim == 2:
        channels, behind = weight.shape[1], 0
    elif node.operator == "Conv":
        channels, behind = weight.shape[0], weight.ndim - 2
    elif node.operator == "ConvTranspose":
        channels, behind = weight.shape[1] * node.get("group", 1), weight.ndim - 2
    else:
        return None
    shape = (channels, *[1] * behind)
    value = constants[0].value
    if value.shape not in (shape, (1, *shape)) or (value.ndim > (node.rank() or 1)):
        return None
    bias = replace(constants[0], value=value.reshape(-1), shape=(channels,))
    return replace(
        node, operands=[*node.operands[:2], bias], outputs=add.outputs, needed=add.needed
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    outputs, inputs = weight.shape
    module = nn.Linear(inputs, outputs, bias is not None, device="meta")
    return filled(module, weight=weight, bias=bias)


OPERATORS = {"Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": matmul}
