"""Risk: a figure shows other data than it was given, or depends on a window or on matplotlib."""

import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest
import torch
from networks import Branches, images, settle

import fskernel as fs
from fskernel.analysis import plots


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(2)
    x = images(2, 23)
    return fs.convert(settle(Branches(), x), x, K=5)


@pytest.fixture(scope="module")
def stats(net):
    return net.run(images(3, 23, seed=8), record="all")[1]


def drawn(figure, panel=0, line=0):
    """The points of a line: float64 [n, 2]. The figure can be drawn without a window."""
    assert type(figure) is matplotlib.figure.Figure
    figure.canvas.draw()
    return np.asarray(figure.axes[panel].lines[line].get_xydata(), dtype=float)


@pytest.mark.parametrize("image", [0, 2])
def test_a_raster_has_a_point_for_each_spike(stats, image):
    spikes = stats.recorded["b"]
    points = drawn(plots.raster(spikes, image))
    assert len(points) == int(stats.spikes["b"][image]) > 0
    train = spikes.spikes()[:, image].flatten(1)
    shown = torch.zeros_like(train)
    for step, neuron in points.astype(int):
        shown[step - 1, neuron] = True
    assert torch.equal(shown, train)


def test_a_raster_counts_from_the_first_threshold():
    spikes = fs.SpikeTensor(torch.tensor([[4, 1, 0]], dtype=torch.uint8), fs.FSNeuron(3, 1.0))
    figure = plots.raster(spikes)
    assert drawn(figure).tolist() == [[1, 0], [3, 1]]
    assert figure.axes[0].get_xlim() == (0.5, 3.5) and figure.axes[0].get_ylim() == (-0.5, 2.5)


# Layers of Branches by their depth: a, b, c stand side by side, d and e read all three.
DEPTH = {"stem": 1, "a": 2, "b": 2, "c": 2, "d": 3, "e": 3}


