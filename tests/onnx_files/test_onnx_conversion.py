"""Risk: a file converts to another network than the module that it was exported from."""

import re

import onnx
import pytest
import torch
from networks import settle
from onnx_models.cases import ANY_SIZE, exported
from torch import nn

import fskernel as fs
from bench import ROOT
from fskernel import ConversionError


class Small(nn.Module):
    """A residual join, a max-pool, a ReLU6 and a concatenation."""

    example = (3, 24, 20)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 6, (1, 3), padding=(0, 1), groups=2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(14, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.body(x) + x)
        x = self.pool(torch.cat([x, nn.functional.relu6(self.wide(x))], 1))
        return self.head(x.mean((2, 3)))


def settled():
    torch.manual_seed(1)
    return settle(Small(), torch.randn(8, *Small.example))


@pytest.fixture
def images():
    return torch.randn(6, *Small.example, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save_model(exported(settled), path)
    return path


def test_a_file_converts_like_its_module(file, images):
    expected = fs.convert(settled(), images, K=6)
    for source in (file, str(file), onnx.load(file)):
        net = fs.convert(source, images, K=6)
        assert net.neurons == expected.neurons and net.depth == expected.depth
        error = (net(images) - expected(images)).norm() / expected(images).norm()
        assert error < 5e-3  # the exporter has folded the batch norm, in float32


def test_layers_have_the_names_of_the_module(file, images):
    names = {step.name for step in fs.convert(file, images, K=4).steps}
    assert {"stem.0", "body", "wide", "pool", "head"} <= names


def test_any_size_of_images_stays_right(file):
    """The float module and its exported program, which the conversion reads."""
    network, x = fs.from_onnx(file), torch.randn(2, 3, 24, 20)
    exported_once = torch.export.export(network, (x,), dynamic_shapes=ANY_SIZE, strict=False)
    other = torch.randn(3, 3, 31, 26)
    assert torch.equal(exported_once.module()(other), network(other))


def test_what_has_no_few_spikes_form_is_refused_by_its_name(tmp_path, images):
    class Rooted(Small):
        def forward(self, x):
            x = self.stem(x)
            return self.head(torch.cat([x, self.wide(x).sqrt()], 1).mean((2, 3)))

    with pytest.raises(ConversionError, match="(?i)sqrt"):
        fs.convert(exported(lambda: settle(Rooted(), images)), images)


def test_the_example_of_the_docs(tmp_path, monkeypatch):
    """Runs as it stands, in a folder of its own."""
    text = (ROOT / "docs" / "onnx.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(blocks[0], names)
    assert isinstance(names["net"], fs.FSNetwork) and names["network"].layer1 is not None


def test_the_docs_list_the_operators_that_are_read():
    from fskernel.onnx_files.operators import OPERATORS
    from fskernel.onnx_files.sizes import ARITHMETIC, MEASURES, MOVES

    text = (ROOT / "docs" / "onnx.md").read_text()
    table = text.split("## Operators")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    named = re.findall(r"`(\w+)`", "\n".join(rows))
    assert len(named) == len(set(named))
    assert set(named) == {*OPERATORS, *ARITHMETIC, *MEASURES, *MOVES, "Constant"}
