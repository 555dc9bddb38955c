"""Risk: a run's figures tell other numbers than its table, or come in another format than asked."""

import pytest
from harness import QUICK, composed

from bench.measures.harness import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose figures are SVG, where every text stands in a comment, and its directory."""
    directory = tmp_path_factory.mktemp("run")
    given = [o for o in QUICK if o != "figures=false"]
    more = ["figures=svg", "baseline=none", "fidelity=0", "check=false", "K=6"]
    return run(composed(*given, *more), directory), directory / "figures"


def test_figures_come_in_the_format_that_was_asked_for(finished):
    results, folder = finished
    assert len(results["figures"]) == 5
    assert {f"figures/{p.name}" for p in folder.iterdir()} == set(results["figures"])
    assert all(p.suffix == ".svg" for p in folder.iterdir())


def test_the_spikes_are_those_of_the_table(finished):
    results, folder = finished
    text = (folder / "spikes_per_layer.svg").read_text()
    total = f"{results['fs.spikes_per_image']:,.0f}"
    assert f"<!-- K=6: {total} spikes per image, mean of 2 images -->" in text


def test_figures_name_the_network_and_the_image(finished):
    _, folder = finished
    for name in ("raster_layers", "raster_layer", "words"):
        text = (folder / f"{name}.svg").read_text()
        assert "<!-- cifar_resnet8, image coffee.png -->" in text, name
        assert "K=6: " in text, name
