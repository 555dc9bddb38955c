"""What the paper's table needs: measured, kept, and written into the document."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from torch import nn

from bench import ROOT
from bench.errors import UserError
from bench.inputs import models
from bench.inputs.checks import validate
from bench.inputs.config import network_name, register
from bench.measures import answers, subject
from bench.measures.rate import WEAK_AND_STRONG
from bench.measures.subject import Subject
from bench.output import machine
from bench.output.folders import ready
from bench.output.markdown import parts, put
from bench.output.progress import bar, say
from bench.output.record import Record
from bench.paper import rate_curve
from bench.paper.published import LONG_NETWORK, LONG_T, NETWORKS, PAPER, SETTINGS, TITLES, is_cifar
from bench.paper.rate_curve import Curve
from bench.paper.tables_text import cards_table, section
from fskernel.analysis import style
from fskernel.files import write_text
from fskernel.models import shipped


@dataclass
class Job:
    """One network at one setting, and where it is written."""

    cfg: DictConfig
    directory: Path
    asked: dict  # what decides the figures


def absent(name: str, args: argparse.Namespace) -> str | None:
    """Why a network cannot be measured here, or None."""
    if is_cifar(name):
        if args.cifar is None:
            return "no images (--cifar DIR)"
        return None if name in shipped.names() else "no trained weights come with this fskernel"
    if args.imagenet is None:
        return "no images (--imagenet DIR)"
    if name == "resnet50" and args.resnet50 is None:
        return "no weight file was given (--resnet50 FILE, as torchvision publishes it)"
    return None


def compose(name: str, setting: str, args: argparse.Namespace) -> Job:
    """What bench/run.py would be told."""
    kind = "cifar10" if is_cifar(name) else "wnid_files"
    overrides = [f"model={name}", f"neuron={setting}", f"data={kind}", "baseline=none"]
    register()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
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
    """Answers and spikes on all images, as in bench/run.py but not timed; its record's values.

    What is there already, for the same settings and weights, is not done again.
    """
    cfg = job.cfg
    ann, _ = models.build(cfg.model, cfg.seed, say)
    asked = job.asked | {"weights": fingerprint(ann)}
    done = read(job.directory / "results.json")
    if done is not None and done["complete"] and done["asked"] == json.dumps(asked):
        return done
    with Record(job.directory, "--out", replace=True) as record:
        networks = prepare(job, record)
        record.add(asked=json.dumps(asked))
        answers.evaluate(cfg, networks, *networks.on("cpu"), record)
        if record.values["accuracy.fs"] is None:
            raise UserError(f"data.root={cfg.data.root}: the images have no labels")
        check_neurons(job.directory.parent.name, record.values["neurons"])
        record.add(complete=True)
    return record.values


def prepare(job: Job, record: Record) -> Subject:
    """Both networks and their images; the record says on what and with what."""
    subject.reset(job.cfg)
    record.add(
        model=network_name(job.cfg.model),
        device="cpu",
        K=job.cfg.K,
        neuron=OmegaConf.to_container(job.cfg.neuron, resolve=True),
        date=date.today().isoformat(),
        versions=machine.versions(),
        machine=machine.machine(),
    )
    return subject.prepare(job.cfg, record)


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


def measure_curve(
    name: str, T: int, images: int, thresholds: str, args: argparse.Namespace
) -> None:
    """Rate coding for T steps on the first `images` of the evaluated images."""
    path = args.out / name / f"rate-{thresholds}-{T}.json"
    jobs = {setting: compose(name, setting, args) for setting in SETTINGS}
    cfg = jobs["default"].cfg
    ann, _ = models.build(cfg.model, cfg.seed, say)
    asked = {"T": T, "images": images, "every": rate_curve.EVERY, "weights": fingerprint(ann)}
    asked |= {setting: job.asked for setting, job in jobs.items()}
    curve = Curve(asked | {"thresholds": thresholds}, thresholds)
    asked = curve.asked
    if path.is_file():
        found = Curve.load(path)
        curve = found if found.asked == asked else curve
    if curve.complete:
        return
    subjects = {}
    for setting, job in jobs.items():
        with Record(args.out / name / "rate" / setting, "--out") as record:
            subjects[setting] = prepare(job, record)
    curve.record = {
        "date": date.today().isoformat(),
        "machine": machine.machine(),
        "versions": machine.versions(),
    }
    networks = subjects["default"]
    batches = list(networks.evaluated.batches(images, cfg.batch))
    with bar(f"rate-coded {name}, {thresholds} thresholds, {T} steps", T * len(batches)) as advance:
        rate_curve.measure(
            curve,
            networks.ann,
            {setting: s.net for setting, s in subjects.items()},
            networks.calibration,
            batches,
            T,
            lambda c: c.save(path),
            advance,
        )


def collect(out: Path) -> tuple[dict, dict]:
    """Complete records by network and setting, complete curves by network, in the tables' order."""
    records: dict[str, dict[str, dict]] = {}
    curves: dict[str, list[Curve]] = {}
    for name in NETWORKS:
        found = {s: read(out / name / s / "results.json") for s in SETTINGS}
        complete = all(v is not None and v["complete"] for v in found.values())
        if complete and len({v["images"] for v in found.values()}) == 1:
            records[name] = found
        paths = sorted((out / name).glob("rate-*-*.json"), key=by_kind_and_length)
        loaded = [c for c in map(Curve.load, paths) if c.complete]
        if loaded and name in records:
            curves[name] = loaded
    return records, curves


