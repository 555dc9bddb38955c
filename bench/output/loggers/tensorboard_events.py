"""logger=tensorboard: event files in the run's folder, which TensorBoard finds below outputs/."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from bench.errors import UserError
from bench.output.loggers.interface import (
    Logger,
    SeriesLogger,
    Values,
    answers_over_time,
    layers,
    numbers,
    over_K,
)

FOLDER = "tensorboard"


class TensorBoardRun(Logger):
    """The numbers of a run, its curves and its figures.

    The step is the number of the layer in layers/..., and the time step in rate_coding_...; all
    else has the one step 0.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.writer = writer_class()  # before any work

    def start(self, values: Values) -> None:
        """Makes the event file; the machine and the command stand in it as text."""
        self.written: dict[str, float] = {}
        self.events = self.writer(str(self.directory / FOLDER), flush_secs=30)
        for key in ("command", "machine", "versions"):
            text = json.dumps(values.get(key), indent=2)
            self.events.add_text(key, f"```\n{text}\n```", 0)

    def stage(self, values: Values) -> None:
        """Adds the numbers that are new."""
        for key, value in numbers(values).items():
            if self.written.get(key) != value:
                self.events.add_scalar(key, value, 0)
                self.written[key] = value
        self.events.flush()

    def finish(self, values: Values) -> None:
        """Adds what is drawn."""
        self.stage(values)
        for i, row in enumerate(layers(values)):
            for key, value in row.items():
                if isinstance(value, (int, float)):
                    self.events.add_scalar(f"layers/{key}", value, i)
        for name, curve in answers_over_time(values).items():
            for row in curve:
                for key in ("share", "spikes_per_image"):
                    self.events.add_scalar(f"rate_coding_{name}/{key}", row[key], row["T"])
        for name in values.get("figures") or []:
            path = self.directory / name
            if path.suffix == ".png":
                self.events.add_image(f"figures/{path.stem}", pixels(path), 0, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Writes out what is left."""
        if hasattr(self, "events"):
            self.events.close()


class TensorBoardSeries(SeriesLogger):
    """What is drawn over K: the step is K."""

    def __init__(self, directory: Path):
        self.events = writer_class()(str(directory / FOLDER))

    def add(self, label: str, values: Values) -> None:
        """Adds a point to every curve."""
        for key, value in over_K(values).items():
            self.events.add_scalar(key, value, values["K"])
        self.events.flush()

    def close(self) -> None:
        self.events.close()


def writer_class() -> type:
    """SummaryWriter of torch.

    Raises:
        UserError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "logger=tensorboard needs tensorboard: pip install tensorboard, or use logger=csv"
        ) from error
    return SummaryWriter


def pixels(path: Path) -> np.ndarray:
    """A figure as uint8 [rows, columns, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
