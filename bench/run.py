"""Measures a network as ANN, as FS network and rate-coded: python bench/run.py model=resnet50 K=10.

Prints a table and writes results.json into Hydra's run directory.
"""

from __future__ import annotations

import copy
import math
import os
import random
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# As a script Python looks for packages in bench/: the repository comes first, and the current
# folder is where a user's own model._target_ is found.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(os.getcwd())

from bench import interrupt

if __name__ == "__main__":
    interrupt.leave_at_once()  # the imports take seconds

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

import fskernel as fs
from bench import baseline, config, data, machine, measure, report
from bench.by_hydra import run_by_hydra
from bench.errors import UserError
from bench.faults import FAULTS, fail
from bench.loggers import NoLogger, open_logger
from bench.material import gather, name_skipped
from bench.progress import bar, console, say
from bench.record import Record
from bench.series import Series
from fskernel import ops
from fskernel.device import cuda_fault
from fskernel.files import write_text

config.register()


@dataclass
class Subject:
    """The two networks and the pictures they are shown."""

    ann: nn.Module  # both on the CPU
    net: fs.FSNetwork
    evaluated: data.Pictures
    images: int  # how many of them
    calibration: Tensor  # float32 [N, C, H, W]

    def on(self, device: str) -> tuple[nn.Module, fs.FSNetwork]:
        """The networks as they are measured, on a device; those of the CPU stay where they are."""
        if device == "cpu":
            return self.ann, self.net
        return copy.deepcopy(self.ann).to(device), copy.deepcopy(self.net).to(device)


def run(cfg: DictConfig, directory: Path, group: str | None = None) -> dict:
    """One measurement; returns what results.json holds.

    Args:
        cfg: the composed configuration, see config.py.
        directory: where results.json and the loggers' files go.
        group: name of the sweep this run belongs to.

    Raises:
        UserError: the configuration asks for what cannot be done.
        RuntimeError: the kernels differ from the oracle.
    """
    config.validate(cfg)
    device = choose_device(cfg)
    cfg.neuron.K = cfg.K  # the record shall not contradict the run
    logger = open_logger(cfg, directory, group)
    reset(cfg)
    with Record(directory) as record:
        write_text(directory / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        record.add(
            K=cfg.K,
            batch=cfg.batch,
            threads=cfg.threads,
            seed=cfg.seed,
            neuron=OmegaConf.to_container(cfg.neuron, resolve=True) | {"K": cfg.K},
            model=cfg.model.name or cfg.model["_target_"].rpartition(".")[2],
            device=device,
            versions=machine.versions(),
            machine=machine.machine(device),
        )
        with logger:
            stages(cfg, device, record, logger)
    if device != "emulated":
        console.print(report.render(record.values))
    say(f"results: {record.path}")
    return record.values


def stages(cfg: DictConfig, device: str, record: Record, logger: NoLogger) -> None:
    """What `run` does, one stage after the other; an interrupt leaves the finished ones."""
    try:
        subject = prepare(cfg, record)
        logger.stage(record.values)
        if device == "emulated":
            return emulate(subject, record)
        ann, net = subject.on(device)
        tally = evaluate(cfg, subject, ann, net, record)
        logger.stage(record.values)
        time_networks(cfg, ann, net, tally, record)
        logger.stage(record.values)
        estimate_energy(subject, record)
        if cfg.figures:
            draw(net, tally, record)
        compare(cfg, subject, tally, record)
        record.add(complete=True)
        logger.finish(record.values)
    except KeyboardInterrupt:
        logger.stage(record.values)
        raise


def reset(cfg: DictConfig) -> None:
    """Seeds, threads and kernels: the jobs of a sweep share one process."""
    random.seed(cfg.seed)
    np.random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_num_threads(cfg.threads)
    try:
        ops.set_isa(cfg.backend.isa)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"backend.isa={cfg.backend.isa}: {error}") from error


