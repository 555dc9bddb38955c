"""How time grows with image, width, K, batch and threads: python bench/scaling.py.

ResNet50 with random weights through the public call. All points of an axis are timed in turn, in a
new random order every round; every call is made twice and the second is timed. Prints a table for
each axis, writes all of it as JSON, and draws a plot; with --docs that of docs/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.leave_at_once()  # there is nothing to keep yet

from bench import ROOT
from bench.measures.speed.axes import AXES
from bench.output.faults import in_one_sentence
from bench.output.folders import ready


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked before any work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("outputs/scaling.json"))
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--plot", type=Path, default=Path("outputs/scaling.svg"))
    place.add_argument("--docs", action="store_true", help="replace docs/scaling.svg by the plot")
    args = parser.parse_args(argv)
    if args.docs:
        args.plot = ROOT / "docs/scaling.svg"
    if args.rounds < 1:
        parser.error(f"--rounds={args.rounds}: expected at least 1")
    return args


@in_one_sentence("--out and --plot")
def main(argv: list[str] | None = None) -> None:
    """Measures, prints, saves and draws."""
    args = arguments(argv)
    ready(args.out.parent, "--out")
    ready(args.plot.parent, "--docs" if args.docs else "--plot")
    with interrupt.importing():
        from bench.measures.speed import growth
    growth.run(args, " ".join(["python", "bench/scaling.py", *(argv or sys.argv[1:])]))


if __name__ == "__main__":
    main()
    sys.exit(interrupt.came())
