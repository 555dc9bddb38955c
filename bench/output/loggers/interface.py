"""What a logger is told, one or several of them; and what of a record it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.output.progress import console

Values = dict[str, Any]
# Beginnings of the keys that mean nothing where weights are random.
COUNTED = (
    *("accuracy.", "energy.", "fidelity.", "gate.", "neurobench."),
    *("fs.spikes", "fs.sops", "rate.spikes", "rate.equal"),
)
# What is drawn over K for a series, by the record's key: a share is better where it is larger.
OVER_K = {
    "accuracy.ann": "max",
    "accuracy.fs": "max",
    "accuracy.agreement": "max",
    "accuracy.logit_error": "min",
    "gate.ratio": "max",
    "fs.spikes_per_image": "min",
    "fs.spikes_per_neuron": "min",
    "fs.images_per_s": "max",
    "ratio.fs_to_ann": "max",
    "fs.latency_steps": "min",
}


class Logger:
    """Of one run. This one keeps nothing: results.json is enough."""

    def start(self, values: Values) -> None:
        """Called once, with what is known before any work: configuration, machine, versions."""

    def stage(self, values: Values) -> None:
        """Called after every stage, with everything known so far."""

    def finish(self, values: Values) -> None:
        """Called once, when the run is complete and its report and figures are written."""

    def close(self, failed: bool) -> None:
        """Called last, whatever happened."""


class SeriesLogger:
    """Of a series of runs, such as a sweep. This one keeps nothing."""

    def add(self, label: str, values: Values) -> None:
        """Called for every finished run.

        Args:
            label: the options that it was given. values: of its record.
        """

    def close(self) -> None:
        """Called last."""


class Mirror(Logger, SeriesLogger):
    """A logger whose faults cost nothing but itself: the first one is told, and it is left alone.

    Args:
        name: what the user calls it. logger: of a run, or of a series.
    """

    def __init__(self, name: str, logger: Logger | SeriesLogger):
        self.name, self.logger, self.failed = name, logger, False

    def start(self, values: Values) -> None:
        self._try("start", values)

    def stage(self, values: Values) -> None:
        self._try("stage", values)

    def finish(self, values: Values) -> None:
        self._try("finish", values)

    def add(self, label: str, values: Values) -> None:
        self._try("add", label, values)

    def close(self, *failed: bool) -> None:
        self._try("close", *failed)

    def _try(self, what: str, *given: Any) -> None:
        if self.failed and what != "close":
            return
        try:
            getattr(self.logger, what)(*given)
        except Exception as error:
            if not self.failed:
                reason = f"{type(error).__name__}: {error}"
                text = f"logger={self.name} failed ({reason}); results.json is not affected"
                console.print(text, style="yellow", markup=False, soft_wrap=True)
            self.failed = True


class Several(Logger):
    """All that a run was asked to tell."""

    def __init__(self, loggers: Sequence[Logger]):
        self.loggers = loggers

    @contextmanager
    def telling(self, values: Values) -> Iterator[Several]:
        """Starts them, and closes them in the end."""
        failed = True
        try:
            for logger in self.loggers:
                logger.start(values)
            yield self
            failed = False
        finally:
            for logger in self.loggers:
                logger.close(failed)

    def stage(self, values: Values) -> None:
        for logger in self.loggers:
            logger.stage(values)

    def finish(self, values: Values) -> None:
        for logger in self.loggers:
            logger.finish(values)


class SeveralOfSeries(SeriesLogger):
    """All that a series was asked to tell."""

    def __init__(self, loggers: Sequence[SeriesLogger]):
        self.loggers = loggers

    def add(self, label: str, values: Values) -> None:
        for logger in self.loggers:
            logger.add(label, values)

    def close(self) -> None:
        for logger in self.loggers:
            logger.close()


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


def metric(key: str) -> str:
    """A key as dashboards have it, which group by what stands before the slash."""
    return key.replace(".", "/")


def numbers(values: Values) -> dict[str, float]:
    """What of a record is a number that means something, by `metric`."""
    random = values.get("random_weights", False)
    return {
        metric(key): value
        for key, value in scalars(values).items()
        if isinstance(value, (int, float)) and not (random and key.startswith(COUNTED))
    }


def over_K(values: Values) -> dict[str, float]:
    """What is drawn over K, of a run's record, as far as it is known."""
    known = numbers(values)
    return {f"over_K/{name}": known[name] for name in map(metric, OVER_K) if name in known}


def answers_over_time(values: Values) -> dict[str, list[Values]]:
    """The readings of rate coding over its time steps, by the kind of its thresholds."""
    if values.get("random_weights", False) or not values.get("rate.curve"):
        return {}
    curves = {values["rate.normalise"]: values["rate.curve"]}
    further = values.get("rate.further") or {}
    return curves | {name: found["curve"] for name, found in further.items()}


def layers(values: Values) -> list[Values]:
    """The rows of layers: spikes of layers with neurons alone, and none of random weights."""
    rows = values.get("fs.layers") or []
    random = values.get("random_weights", False)
    counted = ("spikes_per_image", "sops_per_image", "error")
    found = []
    for row in rows:
        silent = () if row["neurons"] else ("neurons", "spikes_per_image")
        kept = {key: v for key, v in row.items() if not (random and key in counted)}
        found.append({key: None if key in silent else v for key, v in kept.items()})
    return found
