"""The fewest time steps within a budget: python bench/search.py model=cifar_resnet20 budget=0.01.

Writes table.md, pareto.png, network.safetensors and results.json into Hydra's run directory.
"""

from __future__ import annotations

import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(os.getcwd())

from bench import interrupt

if __name__ == "__main__":
    interrupt.leave_at_once()  # the imports take seconds

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import fskernel as fs
from bench import machine, measure
from bench.by_hydra import run_by_hydra
from bench.config import DataConf, ModelConf, known_keys
from bench.errors import UserError
from bench.faults import FAULTS, fail, in_one_sentence
from bench.machine import usable_cores
from bench.material import gather, name_skipped
from bench.progress import bar, console, say
from bench.record import Record
from fskernel.files import write_figure, write_text

PLACE = "hydra.run.dir or folder"  # what says where results go


@dataclass
class SearchNeuronConf:
    """The FS neuron but for its K, and how weights are rounded; see fskernel.convert."""

    alpha: float | str = "max"
    rounding: str = "nearest"
    weight_bits: int | str = 8
    correct: str | None = None
    bottleneck: str = "graded"
    average_pool: bool = False  # average-pool in place of max-pool, in the ANN too


@dataclass
class SearchConf:
    """Everything `bench/search.py` can be told; budget to timing are fskernel.search's."""

    model: ModelConf = field(default_factory=ModelConf)
    data: DataConf = field(default_factory=DataConf)
    neuron: SearchNeuronConf = field(default_factory=SearchNeuronConf)
    budget: float = 0.01
    criterion: str = "agreement"
    K_range: list[int] = field(default_factory=lambda: [3, 10])
    per_layer: bool = True
    max_evaluations: int = 100
    timing: bool = True
    folder: str | None = None  # keeps evaluations from run to run; null: the run directory
    calibration: int = 100  # pictures that K is chosen on
    images: int = 16  # further pictures that the network found is scored on
    threads: int = 1
    seed: int = 0


ConfigStore.instance().store(name="search_schema", node=SearchConf)


def run(cfg: DictConfig, directory: Path) -> fs.SearchResult:
    """One search; writes its files into the directory.

    Raises:
        UserError: the configuration asks for what cannot be done, or no K keeps within the budget.
    """
    known_keys(cfg, OmegaConf.structured(SearchConf))
    for key in ("calibration", "images"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]}: must be at least 1")
    if not 1 <= cfg.threads <= usable_cores():
        raise UserError(f"threads={cfg.threads}: this process may use 1 to {usable_cores()} cores")
    random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_num_threads(cfg.threads)
    with Record(directory) as record:
        return search(cfg, directory, record)


def search(cfg: DictConfig, directory: Path, record: Record) -> fs.SearchResult:
    """What `run` does, once the settings have been checked and the folder is ours."""
    name = cfg.model.name or cfg.model["_target_"].rpartition(".")[2]
    record.add(model=name, versions=machine.versions(), machine=machine.machine("cpu"))
    found = gather(cfg, record)
    pictures = found.calibration if found.labels is None else (found.calibration, found.labels)
    neuron = OmegaConf.to_container(cfg.neuron, resolve=True)
    del neuron["average_pool"]  # `gather` has replaced the pools
    say(f"searching the K of {name} on {len(found.calibration)} pictures")
    try:
        result = fs.search(
            found.ann,
            pictures,
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
    write_figure(result.plot(), directory / "pareto.png", dpi=150)
    record.add(weights=found.weights.name, search=result.summary())
    tally = measure.Tally()
    with bar("scoring on other pictures", cfg.images) as advance:
        batches = found.evaluated.batches(cfg.images, 16)
        measure.evaluate(tally, found.ann, result.net, batches, 0, advance)
    name_skipped(found.evaluated)
    record.add(images=tally.images, accuracy=tally.accuracy() if tally.images else {})
    text = "\n".join([result.table(), "", *scored(record.values), *notes(record.values)])
    write_text(directory / "table.md", text + "\n")
    record.add(complete=True)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    say(f"table.md, pareto.png, network.safetensors: {directory}")
    return result


def scored(values: dict) -> list[str]:
    """How the network found does on pictures that did not choose it."""
    if not values["images"]:
        return []
    shares = [("same answer as the ANN", "agreement"), ("top-1", "fs"), ("the ANN's top-1", "ann")]
    found = []
    for title, key in shares:
        if values[f"accuracy.{key}"] is not None:
            low, high = values[f"accuracy.{key}_interval"]
            found.append(f"{title} {values[f'accuracy.{key}']:.1%} [{low:.1%}, {high:.1%}]")
    error = values["accuracy.logit_error"]
    found.append("logit error -" if error is None else f"logit error {error:.4f}")
    return [f"The chosen network on {values['images']} other pictures: {', '.join(found)}."]


def notes(values: dict) -> list[str]:
    """What the reader of the table must know."""
    return ["", *(f"- {note}" for note in values["notes"])] if values["notes"] else []


@hydra.main(version_base="1.3", config_path="../conf", config_name="search")
def main(cfg: DictConfig) -> None:
    """The command line."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        run(cfg, directory)
    except FAULTS as error:
        sys.exit(fail(error, PLACE))
    except KeyboardInterrupt as error:
        kept = cfg.folder or directory
        console.print(f"interrupted; with folder={kept} the same command goes on from there")
        sys.exit(interrupt.code(error))


if __name__ == "__main__":
    interrupt.raise_once()
    in_one_sentence(PLACE)(run_by_hydra)(main)
