"""The fewest time steps within a budget: python bench/search.py model=cifar_resnet20 budget=0.01.

Writes table.md, pareto.png, network.safetensors and results.json into Hydra's run directory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(os.getcwd())

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()
    interrupt.tell("reading the configuration")  # by Hydra, which takes more than a second

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench.inputs import config
from bench.output.by_hydra import run_by_hydra
from bench.output.faults import curable, fail, in_one_sentence
from bench.output.progress import console

PLACE = "hydra.run.dir or folder"  # what says where results go
config.register()


@hydra.main(version_base="1.3", config_path="../conf", config_name="search")
def main(cfg: DictConfig) -> None:
    """The command line."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        with interrupt.importing():
            from bench.measures import k_search
            from bench.output.machine import command
        k_search.run(cfg, directory, command("bench/search.py"))
    except curable() as error:
        sys.exit(fail(error, PLACE))
    except KeyboardInterrupt as error:
        kept = cfg.folder or directory
        console.print(f"interrupted; with folder={kept} the same command goes on from there")
        sys.exit(interrupt.code(error))


if __name__ == "__main__":
    in_one_sentence(PLACE)(run_by_hydra)(main)
