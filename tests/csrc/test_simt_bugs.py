"""Bugs planted into the tensor-core kernel: the emulator, or the comparison, must notice each."""

import functools
import re

import pytest
import torch
from oracle_cases import Kind
from simt import bugs
from simt.emulated_conv import ORDERS, arguments
from simt.layers import make_layer

from fskernel.codes.geometry import Geometry
from fskernel.reference import collapsed

MODES = [(order, late) for order in ORDERS for late in (False, True)]


@functools.cache
def layer(name, bits):
    """Two groups, graded values and int16 weights, several images in a tile, a partial tile.

    The second group of "short" is one k-step, which lies where the epilogue has its slots.
    """
    out, K, K2 = {
        "plain": (64, 10, 9),
        "ragged": (92, 8, 9),
        "odd": (90, 8, 9),
        "short": (92, 8, 8),
        "capped": (92, 8, 9),
        "floats": (92, 8, 9),
    }[name]
    size = (3, 4)
    inputs = [
        (40, Kind(0, 32767), 16, Geometry((3, 3), (1, 1), (1, 1, 1, 1)), size),
        (20, Kind(K2, 0), 8, Geometry((1, 1), (2, 2)), (5, 7)),
    ]
    made = make_layer(
        11, inputs, out, K, images=7, residual=Kind(K, 0), plane_bits=bits % 8,
        capped=name in ("capped", "floats"), step=6 / 255 if name == "floats" else None,
    )  # fmt: skip
    return made, made.run(collapsed.conv)


@functools.cache
def rate_layer(name):
    """A layer of the same geometry for one step: the oracle's answer behind the membranes."""
    made = layer(name, 8)[0]
    spikes = Kind(1, 0)
    inputs = [(x.shape[3], spikes, 16, s.geometry, tuple(x.shape[1:3])) for x, s in made.groups]
    made = make_layer(13, inputs, len(made.bias), 1, images=7, residual=spikes)
    made.bias[::7] = 1  # with membranes of 0 some neurons reach the threshold exactly
    for _, s in made.groups:
        s.m[::7] = 0
    before = torch.randn(made.residual[0].shape, generator=torch.Generator().manual_seed(1)).abs()
    before[..., ::7] = -made.residual[0][..., ::7].float() * made.residual[1]
    after = before.clone()
    wanted = collapsed.integrate_and_fire(made.groups, made.bias, after, residual=made.residual)
    return made, wanted, before, after


def run(number, case, order, late, **settings):
    """What is noticed: a fault's text, or what differs; "" if nothing."""
    made, (y, counts), *membranes = case
    native = bugs.native()
    kept = membranes[0].clone().numpy() if membranes else None
    given = arguments(made)
    try:
        got = native.conv(
            number, *given, kept, native.Settings(order=order, late_copies=late, **settings)
        )
    except native.Fault as fault:
        return str(fault)
    if not torch.equal(torch.from_numpy(got[0]), y):
        return "words"
    if not torch.equal(torch.from_numpy(got[1]), counts):
        return "counts"
    if membranes and not torch.equal(torch.from_numpy(kept), membranes[1]):
        return "membrane"
    return "bank conflicts" if got[3]["bank_conflicts"] else ""


def test_every_bug_has_its_place_in_the_kernels():
    """Whoever changes a kernel sees it here; whether they are noticed takes a minute to compile."""
    assert bugs.source().count("namespace fskernel::bug") == len(bugs.BUGS) + len(bugs.WITHOUT)
    assert all(bugs.lines_of(bug.at) for bug in bugs.BUGS if bug.at)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["plain", "ragged", "short", "capped", "floats"])
def test_without_a_bug_nothing_is_noticed(name, bits):
    number = len(bugs.BUGS) + (bits == 4)
    for order, late in MODES:
        assert run(number, layer(name, bits), order, late) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "ragged", "odd"])
def test_without_a_bug_nothing_is_noticed_in_a_rate_coded_step(name):
    for order, late in MODES:
        assert run(len(bugs.BUGS) + 2, rate_layer(name), order, late) == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(bugs.BUGS)), ids=[bug.name for bug in bugs.BUGS])
def test_a_planted_bug_is_noticed(number):
    bug = bugs.BUGS[number]
    for order, late in MODES:
        case = rate_layer(bug.layer) if bug.rate else layer(bug.layer, bug.bits)
        said = run(number, case, order, late)
        assert re.search(bug.fault, said), f"order {order}, late {late}: {said!r}"
        if bug.at:
            places = bugs.lines_of(bug.at)
            assert said.split(": ")[0] in places, f"{said!r} points to none of {places}"
