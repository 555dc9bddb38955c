"""The search for the fewest time steps, and its network on images that did not choose it."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

import fskernel as fs
from bench.errors import UserError
from bench.inputs.checks import check_report, known_keys
from bench.inputs.config import SearchConf, network_name
from bench.inputs.material import gather, name_skipped
from bench.measures import networks
from bench.measures.answers import GATE
from bench.output import machine
from bench.output.cores import usable_cores
from bench.output.markdown import accuracy
from bench.output.progress import bar, console, say
from bench.output.record import Record
from bench.output.report import search_page
from bench.output.report.leave import NAME, leave
from fskernel.analysis import style
from fskernel.files import write_text


def run(cfg: DictConfig, directory: Path, command: str | None = None) -> fs.SearchResult:
    """One search; writes its files into the directory.

    Args:
        cfg: the composed configuration, see inputs/config.py.
        directory: where they go.
        command: what repeats this search, for the record.

    Raises:
        UserError: the configuration asks for what cannot be done, or no K keeps within the budget.
    """
    known_keys(cfg, OmegaConf.structured(SearchConf))
    for key in ("calibration", "images"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]}: must be at least 1")
    if not 1 <= cfg.threads <= usable_cores():
        raise UserError(f"threads={cfg.threads}: this process may use 1 to {usable_cores()} cores")
    check_report(cfg)
    random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_num_threads(cfg.threads)
    with Record(directory) as record:
        record.add(command=command, started=machine.now())
        return search(cfg, directory, record)


def search(cfg: DictConfig, directory: Path, record: Record) -> fs.SearchResult:
    """What `run` does, once the settings have been checked and the folder is ours."""
    name = network_name(cfg.model)
    record.add(model=name, versions=machine.versions(), machine=machine.machine("cpu"))
    found = gather(cfg, record)
    images = found.calibration if found.labels is None else (found.calibration, found.labels)
    neuron = OmegaConf.to_container(cfg.neuron, resolve=True)
    del neuron["average_pool"]  # `gather` has replaced the pools
    say(f"searching the K of {name} on {len(found.calibration)} images")
    try:
        result = fs.search(
            found.ann,
            images,
            cfg.budget,
            criterion=cfg.criterion,
            K_range=tuple(cfg.K_range),
            per_layer=cfg.per_layer,
            max_evaluations=cfg.max_evaluations,
            folder=cfg.folder or directory,
            timing=cfg.timing,
            progress=console.is_terminal,
            **neuron,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"{name}: {error}") from error
    result.net.save(directory / "network.safetensors")
    style.save(result.plot(title=name), directory / "pareto.png")
    record.add(
        weights=found.weights.name,
        random_weights=found.weights.random,
        gate={"least": GATE},
        search=result.summary(),
    )
    tally = networks.Tally()
    with bar("scoring on other images", cfg.images) as advance:
        batches = found.evaluated.batches(cfg.images, 16)
        networks.evaluate(tally, found.ann, result.net, batches, 0, advance)
    name_skipped(found.evaluated)
    apart = cfg.data.kind != "samples"
    record.add(images=tally.images, accuracy=tally.accuracy(apart) if tally.images else {})
    text = "\n".join([result.table(), "", *scored(record.values), *notes(record.values)])
    write_text(directory / "table.md", text + "\n")
    record.add(complete=True)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    made = "table.md, pareto.png, network.safetensors"
    if cfg.report:
        leave(partial(search_page.write, record.values, directory))
        made += f", {NAME}" if (directory / NAME).exists() else ""
    say(f"{made}: {directory}")
    return result


def scored(values: dict) -> list[str]:
    """How the network found does on images that did not choose it."""
    if not values["images"]:
        return []
    shares = [("same answer as the ANN", "agreement"), ("top-1", "fs"), ("the ANN's top-1", "ann")]
    found = []
    for title, key in shares:
        if values[f"accuracy.{key}"] is not None:
            found.append(f"{title} {accuracy(values, key)}")
    error = values["accuracy.logit_error"]
    found.append("logit error -" if error is None else f"logit error {error:.4f}")
    return [f"The chosen network on {values['images']} other images: {', '.join(found)}."]


def notes(values: dict) -> list[str]:
    """What the reader of the table must know."""
    return ["", *(f"- {note}" for note in values["notes"])] if values["notes"] else []
