"""Risk: what is logged to W&B is not what was found, or the dashboard asks for keys nobody logs."""

import json
import sys
from functools import partial

import pytest
from harness import QUICK, composed

from bench import dashboard
from bench.errors import UserError
from bench.inputs.config import network_name
from bench.measures.harness import run
from bench.output import machine
from bench.output.dashboard import sections, specification
from bench.output.loggers import wandb_file
from bench.output.loggers.opening import open_series
from bench.output.series import Series

TRAINED = [
    *("model=digits_cnn", "data=digits", "images=40", "calibration=20", "batch=20", "rounds=3"),
    *("warmup=1", "baseline.T=12", "baseline.every=3", "baseline.images=20", "fidelity=0"),
    *("check=false", "report=true", "logger.weights=true"),
]
SPIKING = ("neurons", "spikes_per_image")
RIVAL = {"name": "OpenVINO int8", "ms": 1.5, "ms_quartiles": [1.0, 2.0]}


def logged(folder):
    """The one run that lies in a folder."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return wandb_file.finished(path)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two runs of a series beside a race of runtimes: its folder, and the records by K."""
    folder = tmp_path_factory.mktemp("sweep")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(folder)
    cfg = composed(*TRAINED, "logger=wandb")
    race = {
        "measure": "rivals",
        "complete": True,
        "started": "2026-11-28T16:43:05+00:00",
        "command": "python bench/run.py experiment=rivals",
        "machine": machine.machine(),
        "device": "cpu",
        "model": network_name(cfg.model),
        "input": [8, 8],
        "batch": cfg.batch,
        "threads": cfg.threads,
        "rivals": [RIVAL],
    }
    (folder / "outputs").mkdir()
    (folder / "outputs" / "results.json").write_text(json.dumps(race))
    series = Series(folder, "c", "hydra.sweep.dir", True, open_series(cfg, folder, "day/time"))
    for K in (4, 2):
        one = composed(*TRAINED, "logger=wandb", f"K={K}")
        job = partial(run, one, folder / str(K), "day/time", "the command", "demo")
        series.attempt(f"K={K}", folder / str(K), job)
    assert series.close() == 0
    monkeypatch.undo()
    return folder, {job.values["K"]: job.values for job in series.finished}


# ---- a run -------------------------------------------------------------------------------------


def test_a_run_says_what_it_is(sweep):
    folder, records = sweep
    found = logged(folder / "4")
    isa = records[4]["fs.isa"]
    assert (found.name, found.project) == (f"digits_cnn K=4 {isa}", "fskernel")
    assert (found.group, found.job_type) == ("day/time", "demo")
    assert found.tags == ["digits_cnn", "K=4", isa, "digits"]
    assert (found.config["command"], found.config["K"]) == ("the command", 4)
    assert found.config["machine"]["cpu"] == records[4]["machine"]["cpu"]
    assert found.config["baseline"]["every"] == 3 and found.config["kernels"] == isa
    assert found.exit_code == 0


def test_its_numbers_are_those_of_the_record(sweep):
    folder, records = sweep
    found, v = logged(folder / "2"), records[2]
    for key in ("accuracy.fs", "gate.ratio", "fs.spikes_per_image", "ratio.fs_to_ann", "ann.macs"):
        assert found.summary[key.replace(".", "/")] == v[key], key
    assert found.summary["fs/images_per_s_iqr_low"] == v["fs.images_per_s_iqr"][0]
    assert found.summary["milliseconds/Few Spikes"] == 1000 / v["fs.images_per_s"]
    assert found.summaries["gate/ratio"] == ["last"]


def test_its_curves_tables_and_figures(sweep):
    folder, records = sweep
    found, v = logged(folder / "4"), records[4]
    T, share = found.curve("rate_coding_percentile/T", "rate_coding_percentile/share")
    assert (T, share) == ([3, 6, 9, 12], [row["share"] for row in v["rate.curve"]])
    assert found.axes["rate_coding_percentile/*"] == "rate_coding_percentile/T"
    assert found.summaries["rate_coding_percentile/*"] == ["max"]
    number, spikes = found.curve("layers/number", "layers/spikes_per_image")
    spiking = [(i, r["spikes_per_image"]) for i, r in enumerate(v["fs.layers"], 1) if r["neurons"]]
    assert list(zip(number, spikes)) == spiking and 0 < len(spiking) < len(v["fs.layers"])
    assert found.axes["layers/*"] == "layers/number"
    media = next((folder / "4").glob("wandb/offline-run-*/files"))
    tables = {
        name: json.loads((media / found.summary[f"tables/{name}"]["path"]).read_text())
        for name in ("layers", "rivals")
    }
    assert tables["layers"]["columns"] == list(v["fs.layers"][0])
    for row, found_row in zip(v["fs.layers"], tables["layers"]["data"], strict=True):
        assert found_row == [row[k] if k not in SPIKING or row["neurons"] else None for k in row]
    rows = {row[0]: row[1:] for row in tables["rivals"]["data"]}
    assert rows["OpenVINO int8"] == [1.5, 1.0, 2.0] and rows["rate coding"][1:] == [None, None]
    assert rows["Few Spikes"][0] == found.summary["milliseconds/Few Spikes"]
    assert len(v["figures"]) == 6
    for name in v["figures"]:
        key = name.removesuffix(".png")
        assert (media / found.summary[key]["path"]).read_bytes() == (
            folder / "4" / name
        ).read_bytes()


