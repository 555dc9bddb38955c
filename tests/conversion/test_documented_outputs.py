"""Risk: the examples of docs/outputs.md do not run, or do not do what the page says."""

import re

import pytest
import torch

from bench import ROOT

TEXT = (ROOT / "docs" / "outputs.md").read_text()


def program(title):
    """The code below a heading, all blocks together."""
    section = TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return "".join(re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Runs the program below a heading; gives its variables."""
    monkeypatch.chdir(tmp_path)

    def run(title):
        names = {"__name__": "documented"}
        exec(compile(program(title), "docs/outputs.md", "exec"), names)
        return names

    return run


def near(ours, theirs):
    """Distance of the outputs, which spikes and 8-bit weights account for, by their spread."""
    return float((ours - theirs).norm() / (theirs - theirs.mean()).norm())


def test_every_example_is_run():
    assert TEXT.count("```python") == 4
    titles = [t for t in re.findall(r"^## (.*)$", TEXT, re.MULTILINE) if program(t)]
    assert len(titles) == 3


def test_segmentation(ran, capsys):
    found = ran("A segmentation network")
    assert found["labels"].shape == (4, 48, 64)
    with torch.no_grad():
        expected = found["network"](found["images"])["out"]
    assert near(found["scores"], expected) < 0.2
    last = capsys.readouterr().out.splitlines()
    told = [line for line in last if line.startswith("behind the layers torch computes")]
    assert len(told) == 1 and "upsample_bilinear2d" in told[0]


def test_raw_heads(ran):
    found = ran("A detector with raw heads")
    assert found["fine"].shape == (4, 18, 16, 24) and found["coarse"].shape == (4, 18, 8, 12)
    with torch.no_grad():
        expected = found["detector"](found["images"])
    for ours, theirs in zip((found["fine"], found["coarse"]), expected, strict=True):
        assert near(ours, theirs) < 0.2
    assert found["probabilities"].shape == (4, 3, 2, 16, 24)


def test_a_part_of_a_detector(ran):
    """Boxes that are decoded by hand from the float parts are the detector's own."""
    found = ran("A part of a detector")
    detector, photos = found["detector"], found["photos"]
    with torch.no_grad():
        whole = detector(photos)
        maps = detector.backbone(found["pictures"].tensors)
        head = detector.head(list(maps.values()))
    grid = detector.anchor_generator(found["pictures"], list(maps.values()))
    sizes = found["pictures"].image_sizes
    boxes = detector.postprocess_detections(head, grid, sizes)
    boxes = detector.transform.postprocess(boxes, sizes, found["sizes"])
    for ours, theirs in zip(boxes, whole, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert near(found["found"]["head"]["cls_logits"], head["cls_logits"]) < 0.2
    assert [len(b["boxes"]) == len(b["scores"]) > 0 for b in found["boxes"]] == [True, True]
