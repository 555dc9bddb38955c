"""Which published networks convert: python bench/networks.py [--only "resnet*" "timm/*"].

Every network of bench/inputs/networks.yaml is built with random weights and converted, in a process
of its own; its row, or the reason for which it is refused, is appended to OUT/networks.jsonl. The
same command goes on from there. With --docs the tables of docs/networks.md are written from it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()

from bench import ROOT
from bench.errors import UserError
from bench.output.faults import curable, fail
from bench.output.progress import console


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked before any work."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "--only", nargs="+", default=[], metavar="GLOB", help="names, or PACKAGE/NAME, to try"
    )
    p.add_argument("--again", action="store_true", help="also those that OUT has rows of")
    p.add_argument(
        "--minutes", type=float, default=5, help="processor time for each; default %(default)s"
    )
    p.add_argument("--memory", type=float, metavar="GIB", help="for each; default: no limit")
    p.add_argument(
        "--out", type=Path, default=Path("outputs/networks"), help="default: %(default)s"
    )
    p.add_argument(
        "--docs",
        type=Path,
        nargs="?",
        const=ROOT / "docs/networks.md",
        metavar="FILE",
        help="try nothing; replace what is between the marks of docs/networks.md (or of FILE) by "
        "the tables of what OUT has",
    )
    args = p.parse_args(argv)
    for name in ("minutes", "memory"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            p.error(f"--{name}={value:g}: expected more than 0")
    return args


def run(args: argparse.Namespace) -> None:
    """Tries the networks, or writes the tables."""
    from bench.inputs.published import published
    from bench.measures.conversions import ledger
    from bench.output.claims import claim
    from bench.output.markdown import put
    from bench.output.tables.conversions import section

    networks = published(args.only)
    if not networks:
        raise UserError(f"--only {' '.join(args.only)}: bench/inputs/networks.yaml has none such")
    if args.docs is None:
        with claim(args.out, "--out"):
            ledger.go_through(networks, args.out, args.again, args.minutes, args.memory)
        return
    rows = ledger.read(args.out)
    found = [rows[network.key] for network in networks if network.key in rows]
    if not found:
        raise UserError(f"--out={args.out}: it has no rows of these networks: try them first")
    put(args.docs, "networks", section(found, len(networks)))
    console.print(f"written: {args.docs}", soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    """Tries what is missing, or writes; returns the exit code."""
    args = arguments(argv)
    try:
        with interrupt.importing():
            import bench.measures.conversions.trial  # noqa: F401
        run(args)
    except curable() as error:
        return fail(error, "--out or --docs")
    except KeyboardInterrupt as error:
        console.print(f"interrupted; the same command goes on from {args.out}", soft_wrap=True)
        return interrupt.code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
