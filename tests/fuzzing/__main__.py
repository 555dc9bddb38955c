"""Changed network files, judged: in tests/, `PYTHONPATH=.. python -m fuzzing --files 1000`."""

from __future__ import annotations

import argparse
import functools
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from fskernel.kernels import ops

from .campaign import campaign, limit_memory, look_at, memory_folder
from .judge import FAULTS, judge
from .mutate import mutant
from .plant import planted
from .seeds import convert_all

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzzing", description=__doc__)
    parser.add_argument("--files", type=int, help="how many")
    parser.add_argument("--seconds", type=float, help="for how long, if --files is not given: 60")
    parser.add_argument("--seed", type=int, help="number of the first file; default: the time")
    parser.add_argument("--only", type=int, metavar="SEED", help="one file, in this process")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds a file may take")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz-files",
                        help="takes report.json and the files that fail")  # fmt: skip
    parser.add_argument("--plant", action="store_true", help="faults on purpose")
    args = parser.parse_args()

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # workers end with it, as by Ctrl-C
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as place:
        make = functools.partial(mutant, convert_all(place))
    check = planted if args.plant else judge
    args.out.mkdir(parents=True, exist_ok=True)
    if args.only is not None:
        changed = make(args.only)
        limit_memory()
        print(f"{changed.start}: {', '.join(changed.fields)}", flush=True)
        verdict = look_at(args.only, make, check, args.out / f"{args.only}.safetensors").verdict
        print(*verdict, sep=": " if verdict.detail else "")
        return int(verdict.kind in FAULTS)
    seed = int(time.time()) * 1000 if args.seed is None else args.seed
    until = f"{args.files} files" if args.files else f"{args.seconds or 60:g} seconds of files"
    print(f"network files: {until} from {seed} on, {', '.join(ops.supported_isas())}", flush=True)
    result = campaign(
        make,
        check,
        seed=seed,
        files=args.files,
        seconds=None if args.files and args.seconds is None else args.seconds or 60,
        jobs=args.jobs,
        patience=args.patience,
        folder=args.out,
        say=functools.partial(print, flush=True),
    )
    (args.out / "report.json").write_text(json.dumps({"seed": seed} | result.as_json(), indent=1))
    print(result.table())
    for fault, seeds in sorted(result.faults.items()):
        print(f"{len(seeds):6} {fault} {seeds[:5]}")
    ran = result.kinds["ran"]
    print(f"{result.kinds.total()} files in {result.seconds:.0f} s, {ran} loaded and ran, "
          f"{result.failed} failed; {args.out}/report.json")  # fmt: skip
    return int(result.failed > 0 or result.stopped)


if __name__ == "__main__":
    sys.exit(main())