def test_its_files_are_artifacts_that_are_not_copied(sweep):
    folder, _ = sweep
    found = logged(folder / "4")
    files = set(found.artifacts["digits_cnn-results"])
    assert {"results.json", "config.yaml", "neurobench.json", "report.html", "words.png"} <= files
    assert found.artifacts["digits_cnn-network"] == ["network.safetensors"]
    copies = [p for p in (folder / "4" / "wandb").rglob("*.html")]
    assert not copies


def test_a_series_has_curves_over_K(sweep):
    folder, records = sweep
    found = logged(folder)
    assert (found.group, found.job_type) == ("day/time", "curve")
    for key in ("accuracy.fs", "fs.spikes_per_image", "fs.images_per_s"):
        name = f"over_K/{key.replace('.', '/')}"
        assert found.curve("over_K/K", name) == ([4, 2], [records[K][key] for K in (4, 2)])
        assert found.axes[name] == "over_K/K"
    assert found.summaries["over_K/fs/spikes_per_image"] == ["min"]
    kept = found.artifacts["digits_cnn-series"]
    assert sorted(kept) == ["report.html", "table.csv", "table.md", "table.tex"]


def test_random_weights_are_logged_without_what_they_make_meaningless(tmp_path):
    run(composed(*QUICK, "baseline=none", "fidelity=0", "check=false", "logger=wandb"), tmp_path)
    found = logged(tmp_path)
    assert "fs/images_per_s" in found.keys and (found.group, found.job_type) == ("", "run")
    kinds = {key.partition("/")[0] for key in found.keys}
    assert not kinds & {"accuracy", "energy", "gate", "neurobench", "fidelity"}
    assert not [key for key in found.keys if "spikes" in key or "sops" in key or "error" in key]


def test_a_run_that_fails_has_its_configuration_and_says_so(tmp_path, monkeypatch):
    from bench.measures import networks

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(networks, "interleave", fail)
    options = ["baseline=none", "fidelity=0", "check=false", "logger=wandb"]
    with pytest.raises(ZeroDivisionError):
        run(composed(*QUICK, *options), tmp_path)
    found = logged(tmp_path)
    assert found.exit_code == 1 and found.config["K"] == 8 and found.summary["neurons"] == 73_728


# ---- reading -----------------------------------------------------------------------------------


def record(name, size):
    from wandb.proto.wandb_internal_pb2 import Record

    made = Record()
    made.run.display_name, made.run.notes = name, "x" * size
    return made.SerializeToString()


def log_of(contents):
    """As W&B writes it: parts end where blocks end."""
    log = bytearray(wandb_file.MAGIC)
    for content in contents:
        first = True
        while first or content:
            left = wandb_file.BLOCK - len(log) % wandb_file.BLOCK
            if left < 7:
                log += bytes(left)
                left = wandb_file.BLOCK
            part, content = content[: left - 7], content[left - 7 :]
            kind = {(1, 0): 1, (1, 1): 2, (0, 1): 3, (0, 0): 4}[first, bool(content)]
            log += wandb_file.HEAD.pack(0, len(part), kind) + part
            first = False
    return bytes(log)


@pytest.mark.parametrize("size", [0, 32_700, *range(32_728, 32_760, 3), 70_000, 200_000])
def test_records_that_end_near_the_border_of_a_block_are_read(tmp_path, size):
    contents = [record("a", size), record("b", 3)]
    log = log_of(contents)
    assert list(wandb_file.records(log, tmp_path)) == contents
    (tmp_path / "x.wandb").write_bytes(log)
    assert wandb_file.read(tmp_path / "x.wandb").name == "b"
    (tmp_path / "x.wandb").write_bytes(log[:-1])  # as a killed run leaves it
    assert wandb_file.read(tmp_path / "x.wandb").name == "a"


