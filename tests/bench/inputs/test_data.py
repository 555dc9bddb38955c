"""Images: labels, sizes, and what happens to those that cannot be read."""

import pytest
import torch
from harness import composed, write_cifar, write_image
from PIL import Image

from bench.errors import UserError
from bench.inputs import cifar, material
from bench.inputs.data import PHOTOGRAPHS, open_images
from bench.output.record import Record

MODES = {
    "png": "L RGBA P 1 I;16",
    "gif": "L RGBA P 1",
    "tif": "L RGBA P CMYK 1 I;16",
    "jpg": "CMYK",
}


def opened(*overrides, wanted=4, seed=0):
    root = [o for o in overrides if o.startswith("data.root=")]
    cfg = composed("model=cifar_resnet8", *(o for o in overrides if o not in root))
    cfg.data.root = root[0].partition("=")[2] if root else cfg.data.root
    return open_images(cfg.data, cfg.model.input, wanted, seed)


def test_the_sample_photographs_are_all_there_and_need_no_network(monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("the sample photographs opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    images = opened(wanted=14)
    assert len({item.path for item in images.items}) == len(PHOTOGRAPHS) == 6
    x, labels = next(images.batches(14, 14))
    assert x.shape == (14, 3, 32, 32) and x.dtype == torch.float32 and labels is None
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert len({image.numpy().tobytes() for image in x}) == 14  # no crop twice
    assert not images.skipped


def test_sample_crops_depend_on_the_seed_and_on_nothing_else():
    def crops(seed):
        return next(opened(wanted=14, seed=seed).batches(14, 14))[0]

    assert torch.equal(crops(1), crops(1))
    assert torch.equal(crops(1)[:6], crops(2)[:6])  # the centre crops
    assert not torch.equal(crops(1)[6:], crops(2)[6:])


def test_class_folders_give_sorted_labels(tmp_path):
    for name, colour in (("b", (0, 255, 0)), ("a", (255, 0, 0)), ("c", (0, 0, 255))):
        for i in range(2):
            write_image(tmp_path / name / f"{i}.PNG", colour)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    images = opened("data=imagefolder", f"data.root={tmp_path}")
    assert images.labelled and images.classes == 3 and len(images.items) == 6
    x, labels = next(images.batches(6, 6))
    # A folder's colour is its label's channel.
    assert x.mean((2, 3)).argmax(1).tolist() == labels.tolist()
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]


def test_hidden_folders_are_no_classes_and_not_searched(tmp_path):
    """Their names sort before all others: every label would be one too high."""
    root = tmp_path / ".data" / "set"  # the root itself may be hidden
    for name in (
        ".git",
        ".checkpoints",
        "..x",
        "a",
        "a/.thumbnails",
        "b/deep",
        "b/deep/.x/y",
    ):
        write_image(root / name / "0.png", (255, 0, 0) if name == "a" else (0, 255, 0))
    write_image(root / "b" / "deep" / ".hidden.png")
    images = opened("data=imagefolder", f"data.root={root}")
    found = {(item.path.relative_to(root).as_posix(), item.label) for item in images.items}
    assert found == {("a/0.png", 0), ("b/deep/0.png", 1)} and images.classes == 2
    assert not images.others
    for name in ("a", "b"):
        (root / name).rename(root / f".{name}")
    with pytest.raises(UserError, match="expected class folders with images"):
        opened("data=imagefolder", f"data.root={root}")


def test_wnid_files_take_the_index_as_label(tmp_path):
    for index in (0, 7, 12):
        write_image(tmp_path / f"{index:04d}_n0000{index:04d}.jpg")
    write_image(tmp_path / "holiday.jpg")
    images = opened("data=wnid_files", f"data.root={tmp_path}")
    assert sorted(item.label for item in images.items) == [0, 7, 12]
    assert [path.split("/")[-1] for path in images.skipped] == ["holiday.jpg"]


def test_the_order_is_shuffled_by_the_seed(tmp_path):
    for index in range(20):
        write_image(tmp_path / f"{index:04d}_n0000{index:04d}.png", size=(2, 2))

    def order(seed):
        images = opened("data=wnid_files", f"data.root={tmp_path}", seed=seed)
        return [item.label for item in images.items]

    assert order(3) == order(3) != order(4)
    assert order(3) != sorted(order(3)) == list(range(20))


def test_unreadable_images_are_named_and_counted_and_replaced_by_the_next(tmp_path):
    good = [write_image(tmp_path / "a" / f"{i}.jpg", size=(300, 200)) for i in range(4)]
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    (tmp_path / "a" / "text.jpg").write_text("hello")
    (tmp_path / "a" / "cut.jpg").write_bytes(good[0].read_bytes()[:300])
    images = opened("data=imagefolder", f"data.root={tmp_path}")
    got = list(images.take(4))
    assert len(got) == 4
    assert len(list(images.take(4))) == 0
    assert {path.split("/")[-1] for path in images.skipped} == {
        "empty.jpg",
        "text.jpg",
        "cut.jpg",
    }
    assert all(reason for reason in images.skipped.values())


@pytest.mark.parametrize(
    "suffix, mode",
    [(s, m) for s, modes in MODES.items() for m in modes.split()],
)
def test_every_colour_mode_becomes_three_channels(tmp_path, suffix, mode):
    (tmp_path / "a").mkdir()
    Image.new(mode, (50, 37)).save(tmp_path / "a" / f"x.{suffix}")
    images = opened("data=imagefolder", f"data.root={tmp_path}")
    (x, _), *_ = images.take(1)
    assert x.shape == (3, 32, 32) and torch.isfinite(x).all() and not images.skipped


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey_are_not_cut_off(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    Image.new("I;16", (40, 40), 0x8000).save(tmp_path / "a" / f"x.{suffix}")
    images = opened("data=imagefolder", f"data.root={tmp_path}")
    (x, _), *_ = images.take(1)
    grey = (128 / 255 - torch.tensor(images.mean)) / torch.tensor(images.std)
    assert torch.allclose(x, grey[:, None, None].expand_as(x), atol=1e-5)


def test_what_is_no_image_or_has_no_fixed_range_is_told(tmp_path):
    write_image(tmp_path / "a" / "good.jpg")
    Image.new("F", (40, 40), 0.5).save(tmp_path / "a" / "float.tif")
    for name in ("notes.txt", "b.HEIC", "c.heic", ".hidden", "README"):
        (tmp_path / "a" / name).write_text("?")
    images = opened("data=imagefolder", f"data.root={tmp_path}")
    assert dict(images.others) == {".txt": 1, ".heic": 2, "without an ending": 1}
    assert len(list(images.take(9))) == 1
    ((path, reason),) = images.skipped.items()
    assert path.endswith("float.tif") and "32 bits" in reason


def test_resize_keeps_the_ratio_and_crops_the_centre(tmp_path):
    image = Image.new("RGB", (120, 40), (0, 0, 0))
    image.paste((255, 255, 255), (40, 0, 80, 40))  # the middle third is white
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "x.png")
    images = opened("data=imagefolder", f"data.root={tmp_path}")
    (x, _), *_ = images.take(1)
    white = (1 - torch.tensor(images.mean)) / torch.tensor(images.std)
    assert torch.allclose(x[:, 16, 2:30], white[:, None].expand(3, 28), atol=0.02)


def test_evaluated_and_calibrating_images_are_different_ones_where_there_are_enough():
    first, rest, apart = opened(wanted=10).split(6, 4)
    assert apart and len(first.items) == 6 and len(rest.items) == 4
    assert not {(i.path, i.variant) for i in first.items} & {
        (i.path, i.variant) for i in rest.items
    }
    first, rest, apart = opened(wanted=10).split(8, 4)
    assert not apart and len(first.items) == len(rest.items) == 10


def test_without_a_number_all_that_do_not_calibrate_are_evaluated():
    first, rest, apart = opened(wanted=10).split(None, 4)
    assert apart and (len(first.items), len(rest.items)) == (6, 4)
    first, rest, apart = opened(wanted=10).split(None, 6)
    assert not apart and len(first.items) == len(rest.items) == 10


def test_cifar_images_are_those_of_the_test_split_in_a_seeded_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "c")

    def read(seed):
        images = opened("data=cifar10", f"data.root={tmp_path}/c", seed=seed)
        assert images.labelled and images.classes == 10 and len(images.items) == 20
        return next(images.batches(20, 20))

    x, labels = read(1)
    test = cifar.load(tmp_path / "c", "test")
    cfg = composed("model=cifar_resnet8").model.input
    wanted = cifar.normalised(test.images, list(cfg.mean), list(cfg.std))
    order = [int((wanted == image).flatten(1).all(1).nonzero()) for image in x]
    assert sorted(order) == list(range(20)) != order
    assert torch.equal(test.labels[order], labels)
    assert torch.equal(read(1)[0], x) and not torch.equal(read(2)[0], x)


