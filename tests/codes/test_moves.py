"""Risk: values are moved to other places than torch's own operators move them to."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fskernel.codes.code import Code
from fskernel.codes.moves import MOST_NUMBER, Move, side_by_side
from fskernel.network.steps import ConcatStep, MoveStep

MOVES = {
    "upsample": lambda x, a, b: F.interpolate(x, scale_factor=(a, b), mode="nearest"),
    "shuffle": lambda x, a: F.pixel_shuffle(x, a),
    "unshuffle": lambda x, a: F.pixel_unshuffle(x, a),
    "pad": lambda x, a, b, c, d: F.pad(x, (c, d, a, b)),
    "crop": lambda x, a, b, c, d: F.pad(x, (-c, -d, -a, -b)),
}
COUNTS = {"upsample": 2, "shuffle": 1, "unshuffle": 1, "pad": 4, "crop": 4}


def drawn(seed, shape, dtype):
    make = torch.Generator().manual_seed(seed)
    info = torch.iinfo(dtype)
    return torch.randint(info.min, info.max + 1, shape, generator=make).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@given(
    kind=st.sampled_from(sorted(MOVES)),
    numbers=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    size=st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)),
    seed=st.integers(0, 9),
)
def test_codes_are_moved_as_torch_moves_floats(dtype, kind, numbers, size, seed):
    numbers = tuple(numbers[: COUNTS[kind]])
    move = Move(kind, numbers)
    n, h, w, c = size
    r = numbers[0]
    c = c * r * r if kind == "shuffle" else c
    h, w = (h * r, w * r) if kind == "unshuffle" else (h, w)
    if kind == "crop":
        h, w = h + sum(numbers[:2]), w + sum(numbers[2:])
    x = drawn(seed, (n, h, w, c), dtype)
    code = Code.words(8, 1.0)
    y, counts = MoveStep("x", ["y"], code, (), move).run([x], None)
    floats = x.permute(0, 3, 1, 2).double()
    one = (
        floats if n else torch.zeros(1, c, h, w).double()
    )  # torch leaves empty batches as they are
    expected = MOVES[kind](one, *numbers)[:n].permute(0, 2, 3, 1)
    assert torch.equal(y.double(), expected) and counts is None
    assert y.dtype == dtype and y.is_contiguous()
    assert move.output_size(h, w) == tuple(y.shape[1:3])
    assert move.channel_factor() * c == y.shape[3]
    assert torch.equal(move.apply(floats).permute(0, 2, 3, 1), expected)


@pytest.mark.parametrize("code", [Code.words(4, 1.0), Code.signed_words(4, 1.0)])
def test_padding_has_the_code_of_zero(code):
    step = MoveStep("x", ["y"], code, (), Move("pad", (1, 0, 0, 2)))
    y, _ = step.run([torch.full((2, 1, 1, 3), 5, dtype=torch.uint8)], None)
    zero = code.zero
    assert y[1, :, :, 2].tolist() == [[zero, zero, zero], [5, zero, zero]]


def test_one_pixel_takes_the_size_of_another_map():
    step = MoveStep("x", ["y", "z"], Code.words(4, 1.0), (), Move("expand"))
    x = drawn(1, (2, 1, 1, 3), torch.uint8)
    like = torch.zeros(2, 4, 5, 7, dtype=torch.int16)
    y, _ = step.run([x, like], None)
    assert torch.equal(y, x.expand(2, 4, 5, 3)) and y.is_contiguous()
    assert step.heard == ["y"] and step.output_size([(1, 1), (4, 5)]) == (4, 5)
    with pytest.raises(ValueError, match="3x1 pixels is spread over another"):
        step.output_size([(3, 1), (4, 5)])


@given(data=st.data())
def test_runs_are_channels_in_their_order(data):
    widths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    maps = [drawn(i, (2, 3, 2, w), torch.int16) for i, w in enumerate(widths)]
    runs = []
    for _ in range(data.draw(st.integers(1, 6))):
        i = data.draw(st.integers(0, len(widths) - 1))
        first = data.draw(st.integers(0, widths[i] - 1))
        runs.append((i, first, data.draw(st.integers(1, widths[i] - first))))
    wanted = [maps[i][..., c] for i, first, count in runs for c in range(first, first + count)]
    step = ConcatStep("x", ["y"] * len(maps), Code.graded(1.0, 9), (), runs)
    y, _ = step.run(maps, None)
    assert torch.equal(y, torch.stack(wanted, 3)) and y.is_contiguous()
    floats = [m.permute(0, 3, 1, 2) for m in maps]
    assert torch.equal(side_by_side(floats, runs), torch.stack(wanted, 1))
    assert torch.equal(side_by_side(maps, (), 3), torch.cat(maps, 3))


@pytest.mark.parametrize("kind", ["shuffle", "unshuffle"])
def test_values_of_channels_go_with_them(kind):
    """A map whose channels hold their own number shows where each of them goes."""
    move, c = Move(kind, (2,)), 8
    numbers = torch.arange(c) // 4 if kind == "shuffle" else torch.arange(c)
    x = numbers[None, :, None, None].expand(1, c, 4, 6)
    y = move.apply(x)
    assert torch.equal(move.of_channels(numbers)[None, :, None, None].expand_as(y), y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Move("roll", (1,)), "m.kind is 'roll'"),
        (Move("upsample", (2,)), "m.numbers is .2,.: expected 2 numbers from 1 to"),
        (Move("upsample", (2, 0)), "expected 2 numbers from 1 to"),
        (Move("shuffle", (2, 2)), "expected 1 numbers"),
        (Move("pad", (0, 0, 0, -1)), "expected 4 numbers from 0 to"),
        (Move("pad", (0, 0, 0, MOST_NUMBER + 1)), f"to {MOST_NUMBER}"),
        (Move("expand", (1,)), "expected 0 numbers"),
        (Move("unshuffle", (2.0,)), "m.numbers is"),
    ],
)
def test_what_is_no_move_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong.check("m")
