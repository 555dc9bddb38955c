"""Risk: a report loads something, tells other numbers than results.json, or nonsense."""

import copy
import json

import pytest
from harness import QUICK, composed
from report_page import Page

from bench.errors import UserError
from bench.inputs import checks
from bench.measures import harness
from bench.output.report import page, verdict

DIGITS = [
    "model=digits_cnn",
    "data=digits",
    "calibration=20",
    "fidelity=1",
    "images=30",
    "batch=15",
]
RATE = ["baseline.simulate=all", "baseline.every=4", "baseline.T=12", "baseline.images=30"]
QUIET = [o for o in QUICK if o.partition("=")[0] not in ("model", "model.weights", "images")]


def measured(directory, *more):
    given = [o for o in QUIET if o.partition("=")[0] not in ("report", "calibration", "baseline.T")]
    return harness.run(composed(*given, *DIGITS, *more), directory, command="python bench/run.py x")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The values of a run with trained weights and labels, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    return measured(folder, *RATE, "rounds=6"), folder


@pytest.fixture(scope="module")
def guessed(tmp_path_factory):
    """The same with random weights."""
    folder = tmp_path_factory.mktemp("guessed")
    return measured(folder, "model.weights=random", "baseline=none"), folder


def read(folder):
    return Page((folder / "report.html").read_text())


def written(values, tmp_path):
    """The page of values that were changed."""
    page.write(values, tmp_path)
    return read(tmp_path)