def choose_device(cfg: DictConfig) -> str:
    """Where to run: cpu, cuda:N or emulated.

    Raises:
        UserError: a GPU is asked for that cannot be used, and why.
    """
    wanted = cfg.backend.device
    asked = f"backend.device={wanted} asks for it"
    if wanted in ("cpu", "emulated"):
        where = "the CPU" if wanted == "cpu" else "the emulator"
        say(f"backend {wanted}: runs on {where}, because {asked}")
        return wanted
    place = "cuda:0" if wanted in ("auto", "cuda") else wanted
    fault = cuda_fault(place)
    if fault and wanted == "auto":
        say(f"backend cpu: runs on the CPU, because {fault}")
        return "cpu"
    if fault:
        raise UserError(f"backend.device={wanted}: {fault}")
    because = "it is there (backend=cpu takes the CPU)" if wanted == "auto" else asked
    say(f"backend cuda: runs on {place}, because {because}")
    return place


def emulate(subject: Subject, record: Record) -> None:
    """One picture through the CUDA kernels in the emulator, compared with the CPU."""
    from bench import emulated

    try:
        rows = emulated.compare(subject.net, subject.calibration[:1])
    except ValueError as error:
        raise UserError(str(error)) from error
    record.add(fs={"emulated": rows}, complete=True)
    console.print(emulated.table(rows))


def prepare(cfg: DictConfig, record: Record) -> Subject:
    """Builds the ANN, reads the calibration pictures, converts."""
    found = gather(cfg, record)
    ann, calibration = found.ann, found.calibration
    say(f"converting {record.values['model']} with {len(calibration)} calibration pictures")
    try:
        net = fs.convert(
            ann,
            calibration,
            K=cfg.K,
            alpha=config.choose_alpha(cfg.neuron.alpha, cfg.K),
            rounding=cfg.neuron.rounding,
            weight_bits=cfg.neuron.weight_bits,
            correct=cfg.neuron.correct,
            bottleneck=cfg.neuron.bottleneck,
            progress=console.is_terminal,
        )
    except ValueError as error:
        raise UserError(f"{record.values['model']} cannot be converted: {error}") from error
    net.plane_bits = cfg.backend.plane_bits
    height, width = calibration.shape[2:]
    int8 = int8_share(net, height, width)
    if cfg.neuron.weight_bits == "auto":
        record.note(f"layers with 8-bit weights do {int8:.1%} of the ANN's MACs")
    record.add(
        weights=found.weights.name,
        neurons=net.neurons,
        calibration=len(calibration),
        ann=measure.ann_bytes(ann, net.graph, calibration),
        fs={
            "isa": ops.current_isa() if record.values["device"] == "cpu" else "cuda",
            "plane_bits": net.plane_bits,
            "depth": net.depth,
            "latency_steps": net.latency_steps,
            "interval_steps": net.interval_steps,
            "weight_bytes": net.weight_bytes,
            "int8_macs": int8,
            "activation_bytes": net.activation_bytes(height, width),
        },
    )
    images = cfg.images or len(found.evaluated.items)
    return Subject(ann, net, found.evaluated, images, calibration)


def int8_share(net: fs.FSNetwork, height: int, width: int) -> float:
    """The share of the ANN's MACs in layers whose weights have 8 bits."""
    macs = fs.energy.dense_macs(net, height, width)
    short = {step.name for step in net.steps if getattr(step, "info", {}).get("weight_bits") == 8}
    return sum(n for name, n in macs.items() if name in short) / sum(macs.values())


