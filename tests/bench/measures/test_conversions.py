"""Risk: the list of networks that convert is an old one, says what is not so, or gets lost."""

import json
import os
import signal
import time
from dataclasses import dataclass, field
from importlib import metadata

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import detection, segmentation

import fskernel as fs
from bench import networks as command
from bench.errors import UserError
from bench.inputs.published import Published, published
from bench.measures.conversions import ledger, reasons, trial
from bench.output.markdown import put
from bench.output.tables.conversions import section
from fskernel.tracing.advice import ADVICE, advice


@dataclass(frozen=True)
class Own(Published):
    """A network that is made here."""

    module: object = field(default=None, compare=False)

    def build(self):
        return self.module().eval()


class Averaged(nn.Module):
    """A small network with an average-pool."""

    def __init__(self, activation):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 7, 3, 2), nn.BatchNorm2d(7)
        self.activation, self.pool = activation, nn.AvgPool2d(3, 2)
        self.last, self.head = nn.Conv2d(7, 11, 1), nn.Linear(11, 5)

    def forward(self, x):
        x = self.pool(self.activation(self.norm(self.conv(x))))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


def many_synapses():
    """Neurons with 69,696 synapses of the same weight: their sums fit into 32 bits for K <= 14."""
    module = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 33 * 33, 3), nn.ReLU(),
        nn.Linear(3, 2),
    )  # fmt: skip
    nn.init.ones_(module[3].weight)
    return module


def own(name="averaged", module=lambda: Averaged(nn.ReLU()), image=41):
    return Own(name, "torchvision", "classification", image, module=module)


def broken():
    raise RuntimeError("a part is missing\nand more")


@pytest.mark.parametrize(
    "family, module",
    [("classification", models), ("segmentation", segmentation), ("detection", detection)],
)
def test_the_list_has_all_of_torchvision(family, module):
    listed = [n.name for n in published(["torchvision/*"]) if n.family == family]
    assert listed == models.list_models(module=module)


def test_the_list_has_a_network_of_every_family_of_timm():
    timm = pytest.importorskip("timm", reason="pip install timm")
    listed = published(["timm/*"])
    assert {n.family for n in listed} == set(timm.list_modules())
    for network in listed:
        assert network.name in timm.list_models(module=network.family)
        assert timm.get_pretrained_cfg(network.name).input_size == (3, *[network.image] * 2)


def test_names_are_chosen_by_patterns():
    assert [n.key for n in published(["timm/resnet10*", "vgg11"])] == [
        "torchvision/vgg11",
        "timm/resnet10t",
        "timm/vgg11",
    ]
    assert published(["resnet"]) == []


def test_every_advice_is_of_a_kind_that_is_counted():
    kinds = [reasons.kind_of(fs.ConversionError("x", a.reason, a.cure)) for a in ADVICE]
    assert reasons.OTHER not in kinds and len(set(kinds)) == len(ADVICE)
    assert reasons.kind_of(fs.ConversionError("x", "nobody knows", "")) == reasons.OTHER


@pytest.mark.parametrize(
    "name, kind",
    [
        ("BottleneckAttn", "attention"),
        ("RmsNorm2d", "statistics of the input"),
        ("var", "statistics of the input"),
        ("exp", "functions that are not finite"),
    ],
)
def test_classes_of_timm_are_refused_for_what_they_are(name, kind):
    known = advice([name])
    assert reasons.kind_of(fs.ConversionError(name, known.reason, known.cure)) == kind


def test_a_network_that_converts():
    row = trial.tried(own())
    assert row["converts"] and row["name"] == "averaged" and row["image"] == 41
    assert row["neurons"] == 7 * 20 * 20 + 11 * 9 * 9 and row["depth"] == 3
    assert (row["lowest_K"], row["highest_K"]) == (1, 15) and row["without_relu"] == 0
    assert row["compared_on"] == [33, 40] and row["seconds"] > 0


def test_time_steps_are_bounded_where_sums_do_not_fit():
    row = trial.tried(own(module=many_synapses, image=33))
    assert (row["lowest_K"], row["highest_K"]) == (1, 14)
    assert row["compared_on"] == [33, 33], "it is for one size of images"


def test_reasons_are_counted_by_kind():
    norm = trial.tried(own(module=lambda: Averaged(nn.GroupNorm(1, 7))))
    assert not norm["converts"] and norm["kind"] == "statistics of the input"
    assert norm["node"] == "activation"
    torn = trial.tried(own(module=broken))
    assert torn["kind"] == reasons.PACKAGE
    assert torn["reason"].startswith("RuntimeError: a part is missing (test_conversions.py, line")


def test_what_differs_from_the_literal_network_is_a_fault(monkeypatch):
    def differs(*_):
        raise RuntimeError("layer 'conv' differs")

    monkeypatch.setattr(trial, "check", differs)
    row = trial.tried(own())
    assert not row["converts"] and row["kind"] == reasons.FAULT and "'conv'" in row["reason"]