def test_a_run_without_an_end_is_not_taken_for_a_finished_one(tmp_path):
    (tmp_path / "x.wandb").write_bytes(log_of([record("a", 3)]))
    assert wandb_file.read(tmp_path / "x.wandb").exit_code is None
    with pytest.raises(UserError, match="the run has no end"):
        wandb_file.finished(tmp_path / "x.wandb", seconds=0.05)


@pytest.mark.parametrize("content", [b"", b":W&B", b"PK\x03\x04 something else"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="x: is no run of Weights & Biases"):
        wandb_file.read(tmp_path / "x")


# ---- the dashboard -----------------------------------------------------------------------------


def asked(node, found):
    """The keys that a specification shows, wherever they stand in it."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("metrics", "mediaKeys"):
                found |= set(value)
            elif name == "xAxis":
                found.add(value)
            elif name == "columnPinned":
                found |= set(value)
            elif name == "key" and isinstance(value, dict) and value.get("val", "") in TABLES:
                found.add(value["val"])
            asked(value, found)
    elif isinstance(node, list):
        for value in node:
            asked(value, found)
    return found


TABLES = {key for key in sections.keys() if key.startswith("tables/")}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Nobody is logged in."""
    pytest.importorskip("wandb_workspaces")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_every_panel_shows_what_is_really_logged(sweep, offline, tmp_path):
    folder, _ = sweep
    dashboard.main(["--project", "p"])
    runs = [logged(folder), logged(folder / "2"), logged(folder / "4")]
    keys = set.union(*(run.keys for run in runs))
    for name in ("workspace.json", "report.json"):
        text = (tmp_path / "outputs" / "dashboard" / name).read_text()
        shown = asked(json.loads(text), set())
        columns = {key for key in shown if ":" in key}
        assert TABLES and all(f'"{table}"' in text for table in TABLES)
        assert sections.keys() - TABLES <= shown
        assert shown - columns - keys == {"Step"} & shown, "nobody logs it"
        for column in columns - {"run:displayName"}:
            kind, _, key = column.partition(":")
            if kind == "summary":
                assert key in keys, column
                continue
            value = runs[1].config
            for part in key.split("."):
                value = value[part]


def test_a_panel_of_a_key_that_nobody_logs_is_found(sweep):
    folder, _ = sweep
    lost = sections.Panel("bars", "t", ("fs/no_such_key",))
    _, reports = specification.packages()
    spec = specification.panel(reports, lost, reports.Layout())._to_model().model_dump()
    assert asked(spec, set()) - logged(folder / "4").keys == {"fs/no_such_key"}


def test_it_has_its_sections(offline):
    names = [section.title for section in sections.SECTIONS]
    assert names == ["The gate", "Speed against rivals", "Spikes", "Layers", "Machine"]
    found = specification.workspace("p")
    assert [s.name for s in found.sections] == names
    assert [len(s.panels) for s in found.sections] == [len(s.panels) for s in sections.SECTIONS]


def test_publishing_needs_a_login_and_says_so_before_it_writes(offline, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        dashboard.main(["--publish"])
    assert stopped.value.code == 2
    assert "--publish: you are not logged in to wandb: run `wandb login`" in " ".join(
        capsys.readouterr().out.split()
    )
    assert not list((tmp_path / "outputs" / "dashboard").iterdir())


def test_publishing_saves_both_for_who_is_logged_in(offline, monkeypatch, capsys):
    sent = []

    class Saved:
        def __init__(self, what, project, entity):
            self.url = f"https://w/{entity}/{project}/{what}"

        def save(self):
            sent.append(self.url)
            return self

    monkeypatch.setattr(specification, "logged_in", lambda wandb: True)
    monkeypatch.setattr(specification, "packages", lambda: None)
    monkeypatch.setattr(specification, "save", lambda project, folder: [])
    for what in ("workspace", "report"):
        monkeypatch.setattr(specification, what, partial(Saved, what))
    dashboard.main(["--publish", "--entity", "team", "--project", "p"])
    assert sent == ["https://w/team/p/workspace", "https://w/team/p/report"]
    said = capsys.readouterr().out.replace("\n", "")
    assert all(f"published: {url}" in said for url in sent)


def test_a_missing_package_is_named_with_the_cure(offline, monkeypatch, capsys):
    for name in ("wandb_workspaces", "wandb_workspaces.reports.v2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as stopped:
        dashboard.main([])
    assert stopped.value.code == 2
    assert "pip install wandb-workspaces" in " ".join(capsys.readouterr().out.split())
