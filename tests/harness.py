"""Shared by the tests of the harness: compose a configuration, write pictures."""

import copy
import functools
from pathlib import Path

from hydra import compose, initialize_config_dir
from PIL import Image

from bench.config import register

CONF = Path(__file__).parent.parent / "conf"

QUICK = [
    "model=cifar_resnet8",
    "model.weights=random",
    "images=2",
    "calibration=2",
    "rounds=2",
    "warmup=1",
    "baseline.T=30",
    "figures=false",
]


def composed(*overrides, **kwargs):
    """The configuration that `python bench/run.py *overrides` would have."""
    return copy.deepcopy(_composed(overrides, **kwargs))


@functools.cache
def _composed(overrides, **kwargs):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), **kwargs)


def write_picture(path, colour=(200, 30, 90), size=(40, 36)):
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path
