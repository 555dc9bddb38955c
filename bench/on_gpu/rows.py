"""The rows that are measured, most important first, each in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: unique; what tables say.
        measure: the function of `measures.py` that makes it.
        options: its arguments.
        limit: seconds of its process, start included; then it is killed.
        needs: packages without which the process need not be started.
    """

    name: str
    measure: str
    options: Mapping[str, object] = field(default_factory=dict)
    limit: float = 30
    needs: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of its files, without a suffix."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_")


def few_spikes(K: int, batch: int) -> Row:
    """The network with K steps."""
    return Row(f"FS K={K}, batch {batch}", "few_spikes", {"K": K, "batch": batch})


def dense(kind: str, batch: int) -> Row:
    """The dense network by torch, on a GPU with cuDNN; kind fp16 or fp32."""
    return Row(f"torch {kind}, batch {batch}", "dense", {"kind": kind, "batch": batch})


def paired(K: int, batch: int) -> Row:
    """Both in turn in one process: the ratio that is published."""
    name = f"FS K={K} against fp16, interleaved, batch {batch}"
    return Row(name, "paired", {"K": K, "batch": batch}, limit=40)


def compiled(batch: int, mode: str = "default") -> Row:
    """The dense network by torch.compile."""
    extra = "" if mode == "default" else f" {mode}"
    limit = 75 if mode == "default" else 150
    options = {"batch": batch, "mode": mode}
    return Row(f"torch.compile fp16{extra}, batch {batch}", "compiled", options, limit, ("triton",))


def tensorrt(kind: str, batch: int) -> Row:
    """The dense network by TensorRT, kind fp16 or int8."""
    options = {"kind": kind, "batch": batch}
    return Row(f"TensorRT {kind}, batch {batch}", "tensorrt", options, 120, ("tensorrt", "onnx"))


def layers(K: int, batch: int) -> Row:
    """Microseconds of every layer."""
    return Row(f"layers, K={K}, batch {batch}", "layers", {"K": K, "batch": batch}, limit=50)


PEAKS = Row("peaks", "peaks")
# Parts of a session that are measured as rows are.
FACTS = Row("facts", "facts", limit=60)
FRAGMENTS = Row("fragments", "fragments", limit=60)


def rows(on_gpu: bool) -> list[Row]:
    """The list; a rehearsal on a CPU has the same rows at batch 2 and 1."""
    large, small = (128, 1) if on_gpu else (2, 1)
    middle = (32, 8) if on_gpu else ()
    simulated = 32 if on_gpu else 1
    found = [
        *(few_spikes(8, large), dense("fp16", large), few_spikes(10, large)),
        *(few_spikes(8, small), dense("fp16", small), few_spikes(10, small)),
        *(paired(8, large), paired(10, large), paired(8, small), paired(10, small)),
        *(PEAKS, layers(8, large), layers(10, large)),
    ]
    for batch in middle:
        found += [few_spikes(8, batch), dense("fp16", batch), few_spikes(10, batch)]
    found.append(compiled(large))
    found.append(tensorrt("int8", large))
    found.append(tensorrt("fp16", large))
    found.append(dense("fp32", large))
    options = {"batch": simulated}
    found.append(Row(f"rate-coded step, batch {simulated}", "rate_step", options, limit=45))
    options = {"K": 8, "batch": simulated}
    found.append(Row(f"explicit steps, K=8, batch {simulated}", "explicit", options, limit=45))
    found += [paired(K, batch) for batch in middle for K in (8, 10)]
    found += [layers(8, small), compiled(small), tensorrt("int8", small), dense("fp32", small)]
    for batch in middle:
        found += [dense("fp32", batch), compiled(batch), tensorrt("int8", batch)]
        found.append(tensorrt("fp16", batch))
    found += [tensorrt("fp16", small), compiled(large, "max-autotune-no-cudagraphs")]
    return found


def by_name(name: str, on_gpu: bool) -> Row:
    """The row of that name.

    Raises:
        ValueError: there is none.
    """
    found = rows(on_gpu)
    for row in (*found, FACTS, FRAGMENTS):
        if row.name == name:
            return row
    known = "; ".join(row.name for row in found)
    raise ValueError(f"--row={name}: there is no such row; there are: {known}")
