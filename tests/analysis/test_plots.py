"""Risk: a figure shows other data than it was given, or depends on a window or on matplotlib."""

import io
import subprocess
import sys

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
import torch
from networks import Branches, images, settle

import fskernel as fs
from fskernel.analysis import plots, style


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


@pytest.mark.parametrize("every", [1, 4])
def test_images_in_a_row_have_each_spike_in_its_colour(net, every):
    run = fs.schedule(net, images(3, 23, seed=8))
    figure = plots.pipeline_raster(run, every, title="three")
    axes = figure.axes[0]
    drawn_spikes, colours, base = 0, set(), 0
    for layer, name in enumerate(DEPTH):
        for image in range(3):
            points = drawn(figure, line=3 * layer + image)
            begin = run.windows[name][image].fires
            assert (
                len(points) and (points[:, 0] >= begin).all() and (points[:, 0] < begin + 5).all()
            )
            spikes = run.spikes[name][run.spikes[name][:, 1] == image]
            wanted = [(t, base + n // every) for t, _, n in spikes.tolist() if n % every == 0]
            assert sorted(map(tuple, points.astype(int).tolist())) == sorted(wanted)
            drawn_spikes += len(points)
            colours.add((image, axes.lines[3 * layer + image].get_color()))
        base += -(-run.neurons[name] // every)
    assert len(colours) == 3 and drawn_spikes > 100
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(w.first - 0.5, w.last - w.first + 1) for w in run.windows["head"]]
    assert axes.get_xlim() == (-0.5, 2 * 10 + 20 + 0.5)


def test_a_row_of_images_needs_a_run(stats):
    with pytest.raises(TypeError, match="run is a RunStats: give what fskernel.schedule returns"):
        plots.pipeline_raster(stats)


def test_a_raster_of_some_layers_keeps_their_place_in_time(net):
    stats = net.run(images(1, 23), record=["e"])[1]
    points = drawn(plots.latency_raster(net, stats))
    assert len(points) == int(stats.spikes["e"].sum())
    assert 11 <= points[:, 0].min() and points[:, 0].max() <= 15


def test_spikes_per_layer_are_means_over_the_images(stats):
    figure = plots.spikes_per_layer(stats)
    figure.canvas.draw()
    left, right = figure.axes
    heights = [bar.get_width() for bar in left.patches]
    assert heights == pytest.approx([float(c.sum()) / 3 for c in stats.spikes.values()])
    assert sum(heights) == pytest.approx(float(stats.total_spikes().sum()) / 3)
    each = [bar.get_width() for bar in right.patches]
    assert each == pytest.approx(
        [h / n for h, n in zip(heights, stats.neurons.values(), strict=True)]
    )
    assert [t.get_text() for t in left.get_yticklabels()] == list(stats.spikes)
    assert f"{sum(heights):,.0f} spikes per image, mean of 3 images" in left.get_title("left")


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
        stairs, silent = figure.axes[0].patches
        counts, edges, _ = stairs.get_data()
        assert counts[0] == 0 and silent.get_x() + silent.get_width() < edges[0]
        left, _ = figure.axes[0].get_xlim()
        assert left < silent.get_x(), "the bar of word 0 is not cut off by the axis"
        counts[0] = silent.get_height()
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
        (lambda s, n: plots.spikes_per_layer(torch.ones(3)), TypeError, "stats is a Tensor"),
        (lambda s, n: plots.raster(s.recorded["a"], every=0), ValueError, "every=0"),
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


def test_rc_params_of_the_user_change_no_figure_and_stay(net, stats):
    def bytes_of(figure):
        figure.savefig(file := io.BytesIO(), metadata={"Software": None})
        return file.getvalue()

    plain = bytes_of(plots.latency_raster(net, stats))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "figure.dpi": 30}):
        mine = dict(matplotlib.rcParams)
        figure = plots.latency_raster(net, stats)
        assert dict(matplotlib.rcParams) == mine
    assert bytes_of(figure) == plain


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_data_give_the_same_file(tmp_path, ending):
    files = [style.save(plots.pareto(ROWS), tmp_path / f"{n}.{ending}") for n in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_no_print_is_too_small_and_no_number_has_an_exponent(net, stats):
    figures = [
        plots.raster(stats.recorded["b"]),
        plots.latency_raster(net, stats, title="Branches"),
        plots.spikes_per_layer(stats, K=5),
        plots.word_histogram(stats.recorded["b"]),
        plots.transfer_curve(8, 3.0),
        plots.pareto(ROWS, y="agreement", least=0.9),
        plots.pareto([row | {"logit_error": 0.3 / row["K"]} for row in ROWS], y="logit_error"),
    ]
    for figure in figures:
        assert figure.dpi >= 200
        for text in figure.findobj(matplotlib.text.Text):
            if text.get_visible() and text.get_text():
                assert text.get_fontsize() >= 7, text
                assert (
                    "10^" not in text.get_text()
                    and "mathdefault" not in text.get_text()
                    and "e+" not in text.get_text()
                ), text


def test_a_raster_names_the_threshold_of_every_step():
    spikes = fs.SpikeTensor(torch.tensor([[7, 1, 0]], dtype=torch.uint8), fs.FSNeuron(3, 4.0))
    (top,) = plots.raster(spikes).axes[0].child_axes
    assert [t.get_text() for t in top.get_xticklabels()] == ["2", "1", "0.5"]


def test_names_of_near_points_do_not_cover_each_other():
    rows = [{"K": K, "agreement": 0.9 + K / 1e3, "spikes_per_image": 1e6 + K} for K in range(3, 9)]
    rows += [{"K": 15, "agreement": 0.1, "spikes_per_image": 9e6}]
    figure = plots.pareto(rows)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_intervals_and_the_budget_are_drawn():
    rows = [row | {"agreement_interval": [row["agreement"] - 0.1, 1.0]} for row in ROWS]
    axes = plots.pareto(rows, y="agreement", least=0.9).axes[0]
    ends = [bar.get_segments()[0][:, 1].tolist() for bar in axes.collections]
    assert ends == [row["agreement_interval"] for row in rows]
    assert axes.lines[2].get_ydata() == [0.9, 0.9]
    assert "budget" in [text.get_text() for text in axes.texts]
