"""Everything that is left to do on the day there is a GPU: python bench/gpu.py, or make gpu.

Facts, the hardware probe, the benchmark, the tests, compute-sanitizer: each part with a limit of
its own, each result on the disk at once, in one folder under outputs/gpu. It may be cut at any
moment. `--device cpu --model cifar_resnet8` rehearses it without a GPU.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()

from bench.on_gpu import plan, rows


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu: a rehearsal")
    parser.add_argument("--model", default="resnet50", help="of torchvision, or cifar_resnet8 ...")
    parser.add_argument("--out", type=Path, help="folder of the results; default outputs/gpu/TIME")
    names = ",".join(plan.NAMES)
    parser.add_argument("--only", default=names, metavar="PARTS", help=f"some of {names}")
    parser.add_argument("--minutes", type=float, help="for all parts; their limits are scaled")
    parser.add_argument("--plan", action="store_true", help="print what would be done, and leave")
    row = parser.add_argument_group("one row in this process")
    row.add_argument("--row", metavar="NAME", help="as --plan names it; result in --out")
    row.add_argument("--cache", type=Path, help="folder for converted networks")
    row.add_argument("--seconds", type=float, help="after which the process is gone")
    args = parser.parse_args(arguments)
    args.only = args.only.split(",")
    for name in args.only:
        if name not in plan.NAMES:
            parser.error(f"--only {name}: there is no such part; choose some of {names}")
    if args.minutes is not None and not 0 < args.minutes < 1e4:
        parser.error(f"--minutes={args.minutes}: expected a positive number of minutes")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", args.device):
        parser.error(f"--device={args.device}: choose cpu, cuda or cuda:N")
    if args.device == "cuda":
        args.device = "cuda:0"
    if args.row is not None:
        if args.out is None:
            parser.error("--row needs --out=FOLDER, for its result")
        try:
            rows.by_name(args.row, args.device != "cpu")
        except ValueError as error:
            parser.error(str(error))
    return args


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    args = parsed(arguments)
    if args.row is not None:
        from bench.on_gpu.child import measure

        return measure(args.row, args.out, args.device, args.model, args.cache, args.seconds)
    parts = plan.planned(args.only, args.minutes)
    print(plan.told(parts, rows.rows(args.device != "cpu"), whole=args.plan), flush=True)
    if args.plan:
        return 0
    from bench.on_gpu.hold import hold  # torch, which takes seconds: the plan is told before

    return hold(parts, args.device, args.model, args.out)


if __name__ == "__main__":
    interrupt.raise_once()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # everything is on the disk, and Python's own farewell takes seconds
