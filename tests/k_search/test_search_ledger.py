"""Risk: evaluations of searches that share a folder are lost, or a damaged file is believed."""

import json
import multiprocessing
import os
import threading
from functools import partial

import pytest

from fskernel import files
from fskernel.k_search.evaluate import is_row
from fskernel.k_search.ledger import FORMAT, Ledger, checksum, key

PRINT = "f" * 64
ROW = {
    "agreement": 1.0,
    "agreement_interval": [0.5, 1.0],
    "top1": 0.5,
    "top1_interval": [0.25, 0.75],
    "logit_error": 0.125,
    "spikes_per_image": 1234.5,
    "latency_steps": 40,
    "interval_steps": 16,
    "images_per_s": None,
    "ann_top1": 0.5,
    "layer_spikes": {"a": 1000.0, "b": 234},
}
ours = partial(is_row, labelled=True, layers=["a", "b"])


def ledger(folder, is_ours=ours):
    return Ledger(folder, PRINT, is_ours)


def write(folder, rows, **changes):
    """A ledger whose checksum is right."""
    path = folder / f"search-{PRINT[:16]}.json"
    whole = {"format": FORMAT, "fingerprint": PRINT, "sha256": checksum(rows), "evaluations": rows}
    path.write_text(json.dumps(whole | changes))
    return path


def many(folder, first, count):
    mine = ledger(folder)
    for n in range(first, first + count):
        mine.add({"a": n, "b": 3}, ROW | {"latency_steps": n})


def test_searches_at_the_same_time_lose_nothing(tmp_path, monkeypatch):
    """Threads and processes, each with a view of its own from the start."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=many, args=(tmp_path, 100 * i, 12)) for i in range(3)]
    workers += [threading.Thread(target=many, args=(tmp_path, 100 * i, 12)) for i in range(3, 6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    found = ledger(tmp_path)
    assert len(found.rows) == 72
    for i in range(6):
        for n in range(100 * i, 100 * i + 12):
            assert found.get({"b": 3, "a": n})["latency_steps"] == n
    assert len(list(tmp_path.iterdir())) == 1


def test_what_others_measured_is_seen_and_their_times_stay(tmp_path):
    one, other = ledger(tmp_path), ledger(tmp_path)
    one.add(5, ROW | {"images_per_s": 7.5})
    other.add(6, ROW)
    assert other.get(5)["images_per_s"] == 7.5 and one.get(6) is None
    other.add(5, ROW)  # not timed
    one.add(7, ROW)
    assert one.get(6) == ROW and one.get(5)["images_per_s"] == 7.5
    one.add(6, ROW | {"images_per_s": 2.5})
    assert {k: row["images_per_s"] for k, row in ledger(tmp_path).rows.items()} == {
        "5": 7.5,
        "6": 2.5,
        "7": None,
    }


def test_a_file_that_is_removed_meanwhile_is_written_whole(tmp_path):
    one = ledger(tmp_path)
    one.add(5, ROW)
    one.path.unlink()
    one.add(6, ROW)
    assert set(ledger(tmp_path).rows) == {"5", "6"}


def test_a_file_that_is_damaged_meanwhile_is_left_as_it_is(tmp_path):
    one = ledger(tmp_path)
    one.add(5, ROW)
    one.path.write_text("?")
    with pytest.raises(ValueError, match="is damaged.*delete it to measure anew"):
        one.add(6, ROW)
    assert one.path.read_text() == "?" and len(list(tmp_path.iterdir())) == 1


DEEP = '{"format": 1, "evaluations": ' + '{"a":' * 99_999


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\0",
        b"null",
        b"7",
        b'"text"',
        b"[[]]",
        b"[" * 99_999,
        DEEP.encode(),
        b"9" * 9999,
        b'{"format": 1, "evaluations": {}, "sha256": 3, "fingerprint": {}}',
        b'{"format": 1, "evaluations": {}}',
        None,
    ],
    ids=lambda c: "a folder" if c is None else str(c[:12]),
)
def test_whatever_is_in_the_file_is_a_value_error(tmp_path, content):
    path = tmp_path / f"search-{PRINT[:16]}.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} is damaged.*delete it to measure anew"):
        ledger(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def changed(name, value):
    row = {k: v for k, v in ROW.items() if k != name}
    return row if value is KeyError else row | {name: value}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [ROW],
        "rows",
        3,
        None,
        {"5": None},
        {"5": []},
        {"5": ROW, "6": {}},
        *({"5": changed(name, KeyError)} for name in ROW),
        {"5": changed("agreement", None)},
        {"5": changed("agreement", "1.0")},
        {"5": changed("agreement", True)},
        {"5": changed("agreement_interval", [0.5])},
        {"5": changed("agreement_interval", [0.5, None])},
        {"5": changed("top1", None)},
        {"5": changed("top1_interval", None)},
        {"5": changed("ann_top1", [])},
        {"5": changed("logit_error", {})},
        {"5": changed("spikes_per_image", 10**400)},
        {"5": changed("images_per_s", "fast")},
        {"5": changed("layer_spikes", {"a": 1})},
        {"5": changed("layer_spikes", {"a": 1, "b": None})},
        {"5": changed("layer_spikes", [1, 2])},
    ],
    ids=str,
)
def test_rows_that_no_search_measures_are_refused_though_the_checksum_fits(tmp_path, rows):
    path = write(tmp_path, rows)
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        ledger(tmp_path)


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 64}, {"sha256": "0" * 64}])
def test_rows_of_another_search_are_refused(tmp_path, change):
    write(tmp_path, {"5": ROW}, **change)
    with pytest.raises(ValueError, match="its checksum is wrong"):
        ledger(tmp_path)


def test_good_rows_are_read(tmp_path):
    unlabelled = ROW | dict.fromkeys(("top1", "top1_interval", "ann_top1"))
    rows = {"5": ROW, key({"b": 3, "a": 4}): ROW | {"logit_error": float("inf"), "more": "yes"}}
    write(tmp_path, rows)
    assert ledger(tmp_path).rows == rows and ledger(tmp_path).get({"a": 4, "b": 3})
    write(tmp_path, {"5": unlabelled})
    assert ledger(tmp_path, partial(is_row, labelled=False, layers=[])).get(5) == unlabelled
    with pytest.raises(ValueError, match="what no search measures"):
        ledger(tmp_path)


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        ledger(tmp_path / "file" / "x")

    def refuse(path, wait):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "_hold", refuse)
    with pytest.raises(PermissionError):
        ledger(tmp_path / "x")
