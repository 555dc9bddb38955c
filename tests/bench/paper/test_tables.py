"""The paper's table and the curves of rate coding: right sums, resumable, nothing hidden."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from harness import write_cifar, write_image
from hypothesis import given
from hypothesis import strategies as st

import fskernel as fs
from bench import ROOT, tables
from bench.errors import UserError
from bench.measures import answers, networks
from bench.output.markdown import put, with_interval
from bench.paper import rate_curve, table_runs, tables_text
from bench.paper.published import NETWORKS, PAPER
from bench.paper.rate_curve import Curve, Rival
from fskernel.rate.trains import KernelRateNetwork

MARKS = "before\n<!-- paper's table: begin -->\nold\n<!-- paper's table: end -->\nafter\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with few CIFAR images and a document; the rest of the arguments is small."""
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "c", train=1, test=1)
    (tmp_path / "docs.md").write_text(MARKS)
    return tmp_path


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory):
    """Such a folder after the command has been given there."""
    folder = tmp_path_factory.mktemp("measured")
    write_cifar(folder / "c", train=1, test=1)
    (folder / "docs.md").write_text(MARKS)
    assert tables.main(arguments(folder)) == 0
    return folder


@pytest.fixture
def done(measured_once, tmp_path, monkeypatch):
    """A copy of it."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(measured_once, tmp_path / "done")


def arguments(place, *more):
    text = "--networks cifar_resnet8 --images 6 --calibration 4 --rate-images 99 --rate-steps 36"
    paths = ["--cifar", str(place / "c"), "--out", str(place / "o")]
    return [*text.split(), *paths, "--docs", str(place / "docs.md"), *more]


# ---- the table ---------------------------------------------------------------------------------


def test_the_document_holds_what_was_measured_and_nothing_else_changes(done, monkeypatch):
    text = (done / "docs.md").read_text()
    assert text.startswith("before\n<!-- paper's table: begin -->\n") and "\nold\n" not in text
    assert text.endswith("\n<!-- paper's table: end -->\nafter\n")
    default, paper = (
        json.loads((done / "o/cifar_resnet8" / s / "results.json").read_text())
        for s in ("default", "paper")
    )
    assert default["images"] == paper["images"] == 6 and default["complete"]
    assert (paper["K"], paper["neuron.alpha"], paper["neuron.rounding"]) == (10, 25.0, "floor")
    rows = [row for row in text.splitlines() if row.startswith("|")]
    (ours,) = [row for row in rows if "our default" in row]
    (theirs,) = [row for row in rows if "the paper's setting" in row]
    (published,) = [row for row in rows if "*the paper's own*" in row]
    assert f"{default['fs.spikes_per_image']:,.0f}" in ours and "| 64 | 16 |" in ours
    assert f"{paper['fs.spikes_per_image']:,.0f}" in theirs and "| 80 | 20 |" in theirs
    assert f"{paper['fs.spikes_per_neuron']:.3f}" in theirs
    assert "| 103,753 | 1.407 |" in published and "87.05 % (ANN 87.22 %)" in published
    assert "73,728" in rows[2] and "ANN, 6 images" in rows[2]
    assert f"| {100 * default['accuracy.ann']:.1f} % [" in rows[2]
    assert "python bench/tables.py --cifar DIR --images 6" in text and str(done) not in text
    assert "On the first 10 of the test images" in text  # there are no 99
    assert (done / "rate_curve.svg").stat().st_size > 1000
    # The same command measures nothing again and writes the same.
    monkeypatch.setattr(answers, "evaluate", None)
    monkeypatch.setattr(rate_curve, "measure", None)
    assert tables.main(arguments(done)) == 0
    assert (done / "docs.md").read_text() == text


def test_without_docs_all_is_written_beside_the_results(done):
    assert tables.main(arguments(done, "--rate-images", "0")) == 0
    published = (done / "docs.md").read_text()
    (done / "docs.md").write_text(MARKS)
    given = arguments(done, "--rate-images", "0")
    at = given.index("--docs")
    assert tables.main(given[:at] + given[at + 2 :]) == 0
    assert (done / "docs.md").read_text() == MARKS
    assert (done / "o/tables.md").read_text().strip() in published
    assert tables.main(["--cards", "--out", str(done / "o")]) == 0
    assert (done / "o/cards.md").read_text().strip() == tables_text.cards_table()


@pytest.mark.parametrize("more", [[], ["--cards"]])
def test_a_document_without_marks_is_refused_before_any_work(place, monkeypatch, capsys, more):
    monkeypatch.setattr(table_runs, "measure_all", None)
    (place / "docs.md").write_text("no marks")
    assert tables.main(arguments(place, *more)) == 2
    assert "there are no lines <!-- " in capsys.readouterr().out
    assert not (place / "o").exists()


def test_other_settings_or_weights_are_measured_anew(place, monkeypatch):
    args = tables.arguments(arguments(place, "--rate-images", "0"))
    measured = []
    monkeypatch.setattr(
        answers, "evaluate", lambda *a, f=answers.evaluate: measured.append(a[0].images) or f(*a)
    )
    for images in (6, 6, 3):
        args.images = images
        values = table_runs.measure(table_runs.compose("cifar_resnet8", "default", args))
        assert values["images"] == images
    job = table_runs.compose("cifar_resnet8", "default", args)
    job.cfg.neuron.alpha = "percentile:99"
    job.asked["neuron"]["alpha"] = "percentile:99"
    assert table_runs.measure(job)["neuron.alpha"] == "percentile:99"
    assert (
        measured == [6, 3, 3]
        and table_runs.compose("cifar_resnet8", "paper", args).asked["neuron"]["alpha"] == 25
    )
    module = fs.models.cifar_resnet8(weights="cifar10").eval()
    before = table_runs.fingerprint(module)
    assert before == table_runs.fingerprint(copy.deepcopy(module))
    with torch.no_grad():
        module.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-3
    assert table_runs.fingerprint(module) != before


def test_ctrl_c_loses_nothing_that_was_finished(place, monkeypatch):
    calls = []

    def evaluate(cfg, *rest, f=answers.evaluate):
        calls.append(cfg.K)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return f(cfg, *rest)

    monkeypatch.setattr(answers, "evaluate", evaluate)
    given = arguments(place, "--rate-images", "0")
    assert tables.main(given) == 130
    assert (place / "docs.md").read_text() == MARKS
    assert tables.main(given) == 0
    assert calls == [8, 10, 10]  # the first network at K=8 was not measured twice
    assert "our default" in (place / "docs.md").read_text()


def test_half_a_network_is_not_shown(tmp_path):
    def write(setting, images, complete=True):
        path = tmp_path / "cifar_resnet8" / setting / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": images, "complete": complete}))

    write("default", 6)
    assert table_runs.collect(tmp_path)[0] == {}
    write("paper", 5)  # of another number of images
    assert table_runs.collect(tmp_path)[0] == {}
    write("paper", 6, complete=False)
    assert table_runs.collect(tmp_path)[0] == {}
    write("paper", 6)
    curve = made()
    curve.save(tmp_path / "cifar_resnet8/rate-percentile-24.json")
    assert list(table_runs.collect(tmp_path)[0]) == ["cifar_resnet8"]
    assert table_runs.collect(tmp_path)[1] == {}
    curve.complete = True
    curve.save(tmp_path / "cifar_resnet8/rate-percentile-24.json")
    assert table_runs.collect(tmp_path)[1] == {"cifar_resnet8": [curve]}


def test_neurons_other_than_the_papers_stop_it():
    table_runs.check_neurons("cifar_resnet20", 188_416)
    table_runs.check_neurons("efficientnet_lite0", 1)  # not in the paper
    with pytest.raises(RuntimeError, match="has 188,417 neurons: the paper counts 188,416"):
        table_runs.check_neurons("cifar_resnet20", 188_417)


def test_the_papers_figures_fit_each_other():
    # Spikes per neuron as the paper states them.
    assert PAPER["resnet50"].spikes / PAPER["resnet50"].neurons == pytest.approx(1.463, abs=1e-3)
    assert set(PAPER) < set(NETWORKS)


def test_what_is_left_out_is_said(done, monkeypatch):
    monkeypatch.setattr(table_runs.shipped, "names", lambda: ["cifar_resnet8"])
    args = tables.arguments(["--cifar", str(done / "c")])
    assert table_runs.absent("cifar_resnet8", args) is None
    assert "no trained weights" in table_runs.absent("cifar_resnet50", args)
    assert "--imagenet DIR" in table_runs.absent("efficientnet_lite0", args)
    args.imagenet = done
    assert "--resnet50 FILE" in table_runs.absent("resnet50", args)
    names = ["--networks", "cifar_resnet8", "cifar_resnet50", "resnet50"]
    assert tables.main(arguments(done, "--rate-images", "0", *names)) == 0
    text = (done / "docs.md").read_text()
    assert "ResNet50 (CIFAR) is missing: no trained weights" in text
    assert "ResNet50 (ImageNet) is missing: no images" in text


@pytest.mark.parametrize(
    "options, names",
    [
        (["--images", "0"], "--images=0: expected at least 1"),
        (["--calibration", "0"], "--calibration=0"),
        (["--rate-steps", "0"], "--rate-steps=0"),
        (["--rate-images", "-1"], "--rate-images=-1: expected 0 or more"),
        (["--threads", "100000"], "--threads=100000: this process may use"),
        (["--cifar", "/nowhere"], "--cifar=/nowhere: there is no such folder"),
        (["--imagenet", "/nowhere"], "--imagenet=/nowhere"),
        (["--resnet50", "/nowhere"], "--resnet50=/nowhere: there is no such file"),
        (["--networks", "resnet51"], "resnet51"),
    ],
)
def test_senseless_options_are_refused_before_any_work(options, names, capsys):
    with pytest.raises(SystemExit):
        tables.arguments(options)
    assert names in capsys.readouterr().err


def test_a_document_without_marks_is_refused(tmp_path):
    path = tmp_path / "d.md"
    for content in (None, "", "<!-- x: begin -->", "<!-- x: end --><!-- x: begin -->"):
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match="no lines <!-- x: begin -->"):
            put(path, "x", "text")
        assert content is None or path.read_text() == content
    path.write_text("a <!-- x: begin --> b <!-- x: end --> c <!-- y: begin -->")
    put(path, "x", "new")
    put(path, "x", "new")
    assert path.read_text() == "a <!-- x: begin -->\n\nnew\n\n<!-- x: end --> c <!-- y: begin -->"


def test_average_pools_get_an_ann_of_their_own():
    # ResNet50's max-pool is an average-pool at the paper's setting, in the ANN too.
    def values(ann, average):
        v = {"accuracy.ann": ann, "accuracy.ann_interval": [0.1, 0.9], "images": 9, "K": 8}
        v |= {"accuracy.fs": ann, "accuracy.fs_interval": [0.1, 0.9], "neurons": 9_608_704}
        v |= {"fs.spikes_per_image": 1e6, "fs.spikes_per_neuron": 0.1, "fs.latency_steps": 500}
        v |= {"fs.interval_steps": 20, "neuron.average_pool": average, "neuron.alpha": "max"}
        return v | {"neuron.rounding": "floor", "neuron.weight_bits": 16}

    settings = {"default": values(0.8, False), "paper": values(0.5, True)}
    rows = tables_text.table({"resnet50": settings})[2:]
    assert "ANN, 9 images" in rows[0] and "80.0 %" in rows[0]
    assert "ANN, average-pools, 9 images" in rows[1] and "50.0 %" in rows[1]
    assert "75.10 % (ANN 75.22 %)" in rows[-1] and "14,061,000 | 1.463 | 500 | 20" in rows[-1]
    assert len({row.count("|") for row in rows}) == 1


def test_the_cards_in_the_documents_are_those_that_ship():
    text = (ROOT / "docs/networks.md").read_text()
    written = text.partition("<!-- cards: begin -->")[2].partition("<!-- cards: end -->")[0]
    assert written.strip() == tables_text.cards_table(), (
        "say: python bench/tables.py --cards --docs"
    )


@pytest.mark.slow
def test_networks_that_were_trained_for_another_time_are_named():
    assert tables_text.trained_for({"A": 60, "B": 60}) == "60 epochs"
    assert tables_text.trained_for({"A": 60, "B": 15, "C": 60}) == "60 epochs (B: 15)"


@pytest.mark.slow  # minutes of a whole ResNet50
def test_resnet50_with_a_local_file(place, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), place / "w.pth")
    for index in (3, 999):
        write_image(place / "i" / f"{index:04d}_n0000{index:04d}.jpg", size=(256, 256))
    monkeypatch.setattr(networks, "check", lambda *_: None)  # the oracle takes minutes
    given = ["--networks", "resnet50", "--imagenet", str(place / "i"), "--images", "2"]
    given += ["--resnet50", str(place / "w.pth"), "--out", str(place / "o")]
    assert tables.main([*given, "--docs", str(place / "docs.md")]) == 0
    text = (place / "docs.md").read_text()
    assert "| ResNet50 (ImageNet) | ANN, 2 images | 9,608,704 |" in text
    assert "| 500 | 20 |" in text and "| 400 | 16 |" in text
    assert "max-pool(s) replaced by average-pools" in text and str(place) not in text


# ---- rate coding over its steps ----------------------------------------------------------------


@pytest.fixture(scope="module")
def subject():
    """A trained network, two FS networks, and images with labels."""
    torch.manual_seed(3)
    ann = fs.models.cifar_resnet8(weights="cifar10").eval()
    x = torch.randn(7, 3, 32, 32)
    nets = {"default": fs.convert(ann, x), "paper": fs.convert(ann, x, neuron="paper")}
    return ann, nets, x, torch.arange(7)


def measured(subject, curve, batches, T=30, save=lambda _: None):
    ann, nets, x, _ = subject
    return rate_curve.measure(curve, ann, nets, x, batches, T, save, lambda _: None)


@torch.no_grad()
def test_a_curve_holds_the_sums_of_separate_simulations(subject):
    ann, nets, x, labels = subject
    batches = [(x[:4], labels[:4]), (x[4:], labels[4:])]
    curve = measured(subject, Curve({}), batches)
    assert curve.T == [8, 16, 24, 30] and curve.images == 7
    rated = KernelRateNetwork(nets["default"].graph, x)
    for T, right, spikes in zip(curve.T, curve.right, curve.spikes, strict=True):
        parts = [rated.run(part, T) for part, _ in batches]
        answers = torch.cat([run.logits[-1].argmax(1) for run in parts])
        assert right == int((answers == labels).sum())
        assert spikes == sum(int(run.spikes_per_step.sum()) for run in parts)
        assert curve.spikes_per_image(T) == spikes / 7
        assert curve.accuracy(T)[0] == right / 7
    assert curve.ann_right == int((ann(x).argmax(1) == labels).sum())
    for name, net in nets.items():
        rival = curve.rivals[name]
        logits, stats = net.run(x)
        assert rival.spikes == int(stats.total_spikes().sum())
        assert rival.right == int((logits.argmax(1) == labels).sum())
        assert (rival.latency_steps, rival.interval_steps) == (8 * net.K, 2 * net.K)


def test_an_interrupted_curve_goes_on_to_the_same_sums(subject, tmp_path):
    _, _, x, labels = subject
    batches = [(x[i : i + 2], labels[i : i + 2]) for i in (0, 2, 4)]
    whole = measured(subject, Curve({"a": 1}), batches)
    path = tmp_path / "deep" / "curve.json"
    saved = []

    def save(curve):
        curve.save(path)
        saved.append(curve.images)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(subject, Curve({"a": 1}), batches, save=save)
    half = Curve.load(path)
    assert half.images == 4 and not half.complete and whole.complete
    assert measured(subject, half, batches, save=save) == whole
    assert saved == [2, 4, 6, 6] and Curve.load(path) == whole


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=12),
    st.integers(0, 1000),
    st.sampled_from([0, 0.005, 0.1]),
)
def test_reached_means_there_and_at_all_later_steps(right, rival, tolerance):
    T = [8 * (i + 1) for i in range(len(right))]
    curve = Curve({}, T=T, right=right, spikes=right, images=1000)
    staying = [t for i, t in enumerate(T) if min(right[i:]) >= rival - 1000 * tolerance]
    assert curve.reached(rival, tolerance) == (staying[0] if staying else None)


def made(reaches=True):
    """A curve of 100 images whose readings can be told by heart."""
    curve = Curve({}, T=[8, 16, 24], right=[10, 60, 80], spikes=[1000, 2000, 4000], images=100)
    right = 80 if reaches else 90
    curve.rivals = {
        "default": Rival(8, 64, 16, right, 500, 0.5),
        "paper": Rival(10, 80, 20, right, 400, 1.0),
    }
    curve.ann_right, curve.seconds = 82, 2.4
    return curve


def test_readings_are_ratios_at_equal_accuracy():
    said = tables_text.reading(made(), "paper")
    assert "reaches it at T=24 (80.0 %) with 40 spikes" in said
    assert "1.2 times the interval, 0.3 times the latency and 10.0 times the spikes" in said
    assert "of 0 points: from T=24 on; of 1 point: from T=24 on." in said
    rows = tables_text.claims({"cifar_resnet8": [made()]})[2:]
    assert rows == [
        "| ResNet8, 100 images | weak | default | 24 | 1.5x | 8.0x | 5x | 24 | 1.5x | 8.0x | 5x |",
        "| ResNet8, 100 images | weak | paper | 24 | 1.2x | 10.0x | 2x | 24 | 1.2x | 10.0x | 2x |",
    ]
    rows = tables_text.claims({"cifar_resnet8": [made(False)]})[2:]
    assert rows[1] == (
        "| ResNet8, 100 images | weak | paper | not reached | - | - | - | 24 | 1.2x | 10.0x | 2x |"
    )
    assert "does not reach it within 24 steps (best: 80.0 %)" in tables_text.reading(
        made(False), "paper"
    )
    assert "| 8 | 10.0 % [5.5, 17.4] | 10 |" in tables_text.curve_rows(made())


def test_a_stricter_reading_stands_beside():
    curve = made()
    curve.right = [10, 79, 80]
    curve.rivals["paper"].right = 80
    assert "of 0 points: from T=24 on; of 1 point: from T=16 on" in tables_text.reading(
        curve, "paper"
    )


def test_the_plot_has_a_panel_a_network():
    plot = rate_curve.figure({"A": [made()], "B": [made(False)]})
    assert [panel.get_title("left") for panel in plot.axes] == [
        "A: 100 images, up to 24 steps",
        "B: 100 images, up to 24 steps",
    ]
    line = plot.axes[0].lines[0]
    assert line.get_xdata().tolist() == [8, 16, 24]
    assert line.get_ydata().tolist() == [0.1, 0.6, 0.8]


def test_intervals_are_shown_where_there_are_some():
    assert with_interval(None, None, str) == "-" and with_interval(1, None, str) == "1"
    assert with_interval(1, [0, 2], str) == "1 [0, 2]"


def test_the_command_that_is_told_names_no_place():
    args = tables.arguments(["--networks", "resnet50", "--images", "7", "--out", "/x"])
    args.cifar = args.imagenet = args.resnet50 = Path("/secret")
    told = "python bench/tables.py --cifar DIR --imagenet DIR --resnet50 FILE --images 7"
    assert tables.command(args) == told
