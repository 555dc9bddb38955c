"""Risk: `fskernel run` and `info` say what the network does not, or not to everybody."""

import csv
import io
import json
import shutil

import pytest
import torch
from PIL import Image

import fskernel as fs
from fskernel.cli import images as files


@pytest.fixture(scope="module")
def expected(converted, pixels):
    """Probabilities [24, 10] and spikes [24]."""
    logits, spikes = fs.load(converted).count_spikes(pixels)
    return logits.double().softmax(1), sum(spikes.values())


def test_json_is_what_the_network_answers(call, converted, digits, expected):
    shares, spikes = expected
    done = call("run", converted, digits, "--json", "--batch", 7, "--top", 3, "--labelled")
    told = json.loads(done.stdout)
    paths = sorted(digits.glob("[0-9]/*.png"))
    assert [image["file"] for image in told["images"]] == [str(path) for path in paths]
    assert [image["spikes"] for image in told["images"]] == spikes.tolist()
    truth = torch.tensor([int(path.parent.name) for path in paths])
    assert [image["truth"] for image in told["images"]] == truth.tolist()
    for image, share in zip(told["images"], shares, strict=True):
        best = share.topk(3)
        assert [one["class"] for one in image["top"]] == best.indices.tolist()
        assert [one["label"] for one in image["top"]] == [str(i) for i in best.indices.tolist()]
        assert [one["probability"] for one in image["top"]] == best.values.tolist()
    assert told["totals"] == {
        "images": 24,
        "spikes_per_image": int(spikes.sum()) / 24,
        "top1": float((shares.argmax(1) == truth).double().mean()),
    }
    assert told["network"] == str(converted) and told["unreadable"] == []


def test_csv_has_the_same(call, converted, digits, expected):
    shares, spikes = expected
    rows = list(csv.DictReader(io.StringIO(call("run", converted, digits, "--csv").stdout)))
    assert [int(row["spikes"]) for row in rows] == spikes.tolist()
    assert [int(row["class1"]) for row in rows] == shares.argmax(1).tolist()
    assert [float(row["probability5"]) for row in rows] == shares.topk(5).values[:, 4].tolist()
    assert {row["truth"] for row in rows} == {""}


def test_the_table_names_every_image_and_the_totals(call, converted, digits, expected):
    shares, spikes = expected
    done = call("run", converted, digits, "--top", 1, "--labelled")
    lines = done.stdout.splitlines()
    for path, share, n in zip(sorted(digits.glob("[0-9]/*.png")), shares, spikes, strict=True):
        (line,) = [line for line in lines if str(path) in line]
        words = line.removeprefix(f" {path}").split()
        assert words == [f"{n:,}", str(int(share.argmax())), f"{100 * float(share.max()):.1f}", "%"]
    assert f"24 image(s), {spikes.double().mean():,.0f} spikes each" in lines[-1]
    assert "right (top-1)" in lines[-1]


def test_files_keep_the_order_in_which_they_were_given(call, converted, digits):
    first, *_, last = sorted(digits.glob("[0-9]/*.png"))
    told = json.loads(call("run", converted, last, first, "--json").stdout)
    assert [image["file"] for image in told["images"]] == [str(last), str(first)]


def test_an_unreadable_image_is_named_and_the_others_are_shown(call, converted, digits, tmp_path):
    good = next(digits.glob("0/*.png"))
    shutil.copy(good, tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"no image")
    told = call("run", converted, tmp_path, "--json", code=1)
    document = json.loads(told.stdout)
    assert [image["file"] for image in document["images"]] == [str(tmp_path / "b.png")]
    assert [image["file"] for image in document["unreadable"]] == [str(tmp_path / "a.png")]
    assert "1 of 2 images cannot be read" in told.stderr
    (tmp_path / "b.png").unlink()
    assert not call("run", converted, tmp_path, "--json", code=1).stdout


def test_labelled_folders_that_are_no_classes_are_refused(call, converted, digits, tmp_path):
    (tmp_path / "cats").mkdir()
    shutil.copy(next(digits.glob("0/*.png")), tmp_path / "cats")
    assert "neither labels" in call("run", converted, tmp_path, "--labelled", code=2).stderr


