"""Fitted neurons give other codes or spikes than the oracle's: at thresholds and the floats next to
them, with resets of either sign, NaN and infinities, in idle lanes, with codes of 1 to 16 bits.
"""

import math

import numpy as np
import pytest
import torch
from oracle_cases import Kind, assert_same, group, isa, on_every_isa, random_lines

from fskernel import reference
from fskernel.codes.fitted import fitted_spikes, train_lines
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses

WORDS = Kind(8, 0)
NUMBERS = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-45, -1e-45, 3e38, -3e38]


@pytest.fixture(autouse=True)
def default_isa_afterwards():
    yield
    ops.set_isa(None)


def lines_for(steps, bits, seed=0):
    return random_lines(steps, bits, 20.0, torch.Generator().manual_seed(seed))


def silent(channels, membranes):
    """A layer whose membranes are these, whatever its input: weights are 0, the bias is all."""
    weight = torch.zeros(channels, 3, 1, 1, dtype=torch.int8)
    synapses = Synapses(weight, torch.ones(channels), Geometry((1, 1)), x_min=0, x_max=255)
    return [(torch.ones(1, 1, 2, 3, dtype=torch.uint8), synapses)], torch.tensor(membranes)


def near(numbers):
    x = np.float32(numbers)
    return np.concatenate([x, np.nextafter(x, np.float32(-1e9)), np.nextafter(x, np.float32(1e9))])


@pytest.mark.parametrize("bits", [1, 8, 9, 15, 16])
@pytest.mark.parametrize("steps", [1, 7, 16])
def test_thresholds_ends_and_numbers_that_are_none(steps, bits):
    lines = lines_for(steps, bits)
    # A membrane that meets each threshold behind any one spike.
    met = [lines[0, t] + h for t in range(steps) for h in [0.0, *lines[1, :t].tolist()]]
    membranes = [*NUMBERS, *near(met).tolist()]
    groups, bias = silent(len(membranes), membranes)
    zero = 2 ** (bits - 1)
    codes, counts = on_every_isa(groups, bias, K=bits, fitted=lines, zero=zero)
    assert codes[0, 0, 0, 0] == codes[0, 0, 0, 2]  # NaN and -inf: no spike
    assert int(codes[0, 0, 0, 0]) & 0xFFFF == zero
    everything = int(lines[2].sum()) + zero  # +inf fires at every step
    assert int(codes[0, 0, 0, 1]) & 0xFFFF == min(max(everything, 0), 2**bits - 1)
    assert int(counts) == 2 * int(fitted_spikes(bias, lines).sum())


