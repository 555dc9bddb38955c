"""Shaped and fitted neurons in trained networks over K: measured, kept, and put into a document."""

from __future__ import annotations

import argparse
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from bench import ROOT
from bench.inputs.checks import validate
from bench.inputs.config import register
from bench.output.markdown import accuracy, put, table, with_interval
from bench.output.record import Record
from bench.paper import neuron_figures
from bench.paper.table_runs import Job, measure, prepare, read
from fskernel.activations import Activation
from fskernel.analysis import plots, style
from fskernel.calibration.fitted_choice import shipped
from fskernel.files import write_text

NETWORKS = {
    "cifar_resnet20_silu": "ResNet20, SiLU",
    "cifar_mobilenet": "mobile network, Hardswish and gates",
}
# By the group conf/neuron: the K of each run, and what its neurons are called.
STEPS = {"default": (4, 5, 6, 8, 10, 12), "fitted": (8, 12, 16)}
NEURONS = {"default": "shaped", "fitted": "fitted"}
MARK = "neurons over K"
RASTER = "cifar_resnet20_silu"  # the network whose spikes are drawn


def compose(network: str, neuron: str, K: int, args: argparse.Namespace) -> Job:
    """What bench/run.py would be told."""
    overrides = [f"model={network}", f"neuron={neuron}", f"K={K}", "data=cifar10", "baseline=none"]
    register()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose("config", overrides=overrides)
    cfg.data.root, cfg.images, cfg.threads = str(args.cifar), args.images, args.threads
    cfg.calibration, cfg.batch = args.calibration, 50
    validate(cfg)
    cfg.neuron.K = cfg.K
    asked = {"options": overrides, "images": cfg.images, "calibration": cfg.calibration}
    asked["neuron"] = OmegaConf.to_container(cfg.neuron, resolve=True)
    return Job(cfg, args.out / network / f"{neuron}-{K}", asked)


def measure_all(args: argparse.Namespace, command: str) -> None:
    """Measures what is missing, and writes after each network.

    Args:
        args: of bench/tables.py. command: that measures the same, for the document.
    """
    for network in NETWORKS:
        for neuron, steps in STEPS.items():
            for K in steps:
                measure(compose(network, neuron, K, args))
        write(args, command)
    draw(args)


def draw(args: argparse.Namespace) -> None:
    """What neurons of both kinds make of a membrane, and of one image in a network, as figures."""
    folder = args.docs.parent if args.docs else args.out
    ready = [neuron for K in (8, 16) for neuron in shipped()["silu", K] if neuron.high == 8.0]
    figure = neuron_figures.transfer(Activation("silu"), [4], ready)
    style.save(figure, folder / "fitted_transfer.png")
    for neuron, K in (("default", 8), ("fitted", 16)):
        job = compose(RASTER, neuron, K, args)
        with Record(args.out / "raster", "--out", replace=True) as record:
            seen = prepare(job, record)
        image, _ = next(iter(seen.evaluated.batches(1, 1)))
        layer = next(step.name for step in seen.net.steps if step.spiking)
        _, stats = seen.net.run(image, record=[layer])
        title = f"{NETWORKS[RASTER]}: the first layer, {NEURONS[neuron]} neurons"
        figure = plots.raster(stats.recorded[layer], image=0, every=331, title=title)
        style.save(figure, folder / f"{NEURONS[neuron]}_raster.png")


def collect(out: Path) -> dict[tuple[str, str, int], dict]:
    """Complete records by network, neuron and K, in the table's order."""
    found = {}
    for network in NETWORKS:
        for neuron, steps in STEPS.items():
            for K in steps:
                record = read(out / network / f"{neuron}-{K}" / "results.json")
                if record is not None and record["complete"]:
                    found[network, neuron, K] = record
    return found


def write(args: argparse.Namespace, command: str) -> None:
    """The table and the figure beside it, from all that is in --out."""
    records = collect(args.out)
    path = args.docs.with_name("fitted.md") if args.docs else args.out / "neurons.md"
    plot = path.with_name("neurons_over_K.svg")
    style.save(neuron_figures.over_K(records, NETWORKS, NEURONS), plot)
    text = section(records, command, plot.name)
    if args.docs:
        put(path, MARK, text)
    else:
        write_text(path, text + "\n")


def section(records: dict[tuple[str, str, int], dict], command: str, plot: str) -> str:
    """What stands between the marks."""
    first = next(iter(records.values()))
    rows, last = [], None
    for (network, neuron, K), v in records.items():
        if network != last:
            title = f"{NETWORKS[network]}, {v['neurons']:,} neurons"
            rows.append([title, "ANN", "-", accuracy(v, "ann"), "-", "-", "-", "-"])
            last = network
        error = with_interval(v["accuracy.logit_error"], None, lambda x: f"{x:.3f}")
        rows.append(
            [
                *("", NEURONS[neuron], K, accuracy(v, "fs"), difference(v), error),
                f"{v['fs.spikes_per_image']:,.0f}",
                f"{v['fs.spikes_per_neuron']:.2f}",
            ]
        )
    head = ("network", "neurons", "K", "top-1", "to the ANN", "logit error", "spikes", "a neuron")
    return "\n".join(
        [
            f"Measured on {first['date']}; processor: {first['machine']['cpu']}; torch "
            f"{first['versions']['torch']}; {first['images']:,} test images.",
            "",
            f"```\n{command}\n```",
            "",
            *table(head, rows),
            "",
            f"![Accuracy, logit error and spikes of both neurons over K]({plot})",
        ]
    )


def difference(v: dict) -> str:
    """Of the top-1 accuracies, in points."""
    return f"{100 * (v['accuracy.fs'] - v['accuracy.ann']):+.2f}"
