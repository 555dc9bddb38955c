"""Risk: layers of different K are mixed up: words of one layer are read as those of another."""

import copy
import functools
import itertools

import pytest
import torch
from networks import Bottlenecks, Branches, Ragged, every_word, images, same_everywhere, settle

import fskernel as fs
from fskernel import reference
from fskernel.analysis import plots
from fskernel.kernels import ops
from fskernel.models import cifar_resnet8
from fskernel.tracing.trace import trace


def spiking(net):
    return [step for step in net.steps if step.op == "conv" and step.code.K]


def cycled(net, ks=(4, 8, 10), first=0):
    """K of every layer: bytes and 16-bit words feed, and are added to, one another."""
    return {s.name: ks[(i + first) % len(ks)] for i, s in enumerate(spiking(net))}


@functools.cache
def traced(build, size=32):
    """The graph of a settled module, which takes longer to make than a network of it."""
    torch.manual_seed(0)
    x = images(3, size)
    return trace(settle(build(), x), images=x)


def mixed(build, size=32, first=0, **options):
    x, graph = images(3, size), traced(build, size)
    K = cycled(fs.convert(graph, x, **options), first=first)
    return fs.convert(graph, x, K=K, **options), K


@pytest.mark.parametrize("weight_bits", [8, 16])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("build", [cifar_resnet8, Ragged])
def test_mixed_networks_word_for_word(build, first, weight_bits):
    net, K = mixed(build, first=first, weight_bits=weight_bits)
    assert {s.name: s.code.K for s in spiking(net)} == K
    x = images(2, 37, seed=9)
    same_everywhere(net, x, reference.collapsed)
    if weight_bits == 16:
        same_everywhere(net, x, reference.literal)


@pytest.mark.parametrize("first", [0, 2])
def test_mixed_words_with_an_offset(first):
    """The code of zero, and with it that of the padding, is another in every layer."""
    net, _ = mixed(Bottlenecks, 33, first, bottleneck="spiking")
    assert len({s.code.zero for s in spiking(net)}) > 2
    same_everywhere(net, images(2, 21, seed=4), reference.literal)


def test_every_isa_and_plane_group_gives_the_same():
    net, _ = mixed(Ragged, first=1)
    x = images(2, 37, seed=9)
    expected = net.execute(x, reference.collapsed)
    try:
        for isa in ops.supported_isas():
            fs.set_isa(isa)
            for net.plane_bits in (0, 1, 4):
                assert torch.equal(net(x), expected), (isa, net.plane_bits)
    finally:
        fs.set_isa(None)


def test_concatenated_layers_take_the_largest_K():
    x = images(3, 21)
    module = settle(Branches(), x)
    net = fs.convert(module, x, K={"stem": 9, "a": 3, "d": 8, "default": 4})
    assert {s.name: s.code.K for s in spiking(net)} == {"stem": 9} | dict.fromkeys("abcde", 8)
    assert "shares the largest K and alpha" in str(net.report())
    same_everywhere(net, x, reference.collapsed)


def test_files_copies_and_reports_keep_every_K(tmp_path):
    net, K = mixed(cifar_resnet8)
    x = images(2, 32, seed=5)
    net.save(tmp_path / "net.safetensors")
    loaded = fs.load(tmp_path / "net.safetensors")
    for other in (loaded, copy.deepcopy(net)):
        assert torch.equal(other(x), net(x))
        assert {r.name: r.K for r in other.report().rows if r.K} == K
        assert (other.K, other.latency_steps, other.interval_steps) == (10, net.latency_steps, 20)
    uniform = fs.convert(traced(cifar_resnet8), images(3, 32), K=8)
    with pytest.raises(ValueError, match="converted with other settings"):
        uniform.load_state_dict(net.state_dict())


def test_spikes_and_fidelity_count_by_each_layers_own_K():
    net, K = mixed(cifar_resnet8, weight_bits=16)
    x = images(2, 32, seed=5)
    words, _, _ = every_word(net, x, reference.collapsed)
    stats = net.run(x)[1]
    for name, steps in K.items():
        assert int(words[name].max()) < 2**steps
        trains = fs.to_spikes(words[name], steps)
        assert torch.equal(stats.spikes[name], trains.sum((0, 2, 3, 4))), name
    values = fs.fidelity(net, x)
    assert values["words_changed"] < 0.1 and 0.98 < values["spikes_ratio"] < 1.02


def test_a_raster_shows_every_layer_in_its_own_steps():
    net, K = mixed(cifar_resnet8)
    stats = net.run(images(1, 32, seed=5), record="all")[1]
    axes = plots.latency_raster(net, stats).axes[0]
    assert axes.get_xlim() == (0.5, net.latency_steps + 0.5)
    begin = 0
    for line, (name, steps) in zip(axes.lines, K.items(), strict=True):  # a chain but for joins
        times = torch.as_tensor(line.get_xdata()) - begin
        train = stats.recorded[name].spikes()[:, 0].flatten(1)
        assert len(times) and 1 <= int(times.min()) and int(times.max()) <= steps
        assert [int((times == t).sum()) for t in range(1, steps + 1)] == train.sum(1).tolist()
        begin += steps


def paths(net):
    """Every path from the image to the logits, as the steps on it."""

    def back(step):
        if not step.sources:
            yield [step]
        for name in step.sources:
            for path in back(by_name[name]):
                yield [*path, step]

    by_name = {step.name: step for step in net.steps}
    return back(net.steps[-1])


@pytest.mark.parametrize("build", [cifar_resnet8, Ragged, Branches])
def test_latency_is_the_longest_path_of_each_layers_own_K(build):
    for first in range(3):
        net, _ = mixed(build, first=first)
        sums = []
        for path in paths(net):
            ks = [step.code.K for step in path if step.op == "conv" and step.code.K]
            sums.append(sum(ks) + ks[-1])  # the readout listens to the last
        assert net.latency_steps == max(sums)
        assert net.latency_steps <= net.depth * net.K


@pytest.mark.parametrize(
    "K,error,message",
    [
        ({"conv1": 8}, ValueError, "K names no value for 6 layer"),
        ({}, ValueError, "K names no value for 7 layer"),
        ({"conv": 8, "default": 8}, ValueError, "K names a layer 'conv' .* did you mean conv1"),
        ({"conv1": 16, "default": 8}, ValueError, "K=16 is outside"),
        ({"conv1": 8.0, "default": 8}, TypeError, "K=8.0 is not an integer"),
        ({"conv1": {"default": 3}, "default": 8}, TypeError, "not an integer"),
        ({"fc": 8, "default": 8}, ValueError, "K names a layer 'fc'"),
    ],
)
def test_malformed_K_is_refused(K, error, message):
    with pytest.raises(error, match=message):
        fs.convert(traced(cifar_resnet8), images(1, 32), K=K)


def test_one_K_is_the_same_as_a_dict_of_it():
    x = images(2, 32)
    graph = traced(cifar_resnet8)
    plain = fs.convert(graph, x, K=5)
    nets = [fs.convert(graph, x, K=K) for K in ({"default": 5}, cycled(plain, (5,)))]
    for net, seed in itertools.product(nets, (1, 2)):
        assert torch.equal(net(images(2, 32, seed)), plain(images(2, 32, seed)))
    assert nets[0].get_extra_state() == plain.get_extra_state()