LAYERS = {
    "whole blocks": ((1, 5, 7, 16), 64, Geometry((1, 1))),
    "blocks that are not whole": ((2, 3, 9, 20), 100, Geometry((3, 3), padding=(1, 1, 1, 1))),
    "few channels": ((1, 4, 15, 8), 3, Geometry((1, 1))),
    "a stride": ((1, 9, 9, 5), 24, Geometry((3, 2), (2, 2), (1, 0, 0, 1))),
    "depthwise": ((1, 8, 11, 70), 70, Geometry((3, 3), padding=(1, 1, 1, 1), groups=70)),
    "depthwise with a stride": ((1, 9, 8, 6), 6, Geometry((5, 3), (2, 2), (2, 2, 1, 1), groups=6)),
    "groups": ((1, 5, 6, 12), 18, Geometry((3, 3), groups=3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_every_form_of_the_kernels(name, bits):
    shape, out, geometry = LAYERS[name]
    for kind in (WORDS, Kind(0, 8191)):
        x, synapses = group(shape, out, geometry, kind, gain=40)
        bias = torch.linspace(-20, 20, out)
        for steps in (5, 16):
            lines = lines_for(steps, bits, seed=steps)
            options = {"K": bits, "fitted": lines, "zero": 2**bits // 3}
            _, counts = on_every_isa([(x, synapses)], bias, **options)
            assert counts.min() > 0


@pytest.mark.parametrize("planes", [0, 2])
def test_a_second_synapse_group_and_a_residual(planes):
    x, one = group((1, 4, 5, 8), 33, Geometry((1, 1)), WORDS, gain=30)
    other, two = group((1, 8, 10, 6), 33, Geometry((1, 1), (2, 2)), Kind(6, 0), gain=30, seed=3)
    codes = Kind(7, 0).codes((1, 4, 5, 33), torch.Generator().manual_seed(1))
    groups, residual = [(x, one), (other, two)], (codes, torch.tensor([0.3]))
    options = {"K": 8, "fitted": lines_for(11, 8), "zero": 31, "plane_bits": planes}
    for given in (groups, groups[:1]):
        on_every_isa(given, torch.full((33,), -11.0), residual=residual, **options)
        on_every_isa(given, torch.full((33,), -11.0), **options)


@pytest.mark.parametrize("channels", [1, 15, 17, 63, 65])
def test_lanes_behind_the_last_channel_give_no_spikes(channels):
    """Their membranes would reach all of these thresholds, which lie below zero."""
    lines = torch.tensor([[-5.0, -4.0], [0.0, 0.0], [3.0, 9.0]])
    groups, bias = silent(channels, [-31.0] * channels)
    options = {"K": 8, "fitted": lines}
    assert int(on_every_isa(groups, bias, **options)[1]) == 0
    depth = Geometry((3, 3), padding=(1, 1, 1, 1), groups=channels)
    x, synapses = group((1, 4, 5, channels), channels, depth, WORDS, gain=0.0)
    assert int(on_every_isa([(x, synapses)], bias, **options)[1]) == 0


@pytest.mark.parametrize("K", [1, 8, 9, 15])
def test_binary_thresholds_are_the_plain_neuron(K):
    x, synapses = group((1, 6, 7, 24), 48, Geometry((3, 3)), WORDS, gain=2.0**K)
    bias = torch.linspace(-(2.0 ** (K - 1)), 2.0**K, 48)
    binary = torch.tensor([2.0 ** (K - t) for t in range(1, K + 1)])
    fitted = ops.conv([(x, synapses)], bias, K=K, fitted=torch.stack([binary] * 3))
    assert_same(fitted, ops.conv([(x, synapses)], bias, K=K))


@pytest.mark.parametrize("steps", [3, 8, 12, 16])
def test_trains_are_words_of_powers_of_two(steps):
    x, synapses = group((2, 5, 6, 9), 21, Geometry((3, 3)), WORDS, gain=40)
    bias, lines = torch.linspace(-20, 20, 21), lines_for(steps, 12)
    _, spikes = ops.conv([(x, synapses)], bias, K=12, fitted=lines, zero=5)
    words, counts = ops.conv([(x, synapses)], bias, K=steps, fitted=train_lines(lines))
    membranes = ops.conv([(x, synapses)], bias, K=0, step=1.0)[0]
    train = fitted_spikes(membranes, lines)
    bits = torch.stack([(words.int() >> (steps - t)) & 1 for t in range(1, steps + 1)])
    assert torch.equal(bits.bool(), train)
    assert torch.equal(spikes, train.sum((0, 2, 3, 4)))
    assert torch.equal(counts, spikes)


BAD = {
    "steps": (torch.zeros(3, 17), "16 steps"),
    "rows": (torch.zeros(2, 4), r"shape \[2, 4\]"),
    "dimensions": (torch.zeros(12), "fitted"),
    "a dtype": (torch.zeros(3, 4, dtype=torch.float64), "fitted is float64|fitted is torch.f"),
    "nan": (torch.full((3, 4), math.nan), "finite"),
    "half a step": (torch.full((3, 4), 0.5), "whole numbers"),
    "a worth too large": (torch.full((3, 4), 32769.0), "whole numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_numbers_that_are_none_are_refused(case):
    lines, reason = BAD[case]
    groups, bias = silent(5, [0.0] * 5)
    with pytest.raises(ValueError, match=reason):
        ops.conv(groups, bias, K=8, fitted=lines)
    with pytest.raises((ValueError, TypeError), match="fitted"):
        reference.literal.conv(groups, bias, K=8, fitted=lines)


@pytest.mark.parametrize(
    "options",
    [
        {"K": 0},
        {"K": 8, "top": torch.ones(5)},
        {"K": 8, "step": 0.1},
        {"K": 8, "table": torch.zeros(1, 2, 32)},
        {"K": 8, "zero": 256},
        {"K": 8, "zero": -1},
        {"K": 17},
    ],
    ids=str,
)
def test_what_has_no_meaning_with_fitted_neurons_is_refused(options):
    groups, bias = silent(5, [0.0] * 5)
    for backend in (ops, reference.collapsed):
        with pytest.raises(ValueError, match="fitted|zero|K"):
            backend.conv(groups, bias, fitted=lines_for(4, 8), **options)
    with pytest.raises(ValueError, match="zero"):
        ops.conv(groups, bias, K=8, zero=3)


def test_threads_change_nothing():
    x, synapses = group((3, 13, 17, 9), 40, Geometry((3, 3)), WORDS, gain=40)
    bias, options = torch.linspace(-20, 20, 40), {"K": 8, "fitted": lines_for(9, 8), "zero": 60}
    wanted = ops.conv([(x, synapses)], bias, **options)
    torch.set_num_threads(3)
    for name in ops.supported_isas():
        with isa(name):
            assert_same(ops.conv([(x, synapses)], bias, **options), wanted, name)
