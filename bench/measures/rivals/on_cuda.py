"""The dense network on a GPU: by cuDNN through torch, and by TensorRT."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx.experimental.optimization import fuse

from bench.measures.rivals import trt
from bench.measures.rivals.rival import Runner, Setting, fed


def cudnn(dtype: torch.dtype) -> Callable[[Setting], Runner]:
    """Torch with cuDNN, which searches for its fastest algorithms; batch norms folded away."""

    def build(s: Setting) -> Runner:
        torch.backends.cudnn.benchmark = True
        with torch.no_grad():
            model = fuse(s.model).to(s.device, dtype, memory_format=torch.channels_last)
        x = s.x.to(s.device, dtype).contiguous(memory_format=torch.channels_last)
        return fed(torch.inference_mode()(lambda: model(x)), x)

    return build


def compiled(s: Setting) -> Runner:
    """torch.compile in float16, weights frozen; it needs triton."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    with torch.no_grad():
        folded = fuse(s.model).to(s.device, torch.float16, memory_format=torch.channels_last)
    model = torch.compile(folded)
    x = s.x.to(s.device, torch.float16).contiguous(memory_format=torch.channels_last)
    return fed(torch.no_grad()(lambda: model(x)), x)


def tensorrt(kind: str) -> Callable[[Setting], Runner]:
    """TensorRT, kind fp16 or int8."""

    def build(s: Setting) -> Runner:
        made = trt.engine(s.model, tuple(s.x.shape), kind, s.device, s.calibration)
        made.x.copy_(s.x)

        def logits(_: object) -> torch.Tensor:
            return made.y

        return fed(made.call, made.x, logits)

    return build
