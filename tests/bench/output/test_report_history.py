"""Risk: a run is compared with one of another setting, machine or network, or with its own."""

import json
import os

import pytest
from harness import composed

from bench.output.report import history

CPU = "Zen 5"
NOW = {
    "complete": True,
    "started": "2026-11-28T10:00:00+00:00",
    "configuration": "abc",
    "weights": "trained",
    "random_weights": False,
    "device": "cpu",
    "model": "resnet50",
    "input": [224, 224],
    "batch": 1,
    "threads": 1,
    "machine": {"cpu": CPU},
    "versions": {"commit": "1"},
    "ann.images_per_s": 8.0,
    "ann.images_per_s_iqr": [7.0, 9.0],
    "fs.images_per_s": 16.0,
    "fs.images_per_s_iqr": [15.0, 17.0],
    "ratio.fs_to_ann": 2.0,
    "ratio.fs_to_ann_iqr": [1.9, 2.1],
    "accuracy.fs": None,
}
BEFORE = NOW | {"started": "2026-11-27T10:00:00+00:00", "versions": {"commit": "0"}}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def leave(folder, values, age=0):
    """A record, written so many seconds ago."""
    path = folder / "results.json"
    folder.mkdir(parents=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


@pytest.fixture
def own(tmp_path):
    return leave(tmp_path / "outputs" / "now", NOW)


def test_the_latest_earlier_run_is_found_whatever_its_commit(tmp_path, own):
    assert history.previous(NOW, own) is None
    earliest = BEFORE | {"started": "2026-11-20T10:00:00+00:00"}
    leave(tmp_path / "outputs" / "a", earliest, age=9)
    found = leave(tmp_path / "multirun" / "b" / "0", BEFORE, age=5)
    given = history.previous(NOW, own)
    assert given["path"] == str(found.relative_to(tmp_path)) and given["commit"] == "0"
    assert (given["started"], given["fs.images_per_s"]) == (BEFORE["started"], 16.0)
    assert "machine" not in given


@pytest.mark.parametrize(
    "changed",
    [
        {"configuration": "abd"},
        {"weights": "random"},
        {"random_weights": True},
        {"device": "cuda:0"},
        {"machine": {"cpu": "Zen 4"}},
        {"machine": {"cpu": CPU, "gpu": "H200"}},
        {"machine": "Zen 5"},
        {"complete": False},
        {"started": "2026-11-29T10:00:00+00:00"},
    ],
)
def test_what_differs_is_no_earlier_run(tmp_path, own, changed):
    leave(tmp_path / "outputs" / "a", BEFORE | changed)
    assert history.previous(NOW, own) is None


@pytest.mark.parametrize("key", history.KEPT)
def test_records_of_older_versions_are_passed_by(tmp_path, own, key):
    leave(tmp_path / "outputs" / "a", {k: v for k, v in BEFORE.items() if k != key})
    assert history.previous(NOW, own) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\x00"])
def test_damaged_records_are_passed_by(tmp_path, own, text):
    leave(tmp_path / "outputs" / "broken", text)
    assert history.previous(NOW, own) is None
    leave(tmp_path / "outputs" / "whole", BEFORE, age=5)
    assert history.previous(NOW, own)["commit"] == "0"


def test_thousands_of_records_are_not_all_read(tmp_path, own, monkeypatch):
    for i in range(8):
        leave(tmp_path / "outputs" / str(i), BEFORE | {"configuration": "x"}, age=i)
    read, look = [], history.read
    monkeypatch.setattr(history, "MOST", 3)
    monkeypatch.setattr(history, "read", lambda path: read.append(path) or look(path))
    assert history.previous(NOW, own) is None
    assert len(read) <= 3


def test_a_configuration_is_what_decides_the_figures():
    same = [composed(), composed("report=false"), composed("figures=false"), composed("logger=csv")]
    assert len({history.configuration(cfg) for cfg in same}) == 1
    for option in ("K=5", "rounds=3", "model=cifar_resnet8", "neuron.alpha=6", "threads=2"):
        assert history.configuration(composed(option)) != history.configuration(same[0]), option


RACE = {
    "measure": "rivals",
    "complete": True,
    "command": "python bench/run.py experiment=rivals",
    "started": "2026-11-27T10:00:00+00:00",
    "machine": {"cpu": CPU},
    "device": "cpu",
    "model": "resnet50",
    "input": [224, 224],
    "batch": 1,
    "threads": 1,
    "rivals": [
        {"name": "torch", "ms": 5.0, "ms_quartiles": [4, 6]},
        {"name": "absent", "reason": "not installed"},
    ],
}


def test_the_latest_race_of_the_same_network_and_batch_is_shown(tmp_path, own):
    assert history.race(NOW, own) is None
    slower = [RACE["rivals"][0] | {"ms": 9.0}]
    leave(tmp_path / "outputs" / "old", RACE | {"rivals": slower}, age=9)
    leave(tmp_path / "multirun" / "b" / "0", RACE, age=5)
    found = history.race(NOW, own)
    assert found["milliseconds"] == {"torch": {"median": 5.0, "quartiles": [4, 6]}}
    assert found["started"] == RACE["started"] and found["command"] == RACE["command"]


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "resnet18"},
        {"input": [224, 192]},
        {"batch": 2},
        {"threads": 2},
        {"machine": {"cpu": "Zen 4"}},
        {"device": "cuda:0"},
    ],
)
def test_another_race_is_not(tmp_path, own, changed):
    leave(tmp_path / "outputs" / "race", RACE)
    assert history.race(NOW, own) is not None
    assert history.race(NOW | changed, own) is None


@pytest.mark.parametrize("changed", [{"complete": False}, {"measure": "networks"}])
def test_a_record_that_is_no_finished_race_is_none(tmp_path, own, changed):
    leave(tmp_path / "outputs" / "race", RACE | changed)
    assert history.race(NOW, own) is None
