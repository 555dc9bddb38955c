"""experiment=scaling: how the time of an image grows with image, width, K, batch and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import fskernel as fs
from bench.errors import UserError
from bench.inputs import models
from bench.inputs.checks import validate
from bench.measures.rivals import figures, race
from bench.measures.rivals.listed import chosen, few_spikes, listed
from bench.measures.rivals.rival import Rival, Runner, Setting
from bench.measures.subject import conversion, opening, reset, timing_device
from bench.output.cores import usable_cores
from bench.output.progress import bar, console, say
from bench.output.record import Record
from bench.output.report import scaling_page
from bench.output.report.leave import leave
from bench.output.tables import scaling as tables
from bench.output.tables.runs import Job
from bench.output.terminal import files
from fskernel.analysis import style
from fskernel.analysis.energy import dense_macs
from fskernel.files import write_text
from fskernel.kernels import ops

PEAKS = 15  # measurements of the registers' peak behind every axis
OURS = "Few Spikes"
CALIBRATION = 2  # random images: times do not depend on them


@dataclass(frozen=True)
class Point:
    """One network and how it is called; width None: as the configuration has it."""

    size: int
    K: int
    batch: int
    threads: int
    width: int | None = None


@dataclass(frozen=True)
class Axis:
    """What is varied: the field of a point, what tables and figures say, and its points."""

    key: str
    title: str
    points: list[Point]


def axes(cfg: DictConfig) -> list[Axis]:
    """The axes of a configuration; those without values are left out."""
    conf = cfg.scaling
    usual = Point(cfg.model.input.crop, cfg.K, cfg.batch, cfg.threads)
    threads = range(1, usable_cores() + 1) if conf.threads is None else conf.threads
    found = [
        Axis("size", "image, pixels a side", [replace(usual, size=n) for n in conf.size]),
        Axis("width", conf.width_argument, [replace(usual, width=n) for n in conf.width]),
        Axis("K", "K, time steps", [replace(usual, K=n) for n in conf.K]),
        Axis("batch", "batch", [replace(usual, batch=n) for n in conf.batch]),
    ]
    for b in conf.thread_batches:
        points = [replace(usual, threads=n, batch=b) for n in threads]
        found.append(Axis("threads", f"threads, batch {b}", points))
    return [axis for axis in found if axis.points]


@dataclass
class Networks:
    """The dense and the converted networks, each made once.

    Args:
        cfg: the configuration. folder: where other runtimes keep theirs. device: where all run.
    """

    cfg: DictConfig
    folder: Path
    device: torch.device = torch.device("cpu")
    _modules: dict[int | None, nn.Module] = field(default_factory=dict)
    _nets: dict[int | None, dict[int, fs.FSNetwork]] = field(default_factory=dict)

    def module(self, width: int | None) -> nn.Module:
        """The dense network with random weights, on which no time depends.

        Raises:
            UserError: its function does not take the argument that sets the width.
        """
        if width not in self._modules:
            conf = self.cfg.model.copy()
            conf.weights = "random"
            if width is not None:
                conf.args = {**conf.args, self.cfg.scaling.width_argument: width}
            try:
                module, _ = models.build(conf, self.cfg.seed, say)
            except UserError as error:
                if width is None:
                    raise
                raise UserError(
                    f"scaling.width_argument={self.cfg.scaling.width_argument}: {error}; name "
                    "another argument, or leave the axis out by scaling.width=[]"
                ) from error
            models.settle(module, self.images(CALIBRATION, self.cfg.model.input.crop))
            self._modules[width] = module
        return self._modules[width]

    def images(self, n: int, size: int) -> torch.Tensor:
        """Random images, float32 [n, C, size, size]."""
        return torch.randn(n, len(self.cfg.model.input.mean), size, size)

    def setting(self, p: Point) -> Setting:
        """What the rivals are given at a point."""
        folder = self.folder / f"{p.width}-{p.size}-{p.batch}"
        folder.mkdir(exist_ok=True)
        return Setting(
            x=self.images(p.batch, p.size),
            calibration=self.images(CALIBRATION, p.size),
            folder=folder,
            threads=p.threads,
            device=self.device,
            K=(p.K,),
            first=p.K,
            convert={p.K: conversion(self.cfg, p.K)},
            given=self.module(p.width),
            nets=self._nets.setdefault(p.width, {}),
        )


def products(net: fs.FSNetwork, size: int) -> tuple[int, int]:
    """Multiply-accumulates of the convolutions of one image: 8-bit and 16-bit operands."""
    kernels, sums = net.plan_kernels(), [0, 0]
    for name, n in dense_macs(net, size, size).items():
        if name != net.steps[-1].name:
            sums["u8" not in kernels[name]] += n
    return sums[0], sums[1]


def at_the_peak(nets: Sequence[tuple[fs.FSNetwork, Point]]) -> list[float]:
    """Milliseconds an image that the products alone would take at the registers' peak."""
    small, wide = (median(ops.peak_macs(n) for _ in range(PEAKS)) for n in ("u8s8", "s16s16"))
    peaks = [small or wide, wide]
    return [
        1e3 * sum(n / peak for n, peak in zip(products(net, p.size), peaks)) / p.threads
        for net, p in nets
    ]


