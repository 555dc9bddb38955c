"""Fits the neurons that the package ships: python bench/neurons.py [--rounds 10000].

They go into fskernel/calibration/fitted_neurons.json, each as soon as it is fitted; the same
command goes on from there. A neuron that was fitted with fewer rounds is fitted again, and the
better one of the two is kept. With --docs the table of docs/fitted.md is written from the file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()

from bench import ROOT
from bench.output.faults import curable, fail
from bench.output.progress import bar, console

STEPS = (16, 12, 8)
LOWS = {"silu": -8, "hardswish": -3, "gelu": -4}
HIGHS = (8, 16, 4, 32, 2, 1)  # those that layers have most often come first


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked before any work."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=10000, help="of each fit; default: %(default)s")
    p.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    p.add_argument(
        "--out",
        type=Path,
        default=ROOT / "fskernel/calibration/fitted_neurons.json",
        help="default: the file of the package",
    )
    p.add_argument(
        "--docs",
        type=Path,
        nargs="?",
        const=ROOT / "docs/fitted.md",
        metavar="FILE",
        help="fit nothing; replace what is between the marks of docs/fitted.md (or of FILE)",
    )
    args = p.parse_args(argv)
    for name, least in (("rounds", 1), ("seed", 0)):
        if getattr(args, name) < least:
            p.error(f"--{name}={getattr(args, name)}: expected at least {least}")
    return args


def wanted() -> Iterator[tuple[str, int, int, int]]:
    """Function, K and range of each neuron, in the order in which they are fitted."""
    for K in STEPS:
        for high in HIGHS:
            yield from ((function, K, low, high) for function, low in LOWS.items())
        yield "sigmoid", K, -8, 8


def key(entry: dict) -> tuple:
    """What a neuron was fitted to."""
    return tuple(entry[name] for name in ("function", "K", "low", "high"))


def written(numbers: tuple[float, ...]) -> list[float]:
    """Float32 numbers with as many digits as tell them from their neighbours."""
    return [float(f"{x:.9g}") for x in numbers]


def fitted(function: str, K: int, low: int, high: int, rounds: int, seed: int) -> dict:
    """A neuron with what it is like, how it was made, and the most rounds that were tried."""
    from fskernel import fit_neuron
    from fskernel.activations import Activation
    from fskernel.calibration.fit import errors_of

    neuron = fit_neuron(function, K, (low, high), rounds=rounds, seed=seed)
    rms, worst, spikes = errors_of(neuron, Activation(function))
    return {
        **{"function": function, "K": K, "low": low, "high": high},
        **{"rms": rms, "worst": worst, "spikes": spikes},
        **{"rounds": rounds, "seed": seed, "tried": rounds},
        "command": f"python bench/neurons.py --rounds {rounds} --seed {seed}",
        "thresholds": written(neuron.thresholds),
        "resets": written(neuron.resets),
        "weights": written(neuron.weights),
    }


def read(path: Path) -> dict[tuple, dict]:
    """The neurons of a file, by what they were fitted to."""
    entries = json.loads(path.read_text()) if path.is_file() else []
    return {key(entry): entry for entry in entries}


def save(entries: dict[tuple, dict], path: Path) -> None:
    """All of them, a line for each."""
    from fskernel.files import write_text

    ordered = [entries[what] for what in sorted(entries)]
    write_text(path, "[\n" + ",\n".join(map(json.dumps, ordered)) + "\n]\n")


def fit_all(args: argparse.Namespace) -> None:
    """Fits what is missing or was fitted with less effort."""
    entries = read(args.out)
    todo = [what for what in wanted() if entries.get(what, {}).get("tried", 0) < args.rounds]
    with bar("fitting neurons", len(todo)) as advance:
        for what in todo:
            new = fitted(*what, args.rounds, args.seed)
            old = entries.get(what)
            if old is not None and old["rms"] <= new["rms"]:
                new = old | {"tried": args.rounds}
            entries[what] = new
            save(entries, args.out)
            advance(1)
    console.print(f"{len(entries)} neurons in {args.out}")


def table(entries: list[dict]) -> list[str]:
    """Their errors beside those of a uniform code, one row for each range, as Markdown."""
    import torch

    from bench.output import markdown
    from fskernel.activations import Activation

    ranges: dict[tuple, list[dict]] = {}
    for entry in sorted(entries, key=lambda e: (e["function"], e["high"], e["K"])):
        ranges.setdefault((entry["function"], entry["low"], entry["high"]), []).append(entry)
    rows = []
    for (function, low, high), found in ranges.items():
        activation = Activation(function)
        y = activation(torch.linspace(low, high, 4001, dtype=torch.float64))
        span = float(y.max() - y.min()) / math.sqrt(12)

        def each(show, found=found):
            return ", ".join(map(show, found))

        rows.append(
            [
                *(activation.text(), f"{low} to {high}", each(lambda e: str(e["K"]))),
                each(lambda e: f"{e['rms']:.2g}"),
                each(lambda e: f"{e['worst']:.2g}"),
                each(lambda e: f"{e['spikes']:.1f}"),
                each(lambda e, span=span: f"{span / (2 ** e['K'] - 1):.1g}"),
            ]
        )
    head = ["function", "range", "K", "rms", "largest error", "spikes", "rms of a uniform code"]
    return markdown.table(head, rows)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns what the process ends with."""
    args = arguments(argv)
    try:
        if args.docs is None:
            fit_all(args)
        else:
            from bench.output.markdown import put

            put(args.docs, "neurons", "\n".join(table(list(read(args.out).values()))))
    except curable() as error:
        return fail(error, "--out")
    except KeyboardInterrupt as error:
        console.print("interrupted; the same command goes on from there")
        return interrupt.code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
