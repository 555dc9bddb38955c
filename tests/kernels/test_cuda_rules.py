"""Risk: Python plans with other rules than those by which the CUDA kernels lay out memory."""

import itertools
import random

import pytest

from fskernel import _C
from fskernel.codes.geometry import Geometry
from fskernel.kernels import byte_maps as maps
from fskernel.kernels import fakes


def test_shapes_of_symbols_are_those_of_the_library():
    draw = random.Random(1)
    for _ in range(300):
        size = draw.randint(0, 3), draw.randint(1, 9), draw.randint(1, 9), draw.randint(1, 40)
        sides = [draw.randint(0, 3) for _ in range(4)]
        stored = draw.choice([0, 8 if size[3] <= 8 else 64])
        halo = maps.Halo(*sides, 0, stored)
        planes = draw.randint(1, 2)
        assert fakes._map_bytes(size, planes, halo) == maps.map_bytes(size, planes, halo)


def test_a_halo_is_what_padding_adds():
    wide = Geometry((3, 3), padding=(1, 2, 3, 0)).as_ints()
    for x_max, planes in ((255, 1), (256, 2)):
        of_reader = _C.cuda_map_bytes(wide, (2, 5, 6, 16), 0, x_max)
        assert of_reader == maps.map_bytes((2, 5, 6, 16), planes, maps.Halo(1, 2, 3, 0, 0))


def test_planes_and_passes():
    ranges = {(0, 255): 1, (0, 256): 2, (-128, 127): 1, (-128, 128): 2, (-129, 0): 2}
    assert {r: _C.cuda_planes(*r) for r in ranges} == ranges
    assert [_C.cuda_passes(0, 255, bytes_, 0) for bytes_ in (1, 2)] == [1, 2]
    assert [_C.cuda_passes(-300, 300, bytes_, 0) for bytes_ in (1, 2)] == [2, 4]
    assert _C.cuda_passes(0, 15, 1, 1) == 4, "bit-planes without spikes are left out"
    with pytest.raises(ValueError, match="plane_bits is 3"):
        _C.cuda_passes(0, 255, 1, 3)


@pytest.mark.parametrize(
    ("kernel", "channels", "steps"),
    [((1, 1), 64, 1), ((1, 1), 65, 2), ((3, 3), 64, 9), ((3, 3), 16, 3), ((7, 7), 3, 14)],
)
def test_steps(kernel, channels, steps):
    assert _C.cuda_steps(Geometry(kernel).as_ints(), channels) == steps


def test_dense_words_are_read_as_they_are_by_plain_1x1_layers():
    plain, padded = Geometry((1, 1)).as_ints(), Geometry((1, 1), padding=(1, 1, 1, 1)).as_ints()
    assert _C.cuda_reads_dense(plain, 64, 0, 255, 1)
    assert not _C.cuda_reads_dense(plain, 32, 0, 255, 1)
    assert not _C.cuda_reads_dense(padded, 64, 0, 255, 1)
    assert not _C.cuda_reads_dense(plain, 64, -9, 9, 1)
    assert not _C.cuda_reads_dense(plain, 64, 0, 999, 2)
    grouped = Geometry((1, 1), groups=2).as_ints()
    assert _C.cuda_on_tensor_cores(plain) and not _C.cuda_on_tensor_cores(grouped)


def test_every_layer_has_a_tile():
    names = _C.cuda_kernels[:-1]
    shapes = itertools.product((1, 10**6), (1, 64, 1000), (1, 2), (False, True))
    for pixels, channels, groups, narrow in shapes:
        row = _C.cuda_choose_tile(pixels, channels, groups, narrow, 132)
        assert 0 <= row < len(names) and "/rate" not in names[row]
        forced = _C.cuda_choose_tile(pixels, channels, groups, narrow, 132, name=names[row])
        assert forced == row
    assert "/rate" in names[_C.cuda_choose_tile(99, 64, 1, False, 132, rate=True)]
    assert _C.cuda_choose_tile(99, 64, 1, True, 132, name="none of this name") == -1
    assert _C.cuda_choose_tile(99, 64, 3, True, 132) == -1, "three synapse groups"
