"""What can be configured: the schema behind conf/, and the checks done before any work."""

from __future__ import annotations

import difflib
import importlib.util
import math
import re
import sys
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, DictConfig, OmegaConf

from bench.errors import UserError
from bench.machine import usable_cores
from fskernel.calibrate import POLICIES
from fskernel.convert import BOTTLENECKS
from fskernel.correct import CORRECTIONS


@dataclass
class InputConf:
    """How a picture becomes the network's input."""

    resize: int | None = None  # shorter side in pixels; null: what the weights ask for, or 256
    crop: int = 224  # side of the centre crop
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass
class ModelConf:
    """The dense network (ANN) that is converted."""

    _target_: str = MISSING  # package.function that returns an nn.Module
    args: dict[str, Any] = field(default_factory=dict)  # keyword arguments of that function
    # auto | own (the function's) | random | a file (.pth, .safetensors) | a torchvision name
    weights: str = "auto"
    # Packages of PyPI that hold the function and, as a .pth file, the weights that auto takes.
    packages: list[str] = field(default_factory=list)
    name: str | None = None  # in tables; null: the last part of _target_
    input: InputConf = field(default_factory=InputConf)


@dataclass
class NeuronConf:
    """The FS neuron and how weights are rounded; see fskernel.convert."""

    K: int = 8
    # "max", "percentile:99.9", "mse", "logits", a number, or "top:6": the top word stands for 6
    alpha: Any = "max"
    rounding: str = "nearest"
    weight_bits: Any = 8  # 8 | 16 | auto
    correct: str | None = None  # null | bias | least_squares, see fskernel.convert
    bottleneck: str = "graded"  # what layers without a ReLU emit: graded | spiking
    average_pool: bool = False  # average-pool in place of max-pool, in the ANN too


@dataclass
class DataConf:
    """Where the pictures come from."""

    kind: str = MISSING  # samples | imagefolder | wnid_files | cifar10
    root: str | None = None
    # same: further pictures of these | samples: sample photographs | train: CIFAR-10's other split
    calibrate_on: str = "same"


@dataclass
class BaselineConf:
    """The rate-coded baseline."""

    kind: str = MISSING  # rate | none
    T: int = 550  # time steps of one picture
    images: int | None = None  # pictures simulated; null: one batch
    percentile: float = 99.9  # of the calibration activations, for the weight normalisation
    calibration: int = 4  # pictures for that percentile, at most those of the calibration set
    simulate: str = "transient"  # transient: 3 x depth steps, the rest extrapolated; all: T steps


@dataclass
class BackendConf:
    """Which kernels run."""

    device: str = "cpu"  # cpu | cuda | cuda:N | auto (a GPU if there is one) | emulated
    isa: str | None = None  # null: the best of this processor; else a name of fskernel.ops
    plane_bits: int = 0  # bit-planes one multiplication takes at once: 1, 2, 4, 8; 0: all


@dataclass
class LoggerConf:
    """Where results go besides results.json."""

    kind: str = MISSING  # none | csv | wandb
    project: str = "fskernel"
    mode: str = "offline"  # wandb only: offline | online


@dataclass
class Config:
    """Everything `bench/run.py` can be told."""

    model: ModelConf = field(default_factory=ModelConf)
    neuron: NeuronConf = field(default_factory=NeuronConf)
    data: DataConf = field(default_factory=DataConf)
    baseline: BaselineConf = field(default_factory=BaselineConf)
    backend: BackendConf = field(default_factory=BackendConf)
    logger: LoggerConf = field(default_factory=LoggerConf)
    K: int = II("neuron.K")  # time steps of the FS neuron
    batch: int = 1  # pictures in one call
    threads: int = 1  # one thread gives the steadiest figures
    images: int | None = None  # pictures evaluated; null: a folder's all, 16 sample photographs
    calibration: int = 16  # further pictures, for alpha and the percentile
    seed: int = 0
    rounds: int = 20  # timed rounds; every round runs the ANN and the FS network once
    warmup: int = 3  # rounds that are not timed
    fidelity: int = 4  # pictures compared with the paper's equations in float64; 0: none
    check: bool = True  # compare one picture bit for bit with the oracle before timing
    figures: bool = True  # draw spikes, words and neurons of one picture, as PNG files
    rows: list[str] = field(default_factory=list)  # one job a row: "K=6 neuron.weight_bits=16"


def register() -> None:
    """Makes the schema known to Hydra; conf/config.yaml names it first in its defaults."""
    ConfigStore.instance().store(name="schema", node=Config)


