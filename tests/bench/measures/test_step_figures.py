"""Risk: the harness calls time steps executed that were not, or hides a difference."""

import pytest
from networks import Branches, images, settle

import fskernel as fs
from bench.measures import step_figures

X = images(3, 17)


@pytest.fixture(scope="module")
def net():
    return fs.convert(settle(Branches(), X), X, K={"stem": 2, "default": 5})


def test_a_small_network_is_run(net):
    found = step_figures.executed(net, X)
    assert found["steps"] == "executed"
    assert (found["latency_steps"], found["interval_steps"]) == (2 + 5 + 5 + 5, 10)
    assert (found["complete_steps"], found["least_interval_steps"]) == (2 + 5 + 5, 10)
    assert found["delay_bits"] == fs.schedule(net, X[:2]).peak_bits > 0
    assert found.keys() == step_figures.by_formula(net).keys()


def test_a_large_network_has_its_steps_by_formula_and_says_so(net, monkeypatch, capsys):
    macs = sum(fs.energy.dense_macs(net, 17, 17).values()) * 5 * step_figures.IMAGES
    monkeypatch.setattr(step_figures, "MOST_MACS", macs)
    assert step_figures.executed(net, X)["steps"] == "executed"
    capsys.readouterr()
    monkeypatch.setattr(step_figures, "MOST_MACS", macs - 1)
    assert step_figures.executed(net, X) == step_figures.by_formula(net)
    assert step_figures.by_formula(net)["steps"] == "formula"
    assert "by formula" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["latency_steps", "interval_steps"])
def test_a_wrong_formula_is_an_error(net, monkeypatch, name):
    monkeypatch.setattr(fs.FSNetwork, name, 18)  # the pipeline works, and the claim is another
    if name == "interval_steps":
        monkeypatch.setattr(step_figures.fs, "schedule", slower)
    with pytest.raises(RuntimeError, match=f"{name} of the network that was run is .*, by formula"):
        step_figures.executed(net, X)


SCHEDULE = fs.schedule


def slower(net, x, **options):
    """As if the network itself had needed another interval."""
    return SCHEDULE(net, x, interval=10, **options)
