"""Risk: make runs something else than was typed: a misspelt variable, one of another target."""

import subprocess

import pytest
from own_make import CLEAN

from bench import ROOT


def made(*arguments, **environment):
    """What make would do, its last line, or what it refuses."""
    done = subprocess.run(
        ["make", "-n", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=CLEAN | environment,
        check=False,
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return " ".join(done.stdout.strip().splitlines()[-1].split()).partition(" ")[2]


@pytest.mark.parametrize(
    "typed, run",
    [
        (["bench"], "model=resnet50 K=10"),
        (["bench", "K=4"], "model=resnet50 K=4"),
        (["bench", "MODEL=resnet18", "BATCH=8"], "K=10 model=resnet18 batch=8"),
        (["bench", "IMAGES=3", "THREADS=2", "SEED=5"], "images=3 threads=2 seed=5"),
        (["bench", "ARGS=model=resnet18 rounds=2"], "K=10 model=resnet18 rounds=2"),
        (["demo"], "experiment=demo"),
        (["demo", "K=3"], "experiment=demo K=3"),
        (["demo", "FSKERNEL_DATA=/x"], "experiment=demo_cifar10"),
        (["demo", "ARGS=data.root=/x"], "experiment=demo_cifar10 data.root=/x"),
        (["run", "ARGS=experiment=smoke", "K=3"], "K=3 experiment=smoke"),
    ],
)
def test_make_passes_on_what_was_typed(typed, run):
    assert made(*typed).startswith("bench/run.py ") and made(*typed).endswith(run)


def test_variables_of_the_shell_are_not_taken_for_options():
    assert made("bench", K="3", MODEL="x", SEED="9") == "bench/run.py model=resnet50 K=10"
    assert made("demo", FSKERNEL_DATA="/x") == "bench/run.py experiment=demo_cifar10"


@pytest.mark.parametrize(
    "typed, said",
    [
        (["bench", "MODLE=resnet18"], "MODLE: no such variable; there are SEED K MODEL BATCH"),
        (["bench", "k=4"], "k: no such variable"),
        (["test", "K=4"], "K: only make bench, make demo and make run take this"),
        (["test", "bench", "BATCH=4"], "BATCH: only make bench"),
    ],
)
def test_what_would_be_ignored_is_refused(typed, said):
    assert said in made(*typed)


@pytest.mark.parametrize(
    "typed",
    ["FSKERNEL_CUDA=0", "PIP_INDEX_URL=x", "JOBS=3", "MAX_JOBS=2", "ARGS=-k 'a=b'", "CASES=9"],
)
def test_what_a_target_or_its_programs_read_is_not_refused(typed):
    assert "no such variable" not in made("fuzz", typed)
