"""Whole modules with Few-Spikes layers in place, against the originals: python bench/replace.py.

Both run in turn, in channels_last and one thread unless told otherwise; their order changes from
round to round. The weights are random, the statistics of batch norms those of random images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()

from bench.output.faults import in_one_sentence
from bench.output.folders import ready

MODELS = (
    "resnet50",
    "mobilenet_v2",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked before any work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--K", type=int, default=8)
    parser.add_argument("--input-K", type=int, default=None, help="default: as fskernel.replace")
    parser.add_argument("--weight-bits", type=int, default=8, choices=(8, 16))
    parser.add_argument("--size", type=int, default=224, help="of the images, default 224")
    parser.add_argument("--batch", type=int, default=1, help="images in a call, default 1")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="print what became of every layer")
    parser.add_argument("--out", type=Path, default=Path("outputs/replace.json"))
    args = parser.parse_args(argv)
    for name in ("rounds", "threads", "size", "batch"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)}: expected at least 1")
    for name in ("K", "input_K"):
        if getattr(args, name) is not None and not 1 <= getattr(args, name) <= 15:
            parser.error(f"--{name.replace('_', '-')}={getattr(args, name)}: expected 1 to 15")
    return args


@in_one_sentence("--out")
def main(argv: list[str] | None = None) -> None:
    """Measures, prints and saves."""
    args = arguments(argv)
    ready(args.out.parent, "--out")
    with interrupt.importing():
        from bench.measures.speed import modules
    modules.run(args, " ".join(["python", "bench/replace.py", *(argv or sys.argv[1:])]))


if __name__ == "__main__":
    main()
