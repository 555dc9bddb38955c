"""Risk: words with an offset (linear bottlenecks that spike) are padded, read or counted wrong."""

import copy
import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    POOLS,
    SPIKING,
    Bottlenecks,
    brute_force_sops,
    every_word,
    images,
    same_everywhere,
    settle,
)
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.kernels import ops
from fskernel.rate.network import RateNetwork
from fskernel.tracing.trace import trace


def spiking(net):
    return [s for s in net.steps if s.op == "conv" and s.code.zero]


@functools.cache
def traced(kernel=(3, 3), dilation=1, pool="none", width=16, size=(33, 33)):
    """The module and its graph, which takes longer to make than a network of it."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, *size) + 0.1
    module = settle(Bottlenecks(kernel, dilation, POOLS[pool], width), x)
    return module, trace(module, images=x)


MODULES = [  # kernel, dilation, pool, width
    ((3, 3), 1, "none", 7),
    ((1, 4), 2, "max", 33),
    ((2, 3), 1, "average", 1),
    ((4, 2), 2, "max ceil", 7),
    ((4, 1), 1, "max", 1),
    ((3, 4), 2, "average", 33),
]


# Torch warns that it copies inputs where "same" padding is asymmetric.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=25)
@given(
    given_module=st.sampled_from(MODULES),
    K=st.integers(1, 15),
    bits=st.sampled_from([8, 16]),
    rounding=st.sampled_from(["nearest", "floor"]),
    alpha=st.sampled_from(["max", "percentile:95", 1.5, 25.0]),
    size=st.tuples(st.integers(9, 24), st.integers(9, 24)),
    seed=st.integers(0, 99),
)
def test_every_word_equals_the_literal_network(given_module, K, bits, rounding, alpha, size, seed):
    torch.manual_seed(seed)
    K = min(K, 14) if "average" in given_module else K  # a sum of two words has to fit 16 bits
    x = torch.randn(2, 3, *size) + 0.3
    net = fs.convert(traced(*given_module)[1], x, K, alpha, rounding, bits, bottleneck="spiking")
    assert [s.name for s in spiking(net)] == SPIKING
    same_everywhere(net, torch.randn(1, 3, *size) * 1.5, reference.literal)


@pytest.mark.parametrize("isa", ops.supported_isas())
@pytest.mark.parametrize("K", [1, 8, 9, 15])
def test_every_instruction_set_pads_with_the_code_of_zero(K, isa):
    net = fs.convert(traced(width=7)[1], images(2, 19), K, bottleneck="spiking")
    ops.set_isa(isa)
    try:
        for planes in (0, 1, 4):
            net.plane_bits = planes
            same_everywhere(net, images(2, 23, seed=5), reference.collapsed)
    finally:
        ops.set_isa(None)


@pytest.mark.slow  # with K=8 in tests/conversion/test_whole_networks.py, too
@pytest.mark.parametrize("K,bits", [(4, 16), (8, 8)])
def test_mobilenet_v2_word_for_word(K, bits):
    x = images(2, 64)
    models = pytest.importorskip("torchvision.models")
    module = settle(models.mobilenet_v2(num_classes=11), x)
    net = fs.convert(module, x, K, weight_bits=bits, bottleneck="spiking")
    assert len(spiking(net)) == 17 and {s.code.K for s in net.steps if s.op == "conv"} == {K}
    same_everywhere(net, images(1, 48, seed=5), reference.literal)


def test_zero_is_the_same_word_everywhere_and_adds_nothing():
    """A map of zeros, its border included, must leave every membrane at the layer's own bias."""
    torch.manual_seed(2)
    stem = nn.Conv2d(3, 4, 1, bias=False)
    inner, outer = nn.Conv2d(4, 6, 3, padding=(2, 1)), nn.Conv2d(6, 5, 3, padding=1, bias=False)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    net = fs.convert(
        nn.Sequential(stem, inner, nn.ReLU(), outer, head).eval(),
        torch.randn(4, 3, 9, 8),
        weight_bits=16,
        bottleneck="spiking",
    )
    words, _, _ = every_word(net, torch.zeros(1, 3, 9, 8))
    assert (words["0"] == 128).all()
    code = net.steps[2].code
    expected = torch.floor(inner.bias.relu().double() / code.step + 0.5)
    assert torch.equal(words["1"].double(), expected.expand(words["1"].shape))
    # Padding of a map that is not zero still is zero: against the float network.
    x = torch.randn(4, 3, 9, 8)
    fine = fs.convert(
        nn.Sequential(stem, inner, nn.ReLU(), outer, head).eval(),
        x,
        K=13,
        weight_bits=16,
        bottleneck="spiking",
    )
    words, _, _ = every_word(fine, x)
    with torch.no_grad():
        ann = torch.relu(inner(stem(x))).permute(0, 2, 3, 1)
    error = (words["1"].double() * fine.steps[2].code.step - ann).abs().max()
    assert error < 1e-3 * ann.abs().max()


