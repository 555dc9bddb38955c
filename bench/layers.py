"""Time of every layer inside the network, against the processor's own peak: python bench/layers.py.

Layers that are the same in everything that decides their speed share a row. Depthwise layers are
also compared with torch's float32 convolution of the same geometry, in turn, in the same run.
With --drop-in the layers are called one by one instead, as FSConv2d; with --rate those of the
rate-coded network are, on spikes that are drawn, beside an image of the FS network.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()

from bench.output.faults import in_one_sentence
from bench.output.folders import ready


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked before any work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50", help="a name in torchvision.models")
    parser.add_argument("--K", type=int, default=8)
    parser.add_argument("--weight-bits", type=int, default=8, choices=(8, 16))
    parser.add_argument("--size", type=int, default=224, help="of the image, default 224")
    parser.add_argument("--rounds", type=int, help="default 30, or 20 with --drop-in")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--drop-in", action="store_true", help="FSConv2d and nn.Conv2d + ReLU, layer by layer"
    )
    parser.add_argument(
        "--batch", type=int, nargs="+", help="with --drop-in: images in a call, default 1 8"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TEXT", help="with --drop-in: rows that have it in their name"
    )
    parser.add_argument(
        "--rate", type=float, nargs="+", metavar="SHARE",
        help="time steps of rate-coded layers in which this share of the inputs spikes",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="default: outputs/layers.json, drop_in.json, ...")
    args = parser.parse_args(argv)
    for name in ("batch", "only"):
        if getattr(args, name) and not args.drop_in:
            parser.error(f"--{name} is for --drop-in alone")
    args.batch = args.batch or [1, 8]
    if args.rate and args.drop_in:
        parser.error("--rate and --drop-in are two measurements: ask for one of them")
    for share in args.rate or ():
        if not 0 <= share <= 1:
            parser.error(f"--rate={share:g}: expected shares from 0 to 1")
    what = "drop_in" if args.drop_in else "rate_steps" if args.rate else "layers"
    args.out = args.out or Path("outputs", f"{what}.json")
    if min(args.batch) < 1:
        parser.error(f"--batch={args.batch}: expected at least 1")
    if args.rounds is None:
        args.rounds = 20 if args.drop_in else 30
    for name in ("rounds", "threads", "size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)}: expected at least 1")
    if not 1 <= args.K <= 15:
        parser.error(f"--K={args.K}: expected 1 to 15")
    with interrupt.importing():
        networks = import_module("torchvision.models")
    if not hasattr(networks, args.model):
        parser.error(f"--model={args.model}: torchvision.models has no such network")
    return args


@in_one_sentence("--out")
def main(argv: list[str] | None = None) -> None:
    """Measures, prints and saves."""
    args = arguments(argv)
    ready(args.out.parent, "--out")
    with interrupt.importing():
        from bench.measures.speed import drop_in, layer_times, rate_steps
    command = " ".join(["python", "bench/layers.py", *(argv or sys.argv[1:])])
    (drop_in if args.drop_in else rate_steps if args.rate else layer_times).run(args, command)


if __name__ == "__main__":
    main()
