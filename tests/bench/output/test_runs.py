"""Risk: runs write into one folder, results are replaced or lost, a full disk is a traceback."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from harness import CONF, QUICK, composed, jpeg, printed_until, started, write_cifar, write_zip
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from bench import ROOT, figures, gpu, layers, roofline, run, search, tables, train
from bench.errors import UserError
from bench.measures import harness, k_search
from bench.output import by_hydra, claims, faults, folders, interrupt
from bench.output.record import Record
from bench.output.series import Series
from bench.paper import training as trainer
from fskernel import files

JOB = [*QUICK, "baseline=none", "fidelity=0", "check=false"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders.own.cache_clear()


def contents(folder):
    """Every file below a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---- a folder for every run --------------------------------------------------------------------


def test_a_folder_that_exists_gets_a_number_behind_its_name(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "10-00-00-3").mkdir()
    (tmp_path / "a" / "10-00-00-2").touch()
    seen = []
    for _ in range(4):
        folders.own.cache_clear()  # another process
        seen.append(folders.own("a/10-00-00"))
        assert folders.own("a/10-00-00") == seen[-1], "Hydra asks several times"
    assert seen == [f"a/10-00-00{end}" for end in ("", "-4", "-5", "-6")]
    assert all((tmp_path / folder).is_dir() for folder in seen)


def another_process_s_own(path):
    return folders.own.__wrapped__(path)


