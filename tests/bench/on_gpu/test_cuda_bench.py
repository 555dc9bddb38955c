"""Risk: one fault spoils the day on a GPU, or what was measured before it is lost."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from harness import blocked

from bench import ROOT, gpu
from bench.errors import UserError
from bench.on_gpu import external, fragments, hold, parts, plan, process
from bench.on_gpu.plan import Part
from bench.on_gpu.rows import Row, rows
from bench.on_gpu.session import Session
from bench.on_gpu.subjects import Setting

# A row's process without torch: does what the row's name says.
PRETENDS = """
    import json, os, pathlib, re, signal, sys, time
    said = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    name, out = said["--row"], pathlib.Path(said["--out"])
    value = {"images_per_s": 5.0, "seconds": {"median": 0.2, "iqr": [0.1, 0.3]}}
    if name == "facts":
        value = {"rehearsal": False, "gpu": {"name": "H1"}, "fault": os.environ.get("FAULT")}
    if name == "hangs":
        os.fork() or time.sleep(100)  # with a process of its own
        print("CUDA error: the launch timed out", flush=True)
        time.sleep(100)
    path = out / "rows" / (re.sub(r"[^A-Za-z0-9]+", "_", name) + ".json")
    if name == "crashes":
        print("terminate: CUDA error: an illegal memory access was encountered", flush=True)
        path.write_text(json.dumps({"layers": {"a": {"us": 1.0, "us_in_network": 2.0,
            "kernel": "k"}}}))
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "fails":
        path.write_text(json.dumps({"error": "AcceleratorError: CUDA error: misaligned address"}))
        sys.exit(1)
    path.write_text(json.dumps(value | {"complete": True}))
    if name == "late":
        os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """Rows whose processes take no time; returns the function that names them."""
    script = tmp_path / "pretends.py"
    script.write_text(textwrap.dedent(PRETENDS))
    monkeypatch.setattr(parts, "COMMAND", (sys.executable, script))

    def named(*names, limit=20.0):
        monkeypatch.setattr(parts, "rows", lambda on_gpu: [Row(n, "x", limit=limit) for n in names])

    return named


def session(folder, **seconds):
    return Session(folder, [Part(n, s, "") for n, s in seconds.items()], "cuda:0", "none")


def kept(folder):
    return json.loads((folder / "results.json").read_text())


def program(path, text):
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_row_that_crashes_hangs_or_fails_spoils_no_other(tmp_path, pretended):
    pretended("good", "crashes", "hangs", "fails", "late", "last", limit=1.5)
    s = session(tmp_path / "out", rows=60)
    s.begin("rows")
    begin = time.monotonic()
    parts.all_rows(s)
    assert time.monotonic() - begin < 15
    found = kept(s.folder)["rows"]
    assert found["good"]["images_per_s"] == found["last"]["images_per_s"] == 5.0
    assert found["crashes"]["error"] == "ended by SIGSEGV"
    assert "illegal memory access" in found["crashes"]["cuda"][0]
    assert found["crashes"]["layers"], "what it had written before"
    assert found["hangs"]["error"].startswith("ended at its limit")
    assert found["hangs"]["cuda"] == ["CUDA error: the launch timed out"]
    assert "misaligned address" in found["fails"]["error"]
    assert "error" not in found["late"], "it fell behind its result"
    text = (s.folder / "summary.md").read_text()
    assert "| late; behind its result: ended by SIGSEGV | 5.0 |" in text
    assert "| good | 5.0 | 200.000 (100.000 to 300.000)" in text and "SIGSEGV" in text
    parts.all_rows(s)
    assert kept(s.folder)["rows"] == found, "faults are not tried again"


def test_what_a_program_started_ends_with_it(tmp_path):
    log = tmp_path / "log"
    ended = process.run(["sh", "-c", "sleep 100 & echo $!; wait"], log, 0.5)
    assert ended.code is None and ended.seconds < 5
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and alive(int(log.read_text())):
        time.sleep(0.02)
    assert not alive(int(log.read_text()))


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_limits_hold_and_time_that_is_left_over_goes_on(tmp_path, pretended, monkeypatch):
    monkeypatch.setattr(parts, "LEAST", 0.5)
    pretended("hangs", "later", limit=2.5)
    s = session(tmp_path / "out", probe=0.5, rows=1, tests=100)
    s.begin("probe")
    assert s.left <= 0.5
    s.begin("rows")
    assert 1 < s.left <= 1.5, "the probe took nothing of its half second"
    begin = time.monotonic()
    parts.all_rows(s)
    assert time.monotonic() - begin < 6
    found = kept(s.folder)["rows"]
    assert found["hangs"]["again"] is True and "s were left" in found["later"]["skipped"]
    assert kept(s.folder)["complete"] is False
    s.begin(None)
    assert s.left > 80
    parts.all_rows(s)
    again = kept(s.folder)["rows"]
    assert again["later"]["images_per_s"] == 5.0, "cut for want of time, and tried again"
    assert again["hangs"]["again"] is False and again["hangs"]["wall_s"] > 2.4


