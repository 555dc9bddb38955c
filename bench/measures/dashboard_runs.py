"""Runs that are logged to be drawn: what a dashboard shows, for the documentation."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir

from bench import ROOT
from bench.inputs.config import register
from bench.measures import harness
from bench.output.dashboard.pictures import pictures
from bench.output.loggers import wandb_file
from bench.output.loggers.opening import open_series
from bench.output.progress import console
from bench.output.series import Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (2, 3, 4)  # K of the runs
RUN = [
    *("model=digits_cnn", "data=digits", "logger=wandb", "backend=cpu", "threads=1", "seed=0"),
    *("batch=100", "images=200", "calibration=100", "rounds=1", "warmup=0", "energy_rounds=0"),
    *("fidelity=0", "check=false", "figures=false", "report=false"),
    *("baseline.T=64", "baseline.every=2", "baseline.images=200"),
]


def draw() -> dict[str, Figure]:
    """Measures a small network with a few K, logs that as logger=wandb does, and draws it."""
    register()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        was, console.quiet = console.quiet, True
        try:
            log(place)
        finally:
            console.quiet = was
        paths = [place, *(place / str(K) for K in STEPS)]
        files = [next(path.glob("wandb/offline-run-*/*.wandb")) for path in paths]
        return pictures([wandb_file.finished(file) for file in files])


def log(place: Path) -> None:
    """A series of runs below a folder."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        jobs = {K: compose("config", [*RUN, f"K={K}"]) for K in STEPS}
    logger = open_series(jobs[STEPS[0]], place, "docs")
    series = Series(place, "", "", False, logger)
    for K, cfg in jobs.items():
        series.attempt(f"K={K}", place / str(K), partial(harness.run, cfg, place / str(K), "docs"))
    series.close()
