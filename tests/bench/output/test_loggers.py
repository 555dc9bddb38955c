"""Risk: a logger loses what a run found, stops a run, or asks for a package after the work."""

import csv
import json
import sys
from functools import partial

import pytest
from harness import QUICK, composed

from bench.errors import UserError
from bench.measures.harness import run
from bench.output.loggers import wandb_run
from bench.output.loggers.csv_files import CsvSeries
from bench.output.loggers.interface import Logger, Mirror, Several, numbers, over_K, scalars
from bench.output.loggers.opening import open_loggers, open_series
from bench.output.series import Series

FAST = [*QUICK, "baseline=none", "fidelity=0", "check=false"]
MISSING = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}


class Broken(Logger):
    """Fails where it is told to, and notes what it was asked."""

    def __init__(self, at):
        self.at, self.asked = at, []

    def _note(self, what):
        self.asked.append(what)
        if what in self.at:
            raise RuntimeError("the network is down")

    def start(self, values):
        self._note("start")

    def stage(self, values):
        self._note("stage")

    def finish(self, values):
        self._note("finish")

    def close(self, failed):
        self._note("close")


def told(several, stages=2):
    with several.telling({}):
        for _ in range(stages):
            several.stage({})
        several.finish({})


# ---- which are asked for -----------------------------------------------------------------------


def test_no_logger_writes_nothing(tmp_path):
    told(open_loggers(composed(*QUICK), tmp_path))
    open_series(composed(*QUICK), tmp_path, "a").close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("opened", [open_loggers, partial(open_series, group="a")])
def test_a_missing_package_is_a_clear_error_before_any_work(tmp_path, monkeypatch, name, opened):
    monkeypatch.setitem(sys.modules, MISSING[name], None)
    cure = f"logger={name} needs {name}: pip install {name}, or use logger=csv"
    cfg = composed(*QUICK, f"logger=[csv,{name}]")
    with pytest.raises(UserError, match=cure):
        opened(cfg, tmp_path)
    with pytest.raises(UserError, match=cure):
        run(cfg, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_wandb_online_needs_a_login(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = composed(*QUICK, "logger=wandb", "logger.mode=online")
    with pytest.raises(UserError, match="wandb login"):
        open_loggers(cfg, tmp_path)


# ---- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["start", "stage", "finish", "close"])
def test_a_fault_of_a_mirror_is_told_once_and_costs_nothing_else(at, capsys):
    broken, whole = Broken({at}), Broken(set())
    told(Several([Mirror("wandb", broken), whole]))
    assert whole.asked == ["start", "stage", "stage", "finish", "close"]
    before = whole.asked[: whole.asked.index(at) + 1]
    assert broken.asked == (before if at == "close" else [*before, "close"])
    said = capsys.readouterr().out
    assert said.count("logger=wandb failed (RuntimeError: the network is down)") == 1
    assert "results.json is not affected" in said


def test_a_mirror_does_not_swallow_an_interrupt():
    broken = Broken(set())
    broken.stage = lambda values: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        told(Several([Mirror("wandb", broken)]))
    assert broken.asked == ["start", "close"]


def test_a_run_survives_a_wandb_that_cannot_start(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError("no service")

    monkeypatch.setattr(wandb_run, "begin", refuse)
    results = run(composed(*FAST, "logger=[wandb,csv]"), tmp_path)
    assert results["complete"] and (tmp_path / "layers.csv").exists()
    assert capsys.readouterr().out.count("logger=wandb failed (OSError: no service)") == 1


# ---- what they write ---------------------------------------------------------------------------


def test_tensorboard_has_the_numbers_layers_and_text(tmp_path):
    results = run(composed(*FAST, "logger=[tensorboard,csv]", "figures=true"), tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    (speed,) = events.Scalars("fs/images_per_s")
    assert speed.value == pytest.approx(results["fs.images_per_s"], rel=1e-6)
    times = [event.value for event in events.Scalars("layers/milliseconds")]
    assert times == pytest.approx([r["milliseconds"] for r in results["fs.layers"]], rel=1e-6)
    assert {f"figures/{name}" for name in ("words", "raster_layers")} <= set(tags["images"])
    assert len(tags["images"]) == len(results["figures"])
    assert {"command/text_summary", "machine/text_summary"} <= set(tags["tensors"])
    # These are random weights: what spikes and answers they have means nothing.
    assert not [tag for tag in tags["scalars"] if "spikes" in tag or "accuracy" in tag]
    (row,) = csv.DictReader((tmp_path / "results.csv").open())
    assert float(row["fs.images_per_s"]) == results["fs.images_per_s"]


def test_a_series_has_a_row_for_each_run_and_curves_over_K(tmp_path):
    cfg = composed(*FAST, "logger=[csv,tensorboard]")
    logger = open_series(cfg, tmp_path, "g")
    series = Series(tmp_path, "command", "hydra.sweep.dir", False, logger)
    for K in (5, 3):
        job = partial(run, composed(*FAST, f"K={K}"), tmp_path / str(K))
        series.attempt(f"K={K}", tmp_path / str(K), job)
    series.attempt("K=99", tmp_path / "99", partial(run, composed("K=99"), tmp_path / "99"))
    assert series.close() == 1
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["options"], row["K"]) for row in rows] == [("K=5", "5"), ("K=3", "3")]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("over_K/fs/latency_steps")] == [5, 3]
    assert "over_K/accuracy/agreement" not in events.Tags()["scalars"]


def test_rows_of_a_series_may_have_keys_of_their_own(tmp_path):
    series = CsvSeries(tmp_path)
    series.add("a", {"x": 1, "y": [2.0]})
    series.add("b", {"z": 3, "x": None})
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert rows == [
        {"options": "a", "x": "1", "z": ""},
        {"options": "b", "x": "", "z": "3"},
    ]


def test_the_converted_network_is_saved_where_that_is_asked_for(tmp_path):
    import fskernel as fs

    results = run(composed(*FAST, "logger.weights=true"), tmp_path)
    assert results["network"] == "network.safetensors"
    assert fs.load(tmp_path / "network.safetensors").K == 8
    assert json.loads((tmp_path / "results.json").read_text())["complete"] is True
    assert json.loads((tmp_path / "neurobench.json").read_text())["Footprint"] > 70_000


def test_scalars_split_intervals_and_drop_lists():
    row = scalars(
        {"a": 1, "x_iqr": [2.0, 3.0], "notes": ["n"], "machine": {"cpu": "c", "load": [1]}}
    )
    assert row == {"a": 1, "x_iqr_low": 2.0, "x_iqr_high": 3.0, "machine.cpu": "c"}


def test_numbers_leave_out_what_random_weights_make_meaningless():
    values = {
        "K": 4,
        "accuracy.fs": 0.5,
        "accuracy.ann": None,
        "fs.spikes_per_image": 7,
        "fs.images_per_s": 9.5,
        "model": "m",
        "energy.meter": None,
        "random_weights": False,
    }
    found = {"K": 4, "accuracy/fs": 0.5, "fs/spikes_per_image": 7, "fs/images_per_s": 9.5}
    assert numbers(values) == found | {"random_weights": False}
    timed = {"K": 4, "fs/images_per_s": 9.5, "random_weights": True}
    assert numbers(values | {"random_weights": True}) == timed
    assert over_K(values) == {
        "over_K/accuracy/fs": 0.5,
        "over_K/fs/spikes_per_image": 7,
        "over_K/fs/images_per_s": 9.5,
    }
