"""Risk: where two maps are multiplied, a path of a network gives other words, counts or costs."""

import copy
import pickle

import pytest
import torch
from cuda_backends import emulator
from gated.networks import Made, gated, images
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import brute_force_sops, every_word, same_everywhere

import fskernel as fs
from fskernel import reference
from fskernel.codes.code import Code
from fskernel.codes.neuron import popcount
from fskernel.graph import Graph, Layer
from fskernel.kernels import ops
from fskernel.network.network import FSNetwork
from fskernel.network.steps import ReadoutStep
from fskernel.rate.network import RateNetwork

GATES = ("channels", "places", "square", "dimmed")


@settings(max_examples=40)
@given(
    K=st.integers(1, 15),
    words=st.booleans(),
    width=st.integers(1, 70),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 99),
)
def test_every_word_equals_the_literal_network(K, words, width, size, seed):
    net = gated(K, words, seed, width)
    same_everywhere(net, 1.5 * images(1, size, seed), reference.literal)


@pytest.mark.parametrize("isa", ops.supported_isas())
@pytest.mark.parametrize("K", [1, 8, 9, 15])
@pytest.mark.parametrize("words", [False, True])
def test_every_instruction_set_and_number_of_threads_gives_the_same(words, K, isa):
    net = gated(K, words, width=67)
    ops.set_isa(isa)
    threads = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            same_everywhere(net, images(3, (9, 8)), reference.collapsed)
        assert [net.plan().kernels()[name] for name in GATES] == ["gate"] * 4
    finally:
        torch.set_num_threads(threads)
        ops.set_isa(None)


@pytest.mark.parametrize("words", [False, True])
def test_the_cuda_kernels_give_the_same(words):
    net, x = gated(5, words), images()
    found, expected = every_word(net, x, emulator()), every_word(net, x, reference.collapsed)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(found[2], expected[2])


@pytest.mark.parametrize("K", [2, 12])
def test_the_products_approach_those_of_the_values(K):
    """m and bias are those of the contract: what a code stands for is the product of two values."""
    net = gated(K, width=9)
    words, _, _ = every_word(net, images())
    codes = {step.name: step.code for step in net.steps}

    def values(name):
        return (words[name].double() - codes[name].zero) * codes[name].step

    for step in net.steps:
        if step.op == "gate":
            code, exact = step.code, values(step.sources[0]) * values(step.sources[1])
            low, high = ((n - code.zero) * code.step for n in (code.x_min, code.x_max))
            error = (values(step.name) - exact.clamp(low, high)).abs().max()
            assert float(error) <= 0.5001 * code.step


