"""Risk: recorded spikes are not those of the network, of another layer or time step, or shared."""

import functools

import pytest
import torch
from networks import SPIKING, Bottlenecks, Branches, Ragged, every_word, images, settle
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.tracing.trace import trace

# Torch warns that it copies inputs where "same" padding is asymmetric.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@functools.cache
def traced(build, size):
    torch.manual_seed(2)
    x = images(3, size)
    return trace(settle(build(), x), images=x)


def converted(build, K=5, size=37, **options):
    return fs.convert(traced(build, size), images(3, size), K=K, **options)


@pytest.mark.parametrize(
    "build,K,options",
    [
        (Ragged, 5, {}),
        (Branches, 9, {}),
        (Bottlenecks, 7, {"bottleneck": "spiking"}),
        (Bottlenecks, 10, {"rounding": "floor"}),
    ],
)
def test_recorded_words_are_those_of_the_literal_network(build, K, options):
    net = converted(build, K, 37 if build is not Bottlenecks else 11, **options)
    x = images(2, 37 if build is not Bottlenecks else 11, seed=9)
    logits, stats = net.run(x, record="all")
    words, _, expected = every_word(net, x, reference.literal)
    assert torch.equal(logits, expected)
    assert list(stats.recorded) == list(stats.spikes)
    for name, spikes in stats.recorded.items():
        assert torch.equal(spikes.words, words[name].permute(0, 3, 1, 2)), name
        train = spikes.spikes()
        assert train.shape == (K, *spikes.shape) and train.dtype == torch.bool
        place = torch.tensor([2**i for i in reversed(range(K))]).view(K, 1, 1, 1, 1)
        assert torch.equal((train * place).sum(0), spikes.words.long()), "first step first"
        assert torch.equal(spikes.count(), stats.spikes[name])
        assert spikes.neuron.rounding == options.get("rounding", "nearest")


def test_values_are_what_the_dense_network_has_within_a_step():
    x = images(2, 37, seed=4)
    net = converted(Ragged, K=10)
    seen = {}
    net.graph.to(torch.float32).forward(x, observe=lambda layer, y: seen.update({layer.name: y}))
    _, stats = net.run(x, record=["a"])
    spikes = stats.recorded["a"]
    assert spikes.neuron.alpha == net.steps[1].info["alpha"]
    wanted = seen["a"].clamp(max=spikes.neuron.alpha)
    assert float((spikes.values() - wanted).abs().max()) < 0.02 * spikes.neuron.alpha


def test_words_with_an_offset_are_alpha_too_large():
    x = images(2, 11, seed=4)
    net = converted(Bottlenecks, 10, 11, bottleneck="spiking")
    seen = {}
    net.graph.to(torch.float32).forward(x, observe=lambda layer, y: seen.update({layer.name: y}))
    spikes = net.run(x, record="first")[1].recorded["first"]
    alpha = next(s for s in net.steps if s.name == "first").info["alpha"]
    error = spikes.values() - alpha - seen["first"].clamp(-alpha, alpha)
    assert float(error.abs().max()) < 0.05 * alpha


def test_only_chosen_layers_are_kept_and_nothing_else_changes():
    net, x = converted(Ragged), images(2, 37, seed=1)
    logits, plain = net.run(x)
    assert plain.recorded == {}
    for record in ("b", ["b"], ("b",), (n for n in ["b", "b"]), {"b": 1}):
        again, stats = net.run(x, record=record)
        assert list(stats.recorded) == ["b"]
        assert torch.equal(again, logits)
        assert all(torch.equal(stats.spikes[n], plain.spikes[n]) for n in plain.spikes)
    kept = stats.recorded["b"].words.clone()
    net.run(images(2, 37, seed=5), record="b")
    assert torch.equal(stats.recorded["b"].words, kept), "a later run wrote into the record"
    assert net.run(x, record=[])[1].recorded == {}


def test_a_loaded_network_and_an_empty_batch_can_be_recorded(tmp_path):
    net, x = converted(Ragged), images(1, 37, seed=1)
    net.save(tmp_path / "net.safetensors")
    wanted = net.run(x, record="all")[1].recorded
    found = fs.load(tmp_path / "net.safetensors").run(x, record="all")[1].recorded
    assert all(torch.equal(found[n].words, wanted[n].words) for n in wanted)
    assert {n: s.neuron for n, s in found.items()} == {n: s.neuron for n, s in wanted.items()}
    empty = net.run(x[:0], record="a")[1].recorded["a"]
    assert empty.shape == (0, *wanted["a"].shape[1:])


class Everything(nn.Module):
    """Every kind of step that has no neurons of its own."""

    def __init__(self):
        super().__init__()
        self.stem_a, self.stem_b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.pool, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.line = nn.Conv2d(8, 8, 1)
        self.wide = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat([torch.relu(self.stem_a(x)), torch.relu(self.stem_b(x))], 1)
        x = self.line(self.mean(self.pool(x)))
        x = torch.relu(self.wide(x) + x)
        return self.head(x.mean((2, 3)))


def test_what_has_no_spikes_is_refused_with_the_reason_before_any_work():
    net = converted(Everything, size=21)
    kinds = {step.op: step.name for step in net.steps}
    reasons = {
        kinds["encode"]: "image",
        kinds["concat"]: "record 'stem_a' or 'stem_b'",
        kinds["max_pool"]: "record 'stem_a' or 'stem_b'",
        kinds["sum_pool"]: "sums of an average-pool",
        "line": 'bottleneck="spiking"',
        kinds["readout"]: "logits",
        "stem_c": "did you mean 'stem_(a|b)' or 'stem_(a|b)'",
        "zzz": "layers of neurons are 'stem_a', 'stem_b', 'wide'",
    }
    assert len(reasons) == 8
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=f"record: .*'{name}'.*{reason}"):
            net.run("no images at all", record=["wide", name])
    for wrong in (3, [4], [None]):
        with pytest.raises(TypeError, match="names of layers"):
            net.run(images(1, 21), record=wrong)


def test_a_linear_bottleneck_that_spikes_can_be_recorded():
    net = converted(Bottlenecks, 6, 11, bottleneck="spiking")
    stats = net.run(images(1, 11), record=SPIKING)[1]
    assert set(stats.recorded) == set(SPIKING)
