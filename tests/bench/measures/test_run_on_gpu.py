"""Risk: bench/run.py takes another device than it was told, or shows other kernels."""

import json

import pytest
import torch
from harness import QUICK, composed

import fskernel as fs
from bench.emulated import compare
from bench.errors import UserError
from bench.measures import harness, subject


def test_the_harness_takes_a_gpu_if_there_is_one_and_says_why_not(monkeypatch):
    cfg = composed("backend=auto")
    monkeypatch.setattr(subject, "cuda_fault", lambda place: None)
    assert subject.choose_device(cfg) == "cuda:0"
    assert subject.choose_device(composed("backend=cuda", "backend.device=cuda:1")) == "cuda:1"
    monkeypatch.setattr(subject, "cuda_fault", lambda place: f"there is no {place}")
    assert subject.choose_device(cfg) == "cpu"
    with pytest.raises(UserError, match="backend.device=cuda: there is no cuda:0"):
        subject.choose_device(composed("backend=cuda"))
    assert subject.choose_device(composed("backend=emulated")) == "emulated"


def test_the_harness_shows_the_emulated_kernels(tmp_path):
    cfg = composed(*QUICK, "backend=emulated", "K=10")
    values = harness.run(cfg, tmp_path)
    rows = values["fs.emulated"]
    assert all(row["equal"] for row in rows) and len(rows) == 9
    assert {row["kernel"].split("/")[0] for row in rows} == {"encode", "conv", "readout"}
    assert json.loads((tmp_path / "results.json").read_text())["complete"] is True


def test_a_network_that_is_too_large_for_the_emulator_is_refused():
    net = fs.convert(fs.models.cifar_resnet8(), alpha=6.0, K=8)
    with pytest.raises(ValueError, match="million multiply-accumulates"):
        compare.compare(net, torch.zeros(2000, 3, 32, 32))
