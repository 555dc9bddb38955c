"""Risk: `fskernel convert` makes another network than `fskernel.convert`, or spoils a file."""

import re

import pytest
import torch
from PIL import Image

import fskernel as fs
from fskernel.cli import model

MINE = """
import torch
from torch import nn


class Rooted(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(torch.sqrt(self.conv(x)).mean((2, 3)))


class Plain(Rooted):
    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def number():
    return 3


def broken():
    raise KeyError("no such key")


ready = Plain(5)
"""
GREY = ("--size", "9x7", "--mean", "0.5", "--std", "0.25")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_of_cli.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return "mine_of_cli"


def ann():
    return fs.models.digits_cnn(weights="digits").eval()


SETTINGS = {
    "": {},
    "-K 5 --alpha percentile:99 --rounding floor": dict(
        K=5, alpha="percentile:99", rounding="floor"
    ),
    "-K 6 --alpha 9.5 --weight-bits 16": dict(K=6, alpha=9.5, weight_bits=16),
    "--neuron paper --weight-bits 8": dict(neuron="paper", weight_bits=8),
    "-K 3 --alpha mse --correct bias --weight-bits auto": dict(
        K=3, alpha="mse", correct="bias", weight_bits="auto"
    ),
    "-K 4 --bottleneck spiking --input-range 2.5": dict(K=4, bottleneck="spiking", input_range=2.5),
}


@pytest.mark.parametrize("words", SETTINGS)
def test_the_same_network_as_from_python(call, digits, pixels, tmp_path, words):
    path = tmp_path / "net.safetensors"
    done = call("convert", "digits_cnn", "--images", digits, *words.split(), "-o", path)
    expected = fs.convert(ann(), pixels.split(16), **SETTINGS[words])
    net = fs.load(path)
    assert net.get_extra_state() == expected.get_extra_state()
    assert torch.equal(net(pixels), expected(pixels))
    assert net.preprocessing == fs.models.preprocessing("digits_cnn")
    assert f"{net.neurons:,} neurons" in done.stdout and f"{path}" in done.stdout
    assert "24 of 24 images" in done.stdout and "trained on digits" in done.stdout


def test_a_count_takes_images_from_all_classes(call, digits, pixels, tmp_path):
    path = tmp_path / "net.safetensors"
    call("convert", "digits_cnn", "--images", digits, "--count", 5, "-o", path)
    chosen = pixels[[0, 4, 9, 14, 19]]
    assert torch.equal(fs.load(path)(pixels), fs.convert(ann(), chosen)(pixels))