def evaluate(
    cfg: DictConfig, subject: Subject, ann: nn.Module, net: fs.FSNetwork, record: Record
) -> measure.Tally:
    """Answers and spikes on all pictures."""
    if cfg.check:
        say("comparing one picture with the int64 oracle, bit for bit")
        measure.check(net, subject.net, subject.calibration[:1])
    pictures = subject.evaluated
    keep = math.ceil((cfg.baseline.images or 1) / cfg.batch)
    tally = measure.Tally()
    try:
        with bar("evaluating", subject.images) as advance:
            batches = pictures.batches(subject.images, cfg.batch)
            measure.evaluate(tally, ann, net, batches, keep, advance)
        record_answers(cfg, subject, tally, record)
    except KeyboardInterrupt:
        if tally.images < subject.images:
            record.note(f"interrupted after {tally.images} of {subject.images} pictures")
        record_answers(cfg, subject, tally, record)
        raise
    name_skipped(pictures)
    if not tally.images:
        raise UserError(f"data.root={cfg.data.root}: no picture can be read")
    if tally.images < subject.images:
        record.note(f"{subject.images} pictures were asked for, {tally.images} could be read")
    if pictures.skipped:
        record.add(data={"skipped_files": [f"{k}: {v}" for k, v in pictures.skipped.items()]})
        record.note(f"{len(pictures.skipped)} unreadable picture(s) skipped, named above")
    return tally


def record_answers(cfg: DictConfig, subject: Subject, tally: measure.Tally, record: Record) -> None:
    """What the pictures shown so far tell."""
    if not tally.images:
        return
    if tally.saturated:
        share = tally.saturated / tally.images
        record.note(f"{share:.2%} of the pixels lie beyond the input code's range")
    spikes = tally.spikes / tally.images
    record.add(
        images=tally.images,
        data={"kind": cfg.data.kind, "skipped": len(subject.evaluated.skipped)},
        accuracy=tally.accuracy(),
        fs={
            "spikes_per_image": spikes,
            "spikes_per_neuron": spikes / subject.net.neurons,
            "sops_per_image": tally.sops / tally.images,
        },
    )


def time_networks(
    cfg: DictConfig, ann: nn.Module, net: fs.FSNetwork, tally: measure.Tally, record: Record
) -> None:
    """Images/s of the ANN and the FS network, and the time of its layers."""
    buffers = [x.to(net.device) for x in tally.buffers(cfg.batch)]
    with bar("timing", cfg.warmup + cfg.rounds) as advance:
        groups = measure.interleave(ann, net, buffers, cfg.rounds, cfg.warmup, advance)
    last = ops.last_kernel()
    rows = measure.layers(net, buffers[0], tally)
    record.add(**groups)
    record.add(
        rounds=cfg.rounds,
        fs={
            "layers": rows,
            "graded_macs": sum(row["graded_macs"] for row in rows),
            "last_kernel": last,
        },
    )


def estimate_energy(subject: Subject, record: Record) -> None:
    """Three estimates of what a picture costs in energy, as ANN and as FS network."""
    rows = record.values["fs.layers"]
    size = tuple(subject.calibration.shape[2:])

    def spent(key: str) -> dict[str, float]:
        return {row["layer"]: row[key] for row in rows if row[key]}

    layers = fs.energy.layer_work(
        subject.net, size, spent("sops_per_image"), spent("spikes_per_image"), spent("graded_macs")
    )
    found = fs.energy.estimates(layers)
    totals = {}
    for one in found:
        totals |= {f"{one.name}_ann_uj": one.ann_uj, f"{one.name}_fs_uj": one.fs_uj}
    record.add(
        ann={"macs": sum(layer.macs for layer in layers)},
        energy=totals | {"estimates": [one._asdict() for one in found]},
    )


def draw(net: fs.FSNetwork, tally: measure.Tally, record: Record) -> None:
    """Figures of the first picture, as PNG files beside results.json."""
    from bench import figures

    directory = record.path.parent / "figures"
    x = tally.kept[0][0].to(net.device)
    record.add(figures=[f"figures/{path.name}" for path in figures.save(net, x, directory)])