def test_processes_that_start_in_the_same_second_get_folders_of_their_own(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(another_process_s_own, ["deep/er/x"] * 40)
    assert len(set(found)) == 40 == len(list((tmp_path / "deep" / "er").iterdir()))


@pytest.mark.parametrize("name", ["config", "search", "train"])
def test_the_folders_of_conf_are_new_ones(tmp_path, name):
    places = []
    for _ in range(2):
        folders.own.cache_clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            hydra = compose(name, return_hydra_config=True).hydra
        hydra.job.num = 3
        OmegaConf.resolve(hydra.sweep)
        OmegaConf.resolve(hydra.run)
        places.append((hydra.run.dir, hydra.sweep.dir))
        assert hydra.sweep.subdir == "3"
        kind = "OwnSweep" if name == "train" else "OwnFolder"
        assert hydra.callbacks.folders["_target_"] == f"bench.output.by_hydra.{kind}"
    assert places[0][1] != places[1][1] and places[0][1].startswith("multirun/")
    if name == "train":
        assert places[0][0] == places[1][0] == "."
    else:
        assert places[0][0] != places[1][0] and places[0][0].startswith("outputs/")
        assert ("-search-" in places[0][0]) == (name == "search")


# ---- one writer --------------------------------------------------------------------------------


def test_a_second_run_leaves_the_first_ones_files_alone_and_sigterm_keeps_them(tmp_path):
    """In one folder at the same time; and a third one, when it is the turn of its folder."""
    endless = [*JOB, "hydra.run.dir=mine", "rounds=1000000"]
    first = started("run.py", *endless, cwd=tmp_path)
    try:
        text = printed_until(first, "evaluating: done")
        os.kill(first.pid, signal.SIGSTOP)  # or it would time rounds all the while
        before = contents(tmp_path / "mine")
        second = started("run.py", *JOB, "K=3", "hydra.run.dir=mine/../mine", cwd=tmp_path)
        said, _ = second.communicate(timeout=100)
        assert second.returncode == 2 and "another run writes into mine" in said, said
        assert said.splitlines()[:2] == ["reading the configuration", "loading torch and fskernel"]
        assert "Traceback" not in said and len(said.strip().splitlines()) == 3
        assert before.items() <= contents(tmp_path / "mine").items()
        os.kill(first.pid, signal.SIGTERM)
        os.kill(first.pid, signal.SIGCONT)
        rest, _ = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 143 and "Traceback" not in text + rest
    left = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert left["fs.spikes_per_image"] > 0 and left["complete"] is False and left["K"] == 8
    assert not [p for p in contents(tmp_path) if p.suffix in (".part", ".lock")]
    # What was interrupted may be replaced.
    assert harness.run(composed(*JOB), tmp_path / "mine")["complete"]
    with pytest.raises(
        UserError, match="hydra.run.dir: .*mine holds the results of a finished run"
    ):
        harness.run(composed(*JOB), tmp_path / "mine")


def test_two_records_in_one_folder_are_refused_until_the_first_is_closed(tmp_path):
    first = Record(tmp_path / "a")
    for K in range(3):
        with pytest.raises(UserError, match="--out: another run writes into .*name another folder"):
            Record(tmp_path / "a", "--out")
        first.add(K=K)
    assert json.loads(first.path.read_text())["K"] == 2
    first.close()
    with Record(tmp_path / "a") as again:
        again.add(K=9)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["results.json"]


def test_of_many_records_at_once_one_is_written(tmp_path):
    made, refused = [], []

    def make(i):
        try:
            record = Record(tmp_path)
            made.append(record)
            for n in range(5):
                record.add(writer=i, n=n)
        except UserError:
            refused.append(i)

    threads = [threading.Thread(target=make, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 7
    values = json.loads((tmp_path / "results.json").read_text())
    assert values == made[0].values and values["n"] == 4


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"complete": 1}', "[" * 99999, "1"])
def test_a_file_that_is_no_record_is_not_replaced(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match="no record of a run|results of a finished run"):
        Record(tmp_path)
    with pytest.raises(UserError):  # and the lock was given back
        Record(tmp_path)
    assert contents(tmp_path) == {Path("results.json"): content.encode()}


def test_a_finished_record_is_replaced_only_where_that_is_asked_for(tmp_path):
    with Record(tmp_path) as record:
        record.add(complete=True)
    with pytest.raises(UserError, match="finished run: name another folder, or move that one away"):
        Record(tmp_path)
    with Record(tmp_path, replace=True) as record:
        assert record.values["complete"] is False


@pytest.mark.parametrize("start", ["on_run_start", "on_multirun_start"])
@pytest.mark.parametrize("holds", ["results.json", "table.md", "a lock", "nothing", "a file"])
def test_hydra_writes_only_into_a_folder_that_is_ours(tmp_path, start, holds, capsys):
    folder = tmp_path / "x"
    if holds == "a file":
        folder.touch()
    else:
        folder.mkdir()
    if holds == "results.json":
        (folder / holds).write_text('{"complete": true}')
    elif holds == "table.md":
        (folder / holds).touch()
    lock = files.Lock(folder / ".lock") if holds == "a lock" else None
    before = contents(tmp_path)
    place = {"dir": str(folder)}
    config = OmegaConf.create({"hydra": {"run": place, "sweep": place}})
    callback = by_hydra.OwnFolder()
    if holds == "nothing":
        getattr(callback, start)(config=config, config_name="config")
        with pytest.raises(UserError, match="another run"):
            claims.claim(folder, "x")
        return
    with pytest.raises(SystemExit) as stopped:
        getattr(callback, start)(config=config, config_name="config")
    option = "hydra.run.dir" if start == "on_run_start" else "hydra.sweep.dir"
    said = capsys.readouterr().out
    assert stopped.value.code == 2 and said.startswith(f"error: {option}: ") and str(folder) in said
    assert contents(tmp_path) == before
    del lock


# ---- training, searches ------------------------------------------------------------------------


def training(tmp_path):
    write_cifar(tmp_path / "c")
    options = ["model=cifar_resnet8", "batch=10", "epochs=100000", "lr=0.01", "threads=1"]
    return [*options, f"data.root={tmp_path / 'c'}", "out=o"]


def test_a_training_has_its_folder_for_itself_and_sigterm_keeps_its_epochs(tmp_path):
    options = training(tmp_path)
    first = started("train.py", *options, cwd=tmp_path)
    try:
        printed_until(first, "epoch 1 of")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", options)
        with pytest.raises(UserError, match="out: another run writes into o/cifar_resnet8"):
            trainer.train(cfg)
        os.kill(first.pid, signal.SIGTERM)
        rest, _ = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 143 and "Traceback" not in rest
    assert "the same command goes on after the last whole epoch" in rest.replace("\n", " ")
    assert [p.name for p in (tmp_path / "o/cifar_resnet8").iterdir()] == ["checkpoint.pt"]
    saved = torch.load(tmp_path / "o/cifar_resnet8/checkpoint.pt", weights_only=True)
    assert saved["epochs"] >= 1


def test_weights_without_their_checkpoint_are_not_replaced(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", training(tmp_path))
    (tmp_path / "o/cifar_resnet8").mkdir(parents=True)
    (tmp_path / "o/cifar_resnet8/cifar_resnet8.safetensors").write_bytes(b"trained")
    before = contents(tmp_path / "o")
    with pytest.raises(UserError, match="whose checkpoint.pt is gone: say out=DIR"):
        trainer.train(cfg)
    assert contents(tmp_path / "o") == before


def test_a_closed_terminal_ends_a_search_and_keeps_its_measurements(tmp_path):
    options = ["model.weights=random", "calibration=4", "K_range=[3,9]", "folder=kept"]
    process = started("search.py", *options, "hydra.run.dir=r", cwd=tmp_path)
    try:
        for _ in range(1200):
            if list(tmp_path.glob("kept/search-*.json")) or process.poll() is not None:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGHUP)
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 129 and "Traceback" not in text, text
    assert "interrupted; with folder=kept the same command goes on" in text.replace("\n", " ")
    (path,) = (tmp_path / "kept").iterdir()
    assert len(json.loads(path.read_text())["evaluations"]) >= 1


# ---- signals -----------------------------------------------------------------------------------


# In a process of its own: a fork of this one has threads' locks without the threads.
TWO_SIGNALS = """
import os, signal, sys
from bench.output import interrupt
number = int(sys.argv[1])
for each in interrupt.SIGNALS:
    signal.signal(each, signal.SIG_DFL)
interrupt.raise_once()
try:
    os.kill(os.getpid(), number)
    os._exit(1)
except KeyboardInterrupt as error:
    if interrupt.code(error) != 128 + number or interrupt.came() != 128 + number:
        os._exit(2)
os.kill(os.getpid(), signal.SIGTERM)
os._exit(3)
"""


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_the_first_signal_is_an_exception_and_the_second_the_end(number):
    child = [sys.executable, "-c", TWO_SIGNALS, str(int(number))]
    assert subprocess.run(child, cwd=ROOT).returncode == 128 + signal.SIGTERM


def test_ignored_signals_stay_ignored():
    """As nohup has it."""
    child = (
        "import os, signal; from bench.output import interrupt; "
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); interrupt.raise_once(); "
        "os.kill(os.getpid(), signal.SIGHUP); os._exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", child], cwd=ROOT).returncode == 7
    assert interrupt.code(KeyboardInterrupt()) == 130 and interrupt.came() is None


