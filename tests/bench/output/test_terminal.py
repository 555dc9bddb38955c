"""Risk: what a run says at its end misleads: figures that mean nothing, digits that are cut off."""

import re

import pytest
from harness import QUICK, composed, write_cifar
from PIL import Image
from rich.console import Console

from bench.errors import UserError
from bench.inputs.checks import validate
from bench.measures import rate
from bench.measures.harness import run
from bench.output import terminal

# What would be shown of a large network.
BIG = {
    "fs.images_per_s": 0.0100123,
    "fs.images_per_s_iqr": [0.009911, 0.0101222],
    "ann.images_per_s": 26800.0,
    "ann.images_per_s_iqr": [26100.0, 27200.0],
    "fs.sops_per_image": 7_280_109_385.0,
    "fs.spikes_per_image": 16_879_630.0,
    "rate.spikes_per_image": 665_062_635.0,
    "accuracy.ann": 0.8912,
    "accuracy.ann_interval": [0.8712, 0.9112],
    "accuracy.fs": 1.0,
    "accuracy.fs_interval": [0.9123, 1.0],
    "accuracy.logit_error_interval": [0.0111, 0.0333],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The record of a small network with trained weights on sample photographs."""
    quick = [option for option in QUICK if option != "model.weights=random"]
    return run(composed(*quick, "fidelity=1"), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def guessed(tmp_path_factory):
    """That of one with random weights."""
    return run(composed(*QUICK), tmp_path_factory.mktemp("random"))


def said(values, width=80):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(terminal.render(values))
    return capture.get()


def test_trained_weights_are_shown_with_all_that_was_measured(trained):
    text = said(trained)
    for words in ("same answer, %", "logit error", "spikes a neuron", "SOPs", "FS uses", "float64"):
        assert words in text
    assert "equal the oracle's, bit for bit" in text and "24 steps" in text
    assert "2 crops of 2 photographs" in text and "weights: trained, shipped" in text


def test_random_weights_show_only_what_does_not_depend_on_them(guessed):
    text = said(guessed)
    for words in ("same answer, %", "logit error", "spikes", "SOPs", "uJ", "float64"):
        assert words not in text.partition("\n!")[0]
    flowing = " ".join(text.split())
    assert "mean nothing and are left out" in flowing
    assert "make demo" in flowing and "model.weights=FILE" in flowing
    for words in ("ms", "images/s", "bit for bit", "weights, as saved", "73,728"):
        assert words in text


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100])
def test_digits_are_never_cut(trained, width):
    text = said(trained | BIG, width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for figure in (
        "16,879,630",
        "7,280,109,385",
        "665,062,635",
        "0.0100",
        "26,800",
        "100.0 [91.2,",
    ):
        assert figure in text
    slowest = max(trained["fs.layers"], key=lambda row: row["milliseconds"])
    assert slowest["layer"] in text


def test_words_say_who_needs_more(trained):
    assert terminal.factor(2.61, "more", "less") == "2.6x more"
    assert terminal.factor(0.01491, "more", "less") == "67x less"
    assert terminal.factor(1 / 860, "faster", "slower") == "860x slower"
    energies = {f"energy.{name}_ann_uj": 2.0 for name in ("proxy", "int8", "memory")}
    energies |= {f"energy.{name}_fs_uj": 134.0 for name in ("proxy", "int8", "memory")}
    assert len(re.findall("67x more", said(trained | energies))) == 3


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0"),
        (1, "1.00"),
        (0.01004, "0.0100"),
        (99612.3, "99,600"),
        (116.4, "116"),
        (9.96, "9.96"),
    ],
)
def test_three_digits_without_exponents(value, text):
    assert terminal.rounded(value) == text


def test_crops_of_few_photographs_have_no_intervals(trained):
    assert trained["accuracy.agreement"] == 1
    assert not [key for key in trained if key.endswith("_interval") and trained[key] is not None]
    assert "[" not in said(trained)


def test_more_crops_than_photographs_can_give_are_refused():
    validate(composed("images=500", "calibration=100"))
    with pytest.raises(UserError, match="images=9999 .*crops of 6 photographs"):
        validate(composed("images=9999"))


def test_without_labels_one_line_says_how_to_have_them(trained, guessed):
    (note,) = [note for note in trained["notes"] if "labels" in note]
    assert note.endswith("images with labels: data=cifar10 data.root=DIR")
    assert not [note for note in guessed["notes"] if "labels" in note]


def test_other_layers_are_counted(trained):
    many = [row | {"layer": f"l{i}"} for i, row in enumerate(trained["fs.layers"] * 4)]
    text = said(trained | {"fs.layers": many})
    assert f"the 8 slowest of {len(many)} layers" in text and f"{len(many) - 8} others" in text


def test_the_demonstration_finds_where_rate_coding_is_as_good(tmp_path):
    pytest.importorskip("sklearn", reason="the digits are those of scikit-learn")
    small = ["images=60", "baseline.images=40", "baseline.T=40", "K=3", "batch=20", "rounds=2"]
    r = run(composed("experiment=demo", *small), tmp_path)
    assert r["images"] == 60 and r["rate.images"] == 40 and r["accuracy.fs"] > 0.9
    assert [row["T"] for row in r["rate.curve"]] == list(range(2, 41, 2))
    last = r["rate.curve"][-1]
    assert last["share"] == r["accuracy.rate"]
    assert last["spikes_per_image"] == pytest.approx(r["rate.spikes_per_image"])
    later = [row for row in r["rate.curve"] if row["T"] >= (r["rate.equal_T"] or 40)]
    good = [row["share"] >= r["rate.curve_fs"] - rate.TOLERANCE for row in later]
    assert all(good) if r["rate.equal_T"] else not good[-1]
    assert later[0]["spikes_per_image"] > r["fs.spikes_per_image"]
    assert f"rate, T={later[0]['T']}" in said(r)
    with Image.open(tmp_path / "figures" / "rate_over_time.png") as image:
        assert min(image.size) >= 300
    assert "figures/rate_over_time.png" in r["figures"]


def test_the_place_from_which_on_values_are_large_enough():
    assert rate.lasting([5, 1, 4, 5, 6], 4) == 2
    assert rate.lasting([5, 5], 4) == 0 and rate.lasting([5, 3], 4) is rate.lasting([], 4) is None
    with pytest.raises(UserError, match="baseline.every=3: .*baseline.simulate=all"):
        validate(composed("baseline.every=3", "baseline.simulate=transient"))


def test_what_rate_coding_was_not_shown_is_not_compared_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = composed("experiment=demo_cifar10", "model=cifar_resnet8", "rounds=1", "calibration=10")
    cfg.data.root, cfg.images, cfg.batch = str(write_cifar(tmp_path / "c")), 20, 5
    cfg.baseline.images, cfg.baseline.T = 10, 24
    r = run(cfg, tmp_path / "out")
    lines = {" ".join(line.split()[:2]): line for line in said(r).splitlines() if "[" in line}
    assert lines["top-1, %"].count("[") == lines["same answer,"].count("[") + 1 == 2
    assert lines["top-1 of"].startswith("top-1 of 10, %") and lines["top-1 of"].count("[") == 3
    for name in ("ann", "fs"):
        low, high = r[f"accuracy.rate_{name}_interval"]
        assert 0 <= low <= r[f"accuracy.rate_{name}"] <= high <= 1
    assert r["accuracy.rate_fs"] == r["rate.curve_fs"]
