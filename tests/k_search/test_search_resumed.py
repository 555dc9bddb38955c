"""Risk: a search forgets what it measured, measures it twice, or believes what is not its own."""

import copy
import itertools
import json

import pytest
import torch
from searched import QUICK, N, X, Y, evaluating, searching

import fskernel as fs


def counted(monkeypatch):
    """The K of every conversion."""
    made = []

    def convert(module, calibration, K=None, **options):
        made.append(K)
        return fs.convert(module, calibration, K=K, **options)

    monkeypatch.setattr(searching, "convert", convert)
    return made


def test_a_resumed_search_measures_nothing_twice(module, tmp_path, monkeypatch):
    made = counted(monkeypatch)
    options = {"criterion": "logit_error", "folder": tmp_path / "new" / "folder", **QUICK}
    options["K_range"] = (3, 7)
    first = fs.search(module, (X, Y), 0.1, **options)
    assert len(made) >= first.evaluations > 8
    settings = [str(K) for K in made[:-1]]
    assert len(set(settings)) == len(settings)
    made.clear()
    again = fs.search(module, (X, Y), 0.1, **options)
    assert again.evaluations == 0 and made == [first.K], "only the network itself is made"
    assert (again.rows, again.K, again.ann_top1) == (first.rows, first.K, first.ann_top1)
    assert torch.equal(again.net(X), first.net(X))
    made.clear()
    other = fs.search(module, (X, Y), 0.05, per_layer=False, **options)
    assert other.evaluations == 0 and made == [other.K] and other.K > 4
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1


def test_an_interrupted_search_keeps_what_it_measured(module, tmp_path, monkeypatch):
    options = {"criterion": "logit_error", "K_range": (5, 6), **QUICK}
    whole = fs.search(module, X, 0.1, **options)
    measure = evaluating.Evaluator.measure
    left = itertools.count(5, -1)

    def interrupted(self, net):
        if next(left) == 0:
            raise KeyboardInterrupt
        return measure(self, net)

    with monkeypatch.context() as patch:
        patch.setattr(evaluating.Evaluator, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fs.search(module, X, 0.1, folder=tmp_path, **options)
    (path,) = tmp_path.iterdir()
    assert len(json.loads(path.read_text())["evaluations"]) == 5
    resumed = fs.search(module, X, 0.1, folder=tmp_path, **options)
    assert resumed.evaluations == whole.evaluations - 5
    assert (resumed.K, resumed.rows) == (whole.K, whole.rows)


def test_an_interrupted_write_leaves_the_file_before_it(module, tmp_path, monkeypatch):
    options = {"per_layer": False, "K_range": (7, 8), "folder": tmp_path, **QUICK}
    fs.search(module, X, 0.5, **options)
    (path,) = tmp_path.iterdir()
    before = path.read_text()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("fskernel.files.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fs.search(module, X, 0.5, **options | {"K_range": (6, 8)})
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


def test_damaged_evaluations_are_refused_by_name(module, tmp_path):
    options = {"per_layer": False, "K_range": (7, 8), "folder": tmp_path, **QUICK}
    fs.search(module, X, 0.5, **options)
    (path,) = tmp_path.iterdir()
    good = path.read_text()
    row = json.loads(good)["evaluations"]["8"]["spikes_per_image"]
    for bad in (good[:-20], "", "[]", "{}", good.replace(str(row), str(row + 1))):
        assert bad != good
        path.write_text(bad)
        with pytest.raises(ValueError, match=f"{path.name} is damaged.*delete it"):
            fs.search(module, X, 0.5, **options)
    path.write_text(good.replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="format 2.*delete it"):
        fs.search(module, X, 0.5, **options)
    path.write_text(good)
    assert fs.search(module, X, 0.5, **options).evaluations == 0
    with pytest.raises(NotADirectoryError, match="is a file"):
        fs.search(module, X, 0.5, **options | {"folder": path})


def test_what_changes_a_measurement_has_a_file_of_its_own(module, tmp_path):
    changed = copy.deepcopy(module)
    with torch.no_grad():
        changed.head.bias[0] += 1
    shifted = X.clone()
    shifted[N - 1, 2, 8, 8] += 0.01
    options = {"per_layer": False, "K_range": (8, 8), "folder": tmp_path, **QUICK}
    cases = [
        (module, X, {}),
        (changed, X, {}),
        (module, shifted, {}),
        (module, X[:-1], {}),
        (module, X.flip(0), {}),
        (module, (X, Y), {}),
        (module, (X, Y.flip(0)), {}),
        (module, X, {"weight_bits": 8}),
        (module, X, {"alpha": {"a": 2.0, "default": "max"}}),
        (module, X, {"alpha": {"a": 2.5, "default": "max"}}),
        (module, X, {"rounding": "floor"}),
    ]
    for i, (net, x, more) in enumerate(cases):
        assert fs.search(net, x, 0.9, **options | more).evaluations == 1, i
    assert len(list(tmp_path.iterdir())) == len(cases)
    again = {"alpha": {"default": "max", "a": 2.0}}  # said in another order
    assert fs.search(module, list(X.split(7)), 0.9, **options | again).evaluations == 0
