"""The checks of a configuration, done before any work."""

from __future__ import annotations

import difflib
import importlib.util
import math
import re
import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import UserError
from bench.inputs.config import LOGGERS, Config
from bench.inputs.data import MOST_SAMPLES, PHOTOGRAPHS, SAMPLES, TRAINABLE
from bench.output.cores import usable_cores
from bench.output.folders import FORMATS
from fskernel.calibration.correct import CORRECTIONS
from fskernel.calibration.ranges import POLICIES
from fskernel.conversion.convert import BOTTLENECKS
from fskernel.kernels.trains import PATHS
from fskernel.rate.fused import check_fused
from fskernel.rate.network import INPUTS, RESETS
from fskernel.rate.thresholds import MOST_BALANCED, NORMALISATIONS

CHOICES = {
    "data.kind": ("samples", "imagefolder", "wnid_files", "cifar10", "digits"),
    "data.calibrate_on": ("same", "samples", "train"),
    "baseline.kind": ("rate", "none"),
    "baseline.simulate": ("all", "transient"),
    "baseline.normalise": NORMALISATIONS,
    "baseline.reset": RESETS,
    "baseline.input": INPUTS,
    "baseline.simulator": ("auto", "fused", "torch"),
    "baseline.path": PATHS,
    "logger.mode": ("offline", "online"),
    "neuron.rounding": ("nearest", "floor"),
    "neuron.weight_bits": (8, 16, "auto"),
    "neuron.correct": CORRECTIONS,
    "neuron.bottleneck": BOTTLENECKS,
    "backend.plane_bits": (0, 1, 2, 4, 8),
    "figures": (True, False, *FORMATS),
    "measure": ("networks", "rivals", "scaling"),
}
AT_LEAST = {
    "batch": 1,
    "threads": 1,
    "images": 1,
    "calibration": 1,
    "rounds": 1,
    "warmup": 0,
    "energy_rounds": 0,
    "fidelity": 0,
    "baseline.T": 1,
    "baseline.images": 1,
    "baseline.every": 1,
    "baseline.calibration": 1,
    "baseline.balanced_for": 1,
    "baseline.burn_in": 0,
    "model.input.crop": 1,
    "rivals.slow_rounds": 1,
    "rivals.slow_images": 1,
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
        asked = str(cfg.figures).lower()
        raise UserError(
            f"figures={asked} needs matplotlib: pip install matplotlib, or figures=false"
        )
    check_report(cfg)
    if cfg.threads > usable_cores():
        raise UserError(
            f"threads={cfg.threads}: this process may use {usable_cores()} core(s), and more "
            "threads would wait for each other; use at most as many"
        )
    most = 16 if cfg.neuron.fitted else 15
    if not 1 <= cfg.K <= most:
        raise UserError(f"K={cfg.K}: an FS neuron takes 1 to {most} time steps")
    if cfg.neuron.fitted and cfg.backend.plane_bits:
        raise UserError(
            f"backend.plane_bits={cfg.backend.plane_bits}: the codes of fitted neurons have no "
            "planes; leave it out, or choose another neuron"
        )
    if cfg.neuron.fitted and cfg.neuron.alpha == "logits":
        raise UserError("neuron.alpha=logits: fitted neurons have no ranges to try; use max")
    if not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: must be in 0 to 2^32 - 1")
    if not re.fullmatch(r"cpu|auto|emulated|cuda(:\d+)?", cfg.backend.device):
        raise UserError(
            f"backend.device={cfg.backend.device}: choose cpu, cuda, cuda:N, auto or emulated"
        )
    size = cfg.model.input
    if size.resize is not None and size.resize < size.crop:
        raise UserError(
            f"model.input.resize={size.resize} is smaller than model.input.crop={size.crop}: "
            "a crop cannot be larger than the image"
        )
    if len(size.mean) != len(size.std) or len(size.mean) not in (1, 3) or min(size.std) <= 0:
        raise UserError(
            f"model.input.mean={list(size.mean)} std={list(size.std)}: give one positive std and "
            "one mean per channel, 3 for colour and 1 for grey"
        )
    check_alpha(cfg.neuron.alpha)
    check_baseline(cfg.baseline)
    check_rivals(cfg)
    if cfg.data.kind == "samples" and (cfg.images or SAMPLES) + cfg.calibration > MOST_SAMPLES:
        raise UserError(
            f"images={cfg.images or SAMPLES} calibration={cfg.calibration}: the samples are crops "
            f"of {len(PHOTOGRAPHS)} photographs, and more than {MOST_SAMPLES} of them in all tell "
            "nothing new; use fewer, or images of yours: data=imagefolder data.root=DIR"
        )
    if cfg.data.calibrate_on == "train" and cfg.data.kind not in TRAINABLE:
        raise UserError(
            f"data.calibrate_on=train: data={cfg.data.kind} has no training split; use same or "
            "samples"
        )
    if cfg.data.kind in ("samples", "digits") and cfg.data.root is not None:
        raise UserError(
            f"data.root={cfg.data.root}: data={cfg.data.kind} needs no folder; to use yours say "
            "data=cifar10, data=imagefolder or data=wnid_files"
        )


def check_baseline(conf: DictConfig) -> None:
    """Refuses settings of the rate-coded network that make no sense, or none together."""
    if not 0 < conf.percentile <= 100:
        raise UserError(f"baseline.percentile={conf.percentile}: must be in (0, 100]")
    if conf.balanced_for > MOST_BALANCED:
        raise UserError(
            f"baseline.balanced_for={conf.balanced_for}: must be at most {MOST_BALANCED}"
        )
    if conf.burn_in >= conf.T:
        raise UserError(
            f"baseline.burn_in={conf.burn_in}: of baseline.T={conf.T} steps none is left to sum; "
            f"use at most {conf.T - 1}"
        )
    if conf.simulator == "fused":
        try:
            check_fused(conf.reset, conf.input)
        except ValueError as error:
            raise UserError(f"baseline.{error}: baseline.simulator=torch") from error
    if conf.path != "auto" and conf.simulator == "torch":
        raise UserError(
            f"baseline.path={conf.path}: plain torch has no paths; say baseline.simulator=fused"
        )
    asks = {"every": conf.every, "curve": conf.curve or None, "burn_in": conf.burn_in or None}
    for key, value in asks.items():
        if value is not None and conf.simulate != "all":
            raise UserError(
                f"baseline.{key}={str(value).lower()}: an extrapolation has no answers; say "
                "baseline.simulate=all too"
            )


def check_rivals(cfg: DictConfig) -> None:
    """Refuses settings of experiment=rivals and experiment=scaling that make no sense."""
    asked = [name for name in LOGGERS if cfg.logger[name]]
    if cfg.measure != "networks" and asked:
        raise UserError(
            f"logger={asked[0]}: experiment={cfg.measure} leaves table.csv, table.md and "
            "table.tex; say logger=none"
        )
    for key, most in (("rivals.K", 15), ("scaling.K", 15), ("scaling.threads", usable_cores())):
        for value in select(cfg, key) or ():
            if not 1 <= value <= most:
                raise UserError(f"{key}={list(select(cfg, key))}: must be 1 to {most} each")
    for key in ("size", "width", "batch", "thread_batches"):
        for value in cfg.scaling[key]:
            if value < 1:
                raise UserError(f"scaling.{key}={list(cfg.scaling[key])}: must be at least 1 each")


def check_report(cfg: DictConfig) -> None:
    """Refuses a report where a package that makes it is missing."""
    for package in ("plotly", "jinja2") if cfg.report else ():
        if importlib.util.find_spec(package) is None:
            raise UserError(f"report=true needs {package}: pip install {package}, or report=false")


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

    That word is (2^K - 1)/2^K of alpha. It is what networks with ReLU6 want, on any images.
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
