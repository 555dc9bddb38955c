"""The dense network as a TensorRT engine, fp16 or int8, where the package tensorrt is installed.

int8 is explicit: codes and weights are quantised in the network itself, per tensor and per output
channel, at every convolution and at the identity of every addition, so that TensorRT may keep
integers between the layers. It has never run: no machine with a GPU and TensorRT was at hand.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
WORKSPACE = 8 << 30  # bytes


class Rounded(nn.Module):
    """Rounds a tensor to signed 8-bit codes; measures the range while `scale` is None."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.scale = 0.0, None

    def forward(self, x: Tensor) -> Tensor:
        """As x, in 255 values."""
        if self.scale is None:
            self.top = max(self.top, float(x.abs().max()))
            return x
        return torch.fake_quantize_per_tensor_affine(x, self.scale, 0, -128, 127)


class Quantised(nn.Module):
    """A convolution or linear layer on codes, its weights of 8 bits per output channel."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.codes = layer, Rounded()
        scale = layer.weight.detach().flatten(1).abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        weight = torch.fake_quantize_per_channel_affine(
            self.layer.weight, self.scale, self.zero, 0, -128, 127
        )
        x = self.codes(x)
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(x, weight, self.layer.bias)
        return self.layer._conv_forward(x, weight, self.layer.bias)


def quantised(module: nn.Module, calibration: Tensor) -> nn.Module:
    """A copy of a network without batch norms, quantised for int8.

    Args:
        module: in evaluation mode.
        calibration: images, float32 [N, 3, H, W], for the ranges.
    """
    traced = fx.symbolic_trace(module)
    for name, layer in list(traced.named_modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            traced.set_submodule(name, Quantised(layer))
    additions = [n for n in traced.graph.nodes if n.op != "call_module" and n.target in ADDITIONS]
    for i, node in enumerate(additions):
        identity = node.args[1]
        if not isinstance(identity, fx.Node):
            continue
        traced.add_submodule(f"identity_{i}", Rounded())
        with traced.graph.inserting_before(node):
            rounded = traced.graph.call_module(f"identity_{i}", (identity,))
        node.args = (node.args[0], rounded, *node.args[2:])
    traced.recompile()
    with torch.no_grad():
        traced(calibration)
    for part in traced.modules():
        if isinstance(part, Rounded):
            part.scale = max(part.top, 1e-12) / 127
    return traced


def exported(module: nn.Module, shape: Sequence[int], kind: str, calibration: Tensor) -> bytes:
    """The network as an ONNX file, kind "fp16" (in float32: the engine's builder casts) or "int8".

    Raises:
        ImportError: the package onnx, which torch's exporter needs, is not installed.
    """
    import onnx  # noqa: F401 - known before the work begins

    with torch.no_grad():
        module = fuse(module)
    if kind == "int8":
        module = quantised(module, calibration)
    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            module,
            (torch.randn(shape),),
            file,
            opset_version=17,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
        )
    return file.getvalue()


class Engine(NamedTuple):
    """A call that enqueues one batch on torch's current stream, what it reads and writes.

    Attributes:
        x: float16 [N, C, H, W]. y: float16 [N, classes]. facts: about the engine.
    """

    call: Callable[[], None]
    x: Tensor
    y: Tensor
    facts: dict[str, object]


def engine(
    module: nn.Module,
    shape: Sequence[int],
    kind: str,
    device: torch.device,
    calibration: Tensor | None = None,
) -> Engine:
    """Builds an engine.

    Args:
        module: the dense network, float32, in evaluation mode, on the CPU.
        shape: of a batch of images, [N, C, H, W].
        kind: "fp16" or "int8".
        device: the GPU.
        calibration: images, float32, for the ranges of int8; None: random ones, which is enough
            where only the time matters.

    Raises:
        ImportError: tensorrt, or what the export needs, is not installed.
        RuntimeError: TensorRT refuses the network, in its words.
    """
    import tensorrt as trt

    if calibration is None:
        calibration = torch.randn(4, *shape[1:])
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(exported(module, shape, kind, calibration)):
        words = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"TensorRT does not read the network: {words}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    for name in ("FP16",) if kind == "fp16" else ("FP16", "INT8"):
        flag = getattr(trt.BuilderFlag, name, None)
        if flag is None:
            raise RuntimeError(
                f"TensorRT {trt.__version__} has no flag {name}: it takes strongly typed networks "
                "alone, which this row does not write"
            )
        config.set_flag(flag)
    for tensor in (network.get_input(0), network.get_output(0)):
        tensor.dtype = trt.float16  # as the images of the other fp16 rows
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("TensorRT builds no engine: its words are in the row's log")
    runtime = trt.Runtime(logger)
    built = runtime.deserialize_cuda_engine(plan)
    context = built.create_execution_context()
    x = torch.randn(tuple(shape), device=device, dtype=torch.float16)
    y = torch.empty(tuple(built.get_tensor_shape("y")), device=device, dtype=torch.float16)
    context.set_tensor_address("x", x.data_ptr())
    context.set_tensor_address("y", y.data_ptr())
    held = (runtime, built, x, y)  # alive as long as the call is

    def call(_: object = held) -> None:
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise RuntimeError("TensorRT does not run the engine: its words are in the row's log")

    return Engine(call, x, y, {"tensorrt": trt.__version__, "engine_bytes": plan.nbytes})