@pytest.mark.parametrize("pool", sorted(POOLS))
def test_it_approaches_the_ann_like_graded_values_do(pool):
    x = images(4, 33)
    module, graph = traced(pool=pool)
    with torch.no_grad():
        ann = module(x)
    errors = [
        float((fs.convert(graph, x, K, weight_bits=16, bottleneck="spiking")(x) - ann).norm())
        for K in (4, 8, 12)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2] and errors[2] < 0.005 * float(ann.norm())


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_fidelity_is_that_of_a_neuron_of_twice_the_range(rounding):
    x = images(3, 33)
    net = fs.convert(traced()[1], x, 8, rounding=rounding, weight_bits=16, bottleneck="spiking")
    result = fs.fidelity(net, x)
    assert result["words_changed"] < 0.1 and abs(result["spikes_ratio"] - 1) < 1e-3
    assert result["logit_error"] < 0.01 and result["agreement"] == 1.0
    wrong = copy.deepcopy(net)
    with torch.no_grad():
        spiking(wrong)[0].bias.sub_(1.0)  # an offset that is wrong by one threshold
    assert fs.fidelity(wrong, x)["words_changed"] > 0.2


def test_alpha_is_a_policy_for_them_too():
    x, graph = images(4, 33), traced()[1]

    def alphas(**kwargs):
        net = fs.convert(graph, bottleneck="spiking", **kwargs)
        return {s.name: s.info["alpha"] for s in spiking(net)}, net

    largest, net = alphas(calibration=x, K=6)
    seen = {}
    net.graph.to(torch.float32).forward(
        x, observe=lambda layer, y: seen.update({layer.name: y.clone()})
    )
    for name, alpha in largest.items():
        assert alpha == pytest.approx(float(seen[name].abs().max()) * 32 / 31, rel=1e-6)
    clipped, _ = alphas(calibration=x, K=6, alpha="percentile:90")
    for name in largest:
        magnitudes = seen[name].abs().flatten()
        expected = float(magnitudes.kthvalue(math.ceil(len(magnitudes) * 0.9)).values) * 32 / 31
        assert clipped[name] == pytest.approx(expected, rel=2e-3)
    first = next(iter(largest))
    chosen, _ = alphas(calibration=x, alpha={first: 2.5, "default": "max"})
    assert chosen[first] == 2.5 and min(chosen.values()) > 0
    fixed, net = alphas(alpha=4.0, input_size=(1, 3, 33, 33))  # needs no images
    assert set(fixed.values()) == {4.0}
    assert [s.code.step for s in spiking(net)] == [4.0 * 2.0**-7] * 4
    with pytest.raises(ValueError, match="alpha names a layer 'first'"):
        fs.convert(graph, x, alpha={"first": 2.0, "default": "max"})  # graded: has no alpha