def test_a_file_is_replaced_only_if_told_so(call, digits, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.write_text("mine")
    monkeypatch.setattr(model, "find", lambda wish: pytest.fail("work before the refusal"))
    words = ("convert", "digits_cnn", "--images", digits)
    assert "--force" in call(*words, "-o", path, code=2).stderr
    assert "no folder" in call(*words, "-o", tmp_path / "no" / "a.safetensors", code=2).stderr
    assert ".safetensors" in call(*words, "-o", tmp_path / "a.pt", code=2).stderr
    monkeypatch.undo()
    assert path.read_text() == "mine"
    call(*words, "-o", path, "--force")
    assert fs.load(path).K == 8


def test_without_an_output_the_file_has_the_models_name(call, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("convert", "fskernel:digits_cnn", "--images", digits, "--count", 1)
    assert (tmp_path / "digits_cnn.safetensors").is_file()


def test_without_images_a_range_is_needed(call, tmp_path):
    path = tmp_path / "net.safetensors"
    assert "--images" in call("convert", "digits_cnn", "-o", path, code=2).stderr
    call("convert", "digits_cnn", "--alpha", "12", "-o", path)
    assert fs.load(path).input_size == (1, 1, 8, 8)
    said = call("convert", "digits_cnn", "--alpha", "mse", "-o", path, "--force", code=2)
    assert "--images" in said.stderr


def test_what_cannot_be_converted_is_a_sentence_and_no_file(call, digits, mine, tmp_path):
    words = ("convert", f"{mine}.Rooted", "--images", digits, *GREY)
    done = call(*words, "-o", tmp_path / "a.safetensors", code=1)
    assert "cannot convert 'sqrt'" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "a.safetensors").exists() and not done.stdout


def test_a_network_of_ones_own_with_what_it_asks_of_images(call, digits, mine, tmp_path):
    path, names = tmp_path / "net.safetensors", tmp_path / "names"
    words = ("convert", f"{mine}.Plain", "--images", digits, "-o", path)
    said = call(*words, "--std", "0.25", code=2).stderr
    assert "--size 224" in said and "--mean" in said and "--std" not in said
    names.write_text("one\ntwo\n")
    assert "2 lines: the network has 3" in call(*words, *GREY, "--labels", names, code=2).stderr
    names.write_text("one\ntwo\nthree\n")
    call(*words, *GREY, "--labels", names)
    expected = fs.Preprocessing((9, 7), 9, (0.5,), (0.25,), labels=("one", "two", "three"))
    assert fs.load(path).preprocessing == expected
    call("convert", f"{mine}.ready", "--images", digits, *GREY, "-o", path, "--force")
    assert len(fs.load(path).steps[-1].bias) == 5
    more = ("--classes", 4, "--force")
    call("convert", f"{mine}.Plain", "--images", digits, *GREY, "-o", path, *more)
    assert len(fs.load(path).steps[-1].bias) == 4


@pytest.mark.parametrize(
    "name, code, words",
    [
        ("number", 1, "is a int: it must be a torch.nn.Module"),
        ("broken", 1, "raised KeyError: 'no such key' .*mine_of_cli.py, line"),
        ("Plane", 2, "mine_of_cli has no Plane; did you mean Plain"),
    ],
)
def test_what_is_no_network(call, digits, mine, name, code, words):
    done = call("convert", f"{mine}.{name}", "--images", digits, *GREY, code=code)
    assert re.search(words, done.stderr)


def test_an_image_that_cannot_be_read_is_named_and_left_out(call, pixels, digits, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    Image.new("L", (8, 8), 90).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"\x89PNG damaged")
    path = tmp_path / "net.safetensors"
    done = call("convert", "digits_cnn", "--images", folder, "-o", path)
    assert "b.png cannot be read" in done.stderr and "1 of 2 images" in done.stdout
    (folder / "a.png").unlink()
    done = call("convert", "digits_cnn", "--images", folder, "-o", path, "--force", code=1)
    assert "none of the 1 images" in done.stderr


@pytest.mark.parametrize(
    "words, said",
    [
        (("--images", "nowhere"), "nowhere: there is no such file or folder"),
        (("--alpha", "largest"), "alpha='largest'"),
        (("--input-range", "-1"), "input_range=-1.0"),
        (("--interpolation", "cubic"), "interpolation is 'cubic'"),
        (("--size", "8x8x8"), "'8x8x8' is no size"),
        (("--mean", "a,b"), "'a,b' is no list"),
        (("--resize", "4"), "resize is 4"),
        (("--labels", "nowhere"), "nowhere cannot be read"),
        (("-K", "17"), "less than or equal to 16"),
        (("--neuron", "papers"), "'papers'"),
    ],
)
def test_what_makes_no_sense_is_refused(call, digits, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    done = call("convert", "digits_cnn", "--images", digits, *words, code=2)
    text = " ".join(done.stderr.replace("│", " ").split())
    assert said in text and not list(tmp_path.iterdir())


def test_a_folder_without_images_is_named(call, tmp_path):
    (tmp_path / "a.txt").write_text("")
    assert "there is no image" in call("convert", "digits_cnn", "--images", tmp_path, code=2).stderr
    done = call("convert", "digits_cnn", "--images", tmp_path / "a.txt", code=2)
    assert "a.txt is no image" in done.stderr


def test_warnings_are_sentences(call, digits, tmp_path):
    """Images beyond the range that calibration saw."""
    path = tmp_path / "net.safetensors"
    call("convert", "digits_cnn", "--images", digits, "--input-range", "0.1", "-o", path)
    done = call("run", path, digits)
    assert done.stderr.startswith("warning: ") and ".py" not in done.stderr


def test_an_onnx_file_is_a_network(call, digits, pixels, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    from onnx_models.cases import exported

    def digits_cnn():
        module = ann()
        module.example = (1, 8, 8)
        return module

    file, path = tmp_path / "mine.onnx", tmp_path / "mine.safetensors"
    onnx.save_model(exported(digits_cnn), file)
    monkeypatch.chdir(tmp_path)
    published = fs.models.preprocessing("digits_cnn")
    told = {"--size": 8, "--mean": published.mean[0], "--std": published.std[0]}
    words = [str(word) for option in told.items() for word in option]
    done = call("convert", "mine.onnx", "--images", digits, "-K", 5, *words)
    assert "the ONNX file mine.onnx" in done.stdout
    expected = fs.convert(file, pixels.split(16), K=5)
    assert torch.equal(fs.load(path)(pixels), expected(pixels))
    said = call("convert", file, "--weights", "x.pth", "--alpha", 4, "--force", code=2).stderr
    assert "has its weights and classes" in said
    file.write_bytes(file.read_bytes()[:100])
    assert "no ONNX file" in call("convert", file, "--alpha", 4, "--force", code=1).stderr
