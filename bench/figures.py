"""Draws the figures of docs/figures.md: python bench/figures.py.

The network is what conf/model/NAME.yaml gives, the pictures are sample photographs. The harness
draws the same of its own run, but for the trade of spikes against the error of the logits.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from torch import Tensor

import fskernel as fs
from bench import config, interrupt, measure, run
from bench.faults import in_one_sentence
from bench.folders import ready
from bench.progress import say
from bench.record import Record
from fskernel import plots
from fskernel.files import write_figure

CONF = Path(__file__).resolve().parent.parent / "conf"
STEPS = (3, 4, 5, 6, 7, 8, 10)  # K of the trade of spikes against the error of the logits
IMAGES = 64  # pictures it is measured on
NEURONS = 3_000  # shown in the raster of all layers
DPI = 100


@torch.inference_mode()
def save(net: fs.FSNetwork, x: Tensor, directory: Path) -> list[Path]:
    """Draws what a network does with the first of the pictures x [N, C, H, W], as PNG files.

    Spikes per layer; a raster of all layers over latency steps, of as many neurons of each as one
    can see; and of the layer with a ReLU that spikes most a raster of all channels in the middle of
    its map, the histogram of its words, and what its neurons make of their membrane.
    """
    stats = net.run(x[:1], record="all")[1]
    plain = [step.name for step in net.steps if step.name in stats.spikes and not step.code.zero]
    name = max(plain, key=lambda layer: int(stats.spikes[layer].sum()))
    spikes, neuron = stats.recorded[name], stats.recorded[name].neuron
    height, width = spikes.shape[2:]
    column = fs.SpikeTensor(spikes.words[:, :, height // 2, width // 2], neuron)
    figures = {
        "spikes_per_layer": plots.spikes_per_layer(stats),
        "raster_layers": plots.latency_raster(
            net, stats, every=max(1, math.ceil(stats.neuron_count / NEURONS))
        ),
        "raster_layer": plots.raster(column),
        "words": plots.word_histogram(spikes),
        "transfer_curve": plots.transfer_curve(neuron.K, neuron.alpha, neuron.rounding),
    }
    figures["raster_layer"].suptitle(f"{name}, all channels in the middle of the map")
    figures["words"].suptitle(name)
    return [write(figure, directory / f"{file}.png") for file, figure in figures.items()]


def write(figure, path: Path) -> Path:
    """Saves a figure; the same data give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(figure, path, dpi=DPI, metadata={"Software": None})
    return path


def prepare(model: str, K: int) -> tuple[run.Subject, list[str]]:
    """The network of conf/model, dense and converted, sample photographs, and notes on them.

    Raises:
        UserError: there is no such model, or it cannot be built.
    """
    config.register()
    typed = [f"model={model}", f"K={K}", f"images={IMAGES}", "data=samples", "seed=0"]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", typed)
    except HydraException as error:
        raise config.UserError(f"--model={model}: {str(error).splitlines()[0]}") from error
    config.validate(cfg)
    run.reset(cfg)
    with tempfile.TemporaryDirectory() as directory:
        with Record(Path(directory)) as record:
            record.add(model=model, device="cpu")
            subject = run.prepare(cfg, record)
        return subject, record.values["notes"]


def trade(model: str) -> list[dict]:
    """What every K of STEPS costs and gives on the sample photographs."""
    rows = []
    for K in STEPS:
        subject, _ = prepare(model, K)
        tally = measure.Tally()
        batches = subject.evaluated.batches(subject.images, 16)
        measure.evaluate(tally, subject.ann, subject.net, batches, 0, lambda _: None)
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


@in_one_sentence("--out")
def main(argv: list[str] | None = None) -> None:
    """Draws and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cifar_resnet20", help="a name of conf/model")
    parser.add_argument("--K", type=int, default=8, help="time steps of what is drawn")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    args = parser.parse_args(argv)
    ready(args.out, "--out")
    try:
        subject, notes = prepare(args.model, args.K)
        paths = save(subject.net, subject.calibration, args.out)
        paths.append(write(plots.transfer_curve(4, 6.0, "floor"), args.out / "transfer_K4.png"))
        error = plots.pareto(trade(args.model), y="logit_error")
        paths.append(write(error, args.out / "pareto.png"))
    except (config.UserError, fs.ConversionError) as error:
        parser.error(str(error))
    for note in notes:
        say(f"! {note}")
    for path in paths:
        say(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    interrupt.raise_once()
    main()
