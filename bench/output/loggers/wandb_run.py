"""logger=wandb: a run of Weights & Biases for every run of the harness, and one for a series.

Offline unless logger.mode=online. bench/output/dashboard/ arranges what is logged here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from bench.errors import UserError
from bench.output.dashboard import sections
from bench.output.loggers.interface import (
    OVER_K,
    Logger,
    SeriesLogger,
    Values,
    answers_over_time,
    layers,
    metric,
    numbers,
    over_K,
)
from bench.output.report.charts import raced, times
from bench.output.report.leave import NAME
from fskernel.kernels import ops

FILES = ("results.json", "config.yaml", "neurobench.json", NAME)  # of the artifact "results"
OF_SERIES = (NAME, "table.md", "table.csv", "table.tex")  # of the artifact "series"
SHOWN = sections.keys()  # on the dashboard: part of the history, too
WAIT = 60.0  # seconds that a server may take in the beginning, and again in the end
# How the history's metrics are summed up; the first of a pair is the axis of the others.
LAYERS = ("layers/number", "layers/*", "last")
CURVE = ("rate_coding_{}/T", "rate_coding_{}/*", "max")
LONGEST_TAG = 64  # characters, of W&B


class Place(NamedTuple):
    """Where a run stands among others.

    Attributes:
        group: the series that it belongs to. experiment: that was named, or None.
    """

    group: str | None = None
    experiment: str | None = None


class WandbRun(Logger):
    """The configuration at once, numbers after every stage, curves, tables and files in the end."""

    def __init__(self, cfg: DictConfig, directory: Path, place: Place):
        self.wandb, self.cfg, self.directory, self.place = ready(cfg), cfg, directory, place
        self.run: Any = None

    def start(self, values: Values) -> None:
        """Begins the run: a killed one has its configuration and machine."""
        where = kernels(values)
        facts = {key: values[key] for key in ("command", "machine", "versions")}
        facts |= {"kernels": where, "network": values["model"]}
        self.run = begin(
            self.wandb,
            self.cfg,
            self.directory,
            name=f"{values['model']} K={values['K']} {where}",
            group=self.place.group,
            job_type=self.place.experiment or ("sweep" if self.place.group else "run"),
            tags=tags(values["model"], f"K={values['K']}", where, self.cfg.data.kind),
            config=OmegaConf.to_container(self.cfg, resolve=True) | facts,
        )

    def stage(self, values: Values) -> None:
        """The numbers go into the summary, where they are columns and bars, not charts of a dot."""
        self.run.summary.update(numbers(values))

    def finish(self, values: Values) -> None:
        """Curves, tables, figures and files."""
        self.stage(values)
        known = {key: value for key, value in numbers(values).items() if key in SHOWN}
        for key in known:
            self.run.define_metric(key, summary="last")
        self.run.log(known)
        self._curves(values)
        self._tables(values)
        images = [self.directory / name for name in values.get("figures") or []]
        drawn = [path for path in images if path.suffix == ".png"]
        self.run.log({f"figures/{p.stem}": self.wandb.Image(str(p)) for p in drawn})
        name, alias = artifact_name(values["model"]), f"K{values['K']}"
        results = [self.directory / file for file in FILES] + images
        keep(self.run, f"{name}-results", "results", results, alias)
        if values.get("network"):
            network = [self.directory / values["network"]]
            keep(self.run, f"{name}-network", "model", network, alias)

    def close(self, failed: bool) -> None:
        """Ends the run; its own context manager would print a traceback, of Ctrl-C too."""
        if self.run is not None:
            self.run.finish(exit_code=int(failed))

    def _curves(self, values: Values) -> None:
        rows = layers(values)
        define(self.run, *LAYERS)
        for i, row in enumerate(rows, 1):
            own = {f"layers/{k}": v for k, v in row.items() if isinstance(v, (int, float))}
            self.run.log({LAYERS[0]: i} | own)
        for name, curve in answers_over_time(values).items():
            axis, others, summary = (text.format(name) for text in CURVE)
            define(self.run, axis, others, summary)
            for row in curve:
                own = {k: row[k] for k in ("share", "spikes_per_image")}
                self.run.log({axis: row["T"]} | {f"{axis[:-1]}{k}": v for k, v in own.items()})

    def _tables(self, values: Values) -> None:
        rows = layers(values)
        tables = {"tables/layers": (list(rows[0]), [list(row.values()) for row in rows])}
        own = [(name.partition(",")[0], *row) for name, *row in times(values)]
        race = own + (raced(values["race"]) if values.get("race") else [])
        cells = [[name, ms, *(quartiles or [None] * 2)] for name, ms, quartiles in race]
        head = ["runtime", "milliseconds an image", "first quartile", "third quartile"]
        tables["tables/rivals"] = (head, cells)
        for key, (columns, data) in tables.items():
            self.run.log({key: self.wandb.Table(columns=columns, data=data)})
        self.run.log({f"milliseconds/{name}": ms for name, ms, _ in race})


class WandbSeries(SeriesLogger):
    """One run more for a series: curves over K, then the table and the report of all."""

    def __init__(self, cfg: DictConfig, directory: Path, group: str):
        self.wandb, self.cfg, self.directory, self.group = ready(cfg), cfg, directory, group
        self.run: Any = None
        self.model = ""

    def add(self, label: str, values: Values) -> None:
        if self.run is None:
            self.model = values["model"]
            self.run = begin(
                self.wandb,
                self.cfg,
                self.directory,
                name=f"{values['model']} over K {kernels(values)}",
                group=self.group,
                job_type="curve",
                tags=tags(values["model"], "over K", kernels(values), self.cfg.data.kind),
                config={"machine": values["machine"], "versions": values["versions"]},
            )
            self.run.define_metric("over_K/K", hidden=True)
            for key, summary in OVER_K.items():
                name = f"over_K/{metric(key)}"
                self.run.define_metric(name, step_metric="over_K/K", summary=summary)
        self.run.log({"over_K/K": values["K"], "over_K/options": label} | over_K(values))

    def close(self) -> None:
        if self.run is not None:
            made = [self.directory / name for name in OF_SERIES]
            keep(self.run, f"{artifact_name(self.model)}-series", "series", made)
            self.run.finish()


def artifact_name(model: str) -> str:
    """A network's name in letters that W&B takes."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in model)


