"""The paper's Table 2 with our networks: python bench/tables.py --cifar DIR --imagenet DIR.

For every network: neurons, accuracy of the ANN and of the FS network at the paper's setting and at
ours, spikes, latency; and for the CIFAR networks the accuracy of rate coding over its time steps.
What is measured goes into --out at once, and the same command goes on from there; all that is there
is then written between the marks of docs/results.md. `--cards` writes the table of trained weights
in docs/networks.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import interrupt

if __name__ == "__main__":
    interrupt.leave_at_once()  # the imports take seconds

import hydra
from omegaconf import DictConfig, OmegaConf
from torch import nn

from bench import machine, rate_curve, run
from bench.config import UserError, usable_cores, validate
from bench.markdown import line, put, share, with_interval
from bench.progress import bar, console, say
from bench.published import PAPER, SPIKES_CLAIM, THROUGHPUT_CLAIMS
from bench.rate_curve import Curve
from bench.record import Record
from bench.report import number, percent
from fskernel.models import shipped

HERE = Path(__file__).resolve().parent.parent
TITLES = {
    "cifar_resnet8": "ResNet8",
    "cifar_resnet14": "ResNet14",
    "cifar_resnet20": "ResNet20",
    "cifar_resnet50": "ResNet50 (CIFAR)",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "resnet50": "ResNet50 (ImageNet)",
}
NETWORKS = tuple(TITLES)
SETTINGS = ("default", "paper")  # files of conf/neuron
LONG_T, LONG_NETWORK = 2000, "cifar_resnet20"
SHOWN_T = (8, 16, 32, 64, 128, 256, 550, 1000, 2000)


@dataclass
class Job:
    """One network at one setting, and where it is written."""

    cfg: DictConfig
    directory: Path
    asked: dict  # what decides the figures


def is_cifar(name: str) -> bool:
    """Whether the network reads CIFAR-10."""
    return name.startswith("cifar")


def absent(name: str, args: argparse.Namespace) -> str | None:
    """Why a network cannot be measured here, or None."""
    if is_cifar(name):
        if args.cifar is None:
            return "no pictures (--cifar DIR)"
        return None if name in shipped.names() else "no trained weights come with this fskernel"
    if args.imagenet is None:
        return "no pictures (--imagenet DIR)"
    if name == "resnet50" and args.resnet50 is None:
        return "no weight file was given (--resnet50 FILE, as torchvision publishes it)"
    return None


def compose(name: str, setting: str, args: argparse.Namespace) -> Job:
    """What bench/run.py would be told."""
    kind = "cifar10" if is_cifar(name) else "wnid_files"
    overrides = [f"model={name}", f"neuron={setting}", f"data={kind}", "baseline=none"]
    with hydra.initialize_config_dir(str(HERE / "conf"), version_base="1.3"):
        cfg = hydra.compose("config", overrides=overrides)
    cfg.data.root = str(args.cifar if is_cifar(name) else args.imagenet)
    if name == "resnet50":
        cfg.model.weights = str(args.resnet50)
    cfg.images, cfg.threads = args.images, args.threads
    cfg.calibration = args.calibration if is_cifar(name) else 16  # sample photographs
    cfg.batch = 50 if is_cifar(name) else 10
    validate(cfg)
    cfg.neuron.K = cfg.K
    asked = {"options": overrides, "images": cfg.images, "calibration": cfg.calibration}
    asked["neuron"] = OmegaConf.to_container(cfg.neuron, resolve=True)
    return Job(cfg, args.out / name / setting, asked)


def measure(job: Job) -> dict | None:
    """Answers and spikes on all pictures, as in bench/run.py but not timed; its record's values.

    What is there already, for the same settings and weights, is not done again.
    """
    cfg = job.cfg
    ann, _ = run.models.build(cfg.model, cfg.seed, say)
    asked = job.asked | {"weights": fingerprint(ann)}
    done = read(job.directory / "results.json")
    if done is not None and done["complete"] and done["asked"] == json.dumps(asked):
        return done
    subject, record = prepare(job, job.directory)
    record.add(asked=json.dumps(asked))
    run.evaluate(cfg, subject, *subject.on("cpu"), record)
    if record.values["accuracy.fs"] is None:
        raise UserError(f"data.root={cfg.data.root}: the pictures have no labels")
    check_neurons(job.directory.parent.name, record.values["neurons"])
    record.add(complete=True)
    return record.values


def prepare(job: Job, directory: Path) -> tuple[run.Subject, Record]:
    """Both networks and their pictures, and a record that says on what and with what."""
    run.reset(job.cfg)
    record = Record(directory)
    record.add(
        model=job.cfg.model.name or job.cfg.model["_target_"].rpartition(".")[2],
        device="cpu",
        K=job.cfg.K,
        neuron=OmegaConf.to_container(job.cfg.neuron, resolve=True),
        date=date.today().isoformat(),
        versions=machine.versions(),
        machine=machine.machine(),
    )
    return run.prepare(job.cfg, record), record


def check_neurons(name: str, neurons: int) -> None:
    """Raises RuntimeError unless a network of the paper has the paper's neurons."""
    if name in PAPER and neurons != PAPER[name].neurons:
        raise RuntimeError(
            f"{name} has {neurons:,} neurons: the paper counts {PAPER[name].neurons:,}"
        )


