"""Trains the networks whose weights come along: python bench/train.py model=... data.root=DIR.

Writes into out/MODEL/: checkpoint.pt after every epoch, from which the same command goes on, and at
the end MODEL.safetensors with MODEL.json, the model card.
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
from omegaconf import DictConfig

from bench.inputs import config
from bench.output.by_hydra import run_by_hydra
from bench.output.faults import curable, fail, in_one_sentence
from bench.output.progress import console

config.register()


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """The command line."""
    try:
        with interrupt.importing():
            from bench.paper import training
        training.train(cfg)
    except curable() as error:
        sys.exit(fail(error, "out"))
    except KeyboardInterrupt as error:
        console.print("interrupted; the same command goes on after the last whole epoch")
        sys.exit(interrupt.code(error))


if __name__ == "__main__":
    in_one_sentence("out")(run_by_hydra)(main)
