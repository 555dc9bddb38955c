"""Risk: spikes are counted where they are copied, or synapses behind moves and averages are not."""

import pytest
import torch
from moved.networks import GRAPHS, Drawn, images
from networks import brute_force_sops, every_word

import fskernel as fs
from fskernel import energy, neurobench
from fskernel.codes.geometry import Geometry

SIZE = (12, 18)


def converted(name, kind="neuron", **options):
    x = images(name, 3, SIZE)
    return fs.convert(GRAPHS[name](kind=kind), x, 6, **options), x


def step_of(net, name):
    return next(step for step in net.steps if step.name == name)


@pytest.mark.parametrize("name", GRAPHS)
def test_spikes_and_neurons_are_those_of_layers_that_fire(name):
    net, x = converted(name, "graded", bottleneck="spiking")
    words, counts, _ = every_word(net, x)
    _, stats = net.run(x)
    fires = [step.name for step in net.steps if step.op == "conv"]
    assert list(stats.spikes) == fires == list(stats.neurons)
    for layer in fires:
        trains = fs.to_spikes(words[layer], 6)
        assert torch.equal(stats.spikes[layer], trains.sum((0, 2, 3, 4)))
        assert stats.neurons[layer] == words[layer][0].numel()
    assert net.count_neurons(*SIZE) == stats.neuron_count
    assert set(net.count_spikes(x)[1]) == set(fires)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("shuffled channels", "a0"),  # of a part of a map
        ("shuffled channels", "last"),  # of channels in turns
        ("pyramid", "narrow"),  # of one pixel beside others
        ("pyramid", "last"),  # of padding, and a max-pool of it
        ("subpixels", "joined"),  # of pixels that became channels
    ],
)
def test_every_copy_of_a_spike_has_its_own_synapses(name, layer):
    net, x = converted(name)
    words, _, _ = every_word(net, x)
    step, (_, stats) = step_of(net, layer), net.run(x)
    expected = brute_force_sops(words[step.sources[0]], 6, step.groups[0])
    assert torch.equal(stats.sops[layer].double(), expected) and expected.min() > 0


def averaged(windows):
    g = Drawn()
    y = g.conv("stem", "input", 4, (3, 3))
    y = g.mean_pool("mean", y, *windows[0], **windows[1])
    return g.read_out(g.conv("read", y, 5, (2, 2), padding=(1, 0, 0, 1)))


@pytest.mark.parametrize(
    "windows",
    [
        (("adaptive", (3, 4)), {}),
        (("adaptive", (None, 2)), {}),
        (
            ("clipped",),
            {"geometry": Geometry((3, 2), (2, 3), (1, 1, 0, 1)), "ceil_mode": True},
        ),
    ],
)
def test_an_average_belongs_to_what_reads_it(windows):
    """A spike counts once for each neuron that it reaches: one pixel after the other is lit."""
    x = images("pyramid", 2, SIZE)
    net = fs.convert(averaged(windows), x, 5)
    words, _, _ = every_word(net, x)
    group, pool = step_of(net, "read").groups[0], step_of(net, "mean").windows
    n, h, w, c = words["stem"].shape
    reached = torch.zeros(h, w)
    for i in range(h):
        for j in range(w):
            lit = torch.zeros(1, 1, h, w, dtype=torch.float64)
            lit[0, 0, i, j] = 1
            lit = torch.nn.functional.pad(pool.means(lit), (0, 1, 1, 0))
            ones = torch.ones(1, 1, 2, 2, dtype=torch.float64)
            reached[i, j] = int((torch.nn.functional.conv2d(lit, ones) > 0).sum())
    spikes = fs.to_spikes(words["stem"], 5).sum(0).sum(3)
    expected = (spikes * reached).sum((1, 2)) * group.fan_out
    _, stats = net.run(x)
    assert torch.equal(stats.sops["read"].double(), expected.double())
    assert "read" not in stats.graded_macs


