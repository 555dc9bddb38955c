"""Risk: measured energy is of the wrong counter, wraps below zero, or is claimed where none is."""

import sys
from types import SimpleNamespace

import pytest
import torch
from harness import QUICK, composed
from rich.console import Console
from torch import nn

from bench.measures import energy_meter
from bench.measures.energy_meter import Missing, Nvml, Rapl, find, measure
from bench.measures.harness import run
from bench.output import terminal

RANGE = 262_143_328_850  # microjoules, of a real processor


def zone(root, folder, name, energy=0, around=RANGE):
    """A counter as Linux shows it."""
    (root / folder).mkdir(parents=True)
    (root / folder / "name").write_text(f"{name}\n")
    (root / folder / "energy_uj").write_text(f"{energy}\n")
    (root / folder / "max_energy_range_uj").write_text(f"{around}\n")


@pytest.fixture
def tree(tmp_path):
    """Two packages with their parts: some counters are sums or parts of others."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 7)
    zone(tmp_path, "intel-rapl:0:1", "dram", 500_000, 65_712_999_613)
    zone(tmp_path, "intel-rapl:1", "package-1", RANGE - 250_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9)
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "intel-rapl-mmio:0").mkdir()  # switched off: it has no files
    return tmp_path


def set_to(root, **energy):
    for name, value in energy.items():
        (root / name.replace("_", ":").replace("rapl", "intel-rapl") / "energy_uj").write_text(
            f"{value}\n"
        )


def test_packages_and_memory_are_counted_once_and_counters_may_start_anew(tree):
    meter = find("cpu", tree)
    assert isinstance(meter, Rapl) and meter.name == "RAPL (package-0, dram, package-1)"
    before = meter.read()
    assert before == (1_000_000, 500_000, RANGE - 250_000)
    set_to(tree, rapl_0=3_000_000, rapl_0_1=500_000, rapl_1=750_000)
    assert meter.joules(before, meter.read()) == pytest.approx(2.0 + 0.0 + 1.0)


@pytest.mark.parametrize("spent", [0, 1, 249_999, 250_000, 250_001, RANGE - 1])
def test_no_spending_is_lost_at_the_border_of_a_counter(tree, spent):
    meter = find("cpu", tree)
    before = meter.read()
    set_to(tree, rapl_1=(RANGE - 250_000 + spent) % RANGE)
    assert meter.joules(before, meter.read()) == pytest.approx(spent / 1e6)


def test_where_there_is_no_counter_one_line_says_why(tmp_path, monkeypatch):
    assert "no " in find("cpu", tmp_path / "none").why
    assert "has no counter of a processor" in find("cpu", tmp_path).why
    zone(tmp_path, "intel-rapl:0", "psys")
    assert isinstance(find("cpu", tmp_path), Missing)
    zone(tmp_path, "intel-rapl:1", "package-0", "")  # unreadable
    assert isinstance(find("cpu", tmp_path), Missing)

    def refuse(path):
        raise PermissionError

    monkeypatch.setattr(energy_meter, "number", refuse)
    why = find("cpu", tmp_path).why
    assert "may be read by root alone: sudo chmod a+r" in why and "\n" not in why


class Spends:
    """A meter that counts what the networks say they spend."""

    name = "fake"

    def __init__(self):
        self.spent = 0

    def read(self):
        return (self.spent,)

    def joules(self, before, after):
        return after[0] - before[0]


class Ticks(Spends):
    """A meter of a machine that spends four joules between two looks, whatever it does."""

    def read(self):
        self.spent += 4
        return (self.spent,)


class Costs(nn.Module):
    def __init__(self, meter, joules):
        super().__init__()
        self.meter, self.joules = meter, joules

    def forward(self, x):
        self.meter.spent += self.joules
        return x


@pytest.mark.parametrize("batch", [1, 3])
def test_joules_are_those_of_an_image_and_networks_take_turns(batch):
    meter, samples = Spends(), []
    both = {"ann": Costs(meter, 6), "fs": Costs(meter, 2)}
    found = measure(meter, both, [torch.zeros(batch, 3, 4, 4)], 3, samples.append, seconds=1e-3)
    assert found["measured_ann_j"] == pytest.approx(6 / batch)
    assert found["measured_fs_j"] == pytest.approx(2 / batch)
    assert found["measured_fs_j_iqr"] == pytest.approx([2 / batch] * 2)
    assert (found["meter"], found["not_measured"], sum(samples)) == ("fake", None, 6)


# ---- GPUs --------------------------------------------------------------------------------------


@pytest.fixture
def card(monkeypatch):
    """A GPU whose driver counts 2500 mJ between two readings."""
    readings = iter(range(1_000, 100_000, 2_500))

    class NVMLError(Exception):
        pass

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    properties = SimpleNamespace(uuid="1-2-3", name="A100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return fake


def test_a_gpu_is_asked_by_its_own_number_and_counts_millijoules(card):
    asked = []
    card.nvmlDeviceGetHandleByUUID = lambda uuid: asked.append(uuid)
    meter = find("cuda:1")
    assert isinstance(meter, Nvml) and meter.name == "NVML (A100)" and asked == ["GPU-1-2-3"]
    assert meter.joules(meter.read(), meter.read()) == pytest.approx(2.5)


def test_a_gpu_that_tells_nothing_is_said_in_one_line(card, monkeypatch):
    def refuse(handle):
        raise card.NVMLError("Not Supported")

    card.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert find("cuda:0").why == "NVML tells no energy of A100 (Not Supported)"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in find("cuda:0").why


# ---- the harness -------------------------------------------------------------------------------


def said(values, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    for part in terminal.measured_energy(values):
        console.print(part)
    return console.export_text()


def test_the_harness_measures_where_it_can_and_says_where_it_cannot(monkeypatch, tmp_path):
    options = [*QUICK, "baseline=none", "fidelity=0", "check=false", "report=true"]
    monkeypatch.setattr(energy_meter, "find", lambda device: Ticks())
    found = run(composed(*options, "energy_rounds=1"), tmp_path / "a")
    assert found["energy.meter"] == "fake" and found["energy.measured_fs_j"] > 0
    page = (tmp_path / "a" / "report.html").read_text()
    assert "measured by fake, idle power included" in page
    monkeypatch.setattr(energy_meter, "find", lambda device: Missing("the sun shines"))
    found = run(composed(*options), tmp_path / "b")
    assert found["energy.meter"] is None and found["energy.measured_fs_j"] is None
    assert said(found, 80).strip() == "energy is not measured: the sun shines"
    assert "Energy is not measured: the sun shines." in (tmp_path / "b/report.html").read_text()
    found = run(composed(*options, "energy_rounds=0"), tmp_path / "c")
    assert said(found, 80).strip() == "energy is not measured: energy_rounds=0"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_rows_say_which_network_uses_less(width):
    values = {"K": 8, "energy.meter": "RAPL (package-0)", "energy.not_measured": None}
    for name, value in (("ann", 0.26), ("fs", 0.1)):
        values |= {
            f"energy.measured_{name}_j": value,
            f"energy.measured_{name}_j_iqr": [0.9 * value, 1.1 * value],
        }
    text = said(values, width)
    assert "2.6x less" in text and "0.260 (0.234–0.286)" in text and "RAPL (package-0)" in text
    values["energy.measured_fs_j"] = 67 * 0.26
    assert "67x more" in said(values, width)
