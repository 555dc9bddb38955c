"""Risk: where codes are moved or averaged, a path of a network gives other words than the rest."""

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moved.networks import GRAPHS, Drawn, images
from networks import every_word, same_everywhere

import fskernel as fs
from fskernel import reference
from fskernel.calibration.by_logits import channelwise
from fskernel.calibration.ranges import measure
from fskernel.codes.geometry import Geometry
from fskernel.conversion.builder import Builder
from fskernel.conversion.choices import Choices
from fskernel.kernels import ops
from fskernel.network.network import FSNetwork

SIZE = (12, 18)


def converted(name, K=6, kind="neuron", seed=0, size=SIZE, **options):
    graph = GRAPHS[name](seed, kind)
    return fs.convert(graph, images(name, 2, size), K, **options)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(GRAPHS)),
    K=st.integers(1, 15),
    kind=st.sampled_from(["neuron", "graded"]),
    bottleneck=st.sampled_from(["graded", "spiking"]),
    bits=st.sampled_from([8, 16]),
    rounding=st.sampled_from(["nearest", "floor"]),
    size=st.tuples(st.integers(4, 9), st.integers(4, 11)),
    seed=st.integers(0, 99),
)
def test_every_word_equals_the_literal_network(
    name, K, kind, bottleneck, bits, rounding, size, seed
):
    size = (2 * size[0], 2 * size[1])  # for pixels in squares
    options = {"bottleneck": bottleneck, "weight_bits": bits, "rounding": rounding}
    net = converted(name, K, kind, seed, size, **options)
    same_everywhere(net, 1.5 * images(name, 1, size, seed=5), reference.literal)


@pytest.mark.parametrize("isa", ops.supported_isas())
@pytest.mark.parametrize("K", [1, 8, 9, 15])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_instruction_set_gives_the_same(name, K, isa):
    net = converted(name, K, "graded", bottleneck="spiking")
    ops.set_isa(isa)
    try:
        for planes in (0, 1, 4):
            net.plane_bits = planes
            same_everywhere(net, images(name, 3, SIZE, seed=5), reference.collapsed)
    finally:
        ops.set_isa(None)


@pytest.mark.parametrize("bottleneck", ["graded", "spiking"])
@pytest.mark.parametrize("kind", ["neuron", "graded"])
@pytest.mark.parametrize("name", GRAPHS)
def test_it_approaches_the_float_network(name, kind, bottleneck):
    """What is moved to a wrong place, or divided by a wrong number, stays wrong however fine."""
    x = images(name, 4, SIZE)
    graph = GRAPHS[name](kind=kind)
    ann = graph.forward(x.double())
    spread = float((ann - ann.mean(0)).norm())
    errors = []
    for K in (4, 8, 12):
        net = fs.convert(graph, x, K, bottleneck=bottleneck, weight_bits=16)
        errors.append(float((net(x) - ann).norm()) / spread)
    assert errors[0] > 3 * errors[1] and errors[2] < 0.02 and errors[1] < 0.2


@pytest.mark.parametrize("name", GRAPHS)
def test_files_copies_and_empty_batches(name, tmp_path):
    net, x = converted(name, 9, "graded", bottleneck="spiking"), images(name, 3, SIZE, seed=8)
    net.save(tmp_path / "net.safetensors")
    again = fs.load(tmp_path / "net.safetensors")
    assert again.get_extra_state() == net.get_extra_state()
    assert again.in_channels == net.in_channels == x.shape[1]
    words, counts, logits = every_word(net, x)
    for other in (again, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        theirs = every_word(other, x)
        assert all(torch.equal(theirs[0][name], value) for name, value in words.items())
        assert torch.equal(other(x), logits) and torch.equal(theirs[2], logits)
    assert net(x[:0]).shape == (0, 4) and net.execute(x[:0]).shape == (0, 4)
    assert str(net) and str(net.report()) and net.count_neurons(*SIZE) > 0


def test_a_file_says_runs_only_where_there_are_any():
    """A version that does not know them reads the other files, and refuses these."""
    specs = [json.loads(converted(name).get_extra_state()) for name in ("signed", "pyramid")]
    plain, picked = ([s for s in spec if s["op"] == "concat"] for spec in specs)
    assert plain and all("runs" not in step for step in plain)
    assert picked and all("runs" in step for step in picked)


@pytest.mark.parametrize("name", GRAPHS)
def test_compiled_and_exported_it_is_the_same(name):
    net, x = converted(name), images(name, 2, SIZE, seed=9)
    expected = net(x)
    assert torch.equal(torch.compile(net, backend="aot_eager")(x), expected)
    assert torch.equal(torch.export.export(net, (x,)).module()(x), expected)
    torch._dynamo.reset()


def test_steps_one_by_one_compile():
    """As on a GPU, where there is no plan."""
    net = converted("pyramid", kind="graded", bottleneck="spiking")
    x = images("pyramid", 2, SIZE, seed=9)
    run = torch.compile(lambda x: net._executor.heads(x, 0)[0], backend="aot_eager", fullgraph=True)
    assert torch.equal(run(x), net(x))
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["shuffled channels", "pyramid", "subpixels", "signed"])
def test_alphas_of_channels_go_where_the_channels_go(name):
    graph = GRAPHS[name](kind="neuron")
    x = images(name, 4, SIZE)
    own, dice = channelwise(graph), torch.Generator().manual_seed(2)
    neurons = [layer for layer in graph.layers if layer.kind == "neuron"]
    ranges = measure(graph, x)
    channels = {
        layer.name: ranges.largest[layer.name]
        * (1.2 + 3 * torch.rand(len(layer.bias), generator=dice))
        for layer in neurons
        if layer.name in own
    }
    choices = Choices({"default": 13}, "max", "nearest", 16, "graded", None, ranges, channels)
    net = FSNetwork(Builder(graph, choices).build(), graph=graph)
    scaled = {step.name for step in net.steps if getattr(step, "channel_scale", None) is not None}
    assert scaled == set(channels) and scaled
    ann = graph.forward(x.double())
    assert float((net(x) - ann).norm()) < 0.02 * float((ann - ann.mean(0)).norm())
    same_everywhere(net, x, reference.collapsed)


