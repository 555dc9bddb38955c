"""A network of conf/model on the sample photographs."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

import fskernel as fs
from bench import ROOT
from bench.errors import UserError
from bench.inputs.checks import validate
from bench.inputs.config import register
from bench.measures import dashboard_runs, networks
from bench.measures.subject import Subject, reset
from bench.measures.subject import prepare as prepare_subject
from bench.output import drawing
from bench.output.record import Record
from fskernel.analysis import plots, style

STEPS = (3, 4, 5, 6, 7, 8, 10)  # K of the trade of spikes against the error of the logits
IN_FLIGHT = 4  # images that follow each other through the network
IMAGES = 64  # images it is measured on, crops of the photographs


def prepare(model: str, K: int) -> tuple[Subject, list[str]]:
    """The network of conf/model, dense and converted, sample photographs, and notes on them.

    Raises:
        UserError: there is no such model, or it cannot be built.
    """
    register()
    typed = [f"model={model}", f"K={K}", f"images={IMAGES}", "data=samples", "seed=0"]
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("config", typed)
    except HydraException as error:
        raise UserError(f"--model={model}: {str(error).splitlines()[0]}") from error
    validate(cfg)
    reset(cfg)
    with tempfile.TemporaryDirectory() as directory:
        with Record(Path(directory)) as record:
            record.add(model=model, device="cpu")
            subject = prepare_subject(cfg, record)
        return subject, record.values["notes"]


def draw(model: str, K: int, out: Path, ending: str) -> tuple[list[Path], list[str]]:
    """The figures of docs/figures.md as files, and notes on the network.

    Raises:
        UserError: as `prepare`.
    """
    subject, notes = prepare(model, K)
    tally = tallied(subject)
    shown = subject.first_shown(model, tally)
    paths = drawing.save(subject.net, shown, tally.images, tally.spikes_of_layers(), out, ending)
    few = plots.transfer_curve(4, 6.0, "floor", title="An FS neuron as the paper has it")
    found = plots.pareto(
        trade(model),
        y="logit_error",
        title=model,
        facts=f"{tally.images} crops of sample photographs; the line joins what no other K beats",
    )
    run = fs.schedule(subject.net, tally.kept[0][0][:IN_FLIGHT])
    every = max(1, math.ceil(subject.net.neurons / drawing.NEURONS))
    row = plots.pipeline_raster(run, every, title=f"{model}, images in a row")
    drawn = {"transfer_K4": few, "pareto": found, "pipeline": row} | dashboard_runs.draw()
    for name, figure in drawn.items():
        paths.append(style.save(figure, out / f"{name}.{ending}"))
    return paths, notes


def tallied(subject: Subject) -> networks.Tally:
    """What both networks answer to all images."""
    tally = networks.Tally()
    batches = subject.evaluated.batches(subject.images, 16)
    networks.evaluate(tally, subject.ann, subject.net, batches, 0, lambda _: None)
    return tally


def trade(model: str) -> list[dict]:
    """What every K of STEPS costs and gives on the sample photographs."""
    rows = []
    for K in STEPS:
        subject, _ = prepare(model, K)
        tally = tallied(subject)
        rows.append(
            {
                "K": K,
                "agreement": tally.accuracy()["agreement"],
                "logit_error": tally.accuracy()["logit_error"],
                "spikes_per_image": tally.spikes / tally.images,
                "latency_steps": subject.net.latency_steps,
            }
        )
    return rows
