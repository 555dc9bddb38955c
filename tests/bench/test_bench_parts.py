"""Weights, downloads, statistics and the record of the harness, one by one."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from bench.errors import UserError
from bench.inputs import models
from bench.measures.stats import (
    median_iqr,
    quantile,
    relative_error,
    relative_error_interval,
    wilson,
)
from bench.output.record import Record


def quiet(_):
    """Says nothing."""


def small(bias=True):
    return nn.Linear(3, 2, bias=bias)


def conf(target="test_bench_parts.small", weights="random", packages=(), **args):
    keys = {"_target_": target, "weights": weights, "packages": list(packages), "args": args}
    return OmegaConf.create(keys)


# ---- weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_are_found_where_people_put_them(tmp_path, wrapped, prefix):
    torch.manual_seed(1)
    source = small()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    torch.save({wrapped: state} if wrapped else state, tmp_path / "w.pth")
    net, weights = models.build(conf(weights=str(tmp_path / "w.pth")), 0, quiet)
    assert torch.equal(net.weight, source.weight) and not weights.random and not net.training


def test_safetensors_files_are_read(tmp_path):
    source = small()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    net, _ = models.build(conf(weights=str(tmp_path / "w.safetensors")), 0, quiet)
    assert torch.equal(net.weight, source.weight)


def test_random_weights_follow_the_seed():
    one, two, other = (models.build(conf(), seed, quiet)[0] for seed in (4, 4, 5))
    assert torch.equal(one.weight, two.weight) and not torch.equal(one.weight, other.weight)


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="does not fit Linear.*weight"):
        models.build(conf(weights=str(tmp_path / "w.pth")), 0, quiet)


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_files_that_hold_no_weights_are_refused(tmp_path, content):
    path = tmp_path / "w.pth"
    torch.save([1, 2], path) if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="state dict"):
        models.build(conf(weights=str(path)), 0, quiet)


def test_unknown_weights_list_the_published_ones():
    with pytest.raises(UserError, match="no such file.*IMAGENET1K_V2.*IMAGENET1K_V1"):
        models.build(conf("torchvision.models.resnet50", "IMAGENET1K_V3"), 0, quiet)


@pytest.mark.parametrize(
    "target, args, names",
    [
        ("nowhere.net", {}, "nowhere"),
        ("torchvision.models.resnet", {}, "torchvision.models.resnet"),
        ("test_bench_parts.small", {"width": 3}, "width"),
        ("builtins.dict", {}, "returned a dict"),
    ],
)
def test_a_wrong_target_is_refused_by_name(target, args, names):
    with pytest.raises(UserError, match=names):
        models.build(conf(target, **args), 0, quiet)


def raising():
    raise FileNotFoundError("no table x.csv")


def test_a_function_that_raises_is_named_with_the_place():
    with pytest.raises(UserError, match=r"FileNotFoundError: no table x.csv \(.*parts.py, line "):
        models.build(conf("test_bench_parts.raising"), 0, quiet)


@pytest.mark.parametrize(
    "net, names",
    [
        (nn.Conv2d(1, 2, 3), "expected input.* to have 1 channels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), "cannot read images"),
        (nn.Conv2d(3, 2, 3), r"gives shape \[2, 2, 7, 7\]"),
        (nn.MaxPool2d(3, return_indices=True), "gives a tuple"),
    ],
)
def test_a_network_that_does_not_fit_the_images_is_refused(net, names):
    with pytest.raises(UserError, match=names):
        models.classes(net, torch.zeros(2, 3, 9, 9))


def test_weights_inside_a_package_are_found_without_importing_it(tmp_path, monkeypatch):
    source = small()
    torch.save(source.state_dict(), tmp_path / "small.pth")
    info = tmp_path / "small_model-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small-model\nVersion: 1\n")
    (info / "RECORD").write_text("gone.pth,,\nsmall.pth,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    packages = ["not-installed-at-all", "small-model"]
    net, weights = models.build(conf(weights="auto", packages=packages), 0, quiet)
    assert torch.equal(net.weight, source.weight)
    assert (weights.name, weights.random) == ("small.pth", False)


def test_without_the_package_the_weights_are_random_and_pip_is_named():
    said = []
    _, weights = models.build(conf(weights="auto", packages=["no-such-model"]), 0, said.append)
    assert weights.random and "pip install no-such-model" in said[-1] and "random" in said[-1]
    with pytest.raises(UserError, match="pip install no-such-model"):
        models.build(conf("no_such_model.Net", packages=["no-such-model"]), 0, quiet)


def test_settled_batch_norms_normalise_the_images():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.BatchNorm2d(5)).eval()
    x = 7 * torch.randn(4, 3, 9, 9) + 3
    models.settle(net, x)
    y = net[:2](x)
    assert torch.allclose(y.mean((0, 2, 3)), torch.zeros(5), atol=1e-4)
    assert torch.allclose(y.std((0, 2, 3)), torch.ones(5), atol=1e-2)
    assert not any(m.training for m in net.modules()) and net[1].momentum == 0.1


# ---- record and statistics ---------------------------------------------------------------------


def test_the_record_is_flat_strict_json_after_every_addition(tmp_path):
    record = Record(tmp_path / "new" / "folder")
    assert json.loads(record.path.read_text()) == {"complete": False, "notes": []}
    record.add(K=3, fs={"x": math.nan, "y": torch.tensor([1, 2]), "z": np.float64(0.5)})
    record.add(machine={"cpu": "c"})
    record.note("careful")

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    read = json.loads(record.path.read_text(), parse_constant=refuse)
    assert read == {
        "complete": False,
        "notes": ["careful"],
        "K": 3,
        "fs.x": None,
        "fs.y": [1, 2],
        "fs.z": 0.5,
        "machine": {"cpu": "c"},
    }
    record.close()
    assert [path.name for path in record.path.parent.iterdir()] == ["results.json"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_numpys(values, q):
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), abs=1e-6)


def test_median_and_quartiles():
    assert median_iqr([4.0, 1.0, 3.0, 2.0]) == (2.5, [1.75, 3.25])
    assert median_iqr([7.0]) == (7.0, [7.0, 7.0])


@pytest.mark.parametrize(
    "hits, trials, expected",
    [(5, 10, (0.2366, 0.7634)), (81, 263, (0.2553, 0.3662)), (0, 1, (0.0, 0.7935))],
)
def test_wilson_intervals_are_the_textbooks(hits, trials, expected):
    assert wilson(hits, trials) == pytest.approx(expected, abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_intervals_hold_the_share_and_mirror(case):
    hits, trials = case
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1
    assert wilson(trials - hits, trials) == pytest.approx([1 - high, 1 - low])


def test_the_relative_error_is_a_quotient_of_norms_over_all_images():
    a, b = torch.randn(20, 7, dtype=torch.float64), torch.randn(20, 7, dtype=torch.float64)
    errors, norms = ((a - b).square().sum(1).tolist(), b.square().sum(1).tolist())
    value = relative_error(errors, norms)
    assert value == pytest.approx(float((a - b).norm() / b.norm()))
    low, high = relative_error_interval(errors, norms)
    assert low < value < high
    assert relative_error_interval(errors, norms) == [low, high]  # the seed is fixed
    # Four times the images: about half the width.
    lower, higher = relative_error_interval(errors * 4, norms * 4)
    assert 0.3 < (higher - lower) / (high - low) < 0.7
    assert relative_error([0.0], [0.0]) is relative_error_interval([1.0], [1.0]) is None
    assert relative_error_interval([4.0, 4.0], [1.0, 1.0]) == [2.0, 2.0]


def test_wilson_refuses_nonsense():
    with pytest.raises(ValueError, match="hits=3, trials=2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="trials=0"):
        wilson(0, 0)
