"""Measures a network as ANN, as FS network and rate-coded: python bench/run.py model=resnet50 K=10.

Prints a table and writes results.json into Hydra's run directory.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

# As a script Python looks for packages in bench/: the repository comes first, and the current
# folder is where a user's own model._target_ is found.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(os.getcwd())

from bench.output import interrupt

if __name__ == "__main__":
    interrupt.start()
    interrupt.tell("reading the configuration")  # by Hydra, which takes more than a second

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from bench.errors import UserError
from bench.inputs import config
from bench.output.by_hydra import run_by_hydra
from bench.output.faults import curable, fail
from bench.output.progress import console, say

if TYPE_CHECKING:
    from bench.output.series import Series

config.register()
SCRIPT = "bench/run.py"


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """The command line: one run, the rows of an experiment, or the jobs of a sweep (-m)."""
    settings = HydraConfig.get()
    directory = Path(settings.runtime.output_dir)
    sweep = Path(settings.sweep.dir).absolute() if settings.mode == RunMode.MULTIRUN else None
    option = "hydra.run.dir" if sweep is None else "hydra.sweep.dir"
    try:
        with interrupt.importing():
            from bench.measures import harness
            from bench.measures.rivals import compare, growth
            from bench.output.machine import command
        typed = list(settings.overrides.task)
        experiment = settings.runtime.choices.get("experiment")
        runs = {
            "networks": partial(harness.run, experiment=experiment),
            "rivals": compare.run,
            "scaling": growth.run,
        }
        if sweep is not None:
            if not SERIES:
                SERIES.append(series(cfg, sweep, option))
            if cfg.rows:
                raise UserError(
                    "an experiment with rows is a series by itself: leave out -m, or say rows=[]"
                )
            # An experiment that is a sweep would be one again.
            again = command(SCRIPT, [*typed, "hydra.mode=RUN"])
            job = partial(measured(runs, cfg), cfg, directory, group(sweep), again)
            SERIES[0].attempt(" ".join(typed), directory, job)
        elif cfg.rows:
            SERIES.append(series(cfg, directory, option))
            for i, (row, one) in enumerate(compose_rows(cfg)):
                say(f"--- {row}")
                again = command(SCRIPT, [*typed, *shlex.split(row), "rows=[]"])
                own = directory / f"{i:02d}"
                job = partial(measured(runs, one), one, own, group(directory), again)
                SERIES[0].attempt(row, own, job)
        else:
            measured(runs, cfg)(cfg, directory, command=command(SCRIPT))
    except curable() as error:
        sys.exit(fail(error, option))
    except KeyboardInterrupt as error:
        tell_interrupted(sweep or directory)
        sys.exit(interrupt.code(error))


def series(cfg: DictConfig, directory: Path, option: str) -> Series:
    """A series with the loggers that it is asked for.

    Args:
        option: the setting that names the directory.
    """
    with interrupt.importing():
        from bench.output.loggers.opening import open_series
        from bench.output.machine import command
        from bench.output.series import Series
    logger = open_series(cfg, directory, group(directory))
    return Series(directory, command(SCRIPT), option, cfg.report, logger)


def group(directory: Path) -> str:
    """What dashboards call a series: a time of day alone would be that of another day, too."""
    return "/".join(directory.absolute().parts[-2:])


def measured(runs: dict[str, Callable[..., dict]], cfg: DictConfig) -> Callable[..., dict]:
    """What measures as `measure` says.

    Raises:
        UserError: it says nothing that there is.
    """
    if cfg.measure not in runs:
        raise UserError(f"measure={cfg.measure}: choose one of {', '.join(runs)}")
    return runs[cfg.measure]


def tell_interrupted(finished: Path | None) -> None:
    """The last sentence after Ctrl-C or a signal like it."""
    where = f"; what was finished: {finished}" if finished else ""
    console.print(f"interrupted{where}", markup=False, soft_wrap=True)


SERIES: list[Series] = []  # the one of this process; Hydra calls main() for every job of a sweep


def compose_rows(cfg: DictConfig) -> list[tuple[str, DictConfig]]:
    """Each row with its configuration: what was typed, then the row's own settings.

    Raises:
        UserError: a row that does not compose, before any work.
    """
    with interrupt.importing():
        from bench.inputs.checks import validate
    typed = list(HydraConfig.get().overrides.task)
    jobs = []
    for row in cfg.rows:
        try:
            job = hydra.compose("config", [*typed, *shlex.split(row)])
            validate(job)
        except (HydraException, ValueError) as error:
            raise UserError(f"rows: {row}: {error}") from error
        jobs.append((row, job))
    return jobs


if __name__ == "__main__":
    try:
        run_by_hydra(main)
        status = SERIES[0].close() if SERIES else 0
    except curable() as error:  # what Hydra writes itself
        status = fail(error, "hydra.run.dir or hydra.sweep.dir")
    except KeyboardInterrupt as error:  # before main() or behind it
        tell_interrupted(SERIES[0].directory if SERIES else None)
        status = interrupt.code(error)
    interrupt.leave_at_once()  # Python's own farewell takes a while
    sys.exit(status)
