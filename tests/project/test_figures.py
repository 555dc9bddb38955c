"""Risk: the figures of the docs show another network or other numbers, or cannot be drawn again."""

import re
from pathlib import Path

import pytest
import torch

from bench import ROOT, figures
from bench.measures import dashboard_runs, samples

DOCS = ROOT / "docs"


@pytest.fixture(scope="module", autouse=True)
def threads_are_restored():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """A small run of the command: the files it draws, by name."""

    def drawn():
        folder = tmp_path_factory.mktemp("figures")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(samples, "STEPS", (4,))
            patch.setattr(samples, "IMAGES", 16)
            patch.setattr(dashboard_runs, "STEPS", (2, 3))
            figures.main(["--model", "cifar_resnet8", "--K", "5", "--out", str(folder)])
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return drawn


@pytest.fixture(scope="module")
def drawn(draw):
    return draw()


@pytest.mark.slow  # tests/analysis/test_plots.py: the same data give the same file
def test_the_same_command_draws_the_same_files(draw, drawn):
    again = draw()
    assert again.keys() == drawn.keys()
    assert [name for name, content in drawn.items() if again[name] != content] == []


def test_the_docs_show_every_figure_and_no_other(drawn):
    names = set(drawn)
    assert max(map(len, drawn.values())) < 200_000
    text = (DOCS / "figures.md").read_text()
    assert set(re.findall(r"\(figures/([^)]+)\)", text)) == names
    assert {path.name for path in (DOCS / "figures").iterdir()} == names


def test_the_trade_is_measured(monkeypatch):
    monkeypatch.setattr(samples, "STEPS", (2, 9))
    monkeypatch.setattr(samples, "IMAGES", 16)
    coarse, fine = samples.trade("cifar_resnet8")
    assert (coarse["K"], fine["K"]) == (2, 9)
    assert (coarse["latency_steps"], fine["latency_steps"]) == (16, 72)
    assert coarse["agreement"] <= fine["agreement"] <= 1
    assert fine["logit_error"] < 0.1 < coarse["logit_error"]
    assert 0 < coarse["spikes_per_image"] < fine["spikes_per_image"]


def test_the_docs_are_replaced_only_when_that_is_asked_for(tmp_path, monkeypatch):
    places = []

    def draw(model, K, out, ending):
        places.append((out, ending))
        return [], []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samples, "draw", draw)
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    figures.main([])
    figures.main(["--format", "svg"])
    figures.main(["--docs"])
    assert places == [
        (Path("outputs/figures"), "png"),
        (Path("outputs/figures"), "svg"),
        (tmp_path / "docs/figures", "png"),
    ]


@pytest.mark.parametrize("wrong", [["--model", "nonsense"], ["--K", "16"]])
def test_what_cannot_be_drawn_is_refused_in_a_sentence(wrong, capsys, tmp_path):
    with pytest.raises(SystemExit):
        figures.main([*wrong, "--out", str(tmp_path)])
    assert f"{wrong[0].strip('-')}={wrong[1]}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