CHOICES = {
    "data.kind": ("samples", "imagefolder", "wnid_files", "cifar10"),
    "data.calibrate_on": ("same", "samples", "train"),
    "baseline.kind": ("rate", "none"),
    "baseline.simulate": ("transient", "all"),
    "logger.kind": ("none", "csv", "wandb"),
    "logger.mode": ("offline", "online"),
    "neuron.rounding": ("nearest", "floor"),
    "neuron.weight_bits": (8, 16, "auto"),
    "neuron.correct": CORRECTIONS,
    "neuron.bottleneck": BOTTLENECKS,
    "backend.plane_bits": (0, 1, 2, 4, 8),
}
AT_LEAST = {
    "batch": 1,
    "threads": 1,
    "images": 1,
    "calibration": 1,
    "rounds": 1,
    "warmup": 0,
    "fidelity": 0,
    "baseline.T": 1,
    "baseline.images": 1,
    "baseline.calibration": 1,
    "model.input.crop": 1,
}


def validate(cfg: DictConfig) -> None:
    """Refuses values of the right type that make no sense, naming the key, value and cure."""
    known_keys(cfg, OmegaConf.structured(Config))
    for key, allowed in CHOICES.items():
        value = select(cfg, key)
        if value not in allowed:
            raise UserError(f"{key}={value}: choose one of {', '.join(map(str, allowed))}")
    for key, least in AT_LEAST.items():
        value = select(cfg, key)
        if value is not None and value < least:
            raise UserError(f"{key}={value}: must be at least {least}")
    if cfg.figures and importlib.util.find_spec("matplotlib") is None:
        raise UserError("figures=true needs matplotlib: pip install matplotlib, or figures=false")
    if cfg.threads > usable_cores():
        raise UserError(
            f"threads={cfg.threads}: this process may use {usable_cores()} core(s), and more "
            "threads would wait for each other; use at most as many"
        )
    if not 1 <= cfg.K <= 15:
        raise UserError(f"K={cfg.K}: an FS neuron takes 1 to 15 time steps")
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: must be in 0 to 2^32 - 1")
    if not 0 < cfg.baseline.percentile <= 100:
        raise UserError(f"baseline.percentile={cfg.baseline.percentile}: must be in (0, 100]")
    if not re.fullmatch(r"cpu|auto|emulated|cuda(:\d+)?", cfg.backend.device):
        raise UserError(
            f"backend.device={cfg.backend.device}: choose cpu, cuda, cuda:N, auto or emulated"
        )
    size = cfg.model.input
    if size.resize is not None and size.resize < size.crop:
        raise UserError(
            f"model.input.resize={size.resize} is smaller than model.input.crop={size.crop}: "
            "a crop cannot be larger than the picture"
        )
    if len(size.mean) != len(size.std) or len(size.mean) not in (1, 3) or min(size.std) <= 0:
        raise UserError(
            f"model.input.mean={list(size.mean)} std={list(size.std)}: give one positive std and "
            "one mean per channel, 3 for colour and 1 for grey"
        )
    check_alpha(cfg.neuron.alpha)
    if cfg.data.calibrate_on == "train" and cfg.data.kind != "cifar10":
        raise UserError(
            f"data.calibrate_on=train: data={cfg.data.kind} has no training split; use same or "
            "samples"
        )
    if cfg.data.kind == "samples" and cfg.data.root is not None:
        raise UserError(
            f"data.root={cfg.data.root}: the sample photographs need no folder; "
            "to use yours say data=imagefolder or data=wnid_files"
        )


def known_keys(cfg: DictConfig, schema: DictConfig, prefix: str = "") -> None:
    """Refuses keys that +key=value added, except arguments of the user's own function."""
    known = list(schema.keys())
    for key in cfg:
        name = f"{prefix}{key}"
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            cure = f"; did you mean {prefix}{close[0]}?" if close else ""
            raise UserError(f"{name}: no such key{cure}")
        if name != "model.args" and OmegaConf.is_dict(schema._get_node(key)):
            known_keys(cfg[key], schema[key], f"{name}.")


def select(cfg: DictConfig, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def choose_alpha(alpha: Any, K: int) -> Any:
    """What fskernel.convert is told: "top:6" is the alpha whose largest word stands for 6.

    That word is (2^K - 1)/2^K of alpha. It is what networks with ReLU6 want, on any pictures.
    """
    if isinstance(alpha, str) and alpha.startswith("top:"):
        return float(alpha.partition(":")[2]) * 2.0**K / (2.0**K - 1)
    return alpha


def check_alpha(alpha: Any) -> None:
    """Accepts a word that fskernel.convert or `choose_alpha` knows, or a positive number."""
    cure = 'use "max", "percentile:99.9", "mse", "logits", "top:6" or a positive number'
    if isinstance(alpha, str):
        rule, _, value = alpha.partition(":")
        most = {"percentile": 100.0, "top": sys.float_info.max}.get(rule, 0.0)
        try:
            good = alpha in POLICIES or 0 < float(value) <= most
        except ValueError:
            good = False
        if not good:
            raise UserError(f"neuron.alpha={alpha}: {cure}")
    elif isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise UserError(f"neuron.alpha={alpha}: {cure}")
    elif not (math.isfinite(alpha) and alpha > 0):
        raise UserError(f"neuron.alpha={alpha}: {cure}")
