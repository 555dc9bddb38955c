"""Risk: a command of bench/ started by the wrong Python answers with a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from harness import blocked

from bench import ROOT
from bench.output import interrupt

COMMANDS = sorted(
    path.name for path in (ROOT / "bench").glob("*.py") if path.stem not in ("__init__", "errors")
)
PLAIN = ("rich", "hydra", "omegaconf", "numpy", "torch", "PIL", "matplotlib", "safetensors")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_python_without_packages_says_which_one_to_use(tmp_path, command):
    if command in ("gpu.py", "gpu_ledger.py"):
        given = ["--only", "rows", "--out", str(tmp_path / "out")] if command == "gpu.py" else ["x"]
    else:
        given = []
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / command), *given],
        env=blocked(tmp_path / "site", *PLAIN),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    said = done.stderr.replace("reading the configuration\n", "")
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "has no package" in said and ("make setup" in said or f"bench/{command}" in said)


def test_the_sentence_names_the_python_that_has_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupt, "ROOT", tmp_path)
    run = Path("bench/run.py")
    assert "make setup makes an environment that has it" in interrupt.missing("hydra", run)
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(sys, "prefix", "/usr")
    said = interrupt.missing("hydra", run)
    assert said.endswith("use .venv/bin/python bench/run.py, or make run ARGS=...")
    assert interrupt.missing("rich", Path("figures.py")).endswith(
        "no package rich: use .venv/bin/python bench/figures.py"
    )
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert interrupt.missing("hydra", run).endswith("make setup installs it")