def test_the_plan_is_whole_scaled_and_told_without_torch(tmp_path):
    assert sum(part.seconds for part in plan.PARTS) == 600
    assert [p.name for p in plan.planned()] == list(hold.DONE) == list(plan.NAMES)
    chosen = plan.planned(["rows", "facts"], minutes=1)
    assert [p.name for p in chosen] == ["facts", "rows"]
    assert sum(p.seconds for p in chosen) == pytest.approx(60) and chosen[0].seconds == 30
    assert [p.seconds for p in plan.planned(["facts"], 2)] == [120]
    assert [p.seconds for p in plan.planned(["tests"], 2)] == [120]
    assert [p.seconds for p in plan.planned(["facts", "tests"], 0.5)] == [15, 15]
    for on_gpu in (True, False):
        found = rows(on_gpu)
        assert len({row.name for row in found}) == len({row.file for row in found}) == len(found)
    script = Path(gpu.__file__)
    environment = blocked(tmp_path, "torch", "numpy", "rich")
    for option in ("--plan", "--help"):
        done = subprocess.run(
            [sys.executable, script, option], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    for options in (["--only", "row"], ["--minutes", "0"], ["--device", "x"], ["--row", "peaks"]):
        with pytest.raises(SystemExit):
            gpu.main(options)
    with pytest.raises(SystemExit):
        gpu.main(["--row", "pecks", "--out", str(tmp_path)])


def test_every_row_has_its_measure_and_takes_its_options():
    import inspect

    from bench.on_gpu import measures
    from bench.on_gpu.rows import FACTS, FRAGMENTS

    for row in (*rows(True), *rows(False), FACTS, FRAGMENTS):
        inspect.signature(getattr(measures, row.measure)).bind(None, **row.options)


def test_a_session_goes_on_behind_a_part_that_raises(tmp_path, pretended, monkeypatch, capsys):
    pretended("good")

    def broken(s):
        raise ZeroDivisionError("in our own code")

    monkeypatch.setitem(hold.DONE, "probe", broken)
    only = plan.planned(["facts", "probe", "rows"])
    assert hold.hold(only, "cuda:0", "none", tmp_path / "out") == 0
    found = kept(tmp_path / "out")
    assert found["complete"] is True and found["rows"]["good"]["images_per_s"] == 5.0
    assert "ZeroDivisionError" in found["faults"]["probe"]["error"]
    with pytest.raises(SystemExit):
        hold.hold(only, "cuda:0", "none", tmp_path / "out")
    assert "holds the results of another session" in capsys.readouterr().out.replace("\n", " ")


def test_without_a_gpu_the_session_says_so_and_ends(tmp_path, pretended, monkeypatch, capsys):
    pretended("good")
    monkeypatch.setenv("FAULT", "there is no NVIDIA driver")
    only = plan.planned(["facts", "probe", "rows"])
    assert hold.hold(only, "cuda:0", "none", tmp_path / "out") == 2
    assert "error: there is no NVIDIA driver" in capsys.readouterr().out
    assert "rows" not in kept(tmp_path / "out")


def test_sigterm_keeps_what_is_there_and_names_the_folder(tmp_path):
    (tmp_path / "pretends.py").write_text(textwrap.dedent(PRETENDS))
    (tmp_path / "session.py").write_text(
        textwrap.dedent(f"""
            import sys
            from pathlib import Path
            from bench.output import interrupt
            from bench.on_gpu import hold, parts, plan
            from bench.on_gpu.rows import Row
            interrupt.raise_once()
            parts.COMMAND = (sys.executable, {str(tmp_path / "pretends.py")!r})
            parts.rows = lambda on_gpu: [Row(n, "x", limit=60) for n in ("good", "hangs")]
            sys.exit(hold.hold(plan.planned(["rows"]), "cuda:0", "none", Path("out")))
        """)
    )
    child = subprocess.Popen(
        [sys.executable, "session.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )
    log = tmp_path / "out/rows/hangs.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    text, _ = child.communicate(timeout=30)
    assert child.returncode == 143, text
    assert "interrupted; kept: out/summary.md" in text
    found = kept(tmp_path / "out")
    assert found["rows"]["good"]["images_per_s"] == 5.0 and found["complete"] is False
    assert "Interrupted" in (tmp_path / "out/summary.md").read_text()


# ---- other programs -----------------------------------------------------------------------------


def test_the_probe_keeps_its_rows_whatever_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(external, "ROOT", tmp_path)
    monkeypatch.setattr(external, "tool", lambda name: None)
    s = session(tmp_path / "out", probe=30)
    external.probe(s)
    assert "csrc/cuda/probe/Makefile" in kept(s.folder)["probe"]["skipped"]
    answers = json.dumps(
        {"rows": [{"name": "l2", "assumed": "5.5", "seen": "7", "holds": "no", "detail": "|"}]}
    )
    program(
        tmp_path / "build/probe/probe",
        f"echo '{answers}' > $2/probe.json; echo CUDA error: wrong; kill -9 $$",
    )
    external.probe(s)
    found = kept(s.folder)["probe"]
    assert found["rows"][0]["name"] == "l2" and found["error"].startswith("ended by SIGKILL")
    text = (s.folder / "summary.md").read_text()
    assert "| l2 | 5.5 | 7 | **no** | / |" in text and "0 of 1 assumptions hold" in text


def test_a_test_file_that_kills_its_process_is_told_with_the_test(tmp_path, monkeypatch):
    fake = program(
        tmp_path / "pytest",
        """case "$*" in *test_cuda_rate.py*)
        echo "tests/rate/test_cuda_rate.py::test_a[one two] PASSED [ 10%]"
        echo "tests/rate/test_cuda_rate.py::test_b SKIPPED (no) [ 20%]"
        printf "tests/rate/test_cuda_rate.py::test_c "; kill -SEGV $$;;
        *) echo "tests/test_x.py::test_a FAILED [ 10%]"
        echo "RuntimeError: CUDA error: y"; exit 1;;
        esac""",
    )
    monkeypatch.setattr(external, "PYTEST", (fake,))
    s = session(tmp_path / "out", tests=60)
    s.begin("tests")
    external.tests(s)
    found = kept(s.folder)["tests"]
    assert set(found) == set(external.gpu_files()) and len(found) == 5
    crashed = found["tests/rate/test_cuda_rate.py"]
    assert crashed["counts"] == {"passed": 1, "skipped": 1}
    assert crashed["error"] == "ended by SIGSEGV; in tests/rate/test_cuda_rate.py::test_c"
    assert found["tests/network/test_cuda_maps.py"]["cuda"] == ["RuntimeError: CUDA error: y"]
    assert "- failed: `tests/test_x.py::test_a`" in (s.folder / "summary.md").read_text()


def test_the_sanitizer_runs_both_checks_or_the_program_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(external, "ROOT", tmp_path)
    program(tmp_path / "build/launch/launch_test", "echo equal")
    checker = program(
        tmp_path / "compute-sanitizer",
        """case $2 in memcheck) echo "========= ERROR SUMMARY: 0 errors";;
        *) echo "========= RACECHECK SUMMARY: 1 hazard displayed"; exit 9;; esac""",
    )
    monkeypatch.setattr(external, "tool", lambda name: str(checker))
    s = session(tmp_path / "out", sanitizer=30)
    s.begin("sanitizer")
    external.sanitizer(s)
    found = kept(s.folder)["sanitizer"]
    assert found["memcheck"]["says"] == "ERROR SUMMARY: 0 errors"
    assert found["racecheck"]["error"] == "exit 9"
    monkeypatch.setattr(external, "tool", lambda name: None)
    external.sanitizer(s)
    assert kept(s.folder)["sanitizer"]["plain"]["says"] == "equal"


def test_the_golden_files_are_what_the_emulator_answers(tmp_path):
    found = fragments.compared(Setting(torch.device("cpu"), "none", folder=tmp_path))
    assert found["equal_to_the_emulator"] == dict.fromkeys(
        ("sums", "fragments_x4", "fragments_x2"), True
    )
    golden = {
        k: torch.tensor(v) for k, v in json.loads((tmp_path / "fragments.json").read_text()).items()
    }
    # The first product, from the fragments' definition: row g of x times column n of w.
    x = golden["x"].to(torch.int32).contiguous().view(torch.uint8).view(8, 4, 4, 4)  # g, t, i, byte
    w = golden["w"].to(torch.int32).contiguous().view(torch.int8).view(8, 4, 2, 4)
    rows = torch.zeros(16, 32, dtype=torch.int64)
    columns = torch.zeros(8, 32, dtype=torch.int64)
    for t in range(4):
        for i in range(4):
            rows[8 * (i % 2) : 8 * (i % 2) + 8, 16 * (i // 2) + 4 * t :][:, :4] = x[:, t, i].long()
        for i in range(2):
            columns[:, 16 * i + 4 * t :][:, :4] = w[:, t, i].long()
    product = rows @ columns.T
    sums = golden["sums"][0].view(8, 4, 4)  # g, t, i
    for i in range(4):
        wanted = product[8 * (i // 2) : 8 * (i // 2) + 8, i % 2 :: 2]
        assert torch.equal(sums[:, :, i], wanted)


@pytest.mark.slow
def test_the_rehearsal_measures_every_row_without_an_error(tmp_path):
    arguments = ["--device", "cpu", "--model", "cifar_resnet8", "--minutes", "12"]
    assert gpu.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    found = kept(tmp_path / "out")
    assert found["complete"] is True and set(plan.NAMES) <= set(found)
    assert set(found["rows"]) == {row.name for row in rows(False)}
    assert not [name for name, row in found["rows"].items() if "error" in row]
    assert found["rows"]["FS K=8 against fp16, interleaved, batch 2"]["ratio"] > 0
    assert "of int8 peak" in (tmp_path / "out/summary.md").read_text()
    with pytest.raises(UserError, match="rehearsal"):
        from bench.on_gpu import ledger

        ledger.read(tmp_path / "out")
