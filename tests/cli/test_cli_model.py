"""Risk: a name stands for another network than meant, weights are not those that one believes, or
a file runs its code unasked."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import fskernel as fs
from fskernel.cli.faults import Failure, Usage
from fskernel.cli.model import Wish, _of_transforms, find, resolve
from fskernel.command import names


@pytest.mark.parametrize(
    "typed, found",
    [
        ("resnet18", ("torchvision", "resnet18")),
        ("timm:resnet18", ("timm", "resnet18")),
        ("resnet10t", ("timm", "resnet10t")),
        ("resnet50.a1_in1k", ("timm", "resnet50.a1_in1k")),
        ("cifar_resnet20", ("fskernel", "cifar_resnet20")),
        ("torchvision:cifar_resnet20", ("torchvision", "cifar_resnet20")),
        ("torchvision.models.resnet18", ("python", "torchvision.models.resnet18")),
        ("a/b.pt", ("file", "a/b.pt")),
        ("a/b.onnx", ("file", "a/b.onnx")),
    ],
)
def test_whose_a_name_is(typed, found):
    assert resolve(typed) == found


@pytest.mark.parametrize(
    "typed, said",
    [
        ("resnte18", "did you mean resnet18"),
        ("no_such_package.function", "no package.function"),
        ("torchvision:resnte18", "torchvision has no such network; near it are .*resnet18"),
        ("timm:resnte18", "timm has no such network; near it are .*resnet18"),
        ("fskernel:cifar_resnet9", "near it are .*cifar_resnet8"),
        ("torchvision.models.resnte18", "has no resnte18; did you mean resnet18"),
        ("nothing.pt", "nothing.pt: there is no such file"),
        ("nothing.onnx", "nothing.onnx: there is no such file"),
    ],
)
def test_unknown_names_are_refused_with_those_near_them(typed, said):
    with pytest.raises(Usage, match=said):
        find(Wish(typed))


def test_what_torchvision_publishes_is_read_for_every_network():
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            published, theirs = _of_transforms(weights), weights.transforms()
            image = Image.new("RGB", (90, 70), (9, 99, 200))
            labels = weights.meta.get("categories")  # which a few have none of
            assert published.labels == (labels and tuple(labels))
            assert (published.resize, list(published.size)) == (
                theirs.resize_size[0],
                theirs.crop_size * 2,
            )
    assert torch.equal(published(image), theirs(image))


def test_what_timm_publishes_is_what_its_transforms_do():
    found = find(Wish("timm:resnet10t", "random"))
    how = timm.data.resolve_model_data_config(found.module)
    theirs = timm.data.create_transform(**how, is_training=False)
    levels = torch.randint(0, 256, (211, 300, 3), dtype=torch.uint8)
    image = Image.fromarray(levels.numpy())
    assert torch.equal(found.published(image), theirs(image))
    assert found.published.labels is None and "random weights" in found.told


def test_random_weights_depend_on_the_seed_alone():
    a, b, c = (find(Wish("digits_cnn", "random", 7, seed=seed)).module for seed in (1, 1, 2))
    assert torch.equal(a.fc.weight, b.fc.weight) and not torch.equal(a.fc.weight, c.fc.weight)
    assert a.fc.out_features == 7 and not a.training


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_in_a_file(tmp_path, ending, wrapped):
    state = fs.models.digits_cnn(4).state_dict()
    path = tmp_path / f"weights{ending}"
    kept = {f"module.{name}": tensor for name, tensor in state.items()} if wrapped else state
    if ending == ".safetensors":
        save_file(kept, path)
    else:
        torch.save({"state_dict": kept, "epoch": 3} if wrapped else kept, path)
    found = find(Wish("digits_cnn", str(path), 4))
    for name, tensor in found.module.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert found.published.labels is None and str(path) in found.told
    with pytest.raises(Usage, match="does not fit the network: .*fc.weight"):
        find(Wish("digits_cnn", str(path)))


@pytest.mark.parametrize(
    "wish, said",
    [
        (Wish("digits_cnn", "nothing.pth"), "nothing.pth: there is no such file"),
        (Wish("digits_cnn", "imagenet"), "has digits, and takes a file"),
        (Wish("digits_cnn", classes=3), "are for 10 classes"),
        (Wish("resnet18", "IMAGENET"), "has IMAGENET1K_V1, and takes"),
        (Wish("resnet18", classes=3), "have classes of their own"),
        (Wish("timm:resnet10t", classes=3), "have classes of their own"),
        (Wish("torch.nn.Identity", "random"), "is built as it is"),
    ],
)
def test_weights_that_there_are_not(wish, said):
    with pytest.raises(Usage, match=said):
        find(wish)


def test_damaged_weights_and_code_in_them(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(Failure, match="cannot be read as a state dict"):
        find(Wish("digits_cnn", str(path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("typed", ["resnet18", "timm:resnet10t"])
def test_without_a_network_the_ways_on_are_named(call, digits, tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)

    def unreachable(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr(timm, "create_model", unreachable)
    done = call("convert", typed, "--images", digits, code=1)
    for words in ("cannot be fetched", "--weights FILE", "--weights random", "Name or service"):
        assert words in done.stderr
    assert not list(tmp_path.iterdir())


class Trap:
    """Leaves a file behind when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickled_module_is_loaded_only_if_told_so(tmp_path):
    path, state = tmp_path / "net.pt", tmp_path / "state.pt"
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    torch.save(module, path)
    with pytest.raises(Usage, match="runs code .*--trust"):
        find(Wish(str(path)))
    found = find(Wish(str(path), trust=True)).module
    assert torch.equal(found[0].weight, module[0].weight) and not found.training
    torch.save(Trap(tmp_path / "ran"), path)
    with pytest.raises(Usage, match="--trust"):
        find(Wish(str(path)))
    assert not (tmp_path / "ran").exists()
    torch.save(module.state_dict(), state)
    with pytest.raises(Usage, match=f"convert resnet18 --weights {state}"):
        find(Wish(str(state), trust=True))


@pytest.mark.parametrize(
    "name, said",
    [
        ("net.pt2", "exported program"),
        ("net.safetensors", "fskernel info"),
        ("net.h5", "is no network: a pickled module"),
    ],
)
def test_files_of_other_kinds_are_refused_with_what_helps(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(Usage, match=said):
        find(Wish(str(tmp_path / name), trust=True))


def test_completion_knows_the_names():
    known = torchvision.models.list_models(module=torchvision.models)
    assert names.torchvisions() == sorted(known)
    assert "cifar_resnet20" in names.fskernels()
    assert names.complete("torchvision:resnet1") == [
        "torchvision:resnet101",
        "torchvision:resnet152",
        "torchvision:resnet18",
    ]
    assert names.complete("cifar_resnet1") == ["cifar_resnet14"]