def test_averages_that_were_moved_are_graded_values():
    g = Drawn()
    y = g.mean_pool("mean", g.conv("stem", "input", 4), "adaptive", (2, 2))
    graph = g.read_out(g.conv("read", g.move("large", y, "upsample", 2, 2), 5))
    net = fs.convert(graph, images("pyramid", 2, SIZE), 5)
    _, stats = net.run(images("pyramid", 2, SIZE))
    assert stats.graded_macs["read"] == 4 * 4 * 4 * 5 and not stats.sops["read"].any()


def padded_and_not():
    """The same neurons, read with padding of the layer itself, and with padding by a move."""
    nets = []
    for moved in (False, True):
        g = Drawn(seed=4)
        y = g.conv("stem", "input", 5, (3, 3), kind="graded")
        if moved:
            y = g.move("pad", y, "pad", 1, 0, 2, 1)
            y = g.concat("some", [y], [(0, 3, 2), (0, 0, 3)])
            y = g.concat("back", [y], [(0, 2, 3), (0, 0, 2)])
        padding = (0, 0, 0, 0) if moved else (1, 0, 2, 1)
        graph = g.read_out(g.conv("read", y, 6, (2, 3), padding=padding))
        nets.append(fs.convert(graph, images("pyramid", 2, SIZE), 6, bottleneck="spiking"))
    return nets


def test_padding_of_words_with_an_offset_is_no_spike():
    x = images("pyramid", 3, SIZE, seed=6)
    (logits, layers), (others, moved) = (net.run(x) for net in padded_and_not())
    assert torch.equal(logits, others)
    assert torch.equal(layers.sops["read"], moved.sops["read"])


def test_where_padding_wins_a_max_pool_nothing_spikes():
    """Only values below zero beside a border: their pool gives padding, which is no neuron."""
    g = Drawn()
    y = g.graded("stem", "input", 3)
    y = g.max_pool("pool", g.move("pad", y, "pad", 2, 0, 0, 0), Geometry((2, 2), (2, 2)))
    graph = g.read_out(g.conv("read", y, 5))
    stem = graph["stem"]
    stem.groups[0].weight.zero_()
    stem.bias[:] = torch.tensor([-1.0, 0.5, 0.0])
    x = torch.randn(2, 3, 4, 6)
    net = fs.convert(graph, x, 4, alpha=1.0, bottleneck="spiking")
    words, _, _ = every_word(net, x)
    assert words["pool"].shape[1:] == (3, 3, 3) and (words["pool"][:, 0] == 8).all()
    # Of each image two rows of three pixels are of neurons: words 0, 12 and 8.
    spikes = 2 * 3 * (0 + 2 + 1)
    _, stats = net.run(x)
    assert stats.sops["read"].tolist() == [spikes * 5] * 2


@pytest.mark.parametrize("bottleneck", ["graded", "spiking"])
@pytest.mark.parametrize("name", GRAPHS)
def test_analyses_know_all_kinds_of_steps(name, bottleneck):
    net, x = converted(name, "graded", bottleneck=bottleneck)
    logits, stats = net.run(x)
    assert all(row.fs_uj > 0 and row.ann_uj > 0 for row in energy.estimate(net, stats))
    found = fs.fidelity(net, x)
    assert found["logit_error"] < 0.3 and found["spikes_ratio"] == pytest.approx(1, abs=0.05)
    assert torch.equal(neurobench.wrap(net)(x), logits)
    assert neurobench.measure(net, x)["SynapticOperations"]["Effective_ACs"] > 0


def test_what_passes_spikes_on_says_whose_they_are():
    net, x = converted("pyramid")
    for layer, wanted in (
        ("large", "'narrow'"),
        ("aware", "'deep' or 'about'"),
        ("again", "'mixed'"),
    ):
        with pytest.raises(ValueError, match=f"only passes spikes on: record {wanted}"):
            net.run(x, record=layer)
    with pytest.raises(ValueError, match="means of an average-pool"):
        net.run(x, record="context")
