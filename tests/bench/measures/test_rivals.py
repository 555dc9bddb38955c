"""Risk: a race is unfair, loses rounds, blames the wrong rival, or judges without cause."""

import csv
import json
import sys
from dataclasses import replace

import pytest
import torch
from harness import composed
from report_page import Page
from rich.console import Console
from torch.fx.experimental.optimization import fuse

from bench.errors import UserError
from bench.inputs.checks import validate
from bench.measures.rivals import compare, dense, listed, memory, race, scores, spiking, trt
from bench.measures.rivals.rival import Answer, Rival, Runner, Setting, fed, kept
from bench.output.report import rivals_page
from bench.output.series import Series
from bench.output.tables import rivals as tables
from bench.output.tables.runs import Job
from fskernel import models

SMALL = [
    "experiment=rivals",
    "model=digits_cnn",
    "data=digits",
    "K=4",
    "rivals.K=[4,9]",
    "images=100",
    "batch=12",
    "calibration=8",
    "rounds=6",
    "rivals.slow_rounds=2",
    "rivals.slow_images=5",
    "baseline.T=20",
]
QUICK = "torch fp32, eager"


@pytest.fixture
def setting(tmp_path):
    x = torch.rand(3, 1, 8, 8)
    model = models.digits_cnn(weights="digits").eval()
    return Setting(x, torch.rand(5, 1, 8, 8), tmp_path, K=(4, 9), first=4, T=20, given=model)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A race on labelled images with the packages that are there, and one that is not."""
    pytest.importorskip("sklearn", reason="the digits are those of scikit-learn")
    folder, needed = tmp_path_factory.mktemp("rivals"), memory.needed

    def of_two(rival, kept):  # a process each, which imports torch
        return needed(rival, kept) if rival.name in (QUICK, "FS K=4") else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "needed", of_two)
        patch.setitem(sys.modules, "onnxruntime", None)
        patch.setattr(dense, "compiled", broken)
        return compare.run(composed(*SMALL), folder, command="python x"), folder


def broken(s):
    raise RuntimeError("out of\npatience")


def rows_of(v):
    return {row["name"]: row for row in v["rivals"]}


def test_everyone_is_a_row_with_times_answers_spikes_and_memory(found):
    v, folder = found
    rows = rows_of(v)
    assert v["complete"] and v["exact"] is True and v["reference"] == "FS K=4"
    assert json.loads((folder / "results.json").read_text()) == v
    for name in ("FS K=4", "FS K=9", QUICK, "FS K=4, plane by plane"):
        row = rows[name]
        low, high = row["ms_quartiles"]
        assert row["rounds"] == len(row["seconds"]) == 6 and 0 < low <= row["ms"] <= high
        assert row["images"] == 100 and row["accuracy"] > 0.8 and row["gate_passed"] is True
        held = row["memory_bytes"]
        assert held is None if name not in (QUICK, "FS K=4") else 2**20 < held < 2**30
    for name in ("FS K=4, step by step", "rate coding, T=20"):
        row = rows[name]
        assert row["rounds"] == 2 and row["images"] == 5 and row["ratio_interval"] is None
        assert row["accuracy"] > 0 and row["gate_passed"] is None, "five images prove nothing"
        assert row["seconds"][2:] == [None] * 4
    low, high = rows[QUICK]["ratio_interval"]
    assert low <= rows[QUICK]["ratio"] <= high and "ratio" not in rows["FS K=4"]
    one = rows["FS K=4"]["spikes_per_image"]
    assert 0 < one < rows["FS K=9"]["spikes_per_image"]
    assert rows["FS K=4, plane by plane"]["spikes_per_image"] == one
    assert rows["rate coding, T=20"]["per"] == "12 of 20 steps"
    assert rows[QUICK]["spikes_per_image"] is None


def test_who_cannot_run_is_a_row_that_says_why(found):
    v, folder = found
    rows = rows_of(v)
    for name in ("ONNX Runtime fp32", "ONNX Runtime int8"):
        wanted = "not installed (onnxruntime): pip install onnxruntime onnx"
        assert rows[name]["reason"] == wanted and "ms" not in rows[name]
    faulty = rows["torch fp32, compiled"]
    assert faulty["reason"] == "failed: RuntimeError: out of patience"
    text = (folder / "table.md").read_text()
    assert "failed, see below" in text
    assert "- torch fp32, compiled: failed: RuntimeError: out of patience" in text


def test_it_leaves_tables_a_figure_and_a_report(found):
    v, folder = found
    assert v["tables"] == ["table.md", "table.csv", "table.tex"]
    rows = {row["rival"]: row for row in csv.DictReader((folder / "table.csv").open())}
    assert float(rows[QUICK]["ms"]) == rows_of(v)[QUICK]["ms"]
    assert rows["ONNX Runtime int8"]["remark"].startswith("not installed")
    assert rows[QUICK]["gate"] == "valid"
    assert (folder / "figures" / "rivals.png").stat().st_size > 10_000
    page = Page((folder / "report.html").read_text())
    assert page.faults() == [] and page.json("results") == v
    bars = page.json("figures")["times"]["data"]
    assert any(label.startswith("FS K=4<br>") for bar in bars for label in bar["y"])
    text = " ".join(page.text.split())
    assert "FS K=4 is " in text and "the fastest of each kind" in text and "python x" in text
    assert "It keeps at least 99% of the dense network's top-1 accuracy." in text


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_of_rivals_is_whole_at_any_width(found, width):
    v, folder = found
    big = {"ms": 49_812.3, "ms_quartiles": [49_611.0, 50_123.0], "ratio": 5980.0}
    v = v | {"rivals": [row | big if row["slow"] else row for row in v["rivals"]]}
    console = Console(width=width)
    with console.capture() as capture:
        console.print(tables.comparison([Job("", folder, v)]).fitting())
    text = capture.get()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    flowing = " ".join(text.split())
    for part in (
        "49,800 (49,600–50,100)",
        "6,000x faster",
        "pip install onnxruntime onnx",
        "valid",
    ):
        assert part in flowing


def test_a_sweep_of_races_is_one_table(found, tmp_path):
    v, _ = found
    own = {key: value for key, value in rows_of(v)["FS K=9"].items() if "ratio" not in key}
    others = [own if row["name"] == "FS K=9" else row for row in v["rivals"]]
    other = v | {"reference": "FS K=9", "rivals": others}
    series = Series(tmp_path, "python x -m K=4,9", "hydra.sweep.dir", report=True)
    for K, values in ((4, v), (9, other)):
        series.attempt(f"K={K}", tmp_path / str(K), lambda values=values: values)
    assert series.close() == 0
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert len(rows) == 2 * len(v["rivals"])
    assert [row["rival"] for row in rows if row["reference_to_it"] == "1"] == [
        "K=4: FS K=4",
        "K=9: FS K=9",
    ]
    assert "| FS of the run's K is |" in (tmp_path / "table.md").read_text()
    page = Page((tmp_path / "report.html").read_text())
    assert page.faults() == [] and "K=9: FS K=9" in page.text


def test_random_weights_race_without_answers_spikes_and_gate(tmp_path):
    small = [*SMALL, "model.weights=random", f"rivals.only=[{QUICK!r},'FS K=4']"]
    options = ["rounds=2", "rivals.memory=false", "report=false", "figures=false", "check=false"]
    v = compare.run(composed(*small, *options), tmp_path)
    assert [name for name in rows_of(v)] == [
        "FS K=4",
        QUICK,
        "FS K=4, plane by plane",
        "FS K=4, step by step",
    ]
    head = (tmp_path / "table.csv").read_text().partition("\n")[0].split(",")
    assert "ms" in head and not {"top1", "gate", "agreement", "spikes_per_image"} & set(head)
    assert v["exact"] is None and not (tmp_path / "report.html").exists()


def test_samples_are_counted_and_have_no_gate(tmp_path):
    options = ["model=cifar_resnet8", "data=samples", "images=4", "calibration=4", "rounds=1"]
    few = ["rivals.only=['FS K=4']", "rivals.memory=false", "report=false", "figures=false"]
    v = compare.run(composed(*SMALL, *options, *few), tmp_path)
    row = rows_of(v)["FS K=4"]
    assert row["agreement"] is not None and row["agreement_interval"] is None
    assert row["gate_passed"] is row["accuracy"] is None
    assert f"| {round(4 * row['agreement'])} of 4 |" in (tmp_path / "table.md").read_text()


def test_ctrl_c_keeps_the_finished_rounds_and_what_came_before(tmp_path, monkeypatch):
    real, calls = race.clocks, []

    def clocks(runners, device):
        def interrupted():
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return 0.5

        return dict.fromkeys(real(runners, device), interrupted)

    monkeypatch.setattr(race, "clocks", clocks)
    few = ["rivals.only=['FS K=4']", "rivals.memory=false", "rivals.slow_rounds=9"]
    with pytest.raises(KeyboardInterrupt):
        compare.run(composed(*SMALL, *few, "report=false"), tmp_path)
    v = json.loads((tmp_path / "results.json").read_text())
    assert v["complete"] is False
    assert all(row["rounds"] == 1 and row["accuracy"] for row in v["rivals"])
    assert (tmp_path / "table.md").exists()


def test_a_rival_that_fails_on_images_is_left_out_of_the_race(setting):
    good, bad = Rival("good", "float", None), Rival("bad", "float", None)
    model = setting.model

    def fails(x):
        raise ValueError("no")

    runners = {
        "good": Runner(lambda: None, lambda x: Answer(model(x))),
        "bad": Runner(lambda: None, fails),
    }
    known, failed = {}, {}
    batches = [(setting.x, None)] * 2
    scores.score(known, [bad, good], runners, model, batches, 1, failed, lambda n: None)
    assert failed == {"bad": "failed: ValueError: no"} and list(known) == ["good"]
    assert known["good"].images == known["good"].agree == 6


def test_the_gate_is_that_of_the_images_that_a_rival_was_shown():
    labels = torch.tensor([0, 1, 1, 0])
    logits = torch.eye(2)[[0, 1, 0, 0]]
    one = scores.Score()
    one.add(Answer(logits, torch.tensor([1, 2, 3, 4])), torch.tensor([0, 1, 0, 1]), labels)
    told = one.told(independent=True)
    assert (told["accuracy"], told["agreement"]) == (0.75, 0.75)
    assert told["gate_passed"] is None and told["spikes_per_image"] == 2.5
    assert one.told(independent=False)["accuracy_interval"] is None
    better = replace(one, images=100).told(True)
    assert better["gate_ratio"] == 1.5 and better["gate_passed"] is True
    worse = replace(one, right=197, ann_right=200, images=300)
    assert worse.told(True)["gate_passed"] is False
    assert scores.Score(images=3).told(True)["gate_passed"] is None


@pytest.mark.parametrize(
    "build", [dense.eager, spiking.few_spikes(4), spiking.few_spikes(9, 1), spiking.one_by_one(4)]
)
def test_a_batch_that_is_not_full_is_answered_as_a_full_one(setting, build):
    runner = build(setting)
    wanted = runner.answer(setting.x)
    assert torch.allclose(runner.answer(setting.x[:2]).logits, wanted.logits[:2], atol=1e-4)
    assert (wanted.logits.argmax(1) == setting.model(setting.x).argmax(1)).all()


def test_rate_coding_answers_after_all_steps_and_extrapolates_its_time(setting):
    runner = spiking.rate_coded(setting)
    given = runner.answer(setting.x)
    assert given.logits.shape == (3, 10) and (given.spikes > 0).all()
    assert runner.per == "12 of 20 steps" and runner.seconds() > 0
    assert spiking.rate_coded(replace(setting, transient=False)).per is None


def test_what_another_process_reads_is_the_same(setting):
    wanted = spiking.few_spikes(4)(setting).answer(setting.x)
    setting.keep()
    again = kept(setting.folder)
    assert torch.equal(again.x, setting.x) and again.K == (4, 9) and again.given is None
    assert torch.equal(again.model(setting.x), setting.model(setting.x))
    assert torch.equal(spiking.few_spikes(4)(again).answer(again.x).logits, wanted.logits)


def test_memory_counts_what_a_rival_holds(setting, monkeypatch):
    megabytes = 300

    def greedy(s):
        runner = dense.eager(s)
        runner.held = torch.ones(megabytes << 18)
        return runner

    setting.keep()
    modest = memory.measured(setting.folder, QUICK)
    monkeypatch.setattr(dense, "eager", lambda s, real=dense.eager: held(real(s), megabytes))
    large = memory.measured(setting.folder, QUICK)
    assert modest < 100 << 20 <= large - modest
    monkeypatch.setattr(memory, "forget_peak", lambda: False)
    assert memory.measured(setting.folder, QUICK) is None


def held(runner, megabytes):
    extra = torch.ones(megabytes << 18)
    call = runner.call
    return replace(runner, call=lambda: (extra, call()))


def test_a_process_that_fails_has_no_memory(tmp_path):
    assert memory.needed(Rival(QUICK, "float", None), tmp_path) is None


def test_a_network_that_cannot_be_pickled_is_raced_all_the_same(tmp_path, monkeypatch):
    def keep(self):
        raise AttributeError("Can't pickle local object")

    monkeypatch.setattr(Setting, "keep", keep)
    few = ["rivals.only=['FS K=9']", "rounds=1", "report=false", "figures=false"]
    v = compare.run(composed(*SMALL, *few), tmp_path)
    assert v["complete"] and any("cannot be pickled" in note for note in v["notes"])
    assert rows_of(v)["FS K=9"]["memory_bytes"] is None


def test_one_buffer_is_read_whatever_runs():
    buffer = torch.zeros(4, 2)
    runner = fed(lambda: [buffer.numpy() * 2], buffer, lambda y: torch.from_numpy(y[0]))
    assert torch.equal(runner.answer(torch.ones(3, 2)).logits, torch.full((3, 2), 2.0))


def test_the_order_changes_and_threads_are_everyones_own(monkeypatch):
    said, threads = [], []
    monkeypatch.setattr(race.torch, "set_num_threads", threads.append)
    rivals = [Rival(name, "float", None) for name in "abcd"]
    clocks = {name: lambda name=name: said.append(name) or 1.0 for name in "abd"}
    seconds, stopped = race.measure(rivals, clocks, 8, {"a": 1, "b": 2, "d": 3})
    rounds = ["".join(said[i : i + 3]) for i in range(0, 24, 3)]
    assert (
        stopped is None and len(set(rounds)) > 2 and {"".join(sorted(r)) for r in rounds} == {"abd"}
    )
    assert dict(zip(said, threads)) == {"a": 1, "b": 2, "d": 3} and list(seconds) == ["a", "b", "d"]


def test_of_two_calls_the_second_counts_and_a_long_one_is_made_once(monkeypatch):
    took = []
    monkeypatch.setattr(race, "host", lambda call, times: took.append(call()) or took[-1])
    times = iter([0.3, 0.2, 1.5])
    runner = Runner(lambda: next(times), None, steps=10)
    clock = race.clocks({"x": runner}, torch.device("cpu"))["x"]
    assert clock() == pytest.approx(2.0) and clock() == pytest.approx(15.0)
    assert took == [0.3, 0.2, 1.5]


def test_a_ratio_is_to_the_faster_rival_of_the_same_round():
    ours, a, b = [1.0, 2.0, 1.0], [4.0, 9.0, None], [5.0, 6.0, 1.0]
    assert race.ratios(ours, [a, b]) == [4.0, 3.0]


def test_times_are_those_of_an_image_and_of_whoever_ran():
    seconds = {"FS": [1.0, 2.0, 1.0], "x": [4.0, 6.0, None]}
    found = race.times("x", seconds, "FS", batch=2)
    assert (found["ms"], found["rounds"], found["ratio"]) == (2500.0, 2, 3.5)
    assert found["ratio_interval"] is None
    assert race.times("y", seconds, "FS", 2) == {} and "ratio" not in race.times(
        "FS", seconds, "FS", 2
    )
    assert "ratio" not in race.times("x", {"x": [1.0]}, "FS", 1)


def test_a_ratio_that_may_be_one_is_called_neither_fast_nor_slow():
    def said(ratio, ends):
        return tables.ratio({"ratio": ratio, "ratio_interval": ends}).text

    assert said(1.09, [1.08, 1.1]) == "1.09x faster [1.08, 1.10]"
    assert said(0.5, [0.4, 0.625]) == "2.0x slower [1.60, 2.50]"
    assert said(0.99, [0.97, 1.01]) == "0.990x as fast [0.970, 1.01]"
    assert said(70.2, None) == "70x faster"


def test_the_headline_of_a_race_says_no_more_than_its_intervals_and_the_gate():
    def row(name, kind, ms, ratio, ends, **more):
        return {"name": name, "kind": kind, "ms": ms, "ratio": ratio, "ratio_interval": ends} | more

    rows = [
        {"name": "FS K=8", "kind": "few spikes", "ms": 2.0},
        row("quick", "integers", 2.2, 1.1, [0.94, 1.2]),
        row("slower", "integers", 3.0, 1.5, [1.4, 1.6]),
        row("sluggish", "float", 6.0, 3.0, [2.5, 3.25]),
        row("gone by", "one by one", 1.0, 0.5, [0.4, 0.625]),
        row("rates", "rate coding", 900.0, 450.0, None),
    ]
    v = {"rivals": rows, "reference": "FS K=8", "gate.least": 0.99}
    assert rivals_page.said(v, rows) == (
        "FS K=8 is 1.10x as fast as quick [0.940, 1.20], 3.0x faster than sluggish [2.5, 3.2], "
        "2.0x slower than gone by [1.60, 2.50], 450x faster than rates: the fastest of each kind, "
        "with 95 % intervals. Whether it keeps 99% of the dense network's top-1 accuracy is not "
        "known."
    )
    rows[0]["gate_passed"] = False
    assert "It does not keep 99% of" in rivals_page.said(v, rows)
    assert rivals_page.said(v | {"reference": "FS K=4"}, rows[:1]) == "one rival was timed."


def test_goals_are_judged_only_where_they_apply_and_all_rivals_ran():
    goals = [race.Goal("FS", ("x", "y"), {1: 2.0})]
    seconds = {"FS": [1.0, 1.0], "x": [3.0, 3.0], "y": [1.9, 2.5]}
    assert race.judge(goals, seconds, 1, True)[0]["met"] is True
    assert race.judge(goals, seconds | {"y": [1.9, 1.9]}, 1, True)[0]["met"] is False
    assert race.judge(goals, seconds, 1, False)[0]["met"] is None
    assert race.judge(goals, seconds, 8, True)[0]["met"] is None
    assert race.judge(goals, {"FS": [1.0], "x": [3.0]}, 1, True)[0]["met"] is None


def test_goals_name_rivals_that_there_are():
    names = {rival.name for rival in listed.listed([8, 10], 8, 550)}
    assert {name for goal in race.GOALS for name in (goal.ours, *goal.theirs)} <= names


def test_names_are_unique_on_every_device_and_slow_is_what_takes_steps():
    for device in ("cpu", "cuda"):
        rivals = listed.listed([4, 8], 8, 550, device)
        names = [rival.name for rival in rivals]
        assert len(set(names)) == len(names)
        assert {rival.kind for rival in rivals if rival.slow} == {"one by one", "rate coding"}
    assert "TensorRT int8" in names and "cuDNN fp16" in names


def test_an_engine_s_network_is_quantised_where_it_convolves(setting):
    made = trt.quantised(fuse(setting.model), setting.calibration)
    given, wanted = made(setting.x), setting.model(setting.x)
    assert (given.argmax(1) == wanted.argmax(1)).all() and not torch.equal(given, wanted)


def test_without_tensorrt_the_row_says_what_to_install(setting, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    rivals = [r for r in listed.listed([4], 4, 20, "cuda") if r.name.startswith("TensorRT")]
    _, reasons = race.prepare(rivals, setting)
    assert set(reasons.values()) == {"not installed (tensorrt): pip install tensorrt onnx"}


@pytest.mark.parametrize(
    "option, said",
    [
        ("rivals.K=[0]", r"rivals.K=\[0\]: must be 1 to 15 each"),
        ("rivals.slow_rounds=0", "rivals.slow_rounds=0: must be at least 1"),
        ("measure=speed", "measure=speed: choose one of networks, rivals, scaling"),
        ("logger=csv", "logger=csv: experiment=rivals leaves table.csv"),
    ],
)
def test_settings_of_a_race_that_make_no_sense_are_refused(option, said):
    with pytest.raises(UserError, match=said):
        validate(composed("experiment=rivals", option))


@pytest.mark.parametrize(
    "options, said",
    [
        (["rivals.only=[nobody]"], "no rival has that in its name; there are FS K=4"),
        (["backend=emulated"], "nothing is timed in the emulator"),
    ],
)
def test_a_race_of_nobody_is_refused_before_any_work(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        compare.run(composed(*SMALL, *options), tmp_path / "out")
    assert not (tmp_path / "out").exists()
