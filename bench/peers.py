"""Times the FS network against the best integer and float runtimes: python bench/peers.py.

All in one process, in a random order every round, so that what disturbs the machine disturbs all of
them. A ratio is the median over the rounds of time / time within one round.
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
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="default: 1 8")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="of the images, default 224")
    parser.add_argument("--model", default="resnet50", help="a name in torchvision.models")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rivals, by parts of their names")
    parser.add_argument("--out", type=Path, default=Path("outputs/peers.json"))
    args = parser.parse_args(argv)
    for name in ("rounds", "threads", "size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)}: expected at least 1")
    if min(args.batch) < 1:
        parser.error(f"--batch={args.batch}: expected at least 1")
    with interrupt.importing():
        from bench.measures.speed.race import chosen
        from bench.measures.speed.rivals import RIVALS

        networks = import_module("torchvision.models")
    if not hasattr(networks, args.model):
        parser.error(f"--model={args.model}: torchvision.models has no such network")
    if args.only and not chosen(args.only):
        parser.error(
            f"--only {' '.join(args.only)}: no such rival; there are "
            + ", ".join(r.name for r in RIVALS)
        )
    return args


@in_one_sentence("--out")
def main(argv: list[str] | None = None) -> None:
    """Measures, prints and saves."""
    args = arguments(argv)
    ready(args.out.parent, "--out")
    from bench.measures.speed import race

    race.run(args, " ".join(["python", "bench/peers.py", *(argv or sys.argv[1:])]))


if __name__ == "__main__":
    main()
    sys.exit(interrupt.came())
