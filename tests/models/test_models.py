"""The weights that come with the package: whole, small, described, and refused where they end."""

import json
import os
from pathlib import Path

import pytest
import torch
from harness import composed
from safetensors.torch import load_file, save_file

import fskernel as fs
from bench.errors import UserError
from bench.inputs import cifar, digits, in_memory
from bench.inputs import models as bench_models
from fskernel.models import shipped

SHIPPED = shipped.names()
PAPER = ["cifar_resnet14", "cifar_resnet20", "cifar_resnet50", "cifar_resnet8"]
OTHERS = ["cifar_mobilenet", "cifar_resnet20_silu", "digits_cnn"]
ROOT = Path(os.environ.get("FSKERNEL_DATA", "/nowhere")) / "cifar10-jpeg"


def build(name, **kwargs):
    return getattr(fs.models, name)(**kwargs)


def trained(name):
    return build(name, weights=shipped.trained_on(name))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Random weights of ResNet8 in place of what is shipped."""
    torch.manual_seed(5)
    module = fs.models.cifar_resnet8()
    state = {k: v.half() for k, v in module.state_dict().items() if not k.endswith("tracked")}
    save_file(state, tmp_path / "cifar_resnet8.safetensors")
    (tmp_path / "cifar_resnet8.json").write_text(json.dumps({"network": "cifar_resnet8"}))
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return state


def test_all_networks_of_the_paper_are_shipped():
    assert sorted(SHIPPED) == sorted(PAPER + OTHERS)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_small_and_whole(name):
    path = shipped.FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 3.2e6
    state = load_file(path)
    module = trained(name)
    mine = module.state_dict()
    assert {k for k in mine if not k.endswith("num_batches_tracked")} == set(state)
    for key, value in state.items():
        assert value.dtype == torch.float16 and mine[key].dtype == torch.float32
        assert torch.equal(mine[key], value.float()) and torch.isfinite(value).all()
    assert len({p.dtype for p in module.parameters()}) == 1 and module.training


@pytest.mark.parametrize("name", SHIPPED)
def test_every_card_names_data_seed_epochs_accuracy_and_command(name):
    card = fs.models.card(name)
    assert card["network"] == name and card["epochs"] == card["recipe"]["epochs"]
    low, high = card["interval_95_percent"]
    assert 50 < low < card["top1_percent"] < high < 100
    assert card["seed"] == card["recipe"]["seed"] and name in card["command"]
    assert ("data.root=DIR" in card["command"]) == (shipped.trained_on(name) == "cifar10")
    assert card["data"]["training"] and card["data"]["test"] and card["versions"]["torch"]
    # Images are normalised for the harness as they were in training.
    size = composed(f"model={name}").model.input
    assert (list(size.mean), list(size.std)) == (card["data"]["mean"], card["data"]["std"])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_harness_takes_shipped_weights_by_itself(name):
    module, weights = bench_models.build(composed(f"model={name}").model, 0, lambda _: None)
    assert not weights.random and not module.training
    wanted = trained(name).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in module.state_dict().items())


@pytest.mark.skipif(not ROOT.is_dir(), reason="FSKERNEL_DATA holds no folder cifar10-jpeg")
@pytest.mark.parametrize(
    "name",
    [n if n == "cifar_resnet20" else pytest.param(n, marks=pytest.mark.slow) for n in PAPER],
)
@torch.inference_mode()
def test_shipped_weights_score_what_their_card_says(name, tmp_path):
    """The smallest network on all images, the others on every tenth."""
    test = cifar.load(ROOT, "test", tmp_path)
    card = fs.models.card(name)
    assert card["data"]["test"].startswith(f"{test.name}, {len(test)} images")
    stride = 1 if name == "cifar_resnet8" else 10
    x = in_memory.normalised(test.images[::stride], card["data"]["mean"], card["data"]["std"])
    module = trained(name).eval()
    answers = torch.cat([module(part).argmax(1) for part in x.split(100)])
    found = 100 * float((answers == test.labels[::stride]).double().mean())
    # Another processor may round a few answers otherwise; 500 images are a sample.
    assert abs(found - card["top1_percent"]) < (0.1 if stride == 1 else 6)


def test_the_digits_score_what_their_card_says():
    pytest.importorskip("sklearn", reason="the digits are those of scikit-learn")
    test, card = digits.load("test"), fs.models.card("digits_cnn")
    assert card["data"]["test"].startswith(f"{test.name}, {len(test)} images")
    x = in_memory.normalised(test.images, card["data"]["mean"], card["data"]["std"])
    with torch.inference_mode():
        answers = trained("digits_cnn").eval()(x).argmax(1)
    found = 100 * float((answers == test.labels).double().mean())
    assert abs(found - card["top1_percent"]) < 0.5


def test_weights_are_loaded_and_none_means_random(folder):
    trained = fs.models.cifar_resnet8(weights="cifar10")
    assert all(torch.equal(trained.state_dict()[k], v.float()) for k, v in folder.items())
    torch.manual_seed(6)
    assert not torch.equal(fs.models.cifar_resnet8().conv1.weight, trained.conv1.weight)
    assert shipped.names() == ["cifar_resnet8"]
    assert fs.models.card("cifar_resnet8") == {"network": "cifar_resnet8"}


def test_what_is_not_shipped_is_refused_by_name(folder):
    with pytest.raises(ValueError, match="weights='imagenet' is unknown: use 'cifar10'"):
        fs.models.cifar_resnet8(weights="imagenet")
    with pytest.raises(ValueError, match="num_classes=100: weights='cifar10' are for 10"):
        fs.models.cifar_resnet8(num_classes=100, weights="cifar10")
    with pytest.raises(ValueError, match="cifar_resnet20: no trained weights.*cifar_resnet8"):
        fs.models.cifar_resnet20(weights="cifar10")
    for name in ("cifar_resnet20", "../weights/cifar_resnet8", ""):
        with pytest.raises(ValueError, match=f"{name}: no trained weights"):
            fs.models.card(name)


def test_a_damaged_file_does_not_load_in_part(folder):
    folder.pop("fc.bias")
    save_file(folder, shipped.FOLDER / "cifar_resnet8.safetensors")
    with pytest.raises(RuntimeError, match="fc.bias"):
        fs.models.cifar_resnet8(weights="cifar10")


@pytest.mark.parametrize(
    "overrides, names",
    [
        (["+model.args.num_classes=7"], "model.weights=auto: num_classes=7.*or say random"),
        (["model=cifar_resnet50"], "model.weights=auto: cifar_resnet50: no trained weights"),
        (["model.weights=IMAGENET1K_V1"], "model.weights=IMAGENET1K_V1: no such file"),
    ],
)
def test_the_harness_says_what_it_cannot_load(folder, overrides, names):
    cfg = composed("model=cifar_resnet8", *overrides)
    with pytest.raises(UserError, match=names):
        bench_models.build(cfg.model, 0, lambda _: None)


def test_random_weights_stay_random(folder):
    cfg = composed("model=cifar_resnet8", "model.weights=random", "+model.args.num_classes=7")
    module, weights = bench_models.build(cfg.model, 0, lambda _: None)
    assert weights.random and module.fc.out_features == 7
