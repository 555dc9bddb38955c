"""What a row's process does: one measurement, into one file."""

from __future__ import annotations

import json
import signal
import traceback
from pathlib import Path

import torch

from bench.on_gpu import measures
from bench.on_gpu.rows import by_name
from bench.on_gpu.subjects import Setting
from bench.output.record import plain
from fskernel.files import write_text


def measure(
    name: str, out: Path, device: str, model: str, cache: Path | None, seconds: float | None
) -> int:
    """Measures a row and writes rows/NAME.json; returns the exit code.

    Args:
        name: of the row.
        out: folder of the session.
        device: where; model: what; cache: as in `Setting`.
        seconds: after which the process is gone, even where nobody is left to end it.

    Raises:
        ValueError: there is no such row.
    """
    there = torch.device(device)
    row = by_name(name, there.type == "cuda")
    if seconds is not None:
        signal.alarm(int(seconds) + 10)
    known: dict[str, object] = {}
    file = out / "rows" / f"{row.file}.json"
    file.parent.mkdir(parents=True, exist_ok=True)

    def keep(values: dict) -> None:
        known.update(values)
        write_text(file, json.dumps(plain(known), indent=1, allow_nan=False) + "\n")

    code = 0
    keep({})  # what an earlier process left here is not this one's
    try:
        if there.type == "cuda":
            torch.cuda.set_device(there)
        setting = Setting(there, model, cache, out, keep)
        with torch.inference_mode():
            keep(getattr(measures, row.measure)(setting, **row.options))
        keep({"complete": True})
    except measures.Skip as why:
        keep({"skipped": str(why)})
    except Exception as error:
        traceback.print_exc()
        words = (str(error).strip() or "no words").split("\n")[0]
        keep({"error": f"{type(error).__name__}: {words}"[:500]})
        code = 1
    print(json.dumps(plain(known), indent=1))
    return code