def compete(
    axis: Axis, only: Sequence[str], made: Networks, cfg: DictConfig
) -> tuple[list[dict], dict[str, str], KeyboardInterrupt | None]:
    """Times the rivals at all points of an axis, in turn; K is an axis of the FS network alone.

    Returns:
        Rows for the record, why rivals are left out, and what ended it before its time.
    """
    entries: list[tuple[Point, Rival, Setting]] = []
    runners: dict[str, Runner] = {}
    reasons: dict[str, str] = {}
    with bar(f"preparing {axis.title}", len(axis.points)) as advance:
        for at, p in enumerate(axis.points):
            s = made.setting(p)
            every = chosen(listed([p.K], p.K, s.T, made.device.type), only)
            for rival in every[:1] if axis.key == "K" else every:
                ready, why = race.prepare([rival], s)
                reasons |= why
                for runner in ready.values():
                    named = replace(rival, name=f"{at} {rival.name}")
                    runners[named.name] = runner
                    entries.append((p, named, s))
            advance(1)
    racing = [rival for _, rival, _ in entries]
    threads = {rival.name: p.threads for p, rival, _ in entries}
    with torch.inference_mode():
        clocks = race.clocks(runners, made.device)
        slow = cfg.rivals.slow_rounds
        seconds, stopped = race.measure(racing, clocks, cfg.rounds, threads, slow, cfg.seed)
    ours = [(p, rival, s) for p, rival, s in entries if called(rival.name, p) == OURS]
    least: dict[str, float] = {}
    if made.device.type == "cpu":
        peaks = at_the_peak([(s.net(p.K), p) for p, _, s in ours])
        least = {rival.name: ms for (_, rival, _), ms in zip(ours, peaks)}
    rows = []
    for p, rival, _ in entries:
        reference = f"{rival.name.partition(' ')[0]} {few_spikes(p.K)}"
        found = race.times(rival.name, seconds, reference, p.batch)
        if found:
            row = {"name": called(rival.name, p), "value": getattr(p, axis.key), **found}
            rows.append(row | {"products_ms": least.get(rival.name)})
    return rows, reasons, stopped


def called(name: str, p: Point) -> str:
    """What tables call a rival at a point."""
    plain = name.partition(" ")[2]
    return OURS if plain == few_spikes(p.K) else plain


def run(
    cfg: DictConfig, directory: Path, group: str | None = None, command: str | None = None
) -> dict:
    """One measurement; returns what results.json holds. Arguments and errors as of harness.run."""
    validate(cfg)
    device = timing_device(cfg)
    along = axes(cfg)
    if not along:
        raise UserError("scaling: all axes are empty; give one some values, as scaling.batch=[1,8]")
    cfg.neuron.K = cfg.K
    reset(cfg)
    with Record(directory) as record, tempfile.TemporaryDirectory(prefix="fskernel-") as folder:
        write_text(directory / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        record.add(**opening(cfg, device, command), rounds=cfg.rounds)
        size = cfg.model.input.crop
        isa = ops.current_isa() if device == "cpu" else "cuda"
        record.add(weights="random", random_weights=True, input=[size, size], fs={"isa": isa})
        made = Networks(cfg, Path(folder), torch.device(device))
        for width in cfg.scaling.width:
            made.module(width)  # a width that there is not is told before any work
        found: list[dict] = []
        try:
            for axis in along:
                rows, reasons, stopped = compete(axis, cfg.rivals.only, made, cfg)
                found.append({"key": axis.key, "title": axis.title, "rows": rows})
                record.add(axes=[one for one in found if one["rows"]])
                for name, reason in reasons.items():
                    if f"{name}: {reason}" not in record.values["notes"]:
                        record.note(f"{name}: {reason}")
                if stopped is not None:
                    raise stopped
            record.add(complete=True)
        finally:
            if record.values.get("axes"):
                show(record, directory, cfg)
    return record.values


def show(record: Record, directory: Path, cfg: DictConfig) -> None:
    """Table, figure and report of what is known."""
    v = record.values
    made = tables.comparison([Job("", directory, v)])
    paths = made.write(directory, v["command"] or "")
    record.add(tables=[path.name for path in paths])
    if cfg.figures:
        path = directory / "figures" / f"scaling.{'png' if cfg.figures is True else cfg.figures}"
        path.parent.mkdir(exist_ok=True)
        style.save(figures.scaling(v), path)
        record.add(figures=[f"figures/{path.name}"])
    for one in tables.by_axis(v):
        console.print(one)
    for note in v["notes"]:
        say(f"! {note}")
    if cfg.report:
        leave(partial(scaling_page.write, v, made, directory))
    for line in files(record.path, v):
        say(line)
