"""Risk: fitted neurons are counted, recorded or stored as if their codes were spike words."""

import copy
import json
import pickle

import pytest
import torch
from fitted import hostile
from networks import crossed, crossed_net, every_word, images, same_everywhere

import fskernel as fs
from fskernel import plots, reference
from fskernel.codes.fitted import fire_fitted, fitted_spikes
from fskernel.network.stats import trains_of_largest
from fskernel.spikes import FittedSpikes

A = 1  # a step of `Crossed` by number


def shown(n=2):
    return images(n, 9, seed=8)[..., :8]


def trains_by_hand(net, x):
    """Bool [K, N, C, H, W] of all layers of neurons, from membranes that the oracle computes."""
    found = {}

    def look(step, inputs, y, counts):
        if not step.spiking:
            return
        if step.fitted is None:
            bits = y.permute(0, 3, 1, 2).int()
            K = step.code.K
            found[step.name] = torch.stack([(bits >> (K - t)) & 1 for t in range(1, K + 1)]).bool()
            return
        n = len(step.groups)
        residual = None if step.r is None else (inputs[n], step.r)
        groups = list(zip(inputs[:n], step.groups, strict=False))
        v, _ = reference.literal.conv(groups, step.bias, K=0, step=1.0, residual=residual)
        codes, spikes = fire_fitted(v, step.fitted, step.code.zero, step.code.bits)
        assert torch.equal(codes, y)
        assert torch.equal(spikes.sum((1, 2, 3), dtype=torch.int64), counts)
        found[step.name] = fitted_spikes(v, step.fitted).permute(0, 1, 4, 2, 3)

    net.execute(x, reference.literal, look)
    return found


@pytest.mark.parametrize("K", [8, 16])
def test_recorded_trains_are_those_of_the_membranes(K):
    net, x = crossed_net(K), shown()
    _, stats = net.run(x, record="all")
    codes, counts, _ = every_word(net, x, reference.collapsed)
    for name, train in trains_by_hand(net, x).items():
        spikes, code = stats.recorded[name], next(s.code for s in net.steps if s.name == name)
        assert torch.equal(spikes.spikes(), train), name
        assert torch.equal(spikes.count(), counts[name]) and spikes.shape == train.shape[1:]
        assert torch.equal(stats.spikes[name], counts[name])
        values = (codes[name].permute(0, 3, 1, 2).double() - code.zero) * code.step
        assert torch.equal(spikes.values(), values.float())
        assert isinstance(spikes, FittedSpikes) == (code.kind == "fitted")
    some = stats.recorded["a"]
    assert some.neuron.K == K and some.neuron.function == "SiLU" and some.to("cpu") is not some
    assert repr(some).startswith("FittedSpikes(shape=(2, 4, 9, 8)")


def winners(codes, counts, kernel, stride, padding):
    """What a max-pool makes of spike counts: those of the neuron with the first largest code."""
    n, c, h, w = codes.shape
    rows, cols = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    pooled = torch.zeros(n, c, rows, cols, dtype=torch.int64)
    for i in range(n):
        for k in range(c):
            for row in range(rows):
                for col in range(cols):
                    best = -1
                    for y in range(row * stride - padding, row * stride - padding + kernel):
                        for x in range(col * stride - padding, col * stride - padding + kernel):
                            if 0 <= y < h and 0 <= x < w and codes[i, k, y, x] > best:
                                best = int(codes[i, k, y, x])
                                pooled[i, k, row, col] = counts[i, k, y, x]
    return pooled


def reached(counts, layers, fans):
    """SOPs of each image: each spike times the positions that it reaches, times neurons there."""
    size = counts.shape[2:]
    flat = torch.eye(size[0] * size[1], dtype=torch.float64).view(-1, 1, *size)
    for layer in layers:
        flat = layer(flat)
    positions = (flat != 0).flatten(1).sum(1).view(size)
    return (counts * positions * fans).sum((1, 2, 3))


def test_every_spike_is_counted_once_for_every_synapse_it_goes_through():
    net, x = crossed_net(16), shown()
    _, stats = net.run(x)
    spikes = {name: train.sum(0) for name, train in trains_by_hand(net, x).items()}
    codes, _, _ = every_word(net, x, reference.literal)
    codes = {name: y.permute(0, 3, 1, 2).int() for name, y in codes.items()}
    zero = next(s.code.zero for s in net.steps if s.name == "c")

    def ones(*kernel, **options):
        def conv(flat):
            weight = torch.ones(1, 1, *kernel, dtype=torch.float64)
            return torch.nn.functional.conv2d(flat, weight, **options)

        return conv

    mean = lambda flat: torch.nn.functional.avg_pool2d(flat, 2)  # noqa: E731
    first = winners(codes["cat"], torch.cat([spikes["a"], spikes["b"]], 1), 3, 2, 1)
    around = (2, 1, 1, 2)
    second = winners(
        torch.nn.functional.pad(codes["c"], around, value=zero),
        torch.nn.functional.pad(spikes["c"], around), 2, 1, 0,
    )  # fmt: skip
    expected = {
        "c": reached(first, [ones(3, 2, padding=(1, 0))], 6),
        "d": reached(second, [ones(3, 3, padding=1)], 2),
        "e": reached(spikes["d"], [ones(1, 1)], 6 + 1),  # and the identity
        "f": reached(spikes["e"], [mean, ones(2, 2)], 5),
        "fc": spikes["f"].sum((1, 2, 3)) * 4,
    }
    for name, sops in expected.items():
        assert torch.equal(stats.sops[name], sops), name
    assert int(stats.sops["a"].sum()) == 0 and set(stats.graded_macs) == {"a", "b"}


