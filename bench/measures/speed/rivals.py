"""Who is timed in bench/peers.py: ourselves, the dense network in other runtimes, other simulators.

Every entry of RIVALS builds a call without arguments that runs one batch. What is not installed, or
fails, is left out of the measurement and says why in its row.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

import fskernel as fs
from bench.measures.simulate import StepByStep

Call = Callable[[], object]


@dataclass
class Setting:
    """What all rivals of one measurement share.

    Args:
        model: the dense network, float32, in evaluation mode.
        x: one batch of images, float32 [N, C, H, W].
        calibration: images for everything that is calibrated.
        folder: where models may be written.
        threads: for every rival but those that name their own number.
    """

    model: nn.Module
    x: Tensor
    calibration: Tensor
    folder: Path
    threads: int = 1
    nets: dict[int, fs.FSNetwork] = field(default_factory=dict)

    def net(self, K: int) -> fs.FSNetwork:
        """The model converted with K time steps, once."""
        if K not in self.nets:
            self.nets[K] = fs.convert(self.model, self.calibration, K=K)
        return self.nets[K]

    @cached_property
    def onnx(self) -> Path:
        """The model as an ONNX file for this batch size."""
        path = self.folder / f"model_b{len(self.x)}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its successor
            torch.onnx.export(
                self.model,
                (self.x,),
                str(path),
                opset_version=17,
                dynamo=False,
                input_names=["x"],
                output_names=["y"],
            )
        return path

    def batches(self) -> list:
        """The calibration images as float32 arrays of the batch's shape."""
        n = len(self.x)
        images = self.calibration.repeat(-(-n // len(self.calibration)) + 1, 1, 1, 1)
        return [images[:n].numpy(), images[1 : n + 1].numpy()]


@dataclass(frozen=True)
class Rival:
    """One row.

    Attributes:
        build: makes the call; raises ImportError where a package is missing.
        packages: that it needs, as pip names them.
        slow: timed in a few rounds only.
        per: what one call is, where it is not one batch.
        threads: its own number of threads, or None for the setting's.
    """

    name: str
    build: Callable[[Setting], Call]
    packages: tuple[str, ...] = ()
    slow: bool = False
    per: str = "batch"
    threads: int | None = None


def spiking(K: int, plane_bits: int = 0) -> Callable[[Setting], Call]:
    """The converted network through its public call."""

    def build(s: Setting) -> Call:
        net = s.net(K)
        net.pack()
        if plane_bits:
            net = copy.deepcopy(net)
            net.plane_bits = plane_bits
            net.pack()
        return lambda: net(s.x)

    return build


def simulation(K: int) -> Callable[[Setting], Call]:
    """All K steps one by one in torch."""

    def build(s: Setting) -> Call:
        net, backend = s.net(K), StepByStep()
        return lambda: net.execute(s.x, backend)

    return build


def eager(s: Setting) -> Call:
    """Torch as it comes, in the memory format that suits it best."""
    model = copy.deepcopy(s.model).to(memory_format=torch.channels_last)
    x = s.x.to(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: model(x))


def compiled(s: Setting) -> Call:
    """torch.compile with its weights frozen."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    inductor.compile_threads = 1
    model = torch.compile(copy.deepcopy(s.model).to(memory_format=torch.channels_last))
    x = s.x.to(memory_format=torch.channels_last)
    return torch.no_grad()(lambda: model(x))


def _ort_session(path: Path, s: Setting) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = s.threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"x": s.x.numpy()}
    return lambda: session.run(None, feed)


def ort_float(s: Setting) -> Call:
    """ONNX Runtime, float32."""
    import onnxruntime  # noqa: F401 - a missing package is known before the export

    return _ort_session(s.onnx, s)


def ort_int8(s: Setting) -> Call:
    """ONNX Runtime, static quantisation: u8 activations, s8 weights per channel."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = s.batches()

        def get_next(self) -> dict | None:
            return {"x": self.left.pop()} if self.left else None

    prepared = s.folder / f"prepared_b{len(s.x)}.onnx"
    path = s.folder / f"int8_b{len(s.x)}.onnx"
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(str(s.onnx), str(prepared))
        quantize_static(
            str(prepared),
            str(path),
            Images(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=False,
        )
    finally:
        logging.disable(logging.NOTSET)
    return _ort_session(path, s)


def _openvino_call(model, s: Setting) -> Call:
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": s.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(ov.Tensor(s.x.numpy(), shared_memory=True))
    return request.infer


def openvino_float(s: Setting) -> Call:
    """OpenVINO, float32."""
    import openvino as ov

    return _openvino_call(ov.convert_model(str(s.onnx)), s)


def openvino_int8(s: Setting) -> Call:
    """OpenVINO, quantised by NNCF with its settings for speed."""
    import nncf
    import openvino as ov

    logging.getLogger("nncf").setLevel(logging.ERROR)
    images = s.batches()
    model = nncf.quantize(
        ov.convert_model(str(s.onnx)),
        nncf.Dataset(images),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.PERFORMANCE,
    )
    return _openvino_call(model, s)


def spikingjelly(s: Setting) -> Call:
    """One time step of SpikingJelly's rate-coded network, converted by its own recipe."""
    from spikingjelly.activation_based import ann2snn, functional

    data = [(image[None], torch.zeros(1, dtype=torch.long)) for image in s.calibration]
    recipe = ann2snn.RateCodingRecipe(data, mode="Max")
    net = ann2snn.Converter(recipe).convert(copy.deepcopy(s.model)).eval()
    functional.reset_net(net)
    return torch.inference_mode()(lambda: net(s.x))


FEW_SPIKES = "FS K=8"
RIVALS = [
    Rival(FEW_SPIKES, spiking(8)),
    Rival("FS K=10", spiking(10)),
    Rival("ONNX Runtime fp32", ort_float, ("onnxruntime", "onnx")),
    Rival("OpenVINO fp32", openvino_float, ("openvino", "onnx")),
    Rival("ONNX Runtime int8", ort_int8, ("onnxruntime", "onnx")),
    Rival("OpenVINO int8", openvino_int8, ("openvino", "nncf", "onnx")),
    Rival("torch fp32, eager", eager),
    Rival("torch fp32, compiled", compiled),
    Rival("FS K=8, bit-plane by bit-plane", spiking(8, plane_bits=1)),
    Rival("FS K=8, simulated in torch", simulation(8), slow=True),
    Rival("SpikingJelly, one step", spikingjelly, ("spikingjelly",), slow=True, per="time step"),
]
if (os.cpu_count() or 1) >= 2:
    RIVALS.insert(1, Rival("FS K=8, 2 threads", spiking(8), threads=2))
