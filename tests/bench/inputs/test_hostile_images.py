"""Risk: a zip, image or cache fills the memory, starts a program, or is believed wrongly."""

import io
import os
import resource
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from harness import composed, jpeg, write_cifar, write_zip
from PIL import Image

from bench.errors import UserError
from bench.inputs import cifar, zips
from bench.inputs.data import open_images
from fskernel import image_files, preprocessing


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The cache of decoded images is the test's own."""
    monkeypatch.chdir(tmp_path)


def load(tmp_path):
    return cifar.load(tmp_path, "train", tmp_path / "cache")


def refused(tmp_path, reason, most=2**25):
    """Loading says why not, in one sentence, with little memory, and keeps nothing."""
    tracemalloc.start()
    with pytest.raises(UserError, match=f"(?s)^data.root: .*{reason}"):
        load(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < most
    tracemalloc.stop()
    assert not (tmp_path / "cache").exists()


# ---- zips --------------------------------------------------------------------------------------


def write(path, contents, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def lie(path, name, **fields):
    """Changes what the headers say of an entry: size, method, checksum or flags; both of them."""
    at = {"size": (22, 24, "<I"), "packed": (18, 20, "<I"), "crc": (14, 16, "<I")}
    at |= {"method": (8, 10, "<H"), "flags": (6, 8, "<H")}
    data = bytearray(path.read_bytes())
    for signature, column, start in ((b"PK\3\4", 0, 30), (b"PK\1\2", 1, 46)):
        found = -1
        while (found := data.find(signature, found + 1)) >= 0:
            if data[found + start :].startswith(name.encode()):
                for field, value in fields.items():
                    struct.pack_into(at[field][2], data, found + at[field][column], value)
    path.write_bytes(data)


def bomb(megabytes=64):
    return b"\0" * (megabytes * 2**20)


@pytest.mark.parametrize("name", ["cat/0.jpg", "ship/zeros.png"])
def test_an_entry_that_unpacks_to_much_is_not_unpacked(tmp_path, name):
    write(tmp_path / "train.zip", {"cat/1.jpg": jpeg(3, 1), name: bomb()})
    assert (tmp_path / "train.zip").stat().st_size < 2**19
    refused(tmp_path, f"{name} in .* has 67,108,864 bytes unpacked.*at most 65,536")


@pytest.mark.parametrize("said", [0, 1, 1000, 65536])
def test_an_entry_that_lies_about_its_size_is_unpacked_no_further_than_allowed(tmp_path, said):
    content = bomb()
    write(tmp_path / "train.zip", {"cat/0.jpg": content})
    del content
    lie(tmp_path / "train.zip", "cat/0.jpg", size=said)
    refused(tmp_path, "train.zip cannot be read|cannot be read as an image")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_all_at_once_are_not_used(tmp_path, method):
    write(tmp_path / "train.zip", {"cat/0.jpg": bomb(1)}, method)
    lie(tmp_path / "train.zip", "cat/0.jpg", size=900)
    refused(tmp_path, f"cat/0.jpg in .* is packed by method {method}: pack it stored or deflated")


@pytest.mark.parametrize("method", [1, 9, 93, 99])
def test_unknown_methods_are_named(tmp_path, method):
    write(tmp_path / "train.zip", {"cat/0.jpg": jpeg(3, 0)})
    lie(tmp_path / "train.zip", "cat/0.jpg", method=method)
    refused(tmp_path, f"is packed by method {method}")


def test_many_entries_that_unpack_to_much_together_are_refused(tmp_path):
    contents = {f"cat/{i:04d}.jpg": bytes(65536) for i in range(300)}
    write(tmp_path / "train.zip", contents)
    refused(tmp_path, "claims to unpack to 19,660,800 bytes")


def test_more_files_than_a_split_can_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "ENTRIES", 49)
    write_cifar(tmp_path / "c")
    with pytest.raises(UserError, match="train.zip holds 50 files: at most 49"):
        cifar.load(tmp_path / "c", "train")
    monkeypatch.setattr(zips, "ENTRIES", 50)
    assert len(cifar.load(tmp_path / "c", "train")) == 50
    monkeypatch.undo()
    assert zips.ENTRIES >= 60_000, "CIFAR-10 has 50,000 and 10,000"


@pytest.mark.parametrize(
    "fields",
    [{"crc": 7}, {"flags": 1}, {"packed": 5}, {"packed": 2**31}, {"size": 3}, {"method": 0}],
    ids=str,
)
def test_headers_that_do_not_fit_are_one_sentence(tmp_path, fields):
    write(tmp_path / "train.zip", {"cat/0.jpg": bytes(range(256)) * 9, "dog/1.jpg": jpeg(5, 1)})
    lie(tmp_path / "train.zip", "cat/0.jpg", **fields)
    refused(tmp_path, "cannot be read")


def test_zips_with_random_damage_are_one_sentence_or_read_right(tmp_path):
    write_cifar(tmp_path / "c", train=1)
    good = (tmp_path / "c" / "train.zip").read_bytes()
    whole = cifar.load(tmp_path / "c", "train").images
    dice, read = np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(good)
        kind = dice.integers(3)
        for at in dice.integers(0, len(data), 3):
            data[at] = dice.integers(256)
        if kind == 1:
            del data[dice.integers(len(data)) :]
        if kind == 2:  # in the table at the end
            data[-dice.integers(1, 600)] ^= 1 << dice.integers(8)
        (tmp_path / "train.zip").write_bytes(data)
        try:
            found = load(tmp_path)
            assert found.images.shape[1:] == (32, 32, 3) and len(found) <= len(whole)
            read += 1
        except UserError as error:
            assert "train.zip" in str(error)
    assert read < 75


def test_folders_and_other_images_than_jpegs_are_still_read(tmp_path):
    def encoded(kind, colour):
        content = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(content, kind)
        return content.getvalue()

    black = {f"a/cat/{i}.bmp": encoded("BMP", (0, 0, 0)) for i in range(9)}
    write(tmp_path / "train.zip", {"a/": b"", "ship/1.png": encoded("PNG", (1, 2, 3)), **black})
    found = load(tmp_path)
    assert found.labels.tolist() == [3] * 9 + [8]
    assert found.images[9, 0, 0].tolist() == [1, 2, 3] and not found.images[:9].any()


# ---- images ----------------------------------------------------------------------------------


def png(width, height):
    """A PNG of one grey level; few bytes whatever its size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def claimed(width, height):
    """A PNG that only claims its size."""
    data = bytearray(png(1, 1))
    struct.pack_into(">II", data, 16, width, height)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        claimed(60_000, 60_000),  # Pillow's DecompressionBombError
        claimed(12_000, 12_000),  # its warning
        claimed(2**31 - 1, 2**31 - 1),
        b"\x89PNG\r\n\x1a\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n",
        b"P6 99999999999999999999 1 255\n",
        b"GIF89a\0\0\0\0\0\0\0;",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 40,
        b"",
    ],
    ids=["bomb", "half a bomb", "huge", "png", "eps", "ppm", "gif", "webp", "tiff", "empty"],
)
@pytest.mark.parametrize("place", ["zip", "folder"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_that_are_none_are_named_and_not_decoded(tmp_path, content, place):
    if place == "zip":
        write_zip(tmp_path / "train.zip", {"cat/0.jpg": content})
        return refused(tmp_path, "cat/0.jpg in .*(cannot be read as an image|has .* pixels)")
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "0.png").write_bytes(content)
    (tmp_path / "d" / "a" / "1.png").write_bytes(png(40, 50))
    images = folder(tmp_path / "d")
    assert len(list(images.take(5))) == 1
    ((path, reason),) = images.skipped.items()
    assert path.endswith("0.png") and reason


def folder(path, **size):
    cfg = composed("model=cifar_resnet8", "data=imagefolder")
    cfg.data.root = str(path)
    return open_images(cfg.data, cfg.model.input, 4, 0)


def test_no_program_is_started_for_a_image(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file's name is."""
    from PIL import EpsImagePlugin

    programs = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: programs.append(args))
    content = io.BytesIO()
    Image.new("RGB", (32, 32)).save(content, "EPS")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_bytes(content.getvalue())
    (tmp_path / "a" / "1.jpg").write_bytes(jpeg(3, 1))
    images = folder(tmp_path)
    assert len(list(images.take(5))) == 1 and len(images.skipped) == 1
    write_zip(tmp_path / "train.zip", {"cat/0.jpg": content.getvalue()})
    refused(tmp_path, "cannot be read as an image")
    assert not programs


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 60_001)])
def test_a_long_image_is_not_made_larger_than_memory(tmp_path, size):
    """Resized to a shorter side of 37 pixels it would have 41 million, or 76 times as many."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(png(*size))
    (tmp_path / "a" / "1.png").write_bytes(png(40, 30))
    images = folder(tmp_path)
    images.resize = 320
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(list(images.take(5))) == 1
    assert "resized to" in "".join(images.skipped.values())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - limit < 2**18  # kB


def test_the_largest_image_is_decoded_and_one_more_row_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(preprocessing, "PIXELS", 40 * 50)
    for width, height in ((40, 50), (40, 51)):
        with pytest.raises(image_files.Unreadable) if height > 50 else io.BytesIO():
            with image_files.opened(io.BytesIO(png(width, height))) as image:
                assert image.convert("RGB").size == (width, height)


# ---- the cache ---------------------------------------------------------------------------------


def cached(tmp_path):
    write_cifar(tmp_path / "c", train=2)
    whole = cifar.load(tmp_path / "c", "train", tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    return whole, kept


WRONG = {
    "a tensor": lambda p, y: torch.zeros(3, 2),
    "a text": lambda p, y: "images",
    "no labels": lambda p, y: {"images": p},
    "a list": lambda p, y: {"images": p, "labels": y.tolist()},
    "texts": lambda p, y: {"images": "p", "labels": "y"},
    "another size": lambda p, y: {"images": p[:, :31], "labels": y},
    "another order": lambda p, y: {"images": p.permute(0, 3, 1, 2), "labels": y},
    "flat": lambda p, y: {"images": p.flatten(), "labels": y},
    "float images": lambda p, y: {"images": p.float(), "labels": y},
    "signed images": lambda p, y: {"images": p.to(torch.int8), "labels": y},
    "short labels": lambda p, y: {"images": p, "labels": y[:-1]},
    "long labels": lambda p, y: {"images": p[1:], "labels": y},
    "int32 labels": lambda p, y: {"images": p, "labels": y.int()},
    "labels by row": lambda p, y: {"images": p, "labels": y[:, None]},
    "a label 10": lambda p, y: {"images": p, "labels": y + 1},
    "a label -1": lambda p, y: {"images": p, "labels": y - 1},
    "nothing": lambda p, y: {"images": p[:0], "labels": y[:0]},
    "no memory": lambda p, y: {"images": p[:1].expand(20, -1, -1, -1), "labels": y},
    "sparse": lambda p, y: {"images": p.to_sparse(), "labels": y},
    "meta": lambda p, y: {"images": p.to("meta"), "labels": y},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_cache_of_something_else_is_made_anew(tmp_path, wrong):
    whole, kept = cached(tmp_path)
    torch.save(WRONG[wrong](whole.images, whole.labels), kept)
    for _ in range(2):
        again = cifar.load(tmp_path / "c", "train", tmp_path / "cache")
        assert torch.equal(again.images, whole.images)
        assert torch.equal(again.labels, whole.labels)
    assert cifar.read_cache(kept) is not None


def test_a_good_cache_is_believed(tmp_path, monkeypatch):
    whole, kept = cached(tmp_path)
    monkeypatch.setattr(cifar, "decode", None)
    torch.save({"images": whole.images.flip(0), "labels": whole.labels}, kept)
    again = cifar.load(tmp_path / "c", "train", tmp_path / "cache")
    assert torch.equal(again.images, whole.images.flip(0))


def test_a_zip_that_changed_with_equal_size_and_date_is_decoded_anew(tmp_path):
    _, kept = cached(tmp_path)
    path = tmp_path / "c" / "train.zip"
    before = path.stat()
    contents = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            contents[info.filename] = archive.read(info)
    a, b = sorted(contents)[0], sorted(contents)[-1]
    contents[a], contents[b] = contents[b], contents[a]
    write_zip(path, contents)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    again = cifar.load(tmp_path / "c", "train", tmp_path / "cache")
    with Image.open(io.BytesIO(contents[a])) as image:
        assert np.array_equal(again.images[0].numpy(), np.asarray(image))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, capsys):
    write_cifar(tmp_path / "c")
    (tmp_path / "cache").touch()
    assert len(cifar.load(tmp_path / "c", "train", tmp_path / "cache")) == 50
    assert "will be decoded again" in capsys.readouterr().out.replace("\n", " ")
