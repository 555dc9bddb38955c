"""The loggers that a configuration asks for, opened before any work."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from bench.output.loggers.csv_files import CsvRun, CsvSeries
from bench.output.loggers.interface import (
    Logger,
    Mirror,
    SeriesLogger,
    Several,
    SeveralOfSeries,
)
from bench.output.loggers.tensorboard_events import TensorBoardRun, TensorBoardSeries
from bench.output.loggers.wandb_run import Place, WandbRun, WandbSeries


def open_loggers(cfg: DictConfig, directory: Path, place: Place | None = None) -> Several:
    """The loggers of a run.

    Args:
        cfg: its configuration. directory: where its files go. place: among other runs.

    Raises:
        UserError: a package is missing, or nobody is logged in; before any work.
    """
    asked: list[Logger] = []
    if cfg.logger.csv:
        asked.append(CsvRun(directory))
    if cfg.logger.tensorboard:
        asked.append(Mirror("tensorboard", TensorBoardRun(directory)))
    if cfg.logger.wandb:
        asked.append(Mirror("wandb", WandbRun(cfg, directory, place or Place())))
    return Several(asked)


def open_series(cfg: DictConfig, directory: Path, group: str) -> SeveralOfSeries:
    """The loggers of a series of runs; as `open_loggers`.

    Args:
        group: what the series is called.
    """
    asked: list[SeriesLogger] = []
    if cfg.logger.csv:
        asked.append(CsvSeries(directory))
    if cfg.logger.tensorboard:
        asked.append(Mirror("tensorboard", TensorBoardSeries(directory)))
    if cfg.logger.wandb:
        asked.append(Mirror("wandb", WandbSeries(cfg, directory, group)))
    return SeveralOfSeries(asked)
