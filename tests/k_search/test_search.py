"""Risk: a search breaks its budget, misses a smaller K, or invents a measurement."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import SPIKING, Bottlenecks, Branches, images, settle
from searched import QUICK, N, X, Y, facts, loss, of_small, searching
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fskernel as fs


def fits_a_screen(result):
    lines = str(result).splitlines()
    assert len(lines) == len(result.rows) + 3 and max(map(len, lines)) <= 80
    (chosen,) = (line for line in lines[3:] if line.startswith("->"))
    row = next(row for row in result.rows if row["K"] == result.K)
    for cell in (
        row["label"].removeprefix("K="),
        f"{row['agreement']:.1%}",
        f"{row['logit_error']:.4f}",
    ):
        assert cell in chosen
    assert repr(result) == f"SearchResult({row['label']}, {len(result.rows)} rows)"


@pytest.mark.parametrize(
    "criterion,budget",
    [("agreement", 0.1), ("agreement", 0.025), ("top1", 0.03), ("logit_error", 0.1)],
)
def test_smallest_uniform_K_by_brute_force(module, quick, criterion, budget):
    found = {K: of_small(K) for K in range(2, 10)}
    expected = min(K for K in found if loss(found[K], criterion) <= budget + 1e-9)
    assert 2 < expected < 9, "the case decides nothing"
    result = fs.search(module, (X, Y), budget, criterion=criterion, per_layer=False, **quick)
    assert result.K == result.net.K == expected and type(result.K) is int
    assert [row["K"] for row in result.rows] == list(range(2, 10))
    for row in result.rows:
        for name, value in found[row["K"]].items():
            seen = result.ann_top1 if name == "ann_top1" else row[name]
            assert seen == pytest.approx(value, rel=1e-5), name
        low, high = row["agreement_interval"]
        assert low <= row["agreement"] <= high
    net = fs.convert(module, X, K=expected, weight_bits=16)
    assert torch.equal(result.net(X), net(X))


@pytest.mark.parametrize(
    "criterion,budget",
    [("agreement", 0.05), ("logit_error", 0.05), ("logit_error", 0.2), ("top1", 0.05)],
)
def test_K_per_layer_stays_in_the_budget_and_saves_spikes(module, quick, criterion, budget):
    options = {"criterion": criterion, **quick}
    uniform = fs.search(module, (X, Y), budget, per_layer=False, **options)
    result = fs.search(module, (X, Y), budget, **options)
    assert isinstance(result.K, dict) and set(result.K) == set("abcdef")
    assert {r.name: r.K for r in result.net.report().rows if r.K} == result.K
    assert result.rows[:-1] == uniform.rows and max(result.K.values()) <= uniform.K
    fits_a_screen(result)
    row = result.rows[-1]
    found = of_small(tuple(result.K.items()))
    assert loss(found, criterion) <= budget + 1e-9
    assert {name: row[name] for name in found if name in row} == pytest.approx(
        {name: found[name] for name in found if name in row}, rel=1e-5
    )
    before = next(row for row in uniform.rows if row["K"] == uniform.K)
    assert row["spikes_per_image"] < before["spikes_per_image"]
    assert row["latency_steps"] <= before["latency_steps"]
    # Nothing is left to take: each layer alone, one step lower, breaks the budget or saves nothing.
    for name in "abcdef":
        if result.K[name] > 2:
            if criterion != "logit_error":  # not monotone: a later step may have made room
                continue
            lower = facts(module, result.K | {name: result.K[name] - 1})
            fewer = lower["spikes_per_image"] < row["spikes_per_image"]
            assert loss(lower, criterion) > budget or not fewer, name


def test_batching_and_repetition_do_not_matter(module):
    def found(calibration):
        options = {"criterion": "logit_error", "K_range": (5, 6), "max_evaluations": 6}
        result = fs.search(module, calibration, 0.1, **options, **QUICK)
        return result.K, result.rows, [p for p in result.net.state_dict().items()]

    whole = found((X, Y))
    ragged = list(zip(X.split([1, 30, 0, 9]), Y.split([1, 30, 0, 9])))
    loader = DataLoader(TensorDataset(X, Y), batch_size=13)
    for calibration in (ragged, loader):
        K, rows, state = found(calibration)
        assert K == whole[0]
        for row, expected in zip(rows, whole[1], strict=True):  # the ANN's sums are floats
            assert row["logit_error"] == pytest.approx(expected["logit_error"], rel=1e-4)
            assert row["spikes_per_image"] == expected["spikes_per_image"]
        for (name, tensor), (_, expected) in zip(state, whole[2], strict=True):
            equal = torch.equal(tensor, expected) if torch.is_tensor(tensor) else tensor == expected
            assert equal, name
    assert found((X, Y))[1] == whole[1]


def test_concatenated_layers_go_together():
    x = images(24, 21)
    branches = settle(Branches(), x)
    result = fs.search(branches, x, 0.04, criterion="logit_error", K_range=(2, 6), **QUICK)
    assert isinstance(result.K, dict) and set(result.K) == {"stem", *"abcde"}
    assert len({result.K[name] for name in "abcde"}) == 1
    assert {s.name: s.code.K for s in result.net.steps if s.op == "conv"} == result.K
    assert facts(branches, result.K, x, Y[:24])["logit_error"] <= 0.04


def test_spiking_bottlenecks_are_layers_too():
    x = images(8, 19)
    module = settle(Bottlenecks(), x)
    result = fs.search(
        module, x, 0.3, criterion="logit_error", K_range=(3, 5), bottleneck="spiking", **QUICK
    )
    assert set(SPIKING) < set(result.K)
    found = facts(module, result.K, x, Y[:8], bottleneck="spiking")
    assert found["logit_error"] <= 0.3


def test_a_network_without_neurons_has_no_K_to_lower():
    linear = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    result = fs.search(linear.eval(), X, 0.1, criterion="logit_error", K_range=(3, 5), **QUICK)
    assert result.K == 3 and result.rows[0]["spikes_per_image"] == 0
    assert result.table()


@pytest.mark.parametrize("most", [1, 5])
def test_the_cap_on_evaluations_holds(module, most):
    options = {"criterion": "logit_error", "K_range": (4, 6), **QUICK}
    result = fs.search(module, X, 0.1, max_evaluations=most, **options)
    assert 3 < result.evaluations <= 3 + most
    assert facts(module, result.K)["logit_error"] <= 0.1
    assert result.rows[-1]["K"] == result.K or isinstance(result.K, int)


class Additive:
    """Stands for networks whose layers' errors add up, so that it is known what is best."""

    def __init__(self, errors, spikes):
        self.errors, self.spikes = errors, spikes
        self.names = [str(i) for i in range(len(errors))]
        self.asked = set()

    def evaluate(self, K, timed=False):
        steps = [K] * len(self.names) if isinstance(K, int) else [K[name] for name in self.names]
        self.asked.add(tuple(steps))
        spikes = {n: s * k for n, s, k in zip(self.names, self.spikes, steps)}
        return {
            "layer_spikes": spikes,
            "spikes_per_image": sum(spikes.values()),
            "logit_error": sum(e * 4.0 ** (8 - k) for e, k in zip(self.errors, steps)),
        }


