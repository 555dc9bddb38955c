"""Builds a dashboard for Weights & Biases of what logger=wandb logs: python bench/dashboard.py.

A workspace and a report with sections for the gate, speed, spikes, layers and the machine. They are
kept as JSON files; with --publish they are saved at W&B, which needs a login.
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
from bench.output.progress import say


@in_one_sentence("--out")
def main(argv: list[str] | None = None) -> None:
    """Writes the specifications, and publishes them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", default="fskernel", help="as logger.project; %(default)s")
    parser.add_argument("--entity", help="user or team at W&B; default: that of your login")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/dashboard"), help="default: %(default)s"
    )
    parser.add_argument("--publish", action="store_true", help="save both at W&B, too")
    args = parser.parse_args(argv)
    ready(args.out, "--out")
    with interrupt.importing():
        from bench.output.dashboard import specification
    specification.packages()
    if args.publish:
        specification.check_login()
    for path in specification.save(args.project, args.out):
        say(f"specification: {path}")
    if args.publish:
        for url in specification.publish(args.project, args.entity):
            say(f"published: {url}")


if __name__ == "__main__":
    main()
