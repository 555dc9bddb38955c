"""Training of the CIFAR networks: images, augmentation, resuming, the card that is written."""

import copy
import functools
import hashlib
import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from harness import CONF, jpeg, write_cifar, write_zip
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.datasets import CIFAR10
from torchvision.transforms import functional as TF

from bench import train
from bench.errors import UserError
from bench.inputs import cifar, in_memory
from bench.paper import training

QUICK = ("model=cifar_resnet8", "batch=10", "epochs=2", "lr=0.01", "threads=1", "bfloat16=false")


@pytest.fixture
def root(tmp_path):
    return write_cifar(tmp_path / "images")


@functools.cache
def _composed(overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def conf(root, out, *overrides):
    cfg = copy.deepcopy(_composed((*QUICK, *overrides)))
    cfg.data.root, cfg.out = str(root), str(out)
    return cfg


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Decoded images stay in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "cache"


# ---- images ----------------------------------------------------------------------------------


def test_zips_give_pixels_and_labels_in_the_order_of_names(root):
    data = cifar.load(root, "train")
    assert data.images.shape == (50, 32, 32, 3) and data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [label for label in range(10) for _ in range(5)]
    for n in (0, 7, 49):
        with Image.open(io.BytesIO(jpeg(n // 5, n % 5))) as image:
            assert np.array_equal(data.images[n].numpy(), np.asarray(image))
    assert len(cifar.load(root, "test")) == 20


def test_half_of_the_test_split_is_taken_only_where_the_whole_is_missing(root):
    write_zip(root / "test-even.zip", {"cat/0000.jpg": jpeg(3, 0)})
    assert len(cifar.load(root, "test")) == 20
    (root / "test.zip").unlink()
    half = cifar.load(root, "test")
    assert len(half) == 1 and half.labels.tolist() == [3] and "test-even.zip" in half.name


def test_grey_images_become_colour(root):
    write_zip(root / "test.zip", {"dog/0.jpg": jpeg(5, 0, mode="L")})
    pixels = cifar.load(root, "test").images
    assert pixels.shape == (1, 32, 32, 3) and torch.equal(pixels[..., 0], pixels[..., 2])


def test_decoded_images_are_kept_until_the_zip_changes(root, cache, monkeypatch):
    decoded = []
    monkeypatch.setattr(cifar, "decode", lambda *a, f=cifar.decode: decoded.append(a) or f(*a))
    first = cifar.load(root, "train")
    again = cifar.load(root, "train")
    assert len(decoded) == 1 and torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels) and first.name == again.name
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert torch.equal(cifar.load(root, "train").labels, first.labels) and len(decoded) == 2
    write_zip(root / "train.zip", {"cat/0000.jpg": jpeg(3, 0)})
    assert len(cifar.load(root, "train")) == 1 and len(decoded) == 3


@pytest.mark.parametrize(
    "images, names",
    [
        ({"cats/0.jpg": jpeg(3, 0)}, "cats/0.jpg: expected CLASS/NAME.jpg with one of airplane"),
        ({"0.jpg": jpeg(3, 0)}, "holds 0.jpg: expected CLASS"),
        ({"cat/0.jpg": jpeg(3, 0, (32, 31))}, "cat/0.jpg in .* has 32x31 pixels"),
        ({"cat/0.jpg": jpeg(3, 0, (64, 64))}, "has 64x64 pixels: CIFAR-10 has 32x32"),
        ({"cat/0.jpg": b"no image"}, "cat/0.jpg in .* cannot be read as an image"),
        ({"cat/0.jpg": jpeg(3, 0)[:400]}, "cat/0.jpg in .* cannot be read as an image"),
        ({}, "holds no images"),
        ({"cat/": b""}, "holds no images"),
    ],
)
def test_zips_that_are_not_cifar_are_refused_by_name(root, images, names):
    write_zip(root / "train.zip", images)
    with pytest.raises(UserError, match=f"data.root.*{names}"):
        cifar.load(root, "train")


@pytest.mark.parametrize("damage", ["cut", "flipped", "no zip"])
def test_damaged_zips_are_refused(root, cache, damage):
    path = root / "train.zip"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[300] ^= 0xFF  # within the first image
    path.write_bytes({"cut": content[:2000], "no zip": b"PK", "flipped": content}[damage])
    with pytest.raises(UserError, match=r"train.zip cannot be read"):
        cifar.load(root, "train")
    assert not cache.exists()


def write_batches(folder, monkeypatch):
    """torchvision's files with few images; their checksums become the expected ones."""
    place = folder / cifar.BATCHES
    place.mkdir(parents=True)
    dice, data = np.random.default_rng(0), {}
    sums = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        rows = dice.integers(0, 256, (3, 3072), dtype=np.uint8)
        data[name] = rows, dice.integers(0, 10, 3).tolist()
        content = pickle.dumps({"data": rows, "labels": data[name][1]})
        (place / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    content = pickle.dumps({"label_names": list(cifar.CLASSES)})
    (place / "batches.meta").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "train_list", [[n, s] for n, s in sums.items() if n[0] == "d"])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = CIFAR10.meta | {"md5": hashlib.md5(content).hexdigest()}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return data


@pytest.mark.parametrize("inside", [False, True])
def test_the_folder_of_torchvision_gives_its_pixels(tmp_path, monkeypatch, inside):
    written = write_batches(tmp_path / "tv", monkeypatch)
    data = cifar.load(tmp_path / "tv" / cifar.BATCHES if inside else tmp_path / "tv", "train")
    rows = np.concatenate([written[f"data_batch_{i}"][0] for i in range(1, 6)])
    assert np.array_equal(data.images.permute(0, 3, 1, 2).reshape(15, 3072).numpy(), rows)
    assert data.labels.tolist() == sum((written[f"data_batch_{i}"][1] for i in range(1, 6)), [])
    monkeypatch.chdir(tmp_path / "tv" / cifar.BATCHES)
    test = cifar.load(".", "test")
    assert test.labels.tolist() == written["test_batch"][1]
    assert data.images.is_contiguous() and "original pixels" in data.name


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_folder_of_torchvision_is_refused_before_it_is_unpickled(
    tmp_path, monkeypatch, damage
):
    write_batches(tmp_path, monkeypatch)
    path = tmp_path / cifar.BATCHES / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"x") if damage == "changed" else path.unlink()
    monkeypatch.setattr(pickle, "load", None)
    with pytest.raises(UserError, match="incomplete or damaged.*unpack cifar-10-python.tar.gz"):
        cifar.load(tmp_path, "train")


def test_a_folder_without_images_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="data.root=DIR"):
        cifar.load(None, "train")
    with pytest.raises(UserError, match="no such folder"):
        cifar.load(tmp_path / "missing", "train")
    with pytest.raises(UserError, match="holds neither test.zip nor test-even.zip nor cifar-10"):
        cifar.load(tmp_path, "test")


def test_normalised_pixels_are_those_of_torchvision():
    dice = np.random.default_rng(0)
    pixels = dice.integers(0, 256, (3, 32, 20, 3), dtype=np.uint8)
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    x = in_memory.normalised(torch.from_numpy(pixels), mean, std)
    wanted = [TF.normalize(TF.to_tensor(Image.fromarray(p)), mean, std) for p in pixels]
    assert torch.equal(x, torch.stack(wanted))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_equals_a_loop_over_images():
    dice = np.random.default_rng(1)
    pixels = torch.from_numpy(dice.integers(1, 256, (64, 9, 13, 3), dtype=np.uint8))
    given = in_memory.augmented(pixels, torch.Generator().manual_seed(3))
    same_dice = torch.Generator().manual_seed(3)
    shift = torch.randint(0, 9, (2, 64, 1), generator=same_dice).squeeze(2)
    mirrored = torch.rand(64, 1, generator=same_dice).squeeze(1) < 0.5
    for n, image in enumerate(pixels):
        padded = np.zeros((17, 21, 3), np.uint8)
        padded[4:13, 4:17] = image
        cut = padded[shift[0, n] : shift[0, n] + 9, shift[1, n] : shift[1, n] + 13]
        assert np.array_equal(given[n], cut[:, ::-1] if mirrored[n] else cut)
    assert set(shift.flatten().tolist()) == set(range(9)) and 16 < mirrored.sum() < 48


# ---- training ----------------------------------------------------------------------------------


def files(directory):
    """The trained weights, and the card without what a clock decides."""
    card = json.loads((directory / "cifar_resnet8.json").read_text())
    return (directory / "cifar_resnet8.safetensors").read_bytes(), card | {"seconds": 0}


def test_the_card_says_what_the_weights_are(root, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "model=cifar_resnet8", f"data.root={root}"])
    card = training.train(conf(root, tmp_path / "out"))
    assert card == json.loads((tmp_path / "out/cifar_resnet8/cifar_resnet8.json").read_text())
    assert (card["epochs"], card["seed"], card["stored_as"]) == (2, 0, "float16")
    assert card["data"]["training"] == "CIFAR-10 train.zip, 50 images"
    assert card["data"]["test"].startswith("CIFAR-10 test.zip, 20 images")
    assert card["command"] == "python bench/train.py model=cifar_resnet8 data.root=DIR"
    assert card["recipe"]["lr"] == 0.01 and card["versions"]["torch"]
    # The accuracy is that of the file.
    state = load_file(tmp_path / "out/cifar_resnet8/cifar_resnet8.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert not [key for key in state if key.endswith("num_batches_tracked")]
    from fskernel.models import cifar_resnet8

    module = cifar_resnet8()
    module.load_state_dict(state)
    test = cifar.load(root, "test")
    mean, std = card["data"]["mean"], card["data"]["std"]
    answers = module.eval()(in_memory.normalised(test.images, mean, std)).argmax(1)
    right = int((answers == test.labels).sum())
    assert card["top1_percent"] == 100 * right / 20
    low, high = card["interval_95_percent"]
    assert 0 <= low <= card["top1_percent"] <= high <= 100 and high - low > 10


def test_training_learns(root, tmp_path):
    # Every class has its colour.
    card = training.train(conf(root, tmp_path / "out", "epochs=12", "lr=0.05"))
    assert card["top1_percent"] >= 60


@pytest.mark.parametrize("at", [0, 1, 5, 8, 9])
def test_an_interrupted_training_ends_with_the_same_bits(root, tmp_path, monkeypatch, at):
    training.train(conf(root, tmp_path / "whole"))
    steps = 0

    def interrupted(*args, f=in_memory.augmented):
        nonlocal steps
        steps += 1
        if steps == at + 1:
            raise KeyboardInterrupt
        return f(*args)

    monkeypatch.setattr(in_memory, "augmented", interrupted)
    torch.rand(at + 1)  # the state of the global generator must not matter
    with pytest.raises(KeyboardInterrupt):
        training.train(conf(root, tmp_path / "out"))
    training.train(conf(root, tmp_path / "out"))
    # Nothing of a whole epoch is done twice.
    assert steps == at + 1 + (10 if at < 5 else 5)
    assert files(tmp_path / "out/cifar_resnet8") == files(tmp_path / "whole/cifar_resnet8")


def test_the_seed_decides(root, tmp_path):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        training.train(conf(root, tmp_path / out, f"seed={seed}"))
    a, b, c = (files(tmp_path / out / "cifar_resnet8")[0] for out in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    "change",
    [
        *("epochs=3", "batch=5", "lr=0.02", "momentum=0.5", "weight_decay=0.1", "seed=3"),
        *("smallest=16", "grown=0.5"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(root, tmp_path, change):
    training.train(conf(root, tmp_path / "out"))
    before = files(tmp_path / "out/cifar_resnet8")
    with pytest.raises(UserError, match="is of another training.*say out=DIR"):
        training.train(conf(root, tmp_path / "out", change))
    assert files(tmp_path / "out/cifar_resnet8") == before


def test_a_checkpoint_on_other_images_is_refused(root, tmp_path):
    training.train(conf(root, tmp_path / "out"))
    write_zip(root / "train.zip", {f"cat/{i}.jpg": jpeg(3, i) for i in range(51)})
    with pytest.raises(UserError, match="is of another training"):
        training.train(conf(root, tmp_path / "out"))


@pytest.mark.parametrize("content", [b"", b"junk", "other", "foreign"])
def test_a_damaged_checkpoint_is_refused(root, tmp_path, content):
    path = tmp_path / "out/cifar_resnet8/checkpoint.pt"
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a": 1} if content == "other" else [1], path)
    with pytest.raises(UserError, match="checkpoint.pt cannot be read.*remove it to start anew"):
        training.train(conf(root, tmp_path / "out"))


@pytest.mark.parametrize(
    "override, names",
    [
        ("epochs=0", "epochs=0: must be at least 1"),
        ("batch=0", "batch=0: must be at least 1"),
        ("batch=51", "batch=51: there are 50 training images"),
        ("batch=50", "give only 2 steps"),
        ("threads=0", "threads=0: this process may use"),
        ("threads=100000", "threads=100000: this process may use"),
        ("lr=0", "lr=0.0: must be positive"),
        ("lr=nan", "lr=nan: must be positive"),
        ("momentum=1", "momentum=1.0: must be in"),
        ("momentum=-0.1", "momentum=-0.1: must be in"),
        ("weight_decay=-1", "weight_decay=-1.0: must not"),
        ("smallest=33", "smallest=33: must be 8 to 32, the side of CIFAR-10 train.zip"),
        ("smallest=7", "smallest=7: must be 8 to 32"),
        ("grown=0", "grown=0.0: must be a share"),
        ("grown=1.1", "grown=1.1: must be a share"),
        ("seed=-1", "seed=-1: must be in 0"),
        ("model.weights=w.pth", "model.weights=w.pth: training starts from random"),
        ("+model.args.num_classes=9", "knows 9 classes: CIFAR-10 train.zip has 10"),
        ("+model.args.width=9", "model._target_=.*width"),
        ("+epoch=3", "epoch: no such key; did you mean epochs"),
        ("lr=1e30", "the loss is (nan|inf): use a smaller lr"),
    ],
)
def test_senseless_settings_are_refused_by_name(root, tmp_path, override, names):
    with pytest.raises(UserError, match=names):
        training.train(conf(root, tmp_path / "out", override))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_images_grow_to_their_own_size_and_the_network_sees_that(root, tmp_path, monkeypatch):
    cfg = conf(root, tmp_path / "out", "epochs=10", "smallest=18", "grown=0.6")
    made = training.Training(cfg, cifar.load(root, "train"), tmp_path)
    assert [made.side(epoch) for epoch in range(10)] == [18, 20, 20, 24, 24, 28, 32, 32, 32, 32]
    seen = []
    made.module.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2:]))
    for epoch in (0, 3, 9):
        made.epochs = epoch
        made.epoch(lambda n: None)
    assert seen == [(side, side) for side in (18, 24, 32) for _ in range(5)]


def test_images_are_never_shrunk_unless_asked(root, tmp_path):
    cfg = conf(root, tmp_path / "out", "grown=1")
    made = training.Training(cfg, cifar.load(root, "train"), tmp_path)
    assert {made.side(epoch) for epoch in range(3)} == {32}


def test_what_is_left_counts_pixels(root, tmp_path):
    cfg = conf(root, tmp_path / "out", "epochs=4", "smallest=16", "grown=0.5")
    made = training.Training(cfg, cifar.load(root, "train"), tmp_path)
    made.epochs, made.seconds = 1, 1.0  # of 16, 24, 32 and 32 pixels
    assert made.left() == pytest.approx((24**2 + 2 * 32**2) / 16**2)


def test_shrunk_images_are_means_of_what_they_cover():
    x = torch.arange(2 * 3 * 8 * 8).float().view(2, 3, 8, 8)
    small = in_memory.shrunk(x, 4)
    assert small.shape == (2, 3, 4, 4)
    assert torch.allclose(small[..., 1:-1, 1:-1], nn.functional.avg_pool2d(x, 2)[..., 1:-1, 1:-1])
    assert in_memory.shrunk(x, 8) is x and in_memory.shrunk(x, 9) is x


def test_batch_norms_and_biases_are_not_decayed(root, tmp_path):
    made = training.Training(
        conf(root, tmp_path / "out", "weight_decay=0.5"), cifar.load(root, "train"), tmp_path
    )
    decays = {
        id(p): group["weight_decay"]
        for group in made.optimiser.param_groups
        for p in group["params"]
    }
    for module in made.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert decays[id(module.weight)] == decays[id(module.bias)] == 0
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            assert decays[id(module.weight)] == 0.5
    assert len(decays) == len(list(made.module.parameters()))


def test_the_command_line_trains(root, tmp_path):
    command = [sys.executable, str(CONF.parent / "bench/train.py"), *QUICK, f"data.root={root}"]
    command.append("out=here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "here/cifar_resnet8/cifar_resnet8.json").read_text())
    assert card["command"] == f"python bench/train.py {' '.join(QUICK)} data.root=DIR out=DIR"
    assert {path.name for path in tmp_path.iterdir()} == {"here", "outputs", "images"}


def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(tmp_path, monkeypatch, capsys):
    cfg = conf(tmp_path / "none", tmp_path / "out")
    with pytest.raises(SystemExit) as stopped:
        train.main.__wrapped__(cfg)
    assert stopped.value.code == 2 and "no such folder" in capsys.readouterr().out
    monkeypatch.setattr(training, "train", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as stopped:
        train.main.__wrapped__(cfg)
    assert stopped.value.code == 130 and "the same command goes on" in capsys.readouterr().out
