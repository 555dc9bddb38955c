"""Trained weights on labelled photographs: EfficientNet-Lite0, where both are at hand."""

import os
from pathlib import Path

import pytest
from harness import composed

from bench.measures.harness import run

ROOT = Path(os.environ.get("FSKERNEL_DATA", "/nowhere")) / "imagenet-sample"
pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
LITE0 = [
    *("model=efficientnet_lite0", "baseline=none", "rounds=1", "warmup=0", "fidelity=0"),
    *("check=false", "figures=false", "report=false"),
]


@pytest.mark.skipif(ROOT.is_dir(), reason="the labelled photographs tell more")
def test_without_labels_it_agrees_with_the_ann_on_the_sample_photographs(tmp_path):
    r = run(composed(*LITE0, "images=4", "calibration=4", "neuron.weight_bits=16"), tmp_path)
    assert r["model"] == "efficientnet_lite0" and "random" not in r["weights"]
    assert 0 < r["accuracy.logit_error"] < 0.05


@pytest.mark.skipif(not ROOT.is_dir(), reason="FSKERNEL_DATA holds no folder imagenet-sample")
@pytest.mark.parametrize("bits, error", [pytest.param(16, 0.04, marks=pytest.mark.slow), (8, 0.12)])
def test_its_answers_are_the_anns(tmp_path, bits, error):
    """On 16 of 500 images, of which the ANN knows 87.8 %; figures of all: docs/results.md."""
    images = ["data=wnid_files", f"data.root={ROOT}", "images=16", "batch=4"]
    options = ["neuron.alpha='top:6'", f"neuron.weight_bits={bits}"]
    r = run(composed(*LITE0, *images, *options), tmp_path)
    assert r["images"] == 16 and r["accuracy.ann"] > 0.7  # wrongly normalised it knows fewer
    assert r["accuracy.agreement"] >= 0.9 and r["accuracy.logit_error"] < error
    low, high = r["accuracy.ann_interval"]
    assert low <= r["accuracy.fs"] <= high