# ---- disks -------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_hydra_is_one_sentence(tmp_path):
    """It writes files of its own before ours."""
    process = started(
        "run.py",
        *JOB,
        "hydra.run.dir=r",
        cwd=tmp_path,
        limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150)),
    )
    text, _ = process.communicate(timeout=100)
    assert process.returncode == 2 and "Traceback" not in text, text
    assert "File too large: make room there, or" in text and "hydra.run.dir" in text
    assert text.count("error:") == 1
    assert not [p for p in contents(tmp_path) if p.suffix in (".part", ".lock")]


COMMANDS = {
    "layers": (layers.main, ["--out", "file/x/y.json"]),
    "roofline": (roofline.main, ["--out", "file/x"]),
    "figures": (figures.main, ["--out", "file/x"]),
    "gpu": (gpu.main, ["--device", "cpu", "--out", "file/x"]),
    "tables": (tables.main, ["--out", "file/x"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", ["a file in the way", "read-only"])
def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    tmp_path, monkeypatch, capsys, command, fault
):
    main, given = COMMANDS[command]
    place = tmp_path / "file"
    if fault == "read-only":
        place.mkdir()
        (place / "x").mkdir()
        # The tests may run as root, who may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: place not in Path(path).parents)
        given = [word.replace("file/", f"{place}/") for word in given]
    else:
        place.touch()
    try:
        code = main(given)
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().out
    if command == "gpu":  # which tells its plan before it imports torch
        plan, error, rest = said.partition("error: ")
        assert plan.startswith("plan: ") and "results: " not in plan
        said = error + rest
    assert code == 2 and said.startswith("error: --"), said
    assert "file/x" in said.replace("\n", "") and "name another folder" in said.replace("\n", " ")
    assert not contents(tmp_path) or fault != "read-only"


def test_a_disk_that_fills_while_working_is_one_sentence(tmp_path, monkeypatch, capsys):
    """In the commands, and as a failed job of a series."""
    monkeypatch.setattr(files, "_sync", full)
    write_cifar(tmp_path / "c", train=1, test=1)
    given = ["--cifar", str(tmp_path / "c"), "--networks", "cifar_resnet8", "--out", "o"]
    assert tables.main(given) == 2
    said = capsys.readouterr().out.replace("\n", " ")
    assert "results.json: No space left on device: make room there" in said and "--out" in said
    with pytest.raises(SystemExit) as stopped:
        small = ["--model", "resnet18", "--size", "32", "--rounds", "1"]
        layers.main([*small, "--out", "l.json"])
    assert stopped.value.code == 2 and "l.json: No space left" in capsys.readouterr().out
    series = Series(tmp_path, "command", "hydra.sweep.dir", report=False)
    series.attempt("job", tmp_path / "job", lambda: Record(tmp_path / "job"))
    assert series.close() == 1 and "hydra.sweep.dir" in series.failed[0][1]
    assert "Traceback" not in capsys.readouterr().err
    assert not [p for p in contents(tmp_path) if p.suffix in (".part", ".lock", ".json")]


@pytest.mark.parametrize("command", [run, search, train])
def test_what_the_disk_refuses_is_a_sentence_of_the_harness(monkeypatch, capsys, command):
    worker, name, config = {
        run: (harness, "run", "config"),
        search: (k_search, "run", "search"),
        train: (trainer, "train", "train"),
    }[command]
    monkeypatch.setattr(worker, name, full)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(config, ["model=cifar_resnet8"], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = "x"
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg.hydra)
    with pytest.raises(SystemExit) as stopped:
        command.main.__wrapped__(cfg)
    assert stopped.value.code == 2
    assert "No space left on device: make room there" in capsys.readouterr().out


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_faults_of_the_disk_name_the_file_and_the_cure(code):
    error = OSError(code, os.strerror(code), "/x/results.json")
    text = faults.sentence(error, "--out")
    assert text.startswith(f"/x/results.json: {os.strerror(code)}: ") and text.endswith(
        "with --out"
    )
    assert ("make room" in text) == (code == errno.EDQUOT)


@pytest.mark.parametrize("asked", [True, False])
def test_hydras_own_errors_stay_sentences_unless_more_is_asked_for(monkeypatch, capsys, asked):
    def main():
        assert os.environ["HYDRA_FULL_ERROR"] == "1"
        raise ConfigCompositionException("Could not override 'modl'.") from KeyError("modl")

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    if not asked:
        monkeypatch.delenv("HYDRA_FULL_ERROR")
    with pytest.raises(ConfigCompositionException if asked else SystemExit) as stopped:
        by_hydra.run_by_hydra(main)
    assert asked or stopped.value.code == 2
    assert asked or capsys.readouterr().out == "error: modl: no such key\n"
    with pytest.raises(OSError, match="No space left"):
        by_hydra.run_by_hydra(full)


@pytest.mark.parametrize(
    "command, given, said",
    [
        (
            "run",
            "model=resnet20",
            "model=resnet20: no such option; did you mean cifar_resnet20?",
        ),
        ("run", "experiment=smok", "experiment=smok: no such option; did you mean smoke? (th"),
        (
            "run",
            "logger=mlflow",
            "logger=mlflow: no such option (there are csv, none, tensorboard, wandb)",
        ),
        (
            "run",
            "logger=csv,wandb",
            'logger=csv,wandb: write "logger=[csv,wandb]" for all at once, or -m for a run of each',
        ),
        ("run", "modle=resnet18", "modle: no such key; did you mean model?"),
        ("run", "neuron.alhpa=3", "neuron.alhpa: no such key; did you mean neuron.alpha?"),
        ("run", "K=abc", "K=abc: value 'abc' of type 'str' could not be converted to Integer"),
        ("run", "K=(", "K=(: cannot be read; quote a value"),
        ("search", "logger=wandb", "logger: no such key"),
        ("train", "epoch=3", "epoch: no such key; did you mean epochs?"),
    ],
)
def test_misspelt_arguments_are_told_in_a_sentence(command, given, said):
    done = subprocess.run(
        [sys.executable, f"{ROOT}/bench/{command}.py", given], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr == "reading the configuration\n"
    assert f"error: {said}" in done.stdout and "search path" not in done.stdout


def test_the_cache_may_be_shared_by_runs_that_start_together(tmp_path):
    """Both decode; both get the images."""
    from bench.inputs import cifar

    write_zip(tmp_path / "train.zip", {f"cat/{i}.jpg": jpeg(3, i) for i in range(9)})
    found = []

    def load():
        found.append(cifar.load(tmp_path, "train", tmp_path / "cache"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(f.images, found[0].images) for f in found)
    assert len(list((tmp_path / "cache").iterdir())) == 1