def compare(cfg: DictConfig, subject: Subject, tally: measure.Tally, record: Record) -> None:
    """The float64 equations of the paper and the rate-coded network."""
    if cfg.fidelity:
        say(f"comparing {cfg.fidelity} picture(s) with the paper's equations in float64")
        pictures = subject.calibration[: cfg.fidelity]
        record.add(fidelity=fs.fidelity(subject.net, pictures) | {"images": len(pictures)})
    else:
        record.add(fidelity=dict.fromkeys(FIDELITY))
    found, answers = baseline.nothing()
    rate_bits = 16 if cfg.neuron.weight_bits == 16 else 8
    if cfg.baseline.kind == "rate":
        found, answers = baseline.simulate(
            subject.ann,
            subject.net,
            cfg.baseline,
            subject.calibration,
            tally,
            record.values["device"],
            rate_bits,
        )
        if "kernels" in found:
            ran = ", ".join(f"{name} ({n})" for name, n in found["kernels"].items())
            record.note(
                f"the rate-coded baseline ran on the same GPU, a step as one CUDA graph, with "
                f"{rate_bits}-bit weights; kernels (layers): {ran}"
            )
        else:
            record.note("the rate-coded baseline is plain torch and not optimised")
        if found["extrapolated_from"]:
            record.note(
                f"rate-coded spikes and time for T={found['T']} are extrapolated from "
                f"{found['extrapolated_from']} steps; baseline.simulate=all runs every step"
            )
    values, rate = record.values, found["images_per_s"]
    record.add(
        rate=found,
        accuracy=answers,
        ratio={
            "rate_to_ann": rate and rate / values["ann.images_per_s"],
            "fs_to_rate": rate and values["fs.images_per_s"] / rate,
        },
    )


FIDELITY = ("images", "words_changed", "spikes_ratio", "agreement", "logit_error", "effective_bits")


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """The command line: one run, the rows of an experiment, or the jobs of a sweep (-m)."""
    settings = HydraConfig.get()
    directory = Path(settings.runtime.output_dir)
    sweep = Path(settings.sweep.dir).absolute() if settings.mode == RunMode.MULTIRUN else None
    option = "hydra.run.dir" if sweep is None else "hydra.sweep.dir"
    try:
        if sweep is not None:
            if not SERIES:
                SERIES.append(Series(sweep, machine.command("bench/run.py"), option))
            if cfg.rows:
                raise UserError(
                    "an experiment with rows is a series by itself: leave out -m, or say rows=[]"
                )
            SERIES[0].attempt(
                " ".join(settings.overrides.task), lambda: run(cfg, directory, sweep.name)
            )
        elif cfg.rows:
            SERIES.append(Series(directory, machine.command("bench/run.py"), option))
            for i, (row, job) in enumerate(compose_rows(cfg)):
                say(f"--- {row}")
                SERIES[0].attempt(row, partial(run, job, directory / f"{i:02d}", directory.name))
        else:
            run(cfg, directory)
    except FAULTS as error:
        sys.exit(fail(error, option))
    except KeyboardInterrupt as error:
        tell_interrupted(sweep or directory)
        sys.exit(interrupt.code(error))


def tell_interrupted(finished: Path | None) -> None:
    """The last sentence after Ctrl-C or a signal like it."""
    where = f"; what was finished: {finished}" if finished else ""
    console.print(f"interrupted{where}", markup=False, soft_wrap=True)


SERIES: list[Series] = []  # the one of this process; Hydra calls main() for every job of a sweep


def compose_rows(cfg: DictConfig) -> list[tuple[str, DictConfig]]:
    """Each row with its configuration: what was typed, then the row's own settings.

    Raises:
        UserError: a row that does not compose, before any work.
    """
    typed = list(HydraConfig.get().overrides.task)
    jobs = []
    for row in cfg.rows:
        try:
            job = hydra.compose("config", [*typed, *shlex.split(row)])
            config.validate(job)
        except (HydraException, ValueError) as error:
            raise UserError(f"rows: {row}: {error}") from error
        jobs.append((row, job))
    return jobs


if __name__ == "__main__":
    interrupt.raise_once()
    try:
        run_by_hydra(main)
        status = SERIES[0].close() if SERIES else 0
    except FAULTS as error:  # what Hydra writes itself
        status = fail(error, "hydra.run.dir or hydra.sweep.dir")
    except KeyboardInterrupt as error:  # before main() or behind it
        tell_interrupted(SERIES[0].directory if SERIES else None)
        status = interrupt.code(error)
    interrupt.leave_at_once()  # Python's own farewell takes a while
    sys.exit(status)
