"""experiment=rivals: who is how fast, needs how much memory, answers what, with how many spikes."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from bench.errors import UserError
from bench.inputs.checks import validate
from bench.inputs.material import Material, gather
from bench.measures import networks
from bench.measures.answers import GATE
from bench.measures.rivals import figures, memory, race
from bench.measures.rivals.listed import chosen, few_spikes, listed
from bench.measures.rivals.rival import Rival, Runner, Setting
from bench.measures.rivals.scores import Score, score
from bench.measures.subject import conversion, opening, reset, timing_device
from bench.output import terminal
from bench.output.progress import bar, console, say
from bench.output.record import Record
from bench.output.report import rivals_page
from bench.output.report.leave import leave
from bench.output.tables import rivals as tables
from bench.output.tables.runs import Job
from fskernel.analysis import style
from fskernel.files import write_text
from fskernel.kernels import ops

SLOW_ROUNDS = "slow rivals run in fewer rounds, and have no interval below six"
MEMORY = (
    "memory: in a process of its own for each rival, the most it had while it answered a batch, "
    "less what it had before a network was loaded ({what})"
)
ON_CPU = "resident memory, read from /proc"
ON_GPU = "the device's used memory"


@dataclass
class Found:
    """What is known so far of each rival, by its name."""

    reasons: dict[str, str] = field(default_factory=dict)  # why it is left out
    scores: dict[str, Score] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)  # bytes
    seconds: dict[str, list[float | None]] = field(default_factory=dict)

    def rows(
        self,
        rivals: Sequence[Rival],
        runners: Mapping[str, Runner],
        reference: str,
        batch: int,
        independent: bool,
    ) -> list[dict]:
        """For the record, one a rival."""
        rows = []
        for rival in rivals:
            name = rival.name
            row: dict[str, object] = {"name": name, "kind": rival.kind, "slow": rival.slow}
            row["reason"] = self.reasons.get(name)
            row["per"] = runners[name].per if name in runners else None
            if name in self.scores:
                row |= self.scores[name].told(independent)
            row["memory_bytes"] = self.memory.get(name)
            row |= race.times(name, self.seconds, reference, batch)
            rows.append(row | {"seconds": self.seconds.get(name, [])})
        return rows


def run(
    cfg: DictConfig, directory: Path, group: str | None = None, command: str | None = None
) -> dict:
    """One comparison; returns what results.json holds. Arguments and errors as of harness.run."""
    validate(cfg)
    device = timing_device(cfg)
    cfg.neuron.K = cfg.K
    K = sorted({*cfg.rivals.K, cfg.K})
    every = listed(K, cfg.K, cfg.baseline.T, torch.device(device).type)
    rivals = chosen(every, cfg.rivals.only)
    if not rivals:
        known = ", ".join(rival.name for rival in every)
        raise UserError(
            f"rivals.only={list(cfg.rivals.only)}: no rival has that in its name; there are {known}"
        )
    reset(cfg)
    with Record(directory) as record:
        write_text(directory / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        record.add(**opening(cfg, device, command), rounds=cfg.rounds)
        record.note(SLOW_ROUNDS)
        found = gather(cfg, record)
        record.add(
            weights=found.weights.name,
            random_weights=found.weights.random,
            input=list(found.calibration.shape[2:]),
            calibration=len(found.calibration),
            fs={"isa": ops.current_isa() if device == "cpu" else "cuda"},
            data={"kind": cfg.data.kind},
            gate={"least": GATE},
        )
        with tempfile.TemporaryDirectory(prefix="fskernel-rivals-") as folder:
            s = setting(cfg, found, torch.device(device), K, Path(folder))
            try:
                stages(cfg, s, found, rivals, record)
            finally:
                show(record, directory, cfg)
    return record.values


def setting(
    cfg: DictConfig, found: Material, device: torch.device, K: Sequence[int], folder: Path
) -> Setting:
    """What the rivals share, from the configuration."""
    images = found.calibration
    x = images.repeat(-(-cfg.batch // len(images)), 1, 1, 1)[: cfg.batch].contiguous()
    conf = cfg.baseline
    return Setting(
        x=x,
        calibration=images.contiguous(),
        folder=folder,
        threads=cfg.threads,
        device=device,
        K=tuple(K),
        first=cfg.K,
        convert={k: conversion(cfg, k) for k in K},
        T=conf.T,
        rate={
            "percentile": conf.percentile,
            "normalise": conf.normalise,
            "balanced_for": conf.balanced_for,
            "reset": conf.reset,
            "input": conf.input,
            "seed": cfg.seed,
        },
        rate_images=conf.calibration,
        transient=conf.simulate == "transient",
        given=found.ann,
    )


def stages(
    cfg: DictConfig, s: Setting, found: Material, rivals: Sequence[Rival], record: Record
) -> None:
    """One stage after the other; an interrupt leaves the finished ones, and the finished rounds."""
    known = Found()
    with bar("preparing the rivals", len(rivals)) as advance:
        runners, known.reasons = race.prepare(rivals, s, advance)
    reference = few_spikes(cfg.K)
    independent = cfg.data.kind != "samples"

    def keep() -> None:
        rows = known.rows(rivals, runners, reference, cfg.batch, independent)
        record.add(rivals=rows, reference=reference)

    keep()
    record.add(exact=check(cfg, s))
    if not found.weights.random:
        try:
            answers(cfg, s, found, rivals, runners, known, record)
        finally:
            keep()
    if cfg.rivals.memory:
        try:
            memories(s, rivals, runners, known, record)
        finally:
            keep()
    running = {name: one for name, one in runners.items() if name not in known.reasons}
    with torch.inference_mode():
        clocks = race.clocks(running, s.device)
        known.seconds, stopped = race.measure(
            rivals, clocks, cfg.rounds, cfg.threads, cfg.rivals.slow_rounds, cfg.seed
        )
    keep()
    v = record.values
    here = (v["fs.isa"], cfg.threads, v["model"], *v["input"])
    applies = here == ("avx512vnni", 1, "resnet50", 224, 224)
    record.add(goals=race.judge(race.GOALS, known.seconds, cfg.batch, applies))
    if stopped is not None:
        raise stopped
    record.add(complete=True)


def check(cfg: DictConfig, s: Setting) -> bool | None:
    """Whether all FS networks equal the oracle; None: not compared.

    Raises:
        RuntimeError: the kernels are wrong.
    """
    if not cfg.check or not s.nets:
        return None
    say("comparing one image with the int64 oracle, bit for bit")
    for net in s.nets.values():
        measured = net if s.device.type == "cpu" else copy.deepcopy(net).to(s.device)
        networks.check(measured, net, s.calibration[:1])
    return True


def answers(
    cfg: DictConfig,
    s: Setting,
    found: Material,
    rivals: Sequence[Rival],
    runners: Mapping[str, Runner],
    known: Found,
    record: Record,
) -> None:
    """What the rivals answer, as far as an interrupt lets them."""
    images = cfg.images or len(found.evaluated.items)
    model = dense(s)
    try:
        with bar("evaluating", images) as advance:
            batches = found.evaluated.batches(images, cfg.batch)
            slow = cfg.rivals.slow_images
            score(known.scores, rivals, runners, model, batches, slow, known.reasons, advance)
    finally:
        shown = max((one.images for one in known.scores.values()), default=0)
        record.add(images=shown, data={"shown": found.evaluated.shown(shown)})
        if shown < images:
            record.note(f"{shown} of {images} images were shown")


def dense(s: Setting) -> Callable[[torch.Tensor], torch.Tensor]:
    """The dense network whose answers the others are compared with, images on the CPU to logits."""
    model = s.model if s.device.type == "cpu" else copy.deepcopy(s.model).to(s.device)
    return lambda x: model(x.to(s.device)).cpu()


def memories(
    s: Setting,
    rivals: Sequence[Rival],
    runners: Mapping[str, Runner],
    known: Found,
    record: Record,
) -> None:
    """The memory of each rival that runs."""
    try:
        s.keep()
    except Exception as error:  # whatever pickle says of a user's own network
        record.note(f"memory was not measured, because the network cannot be pickled: {error}")
        return
    what = ON_CPU if s.device.type == "cpu" else ON_GPU
    record.note(MEMORY.format(what=what))
    running = [r for r in rivals if r.name in runners and r.name not in known.reasons]
    with bar("measuring memory", len(running)) as advance:
        for rival in running:
            known.memory[rival.name] = memory.needed(rival, s.folder)
            advance(1)


def show(record: Record, directory: Path, cfg: DictConfig) -> None:
    """Tables, figure and report of what is known."""
    v = record.values
    if "rivals" not in v:
        return
    made = tables.comparison([Job("", directory, v)])
    paths = made.write(directory, v["command"] or "")
    record.add(tables=[path.name for path in paths])
    if cfg.figures and any("ms" in row for row in v["rivals"]):
        ending = "png" if cfg.figures is True else cfg.figures
        path = directory / "figures" / f"rivals.{ending}"
        path.parent.mkdir(exist_ok=True)
        style.save(figures.rivals(v), path)
        record.add(figures=[f"figures/{path.name}"])
    console.print(made.fitting())
    if "exact" in v:  # not interrupted before
        for part in (*tables.goals(v), *terminal.lines(v)):
            console.print(part)
    if cfg.report:
        leave(partial(rivals_page.write, v, made, directory))
    for line in terminal.files(record.path, v):
        say(line)
