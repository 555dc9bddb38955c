"""The dense network in other runtimes on a CPU, in float32 and in 8-bit integers."""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path

import torch

from bench.measures.rivals.rival import Runner, Setting, fed

OPSET = 17


def eager(s: Setting) -> Runner:
    """Torch as it comes, in the memory format that suits it best."""
    model = copy.deepcopy(s.model).to(memory_format=torch.channels_last)
    x = s.x.contiguous(memory_format=torch.channels_last).clone()
    return fed(torch.inference_mode()(lambda: model(x)), x)


def compiled(s: Setting) -> Runner:
    """torch.compile with its weights frozen."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    inductor.compile_threads = 1
    model = torch.compile(copy.deepcopy(s.model).to(memory_format=torch.channels_last))
    x = s.x.contiguous(memory_format=torch.channels_last).clone()
    return fed(torch.no_grad()(lambda: model(x)), x)


def exported(s: Setting) -> Path:
    """The model as an ONNX file for this batch size, written once."""
    import onnx  # noqa: F401 - torch's exporter needs it: known before the work begins

    path = s.folder / "model.onnx"
    if path.exists():
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its successor
        torch.onnx.export(
            copy.deepcopy(s.model).to(memory_format=torch.contiguous_format),
            (s.x,),
            str(path),
            opset_version=OPSET,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
        )
    return path


def _onnx_runtime(path: Path, s: Setting) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = s.threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = s.x.clone()
    feed = {"x": x.numpy()}
    return fed(lambda: session.run(None, feed), x, lambda y: torch.from_numpy(y[0]))


def onnx_runtime(s: Setting) -> Runner:
    """ONNX Runtime, float32."""
    import onnxruntime  # noqa: F401 - a missing package is known before the export

    return _onnx_runtime(exported(s), s)


def onnx_runtime_int8(s: Setting) -> Runner:
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
            return {"x": self.left.pop().numpy()} if self.left else None

    path = s.folder / "int8.onnx"
    if path.exists():
        return _onnx_runtime(path, s)
    prepared = s.folder / "prepared.onnx"
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(str(exported(s)), str(prepared))
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
    return _onnx_runtime(path, s)


def _openvino(model: object, s: Setting) -> Runner:
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": s.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    x = s.x.clone()
    request.set_input_tensor(ov.Tensor(x.numpy(), shared_memory=True))
    return fed(request.infer, x, lambda y: torch.as_tensor(y[0]))


def openvino(s: Setting) -> Runner:
    """OpenVINO, float32."""
    import openvino as ov

    return _openvino(ov.Core().read_model(str(exported(s))), s)


def openvino_int8(s: Setting) -> Runner:
    """OpenVINO, quantised by NNCF with its settings for speed."""
    import openvino as ov

    path = s.folder / "int8.xml"
    if not path.exists():
        import nncf

        logging.getLogger("nncf").setLevel(logging.ERROR)
        images = [x.numpy() for x in s.batches()]
        model = nncf.quantize(
            ov.convert_model(str(exported(s))),
            nncf.Dataset(images),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.PERFORMANCE,
        )
        ov.save_model(model, str(path), compress_to_fp16=False)
    return _openvino(ov.Core().read_model(str(path)), s)