@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=12, unique=True
    ),
    st.integers(0, 3000),
    st.sampled_from([1, 3, 10, 10000]),
    st.integers(3, 8),
)
def test_lowering_is_within_the_budget_and_complete(layers, spare, most, low):
    lab = Additive(*zip(*layers))
    budget = lab.evaluate(8)["logit_error"] + spare
    lab.asked.clear()
    groups = [(name,) for name in lab.names]

    def holds(row):
        return row["logit_error"] <= budget

    per_layer = searching._PerLayer(lab, groups, low, 8, most, holds, lambda title: None)
    K = per_layer.search() if low < 8 else 8
    assert len(lab.asked - {(8,) * len(groups)}) <= most
    row = lab.evaluate(K)
    assert holds(row) and row["spikes_per_image"] <= lab.evaluate(8)["spikes_per_image"]
    steps = [K] * len(groups) if isinstance(K, int) else [K[name] for name in lab.names]
    assert all(low <= k <= 8 for k in steps)
    if most == 10000:
        for i, (_, spikes) in enumerate(layers):
            lower = dict(zip(lab.names, (k - (j == i) for j, k in enumerate(steps))))
            if steps[i] > low and spikes:
                assert not holds(lab.evaluate(lower)), "more could have been saved"


def test_the_search_is_saved_with_the_network(module, tmp_path, quick):
    result = fs.search(module, (X, Y), 0.05, criterion="logit_error", **quick)
    path = tmp_path / "net.safetensors"
    result.net.save(path)
    loaded = fs.load(path)
    assert loaded.search == result.net.search == result.summary()
    assert loaded.search["K"] == result.K and len(loaded.search["rows"]) == len(result.rows)
    assert torch.equal(loaded(X), result.net(X)) and loaded.latency_steps < 7 * loaded.K
    assert copy.deepcopy(loaded).search == loaded.search
    plain = fs.convert(module, X)
    plain.save(path)
    assert plain.search is None and fs.load(path).search is None


