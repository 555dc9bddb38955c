"""Shared by the tests of the harness: compose a configuration, write images.

Hydra and PIL are imported where they are used: the tests for a GPU need neither, and run where they
are not installed.
"""

import copy
import functools
import io
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from bench import ROOT

CONF = ROOT / "conf"

QUICK = [
    "model=cifar_resnet8",
    "model.weights=random",
    "images=2",
    "calibration=2",
    "rounds=2",
    "warmup=1",
    "baseline.T=30",
    "baseline.simulate=transient",
    "figures=false",
    "report=false",
]


def composed(*overrides, **kwargs):
    """The configuration of `python bench/run.py *overrides`, on the CPU if nothing else is said."""
    if not any(o.startswith("backend=") for o in overrides):
        overrides = (*overrides, "backend=cpu")
    return copy.deepcopy(_composed(overrides, **kwargs))


@functools.cache
def _composed(overrides, **kwargs):
    pytest.importorskip("hydra", reason="needs hydra-core, which is not installed")
    from hydra import compose, initialize_config_dir

    from bench.inputs.config import register

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), **kwargs)


def started(script, *arguments, cwd, limit=None, **pipes):
    """The process of a script in bench/ as a user starts it, from another folder.

    `limit` is called in it first.
    """

    def prepare():
        # A test run in the background would hand on that signals are ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if limit is not None:
            limit()

    return subprocess.Popen(
        [sys.executable, str(ROOT / "bench" / script), *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100", "PYTHONPATH": "", "PYTHONUNBUFFERED": "1"},
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | pipes,
    )


BLOCKS = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def blocked(folder, *names):
    """Variables for a Python that has none of these packages; `folder` holds what sees to it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(BLOCKS.format(names=names))
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return {**os.environ, **plugins, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def printed_until(process, words):
    """What a process printed up to the first line with these words."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            break
    return "".join(lines)


def write_image(path, colour=(200, 30, 90), size=(40, 36)):
    """An image of one colour."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def jpeg(label, i, size=(32, 32), mode="RGB"):
    """The content of a JPEG file: noise around a colour that tells the class."""
    from PIL import Image

    dice = np.random.default_rng(100 * label + i)
    colour = np.array([25 * label, 255 - 25 * label, 128])
    pixels = np.clip(colour + dice.integers(-20, 20, (size[1], size[0], 3)), 0, 255)
    content = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(content, "JPEG")
    return content.getvalue()


def write_zip(path, images):
    """A zip file of contents by name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in images.items():
            archive.writestr(name, content)


def write_cifar(folder, train=5, test=2):
    """CIFAR-10 of so many images a class, not in the order of the labels; returns the folder."""
    from bench.inputs.cifar import CLASSES

    folder.mkdir(parents=True)
    for split, count, first in (("train", train, 0), ("test", test, 1000)):
        names = reversed(list(enumerate(CLASSES)))
        write_zip(
            folder / f"{split}.zip",
            {
                f"{name}/{i:04d}.jpg": jpeg(label, first + i)
                for label, name in names
                for i in range(count)
            },
        )
    return folder


RECORD = {
    "complete": True,
    "notes": ["calibrated on few images"],
    "model": "net",
    "weights": "trained",
    "K": 4,
    "batch": 1,
    "threads": 1,
    "data.kind": "imagefolder",
    "data.shown": "100 images",
    "images": 100,
    "random_weights": False,
    "fs.isa": "avx2",
    "machine": {
        "cpu": "Zen 5",
        "cores": 2,
        "cores_usable": 2,
        "memory_gib": None,
        "os": "Linux",
        "load_average": [0.0, 0.1, 0.2],
    },
    "versions": {"python": "3.11", "torch": "2.14", "fskernel": "0.1", "commit": None},
    "accuracy.ann": 0.9,
    "accuracy.ann_interval": [0.8, 0.95],
    "accuracy.agreement": 0.98,
    "accuracy.agreement_interval": [0.9, 0.99],
    "accuracy.logit_error": 0.02,
    "accuracy.logit_error_interval": [0.01, 0.03],
    "accuracy.fs_interval": [0.7, 0.95],
    "gate.least": 0.99,
    "ann.images_per_s": 25.0,
    "ann.images_per_s_iqr": [20.0, 26.0],
    "fs.images_per_s": 100.0,
    "fs.images_per_s_iqr": [80.0, 125.0],
    "fs.spikes_per_neuron": 1.5,
    "ratio.fs_to_ann": 3.0,
}


def recorded(K, top1, spikes=1000.0, **more):
    """What results.json has of a run, as far as comparisons of several read it."""
    known = top1 is not None
    ratio = top1 / 0.9 if known else None
    return RECORD | {
        "K": K,
        "accuracy.fs": top1,
        "gate.ratio": ratio,
        "gate.passed": ratio >= 0.99 if known else None,
        "fs.spikes_per_image": spikes,
        "fs.latency_steps": 10 * K,
        "fs.interval_steps": 2 * K,
        **more,
    }
