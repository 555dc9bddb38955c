"""Risk: the search command writes other files or figures than those of its search, or none."""

import json

import pytest
import torch
from harness import CONF, write_image
from hydra import compose, initialize_config_dir
from report_page import Page

import fskernel as fs
from bench.errors import UserError
from bench.inputs.config import register
from bench.measures.k_search import run

FEW = ["K_range=[4,5]", "calibration=4", "images=3", "timing=false", "max_evaluations=2"]


def composed(*overrides):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("search", overrides=[*FEW, *overrides])


def test_a_search_writes_its_table_plot_network_and_score(tmp_path):
    options = ["model.weights=random", "criterion=logit_error", "budget=0.5"]
    cfg = composed(*options, "neuron.weight_bits=16")
    result = run(cfg, tmp_path)
    files = {".md", ".png", ".safetensors", ".json", ".html"}
    assert {path.suffix for path in tmp_path.iterdir()} == files
    text = (tmp_path / "table.md").read_text()
    assert text.startswith(result.table()) and "on 3 other images" in text
    assert "the weights are random" in text
    values = json.loads((tmp_path / "results.json").read_text())
    assert values["complete"] and values["search.rows"] == result.rows
    assert (values["model"], values["search.K"]) == ("cifar_resnet8", result.K)
    page = Page((tmp_path / "report.html").read_text())
    assert page.json("results") == values and page.faults() == [] and page.json("figures") == {}
    assert "the search means nothing" in page.text and "spikes an image" not in page.text
    net = fs.load(tmp_path / "network.safetensors")
    assert net.search == result.summary()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(net(x), result.net(x))
    assert {step.info["weight_bits"] for step in net.steps if step.op == "conv"} == {16}
    cfg.folder = str(tmp_path)  # which has kept the evaluations
    cfg.report = False
    again = run(cfg, tmp_path / "again")
    assert not (tmp_path / "again" / "report.html").exists()
    assert again.evaluations == 0 and again.rows == result.rows


def test_labels_of_folders_are_a_criterion(tmp_path):
    for label in range(10):
        write_image(tmp_path / "data" / f"{label}" / "a.png", (25 * label, 200, 90))
    root = ["data=imagefolder", f"data.root={tmp_path / 'data'}", f"folder={tmp_path / 'kept'}"]
    cfg = composed("criterion=top1", "budget=0.99", "per_layer=false", *root)
    result = run(cfg, tmp_path / "out")
    assert result.ann_top1 is not None and all(row["top1"] is not None for row in result.rows)
    assert "the ANN's top-1" in (tmp_path / "out" / "table.md").read_text()
    assert len(list((tmp_path / "kept").iterdir())) == 1
    page = Page((tmp_path / "out" / "report.html").read_text())
    tried, chosen, gate = page.json("figures")["pareto"]["data"]
    assert len(tried["y"]) == len(result.rows) - 1 and len(chosen["y"]) == 1
    assert gate["y"][0] == pytest.approx(0.99 * result.ann_top1)
    assert page.faults() == [] and f"K={result.K} for all layers" in page.text
    assert all((tmp_path / "out" / link).is_file() for link in page.links())


@pytest.mark.parametrize(
    "override,message",
    [
        ("+rounds=5", "rounds: no such key"),
        ("+neuron.k=5", "neuron.k: no such key"),
        ("calibration=0", "calibration=0: must be at least 1"),
        ("threads=0", "threads=0"),
        ("budget=2", "cifar_resnet8: budget=2.0 is not a proportion"),
        ("criterion=top1", "criterion='top1' needs labels"),
        ("criterion=top5", "criterion='top5' is unknown"),
        ("K_range=[5]", "K_range=.* is not a pair"),
        ("neuron.alpha=widest", "alpha='widest'"),
        ("budget=0.0001 criterion=logit_error", "no K of 4..5 keeps logit_error within"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        run(composed(*override.split()), tmp_path)
