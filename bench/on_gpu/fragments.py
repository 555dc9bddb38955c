"""What tensor-core instructions do with a warp's registers: golden files, and the emulator's."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from bench.emulated.backend import build
from bench.on_gpu.subjects import Setting
from fskernel.files import write_text
from fskernel.kernels import ops

SHAPES = ((4, 32, 4), (32, 4), (32, 2))
NAMES = ("x", "w", "bytes", "rows", "sums", "fragments_x4", "fragments_x2")


def inputs() -> tuple[Tensor, ...]:
    """Registers and memory: x int32 [32, 4], w int32 [32, 2], bytes uint8 [1024], rows [32]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-(2**31), 2**31, (32, 4), generator=generator).to(torch.int32)
    w = torch.randint(-(2**31), 2**31, (32, 2), generator=generator).to(torch.int32)
    data = torch.randint(0, 256, (1024,), generator=generator).to(torch.uint8)
    rows = (torch.randperm(64, generator=generator)[:32] * 16).to(torch.int32)
    return x, w, data, rows


def emulated() -> list[Tensor]:
    """What the emulator answers; it is compiled in half a minute where it has changed."""
    answers = build().probe(*(t.numpy() for t in inputs()))
    return [torch.from_numpy(a.view("int32")) for a in answers]


def compared(s: Setting) -> dict[str, object]:
    """Writes fragments.json into the session's folder; which answers are the emulator's."""
    if s.device.type == "cuda":
        there = [t.to(s.device) for t in inputs()]
        golden = [torch.zeros(shape, dtype=torch.int32, device=s.device) for shape in SHAPES]
        addresses = [t.data_ptr() for t in (*there, *golden)]
        ops.compiled().cuda_probe(*addresses, s.device.index or 0)
        golden = [t.cpu() for t in golden]
    else:
        golden = emulated()
    values = dict(zip(NAMES, [t.tolist() for t in (*inputs(), *golden)], strict=True))
    write_text(s.folder / "fragments.json", json.dumps(values) + "\n")
    s.keep({"file": "fragments.json"})  # of use without the emulator, too
    equal = [torch.equal(a, b) for a, b in zip(golden, emulated(), strict=True)]
    return {"equal_to_the_emulator": dict(zip(NAMES[4:], equal, strict=True))}
