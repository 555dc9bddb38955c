"""Risk: what users wrote, imported, pickled or saved with an earlier version no longer works."""

import importlib
import re

import pytest
import torch
from safetensors.torch import load_file

import fskernel as fs
from bench import ROOT
from fskernel import reference
from fskernel.network.stored.files import FORMAT

STORED = ROOT / "tests" / "stored"
# Of commit 1d80606, before modules lay in folders: `__all__`, and what README and docs named.
NAMES = """BudgetError ConversionError FSAvgPool2d FSConv2d FSLinear FSMaxPool2d FSNetwork FSNeuron
GradedTensor RateNetwork RunStats SearchResult SpikeTensor __version__ build_info convert decode
encode energy fidelity from_spikes last_kernel load models neuron paper_pools plots reference search
set_isa steps to_spikes""".split()
PATHS = """fskernel.energy.estimate fskernel.models.card fskernel.models.cifar_resnet20
fskernel.ops.peak_macs fskernel.ops.set_cuda_kernel fskernel.plots.latency_raster
fskernel.plots.pareto fskernel.plots.raster fskernel.plots.spikes_per_layer
fskernel.plots.transfer_curve fskernel.plots.word_histogram fskernel.rate_kernels.FusedRateNetwork
fskernel.reference.collapsed fskernel.reference.literal fskernel.reference.paper_neuron
fskernel.layers.FSConv2d fskernel.layers.FSLinear fskernel.neuron.FSNeuron
fskernel.pools.FSMaxPool2d fskernel.spikes.SpikeTensor fskernel.stats.RunStats
fskernel.steps.ConvStep fskernel.synapses.Synapses fskernel.synapses.Geometry
fskernel.network.FSNetwork fskernel.rate.RateNetwork""".split()


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_package_stay(name):
    assert hasattr(fs, name) and name in fs.__all__


@pytest.mark.parametrize("path", PATHS)
def test_paths_of_modules_stay(path):
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def test_a_former_path_is_the_same_module():
    former = importlib.import_module("fskernel.layers")
    assert former.FSConv2d is fs.FSConv2d and fs.ops is importlib.import_module("fskernel.ops")


def test_a_network_saved_by_an_earlier_version_gives_the_same_bits():
    """Saved by commit 1d80606, and its logits as the literal oracle computed them there."""
    net = fs.load(STORED / "network_format_1.safetensors")
    stored = load_file(STORED / "network_format_1_answers.safetensors")
    for logits in (net(stored["x"]), net.execute(stored["x"], reference.literal)):
        assert torch.equal(logits, stored["logits"])


def test_the_version_is_stated_once_and_the_changelog_is_of_it():
    assert '\ndynamic = ["version"]\n' in (ROOT / "pyproject.toml").read_text()
    numbers = re.findall(r"^## \[([\d.]+)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert numbers and numbers[0][0] == fs.__version__
    assert re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", numbers[0][1])
    assert len({number for number, _ in numbers}) == len(numbers)
    others = ["setup.py", "pyproject.toml", "CITATION.cff", "fskernel/__init__.py"]
    stated = r"(?m)^\W*_*version_*\W*[:=]\W*\d"
    assert [name for name in others if re.search(stated, (ROOT / name).read_text())] == []
    assert re.search(stated, (ROOT / "fskernel/_version.py").read_text())


def test_versions_says_which_python_torch_and_format():
    text = " ".join((ROOT / "docs" / "versions.md").read_text().split())
    project = (ROOT / "pyproject.toml").read_text()
    low, high = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project).groups()
    assert f"now 3.{low} to 3.{int(high) - 1}." in text
    oldest = re.search(r'^dependencies = \["torch>=([\d.]+)"', project, re.M)[1]
    assert f"the oldest torch, now {oldest};" in text
    assert f"the format is {FORMAT}." in text
