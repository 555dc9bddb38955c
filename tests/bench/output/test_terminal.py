"""Risk: what a run says at its end misleads: figures that mean nothing, digits that are cut off."""

import re

import pytest
from harness import QUICK, composed, write_cifar
from PIL import Image
from rich.console import Console

from bench.errors import UserError
from bench.inputs.checks import validate
from bench.measures import harness, rate
from bench.measures.harness import run
from bench.output import terminal
from bench.output.rate_figure import answers_over_time
from bench.output.tables import numbers
from fskernel.rate.network import RateNetwork

# What would be shown of a large network.
BIG = {
    "fs.images_per_s": 0.0100123,
    "fs.images_per_s_iqr": [0.009911, 0.0101222],
    "ann.images_per_s": 26800.0,
    "ann.images_per_s_iqr": [26100.0, 27200.0],
    "fs.sops_per_image": 7_280_109_385.0,
    "fs.spikes_per_image": 16_879_630.0,
    "data.kind": "imagefolder",  # of a few photographs no count has eight digits
    "images": 5000,
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
    for words in ("same answer", "logit error", "spikes a neuron", "SOPs", "FS uses", "float64"):
        assert words in text
    assert "equal the oracle's, bit for bit" in text and "24 steps" in text
    assert "2 crops of 2 photographs" in text and "weights: trained, shipped" in text


def test_random_weights_show_only_what_does_not_depend_on_them(guessed):
    text = said(guessed)
    for words in ("same answer", "logit error", "spikes", "SOPs", "uJ", "float64"):
        assert words not in text.partition("\n!")[0]
    flowing = " ".join(text.split())
    assert "mean nothing and are left out" in flowing
    assert "make demo" in flowing and "model.weights=FILE" in flowing
    for words in ("ms", "images/s", "bit for bit", "weights, as saved", "73,728"):
        assert words in text


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 120, 200])
def test_digits_are_never_cut(trained, width):
    text = said(trained | BIG, width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for figure in (
        "16,879,630",
        "7,280,109,385",
        "665,062,635",
        "0.0100",
        "26,800",
        "100.0 % [91.2, 100.0]",
    ):
        assert figure in text
    slowest = max(trained["fs.layers"], key=lambda row: row["milliseconds"])
    assert slowest["layer"] in text


def test_words_say_who_needs_more(trained):
    assert numbers.factor(2.61, "more", "less") == "2.6x more"
    assert numbers.factor(0.01491, "more", "less") == "67x less"
    assert numbers.factor(1 / 860, "faster", "slower") == "860x slower"
    assert numbers.factor(1 / 1.04, "faster", "slower") == "1.04x slower"
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
    assert numbers.rounded(value) == text


def test_crops_of_few_photographs_have_no_intervals(trained):
    assert trained["accuracy.agreement"] == 1
    assert not [key for key in trained if key.endswith("_interval") and trained[key] is not None]
    text = said(trained)
    assert "[" not in text and "2 of 2" in text
    spikes = numbers.rounded(trained["fs.spikes_per_image"])
    assert re.search(rf"spikes an image +{spikes} ", text), "no more digits than they can give"


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


def test_weak_and_strong_thresholds_are_compared_over_time(tmp_path):
    pytest.importorskip("sklearn", reason="the digits are those of scikit-learn")
    small = ["images=60", "batch=30", "K=3", "rounds=1", "figures=false", "fidelity=0"]
    options = ["baseline.curve=true", "baseline.T=16", "baseline.images=60"]
    r = run(composed("model=digits_cnn", "data=digits", *small, *options), tmp_path)
    weak, (name, strong) = r["rate.curve"], *r["rate.further"].items()
    assert (r["rate.normalise"], name) == ("percentile", "balanced")
    assert [row["T"] for row in weak] == [row["T"] for row in strong["curve"]] == [*range(1, 17)]
    assert strong["curve_fs"] == r["rate.curve_fs"] == r["accuracy.rate_fs"]
    late = max(r["accuracy.rate_ann"], r["accuracy.rate"])
    assert strong["curve"][3]["share"] > weak[3]["share"] + 0.1, "after four steps"
    assert strong["curve"][-1]["share"] >= late - 0.1
    low, high = weak[-1]["share_interval"]
    assert low <= weak[-1]["share"] == r["accuracy.rate"] <= high
    text = " ".join(said(r, 100).split())
    assert "top-1 (spikes an image) T percentile thresholds balanced thresholds" in text
    row = strong["curve"][-1]
    assert f"({numbers.number(row['spikes_per_image'])})" in text
    note = next(note for note in r["notes"] if "with balanced thresholds it" in note)
    assert str(strong["equal_T"] or "never") in note.rpartition("it ")[2]
    drawn = answers_over_time(r)
    for axes, key in zip(drawn.axes, ("T", "spikes_per_image")):
        lines = {line.get_label(): line for line in axes.lines}
        for which, curve in (("percentile", weak), ("balanced", strong["curve"])):
            line = lines[f"rate coding, {which} thresholds"]
            shown = [row for row in curve if row[key]]
            assert list(line.get_xdata()) == [row[key] for row in shown]
            assert list(line.get_ydata()) == [row["share"] for row in shown]
        assert set(lines["the ANN"].get_ydata()) == {r["accuracy.rate_ann"]}


def test_every_option_reaches_rate_coding_and_samples_have_no_intervals(tmp_path, monkeypatch):
    made = []

    class Noted(RateNetwork):
        def __init__(self, *args, **options):
            made.append(options)
            super().__init__(*args, **options)

    monkeypatch.setattr(rate, "RateNetwork", Noted)
    quick = [option for option in QUICK if "weights" not in option and "simulate" not in option]
    quick += ["check=false", "rounds=1"]
    asked = {"normalise": "max", "reset": "zero", "input": "poisson", "burn_in": 9}
    options = [f"baseline.{key}={value}" for key, value in asked.items()]
    plain = run(composed(*quick, "fidelity=0"), tmp_path / "plain")
    assert plain["rate.extrapolated_from"] is None and plain["rate.further"] is None
    curve = ["baseline.every=10", "baseline.curve=true", "fidelity=0", "seed=5"]
    r = run(composed(*quick, *options, *curve), tmp_path / "all")
    assert {key: r[f"rate.{key}"] for key in asked} == asked
    assert list(r["rate.further"]) == ["percentile", "balanced"]
    assert r["rate.spikes_per_image"] < plain["rate.spikes_per_image"]
    assert [row["T"] for row in r["rate.curve"]] == [10, 20, 30]
    assert all(row["share_interval"] is None for row in r["rate.curve"])
    assert r["accuracy.rate_agreement"] is not None
    assert r["accuracy.rate_agreement_interval"] is None
    assert "same answer as the ANN (spikes an image)" in " ".join(said(r).split())
    assert len(answers_over_time(r).axes[0].collections) == 0, "no bands where nothing is known"
    assert {options["seed"] for options in made[1:]} == {5}


@pytest.mark.parametrize("option", ["reset=zero", "input=poisson"])
def test_what_a_gpu_does_not_have_is_refused_before_any_work(option, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "choose_device", lambda cfg: "cuda:0")
    key, value = option.split("=")
    with pytest.raises(UserError, match=f"baseline.{key}='{value}': the kernels.*backend=cpu"):
        run(composed(*QUICK, f"baseline.{option}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_place_from_which_on_values_are_large_enough():
    assert rate.lasting([5, 1, 4, 5, 6], 4) == 2
    assert rate.lasting([5, 5], 4) == 0 and rate.lasting([5, 3], 4) is rate.lasting([], 4) is None


def test_what_rate_coding_was_not_shown_is_not_compared_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = composed("experiment=demo_cifar10", "model=cifar_resnet8", "rounds=1", "calibration=10")
    cfg.data.root, cfg.images, cfg.batch = str(write_cifar(tmp_path / "c")), 20, 5
    cfg.baseline.images, cfg.baseline.T = 10, 24
    r = run(cfg, tmp_path / "out")
    lines = {line.partition("  ")[0]: line for line in said(r, 120).splitlines() if "[" in line}
    assert lines["top-1"].count("[") == lines["same answer"].count("[") + 1 == 2
    assert lines["top-1, first 10"].count("[") == 3
    for name in ("ann", "fs"):
        low, high = r[f"accuracy.rate_{name}_interval"]
        assert 0 <= low <= r[f"accuracy.rate_{name}"] <= high <= 1
    assert r["accuracy.rate_fs"] == r["rate.curve_fs"]
