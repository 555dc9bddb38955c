"""The paper's average pools in place of max-pools."""

from __future__ import annotations

import copy

from torch import nn

from fskernel.errors import ConversionError
from fskernel.tracing.trace import trace


def paper_pools(module: nn.Module) -> nn.Module:
    """A copy of the ANN with average pools in place of its max-pools, as in the paper.

    Weights that were trained with max-pools were not trained for this; the paper's were retrained.

    Raises:
        ConversionError: a max-pool that averages cannot replace (dilation, ceil_mode, functional).
    """
    module = copy.deepcopy(module)
    for name, child in list(module.named_modules()):
        if not isinstance(child, nn.MaxPool2d):
            continue
        if child.dilation not in (1, (1, 1)) or child.ceil_mode:
            raise ConversionError(name, f"{child} has no average form", "Use a plain max-pool")
        parent = module.get_submodule(name.rpartition(".")[0])
        average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
        setattr(parent, name.rpartition(".")[2], average)
    try:
        layers = trace(module, compared=False).layers
    except ConversionError:  # conversion itself will say what is wrong
        return module
    for layer in layers:
        if layer.kind == "max_pool":
            raise ConversionError(
                layer.name, "a functional max_pool2d cannot be swapped", "Use nn.MaxPool2d"
            )
    return module
