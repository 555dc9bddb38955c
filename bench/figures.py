"""Draws the figures of docs/figures.md: python bench/figures.py.

The network is what conf/model/NAME.yaml gives, the images are sample photographs. The harness
draws the same of its own run, but for the trade of spikes against the error of the logits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()

from bench.errors import UserError
from bench.output.faults import in_one_sentence
from bench.output.folders import ready
from bench.output.progress import say


@in_one_sentence("--out")
def main(argv: list[str] | None = None) -> None:
    """Draws and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cifar_resnet20", help="a name of conf/model")
    parser.add_argument("--K", type=int, default=8, help="time steps of what is drawn")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    args = parser.parse_args(argv)
    ready(args.out, "--out")
    with interrupt.importing():
        from bench.measures.samples import prepare, trade
        from bench.output.drawing import save, write
        from fskernel import ConversionError
        from fskernel.analysis import plots
    try:
        subject, notes = prepare(args.model, args.K)
        paths = save(subject.net, subject.calibration, args.out)
        paths.append(write(plots.transfer_curve(4, 6.0, "floor"), args.out / "transfer_K4.png"))
        error = plots.pareto(trade(args.model), y="logit_error")
        paths.append(write(error, args.out / "pareto.png"))
    except (UserError, ConversionError) as error:
        parser.error(str(error))
    for note in notes:
        say(f"! {note}")
    for path in paths:
        say(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