def test_folders_stand_for_classes_by_label_or_by_position(tmp_path):
    paths = [tmp_path / name / "a.png" for name in ("n03", "n01", "n02", "n01")]
    assert files.classes_of(paths, None, 3) == [2, 0, 1, 0]
    assert files.classes_of(paths, ("n02", "x", "n01", "n03"), 4) == [3, 2, 0, 2]


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_a_count_is_taken_evenly(n):
    for count in range(1, 120):
        taken = files.evenly(count, n)
        assert len(set(taken)) == min(count, n) and taken == sorted(taken)
        assert 0 == taken[0] and taken[-1] < n
        gaps = {b - a for a, b in zip(taken, taken[1:], strict=False)}
        assert not gaps or max(gaps) - min(gaps) <= 1
    assert files.evenly(None, n) == list(range(n))


def test_a_network_that_knows_no_preprocessing_asks_for_it(call, converted, digits, tmp_path):
    net, path = fs.load(converted), tmp_path / "net.safetensors"
    how, net.preprocessing = net.preprocessing, None
    net.save(path)
    assert "--size 224 --mean" in call("run", path, digits, code=2).stderr
    words = ("--size", 8, "--mean", how.mean[0], "--std", how.std[0], "--json")
    unnamed = json.loads(call("run", path, digits, *words).stdout)
    named = json.loads(call("run", converted, digits, "--json").stdout)
    assert unnamed["images"] == named["images"]  # a digit's label is its number
    colours = ("--size", 8, "--mean", "0,0,0", "--std", "1,1,1")
    assert "the network reads 1" in call("run", path, digits, *colours, code=2).stderr


def test_texts_that_steer_a_terminal_are_not_printed(call, converted, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "\x1b[2J[red].png")
    done = call("run", converted, tmp_path)
    assert "\x1b" not in done.stdout and "\N{REPLACEMENT CHARACTER}[2J[red].png" in done.stdout


@pytest.mark.parametrize("command", ["run", "info"])
def test_files_that_are_no_network(call, digits, tmp_path, command):
    more = [digits] if command == "run" else []
    path = tmp_path / "net.safetensors"
    assert "there is no such file" in call(command, path, *more, code=2).stderr
    path.write_bytes(b"x" * 99)
    done = call(command, path, *more, code=1)
    assert done.stderr.startswith(f"error: {path} is damaged") and not done.stdout


def test_devices(call, converted, digits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU" in call("run", converted, digits, "--device", "cuda", code=1).stderr
    assert "is unknown" in call("run", converted, digits, "--device", "gpu", code=2).stderr
    assert "cpu and cuda" in call("run", converted, digits, "--device", "meta", code=2).stderr
    assert "exclude" in call("run", converted, digits, "--json", "--csv", code=2).stderr


def test_info_tells_a_file_in_words_and_as_json(call, converted):
    net = fs.load(converted)
    text = call("info", converted).stdout
    assert str(net.report()) in text and "10 named classes" in text
    told = json.loads(call("info", converted, "--json").stdout)
    assert told["preprocessing"]["labels"] == [str(i) for i in range(10)]
    assert (told["K"], told["neurons"], told["classes"]) == (4, 4096, 10)
    assert [row["name"] for row in told["layers"]] == [row.name for row in net.report().rows]
    assert told["bytes"] == converted.stat().st_size


def test_info_is_json_whatever_a_file_says(call, converted, tmp_path):
    net = fs.load(converted)
    net.search = {"criterion": "\x1b[2J", "budget": float("nan"), "rows": [float("inf")]}
    net.save(tmp_path / "net.safetensors")
    told = json.loads(
        call("info", tmp_path / "net.safetensors", "--json").stdout, parse_constant=pytest.fail
    )
    assert told["search"] == {"criterion": "\x1b[2J", "budget": None, "rows": [None]}
    assert "\x1b" not in call("info", tmp_path / "net.safetensors").stdout


def test_info_without_a_file_tells_the_build(call):
    *lines, gpu = call("info").stdout.splitlines()
    assert gpu.split()[0] == "GPU" and len(lines) == len(fs.build_info())
    assert [" ".join(line.split()) for line in lines] == [
        " ".join(line.split()) for line in str(fs.build_info()).splitlines()
    ]
    told = json.loads(call("info", "--json").stdout)
    assert told.pop("GPU") and told == dict(fs.build_info())
