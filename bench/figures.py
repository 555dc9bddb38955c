"""Draws the figures of docs/figures.md into outputs/figures: python bench/figures.py.

The network is what conf/model/NAME.yaml gives, the images are crops of sample photographs. The
harness draws the same of its own run, but for the trade of spikes against the error of the logits.
With --docs the files go into docs/figures, in place of those that are there.
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
from bench.errors import UserError
from bench.output.faults import in_one_sentence
from bench.output.folders import FORMATS, ready
from bench.output.progress import say


@in_one_sentence("--out")
def main(argv: list[str] | None = None) -> None:
    """Draws and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cifar_resnet20", help="a name of conf/model")
    parser.add_argument("--K", type=int, default=8, help="time steps of what is drawn")
    parser.add_argument("--format", choices=FORMATS, default="png")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--out", type=Path, default=Path("outputs/figures"), help="default: %(default)s"
    )
    place.add_argument(
        "--docs", action="store_true", help="replace the figures of the documentation, docs/figures"
    )
    args = parser.parse_args(argv)
    if args.docs and args.format != "png":
        parser.error(f"--format={args.format}: --docs takes png, which docs/figures.md shows")
    out = ROOT / "docs/figures" if args.docs else args.out
    ready(out, "--docs" if args.docs else "--out")
    with interrupt.importing():
        from bench.measures.samples import draw
        from fskernel import ConversionError
    try:
        paths, notes = draw(args.model, args.K, out, args.format)
    except (UserError, ConversionError) as error:
        parser.error(str(error))
    for note in notes:
        say(f"! {note}")
    for path in paths:
        say(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
