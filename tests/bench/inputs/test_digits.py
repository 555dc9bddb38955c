"""Risk: the digits of the demonstration train and test on the same images, or are misread."""

import sys

import pytest
import torch
from harness import CONF, composed
from hydra import compose, initialize_config_dir

from bench.errors import UserError
from bench.inputs import digits, in_memory
from bench.inputs.data import open_images
from bench.paper import training


def test_without_scikit_learn_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="data=digits: .*pip install scikit-learn"):
        digits.load("test")


def test_the_split_is_fixed_and_shares_no_image():
    pytest.importorskip("sklearn")
    train, test = digits.load("train"), digits.load("test")
    assert (len(train), len(test)) == (1200, 597) and train.classes == test.classes == 10
    assert train.images.shape[1:] == (8, 8, 1) and train.images.dtype == torch.uint8
    assert train.images.min() == 0 and train.images.max() == 255
    assert set(train.labels.tolist()) == set(range(10)) == set(test.labels.tolist())
    assert torch.equal(train.images, digits.load("train").images)
    seen = {image.numpy().tobytes() for image in train.images}
    assert not seen & {image.numpy().tobytes() for image in test.images}


def test_the_harness_reads_them_as_training_does():
    pytest.importorskip("sklearn")
    cfg = composed("model=digits_cnn", "data=digits")
    images = open_images(cfg.data, cfg.model.input, 0, cfg.seed)
    assert len(images.items) == 597 and images.labelled and images.classes == 10
    x, labels = next(images.batches(30, 30))
    test = digits.load("test")
    wanted = in_memory.normalised(test.images, images.mean, images.std)
    for image, label in zip(x, labels):
        same = (wanted == image).flatten(1).all(1)
        assert same.any() and test.labels[same][0] == label


def test_digits_are_shifted_and_never_mirrored():
    images = torch.zeros(200, 8, 8, 1, dtype=torch.uint8)
    images[:, 4, 2] = 9
    found = in_memory.augmented(images, torch.Generator().manual_seed(0), shift=1, mirror=False)
    rows, columns = found[..., 0].nonzero()[:, 1:].T
    assert set(rows.tolist()) == {3, 4, 5} and set(columns.tolist()) == {1, 2, 3}


def test_training_refuses_images_without_a_split():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["model=digits_cnn", "data=samples"])
    with pytest.raises(UserError, match="data=samples: training knows cifar10 and digits"):
        training.validate(cfg)
