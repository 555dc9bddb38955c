"""One measurement of the harness, from the configuration to the finished record."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import fskernel as fs
from bench.emulated import compare as emulator
from bench.errors import UserError
from bench.inputs.checks import validate
from bench.measures import energy_meter, networks, one_image, rate
from bench.measures.answers import evaluate
from bench.measures.subject import Subject, choose_device, opening, prepare, reset
from bench.output import drawing, terminal
from bench.output.loggers.interface import Logger
from bench.output.loggers.opening import open_loggers
from bench.output.loggers.wandb_run import Place
from bench.output.progress import bar, console, say
from bench.output.rate_figure import answers_over_time
from bench.output.record import Record, plain
from bench.output.report import history, page
from bench.output.report.leave import leave
from fskernel.analysis import style
from fskernel.files import write_text
from fskernel.kernels import ops


def run(
    cfg: DictConfig,
    directory: Path,
    group: str | None = None,
    command: str | None = None,
    experiment: str | None = None,
) -> dict:
    """One measurement; returns what results.json holds.

    Args:
        cfg: the composed configuration, see inputs/config.py.
        directory: where results.json and the loggers' files go.
        group: name of the sweep this run belongs to.
        command: what repeats this run, for the record.
        experiment: of conf/experiment that was named.

    Raises:
        UserError: the configuration asks for what cannot be done.
        RuntimeError: the kernels differ from the oracle.
    """
    validate(cfg)
    device = choose_device(cfg)
    rate.check_device(cfg.baseline, device)
    cfg.neuron.K = cfg.K  # the record shall not contradict the run
    loggers = open_loggers(cfg, directory, Place(group, experiment))
    reset(cfg)
    with Record(directory) as record:
        write_text(directory / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        record.add(**opening(cfg, device, command))
        with loggers.telling(record.values) as logger:
            stages(cfg, device, record, logger)
            if device != "emulated":
                console.print(terminal.render(record.values))
            if cfg.report:
                leave(partial(page.write, record.values, directory))
            if device != "emulated":
                logger.finish(record.values)
    for line in terminal.files(record.path, record.values):
        say(line)
    if cfg.next:
        say("next:")
    for line in cfg.next:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return record.values


def stages(cfg: DictConfig, device: str, record: Record, logger: Logger) -> None:
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
        measure_energy(cfg, ann, net, tally, record)
        estimate_energy(subject, record)
        look_inside(subject, net, tally, record)
        count_as_neurobench(net, tally, record)
        if cfg.figures:
            draw(cfg, subject, net, tally, record)
        compare(cfg, subject, tally, record)
        look_back(record)
        if cfg.logger.weights:
            subject.net.save(record.path.with_name(NETWORK))
            record.add(network=NETWORK)
        record.add(complete=True)
    except KeyboardInterrupt:
        logger.stage(record.values)
        raise


def emulate(subject: Subject, record: Record) -> None:
    """One image through the CUDA kernels in the emulator, compared with the CPU."""
    try:
        rows = emulator.compare(subject.net, subject.calibration[:1])
    except ValueError as error:
        raise UserError(str(error)) from error
    record.add(fs={"emulated": rows}, complete=True)
    console.print(emulator.table(rows))


def time_networks(
    cfg: DictConfig, ann: nn.Module, net: fs.FSNetwork, tally: networks.Tally, record: Record
) -> None:
    """Images/s of the ANN and the FS network, and the time of its layers."""
    buffers = [x.to(net.device) for x in tally.buffers(cfg.batch)]
    with bar("timing", cfg.warmup + cfg.rounds) as advance:
        groups = networks.interleave(ann, net, buffers, cfg.rounds, cfg.warmup, advance)
    last = ops.last_kernel()
    rows = networks.layers(net, buffers[0], tally)
    record.add(**groups)
    record.add(
        rounds=cfg.rounds,
        fs={
            "layers": rows,
            "graded_macs": sum(row["graded_macs"] for row in rows),
            "last_kernel": last,
        },
    )


def measure_energy(
    cfg: DictConfig, ann: nn.Module, net: fs.FSNetwork, tally: networks.Tally, record: Record
) -> None:
    """Joules an image of both networks, where the machine counts them."""
    if not cfg.energy_rounds:
        record.add(energy=energy_meter.nothing("energy_rounds=0"))
        return
    meter = energy_meter.find(record.values["device"])
    if isinstance(meter, energy_meter.Missing):
        record.add(energy=energy_meter.nothing(meter.why))
        return
    buffers = [x.to(net.device) for x in tally.buffers(cfg.batch)]
    both = {"ann": ann, "fs": net}
    with bar("measuring energy", 2 * cfg.energy_rounds) as advance:
        record.add(energy=energy_meter.measure(meter, both, buffers, cfg.energy_rounds, advance))


def count_as_neurobench(net: fs.FSNetwork, tally: networks.Tally, record: Record) -> None:
    """The figures of NeuroBench, as its own harness writes them: a file, and a part of ours."""
    if net.fitted:
        record.note("NeuroBench counts bit-planes, which the codes of fitted neurons have not")
        return
    shown = torch.cat([x for x, _ in tally.kept])[:NEUROBENCH_IMAGES]
    found = fs.neurobench.measure(net, shown.to(net.device))
    if record.values["accuracy.fs"] is not None:
        found["ClassificationAccuracy"] = record.values["accuracy.fs"]
    text = json.dumps(plain(found), indent=4) + "\n"
    write_text(record.path.with_name("neurobench.json"), text)
    record.add(neurobench=found | {"images": len(shown)})


def estimate_energy(subject: Subject, record: Record) -> None:
    """Three estimates of what an image costs in energy, as ANN and as FS network."""
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
        energy=totals
        | {
            "estimates": [one._asdict() for one in found],
            "constants": {name: one._asdict() for name, one in fs.energy.CONSTANTS.items()},
        },
    )


def look_inside(subject: Subject, net: fs.FSNetwork, tally: networks.Tally, record: Record) -> None:
    """How far each layer is from the ANN's, and when neurons fire, for the first image."""
    inside, errors = one_image.look(subject.graph, net, tally.kept[0][0][:1])
    rows = [row | {"error": errors.get(row["layer"])} for row in record.values["fs.layers"]]
    record.add(inside={"image": subject.evaluated.first_name()} | inside, fs={"layers": rows})


