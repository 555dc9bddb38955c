"""Where results go besides results.json: CSV files or Weights & Biases."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import UserError
from fskernel.files import replacing

Values = dict[str, Any]


class NoLogger:
    """results.json is enough."""

    def __enter__(self) -> NoLogger:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to close."""

    def stage(self, values: Values) -> None:
        """Called with everything known so far, after every stage."""

    def finish(self, values: Values) -> None:
        """Called once, when the run is complete."""


class CsvLogger(NoLogger):
    """results.csv with one row of all scalars, and layers.csv with one row per layer."""

    def __init__(self, directory: Path):
        self.directory = directory

    def stage(self, values: Values) -> None:
        """Rewrites both files, so that an interrupted run leaves what it had."""
        row = scalars(values)
        _write(self.directory / "results.csv", [row])
        if values.get("fs.layers"):
            _write(self.directory / "layers.csv", values["fs.layers"])

    finish = stage


class WandbLogger(NoLogger):
    """One wandb run: the configuration, summary metrics and a table of layers at the end."""

    def __init__(self, cfg: DictConfig, directory: Path, group: str | None):
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "logger=wandb needs wandb: pip install wandb, or use logger=csv"
            ) from error
        if cfg.logger.mode == "online" and not _logged_in(wandb):
            raise UserError(
                "logger.mode=online, but you are not logged in to wandb: run `wandb login`, or "
                "leave logger.mode at offline and `wandb sync` the run later"
            )
        self.wandb = wandb
        self.settings = {
            "project": cfg.logger.project,
            "mode": cfg.logger.mode,
            "group": group,
            "dir": str(directory),
            "config": OmegaConf.to_container(cfg, resolve=True),
            "reinit": "finish_previous",
        }

    def __enter__(self) -> WandbLogger:
        self.run = self.wandb.init(**self.settings)
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        # Its own context manager would print a traceback, of Ctrl-C and of a user's mistake too.
        self.run.finish(exit_code=0 if kind is None else 1)

    def finish(self, values: Values) -> None:
        """Logs the metrics once; each is defined with a summary of its own."""
        metrics = {k: v for k, v in scalars(values).items() if isinstance(v, (int, float))}
        for key in metrics:
            self.run.define_metric(key, summary="last")
        self.run.log(metrics)
        rows = values["fs.layers"]
        table = self.wandb.Table(
            columns=list(rows[0]), data=[[row[key] for key in rows[0]] for row in rows]
        )
        self.run.log({"fs.layers": table})


def _logged_in(wandb: Any) -> bool:
    try:
        return bool(os.environ.get("WANDB_API_KEY") or wandb.Api().api_key)
    except wandb.errors.UsageError:  # what it raises without a key
        return False


def open_logger(cfg: DictConfig, directory: Path, group: str | None) -> NoLogger:
    """The logger that the configuration names; refuses before any work what it cannot do."""
    if cfg.logger.kind == "csv":
        return CsvLogger(directory)
    if cfg.logger.kind == "wandb":
        return WandbLogger(cfg, directory, group)
    return NoLogger()


def scalars(values: Values) -> Values:
    """The values that fit into a cell; intervals become two of them."""
    row: Values = {}
    for key, value in values.items():
        if isinstance(value, list) and len(value) == 2 and key.endswith(("_iqr", "_interval")):
            row[f"{key}_low"], row[f"{key}_high"] = value
        elif isinstance(value, dict):
            row.update(
                {f"{key}.{k}": v for k, v in value.items() if not isinstance(v, (list, dict))}
            )
        elif not isinstance(value, list):
            row[key] = value
    return row


def _write(path: Path, rows: list[Values]) -> None:
    with replacing(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
