"""Risk: the paper's pipeline, latency and interval are claimed, and do not work when executed."""

import functools

import pytest
import torch
from moved import networks as moved_networks
from moved.networks import GRAPHS
from networks import (
    POOLS,
    Bottlenecks,
    Branches,
    Clipped,
    OptionAResNet,
    Ragged,
    every_word,
    images,
    settle,
)
from torch import nn
from torchvision.models.resnet import BasicBlock

import fskernel as fs
from fskernel import reference
from fskernel.codes.code import Code
from fskernel.models import cifar_resnet8
from fskernel.reference.maps import pad_map, window_view
from fskernel.timeline import units
from fskernel.timeline.delay_lines import Line, Tap, Train


class Blocks(nn.Module):
    """A ResNet18's stem, one block with an identity and one with a projection, in small."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        down = nn.Sequential(nn.Conv2d(8, 12, 1, 2, bias=False), nn.BatchNorm2d(12))
        self.blocks = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 12, 2, down))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Sums(nn.Module):
    """Average-pools everywhere: of the image, as a residual, in a max-pool, side by side."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 6, 3),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 4, 1),
        )
        self.d, self.e = nn.Conv2d(10, 7, 3), nn.Conv2d(12, 7, 2)
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        x = torch.relu(self.a(nn.functional.avg_pool2d(x, 2)))
        y = nn.functional.avg_pool2d(x, 2)
        z = torch.relu(self.b(y) + y)
        means = nn.functional.avg_pool2d(z, 2, 1)
        both = torch.cat([means, nn.functional.max_pool2d(means, 3, 1, 1)], 1)
        mixed = torch.cat([z, self.c(z)], 1)  # words and signed values: graded values of one step
        return self.head(torch.relu(self.d(mixed) + self.e(both)).mean((2, 3)))


def converted(build, size, seed=3, **options):
    x = images(3, size, seed)
    return fs.convert(settle(build(), x), x, **options), images(3, size, seed=9)


def cycled(build, size, ks, **options):
    x = images(3, size)
    module = settle(build(), x)
    names = [s.name for s in fs.convert(module, x, **options).steps if s.spiking]
    K = {name: ks[i % len(ks)] for i, name in enumerate(names)}
    return fs.convert(module, x, K=K, **options), images(3, size, seed=9)


def trained(K):
    x = images(3, 32, seed=9)
    return fs.convert(cifar_resnet8(weights="cifar10"), images(2, 32), K=K), x


NETWORKS = {
    "cifar_resnet8": lambda: trained(4),
    "cifar_resnet8, K=1": lambda: trained(1),
    "cifar_resnet8, mixed K": lambda: cycled(cifar_resnet8, 15, (4, 9, 2)),
    "resnet18 blocks": lambda: converted(Blocks, 21, K=5),
    "ragged, mixed K": lambda: cycled(Ragged, 25, (10, 4, 8)),
    "concatenations": lambda: converted(Branches, 21, K=3),
    "concatenations, mixed K": lambda: cycled(Branches, 21, (2, 7, 3)),
    "option A": lambda: converted(lambda: OptionAResNet(1, (4, 6, 8)), 12, K=3),
    "ceiling": lambda: converted(lambda: Clipped(nn.ReLU6()), 9, K=3, alpha=9.0, rounding="floor"),
    "sums": lambda: converted(Sums, 18, K=4),
    "bottlenecks, mixed K": lambda: cycled(Bottlenecks, 33, (3, 8, 5), bottleneck="spiking"),
}
for _name, _pool in POOLS.items():
    for _kind in ("graded", "spiking"):
        NETWORKS[f"{_kind} bottlenecks, pool {_name}"] = lambda pool=_pool, kind=_kind: converted(
            lambda: Bottlenecks(pool=pool), 21, K=4, bottleneck=kind
        )
for _name in GRAPHS:
    for _kind, _ks in (
        ("graded", 4),
        ("spiking", 4),
        ("neuron", {"stem": 7, "last": 2, "default": 5}),
    ):
        NETWORKS[f"{_name}, {_kind}"] = lambda name=_name, kind=_kind, K=_ks: moved(name, kind, K)


def moved(name, kind, K):
    """Where codes move; `kind` says what the layers around zero give, or that there are none."""
    graph = GRAPHS[name](kind="neuron" if kind == "neuron" else "graded")
    x = moved_networks.images(name, 3, (6, 8))
    known = [layer.name for layer in graph.layers if layer.kind == "neuron"]
    K = {n: k for n, k in K.items() if n in (*known, "default")} if isinstance(K, dict) else K
    bottleneck = "spiking" if kind == "spiking" else "graded"
    return fs.convert(graph, x, K, bottleneck=bottleneck), moved_networks.images(name, 2, (6, 8), 9)


