"""What torch's compilers, tracers and exporters ask of a module, and what of them is refused."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

NOT_PACKED = (
    "its weights are not packed yet, and torch.export and torch.jit.trace see them without their "
    "values: call it once on an input like this one before"
)


class Untraceable:
    """Mixed into modules: torch.jit.script, torch.onnx and tracers are told in a sentence."""

    def __prepare_scriptable__(self):
        """Called by torch.jit.script.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"torch.jit.script cannot compile {type(self).__name__}, whose Python calls native "
            "kernels: use torch.compile, or torch.export to save a graph"
        )


def refuse_onnx(module: nn.Module) -> None:
    """Refuses to become part of an ONNX file.

    Raises:
        RuntimeError: torch.onnx.export is running.
    """
    if torch.onnx.is_in_onnx_export():
        raise RuntimeError(
            f"torch.onnx.export cannot write {type(module).__name__}: ONNX has no operator for "
            "spike words. Export the float module it was made of; or keep this one by "
            "FSNetwork.save or torch.export"
        )


def refuse_tracer(x: object, module: nn.Module) -> None:
    """Refuses what stands for a tensor and has no memory to read.

    Raises:
        TypeError: x is a Proxy of torch.fx.
        RuntimeError: x is inside torch.vmap, or torch.onnx.export is running.
    """
    name = type(module).__name__
    if isinstance(x, fx.Proxy):
        raise TypeError(
            f"x is a torch.fx.Proxy: torch.fx cannot look inside {name}; have your Tracer's "
            "is_leaf_module return True for it, or use torch.export"
        )
    if torch.compiler.is_dynamo_compiling():
        return
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        refuse_onnx(module)  # which takes a while to find out
    if isinstance(x, Tensor) and torch._C._functorch.is_batchedtensor(x):
        raise RuntimeError(
            f"x is inside torch.vmap, and {name} runs whole batches: put all images into x's first "
            "dimension, as in x.flatten(0, 1), and call it once"
        )
