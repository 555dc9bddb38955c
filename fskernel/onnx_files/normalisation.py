"""Normalisations and softmax."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fskernel.onnx_files.nodes import Node, filled

_TRAINING = "Export the network in eval mode"


class BatchNorm(nn.BatchNorm2d):
    """A batch norm of maps whose number of axes is not known."""

    def _check_input_dim(self, input: Tensor) -> None:
        """They may have any number."""


_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def batch_norm(node: Node) -> nn.Module:
    """In eval mode, by constant statistics."""
    if node.get("training_mode", 0) or any(node.outputs[1:]):
        node.refuse("it is in training mode, and normalises by the images at hand", _TRAINING)
    if not node.get("spatial", 1):
        node.refuse("it has statistics of every pixel's own", "Use one mean a channel: spatial=1")
    weight, bias, mean, variance = (
        node.weight(i, what)
        for i, what in ((1, "scale"), (2, "bias"), (3, "mean"), (4, "variance"))
    )
    kind = _BATCH_NORMS.get(node.rank() or 0, BatchNorm)
    module = kind(len(weight), node.get("epsilon", 1e-5), device="meta")
    counted = torch.tensor(0)
    return filled(
        module,
        weight=weight,
        bias=bias,
        running_mean=mean,
        running_var=variance,
        num_batches_tracked=counted,
    )


def instance_norm(node: Node) -> nn.Module:
    """By the statistics of every image and channel."""
    kind = _INSTANCE_NORMS.get(node.rank() or 0)
    if kind is None:
        node.refuse(
            "how many dimensions its input has is not known",
            "Infer the shapes: onnx.shape_inference.infer_shapes(model)",
        )
    weight, bias = node.weight(1, "scale"), node.weight(2, "bias")
    module = kind(len(weight), node.get("epsilon", 1e-5), affine=True, device="meta")
    return filled(module, weight=weight, bias=bias)


def layer_norm(node: Node) -> nn.Module:
    """Over the last axes."""
    node.only_output("mean and deviation")
    weight, bias = node.weight(1, "scale"), node.weight(2, "bias")
    axis, rank = node.get("axis", -1), node.rank()
    axes = -axis if axis < 0 else None if rank is None else rank - axis
    if axes != weight.dim():
        node.refuse(
            f"it normalises from axis {axis} on, and its scale has {weight.dim()} dimensions",
            "Give the scale the shape of what is normalised",
        )
    module = nn.LayerNorm(
        tuple(weight.shape), node.get("epsilon", 1e-5), bias=bias is not None, device="meta"
    )
    return filled(module, weight=weight, bias=bias)


def group_norm(node: Node) -> nn.Module:
    """By the statistics of groups of channels."""
    groups = node.get("num_groups")
    weight, bias = node.weight(1, "scale"), node.weight(2, "bias")
    if node.opset < 21:  # one number a group; from then on, one a channel
        operand = node.operand(0)
        channels = operand.shape[1] if operand is not None and operand.shape else None
        if channels is None:
            node.refuse(
                "how many channels its input has is not known",
                "Infer the shapes: onnx.shape_inference.infer_shapes(model)",
            )
        weight, bias = (t.repeat_interleave(channels // groups) for t in (weight, bias))
    module = nn.GroupNorm(groups, len(weight), node.get("epsilon", 1e-5), device="meta")
    return filled(module, weight=weight, bias=bias)


def softmax(node: Node) -> nn.Module:
    """Exponentials that sum to one."""
    return _soft(node, nn.Softmax)


def log_softmax(node: Node) -> nn.Module:
    """Their logarithms."""
    return _soft(node, nn.LogSoftmax)


def _soft(node: Node, kind: type[nn.Module]) -> nn.Module:
    if node.opset >= 13:
        return kind(node.get("axis", -1))
    axis, rank = node.get("axis", 1), node.rank()
    if axis == -1 or (rank is not None and axis == rank - 1):
        return kind(-1)
    function = torch.softmax if kind is nn.Softmax else torch.log_softmax
    return node.apply(partial(_over_the_rest, function, axis))


def _over_the_rest(function, axis: int, x: Tensor) -> Tensor:
    """Before opset 13: over all axes from this one on together."""
    return function(x.flatten(axis), dim=-1).reshape(x.shape)


OPERATORS = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
}