def by_kind_and_length(path: Path) -> tuple[int, int]:
    """Sorts files of curves: weak thresholds before strong ones, then by the number of steps."""
    _, thresholds, T = path.stem.split("-")
    return WEAK_AND_STRONG.index(thresholds), int(T)


def check_document(args: argparse.Namespace) -> None:
    """Whether --docs names what can be written, before anything is measured.

    Raises:
        UserError: it cannot.
    """
    if args.docs is None:
        return
    if args.cards:
        parts(args.docs.with_name("networks.md"), "cards")
    elif args.neurons:
        parts(args.docs.with_name("fitted.md"), "neurons over K")
    else:
        parts(args.docs, "paper's table")
    ready(args.docs.parent, "--docs")


def write_cards(args: argparse.Namespace) -> None:
    """The table of trained weights, in docs/networks.md or as a file of its own."""
    path = args.docs.with_name("networks.md") if args.docs else args.out / "cards.md"
    publish(path, "cards" if args.docs else None, cards_table())


def publish(path: Path, marks: str | None, text: str) -> None:
    """Writes a text between the marks of a document, or without marks as a document."""
    if marks is None:
        write_text(path, text.strip() + "\n")
    else:
        put(path, marks, text)
    say(f"tables: {path}")


def write(args: argparse.Namespace, command: str) -> None:
    """The section of the document and the plot beside it, from all that is in --out."""
    records, curves = collect(args.out)
    if not records:  # of settings of different numbers of images
        return
    path = args.docs or args.out / "tables.md"
    plot = path.with_name("rate_curve.svg") if curves else None
    if plot is not None:
        # Of each kind of thresholds the shortest, which is of the most images.
        shown = {
            n: list({c.thresholds: c for c in found[::-1]}.values()) for n, found in curves.items()
        }
        figure = rate_curve.figure({TITLES[n]: found[::-1] for n, found in shown.items()})
        style.save(figure, plot)
    missing = {n: absent(n, args) or "not measured yet" for n in NETWORKS if n not in records}
    text = section(records, curves, missing, command, plot.name if plot else None)
    publish(path, "paper's table" if args.docs else None, text)


def measure_all(args: argparse.Namespace, command: str) -> None:
    """Measures what is missing, network by network, and writes after each of them.

    Args:
        args: of bench/tables.py. command: that measures the same, for the document.
    """
    missing = {n: reason for n in args.networks if (reason := absent(n, args))}
    for name, reason in missing.items():
        say(f"{TITLES[name]} is left out: {reason}")
    for name in args.networks:
        if name in missing:
            continue
        for setting in SETTINGS:
            measure(compose(name, setting, args))
        if is_cifar(name) and args.rate_images:
            for thresholds in WEAK_AND_STRONG:
                measure_curve(name, args.rate_steps, args.rate_images, thresholds, args)
        if name == LONG_NETWORK and args.long_images:
            measure_curve(name, LONG_T, args.long_images, "percentile", args)
        write(args, command)
    if len(missing) == len(args.networks):
        say("nothing can be measured: no tables are written")
