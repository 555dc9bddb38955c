"""Shared by the tests of the command: how it is called, images of digits, a converted network.

Packages that a machine may lack are imported where they are used: pytest reads this file first.
"""

import numpy as np
import pytest
import torch

import fskernel as fs


@pytest.fixture(scope="session")
def call():
    """`fskernel ...` in this process: what it printed; its exit code has to be `code`."""
    from typer.testing import CliRunner

    from fskernel.command.app import app

    def called(*words, code=0):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == code, done.output
        assert code == 0 or not done.exception or isinstance(done.exception, SystemExit)
        return done

    return called


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """24 images of the test part in folders 0 to 9, and what else lies about in folders."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    found = load_digits()
    for i in range(1200, 1224):
        to = folder / str(found.target[i])
        to.mkdir(exist_ok=True)
        levels = np.rint(found.images[i] * 255 / 16).astype(np.uint8)
        Image.fromarray(levels).save(to / f"{i}.png")
    (folder / "notes.txt").write_text("no image")
    (folder / ".thumbnails").mkdir()
    Image.new("L", (8, 8)).save(folder / ".thumbnails" / "small.png")
    return folder


@pytest.fixture(scope="session")
def pixels(digits):
    """The same images in the order of their names, as the network reads them: [24, 1, 8, 8]."""
    from PIL import Image

    prepared = fs.models.preprocessing("digits_cnn")
    paths = sorted(digits.glob("[0-9]/*.png"))
    return torch.stack([prepared(Image.open(path)) for path in paths])


@pytest.fixture(scope="session")
def converted(digits, call, tmp_path_factory):
    """A network of K=4 in a file."""
    path = tmp_path_factory.mktemp("converted") / "net.safetensors"
    call("convert", "digits_cnn", "--images", digits, "-K", 4, "-o", path)
    return path