@pytest.mark.parametrize("every", [1, 3])
def test_layers_fire_in_the_steps_of_their_depth(net, stats, every):
    assert list(stats.recorded) == list(DEPTH) and net.depth == 4
    figure = plots.latency_raster(net, stats, image=1, every=every)
    found = []
    for line, name in enumerate(DEPTH):
        points = drawn(figure, line=line)
        train = stats.recorded[name].spikes()[:, 1].flatten(1)
        assert len(points) == int(train[:, ::every].sum())
        begin = (DEPTH[name] - 1) * 5
        for t in range(1, 6):
            assert (points[:, 0] == begin + t).sum() == int(train[t - 1, ::every].sum()), name
        found.append(points[:, 1])
    ends = [(f.min(), f.max()) for f in found if len(f)]
    assert all(before[1] < after[0] for before, after in zip(ends, ends[1:], strict=False))
    assert figure.axes[0].get_xlim() == (0.5, 20.5), "the readout has the last K steps"
    neurons = sum(-(-n // every) for n in stats.neurons.values())
    assert figure.axes[0].get_ylim() == (-0.5, neurons - 0.5)


def test_a_raster_of_some_layers_keeps_their_place_in_time(net):
    stats = net.run(images(1, 23), record=["e"])[1]
    points = drawn(plots.latency_raster(net, stats))
    assert len(points) == int(stats.spikes["e"].sum())
    assert 11 <= points[:, 0].min() and points[:, 0].max() <= 15


def test_spikes_per_layer_are_means_over_the_images(stats):
    figure = plots.spikes_per_layer(stats)
    figure.canvas.draw()
    upper, lower = figure.axes
    heights = [bar.get_height() for bar in upper.patches]
    assert heights == pytest.approx([float(c.sum()) / 3 for c in stats.spikes.values()])
    assert sum(heights) == pytest.approx(float(stats.total_spikes().sum()) / 3)
    each = [bar.get_height() for bar in lower.patches]
    assert each == pytest.approx(
        [h / n for h, n in zip(heights, stats.neurons.values(), strict=True)]
    )
    assert [t.get_text() for t in lower.get_xticklabels()] == list(stats.spikes)


@pytest.mark.parametrize("K", [1, 8, pytest.param(15, marks=pytest.mark.slow)])
def test_a_histogram_counts_every_word(K):
    words = torch.randint(0, 2**K, (2, 3, 5, 4), generator=torch.Generator().manual_seed(K))
    words[0, 0, 0, :2] = torch.tensor([0, 2**K - 1])
    words = words.to(fs.FSNeuron(K, 1.0).word_dtype)
    for figure in (
        plots.word_histogram(words, K),
        plots.word_histogram(fs.SpikeTensor(words, fs.FSNeuron(K, 1.0))),
    ):
        figure.canvas.draw()
        counts, edges, _ = figure.axes[0].patches[0].get_data()
        assert len(counts) == 2**K and sum(counts) == words.numel()
        for word in (0, 2**K - 1, int(words.max()), int(words[1, 2, 4, 3])):
            assert counts[word] == int((words == word).sum())
            assert edges[word] < word < edges[word + 1]


@pytest.mark.parametrize("K,alpha,rounding", [(1, 3.0, "floor"), (4, 6.0, "nearest")])
def test_the_transfer_curve_is_the_neurons(K, alpha, rounding):
    figure = plots.transfer_curve(K, alpha, rounding, points=501)
    relu, fires = drawn(figure, line=0), drawn(figure, line=1)
    assert relu[:, 0].min() == -alpha / 4 and relu[:, 0].max() == 1.25 * alpha
    assert np.array_equal(relu[:, 1], relu[:, 0].clip(0))
    neuron = fs.FSNeuron(K, alpha, rounding)
    expected = [
        min(max(int(np.floor(v / neuron.step + neuron.offset)), 0), 2**K - 1) for v in fires[:, 0]
    ]
    assert np.array_equal(fires[:, 1], np.array(expected) * neuron.step)
    spikes = drawn(figure, panel=1)
    assert spikes[:, 1].tolist() == [bin(word).count("1") for word in expected]


ROWS = [
    {"K": 8, "agreement": 0.99, "top1": 0.9, "spikes_per_image": 13e6, "latency_steps": 400},
    {"K": 4, "agreement": 0.83, "top1": 0.7, "spikes_per_image": 6e6, "latency_steps": 200},
    {"K": 6, "agreement": 0.92, "top1": 0.9, "spikes_per_image": 9e6, "latency_steps": 300},
    {"K": 5, "agreement": 0.80, "top1": 0.8, "spikes_per_image": 8e6, "latency_steps": 250},
]


def test_pareto_draws_every_row_and_joins_those_no_other_beats():
    figure = plots.pareto(ROWS)
    assert drawn(figure).tolist() == [[r["spikes_per_image"], r["top1"]] for r in ROWS]
    assert drawn(figure, line=1).tolist() == [[6e6, 0.7], [8e6, 0.8], [9e6, 0.9]]
    assert [t.get_text() for t in figure.axes[0].texts] == ["K=8", "K=4", "K=6", "K=5"]
    rows = [row | {"top1": None} for row in ROWS]
    figure = plots.pareto(rows, x="latency_steps")
    assert drawn(figure, line=1).tolist() == [[200, 0.83], [300, 0.92], [400, 0.99]]
    assert figure.axes[0].get_ylabel() == "same answer as the ANN"
    rows = [row | {"logit_error": 1 - row["agreement"]} for row in ROWS]
    points = drawn(plots.pareto(rows, y="logit_error"), line=1)
    assert points[:, 0].tolist() == [6e6, 9e6, 13e6], "a small error is better"


@pytest.mark.parametrize(
    "call,error,message",
    [
        (lambda s, n: plots.raster(s.recorded["a"].words), TypeError, "spikes is a Tensor.*record"),
        (lambda s, n: plots.raster(s.recorded["a"], 3), IndexError, "image=3.*3 images"),
        (lambda s, n: plots.raster(s.recorded["a"], -1), IndexError, "image=-1"),
        (lambda s, n: plots.latency_raster(n, s, every=0), ValueError, "every=0"),
        (lambda s, n: plots.latency_raster(n, fs.RunStats()), ValueError, 'record="all"'),
        (
            lambda s, n: plots.latency_raster(n, fs.RunStats(recorded={"conv9": s.recorded["a"]})),
            ValueError,
            "'conv9'",
        ),
        (lambda s, n: plots.spikes_per_layer(fs.RunStats()), ValueError, "net.run"),
        (lambda s, n: plots.word_histogram(s.recorded["a"].words), TypeError, "K is missing"),
        (lambda s, n: plots.word_histogram(s.recorded["a"], 6), ValueError, "K=6.*5 time steps"),
        (lambda s, n: plots.word_histogram(torch.zeros(3), 6), TypeError, "float32"),
        (
            lambda s, n: plots.word_histogram(torch.tensor([9], dtype=torch.uint8), 3),
            ValueError,
            "outside 0..7",
        ),
        (
            lambda s, n: plots.word_histogram(torch.zeros(0, dtype=torch.uint8), 3),
            ValueError,
            "empty",
        ),
        (lambda s, n: plots.transfer_curve(0, 1.0), ValueError, "K=0"),
        (lambda s, n: plots.transfer_curve(4, -1.0), ValueError, "alpha=-1"),
        (lambda s, n: plots.transfer_curve(4, 1.0, "up"), ValueError, "rounding='up'"),
        (lambda s, n: plots.transfer_curve(4, 1.0, points=1), ValueError, "points=1"),
        (lambda s, n: plots.pareto([]), ValueError, "rows is empty"),
        (lambda s, n: plots.pareto([3]), TypeError, r"rows\[0\] is a int"),
        (lambda s, n: plots.pareto(ROWS, x="spikes"), ValueError, "x='spikes'.*spikes_per_image"),
        (
            lambda s, n: plots.pareto([*ROWS, {"K": 1, "agreement": 0.1}]),
            ValueError,
            r"rows\[4\] has no spikes_per_image",
        ),
        (
            lambda s, n: plots.pareto([{"agreement": 0.1, "spikes_per_image": 1}]),
            ValueError,
            "no K",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(stats, net, call, error, message):
    with pytest.raises(error, match=message):
        call(stats, net)


def test_matplotlib_is_imported_when_a_figure_is_made_and_named_where_missing(monkeypatch):
    code = "import sys, fskernel; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plots.transfer_curve(4, 1.0)
