"""Risk: files that are valid in form and wrong in meaning; a fuzzer that does not see faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing.seeds import convert_all, read

import fskernel as fs
from bench import ROOT


def fuzz(*arguments):
    """Runs the fuzzer as `make fuzz` does, on the library that this process has loaded."""
    return subprocess.run(
        [sys.executable, "-m", "fuzzing", *map(str, arguments)],
        cwd=ROOT / "tests",
        env=os.environ | {"PYTHONPATH": str(Path(fs.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_some_files_are_refused_or_run_as_the_oracle(tmp_path):
    done = fuzz("--files", 100, "--seed", 0, "--jobs", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["files"] == 100 and report["ran"] >= 33 and report["refused"] >= 17


@pytest.mark.slow
def test_planted_faults_are_noticed_told_and_repeated(tmp_path):
    """Workers crash and hang on the way, and all files are looked at."""
    out = ("--plant", "--patience", 2, "--out", tmp_path)
    done = fuzz("--files", 60, "--seed", 48, "--jobs", 2, *out)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["files"] == 60
    # number of the file, less multiples of 12: the first that the fault ends with
    wanted = {
        0: "different: logits",
        1: "different: spikes",
        2: "different: only the plan refuses: ValueError",
        3: "other error: load: KeyError",
        4: "other error: load does not name the file: ValueError",
        5: "crashed: SIGSEGV",
        6: "hung: longer than",
    }
    for place, start in wanted.items():
        found = [n for fault, seeds in report["faults"].items() for n in seeds
                 if fault.startswith(start) and n % 12 == place]  # fmt: skip
        assert found, f"{start} was not noticed: {report['faults']}"
        line = f"make fuzz-files FILE={found[0]}\n"
        assert line in done.stdout and (tmp_path / f"{found[0]}.safetensors").exists()
        if start.startswith("crashed"):
            assert fuzz("--only", found[0], *out).returncode < 0


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    return convert_all(tmp_path_factory.mktemp("starts"))


def test_files_to_start_from_have_everything_that_steps_can_have(starts):
    steps, tensors = [], []
    for text, held in starts.values():
        steps += json.loads(text)["steps"]
        tensors += held.items()
    groups = [g for s in steps for g in s.get("groups", [])]
    geometries = [s["geometry"] for s in steps if "geometry" in s] + [g["geometry"] for g in groups]
    heads = {"map_readout", "output"}  # no plan runs them, so there is nothing to compare with
    assert {s["op"] for s in steps} == set(fs.steps.STEPS) - heads
    assert {s["code"]["K"] for s in steps if s["op"] == "conv"} == set(range(16))
    assert {s["pool"] for s in steps if s["op"] == "readout"} == {True, False}
    assert any(s["residual"] for s in steps if s["op"] == "conv")
    assert any(g["one_to_one"] for g in groups) and any(g["pad_code"] for g in groups)
    assert {str(t.dtype) for n, t in tensors if n.endswith("weight")} == {
        "torch.int8",
        "torch.int16",
    }
    for what, plain in (("stride", [1, 1]), ("dilation", [1, 1]), ("padding", [0] * 4)):
        assert any(g[what] != plain for g in geometries), what
    pairs = [[g["geometry"]["groups"] for g in s["groups"]] for s in steps if "groups" in s]
    pairs = [pair for pair in pairs if len(pair) == 2]
    assert any(a == b for a, b in pairs) and any(a != b for a, b in pairs)
    assert any(1 < g["groups"] < 6 for g in geometries)
    kinds = {s["op"]: set() for s in steps}
    of = {(i, s["name"]): s for i, (text, _) in enumerate(starts.values())
          for s in json.loads(text)["steps"]}  # fmt: skip
    for (i, _), s in of.items():
        kinds[s["op"]] |= {of[i, source]["op"] for source in s["sources"]}
    assert "concat" in kinds["concat"] and "sum_pool" in kinds["sum_pool"]
    assert any(json.loads(text)["fixed_size"] for text, _ in starts.values())


def test_a_network_that_was_not_changed_runs(starts, tmp_path):
    from fuzzing.draft import Draft
    from fuzzing.judge import judge

    for number, (name, file) in enumerate(starts.items()):
        Draft(file, None).write(tmp_path / "x.safetensors")
        kept = read(tmp_path / "x.safetensors")
        assert json.loads(kept.text) == json.loads(file.text) and list(kept.tensors) == list(
            file.tensors
        )
        assert judge(tmp_path / "x.safetensors", number).kind == "ran", name
