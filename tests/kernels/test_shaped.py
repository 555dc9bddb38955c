"""Shaped neurons fire other words than the oracle's: at borders and ends of tables, in idle lanes,
with NaN and infinities, in every kernel that has a form of its own for them.
"""

import math

import numpy as np
import pytest
import torch
from oracle_cases import Kind, assert_same, group, isa, on_every_isa, random_table

from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses

WORDS = Kind(8, 0)


@pytest.fixture(autouse=True)
def default_isa_afterwards():
    yield
    ops.set_isa(None)


def table_for(K, tables=1, segments=64, seed=0):
    return random_table(K, tables, segments, torch.Generator().manual_seed(seed))


def silent(channels, membranes):
    """A layer whose membranes are these, whatever its input: weights are 0, the bias is all."""
    weight = torch.zeros(channels, 3, 1, 1, dtype=torch.int8)
    synapses = Synapses(weight, torch.ones(channels), Geometry((1, 1)), x_min=0, x_max=255)
    return [(torch.ones(1, 1, 2, 3, dtype=torch.uint8), synapses)], torch.tensor(membranes)


@pytest.mark.parametrize("segments", [32, 64, 128, 256])
@pytest.mark.parametrize("K", [1, 8, 9, 15])
def test_borders_of_segments_ends_and_numbers_that_are_none(segments, K):
    ends = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-45, -1e-45, 3e38, -3e38]
    border = np.arange(0, segments + 1, dtype=np.float32)
    near = np.nextafter(border, np.float32(-1)), np.nextafter(border, np.float32(1e9))
    membranes = [*ends, *np.concatenate([border, *near]).tolist()]
    groups, bias = silent(len(membranes), membranes)
    words, counts = on_every_isa(groups, bias, K=K, table=table_for(K, segments=segments))
    first, last = words[0, 0, 0, 3], words[0, 0, 0, 1]
    assert words[0, 0, 0, 0] == words[0, 0, 0, 2] == first  # NaN and -inf at the left end
    assert words[0, 0, 0, 7] == last
    assert int(counts) > 0


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
@pytest.mark.parametrize("K", [4, 8, 12])
@pytest.mark.parametrize("own", [False, True], ids=["one table", "a table each"])
def test_every_form_of_the_kernels(name, K, own):
    shape, out, geometry = LAYERS[name]
    for kind in (WORDS, Kind(0, 8191)):
        x, synapses = group(shape, out, geometry, kind, gain=200)
        bias = torch.linspace(-20, 70, out)
        for segments in (32, 128):
            table = table_for(K, out if own else 1, segments)
            on_every_isa([(x, synapses)], bias, K=K, table=table)


@pytest.mark.parametrize("own", [False, True], ids=["one table", "a table each"])
@pytest.mark.parametrize("planes", [0, 2])
def test_a_second_synapse_group_and_a_residual(own, planes):
    x, one = group((1, 4, 5, 8), 33, Geometry((1, 1)), WORDS, gain=90)
    other, two = group((1, 8, 10, 6), 33, Geometry((1, 1), (2, 2)), Kind(6, 0), gain=90, seed=3)
    residual = (
        Kind(7, 0).codes((1, 4, 5, 33), torch.Generator().manual_seed(1)),
        torch.tensor([0.3]),
    )
    groups = [(x, one), (other, two)]
    options = {"K": 8, "table": table_for(8, 33 if own else 1), "plane_bits": planes}
    for given in (groups, groups[:1]):
        on_every_isa(given, torch.full((33,), 11.0), residual=residual, **options)
        on_every_isa(given, torch.full((33,), 11.0), **options)


@pytest.mark.parametrize("channels", [1, 15, 17, 63, 65])
def test_lanes_behind_the_last_channel_give_no_spikes(channels):
    """Their membranes are 0, where this table has its largest word."""
    table = torch.zeros(1, 2, 32)
    table[0, 1, :16] = 255.0
    groups, bias = silent(channels, [31.0] * channels)
    _, counts = on_every_isa(groups, bias, K=8, table=table)
    assert int(counts) == 0
    depth = Geometry((3, 3), padding=(1, 1, 1, 1), groups=channels)
    x, synapses = group((1, 4, 5, channels), channels, depth, WORDS, gain=0.0)
    _, counts = on_every_isa([(x, synapses)], bias, K=8, table=table)
    assert int(counts) == 0


def test_a_table_of_the_relu_is_the_relu():
    x, synapses = group((1, 6, 7, 24), 48, Geometry((3, 3)), WORDS, gain=300)
    bias = torch.linspace(-90, 200, 48)
    wanted = ops.conv([(x, synapses)], bias, K=8)
    part = Synapses(synapses.weight, synapses.m / 8, synapses.geometry, x_min=0, x_max=255)
    table = torch.stack([torch.full((32,), 8.0), torch.zeros(32)])[None]  # 32 segments of 8 steps
    assert_same(ops.conv([(x, part)], bias / 8, K=8, table=table), wanted)


BAD = {
    "segments": (torch.zeros(1, 2, 48), "48 segments: expected 32, 64, 128 or 256"),
    "channels": (torch.zeros(3, 2, 32), r"shape \[3, 2, 32\]"),
    "slopes alone": (torch.zeros(1, 1, 32), r"shape \[1, 1, 32\]"),
    "dimensions": (torch.zeros(2, 32), "table has"),
    "a dtype": (
        torch.zeros(1, 2, 32, dtype=torch.float64),
        "table is float64|table is torch.float64",
    ),
    "nan": (torch.full((1, 2, 32), math.nan), "finite slopes and offsets"),
}


@pytest.mark.parametrize("case", BAD)
def test_tables_that_are_none_are_refused(case):
    table, reason = BAD[case]
    groups, bias = silent(5, [0.0] * 5)
    with pytest.raises(ValueError, match=reason):
        ops.conv(groups, bias, K=8, table=table)
    with pytest.raises(ValueError, match="table"):
        reference.literal.conv(groups, bias, K=8, table=table)


@pytest.mark.parametrize(
    "options", [{"K": 0}, {"K": 8, "top": torch.ones(5)}, {"K": 8, "step": 0.1}], ids=str
)
def test_what_has_no_meaning_with_a_table_is_refused(options):
    groups, bias = silent(5, [0.0] * 5)
    for backend in (ops, reference.collapsed):
        with pytest.raises(ValueError, match="table is given with"):
            backend.conv(groups, bias, table=table_for(8), **options)


def test_threads_change_nothing():
    x, synapses = group((3, 13, 17, 9), 40, Geometry((3, 3)), WORDS, gain=200)
    bias, table = torch.linspace(0, 60, 40), table_for(8)
    wanted = ops.conv([(x, synapses)], bias, K=8, table=table)
    torch.set_num_threads(3)
    for name in ops.supported_isas():
        with isa(name):
            assert_same(ops.conv([(x, synapses)], bias, K=8, table=table), wanted, name)
