"""Risk: images are made ready in another way than for the ANN, or a file says how, wrongly."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from hostile import Template
from PIL import Image
from safetensors import safe_open
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

import fskernel as fs
from fskernel.preprocessing import LONGEST_LABEL, Preprocessing, Unreadable

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOUR = dict(size=(24, 24), resize=27, mean=MEAN, std=STD)
GREY = Preprocessing((8, 8), 8, (0.3064,), (0.3753,), labels=tuple("0123456789"))


def noise(width, height, mode="RGB"):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    levels = np.random.default_rng(width).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(levels, mode)


@pytest.mark.parametrize("size", [(61, 40), (40, 61), (27, 90), (24, 24), (11, 200), (27, 27)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_bit_for_bit_as_torchvision(size, interpolation):
    """Shorter sides that grow and shrink, odd rests beside the middle."""
    theirs = ImageClassification(
        crop_size=24,
        resize_size=27,
        mean=MEAN,
        std=STD,
        interpolation=InterpolationMode(interpolation),
    )
    ours = Preprocessing(**COLOUR, interpolation=interpolation)
    image = noise(*size)
    assert torch.equal(ours(image), theirs(image))


def test_a_pair_bends_the_proportions_and_the_middle_is_not_square():
    prepared = Preprocessing((5, 8), (7, 9), (0.5,), (0.25,))
    image = noise(31, 12, "L")
    levels = np.asarray(image.resize((9, 7), Image.Resampling.BILINEAR), np.float32)
    expected = (torch.from_numpy(levels[1:6, 0:8].copy()) / 255 - 0.5) / 0.25
    assert torch.equal(prepared(image), expected[None])


def test_images_of_every_mode_have_the_channels_that_the_network_reads():
    colour = Preprocessing(**COLOUR)
    grey = noise(30, 30, "L")
    for image in (grey, noise(30, 30, "RGBA"), noise(30, 30).convert("P"), noise(30, 30, "LA")):
        assert colour(image).shape == (3, 24, 24) and GREY(image).shape == (1, 8, 8)
    # 16 bits are scaled, not cut off at 255.
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 77)
    assert torch.equal(GREY(deep), GREY(grey))
    with pytest.raises(Unreadable, match="32 bits"):
        GREY(grey.convert("F"))


def test_a_long_image_is_not_made_larger_than_memory():
    with pytest.raises(Unreadable, match="resized to, 27x"):
        Preprocessing(**COLOUR)(Image.new("L", (1, 2**22)))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(size=(0, 24)), "size is"),
        (dict(size=(24, 24.0)), "size is"),
        (dict(size=(2**14, 2**13)), "size is"),
        (dict(size=24), "size is 24"),
        (dict(resize=23), "resize is 23.*size=.24, 24."),
        (dict(resize=(24, 23)), "resize is"),
        (dict(resize=2**40), "resize is"),
        (dict(resize=True), "resize is True"),
        (dict(mean=(0.5, 0.5)), "mean is"),
        (dict(mean=(math.nan, 0.5, 0.5)), "mean is"),
        (dict(mean=(0, 0.5, 0.5)), "mean is"),
        (dict(mean=0.5), "mean is 0.5"),
        (dict(std=(1.0,)), "std is .*expected 3 positive"),
        (dict(std=(1.0, 1.0, 0.0)), "std is"),
        (dict(std=(1.0, 1.0, math.inf)), "std is"),
        (dict(interpolation="cubic"), "interpolation is 'cubic'"),
        (dict(labels="abc"), "labels is 'abc'"),
        (dict(labels=("a", "")), "labels is"),
        (dict(labels=("a", "b" * (LONGEST_LABEL + 1))), "labels is"),
        (dict(labels=("a", "\x1b[2J")), "labels is"),
        (dict(labels=("a", 3)), "labels is"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=f"preprocessing.{message}"):
        Preprocessing(**COLOUR | change)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = fs.convert(fs.models.digits_cnn(weights="digits").eval(), torch.rand(2, 1, 8, 8), K=3)
    net.preprocessing = GREY
    return net


def test_it_is_saved_loaded_and_copied(net, tmp_path):
    net.save(tmp_path / "a.safetensors")
    loaded = fs.load(tmp_path / "a.safetensors")
    assert loaded.preprocessing == GREY == copy.deepcopy(net).preprocessing
    net.preprocessing = None
    net.save(tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert "preprocessing" not in json.loads(file.metadata()["fskernel"])
    assert fs.load(tmp_path / "b.safetensors").preprocessing is None
    net.preprocessing = GREY


@pytest.mark.parametrize(
    "value, message",
    [
        (Preprocessing(**COLOUR), "mean is .*the network reads 1 channel"),
        (Preprocessing((8, 8), 8, (0.5,), (0.5,), labels=("a", "b")), "names 2 classes: .*has 10"),
    ],
)
def test_one_of_another_network_is_refused(net, value, message):
    with pytest.raises(ValueError, match=message):
        net.preprocessing = value
    assert net.preprocessing == GREY


def test_one_of_another_type_is_refused(net):
    with pytest.raises(TypeError, match="is a dict: expected a fskernel.Preprocessing"):
        net.preprocessing = GREY.spec()


def set_to(**fields):
    return lambda tensors, d: d["preprocessing"].update(fields)


CASES = {
    "of another type": (lambda t, d: d.update(preprocessing=[]), "preprocessing is .*an object"),
    "null": (lambda t, d: d.update(preprocessing=None), "preprocessing is None: expected an obj"),
    "a size of one": (set_to(size=[8]), "size is .*a list of 2"),
    "a size of floats": (set_to(size=[8.0, 8.0]), "size is .*each an integer"),
    "a huge size": (set_to(size=[2**40, 2**40]), "size is"),
    "a resize of three": (set_to(resize=[8, 8, 8]), "resize is"),
    "a resize of texts": (set_to(resize=["8", "8"]), "resize is"),
    "a mean of a text": (set_to(mean="0"), "mean is '0': expected a list"),
    "a std of zero": (set_to(std=[0.0]), "std is"),
    "another interpolation": (set_to(interpolation="__class__"), "interpolation is"),
    "labels of lists": (set_to(labels=[["a"]] * 10), "labels is"),
    "labels that steer a terminal": (set_to(labels=["\x1b]0;x\x07"] * 10), "labels is"),
    "too few labels": (set_to(labels=["a"]), "names 1 classes: the network has 10"),
    "more fields": (set_to(code="x"), "preprocessing.'code' is unknown"),
    "fewer fields": (lambda t, d: d["preprocessing"].pop("std"), "preprocessing.std is missing"),
    "three channels": (set_to(mean=[0.5] * 3, std=[0.5] * 3), "mean is .*the network reads 1"),
    "another fixed size": (
        lambda t, d: d.update(fixed_size=[9, 9], input_size=[2, 1, 9, 9]),
        "size is .*of .9, 9. alone",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_says_it_wrongly_is_refused(net, tmp_path, name):
    change, message = CASES[name]
    path = Template(net, tmp_path).changed(change)
    with pytest.raises(ValueError, match=message) as caught:
        fs.load(path)
    assert str(path) in str(caught.value)


def test_shipped_networks_publish_theirs():
    assert fs.models.preprocessing("digits_cnn") == GREY
    cifar = fs.models.preprocessing("cifar_resnet8")
    assert cifar.size == (32, 32) and cifar.channels == 3 and cifar.labels[3] == "cat"
    assert len(cifar.labels) == fs.models.cifar_resnet8().fc.out_features