# ---- what it is made of ------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["trained", "guessed"])
def test_nothing_is_fetched_and_the_data_are_those_of_the_results(run, request):
    values, folder = request.getfixturevalue(run)
    found = read(folder)
    assert found.faults() == []
    assert found.json("results") == json.loads((folder / "results.json").read_text()) == values
    policy = next(a["content"] for tag, a in found.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy and "http" not in policy
    assert all((folder / link).is_file() for link in found.links()) and len(found.links()) >= 2
    assert (folder / "results.json").stat().st_size < 200_000


@pytest.mark.parametrize(
    "planted",
    [
        '<script src="https://x.org/a.js"></script>',
        '<img src="x.png">',
        '<link rel="stylesheet" href="x.css">',
        "<style>@import 'x.css'</style>",
        '<p style="background: url(x.png)">',
        '<p onclick="alert(1)">',
        '<a href="javascript:alert(1)">x</a>',
        '<script id="page">fetch("x")</script>',
        "<script>alert(1)</script>",
        '<iframe srcdoc="x"></iframe>',
    ],
)
def test_planted_faults_are_seen(planted):
    assert Page(f"<p>fine</p>{planted}").faults()


def test_headings_tables_and_charts_can_be_used_without_a_mouse(trained):
    found = read(trained[1])
    levels = [int(tag[1]) for tag, _ in found.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    tags = [tag for tag, _ in found.tags]
    heads = [a for tag, a in found.tags if tag == "th" and a.get("scope") == "col"]
    assert tags.count("button") == 12 and len(heads) > 12  # those of the layers can be sorted
    assert all(a["aria-label"] for _, a in found.tags if a.get("role") == "region")
    labelled = {a["aria-labelledby"] for tag, a in found.tags if tag == "section"}
    assert labelled == {a["id"] for tag, a in found.tags if tag == "h2"}
    assert next(a for tag, a in found.tags if tag == "html")["lang"] == "en"
    assert [a["value"] for tag, a in found.tags if tag == "input"] == ["time", "spikes", "error"]


def test_every_chart_has_its_place(trained):
    found = read(trained[1])
    places = [a["data-figure"] for _, a in found.tags if "data-figure" in a]
    names = {"times", "network", "raster", "energy", "answers_over_time"}
    assert set(places) == set(found.json("figures")) == names and len(places) == len(names)
    assert set(found.json("themes")) == {"light", "dark"}
    assert not any("template" in one["layout"] for one in found.json("figures").values())


def test_what_happens_inside_the_network_is_in_the_record(trained):
    v, _ = trained
    rows = {row["layer"]: row for row in v["fs.layers"]}
    assert rows["input"]["error"] is None and 0 < rows["features.3"]["error"] < 1
    row = rows["features.3"]
    assert (row["K"], row["weight_bits"], row["kind"]) == (8, 8, "FS neurons") and row["alpha"] > 0
    assert list(v["inside.graph"]) == list(rows) and "digits" in v["inside.image"]
    assert v["energy.constants"]["mac_fp32"]["value"] == 4.6


# ---- what it says ------------------------------------------------------------------------------


def test_it_begins_with_the_ratio_its_interval_and_the_gate(trained):
    values, folder = trained
    text = " ".join(read(folder).text.split())
    low, high = values["ratio.fs_to_ann_interval"]
    assert low <= values["ratio.fs_to_ann"] <= high
    assert f"times as fast as the dense network (95 % interval {low:.3g}"[:60] in text
    assert ("Valid: its top-1 accuracy of" in text) == values["gate.passed"]
    assert values["gate.ratio"] == values["accuracy.fs"] / values["accuracy.ann"]
    assert "python bench/run.py x -m K=3,4,5,6,8" in text and "make rivals" in text
    assert "no earlier run of this configuration" in text
    for words in ("SOPs an image", "45 nm", "AMD" if "AMD" in text else values["machine"]["cpu"]):
        assert words in text


UNKNOWN = {"gate.ratio": None, "gate.passed": None}


@pytest.mark.parametrize(
    "changed, begins, state",
    [
        ({"gate.ratio": 0.9912, "gate.passed": True}, "Valid: its top-1", "passed"),
        ({"gate.ratio": 0.98, "gate.passed": False}, "Not valid: its top-1", "failed"),
        (UNKNOWN | {"accuracy.ann": None}, "No gate: data=digits has no labels", "unknown"),
        (UNKNOWN | {"accuracy.ann": 0.0}, "No gate: the dense network has no right", "unknown"),
        ({"random_weights": True}, "No gate: the weights are random", "unknown"),
    ],
)
def test_the_gate(trained, changed, begins, state):
    found = verdict.verdict(trained[0] | changed)
    assert found.gate.startswith(begins) and found.state == state
    if state in ("passed", "failed"):
        assert f"{changed['gate.ratio']:.1%}" in found.gate and "at least 99%" in found.gate


def test_a_slow_network_is_not_called_fast(trained):
    slow = {"ratio.fs_to_ann": 0.1234, "ratio.fs_to_ann_interval": None}
    slow["ratio.fs_to_ann_iqr"] = [0.1, 0.2]
    said = verdict.verdict(trained[0] | slow).speed
    assert "0.123 times as fast" in said and "quartiles 0.100 to 0.200" in said


def test_random_weights_show_no_accuracy_spikes_or_energy(guessed):
    values, folder = guessed
    found = read(folder)
    assert values["gate.passed"] is None and values["accuracy.fs"] is not None
    assert set(found.json("figures")) == {"times", "network"}
    colours = found.json("figures")["network"]["layout"]["meta"]["colourings"]
    assert [one["name"] for one in colours] == ["time"]
    for words in (
        "top-1",
        "spikes an image",
        "spikes a neuron",
        "SOP",
        "µJ",
        "uJ",
        "logit error",
        "same answer",
    ):
        assert words not in found.text, words
    assert "mean nothing and are left out" in " ".join(found.text.split())


def test_the_race_and_the_previous_run_are_shown_where_there_are_some(trained, tmp_path):
    values = copy.deepcopy(trained[0])
    times = {"FS K=8": (1.0, 0.9, 1.1), "OpenVINO int8": (1.2, 1.1, 1.3), "torch": (90.0, 80, 99)}
    values["race"] = {
        "started": "2026-01-02T03:04:05+00:00",
        "command": "python bench/run.py experiment=rivals",
        "milliseconds": {n: {"median": m, "quartiles": q} for n, (m, *q) in times.items()},
    }
    before = {"path": "outputs/a", "commit": "abc", "started": "2026-01-01T00:00:00+00:00"}
    for key in ("ann.images_per_s", "fs.images_per_s", "ratio.fs_to_ann"):
        before |= {key: values[key] / 2, f"{key}_iqr": values[f"{key}_iqr"]}
    values["previous"] = before | {"accuracy.fs": values["accuracy.fs"] - 0.02}
    found = written(values, tmp_path)
    text = " ".join(found.text.split())
    assert "Beyond this scale: torch, 90.0 ms an image" in text
    bars = found.json("figures")["race"]["data"]
    assert [b["y"][0].split("<br>")[0] for b in bars] == ["OpenVINO int8", "FS K=8"]
    assert bars[1]["error_x"]["array"] == [pytest.approx(0.1)]
    assert "is 2.0x faster now" in text and "then (2026-01-01 00:00, commit abc)" in text
    assert "+2.0 points" in text and "make rivals" not in text


def test_a_run_in_the_emulator_says_what_it_compared(trained, tmp_path):
    there = "complete notes command started K batch threads seed model device versions machine"
    values = {key: trained[0][key] for key in [*there.split(), "random_weights", "calibration"]}
    step = {"kernel": "conv 8", "equal": True, "values": 640, "spikes": 12, "seconds": 0.5}
    values["fs.emulated"] = [step | {"layer": f"conv{i}"} for i in range(5)]
    found = written(values, tmp_path)
    assert found.json("results") == values and not found.faults()
    assert "gave the values of the CPU in all 5 steps" in " ".join(found.text.split())
    assert "conv 8" in found.text and found.json("figures") == {}


# ---- what cannot be trusted ----------------------------------------------------------------------

HOSTILE = "</script><img src=x onerror=alert(1)>&lt;\"'`${1}\u2028<!-- {{ 7*7 }}"


def test_hostile_names_are_shown_and_do_nothing(trained, tmp_path):
    text = json.dumps(trained[0])
    for name in ("features.0", "digits_cnn", "python bench/run.py x", trained[0]["inside.image"]):
        text = text.replace(json.dumps(name), json.dumps(name + HOSTILE))
    values = json.loads(text)
    assert values["fs.layers"][1]["layer"] == "features.0" + HOSTILE
    found = written(values, tmp_path)
    assert found.faults() == [] and found.json("results") == values
    for name in ("features.0", "digits_cnn", "python bench/run.py x"):
        assert name + HOSTILE in found.text, name
    drawn = json.dumps(found.json("figures"), ensure_ascii=False)
    assert "<img" not in drawn and "&lt;/script&gt;&lt;img" in drawn


# ---- what happens around it ----------------------------------------------------------------------


def test_it_can_be_left_out(tmp_path):
    harness.run(composed(*QUIET, *DIGITS[:2], "images=1", "baseline=none"), tmp_path)
    assert not (tmp_path / "report.html").exists() and (tmp_path / "results.json").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left", "report.html"), KeyError("a")])
def test_one_that_fails_loses_nothing(tmp_path, monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(page, "render", fail)
    given = [o for o in QUIET if o != "report=false"]
    values = harness.run(composed(*given, *DIGITS[:2], "images=1", "baseline=none"), tmp_path)
    assert values["complete"] and json.loads((tmp_path / "results.json").read_text()) == values
    said = " ".join(capsys.readouterr().out.split())
    assert "no report: " in said and "report=false leaves it out" in said
    assert ("No space left" in said) == isinstance(error, OSError)
    assert not list(tmp_path.glob("report*"))


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_without_its_packages_nothing_starts(monkeypatch, package):
    find = checks.importlib.util.find_spec
    monkeypatch.setattr(
        checks.importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(UserError, match=f"report=true needs {package}: pip install {package}"):
        checks.validate(composed())
    checks.validate(composed("report=false"))