@pytest.mark.parametrize("words", [False, True])
def test_a_file_a_pickle_and_a_copy_hold_the_same_network(words, tmp_path):
    net, x = gated(6, words), images()
    net.save(tmp_path / "net.safetensors")
    loaded = fs.load(tmp_path / "net.safetensors")
    for other in (loaded, pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(other(x), net(x))
        assert [s.spec() for s in other.steps] == [s.spec() for s in net.steps]


def test_a_plan_is_made_anew_where_a_gate_has_changed():
    net, x = gated(6), images()
    before = net(x)
    net.steps[[s.name for s in net.steps].index("places")].m.mul_(0.5)
    assert not torch.equal(net(x), before)
    same_everywhere(net, x, reference.collapsed)


def test_what_a_run_counts():
    net, x = gated(6, True), images()
    words, _, _ = every_word(net, x)
    _, stats = net.run(x)
    area = {"channels": 42, "places": 42, "square": 30, "dimmed": 30}
    width = {"dimmed": 3}
    assert stats.gate_ops == {name: area[name] * width.get(name, 21) for name in GATES}
    steps = {step.name: step for step in net.steps}
    for name in ("channels", "places", "square"):
        assert torch.equal(stats.spikes[name], popcount(words[name]).sum((1, 2, 3)))
        assert stats.neurons[name] == stats.gate_ops[name] and name not in stats.sops
    expected = brute_force_sops(words["places"], 6, steps["mixed"].groups[0])
    assert torch.equal(stats.sops["mixed"].double(), expected)
    assert "dimmed" not in stats.spikes and stats.graded_macs["last"] == 30 * 3 * 6
    assert "gates" in str(stats)
    assert net.neurons == sum(stats.neurons.values())


def test_the_report_has_gates_and_their_products():
    net = gated(6)
    rows = {row.name: row for row in net.report().rows}
    assert rows["channels"].kind == "gate, FS neurons with an offset" and rows["channels"].K == 6
    assert rows["dimmed"].kind == "gate, graded values" and rows["dimmed"].gate_ops == 90
    assert "2,484 products of two maps in gates" in str(net.report())
    assert "4 gate" in str(net)
    assert "gates" not in str(without_gates().report())


def without_gates() -> FSNetwork:
    made = Made()
    return made.read_out(made.conv("only", "image", 4, Code.words(3, 1.0)))


@pytest.mark.parametrize("words, depth", [(True, 10), (False, 7)])
def test_a_gate_of_words_is_a_layer_of_the_pipeline(words, depth):
    net, x = gated(4, words, width=5), images()
    assert net.depth == depth
    run = fs.schedule(net, x)
    found, counts, logits = every_word(net, x, reference.collapsed)
    assert torch.equal(run.logits, logits) and run.latency_steps == net.latency_steps
    for name, value in found.items():
        assert torch.equal(run.words[name], value), name
    for name in GATES[:3] if words else ():
        assert len(run.spikes[name]) == int(counts[name].sum())
        window = run.windows[name][0]
        assert window.last - window.fires == 3  # K steps, once both trains are complete


def test_an_estimate_of_energy_prices_a_product_as_a_mac():
    net, x = gated(6), images()
    _, stats = net.run(x)
    products = sum(stats.gate_ops.values())
    proxy, int8, memory = fs.energy.estimate(net, stats)
    assert proxy.ann["gates"] == proxy.fs["gates"] == pytest.approx(4.6 * products)
    assert int8.ann["gates"] == pytest.approx(0.3 * products)
    assert int8.ann["gates"] < int8.fs["gates"] < 0.9 * products  # of 8 bits, and of 16
    assert memory.ann["factors of gates"] == pytest.approx(2 * 2.5 * products)
    assert memory.fs["factors of gates"] > memory.ann["factors of gates"]
    plain = without_gates()
    for row in fs.energy.estimate(plain, plain.run(x)[1]):
        assert "gates" not in row.ann and "factors of gates" not in row.fs


def test_recorded_spikes_and_what_has_none():
    net, x = gated(6), images()
    _, stats = net.run(x, record=["places"])
    train = stats.recorded["places"].spikes()
    assert torch.equal(train.sum((0, 2, 3, 4)), stats.spikes["places"])
    with pytest.raises(ValueError, match="products of two maps, and no spikes"):
        net.run(x, record=["dimmed"])


def test_maps_that_do_not_meet_are_refused_by_name():
    made = Made()
    a = made.conv("a", "image", 4, Code.words(3, 1.0))
    b = made.conv("b", a, 4, Code.words(3, 1.0), (2, 2))
    made.gate("product", a, b, Code.words(3, 1.0))
    with pytest.raises(ValueError, match="'product'.*maps of .* pixels meet in it"):
        made.read_out("product")
    weight, scale = torch.ones(2, 4, dtype=torch.int8), torch.ones(2, dtype=torch.float64)
    head = ReadoutStep("head", ["product"], (), weight, scale, torch.zeros(2), True, {})
    net = FSNetwork([*made.steps, head])
    with pytest.raises(ValueError, match="'product' multiplies maps of 7x6 and 6x5 pixels"):
        net(images())


def test_a_rate_coded_network_refuses_gates_by_name():
    graph = Graph([Layer("input", "input"), Layer("se", "gate", sources=("input", "input"))])
    graph.layers.append(Layer("head", "readout"))
    with pytest.raises(
        ValueError, match="'se' multiplies two maps: rate coding has no such neuron"
    ):
        RateNetwork(graph, images())