def test_what_takes_too_long_is_not_compared(monkeypatch):
    monkeypatch.setattr(trial, "MOST_SECONDS", 0)
    monkeypatch.setattr(trial, "check", None)
    assert trial.tried(own())["compared_on"] is None


def endless():
    while True:
        pass


def asleep():
    time.sleep(100)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "work, kind",
    [
        (lambda: {"kind": "an answer"}, "an answer"),
        (endless, reasons.TIME),
        (asleep, reasons.TIME),
        (killed, reasons.MEMORY),
        (broken, reasons.FAULT),
    ],
    ids=["answer", "endless", "asleep", "killed", "broken"],
)
def test_a_process_that_does_not_answer_has_a_reason(work, kind, monkeypatch, capfd):
    monkeypatch.setattr(ledger, "WAITING", 1)
    minutes = 0.04 if work in (asleep, endless) else 1
    assert ledger.alone(work, minutes, None)["kind"] == kind


def test_memory_has_a_limit(monkeypatch):
    row = ledger.alone(lambda: trial.tried(own(module=lambda: nn.Linear(2**17, 2**17))), 1, 8)
    assert row["kind"] == reasons.MEMORY


def test_the_ledger_goes_on(tmp_path):
    two = [own("one"), own("two", lambda: Averaged(nn.GroupNorm(1, 7)))]
    ledger.go_through(two[:1], tmp_path, False, 5, None)
    path = tmp_path / ledger.FILE
    first = path.read_text()
    path.write_text(first + '{"name": "two", "pack')  # as an interruption leaves it
    with path.open("a") as file:
        file.write("\n")
    ledger.go_through(two, tmp_path, False, 5, None)
    rows = ledger.read(tmp_path)
    assert list(rows) == ["torchvision/one", "torchvision/two"]
    assert path.read_text().startswith(first) and path.read_text().count('"name": "one"') == 1
    assert rows["torchvision/one"]["converts"] and not rows["torchvision/two"]["converts"]
    assert rows["torchvision/two"]["made"]["versions"]["torch"] == metadata.version("torch")
    ledger.go_through(two[:1], tmp_path, True, 5, None)
    assert path.read_text().count('"name": "one"') == 2


def rows():
    made = {
        "started": "2026-11-30T10:00:00+00:00",
        "cpu": "a processor",
        "versions": {"python": "3", "torch": "2", "torchvision": "0", "timm": "1"}
        | {"fskernel": "4", "commit": "abc"},
    }
    shared = {"package": "torchvision", "image": 224, "outputs": [], "made": made}
    fine = {"converts": True, "neurons": 12345, "depth": 4, "without_relu": 1, "lowest_K": 1}
    fine |= {"highest_K": 11, "seconds": 3.4, "compared_on": [33, 40]}
    torn = {"converts": False, "node": "a", "reason": "b"}
    return [
        shared | fine | {"name": "cut", "family": "detection", "outputs": ["backbone", "head"]},
        shared | fine | {"name": "big", "family": "classification", "compared_on": None},
        shared | torn | {"name": "x", "family": "classification", "kind": "pools"},
        shared | torn | {"name": "y", "package": "timm", "family": "vgg", "kind": "attention"},
        shared | torn | {"name": "z", "package": "timm", "family": "dla", "kind": "attention"},
    ]


def test_the_tables_say_what_the_ledger_has():
    text = section(rows(), 7)
    assert "**2 of 5 published networks convert.** 1 of them were compared" in text
    assert "The other 2 of the list were not tried." in " ".join(text.split())
    assert "| cut (backbone, head) | 224 | 12,345 | 4 | 1 | 1-11 | 3 | 33x40 |" in text
    assert "| big | 224 | 12,345 | 4 | 1 | 1-11 | 3 | not compared |" in text
    assert text.index("| attention | 2 | y, z |") < text.index("| pools | 1 | x |")
    assert "### torchvision: segmentation" not in text and "0 of 2 convert." in text
    assert "torch 2, torchvision 0, timm 1, fskernel 4 (commits abc)" in " ".join(text.split())


def test_the_page_is_written_between_its_marks(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- networks: begin -->\nold\n<!-- networks: end -->\nafter\n")
    line = rows()[1] | {"name": "vgg11"}
    (tmp_path / ledger.FILE).write_text(json.dumps(line) + "\n")
    asked = ["--only", "vgg11", "--out", str(tmp_path), "--docs", str(page)]
    assert command.main(asked) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| vgg11 | 224 |" in text
    assert command.main(["--only", "vgg12", "--out", str(tmp_path)]) == 2
    assert "has none such" in " ".join(capsys.readouterr().out.split())
    page.write_text("no marks")
    with pytest.raises(UserError, match="networks: begin"):
        put(page, "networks", "text")


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--memory", "-1"], ["--minutes", "x"]])
def test_arguments_are_checked_first(wrong, capsys):
    with pytest.raises(SystemExit):
        command.arguments(wrong)
    assert wrong[0] in capsys.readouterr().err