@functools.cache
def network(name):
    return NETWORKS[name]()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pipeline_gives_the_networks_words_at_the_times_that_are_claimed(name):
    net, x = network(name)
    run = fs.schedule(net, x)
    words, counts, logits = every_word(net, x, reference.collapsed)
    assert torch.equal(run.logits, logits) and torch.equal(run.logits, net.run(x)[0])
    assert run.latency_steps == net.latency_steps and run.interval_steps == net.interval_steps
    assert run.least_interval <= run.interval_steps
    ks = {step.name: step.code.K for step in net.steps if step.spiking}
    for step in net.steps[:-1]:
        assert torch.equal(run.words[step.name], words[step.name]), step.name
        assert run.words[step.name].dtype == words[step.name].dtype
    for layer, K in ks.items():
        rebuilt = torch.zeros(len(x), run.neurons[layer], dtype=torch.int64)
        steps, image, neuron = run.spikes[layer].T
        window = torch.tensor(run.windows[layer])[image]
        assert bool((window[:, 1] <= steps).all() and (steps <= window[:, 2]).all()), layer
        worth = 2 ** (window[:, 2] - steps)
        rebuilt.index_put_((image, neuron), worth, accumulate=True)
        assert torch.equal(rebuilt, words[layer].permute(0, 3, 1, 2).flatten(1).long()), layer
        assert torch.equal(image.bincount(minlength=len(x)), counts[layer])
        first, *later = run.windows[layer]
        assert first.last - first.fires + 1 == K
        for i, again in enumerate(later, 1):
            assert again == tuple(t + i * run.interval_steps for t in first), layer
    if len(set(ks.values())) == 1:
        assert run.least_interval == 2 * net.K
        assert run.latency_steps == net.depth * net.K
        assert run.complete_steps == (net.depth - 1) * net.K


@pytest.fixture
def resnet():
    return network("cifar_resnet8")


def fault(net, x, **options):
    with pytest.raises(fs.ScheduleError) as found:
        fs.schedule(net, x, **options)
    return found.value


@pytest.mark.parametrize("steps", [-1, 1, -4, 8])
def test_no_layer_can_be_placed_elsewhere(resnet, steps):
    net, x = resnet
    for step in net.steps:
        error = fault(net, x, offsets={step.name: steps})
        readers = [s.name for s in net.steps if step.name in s.sources]
        assert error.layer in [step.name, *readers], (step.name, error)


def test_an_error_tells_layer_image_and_step(resnet):
    net, x = resnet
    early = fault(net, x, offsets={"layer1.0.conv1": -1})
    assert (early.layer, early.image, early.step) == ("layer1.0.conv1", 0, 0)
    assert "'layer1.0.conv1', image 0, time step 0: it listens to 'conv1', which sends" in str(
        early
    )
    late = fault(net, x, offsets={"layer2.0.conv1": 1})
    assert (late.layer, late.step) == ("layer2.0.conv1", 9) and "outside its window" in str(late)


def first_bits_only(self, planes, worth):
    """A max-pool that forgets which of its inputs has lost."""
    windows = window_view(pad_map(planes[0], self.step.geometry, 0), self.step.geometry)
    self._largest = windows.bool().any(-1).any(-1)


def no_current(plane, synapses):
    """Padding of which nothing flows, though its code is not 0."""
    return 0


@pytest.mark.parametrize(
    "place,planted,name,layer",
    [
        ((units.MaxPool, "hear"), first_bits_only, "resnet18 blocks", "stem.3"),
        ((units, "_of_padding"), no_current, "bottlenecks, mixed K", "expand"),
    ],
)
def test_planted_bugs_give_other_words(monkeypatch, place, planted, name, layer):
    net, x = network(name)
    monkeypatch.setattr(*place, planted)
    error = fault(net, x)
    assert error.layer == layer and "differ from those of the network" in str(error)


@pytest.mark.parametrize("wrong", [-4, -1, 1, 8])
def test_a_wrong_delay_of_a_branch_is_seen(resnet, wrong):
    net, x = resnet
    way = ("conv1", "layer1.0.conv2")
    assert [e.delay for e in fs.schedule(net, x).edges if e[:2] == way] == [4]
    assert fault(net, x, delays={way: 4 + wrong}).layer == "layer1.0.conv2"


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_wrong_delay_in_a_concatenation_or_projection_is_seen(wrong):
    for name, reader in (
        ("concatenations, mixed K", "cat_1"),
        ("resnet18 blocks", "blocks.1.conv2"),
    ):
        net, x = network(name)
        held = [e for e in fs.schedule(net, x).edges if e.reader == reader and e.delay]
        assert len(held) == 1
        error = fault(net, x, delays={held[0][:2]: held[0].delay + wrong})
        assert error.layer == reader


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_resnet8, mixed K", "resnet18 blocks"])
def test_images_cannot_follow_each_other_faster(name):
    net, x = network(name)
    least = fs.schedule(net, x).least_interval
    quick = fs.schedule(net, x, interval=least)
    assert torch.equal(quick.logits, net(x)) and quick.latency_steps == net.latency_steps
    error = fault(net, x, interval=least - 1)
    assert error.image == 1 and "state belongs to image 0" in str(error)
    slow = fs.schedule(net, x[:1], interval=1)  # nobody follows
    assert torch.equal(slow.logits, net(x[:1]))


