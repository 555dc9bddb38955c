"""The harness end to end on the smallest network: what it writes, and what it refuses."""

import csv
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from harness import QUICK, composed, printed_until, started, write_cifar, write_image
from PIL import Image
from torch import nn

from bench.errors import UserError
from bench.measures import networks
from bench.measures.harness import run
from fskernel.kernels import ops

KEYS = """
complete notes model K neurons images batch threads seed weights calibration rounds versions machine
random_weights input exact data.shown
neuron.alpha neuron.rounding neuron.weight_bits neuron.bottleneck data.kind data.skipped
ann.images_per_s ann.images_per_s_iqr ann.weight_bytes ann.activation_bytes
fs.images_per_s fs.images_per_s_iqr fs.spikes_per_image fs.spikes_per_neuron fs.sops_per_image
fs.graded_macs fs.latency_steps fs.interval_steps fs.steps fs.complete_steps fs.depth
fs.least_interval_steps fs.delay_bits fs.weight_bytes fs.activation_bytes
fs.isa fs.last_kernel fs.plane_bits fs.layers
rate.T rate.images rate.images_per_s rate.seconds_per_step_iqr rate.spikes_per_image
rate.spikes_per_neuron rate.extrapolated_from rate.seconds_per_step rate.curve rate.equal_T
ratio.fs_to_ann ratio.fs_to_ann_iqr ratio.rate_to_ann ratio.fs_to_rate
accuracy.ann accuracy.ann_interval accuracy.ann_top5 accuracy.ann_top5_interval
accuracy.fs accuracy.fs_interval accuracy.fs_top5 accuracy.fs_top5_interval
accuracy.agreement accuracy.agreement_interval accuracy.logit_error
accuracy.logit_error_interval accuracy.rate accuracy.rate_agreement
fidelity.words_changed fidelity.spikes_ratio fidelity.agreement fidelity.logit_error
fidelity.effective_bits ann.macs energy.estimates energy.proxy_ann_uj energy.proxy_fs_uj
energy.int8_ann_uj energy.int8_fs_uj energy.memory_ann_uj energy.memory_fs_uj figures
energy.meter energy.not_measured energy.measured_ann_j energy.measured_ann_j_iqr
energy.measured_fs_j energy.measured_fs_j_iqr
neurobench.images neurobench.Footprint neurobench.ParameterCount neurobench.ConnectionSparsity
neurobench.ActivationSparsity neurobench.SynapticOperations
""".split()