def test_images_per_second_are_measured_where_asked_for(module, tmp_path):
    options = {"criterion": "logit_error", "K_range": (4, 6), "folder": tmp_path}
    untimed = fs.search(module, X, 0.2, timing=False, **options)
    assert {row["images_per_s"] for row in untimed.rows} == {None}
    timed = fs.search(module, X, 0.2, **options)
    assert all(row["images_per_s"] > 0 for row in timed.rows)
    assert timed.evaluations == len(timed.rows) and timed.K == untimed.K
    assert fs.search(module, X, 0.2, **options).rows == timed.rows


def test_the_table_shows_every_row_and_what_was_chosen(module, quick):
    result = fs.search(module, (X, Y), 0.05, criterion="logit_error", progress=True, **quick)
    lines = result.table().splitlines()
    assert len({line.count("|") for line in lines[:-2]}) == 1
    bold = [line for line in lines if line.startswith("| **")]
    assert len(bold) == 1 and "per layer**" in bold[0]
    assert all(any(f"| K={K} |" in line for line in lines) for K in range(2, 10))
    assert "logit_error within 0.05 on 40 calibration images; the ANN's top-1 is" in lines[-1]


def test_the_plot_has_a_point_for_every_row(module, quick):
    result = fs.search(module, (X, Y), 0.05, criterion="logit_error", **quick)
    (axes,) = result.plot().axes
    low, high = min(result.K.values()), max(result.K.values())
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["budget", *(f"K={K}" for K in (*range(2, 10), f"{low}-{high}"))]
    assert axes.lines[2].get_ydata() == [0.05, 0.05]
    points = [row["spikes_per_image"] for row in result.rows]
    assert axes.lines[0].get_xdata() == pytest.approx(points)
    errors = [row["logit_error"] for row in result.rows]
    assert axes.lines[0].get_ydata() == pytest.approx(errors)


def test_the_papers_pools_are_those_of_its_ann():
    class Pooled(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
            )  # fmt: skip

    torch.manual_seed(1)
    pooled = Pooled().eval()
    with pytest.warns(UserWarning, match="average-pool"):
        result = fs.search(
            pooled, X, 0.05, criterion="logit_error", K_range=(6, 10), neuron="paper", alpha="max",
            timing=False,
        )  # fmt: skip
    with torch.no_grad():
        ann = fs.paper_pools(pooled)(X)
    assert float((result.net(X) - ann).norm() / ann.norm()) <= 0.05
    assert result.net(X).shape == (N, 5) and isinstance(result, fs.SearchResult)
