"""The paper's Table 2 with our networks: python bench/tables.py --cifar DIR --imagenet DIR.

For every network: neurons, accuracy of the ANN and of the FS network at the paper's setting and at
ours, spikes, latency; and for the CIFAR networks the accuracy of rate coding over its time steps.
What is measured goes into --out at once, and the same command goes on from there; all that is there
is then written as tables.md, and drawn as rate_curve.svg, beside it. With --docs both replace what
docs/ has. `--cards` is the table of trained weights of docs/networks.md, `--neurons` that of
docs/fitted.md: shaped and fitted neurons in the CIFAR networks whose activations are no ReLU.
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
from bench.output.cores import usable_cores
from bench.output.faults import curable, fail
from bench.output.progress import console
from bench.paper.published import LONG_NETWORK, LONG_T, NETWORKS


def parser() -> argparse.ArgumentParser:
    """Its options."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cifar", type=Path, help="folder of CIFAR-10, see conf/data/cifar10.yaml")
    p.add_argument("--imagenet", type=Path, help="flat folder of INDEX_WNID.jpg")
    p.add_argument("--resnet50", type=Path, help="torchvision's weights of ResNet50, a file")
    p.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME")
    p.add_argument("--images", type=int, help="images scored; default: all")
    p.add_argument("--calibration", type=int, default=100, help="CIFAR training images")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rate-images", type=int, default=500, help="for each curve; 0: no curves")
    p.add_argument("--rate-steps", type=int, default=550)
    p.add_argument(
        "--long-images", type=int, default=200, help=f"{LONG_NETWORK} for {LONG_T} steps; 0: not"
    )
    p.add_argument("--out", type=Path, default=Path("outputs/tables"), help="default: %(default)s")
    p.add_argument(
        "--docs",
        type=Path,
        nargs="?",
        const=ROOT / "docs/results.md",
        metavar="FILE",
        help="replace what is between the marks of docs/results.md (or of FILE), and the plot "
        "beside it; without, nothing is written outside --out",
    )
    p.add_argument(
        "--cards",
        action="store_true",
        help="only the table of trained weights: OUT/cards.md, with --docs in docs/networks.md",
    )
    p.add_argument(
        "--neurons",
        action="store_true",
        help="only shaped and fitted neurons over K: OUT/neurons.md, with --docs in docs/fitted.md",
    )
    return p


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked before any work."""
    p = parser()
    args = p.parse_args(argv)
    for name in ("images", "calibration", "rate_steps", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            p.error(f"--{name.replace('_', '-')}={value}: expected at least 1")
    for name in ("rate_images", "long_images"):
        if getattr(args, name) < 0:
            p.error(f"--{name.replace('_', '-')}={getattr(args, name)}: expected 0 or more")
    if args.neurons and args.cifar is None:
        p.error("--neurons: the networks are for CIFAR-10; name its folder with --cifar DIR")
    if args.threads > usable_cores():
        p.error(f"--threads={args.threads}: this process may use {usable_cores()} core(s)")
    for name in ("cifar", "imagenet"):
        path = getattr(args, name)
        if path is not None and not path.is_dir():
            p.error(f"--{name}={path}: there is no such folder")
    if args.resnet50 is not None and not args.resnet50.is_file():
        p.error(f"--resnet50={args.resnet50}: there is no such file")
    return args


def command(args: argparse.Namespace) -> str:
    """The command that measures the same, without the places on this machine."""
    words, standard = ["python bench/tables.py"], vars(parser().parse_args([]))
    for key, value in vars(args).items():
        if key in ("out", "docs", "networks") or value == standard[key]:
            continue
        if value is True:
            words.append(f"--{key}")
            continue
        shown = {"cifar": "DIR", "imagenet": "DIR", "resnet50": "FILE"}.get(key, value)
        words.append(f"--{key.replace('_', '-')} {shown}")
    return " ".join(words)


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, then writes; returns the exit code."""
    args = arguments(argv)
    try:
        with interrupt.importing():
            from bench.output.claims import claim
            from bench.paper import neuron_runs
            from bench.paper.table_runs import check_document, measure_all, write_cards
        check_document(args)
        with claim(args.out, "--out"):
            if args.cards:
                write_cards(args)
            elif args.neurons:
                neuron_runs.measure_all(args, command(args))
            else:
                measure_all(args, command(args))
    except curable() as error:
        return fail(error, "--out or --docs")
    except KeyboardInterrupt as error:
        console.print(f"interrupted; the same command goes on from {args.out}", soft_wrap=True)
        return interrupt.code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
