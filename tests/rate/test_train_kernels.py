"""Eight time steps in one call: the bits of eight single ones, on every instruction set."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops, trains
from fskernel.network.synapses import Synapses

ISAS = ops.supported_isas()


@pytest.fixture(autouse=True)
def _default_isa():
    yield
    ops.set_isa("")


def spikes(dice, steps, *shape, density=0.3):
    """One step after another, uint8 0 or 1."""
    return [(torch.rand(shape, generator=dice) < density).to(torch.uint8) for _ in range(steps)]


def synapses(dice, out, channels, geometry, bits, weight=None):
    shape = (out, channels // geometry.groups, *geometry.kernel)
    dtype, most = (torch.int8, 128) if bits == 8 else (torch.int16, 32768)
    if weight is None:
        weight = torch.randint(-most + 1, most, shape, generator=dice, dtype=dtype)
    m = torch.rand(out, generator=dice) / (most * max(1, weight[0].numel()) ** 0.5)
    return Synapses(weight, m, geometry, x_min=0, x_max=1)


class Case:
    """A layer, its spikes and membranes, and what the oracle makes of them step by step."""

    def __init__(self, dice, steps, size, parts, out, bits=8, residual=False, images=2):
        self.steps = steps
        sizes = [g.output_size(*s) for _, g, s in parts]
        assert len(set(sizes)) == 1, "both groups feed the same neurons"
        height, width = sizes[0]
        shape = (images, height, width, out)
        self.groups = [
            (spikes(dice, steps, images, *s, c), synapses(dice, out, c, g, bits))
            for c, g, s in parts
        ]
        self.bias = torch.randn(out, generator=dice) * 0.3
        self.start = torch.rand(shape, generator=dice) * 2 - 0.5
        self.residual = spikes(dice, steps, *shape) if residual else None
        self.r = torch.tensor([0.37])

    def wanted(self):
        u, z, counts = self.start.clone(), [], []
        for s in range(self.steps):
            residual = None if self.residual is None else (self.residual[s], self.r)
            groups = [(x[s], w) for x, w in self.groups]
            fired, n = reference.collapsed.integrate_and_fire(
                groups, self.bias, u, residual=residual
            )
            z.append(fired)
            counts.append(n)
        return trains.of_steps(z), torch.stack(counts), u

    def found(self, path):
        u = self.start.clone()
        rows = trains.pack_rows([w for _, w in self.groups])
        residual = None if self.residual is None else (trains.of_steps(self.residual), self.r)
        groups = [(trains.of_steps(x), w) for x, w in self.groups]
        y, counts = trains.integrate_and_fire(
            groups, self.bias, u, steps=self.steps, rows=rows, residual=residual, path=path
        )
        return y, counts, u

    def check(self, isa, path):
        ops.set_isa(isa)
        for name, wanted, found in zip(
            ("trains", "counts", "membranes"), self.wanted(), self.found(path), strict=True
        ):
            assert torch.equal(wanted, found), (isa, path, name)
        ran = ops.last_kernel()
        assert ran.startswith(f"{isa}/rate/") and (path == "auto" or ("events" in ran)) == (
            path != "dense"
        )


@st.composite
def cases(draw):
    whole = st.integers
    kernel = draw(whole(1, 4)), draw(whole(1, 4))
    geometry = Geometry(
        kernel,
        (draw(whole(1, 3)), draw(whole(1, 3))),
        tuple(draw(whole(0, 2)) for _ in range(4)),
        (draw(whole(1, 2)), draw(whole(1, 2))),
    )
    height, width = draw(whole(7, 10)), draw(whole(7, 10))  # the widest kernel spans 7
    channels, out = draw(whole(1, 70)), draw(whole(1, 70))
    parts = [(channels, geometry, (height, width))]
    if draw(st.booleans()):  # the second group reads a map of the output's size
        parts.append((draw(whole(1, 40)), Geometry((1, 1)), geometry.output_size(height, width)))
    dice = torch.Generator().manual_seed(draw(whole(0, 2**31)))
    steps, bits = draw(whole(1, 8)), draw(st.sampled_from((8, 16)))
    return Case(dice, steps, (height, width), parts, out, bits, draw(st.booleans()))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("path", ["dense", "events"])
@given(case=cases())
@settings(max_examples=15, deadline=None)
def test_steps_in_one_call_are_those_of_the_oracle(isa, path, case):
    case.check(isa, path)


GROUPED = {
    "depthwise": (13, 13, Geometry((3, 3), padding=(1, 1, 1, 1), groups=13)),
    "in groups": (12, 9, Geometry((3, 2), padding=(0, 1, 1, 0), groups=3)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", GROUPED)
def test_groups_go_densely(isa, name):
    channels, out, geometry = GROUPED[name]
    dice = torch.Generator().manual_seed(1)
    case = Case(dice, 5, None, [(channels, geometry, (7, 6))], out, residual=True)
    case.check(isa, "dense")
    with pytest.raises(ValueError, match="rows is missing: path 'events' needs it"):
        case.found("events")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_sums_of_many_large_weights_do_not_overflow(isa, bits, density):
    """1,152 spikes of weight +-127 leave 16 bits; those of none leave the bias alone."""
    ops.set_isa(isa)
    dice, geometry = torch.Generator().manual_seed(0), Geometry((3, 3), padding=(1, 1, 1, 1))
    sign = torch.tensor([1, -1, 1, -1, 1])[:, None, None, None]
    most = 127 if bits == 8 else 32767
    weight = (sign * most).expand(5, 128, 3, 3).to(torch.int8 if bits == 8 else torch.int16)
    w = synapses(dice, 5, 128, geometry, bits, weight)
    w.m.copy_(torch.full((5,), 1 / (most * 700)))
    x = [torch.full((1, 4, 4, 128), int(density), dtype=torch.uint8) for _ in range(8)]
    bias, starts = torch.full((5,), 0.3), torch.zeros(1, 4, 4, 5)
    u = starts.clone()
    wanted = trains.of_steps(
        [reference.collapsed.integrate_and_fire([(z, w)], bias, u)[0] for z in x]
    )
    for path in ("dense", "events"):
        v = starts.clone()
        y, _ = trains.integrate_and_fire(
            [(trains.of_steps(x), w)], bias, v, steps=8, rows=trains.pack_rows([w]), path=path
        )
        assert torch.equal(y, wanted) and torch.equal(u, v)


@pytest.mark.parametrize("isa", ISAS)
def test_bands_and_blocks_have_no_seams(isa):
    """Maps so large that rows are cut into bands, and channels into blocks."""
    dice = torch.Generator().manual_seed(2)
    wide = Geometry((3, 3), padding=(1, 1, 1, 1))
    size = (9, 20) if "emulated" in isa or isa == "portable" else (37, 33)
    for path in ("dense", "events"):
        Case(dice, 8, None, [(250, wide, size)], 150, residual=True, images=1).check(isa, path)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_matter(threads):
    dice = torch.Generator().manual_seed(3)
    case = Case(dice, 7, None, [(30, Geometry((3, 3)), (17, 11))], 21, images=2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for path in ("dense", "events"):
            case.check(ops.current_isa(), path)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("isa", ISAS)
@given(st.integers(1, 80), st.integers(1, 8), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_constant_currents_are_added_step_by_step(isa, channels, steps, seed):
    ops.set_isa(isa)
    dice = torch.Generator().manual_seed(seed)
    v = torch.randn(2, 2, 3, channels, generator=dice)
    v.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), -0.0])
    u = torch.rand(v.shape, generator=dice)
    wanted, now = [], u.clone()
    for _ in range(steps):
        now = now + v
        fires = now >= 1
        now = torch.where(fires, now - 1, now)
        wanted.append(fires.to(torch.uint8))
    y, counts = trains.integrate_current(v, u, steps=steps)
    assert torch.equal(y, trains.of_steps(wanted))
    assert torch.equal(u.view(torch.int32), now.view(torch.int32)) or torch.equal(
        u.nan_to_num(7), now.nan_to_num(7)
    )
    assert torch.equal(counts, torch.stack([z.sum((1, 2, 3)) for z in wanted]))


@pytest.mark.parametrize("isa", ISAS)
@given(
    st.integers(1, 40),
    st.sampled_from([((2, 2), 2, 0), ((3, 3), 2, 1), ((3, 2), 1, 1), ((5, 1), 3, 0)]),
    st.integers(1, 8),
    st.integers(0, 2**31),
)
@settings(max_examples=20, deadline=None)
def test_a_gate_passes_on_whoever_has_fired_most(isa, channels, window, steps, seed):
    ops.set_isa(isa)
    kernel, stride, pad = window
    geometry = Geometry(kernel, (stride, stride), (pad,) * 4)
    dice = torch.Generator().manual_seed(seed)
    z = spikes(dice, steps, 2, 7, 6, channels)
    totals = torch.randint(0, 4, (2, 7, 6, channels), generator=dice, dtype=torch.int32)
    totals[0] += 2**20 - 20
    now, wanted = totals.clone(), []
    for x in z:
        now += x
        sides = (pad,) * 4
        seen = F.pad(now.permute(0, 3, 1, 2).double(), sides, value=float("-inf"))
        fired = F.pad(x.permute(0, 3, 1, 2), sides)
        _, at = F.max_pool2d(seen, kernel, stride, return_indices=True)
        wanted.append(fired.flatten(2).gather(2, at.flatten(2)).view(at.shape))
    wanted = trains.of_steps(wanted).permute(0, 2, 3, 1)
    y = trains.gate_pool(trains.of_steps(z), totals, geometry, steps=steps)
    assert torch.equal(y, wanted) and torch.equal(totals, now)


@pytest.mark.parametrize("isa", ISAS)
@given(case=cases())
@settings(max_examples=8, deadline=None)
def test_a_single_step_is_that_of_the_oracle(isa, case):
    """`ops.integrate_and_fire`, which takes sums of spikes, too."""
    ops.set_isa(isa)
    groups = [(x[0], w) for x, w in case.groups]
    residual = None if case.residual is None else (case.residual[0], case.r)
    u, v = case.start.clone(), case.start.clone()
    wanted = reference.collapsed.integrate_and_fire(groups, case.bias, u, residual=residual)
    found = ops.integrate_and_fire(groups, case.bias, v, residual=residual)
    assert all(torch.equal(a, b) for a, b in zip((*wanted, u), (*found, v), strict=True))


@pytest.mark.parametrize("isa", ISAS)
def test_the_largest_window_and_total_are_told_apart(isa):
    """511 inputs that have fired 2^20 times but one, which has fired once more: the last one."""
    ops.set_isa(isa)
    totals = torch.full((1, 7, 73, 3), 2**20 - 8, dtype=torch.int32)
    totals[:, 6, 72] += 1
    z = torch.full(totals.shape, 254, dtype=torch.uint8)  # all fire but at the first step
    z[:, 6, 72] = 1 | 64
    y = trains.gate_pool(z, totals, Geometry((7, 73)), steps=8)
    # It leads in the first two steps, and in the second one it is silent; then the first input is
    # as far, and all others are ahead.
    assert y.flatten().tolist() == [0b11111101] * 3 and int(totals.max()) == 2**20 - 1
    message = f"windows of 8x64: at most {trains.MOST_GATED} inputs are compared"
    with pytest.raises(ValueError, match=message):
        trains.gate_pool(z, totals, Geometry((8, 64)), steps=8)


def test_the_path_follows_the_spikes():
    """A few spikes are added up one by one; where most inputs fire, the dense kernel runs."""
    dice, geometry = torch.Generator().manual_seed(4), Geometry((3, 3), padding=(1, 1, 1, 1))
    w = synapses(dice, 64, 64, geometry, 8)
    ran = {}
    for density in (0.01, 0.9):
        x = trains.of_steps(spikes(dice, 8, 1, 14, 14, 64, density=density))
        trains.integrate_and_fire(
            [(x, w)], torch.zeros(64), torch.zeros(1, 14, 14, 64), steps=8,
            rows=trains.pack_rows([w]),
        )  # fmt: skip
        ran[density] = ops.last_kernel()
    assert "events" in ran[0.01] and "events" not in ran[0.9]


BAD = {
    "steps": (dict(steps=9), "steps is 9: expected 1 to 8"),
    "path": (dict(path="fast"), "path is 'fast': expected 'auto', 'dense' or 'events'"),
    "membrane": (dict(membrane=torch.zeros(1, 4, 4, 7)), "membrane is float32 of shape"),
    "type": (dict(membrane=torch.zeros(1, 4, 4, 8).double()), "membrane is float64"),
    "rows": (dict(rows=[torch.zeros(200, dtype=torch.uint8)]), "rows holds no packed weights"),
    "words": (dict(x=torch.zeros(1, 4, 4, 3, dtype=torch.int16)), "expected spike trains, uint8"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_argument_is_named(name):
    dice = torch.Generator().manual_seed(5)
    w = synapses(dice, 8, 3, Geometry((1, 1)), 8)
    given = {"x": torch.zeros(1, 4, 4, 3, dtype=torch.uint8), "membrane": torch.zeros(1, 4, 4, 8)}
    given |= {"steps": 8, "path": "auto", "rows": trains.pack_rows([w])}
    changed, message = BAD[name]
    given |= changed
    x, membrane = given.pop("x"), given.pop("membrane")
    with pytest.raises(ValueError, match=message):
        trains.integrate_and_fire([(x, w)], torch.zeros(8), membrane, **given)


def test_rows_of_another_layer_or_instruction_set_are_refused():
    dice = torch.Generator().manual_seed(6)
    w, other = (synapses(dice, 8, c, Geometry((1, 1)), 8) for c in (3, 4))
    x = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)

    def call(rows):
        v = torch.zeros(1, 4, 4, 8)
        trains.integrate_and_fire([(x, w)], torch.zeros(8), v, steps=8, rows=rows)

    with pytest.raises(ValueError, match="rows was packed for 4 input and 8 output channels"):
        call(trains.pack_rows([other]))
    for most in (0, 1, 255):  # weights that the dense path reads
        packed = ops.pack(w.weight, w.geometry.as_ints(), 0, most)
        with pytest.raises(ValueError, match="rows is damaged"):
            call([packed])
    rows = trains.pack_rows([w])
    ops.set_isa("portable")
    with pytest.raises(ValueError, match="make the rows again after set_isa"):
        call(rows)