def keep(run: Any, name: str, kind: str, paths: list[Path], *aliases: str) -> None:
    """Files as an artifact of a run; those that were not written are left out."""
    import wandb

    artifact = wandb.Artifact(name, kind)
    for path in paths:
        if path.exists():  # where it lies: a copy in the user's home would be left behind
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
    run.log_artifact(artifact, aliases=["latest", *aliases])


def define(run: Any, axis: str, others: str, summary: str) -> None:
    """Metrics of the history that are drawn over one of them."""
    run.define_metric(axis, hidden=True)
    run.define_metric(others, step_metric=axis, summary=summary)


def ready(cfg: DictConfig) -> Any:
    """The package.

    Raises:
        UserError: it is not installed, or nobody is logged in for logger.mode=online.
    """
    # Else it reports its errors and use, offline too, by threads that run beside what is timed.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except ImportError as error:
        raise UserError("logger=wandb needs wandb: pip install wandb, or use logger=csv") from error
    if cfg.logger.mode == "online" and not logged_in(wandb):
        raise UserError(
            "logger.mode=online, but you are not logged in to wandb: run `wandb login`, or "
            "leave logger.mode at offline and `wandb sync` the run later"
        )
    return wandb


def begin(wandb: Any, cfg: DictConfig, directory: Path, **given: Any) -> Any:
    """A run that prints nothing, and measures nothing beside us: it would slow what is timed."""
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        init_timeout=WAIT,
        finish_timeout=WAIT,
    )
    return wandb.init(
        project=cfg.logger.project,
        mode=cfg.logger.mode,
        dir=str(directory),
        reinit="create_new",
        settings=settings,
        **given,
    )


def kernels(values: Values) -> str:
    """What runs the kernels: the GPU, or the CPU's instruction set."""
    if values["device"] == "cpu":
        return ops.current_isa()
    return values["machine"].get("gpu") or values["device"]


def tags(*words: str) -> list[str]:
    """As W&B takes them."""
    return list(dict.fromkeys(word[:LONGEST_TAG] for word in words))


def logged_in(wandb: Any) -> bool:
    """Whether wandb has a key."""
    try:
        return bool(os.environ.get("WANDB_API_KEY") or wandb.Api().api_key)
    except wandb.errors.UsageError:  # what it raises without a key
        return False