@pytest.fixture(autouse=True)
def settings_are_restored():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    ops.set_isa(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run at K=10: what run() returned, and its directory."""
    directory = tmp_path_factory.mktemp("run")
    return run(composed(*QUICK, "K=10", "logger=csv", "figures=true"), directory), directory


@pytest.fixture
def class_folders(tmp_path):
    """Ten class folders of one-coloured images, one of them unreadable."""
    dice = random.Random(0)
    for label in range(10):
        colour = tuple(dice.randrange(256) for _ in range(3))
        write_image(tmp_path / "images" / f"class{label}" / "0.jpg", colour)
    (tmp_path / "images" / "class3" / "0.jpg").write_bytes(b"\xff\xd8 not an image")
    return tmp_path / "images"


def test_trained_weights_run_offline_on_the_samples(tmp_path):
    quick = [o for o in QUICK if o != "model.weights=random"]
    results = run(composed(*quick, "baseline=none"), tmp_path)
    assert results["weights"] == "trained, shipped with fskernel"
    assert not [note for note in results["notes"] if "random" in note]
    assert results["accuracy.agreement"] == 1 and results["complete"]


def test_cifar_images_give_accuracies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = composed(*[o for o in QUICK if o != "images=2"], "data=cifar10", "baseline=none")
    cfg.data.root = str(write_cifar(tmp_path / "c"))
    results = run(cfg, tmp_path / "out")
    assert results["images"] == 20 and results["data.kind"] == "cifar10"
    assert results["accuracy.ann"] is not None and results["accuracy.fs"] is not None
    assert any("calibrated on 2 training images" in note for note in results["notes"])


def test_results_hold_every_key_and_are_on_disk(finished):
    results, directory = finished
    assert not [key for key in KEYS if key not in results]
    assert json.loads((directory / "results.json").read_text()) == results
    assert results["complete"] is True
    assert (directory / "config.yaml").read_text().count("K: 10") == 2


def test_figures_agree_with_each_other(finished):
    r, _ = finished
    assert (r["model"], r["K"], r["images"], r["neuron.K"]) == ("cifar_resnet8", 10, 2, 10)
    assert r["neurons"] == 73_728  # the paper's count for this network
    assert r["fs.depth"] == 8
    assert (r["fs.latency_steps"], r["fs.interval_steps"]) == (80, 20)
    assert (r["fs.steps"], r["fs.complete_steps"], r["fs.least_interval_steps"]) == (
        "executed",
        70,
        20,
    )
    assert r["fs.spikes_per_neuron"] == pytest.approx(r["fs.spikes_per_image"] / 73_728)
    assert 0 < r["fs.spikes_per_neuron"] < 10
    layers = r["fs.layers"]
    assert sum(row["neurons"] for row in layers) == 73_728
    assert sum(row["spikes_per_image"] for row in layers) == pytest.approx(r["fs.spikes_per_image"])
    assert sum(row["sops_per_image"] for row in layers) == pytest.approx(r["fs.sops_per_image"])
    assert sum(row["graded_macs"] for row in layers) == r["fs.graded_macs"] > 0
    assert all(row["milliseconds"] > 0 for row in layers)
    for name in ("ann.images_per_s_iqr", "fs.images_per_s_iqr", "rate.seconds_per_step_iqr"):
        low, high = r[name]
        assert 0 < low <= high
    assert r["fs.last_kernel"].split("/")[1] in ("readout", "conv")
    assert r["fidelity.images"] >= 1
    low, high = r["ann.images_per_s_iqr"]
    assert low <= r["ann.images_per_s"] <= high
    assert r["ratio.fs_to_rate"] == pytest.approx(r["fs.images_per_s"] / r["rate.images_per_s"])


def test_energies_are_those_of_the_counts(finished):
    r, _ = finished
    assert r["energy.proxy_ann_uj"] == pytest.approx(r["ann.macs"] * 4.6e-6)
    spent = r["fs.sops_per_image"] * 0.9 + r["fs.graded_macs"] * 4.6
    assert r["energy.proxy_fs_uj"] == pytest.approx(spent * 1e-6)
    assert [one["name"] for one in r["energy.estimates"]] == ["proxy", "int8", "memory"]
    for one in r["energy.estimates"]:
        for network in ("ann", "fs"):
            total = sum(one[network].values()) * 1e-6
            assert r[f"energy.{one['name']}_{network}_uj"] == pytest.approx(total) and total > 0
    neurons = next(one for one in r["energy.estimates"] if one["name"] == "int8")["fs"]["neurons"]
    assert neurons == pytest.approx((10 * 73_728 + r["fs.spikes_per_image"]) * 0.1)


def test_the_figures_lie_beside_the_results(finished):
    r, directory = finished
    files = {f"figures/{path.name}" for path in (directory / "figures").iterdir()}
    assert set(r["figures"]) == files and len(files) == 5
    for name in files:
        with Image.open(directory / name) as image:
            assert min(image.size) >= 300 and len(image.convert("L").getcolors()) > 10, name
        assert (directory / name).stat().st_size < 200_000


def test_without_labels_there_is_no_accuracy(finished):
    r, _ = finished
    assert r["accuracy.ann"] is r["accuracy.fs"] is r["accuracy.ann_interval"] is None
    assert 0 <= r["accuracy.agreement"] <= 1


def test_rate_coded_figures_are_marked_as_extrapolated(finished):
    r, _ = finished
    assert (r["rate.T"], r["rate.extrapolated_from"]) == (30, 24)
    assert any(
        "extrapolated from 24 steps because baseline.simulate=transient" in note
        for note in r["notes"]
    )
    (note,) = [n for n in r["notes"] if "on the same CPU's kernels, eight steps at a time" in n]
    assert all(name in note for name in r["rate.kernels"]) and "rate/" in note
    assert r["accuracy.rate_agreement"] is None


def test_random_weights_are_called_meaningless(finished):
    r, _ = finished
    assert r["weights"] == "random"
    assert any("random" in note and "mean nothing" in note for note in r["notes"])


def test_random_weights_keep_every_layer_alive(finished):
    r, _ = finished
    for row in r["fs.layers"]:
        if row["neurons"]:
            assert 0.1 < row["spikes_per_image"] / row["neurons"] < 8, row["layer"]


def test_csv_has_one_row_and_the_layers(finished):
    r, directory = finished
    (row,) = csv.DictReader((directory / "results.csv").open())
    assert row["model"] == "cifar_resnet8" and int(row["neurons"]) == 73_728
    assert float(row["fs.images_per_s"]) == r["fs.images_per_s"]
    rows = list(csv.DictReader((directory / "layers.csv").open()))
    assert [x["layer"] for x in rows] == [x["layer"] for x in r["fs.layers"]]


def test_labels_give_accuracies_with_intervals_and_bad_images_are_counted(
    tmp_path, class_folders, capsys
):
    cfg = composed(*QUICK, "data=imagefolder", f"data.root={class_folders}", "baseline=none")
    cfg.images, cfg.batch = 9, 4
    r = run(cfg, tmp_path / "out")
    assert r["images"] == 9 and r["data.skipped"] == 1
    assert "class3" in r["data.skipped_files"][0]
    assert "class3" in capsys.readouterr().out
    for key in ("ann", "fs", "ann_top5", "fs_top5"):
        low, high = r[f"accuracy.{key}_interval"]
        assert 0 <= low <= r[f"accuracy.{key}"] <= high <= 1
    assert r["accuracy.fs_top5"] >= r["accuracy.fs"]
    assert r["rate.T"] is r["rate.images_per_s"] is r["ratio.fs_to_rate"] is None
    assert any("among the evaluated" in note for note in r["notes"])


def test_labels_beyond_the_networks_classes_are_refused(tmp_path):
    for index in (3, 10, 11):
        write_image(tmp_path / "p" / f"{index:04d}_n0000{index:04d}.jpg")
    cfg = composed(*QUICK, "data=wnid_files", f"data.root={tmp_path / 'p'}")
    with pytest.raises(UserError, match="label 11, but the network knows 10 classes"):
        run(cfg, tmp_path / "out")


def test_a_simulation_of_all_steps_gives_the_rate_networks_answers(tmp_path, class_folders):
    cfg = composed(*QUICK, "data=imagefolder", f"data.root={class_folders}", "fidelity=0")
    cfg.baseline.simulate, cfg.baseline.images, cfg.images = "all", 3, 4
    r = run(cfg, tmp_path / "out")
    assert r["rate.extrapolated_from"] is None and r["rate.images"] == 3
    assert r["accuracy.rate_agreement"] in (0, 1 / 3, 2 / 3, 1)
    assert r["accuracy.rate"] in (0, 1 / 3, 2 / 3, 1)
    assert r["fidelity.logit_error"] is None and r["rate.curve"] is None


def test_jobs_of_a_sweep_do_not_disturb_each_other(tmp_path):
    """All jobs share a process: another seed and thread count in between must leave no trace."""
    quick = [*QUICK, "baseline=none", "fidelity=0", "check=false"]
    first = run(composed(*quick), tmp_path / "1")
    other = run(composed(*quick, "seed=5", "threads=2", "K=4"), tmp_path / "2")
    again = run(composed(*quick), tmp_path / "3")
    assert other["machine"]["torch_threads"] == 2 and again["machine"]["torch_threads"] == 1
    assert first["fs.spikes_per_image"] == again["fs.spikes_per_image"]
    assert first["fs.spikes_per_image"] != other["fs.spikes_per_image"]


def test_plane_groups_change_no_spike(tmp_path, finished):
    quick = [*QUICK, "baseline=none", "fidelity=0", "check=false", "K=10"]
    r = run(composed(*quick, "backend.plane_bits=2"), tmp_path)
    assert r["fs.plane_bits"] == 2 != finished[0]["fs.plane_bits"]
    assert r["fs.spikes_per_image"] == finished[0]["fs.spikes_per_image"]


def script(*arguments, cwd):
    """Runs bench/run.py to its end."""
    process = started("run.py", *arguments, cwd=cwd, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def interrupted(*arguments, cwd, after, by):
    """Sends a signal to its whole group, as a terminal does, once a line with `after` was printed.

    Returns the exit code and everything it printed.
    """
    process = started("run.py", *arguments, cwd=cwd)
    try:
        text = printed_until(process, after)
        os.killpg(process.pid, by)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, text + rest


@pytest.mark.slow  # but for the end: test_a_signal_ends_a_sweep_and_keeps_its_finished_jobs
def test_the_script_sweeps(tmp_path):
    done = script("-m", "K=4,6", *QUICK, "baseline=none", "fidelity=0", "logger=csv", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    paths = sorted(tmp_path.glob("multirun/*/*/*/results.json"))
    assert len(paths) == 2
    results = [json.loads(path.read_text()) for path in paths]
    assert [r["K"] for r in results] == [4, 6]
    assert all(r["complete"] for r in results)
    assert all(str(path) in done.stdout.replace("\n", "") for path in paths)
    assert {(path.parent / ".hydra" / "config.yaml").exists() for path in paths} == {True}
    # What the library logs is kept, and not on the terminal.
    assert "INFO" not in done.stdout + done.stderr
    assert all("converted CifarResNet" in (p.parent / "run.log").read_text() for p in paths)


@pytest.mark.slow  # as test_rows_that_make_no_sense_are_refused_before_any_work, of one run
def test_the_script_says_what_is_wrong_in_one_sentence(tmp_path):
    done = script("model=cifar_resnet8", "K=99", cwd=tmp_path)
    assert done.returncode == 2
    assert "K=99" in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_an_interrupted_run_leaves_what_was_finished(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(networks, "interleave", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(composed(*QUICK, "logger=csv"), tmp_path)
    left = json.loads((tmp_path / "results.json").read_text())
    assert left["complete"] is False
    assert left["fs.spikes_per_image"] > 0 and "ann.images_per_s" not in left
    (row,) = csv.DictReader((tmp_path / "results.csv").open())
    assert row["complete"] == "False" and float(row["fs.spikes_per_image"]) > 0


ENDLESS = [*QUICK, "baseline=none", "fidelity=0", "rounds=1000000"]


@pytest.mark.parametrize(
    "logger, by",
    [pytest.param("csv", signal.SIGTERM, marks=pytest.mark.slow), ("wandb", signal.SIGINT)],
)
def test_a_signal_leaves_the_finished_stages_on_disk(tmp_path, logger, by, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = [*ENDLESS, f"logger={logger}"]
    code, text = interrupted(*options, cwd=tmp_path, after="evaluating: done", by=by)
    assert code == 128 + by and "Traceback" not in text, text
    (path,) = tmp_path.glob("outputs/*/*/results.json")
    assert f"interrupted; what was finished: {path.parent}" in text.replace("\n", " ")
    left = json.loads(path.read_text())
    assert left["complete"] is False and left["fs.spikes_per_image"] > 0
    if logger == "csv":
        (row,) = csv.DictReader((path.parent / "results.csv").open())
        assert float(row["accuracy.agreement"]) == left["accuracy.agreement"]


def test_a_signal_ends_a_sweep_and_keeps_its_finished_jobs(tmp_path):
    job = ["-m", *QUICK, "baseline=none", "fidelity=0", "check=false", "rounds=1,1000000"]
    code, text = interrupted(*job, cwd=tmp_path, after="#1 : ", by=signal.SIGTERM)
    assert code == 143 and "Traceback" not in text, text
    (folder,) = tmp_path.glob("multirun/*/*")
    assert f"what was finished: {folder}" in text.replace("\n", " ")
    path = folder / "0" / "results.json"
    assert json.loads(path.read_text())["complete"] is True
    assert str(path) in text.replace("\n", "") and (path.parent / ".hydra/config.yaml").exists()
    # What the library logs is kept, and not on the terminal.
    assert "INFO" not in text and "converted CifarResNet" in (path.parent / "run.log").read_text()
    assert len((folder / "table.md").read_text().splitlines()[-3:]) == 3


def handles(process, number):
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1


@pytest.mark.parametrize("seconds, by", [(0.0, signal.SIGINT), (1.0, signal.SIGTERM)])
def test_a_signal_during_the_imports_leaves_no_traceback(tmp_path, seconds, by):
    process = started("run.py", *QUICK, cwd=tmp_path)
    while process.poll() is None and not handles(process, signal.SIGTERM):
        time.sleep(0.01)  # Python itself starts
    time.sleep(seconds)
    os.killpg(process.pid, by)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + by and "interrupted" in text
    assert "Traceback" not in text


def test_ctrl_c_during_the_evaluation_keeps_the_images_shown(tmp_path, monkeypatch):
    cfg = composed(*QUICK, "batch=2")
    cfg.images = 7
    add, shown = networks.Tally.add, []

    def third_time(tally, *args):
        shown.append(1)
        if len(shown) == 3:
            raise KeyboardInterrupt
        add(tally, *args)

    monkeypatch.setattr(networks.Tally, "add", third_time)
    with pytest.raises(KeyboardInterrupt):
        run(cfg, tmp_path)
    left = json.loads((tmp_path / "results.json").read_text())
    assert left["images"] == 4 and left["complete"] is False
    assert "interrupted after 4 of 7 images" in left["notes"]
    assert left["accuracy.logit_error"] > 0 and left["fs.spikes_per_image"] > 0


@pytest.mark.slow
def test_a_sweep_outlives_a_job_that_fails_and_names_it(tmp_path):
    job = [*QUICK, "baseline=none", "fidelity=0", "check=false"]
    done = script("-m", "K=4,99,6", *job, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "2 job(s) finished, 1 failed" in done.stdout
    (failed,) = [line for line in done.stdout.splitlines() if line.startswith("failed: K=99 ")]
    assert "1 to 15 time steps" in failed
    (table,) = tmp_path.glob("multirun/*/*/table.md")
    rows = [line for line in table.read_text().splitlines() if line.startswith("| K=")]
    assert [row.split()[1] for row in rows] == ["K=4", "K=6"]


@pytest.mark.slow
def test_rows_are_jobs_with_their_own_settings(tmp_path):
    rows = "rows=['K=3 neuron.bottleneck=spiking','neuron=paper K=5']"
    job = [*QUICK, "baseline=none", "fidelity=0", "check=false", "neuron.weight_bits=16"]
    done = script(*job, rows, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("outputs/*/*")
    first, second = (json.loads((folder / n / "results.json").read_text()) for n in ("00", "01"))
    assert (first["K"], first["neuron.bottleneck"], first["neuron.rounding"]) == (
        3,
        "spiking",
        "nearest",
    )
    assert (second["K"], second["neuron.alpha"], second["neuron.rounding"]) == (5, 25.0, "floor")
    table = (folder / "table.md").read_text()
    assert f"table: {folder / 'table.md'}" in done.stdout.replace("\n", "")
    for r, name in ((first, "K=3 neuron.bottleneck=spiking"), (second, "neuron=paper K=5")):
        (line,) = [x for x in table.splitlines() if x.startswith(f"| {name} | ")]
        assert f"| {r['K']} | {1000 / r['fs.images_per_s']:.3f} (" in line, "nothing is counted"
        assert f"| {r['fs.latency_steps']} steps |" in line


def test_rows_that_make_no_sense_are_refused_before_any_work(tmp_path):
    done = script(*QUICK, "rows=['K=4','K=99']", cwd=tmp_path)
    assert done.returncode == 2 and "K=99" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("outputs/*/*/00"))


def test_the_logit_error_is_against_the_float_ann(tmp_path):
    """Three steps more are three bits of every word."""
    quick = [*QUICK, "baseline=none", "check=false", "fidelity=0", "neuron.weight_bits=16"]
    errors = [
        run(composed(*quick, f"K={K}"), tmp_path / f"{K}")["accuracy.logit_error"] for K in (2, 5)
    ]
    assert errors[0] > 4 * errors[1] > 0


def test_wrong_kernels_are_not_timed(tmp_path, monkeypatch):
    right = ops.conv

    def wrong(groups, bias, **settings):
        y, counts = right(groups, bias, **settings)
        if y.shape[-1] == 32:  # the second stage
            y = y.clone()
            y[..., -1, -1, -1] ^= 1
        return y, counts

    monkeypatch.setattr(ops, "conv", wrong)
    with pytest.raises(RuntimeError, match="layer2.* differs from the oracle in 1 of"):
        run(composed(*QUICK), tmp_path)
    assert "fs.images_per_s" not in json.loads((tmp_path / "results.json").read_text())


class Pooled(nn.Module):
    """A user's own network: max-pool, no batch norm."""

    def __init__(self, width=6):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        )
        self.head = nn.Linear(width * 8 * 8, 4)

    def forward(self, x):
        return self.head(self.body(x))


