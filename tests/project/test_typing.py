"""Risk: editors and mypy do not find the installed package, or know no types of what it returns."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench import ROOT

# Judged as a user's own file: `make setup` has to have installed the package where mypy looks.
GOOD = """
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import fskernel as fs


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = fs.FSConv2d(3, 8, 3, alpha=1.0)
        self.pool = fs.FSMaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


def network(path: Path, x: Tensor) -> None:
    net = fs.load(path)
    assert_type(net, fs.FSNetwork)
    assert_type(net.to("cpu"), fs.FSNetwork)
    assert_type(net(x), Tensor)
    logits, stats = net.run(x)
    assert_type(logits, Tensor)
    assert_type(stats, fs.RunStats)
    assert_type(stats.total_spikes(), Tensor)
    print(net.report(), net.K, net.latency_steps, net.weight_bytes, fs.build_info())
    assert_type(fs.schedule(net, x), fs.ScheduleRun)
    net.save(path)


def layers(x: Tensor, either: Tensor | fs.SpikeTensor) -> None:
    layer = fs.FSConv2d(3, 8, 3, alpha=1.0)
    assert_type(layer(x), Tensor)
    assert_type(layer(either), Tensor | fs.SpikeTensor)
    assert_type(layer.to(torch.float64).eval(), fs.FSConv2d)
    spikes = fs.encode(x, K=8, alpha=1.0)
    assert_type(spikes, fs.SpikeTensor)
    assert_type(layer(spikes), fs.SpikeTensor)
    assert_type(fs.FSAvgPool2d(2)(spikes), fs.GradedTensor)
    assert_type(fs.FSAvgPool2d(2)(x), Tensor)
    assert_type(layer(fs.FSAvgPool2d(2)(spikes)), fs.SpikeTensor)
    assert_type(fs.FSMaxPool2d(2)(spikes), fs.SpikeTensor)
    assert_type(fs.FSMaxPool2d(2)(x), Tensor)
    assert_type(fs.FSLinear(3, 4, alpha=1.0)(x), Tensor)
    assert_type(fs.FSConv2d.from_float(nn.Conv2d(3, 8, 3), K=8, alpha=1.0), fs.FSConv2d)
    assert_type(fs.FSLinear.from_float(nn.Linear(3, 8), K=8, alpha=1.0), fs.FSLinear)
    assert_type(fs.decode(spikes), Tensor)
    assert_type(fs.to_spikes(spikes.words, 8), Tensor)
    assert_type(fs.from_spikes(spikes.spikes()), Tensor)
    layer.repack()


def conversion(module: nn.Module, x: Tensor) -> None:
    net = fs.convert(module, x, K=8)
    assert_type(net, fs.FSNetwork)
    assert_type(fs.search(module, x, budget=0.01), fs.SearchResult)
    assert_type(fs.fidelity(net, x), dict[str, float])
    assert_type(fs.paper_pools(module), nn.Module)
    assert net.graph is not None
    print(fs.RateNetwork(net.graph, x).run(x).logits)
    print(fs.last_kernel(), fs.energy.estimate(net, net.run(x)[1]), fs.__version__)
    fs.plots.raster(fs.encode(x, K=8, alpha=1.0))
    fs.convert(fs.models.cifar_resnet8(), x).pack()
    fs.set_isa(None)
"""
WRONG = """
import fskernel as fs

layer = fs.FSConv2d(3, 8, 3, alpha=1.0)
layer("text")
fs.FSConv2d(3, 8, 3, K="8")
fs.load(3)
fs.load("x")(3)
"""


def mypy(text: str, folder: Path) -> list[str]:
    """What mypy says of a file that lies elsewhere; torch's types are kept for the next run."""
    pytest.importorskip("mypy", reason="mypy is not installed: pip install mypy")
    (folder / "user.py").write_text(text)
    cache = ROOT / "build" / "mypy"
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), "user.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "import-not-found" not in done.stdout, (
        f"{done.stdout}fskernel is not installed, or in a way that mypy cannot follow: make setup"
    )
    return [line for line in done.stdout.splitlines() if ": error:" in line]


def test_a_users_file_has_types(tmp_path):
    # One test: two runs at once would write the same cache.
    assert not mypy(GOOD, tmp_path)
    errors = mypy(WRONG, tmp_path)
    assert [error.split(":")[1] for error in errors] == ["5", "6", "7", "8"], errors
    assert '"Tensor"' in errors[3]
