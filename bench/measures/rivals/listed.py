"""The one list of rivals: who is compared, on a CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.measures.rivals import dense, on_cuda, spiking
from bench.measures.rivals.rival import Rival

FLOAT = ("ONNX Runtime fp32", "OpenVINO fp32")
TORCH = "torch fp32, eager"


def few_spikes(K: int) -> str:
    """What tables call the FS network."""
    return f"FS K={K}"


def listed(K: Sequence[int], first: int, T: int, device: str = "cpu") -> list[Rival]:
    """All rivals in the order of the tables.

    Args:
        K: time steps of the FS networks.
        first: those of the one that others are compared with.
        T: time steps of rate coding.
        device: "cpu" or "cuda": the type of what they run on.
    """
    ours = [Rival(few_spikes(k), "few spikes", spiking.few_spikes(k)) for k in K]
    others = _on_gpu() if device == "cuda" else _on_cpu(first)
    return [
        *ours,
        *others,
        Rival(
            f"{few_spikes(first)}, step by step", "one by one", spiking.one_by_one(first), (), True
        ),
        Rival(f"rate coding, T={T}", "rate coding", spiking.rate_coded, (), True),
        Rival(f"SpikingJelly, T={T}", "rate coding", spiking.spikingjelly, ("spikingjelly",), True),
    ]


def _on_cpu(K: int) -> list[Rival]:
    onnx = ("onnxruntime", "onnx")
    return [
        Rival(TORCH, "float", dense.eager),
        Rival("torch fp32, compiled", "float", dense.compiled),
        Rival(FLOAT[0], "float", dense.onnx_runtime, onnx),
        Rival(FLOAT[1], "float", dense.openvino, ("openvino", "onnx")),
        Rival("ONNX Runtime int8", "integers", dense.onnx_runtime_int8, onnx),
        Rival("OpenVINO int8", "integers", dense.openvino_int8, ("openvino", "nncf", "onnx")),
        Rival(f"{few_spikes(K)}, plane by plane", "one by one", spiking.few_spikes(K, 1)),
    ]


def _on_gpu() -> list[Rival]:
    packages = ("tensorrt", "onnx")
    return [
        Rival("cuDNN fp32", "float", on_cuda.cudnn(torch.float32)),
        Rival("cuDNN fp16", "float", on_cuda.cudnn(torch.float16)),
        Rival("torch.compile fp16", "float", on_cuda.compiled, ("triton",)),
        Rival("TensorRT fp16", "float", on_cuda.tensorrt("fp16"), packages),
        Rival("TensorRT int8", "integers", on_cuda.tensorrt("int8"), packages),
    ]


def chosen(rivals: Sequence[Rival], only: Sequence[str]) -> list[Rival]:
    """The rivals that have one of the words in their name, or as their kind; without words, all."""
    return [
        r
        for r in rivals
        if not only or any(word.lower() in r.name.lower() or word == r.kind for word in only)
    ]