def fingerprint(module: nn.Module) -> str:
    """Tells weights apart."""
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(key.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def read(path: Path) -> dict | None:
    """A JSON file, None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


def measure_curve(name: str, T: int, images: int, args: argparse.Namespace) -> None:
    """Rate coding for T steps on the first `images` of the evaluated pictures."""
    path = args.out / name / f"rate-{T}.json"
    jobs = {setting: compose(name, setting, args) for setting in SETTINGS}
    cfg = jobs["default"].cfg
    ann, _ = run.models.build(cfg.model, cfg.seed, say)
    asked = {"T": T, "images": images, "every": rate_curve.EVERY, "weights": fingerprint(ann)}
    asked |= {setting: job.asked for setting, job in jobs.items()}
    curve = Curve(asked)
    if path.is_file():
        found = Curve.load(path)
        curve = found if found.asked == asked else curve
    if curve.images >= images:
        return
    subjects = {
        setting: prepare(job, args.out / name / "rate" / setting)[0]
        for setting, job in jobs.items()
    }
    curve.record = {
        "date": date.today().isoformat(),
        "machine": machine.machine(),
        "versions": machine.versions(),
        "time": "not timed",
    }
    subject = subjects["default"]
    batches = list(subject.evaluated.batches(images, cfg.batch))
    with bar(f"rate-coded {name}, {T} steps", T * len(batches)) as advance:
        rate_curve.measure(
            curve,
            subject.ann,
            {setting: s.net for setting, s in subjects.items()},
            subject.calibration,
            batches,
            T,
            lambda c: c.save(path),
            advance,
        )


# ---- what is written ---------------------------------------------------------------------------

COLUMNS = (
    "network",
    "",
    "neurons",
    "top-1",
    "spikes/image",
    "spikes/neuron",
    "latency, steps",
    "interval, steps",
)


def table(records: dict[str, dict[str, dict]]) -> list[str]:
    """Rows for every network: the ANN, the FS networks, the paper.

    Args:
        records: the records' values by network and setting.
    """
    lines = [line(COLUMNS), line("---" for _ in COLUMNS)]
    for name, settings in records.items():
        lines += network_rows(name, settings)
    return lines


def network_rows(name: str, settings: dict[str, dict]) -> list[str]:
    """The rows of one network; its name and neurons stand in the first."""
    rows: list[list[str]] = []
    anns: dict[float, str] = {}
    for setting, v in settings.items():
        if v["accuracy.ann"] not in anns:
            pools = ", average-pools" if anns or v["neuron.average_pool"] else ""
            anns[v["accuracy.ann"]] = setting
            rows.append([f"ANN{pools}, {v['images']:,} pictures", share(v, "ann"), *["-"] * 4])
    for setting, v in settings.items():
        rows.append(
            [
                f"FS, {described(setting, v)}",
                share(v, "fs"),
                number(v["fs.spikes_per_image"]),
                f"{v['fs.spikes_per_neuron']:.3f}",
                number(v["fs.latency_steps"]),
                number(v["fs.interval_steps"]),
            ]
        )
    neurons = next(iter(settings.values()))["neurons"]
    paper = PAPER.get(name)
    if paper is not None:
        accuracies = [
            f"{net} {value} %"
            for net, value in (("ANN", paper.ann), ("FS", paper.fs))
            if value is not None
        ]
        rows.append(
            [
                "*the paper's own*",
                ", ".join(accuracies) or "not at hand",
                number(round(paper.spikes)),
                f"{paper.spikes / paper.neurons:.3f}",
                number(settings["paper"]["fs.latency_steps"]),  # it counts the same way
                number(settings["paper"]["fs.interval_steps"]),
            ]
        )
    heads = [(TITLES[name], number(neurons)), *[("", "")] * (len(rows) - 1)]
    return [line([title, r[0], count, *r[1:]]) for (title, count), r in zip(heads, rows)]


def described(setting: str, v: dict) -> str:
    """A setting in words."""
    title = {"paper": "the paper's setting", "default": "our default"}[setting]
    return (
        f"{title}: K={v['K']}, alpha {v['neuron.alpha']}, {v['neuron.rounding']}, "
        f"{v['neuron.weight_bits']}-bit weights"
    )


def curve_rows(curve: Curve) -> list[str]:
    """Accuracy and spikes of rate coding after some numbers of steps."""
    lines = [line(("T", "top-1", "spikes/image")), line(["---"] * 3)]
    for T in SHOWN_T:
        if T in curve.T:
            shown = with_interval(*curve.accuracy(T), percent)
            lines.append(line((str(T), shown, number(round(curve.spikes_per_image(T))))))
    return lines


def reading(curve: Curve, setting: str) -> str:
    """Where rate coding reaches an FS network on the same pictures, in a sentence."""
    rival = curve.rivals[setting]
    share_of = percent(rival.right / curve.images)
    mine = rival.spikes / curve.images
    who = (
        f"FS, {setting} (K={rival.K}): {share_of}, {mine:,.0f} spikes, a picture every "
        f"{rival.interval_steps} steps, latency {rival.latency_steps}"
    )
    T = curve.reached(rival.right)
    if T is None:
        best = max(curve.right) / curve.images
        return (
            f"{who}. Rate coding does not reach it within {curve.T[-1]} steps (best: "
            f"{percent(best)})."
        )
    theirs = curve.spikes_per_image(T)
    others = ", ".join(
        f"{'never' if found is None else f'T={found}'} within {100 * tolerance:g}"
        for tolerance in (0, 2 * rate_curve.TOLERANCE)
        for found in [curve.reached(rival.right, tolerance)]
    )
    return (
        f"{who}. Rate coding reaches it at T={T} ({percent(curve.accuracy(T)[0])}; {others} "
        f"points) with {theirs:,.0f} spikes: {T / rival.interval_steps:.1f} times the interval, "
        f"{T / rival.latency_steps:.1f} times the latency, {theirs / mine:.1f} times the spikes."
    )


def curve_section(title: str, curve: Curve) -> list[str]:
    """The table of one curve and what it says."""
    ann = percent(curve.ann_right / curve.images)
    return [
        f"{title}, up to T={curve.T[-1]}, the first {curve.images} of the test pictures above "
        f"(ANN: {ann}; one picture is {100 / curve.images:g} points):",
        "",
        *curve_rows(curve),
        "",
        *(f"* {reading(curve, setting)}" for setting in SETTINGS),
        "",
    ]


def section(
    records: dict[str, dict[str, dict]],
    curves: dict[str, list[Curve]],
    missing: dict[str, str],
    command: str,
    plot: str | None,
) -> str:
    """All of it as Markdown."""
    last = max((v for s in records.values() for v in s.values()), key=lambda v: v["date"])
    versions = last["versions"]
    commits = {v["versions"]["commit"] for s in records.values() for v in s.values()}
    lines = [
        f"{last['date']}, {last['machine']['cpu']}, kernels {last['fs.isa']}; Python "
        f"{versions['python']}, torch {versions['torch']}, fskernel {versions['fskernel']} "
        f"({', '.join(sorted(map(str, commits)))}). Intervals are 95 % (Wilson).",
        "",
        f"```\n{command}\n```",
        "",
        *table(records),
        "",
    ]
    notes = [f"{TITLES[name]} is missing: {reason}." for name, reason in missing.items()]
    if any(map(is_cifar, records)):
        notes += cifar_notes(records)
    for name, settings in records.items():
        found = dict.fromkeys(n for v in settings.values() for n in v["notes"])
        notes += [f"{TITLES[name]}: {note}." for note in found if not is_cifar(name)]
    lines += [*(f"* {note}" for note in notes), ""]
    if curves:
        lines += rate_section(curves, plot)
    return "\n".join(lines)


def cifar_notes(records: dict[str, dict[str, dict]]) -> list[str]:
    """What differs from the paper."""
    cards = {name: shipped.card(name) for name in records if is_cifar(name)}
    card = next(iter(cards.values()))
    epochs = ", ".join(sorted({str(c["epochs"]) for c in cards.values()}))
    images = next(v["images"] for name in cards for v in records[name].values())
    calibration = next(v["calibration"] for name in cards for v in records[name].values())
    return [
        "CIFAR-10 differs from the paper's in the pictures, which are JPEG files here and cost "
        f"accuracy (training: {card['data']['training']}; {images:,} test pictures are scored), "
        f"and in the training, which is short ({epochs} epochs). Compare FS with the ANN, and "
        "spikes with the paper's; accuracies of other pictures tell nothing.",
        f"Alpha and the picture's range were measured on {calibration} training pictures. The "
        "paper's accuracies for these networks that are marked so are not at hand.",
        "Neurons equal the paper's, or the command stops.",
    ]


def rate_section(curves: dict[str, list[Curve]], plot: str | None) -> list[str]:
    """The curves of rate coding, and the paper's claims beside what is read off them."""
    low, high = THROUGHPUT_CLAIMS
    lines = [
        "### Rate coding over its time steps",
        "",
        "`fskernel.RateNetwork`: integrate-and-fire neurons with reset by subtraction, weights "
        "scaled by the 99.9th percentile of each layer's activations on the same calibration "
        f"pictures, answers read every {rate_curve.EVERY} steps. It has reached an accuracy where "
        f"it is at most {100 * rate_curve.TOLERANCE} points below, there and at all later steps. "
        "Nothing here was timed.",
        "",
    ]
    if plot is not None:
        lines += [f"![Accuracy of rate coding over time steps]({plot})", ""]
    for name, found in curves.items():
        for curve in found:
            lines += curve_section(TITLES[name], curve)
    return [
        *lines,
        f"The paper claims {low} and {high} times the throughput of rate coding and {SPIKES_CLAIM} "
        "times fewer spikes, compared with published networks of a fixed T. A pipeline of FS "
        "neurons takes a new picture every 2K steps, rate coding one every T. Measured on the same "
        "network and pictures, at equal accuracy and after all steps of the simulation:",
        "",
        *claims(curves),
        "",
    ]


def claims(curves: dict[str, list[Curve]]) -> list[str]:
    """The ratios of rate coding to FS at equal accuracy and after all steps."""
    low, high = THROUGHPUT_CLAIMS
    head = (
        "network",
        "FS",
        "T at equal accuracy",
        f"T/(2K), claimed {low} to {high}",
        f"spikes, claimed {SPIKES_CLAIM}",
        "T of all steps",
        "T/(2K)",
        "spikes",
    )
    lines = [line(head), line("---" for _ in head)]
    for name, found in curves.items():
        for curve in found:
            for setting in SETTINGS:
                title = f"{TITLES[name]}, {curve.images} pictures"
                T = curve.reached(curve.rivals[setting].right)
                cells = [str(T), *ratios(curve, setting, T)] if T else ["not reached", "-", "-"]
                last = curve.T[-1]
                all_steps = [str(last), *ratios(curve, setting, last)]
                lines.append(line([title, setting, *cells, *all_steps]))
    return lines


def ratios(curve: Curve, setting: str, T: int) -> list[str]:
    """Time steps and spikes of a picture, rate coding over FS."""
    rival = curve.rivals[setting]
    spikes = curve.spikes_per_image(T) / (rival.spikes / curve.images)
    return [f"{T / rival.interval_steps:.1f}", f"{spikes:.1f}"]


def cards_table() -> str:
    """The trained weights that ship, from their cards."""
    head = ("network", "top-1", "epochs", "seed", "trained on", "scored on", "command")
    lines = [line(head), line("---" for _ in head)]
    for name in sorted(shipped.names(), key=lambda n: int(n.rpartition("t")[2])):
        c = shipped.card(name)
        low, high = c["interval_95_percent"]
        lines.append(
            line(
                (
                    name,
                    f"{c['top1_percent']:.1f} % [{low:.1f}, {high:.1f}]",
                    str(c["epochs"]),
                    str(c["seed"]),
                    c["data"]["training"],
                    c["data"]["test"],
                    f"`{c['command']}`",
                )
            )
        )
    return "\n".join(lines)


def collect(out: Path) -> tuple[dict, dict]:
    """Complete records by network and setting, and curves by network, in the tables' order."""
    records: dict[str, dict[str, dict]] = {}
    curves: dict[str, list[Curve]] = {}
    for name in NETWORKS:
        found = {s: read(out / name / s / "results.json") for s in SETTINGS}
        complete = all(v is not None and v["complete"] for v in found.values())
        if complete and len({v["images"] for v in found.values()}) == 1:
            records[name] = found
        paths = sorted((out / name).glob("rate-*.json"), key=lambda p: int(p.stem[5:]))
        loaded = [c for c in map(Curve.load, paths) if c.images]
        if loaded and name in records:
            curves[name] = loaded
    return records, curves


def write(args: argparse.Namespace, missing: dict[str, str]) -> None:
    """The section of the document and the plot beside it, from all that is in --out."""
    records, curves = collect(args.out)
    if not records:
        say("nothing was measured: no tables are written")
        return
    plot = args.docs.with_name("rate_curve.svg") if curves else None
    if plot is not None:
        # The longest curve of each network.
        figure = rate_curve.figure({TITLES[n]: c[-1] for n, c in curves.items()})
        figure.savefig(plot, metadata={"Date": None})
    missing = {n: reason for n, reason in missing.items() if n not in records}
    text = section(records, curves, missing, command(args), plot.name if plot else None)
    put(args.docs, "paper's table", text)
    say(f"tables: {args.docs}")


# ---- the command line --------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Its options."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cifar", type=Path, help="folder of CIFAR-10, see conf/data/cifar10.yaml")
    p.add_argument("--imagenet", type=Path, help="flat folder of INDEX_WNID.jpg")
    p.add_argument("--resnet50", type=Path, help="torchvision's weights of ResNet50, a file")
    p.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME")
    p.add_argument("--images", type=int, help="pictures scored; default: all")
    p.add_argument("--calibration", type=int, default=100, help="CIFAR training pictures")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rate-images", type=int, default=500, help="for each curve; 0: no curves")
    p.add_argument("--rate-steps", type=int, default=550)
    p.add_argument(
        "--long-images", type=int, default=200, help=f"{LONG_NETWORK} for {LONG_T} steps; 0: not"
    )
    p.add_argument("--out", type=Path, default=Path("outputs/tables"))
    p.add_argument("--docs", type=Path, default=HERE / "docs/results.md")
    p.add_argument("--cards", action="store_true", help="only write the cards: docs/networks.md")
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
        shown = {"cifar": "DIR", "imagenet": "DIR", "resnet50": "FILE"}.get(key, value)
        words.append(f"--{key.replace('_', '-')} {shown}")
    return " ".join(words)


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, then writes; returns the exit code."""
    args = arguments(argv)
    if args.cards:
        put(args.docs.with_name("networks.md"), "cards", cards_table())
        return 0
    missing = {n: reason for n in args.networks if (reason := absent(n, args))}
    for name, reason in missing.items():
        say(f"{TITLES[name]} is left out: {reason}")
    try:
        for name in args.networks:
            if name in missing:
                continue
            for setting in SETTINGS:
                measure(compose(name, setting, args))
            if is_cifar(name) and args.rate_images:
                measure_curve(name, args.rate_steps, args.rate_images, args)
            if name == LONG_NETWORK and args.long_images:
                measure_curve(name, LONG_T, args.long_images, args)
        write(args, missing)
    except UserError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on from {args.out}", soft_wrap=True)
        return interrupt.CODE
    return 0


if __name__ == "__main__":
    interrupt.raise_once()
    sys.exit(main())
