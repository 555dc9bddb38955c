"""Risk: the oracles agree on a fitted neuron that is not the contract's, as both err alike: at
thresholds and the floats beside them, with NaN, infinities, negative resets and clipped codes.
"""

import math

import pytest
import torch

from fskernel.codes.fitted import train_lines
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import popcount, to_spikes
from fskernel.network.synapses import Synapses
from fskernel.reference import collapsed, literal

ORACLES = (literal, collapsed)


def lines_of(K, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    T, h = (scale * torch.randn(2, K, generator=generator)).unbind()
    h[::3] *= -1
    d = torch.randint(-(2**15), 2**15 + 1, (K,), generator=generator) >> (seed % 12)
    return torch.stack([T, h, d.float()])


def membranes(lines, n=400):
    """Thresholds with the floats beside them, sums of resets, and whatever floats there are."""
    T, h = lines[:2]
    around = torch.cat([T, *(T + h[i] for i in range(len(T))), h.cumsum(0), torch.zeros(2)])
    around = torch.cat([around, *(torch.nextafter(around, around.new_tensor(e)) for e in (-9, 9))])
    special = [math.nan, math.inf, -math.inf, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38]
    random = torch.randn(n, generator=torch.Generator().manual_seed(n)) * 3
    return torch.cat([around, torch.tensor(special), random])


def by_hand(v, lines):
    """The train of one membrane, in Python's floats, each rounded to float32."""
    train, rounded = [], torch.tensor(v)
    for threshold, reset in lines[:2].T.tolist():
        fires = float(rounded) >= threshold
        if fires:
            rounded = torch.tensor(float(rounded) - reset, dtype=torch.float32)
        train.append(int(fires))
    return train


def fired(oracle, v, **options):
    """What an oracle makes of membranes [M]: they are the biases of synapses that are silent."""
    v = v[:, None] if v.dim() == 1 else v
    out = []
    for bias in v.T:
        synapses = Synapses(
            torch.zeros(len(bias), 1, 1, 1, dtype=torch.int8), torch.ones(len(bias)),
            Geometry((1, 1)), x_min=0, x_max=1,
        )  # fmt: skip
        x = torch.zeros(2, 1, 1, 1, dtype=torch.uint8)
        codes, spikes = oracle.conv([(x, synapses)], bias.contiguous(), **options)
        assert torch.equal(codes[0], codes[1]) and int(spikes[0]) == int(spikes[1])
        out.append((codes[0].flatten(), int(spikes[0])))
    return out[0]


@pytest.mark.parametrize("K", [1, 2, 5, 8, 9, 15, 16])
def test_codes_and_counts_are_those_of_the_contract(K):
    for seed in range(3):
        lines = lines_of(K, seed)
        v = membranes(lines)
        trains = [by_hand(x, lines) for x in v.tolist()]
        d = lines[2].long().tolist()
        says = [sum(a * b for a, b in zip(d, train, strict=True)) for train in trains]
        for bits, zero in ((1, 0), (8, 77), (9, 511), (15, 12345)):
            expected = [min(max(zero + s, 0), 2**bits - 1) for s in says]
            for oracle in ORACLES:
                codes, spikes = fired(oracle, v, K=bits, fitted=lines, zero=zero)
                assert codes.dtype == (torch.uint8 if bits <= 8 else torch.int16)
                assert codes.tolist() == expected and spikes == sum(map(sum, trains))


@pytest.mark.parametrize("K", [1, 8, 9, 15, 16])
def test_trains_are_words_of_as_many_bits_as_there_are_steps(K):
    lines = lines_of(K, 5)
    v = membranes(lines)
    for oracle in ORACLES:
        words, spikes = fired(oracle, v, K=K, fitted=train_lines(lines), zero=0)
        expected = torch.tensor([by_hand(x, lines) for x in v.tolist()]).T.bool()
        bits = torch.stack([(words.int() >> (K - t)) & 1 for t in range(1, K + 1)]).bool()
        assert torch.equal(bits, expected) and int(popcount(words).sum()) == spikes
        if K < 16:
            assert torch.equal(to_spikes(words, K), expected)


def test_membranes_cancel_as_in_float32():
    """Resets of which a float64 that is never rounded would keep what float32 loses."""
    lines = torch.tensor([[0.0, 0.0, 1e-9], [1e8, -1e8, 1.0], [1.0, 2.0, 4.0]])
    v = torch.tensor([1e8 + 8, 3.0, 0.1, 1e-30])
    for oracle in ORACLES:
        assert fired(oracle, v, K=3, fitted=lines, zero=0)[0].tolist() == [
            sum(2**t * z for t, z in enumerate(by_hand(x, lines))) for x in v.tolist()
        ]


def test_all_of_a_layer_comes_before_the_neuron():
    """Two groups, a residual, padding with a code of zero: the membrane is that of other layers."""
    generator = torch.Generator().manual_seed(1)
    geometry = Geometry((3, 3), padding=(1, 1, 1, 1))

    def group():
        weight = torch.randint(-127, 128, (6, 4, 3, 3), generator=generator).to(torch.int8)
        m = torch.rand(6, generator=generator) / 1e5
        return Synapses(weight, m, geometry, x_min=0, x_max=1023, pad_code=300)

    x = torch.randint(0, 1024, (2, 5, 4, 4), generator=generator).to(torch.int16)
    residual = torch.randint(-99, 99, (2, 5, 4, 6), generator=generator).to(torch.int16)
    bias, r = torch.randn(6, generator=generator), torch.tensor([0.01])
    groups = [(x, group()), (x, group())]
    lines = lines_of(7, 3)
    found = []
    for oracle in ORACLES:
        v, _ = oracle.conv(groups, bias, K=0, step=1.0, residual=(residual, r))
        y, spikes = oracle.conv(groups, bias, K=9, residual=(residual, r), fitted=lines, zero=200)
        flat = fired(oracle, v[0].flatten(), K=9, fitted=lines, zero=200)
        assert torch.equal(y[0].flatten(), flat[0]) and int(spikes[0]) == flat[1]
        found.append((y, spikes))
    assert all(map(torch.equal, *found))
    uncounted = literal.conv(groups, bias, K=9, fitted=lines, zero=200, count=False)
    assert uncounted[1].shape == (0,)


WRONG = {
    "fitted is torch.float64": {"fitted": lines_of(3, 0).double()},
    r"fitted is torch.float32 \(3, 17\)": {"fitted": lines_of(17, 0)},
    r"fitted is torch.float32 \(3, 0\)": {"fitted": torch.zeros(3, 0)},
    r"fitted is torch.float32 \(2, 3\)": {"fitted": torch.zeros(2, 3)},
    "give finite T and h, and whole d": {"fitted": torch.tensor([[1.0], [math.nan], [1.0]])},
    "and whole d of at most": {"fitted": torch.tensor([[1.0], [1.0], [1.5]])},
    "d of at most": {"fitted": torch.tensor([[1.0], [1.0], [-(2.0**15) - 1]])},
    "K=17: the codes": {"K": 17},
    "K=0: the codes": {"K": 0},
    "zero=256: give a code of 8 bits": {"zero": 256},
    "zero=-1: give": {"zero": -1},
    "top=": {"top": torch.ones(3)},
    "table=": {"table": torch.ones(1, 2, 32)},
    "step=0.5": {"step": 0.5},
    "zero=3 is of fitted neurons": {"fitted": None, "zero": 3},
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_is_no_fitted_neuron_is_refused(reason):
    options = {"K": 8, "fitted": lines_of(3, 0), "zero": 5} | WRONG[reason]
    for oracle in ORACLES:
        with pytest.raises(ValueError, match=reason):
            fired(oracle, torch.zeros(3), **options)


def test_events_of_sixteen_steps_count_the_first_one():
    words = torch.tensor([-1, -(2**15), 1, 0], dtype=torch.int16).view(1, 1, 4, 1)
    fans = torch.tensor([3]), torch.tensor([1, 10, 100, 1000])
    for oracle in ORACLES:
        assert oracle.synaptic_events(words, *fans).tolist() == [3 * (16 + 10 + 100)]