def test_of_equal_codes_the_first_of_a_window_wins_and_padding_never():
    codes = torch.tensor([[5, 0, 0], [5, 0, 0]], dtype=torch.uint8).view(1, 2, 3, 1)
    trains = torch.tensor([[1, 2, 3], [4, 5, -6]], dtype=torch.int16).view(1, 2, 3, 1)
    pool = fs.ops.Geometry((2, 2), padding=(1, 0, 0, 1))
    found = trains_of_largest(codes, trains, pool)
    assert found.flatten().tolist() == [1, 2, 3, 1, 2, 3] and found.dtype == torch.int16


def test_the_network_is_the_same_everywhere():
    for K in (1, 8, 9, 16):
        same_everywhere(crossed_net(K), shown(), reference.literal)


def test_files_pickles_and_copies_give_the_same_bits(tmp_path):
    net, x = crossed_net(16), shown()
    expected = every_word(net, x, reference.collapsed)
    net.save(tmp_path / "a.safetensors")
    for other in (
        fs.load(tmp_path / "a.safetensors"),
        pickle.loads(pickle.dumps(net)),
        copy.deepcopy(net),
    ):
        found = every_word(other, x, reference.collapsed)
        for one, two in zip(expected[:2], found[:2], strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)
        assert torch.equal(expected[2], found[2]) and str(other.report()) == str(net.report())
        assert other.fitted == list("abcde")
        other.half()
        assert other.steps[A].fitted.dtype == torch.float32
    state = copy.deepcopy(net)
    state.load_state_dict(net.state_dict())


def test_older_pickles_hold_no_fitted_neurons():
    net = fs.convert(crossed(), images(3, 9)[..., :8], K=5)
    state = net.steps[A].__getstate__()
    del state["_buffers"]["fitted"]
    net.steps[A].__setstate__(state)
    assert net.steps[A].fitted is None
    same_everywhere(net, shown(), reference.literal)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return hostile.template(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", hostile.CASES)
def test_hostile_files_are_refused_by_name(template, name):
    change, message = hostile.CASES[name]
    path = template.changed(change)
    with pytest.raises(ValueError, match=message) as caught:
        fs.load(path)
    assert str(path) in str(caught.value)


def test_what_is_for_spike_words_is_refused_before_any_work(monkeypatch):
    net, x = copy.deepcopy(crossed_net(16)), shown()
    monkeypatch.setattr(type(net), "execute", None)
    for call in (
        lambda: fs.fidelity(net, x),
        lambda: fs.schedule(net, x),
        lambda: fs.neurobench.measure(net, x),
        lambda: fs.neurobench.wrap(net),
    ):
        with pytest.raises(ValueError, match="'a' has fitted neurons.*convert with another neuron"):
            call()
    net.plane_bits = 4
    for call in (lambda: net(x), lambda: net.run(x), lambda: net.count_spikes(x)):
        with pytest.raises(ValueError, match="plane_bits=4 is for spike words, and 'a' has"):
            call()
    with pytest.raises(ValueError, match="neuron='fitted' is not searched"):
        fs.search(torch.nn.ReLU(), x, neuron="fitted")


def test_figures_reports_and_energy_know_them():
    pytest.importorskip("matplotlib")
    net, x = crossed_net(16), shown()
    _, stats = net.run(x, record="all")
    spikes = stats.recorded["a"]
    figure = plots.raster(spikes)
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) == int(spikes.count()[0])
    plots.latency_raster(net, stats)
    text = str(net.report())
    assert "fitted FS neurons, SiLU, residual" in text and "these have 8 steps" in text
    assert "fitted to" in str(net) and "SiLU in 4 layers, GELU in 1 layer" in str(net)
    work = fs.energy.layer_work(net, (9, 8), {}, {}, {})
    assert {w.name: w.K for w in work} == dict.fromkeys("abcde", 16) | {"f": 8, "fc": 0}
    assert net.K == 16 and net.latency_steps == 4 * 16 + 8 + 8
    json.dumps([step.spec() for step in net.steps])