def look_back(record: Record) -> None:
    """What earlier runs on this machine found."""
    values = record.values
    record.add(
        previous=history.previous(values, record.path), race=history.race(values, record.path)
    )


def draw(
    cfg: DictConfig,
    subject: Subject,
    net: fs.FSNetwork,
    tally: networks.Tally,
    record: Record,
) -> None:
    """Figures of the first image and of all spikes, as files beside results.json."""
    say("drawing the figures")
    directory = record.path.parent / "figures"
    shown = subject.first_shown(record.values["model"], tally)
    ending = "png" if cfg.figures is True else cfg.figures
    paths = drawing.save(net, shown, tally.images, tally.spikes_of_layers(), directory, ending)
    record.add(figures=[f"figures/{path.name}" for path in paths])


def compare(cfg: DictConfig, subject: Subject, tally: networks.Tally, record: Record) -> None:
    """The float64 equations of the paper and the rate-coded network."""
    if cfg.fidelity and subject.net.fitted:
        record.note("fidelity compares with the paper's neurons, which fitted neurons are not")
    if cfg.fidelity and not subject.net.fitted:
        shown = terminal.count(cfg.fidelity, "image")
        say(f"comparing {shown} with the paper's equations in float64")
        images = subject.calibration[: cfg.fidelity]
        record.add(fidelity=fs.fidelity(subject.net, images) | {"images": len(images)})
    else:
        record.add(fidelity=dict.fromkeys(FIDELITY))
    found, answers = rate.nothing()
    rate_bits = 16 if cfg.neuron.weight_bits == 16 else 8
    if cfg.baseline.kind == "rate":
        found, answers = rate.simulate(
            subject,
            cfg.baseline,
            tally,
            record.values["device"],
            rate_bits,
            cfg.seed,
            independent=cfg.data.kind != "samples",
        )
        if "kernels" in found:
            ran = ", ".join(f"{name} ({n})" for name, n in found["kernels"].items())
            where = {"cpu": "on the same CPU's kernels, eight steps at a time"}.get(
                record.values["device"], "on the same GPU, a step as one CUDA graph"
            )
            record.note(
                f"the rate-coded baseline ran {where}, with {rate_bits}-bit weights; kernels "
                f"(layers): {ran}"
            )
        else:
            record.note("the rate-coded baseline is plain torch and not optimised")
        if found["extrapolated_from"]:
            record.note(
                f"rate-coded spikes and time for T={found['T']} are extrapolated from "
                f"{found['extrapolated_from']} steps because baseline.simulate=transient; "
                "baseline.simulate=all runs all of them"
            )
    if found["curve"]:
        record.note(rate.in_words(found))
    values, speed = record.values, found["images_per_s"]
    figures = values.get("figures")
    record.add(
        rate=found,
        accuracy=answers,
        ratio={
            "rate_to_ann": speed and speed / values["ann.images_per_s"],
            "fs_to_rate": speed and values["fs.images_per_s"] / speed,
        },
    )
    if figures and found["curve"]:
        path = record.path.parent / figures[0]
        path = path.with_stem("rate_over_time")
        style.save(answers_over_time(values), path)
        record.add(figures=[*figures, f"figures/{path.name}"])


NEUROBENCH_IMAGES = 16  # of those evaluated, that its operations are counted on
NETWORK = "network.safetensors"  # what logger.weights=true saves beside results.json
FIDELITY = ("images", "words_changed", "spikes_ratio", "agreement", "logit_error", "effective_bits")