def test_the_paper_setting():
    x = images(2, 33)
    module = settle(Bottlenecks(width=16), x)
    net = fs.convert(module, neuron="paper", bottleneck="spiking", input_size=(1, 3, 33, 33))
    rows = [r for r in net.report().rows if "offset" in r.kind]
    assert [r.name for r in rows] == SPIKING
    assert {(r.alpha, r.K, r.rounding, r.weight_bits) for r in rows} == {(25.0, 10, "floor", 16)}
    same_everywhere(net, x, reference.literal)


def test_report_neurons_and_depth_count_them():
    x = images(2, 33)
    graded, net = (fs.convert(traced()[1], x, bottleneck=b) for b in ("graded", "spiking"))
    rows = {r.name: r for r in net.report().rows}
    assert rows["first"].kind == "FS neurons with an offset"
    added = sum(rows[s.name].neurons for s in spiking(net))
    assert net.neurons == graded.neurons + added and rows["first"].neurons == 16 * 18 * 15
    assert net.depth == graded.depth + 4
    assert net.latency_steps == net.depth * 8


def test_counts_are_set_bits_and_padding_has_none():
    x = images(2, 21)
    net = fs.convert(settle(Bottlenecks(kernel=(2, 3)), x), x, K=6, bottleneck="spiking")
    kept, inputs = {}, {}

    def keep(step, given, y, counts):
        kept[step.name], inputs[step.name] = y, given

    net.execute(x, observe=keep)
    _, stats = net.run(x)
    assert not [name for name in stats.graded_macs if name != "stem"]
    for step in net.steps:
        if step.op != "conv":
            continue
        bits = fs.to_spikes(kept[step.name], 6).sum((0, 2, 3, 4))
        assert torch.equal(stats.spikes[step.name], bits)
        if step.name == "stem":
            continue
        expected = torch.zeros(2, dtype=torch.float64)
        for words, group in zip(inputs[step.name], step.groups, strict=False):
            expected += brute_force_sops(words, 6, group)
        if step.r is not None:
            expected += fs.to_spikes(inputs[step.name][-1], 6).sum((0, 2, 3, 4))
        assert stats.sops[step.name].tolist() == expected.tolist(), step.name


def test_save_load_and_copy(tmp_path):
    x = images(2, 21)
    net = fs.convert(traced(width=7)[1], x, K=9, bottleneck="spiking")
    net.save(tmp_path / "net")
    loaded = fs.load(tmp_path / "net")
    assert torch.equal(loaded(x), net(x)) and str(loaded.report()) == str(net.report())
    assert [s.code for s in loaded.steps] == [s.code for s in net.steps]
    copied = copy.deepcopy(net)
    copied.load_state_dict(net.state_dict())
    assert torch.equal(copied(x), net(x))


def test_the_rate_coded_network_does_not_depend_on_it():
    x = images(2, 21)
    graph = traced(width=7)[1]
    graphs = [fs.convert(graph, x, bottleneck=b).graph for b in ("graded", "spiking")]
    runs = [RateNetwork(graph, x).run(x, T=20) for graph in graphs]
    assert torch.equal(runs[0].logits, runs[1].logits)


@pytest.mark.parametrize("pool,K", [(nn.AvgPool2d(2, 2, 1), 8), (nn.AvgPool2d(3, 1), 12)])
def test_padding_without_a_code_and_sums_beyond_16_bits_are_rounded_means(pool, K):
    x = images(2, 21)
    module = trace(settle(Bottlenecks(pool=pool), x), images=x)
    assert [s.op for s in fs.convert(module, x).steps].count("mean_pool") == 0
    net = fs.convert(module, x, K=K, bottleneck="spiking")
    assert [s.op for s in net.steps].count("mean_pool") == 1
    same_everywhere(net, x, reference.literal)
    with pytest.raises(ValueError, match="bottleneck='rate'.*'graded' or 'spiking'"):
        fs.convert(module, x, bottleneck="rate")
    with pytest.raises(fs.ConversionError, match="'first'.*bottleneck='spiking'"):
        fs.convert(module, alpha=4.0)
    assert math.isfinite(float(fs.convert(module, alpha=4.0, bottleneck="spiking")(x).sum()))