def test_cifar_calibrates_on_the_training_split_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = composed("model=cifar_resnet8", "data=cifar10", "calibration=7")
    cfg.data.root = str(write_cifar(tmp_path / "c"))
    images = open_images(cfg.data, cfg.model.input, 0, cfg.seed)
    evaluated, calibrating = material.share_out(cfg, images, Record(tmp_path))
    assert len(evaluated.items) == 20 and len(calibrating.items) == 50
    x, labels = next(calibrating.batches(7, 7))
    assert len(labels.unique()) > 2  # shuffled
    train = cifar.load(tmp_path / "c", "train")
    wanted = cifar.normalised(train.images, images.mean, images.std)
    assert all((wanted == image).flatten(1).all(1).sum() == 1 for image in x)


@pytest.mark.parametrize("kind", ["imagefolder", "wnid_files", "cifar10"])
def test_a_missing_or_empty_folder_is_a_clear_error(tmp_path, kind, monkeypatch):
    monkeypatch.delenv("FSKERNEL_DATA", raising=False)
    with pytest.raises(UserError, match="data.root=DIR"):
        opened(f"data={kind}")
    with pytest.raises(UserError, match="no such folder"):
        opened(f"data={kind}", f"data.root={tmp_path}/missing")
    with pytest.raises(UserError, match=f"data.root={tmp_path}"):
        opened(f"data={kind}", f"data.root={tmp_path}")


def test_the_last_batch_may_be_smaller():
    images = opened(wanted=5)
    assert [len(x) for x, _ in images.batches(5, 2)] == [2, 2, 1]
    assert list(images.batches(5, 2)) == []