def test_a_layer_may_wait_if_all_is_held_back_for_it(resnet):
    """So what is refused elsewhere is refused for its time, and not because it was moved."""
    net, x = resnet
    source, readout = net.steps[-2].name, net.steps[-1].name
    run = fs.schedule(net, x, offsets={readout: 3}, delays={(source, readout): 3})
    assert torch.equal(run.logits, net(x))
    assert run.latency_steps == net.latency_steps + 3 and run.edges[-1].delay == 3


@pytest.mark.parametrize("name", ["cifar_resnet8, mixed K", "graded bottlenecks, pool max"])
def test_delay_lines_hold_what_waits(name):
    net, x = network(name)
    x = x.repeat(2, 1, 1, 1)
    assert len(x) > net.latency_steps / net.interval_steps, "the pipeline is full"
    run = fs.schedule(net, x)
    by_name = {step.name: step for step in net.steps}

    def waiting(source, delay, t):
        """Bits sent in the last `delay` time steps."""
        step, values = by_name[source], run.words[source][0].numel()
        if not step.spiking:  # whole values, in the last step
            bits = (step.code.x_max - step.code.x_min).bit_length()
            return sum(t - delay < w.last <= t for w in run.windows[source]) * values * bits
        sent = (s for w in run.windows[source] for s in range(w.fires, w.last + 1))
        return sum(t - delay < s <= t for s in sent) * values

    clock = range(run.windows[net.steps[-1].name][-1].last + 1)
    longest = {}
    for source, _, delay, peak in run.edges:
        if by_name[source].code.kind == "words" and not by_name[source].spiking:
            continue  # a pool of words passes spikes on, and is not held here
        longest[source] = max(longest.get(source, 0), delay)
        assert peak == max(waiting(source, delay, t) for t in clock), source
    most = max(sum(waiting(*line, t) for line in longest.items()) for t in clock)
    assert run.peak_bits == most > 0
    assert f"{most:,} bits at once" in str(run)
    alone = fs.schedule(net, x[:1])
    assert alone.edges == run.edges and alone.peak_bits == most


@pytest.mark.parametrize(
    "options,error,message",
    [
        ({"interval": 0}, ValueError, "interval=0: give"),
        ({"interval": 8.0}, TypeError, "interval=8.0 is not an integer"),
        ({"interval": True}, TypeError, "interval=True is not an integer"),
        ({"offsets": {"conv9": 1}}, ValueError, "offsets names 'conv9', which is not"),
        ({"offsets": {"conv1": 0.5}}, TypeError, r"offsets\['conv1'\]=0.5 is not an integer"),
        ({"offsets": ["conv1"]}, TypeError, "offsets is a list"),
        ({"delays": {"conv1": 1}}, ValueError, "delays names 'conv1', which is not"),
        ({"delays": {("fc", "conv1"): 1}}, ValueError, "delays names .'fc', 'conv1'."),
        ({"delays": {("input", "conv1"): -1}}, ValueError, "=-1: give a number .* at least 0"),
    ],
)
def test_what_is_no_schedule_is_refused(resnet, options, error, message):
    net, x = resnet
    with pytest.raises(error, match=message):
        fs.schedule(net, x, **options)


def test_what_is_no_network_or_image_is_refused(resnet):
    net, x = resnet
    with pytest.raises(TypeError, match="net is a Linear"):
        fs.schedule(nn.Linear(3, 3), x)
    with pytest.raises(ValueError, match="images has no image"):
        fs.schedule(net, x[:0])
    with pytest.raises(ValueError, match="x has 2 channels"):
        fs.schedule(net, x[:, :2])


def test_a_step_that_nobody_has_put_into_time_is_refused():
    """Spikes beside sums of spikes, which no conversion makes."""
    code = Code.graded(1.0, 3)
    taps = [
        Tap(name, Line(train), 0) for name, train in (("a", Train(2, 0, 1)), ("b", Train(1, 0, 3)))
    ]
    with pytest.raises(NotImplementedError, match="'both' is a step of kind 'concat'"):
        units.unit_of(fs.steps.ConcatStep("both", ["a", "b"], code, ()), taps, 0, 1, 8, (2, 2))
