"""Risk: the command is slow to say how it is used, ends with a wrong code, or mixes its outputs."""

import json
import os
import signal
import subprocess
import sys

import pytest

from bench import ROOT
from fskernel._version import __version__
from fskernel.command import checkout, work

INTERRUPTED = """
import importlib, os, runpy, signal, sys
runpy.run_path("fskernel/command/fskernel")["face"]()
from fskernel_command import work
importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGINT)
work.of("run")
"""
SLOW = """
import os, signal, time

def network():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""


def python(*words, cwd=ROOT, **more):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        # What starts the tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


FACE = "import runpy; app = runpy.run_path('fskernel/command/fskernel')['face']().app"
HELPED = f"""
import sys
{FACE}
for words in ([], ["--version"], ["-h"], ["run", "-h"], ["search", "--help"], ["convrt"], ["info", "--nonsense"]):
    try:
        app(words)
    except SystemExit as end:
        print("ended", end.code)
print("torch" in sys.modules, "fskernel" in sys.modules)
"""  # noqa: E501


def test_help_and_misspelt_options_do_not_wait_for_torch():
    done = python("-c", HELPED)
    ends = [line for line in done.stdout.splitlines() if line.startswith("ended")]
    assert [int(end.split()[1]) for end in ends] == [2, 0, 0, 0, 0, 2, 2], done.stderr
    assert done.stdout.splitlines()[-1] == "False False"
    assert f"fskernel {__version__}" in done.stdout
    assert "Exit codes: 0" in done.stdout and "130" in done.stdout


def test_a_shell_gets_its_completion():
    code = f"{FACE}; app(prog_name='fskernel')"
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is the next word
    done = python("-c", code, "--show-completion", "zsh", **told)
    assert done.returncode == 0 and "compdef _fskernel_completion" in done.stdout, done.stderr


def test_completion_completes_a_network():
    code = f"{FACE}; app(prog_name='fskernel')"
    asked = dict(COMP_WORDS="fskernel convert cifar_resnet1", COMP_CWORD="2")
    done = python("-c", code, _FSKERNEL_COMPLETE="complete_bash", **asked)
    assert done.stdout.split() == ["cifar_resnet14"], done.stderr


def test_stdout_is_json_and_nothing_else(converted, digits, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    done = python("-m", "fskernel", "run", converted, digits, bad, "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert len(told["images"]) == 24 and len(told["unreadable"]) == 1
    assert "bad.png cannot be read" in done.stderr


def test_ctrl_c_is_130_and_a_word(digits, tmp_path):
    (tmp_path / "slow_network.py").write_text(SLOW)
    words = ("-m", "fskernel", "convert", "slow_network.network", "--images", digits)
    done = python(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted\n"


def test_ctrl_c_while_torch_is_loaded_is_130_and_a_word():
    done = python("-c", INTERRUPTED)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")


def test_signals_are_as_before_when_the_work_is_there():
    before = signal.getsignal(signal.SIGINT)
    assert callable(work.of("info")) and signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError, match="command='bench' has no work"):
        work.of("bench")


def test_bench_is_the_harness_with_all_that_was_typed(call, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execv", lambda *given: calls.append(given))
    call("bench", "model=resnet18", "-m", "K=4,6", "--", "--help")
    script = str(ROOT / "bench" / "run.py")
    words = [sys.executable, script, "model=resnet18", "-m", "K=4,6", "--help"]
    assert calls == [(sys.executable, words)]


class Installed:
    """The metadata of an installed package."""

    def __init__(self, urls, direct):
        self.metadata, self.urls, self.direct = self, urls, direct

    def get_all(self, name):
        return self.urls

    def read_text(self, name):
        return self.direct


GIT = '{"url": "https://a.org/b", "vcs_info": {"vcs": "git", "commit_id": "1"}}'
FOLDER = '{"url": "file:///somewhere", "dir_info": {}}'


@pytest.mark.parametrize(
    "urls, direct, address",
    [
        (["Documentation, https://a.org", "Source, https://b.org/c"], GIT, "https://b.org/c"),
        (None, GIT, "https://a.org/b"),
        (None, FOLDER, "ADDRESS"),
        (None, None, "ADDRESS"),
    ],
)
def test_bench_of_a_wheel_names_what_fetches_a_checkout(
    call, monkeypatch, tmp_path, urls, direct, address
):
    monkeypatch.setattr(checkout, "PACKAGE", tmp_path / "fskernel")
    monkeypatch.setattr(checkout.metadata, "distribution", lambda name: Installed(urls, direct))
    done = call("bench", "model=resnet18", code=2)
    assert f"git clone {address} fskernel && cd fskernel && make setup" in done.stderr
    assert ("ADDRESS is that of" in done.stderr) == (address == "ADDRESS")