def test_channels_of_one_pixel_shuffle_share_an_alpha():
    graph = GRAPHS["subpixels"]()
    assert channelwise(graph) == {"middle", "joined"}
    assert channelwise(GRAPHS["shuffled channels"]()) == {"stem", "last"} | {
        f"{c}{i}" for c in "abc" for i in (0, 1)
    }


def test_alpha_by_logits_and_corrections_know_them_too():
    x = images("pyramid", 4, SIZE)
    graph = GRAPHS["pyramid"](kind="graded")
    net = fs.convert(graph, x, 6, alpha="logits", weight_bits="auto", correct="least_squares")
    same_everywhere(net, x, reference.collapsed)


def cut_then_added(seed=0):
    """A part of a map is read after the map itself has been added to, in whose memory it lies."""
    g = Drawn(seed=seed)
    x = g.conv("stem", "input", 12, (3, 3), padding=(1, 1, 1, 1))
    part = g.concat("part", [x], [(0, 5, 4)])
    y = g.conv("side", x, 7)
    y = g.conv("added", y, 12, residual=x)  # where x was, were no part of it read any more
    z = g.conv("late", part, 6, (3, 3), padding=(1, 1, 1, 1))
    deep = g.concat("deep", [part], [(0, 1, 3)])
    both = g.concat("both", [z, deep, y, part], [(0, 0, 6), (1, 0, 3), (2, 2, 9), (3, 0, 4)])
    return g.read_out(g.conv("last", both, 5, (2, 2)))


@pytest.mark.parametrize("K", [5, 11])
def test_parts_of_maps_stay_as_long_as_they_are_read(K):
    x = images("pyramid", 3, SIZE)
    net = fs.convert(cut_then_added(), x, K)
    same_everywhere(net, x, reference.literal)


def test_a_part_of_a_map_takes_no_memory_and_no_time():
    x = images("pyramid", 1, SIZE)

    def arena(cut):
        g = Drawn()
        y = g.conv("stem", "input", 32)
        y = g.concat("part", [y], [(0, 3, 29)]) if cut else y
        return fs.convert(g.read_out(g.conv("last", y, 5)), x).activation_bytes(64, 64)

    assert arena(cut=True) <= arena(cut=False)


def test_channels_of_the_image_that_all_readers_pick():
    """Who tells how many there are: the calibration, or else what is picked."""
    g = Drawn(channels=5)
    a, b = (g.concat(f"some{i}", ["input"], [(0, first, 2)]) for i, first in enumerate((2, 0)))
    graph = g.read_out(g.concat("both", [g.conv("a", a, 3), g.conv("b", b, 2)]))
    x = torch.randn(2, 5, 7, 6)
    net = fs.convert(graph, x)
    assert net.in_channels == 5
    same_everywhere(net, x, reference.literal)
    assert fs.convert(graph, alpha=1.0).in_channels == 4
    assert graph.widths()["input"] == 4


NOT_FITTING = {
    "squares": (lambda g, y: g.move("x", y, "unshuffle", 3), "use another image size"),
    "more than a pixel": (lambda g, y: g.expand("x", y, "input"), "use another image size"),
    "small": (
        lambda g, y: g.mean_pool("x", y, "clipped", geometry=Geometry((3, 5))),
        "use a larger image",
    ),
}


@pytest.mark.parametrize("what", NOT_FITTING)
def test_maps_that_do_not_fit_are_refused_by_plan_and_steps(what):
    g, (make, message) = Drawn(), NOT_FITTING[what]
    graph = g.read_out(g.conv("last", make(g, g.conv("stem", "input", 4, (3, 3))), 3))
    net = fs.convert(graph, alpha=1.0)
    for call in (net, net.execute):
        with pytest.raises(ValueError, match=message):
            call(torch.randn(1, 3, 3, 6))