OWN = [
    "model._target_=test_bench.Pooled",
    "model.input.crop=16",
    "images=2",
    "calibration=2",
    "rounds=1",
    "baseline.T=12",
    "figures=false",
    "report=false",
]


def test_a_users_own_network_with_its_weights(tmp_path):
    torch.manual_seed(7)
    torch.save({"state_dict": Pooled().state_dict()}, tmp_path / "own.pth")
    r = run(composed(*OWN, f"model.weights={tmp_path / 'own.pth'}", "K=6"), tmp_path)
    assert r["model"] == "Pooled" and r["neurons"] == 6 * 16 * 16
    assert r["weights"] == str(tmp_path / "own.pth")
    assert not any("mean nothing" in note for note in r["notes"])


def test_the_papers_setting_averages_in_the_ann_too(tmp_path):
    torch.manual_seed(7)
    torch.save(Pooled(width=4).state_dict(), tmp_path / "own.pth")
    cfg = composed(*OWN, f"model.weights={tmp_path / 'own.pth'}", "neuron=paper")
    cfg.model.args = {"width": 4}
    r = run(cfg, tmp_path)
    assert (r["K"], r["neuron.alpha"], r["neuron.rounding"]) == (10, 25.0, "floor")
    assert any("average-pools, in the ANN too" in note for note in r["notes"])
    assert r["fidelity.logit_error"] < 0.05


def test_an_instruction_set_that_is_not_here_is_refused(tmp_path):
    with pytest.raises(UserError, match="backend.isa=mmx"):
        run(composed(*QUICK, "backend.isa=mmx"), tmp_path)
    r = run(composed(*QUICK, "backend.isa=portable", "baseline=none", "fidelity=0"), tmp_path)
    assert r["fs.isa"] == "portable" and r["fs.last_kernel"].startswith("portable")
