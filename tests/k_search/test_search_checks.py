"""Risk: a search that cannot succeed measures first, or is refused without a name and a cure."""

import pytest
import torch
from searched import N, X, Y, evaluating

import fskernel as fs


def test_no_K_within_the_budget_says_the_best_and_the_cure(module):
    with pytest.raises(
        fs.BudgetError, match="no K of 2..3 keeps logit_error within budget=0.01"
    ) as e:
        fs.search(module, X, 0.01, criterion="logit_error", K_range=(2, 3), timing=False)
    assert [row["K"] for row in e.value.rows] == [2, 3]
    best = min(row["logit_error"] for row in e.value.rows)
    text = str(e.value)
    assert f"the best is K=3, which loses {best:.4g}" in text
    assert "raise K_range" in text and "weight_bits=16" in text
    budget = float(text.split("allow budget=")[1].split(",")[0])
    assert best <= budget < best + 1e-3
    assert (
        fs.search(
            module,
            X,
            budget,
            criterion="logit_error",
            K_range=(2, 3),
            per_layer=False,
            timing=False,
        ).K
        == 3
    )


@pytest.mark.parametrize(
    "options,error,message",
    [
        ({"budget": -0.1}, ValueError, "budget=-0.1"),
        ({"budget": 1.0}, ValueError, "budget=1.0 is not a proportion"),
        ({"budget": float("nan")}, ValueError, "budget=nan"),
        ({"budget": True}, TypeError, "budget=True"),
        ({"budget": "1%"}, TypeError, "budget='1%'"),
        ({"criterion": "accuracy"}, ValueError, "criterion='accuracy' is unknown: use one of"),
        ({"criterion": "top1"}, ValueError, "needs labels"),
        ({"K_range": 8}, TypeError, "K_range=8"),
        ({"K_range": (3, 4, 5)}, TypeError, "K_range="),
        ({"K_range": (8, 3)}, ValueError, "smallest K first"),
        ({"K_range": (3, 16)}, ValueError, "K=16"),
        ({"max_evaluations": 0}, ValueError, "per_layer=False"),
        ({"max_evaluations": 1.5}, TypeError, "max_evaluations=1.5"),
        ({"K": 8}, TypeError, "K_range bounds it"),
        ({"alfa": 6.0}, TypeError, "alfa"),
        ({"alpha": "largest"}, ValueError, "alpha='largest'"),
    ],
)
def test_bad_arguments_are_refused_before_any_network_is_measured(
    module, options, error, message, monkeypatch
):
    def measure(*args):
        raise AssertionError("it was measured")

    monkeypatch.setattr(evaluating.Evaluator, "measure", measure)
    with pytest.raises(error, match=message):
        fs.search(module, X, **{"timing": False} | options)


class Shuffled:
    """Another order every time it is read."""

    def __init__(self):
        self.seed = 0

    def __iter__(self):
        self.seed += 1
        generator = torch.Generator().manual_seed(self.seed)
        return iter(X[torch.randperm(N, generator=generator)].split(20))


class Shrinking:
    """Fewer images every time it is read."""

    def __init__(self):
        self.left = N

    def __iter__(self):
        self.left -= 10
        return iter(X[: self.left].split(16))


@pytest.mark.parametrize(
    "calibration,error,message",
    [
        (lambda: iter([X]), ValueError, "read only once.*DataLoader"),
        (lambda: (x for x in X.split(8)), ValueError, "generator, which can be read only once"),
        (lambda: zip(X.split(8), Y.split(8)), ValueError, "zip, which can be read only once"),
        (Shuffled, ValueError, "shuffle=False"),
        (Shrinking, ValueError, "shuffle=False"),
        (lambda: [X, X[:0], (X, Y)], ValueError, "labels in 1 batch"),
        (lambda: (X, Y.float()), TypeError, "labels torch.float32"),
        (lambda: (X, Y[:-1]), TypeError, r"labels torch.int64 \(39,\) for 40 images"),
        (lambda: (X, Y + 1), ValueError, "labels from 1 to 5.*5 classes"),
        (lambda: [(X, ["cat"] * N)], TypeError, "labels of type list"),
        (lambda: [], ValueError, "empty"),
        (lambda: X[:0], ValueError, "empty"),
        (lambda: X[0], ValueError, "unsqueeze"),
        (lambda: None, TypeError, "NoneType"),
        (lambda: X.byte(), TypeError, "uint8"),
    ],
)
def test_bad_calibration_is_refused(module, calibration, error, message):
    with pytest.raises(error, match=message):
        fs.search(module, calibration(), 0.5, K_range=(7, 8), timing=False)
