"""Risk: byte maps that layers on a GPU leave for each other are read wrong, or seen outside."""

from functools import partial

import pytest
import torch
from cuda_backends import emulator, needs_gpu_marks
from cuda_networks import NETWORKS, assert_same_words, first_blocks, images, resnet8, words_of
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_cases import Kind, random_weights
from simt.layers import tensor_layers
from torch import nn

import fskernel as fs
from bench.emulated.backend import ORDERS
from fskernel.codes.geometry import Geometry
from fskernel.kernels import byte_maps as maps
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses
from fskernel.reference import collapsed

# Torch warns that it copies inputs where "same" padding is asymmetric.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def dense(y):
    """The codes of a map whose halo is what it shall be."""
    n, h, w, c = y.size
    top, bottom, left, right, code, stored = y.halo
    assert len(y.data) == maps.map_bytes(y.size, y.planes, y.halo)
    stored = stored or (c + 15) // 16 * 16
    columns = left + w + right
    if stored == 8:
        columns += columns % 2
    planes = y.data.cpu()[:-64].view(y.planes, n, top + h + bottom, columns, stored)
    *high, low = planes.to(torch.int16)
    codes = low if not high else high[0].to(torch.int8).to(torch.int16) * 256 + low
    inside = codes[:, top : top + h, left : left + w, :c].clone()
    codes[:, top : top + h, left : left + w] = code
    assert torch.equal(codes, torch.full_like(codes, code)), "the halo"
    return inside if high else inside.to(torch.uint8)


@st.composite
def halos(draw):
    sides = draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
    return maps.Halo(*sides, draw(st.sampled_from([0, 0, 1, 130, 255, 300, -5, 32767, -32768])))


@settings(max_examples=60)
@given(
    st.tuples(st.integers(0, 3), st.integers(1, 19), *[st.integers(1, 9)] * 2),
    halos(),
    st.sampled_from(["NCHW", "NHWC", "every second row", "one row for all"]),
    st.sampled_from(ORDERS),
    st.integers(0, 999),
)
def test_the_image_is_encoded_into_a_map(size, halo, layout, order, seed):
    """Of 8 and 16 and more stored channels, with values that are clipped and NaN."""
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = size
    x = torch.randn(n, c, 2 * h, w, generator=generator)[:, :, ::2] * 3
    if n:
        x[0, 0, 0, 0] = float("nan")
    if layout == "NCHW":
        x = x.contiguous()
    elif layout == "NHWC":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "one row for all":
        x = x[:, :, :1].contiguous().expand(n, c, h, w)
    halo = halo._replace(stored=8 if c <= 8 and seed % 2 else 0)
    on = emulator(order)
    kept = on.encode(x, 777.7, limit=1999, halo=halo)
    assert kept.planes == 2 and kept.size == (n, h, w, c)
    assert torch.equal(dense(kept), collapsed.encode(x, 777.7, limit=1999))


@settings(max_examples=60)
@given(tensor_layers(), halos(), st.sampled_from(ORDERS), st.data())
def test_one_layer_leaves_what_the_next_reads(layer, halo, order, data):
    """As its first or second synapse group, as its residual, with all or none of the halo."""
    on = emulator(order)
    layer = layer._replace(step=None)  # maps hold codes
    y, counts = layer.run(collapsed.conv)
    if y.dtype == torch.uint8:
        halo = halo._replace(pad_code=halo.pad_code % 256)
    kept, kept_counts = layer.run(partial(on.conv, halo=halo))
    assert torch.equal(dense(kept), y) and torch.equal(kept_counts, counts)
    channels = y.shape[3]
    if channels <= 8:
        return
    kind = Kind(layer.K, 0) if layer.K else Kind(0, 32767)
    low, high = kind.range
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))

    def synapses(geometry):
        weight = random_weights((channels, channels, *geometry.kernel), 8, kind, generator)
        m = torch.rand(channels, generator=generator) / (high * channels)
        code = halo.pad_code if any(geometry.padding) else 0
        return Synapses(weight, m, geometry, x_min=low, x_max=high, pad_code=code)

    padding = tuple(data.draw(st.integers(0, side)) for side in halo[:4])
    if not low <= halo.pad_code <= high:
        padding = (0, 0, 0, 0)
    rows, cols = (y.shape[i + 1] + padding[2 * i] + padding[2 * i + 1] for i in (0, 1))
    kernel = data.draw(st.integers(1, min(3, rows))), data.draw(st.integers(1, min(3, cols)))
    stride = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3)]))
    first = synapses(Geometry(kernel, stride, padding))
    bias = torch.randn(channels, generator=generator) * 100
    wanted = collapsed.conv([(y, first)], bias, K=9)
    for got, expected in zip(on.conv([(kept, first)], bias, K=9), wanted, strict=True):
        assert torch.equal(got, expected)
    second, r = synapses(Geometry((1, 1))), torch.tensor([0.7])
    for given_groups, residual in (
        ([(y, second), (kept, second)], None),
        ([(kept, second), (kept, second)], kept),
        ([(y, second)], kept),
    ):
        expected, _ = collapsed.conv(
            [(y, g) for _, g in given_groups], bias, K=0, residual=residual and (y, r)
        )
        got, _ = on.conv(given_groups, bias, K=0, residual=residual and (residual, r))
        assert torch.equal(got, expected)


def test_a_map_that_does_not_serve_is_refused():
    on = emulator()

    def group(code=0, padding=(1, 1, 1, 1), top=1023, groups=1):
        weight = torch.ones(16, 16 // groups, 3, 3, dtype=torch.int8)
        geometry = Geometry((3, 3), padding=padding, groups=groups)
        return Synapses(weight, torch.ones(16), geometry, x_min=0, x_max=top, pad_code=code)

    x, bias = torch.zeros(1, 5, 5, 16, dtype=torch.int16), torch.zeros(16)
    kept, _ = on.conv([(x, group())], bias, K=10, halo=maps.Halo(1, 1, 1, 1, 0))
    on.conv([(kept, group())], bias, K=10)
    for wrong in ((2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)):
        with pytest.raises(ValueError, match="halo of .* does not serve a padding of"):
            on.conv([(kept, group(padding=wrong))], bias, K=10)
    with pytest.raises(ValueError, match="and code 0 does not serve .* and code 7"):
        on.conv([(kept, group(code=7))], bias, K=10)
    with pytest.raises(ValueError, match="8-bit words has no place for the pad code -1"):
        on.conv([(x, group())], bias, K=8, halo=maps.Halo(1, 1, 1, 1, -1))
    with pytest.raises(ValueError, match="a byte plane of a map takes 4503.*: split the batch"):
        on.conv([(x, group())], bias, K=8, halo=maps.Halo(2**24, 0, 2**24, 0, 0))
    with pytest.raises(ValueError, match="a map of 2 planes .* does not serve .* reads 1 and 16"):
        on.conv([(kept, group(top=255))], bias, K=10)
    with pytest.raises(ValueError, match="byte maps are for layers on tensor cores"):
        on.conv([(kept, group(groups=2))], bias, K=10)
    with pytest.raises(ValueError, match="byte maps are for layers on tensor cores"):
        on.conv([(x, group(groups=2))], bias, K=10, halo=maps.Halo(0, 0, 0, 0, 0))


def test_maps_are_for_gpus():
    weight = torch.ones(16, 16, 1, 1, dtype=torch.int8)
    group = Synapses(weight, torch.ones(16), Geometry((1, 1)), x_min=0, x_max=1023)
    x, halo = torch.zeros(1, 2, 2, 16, dtype=torch.int16), maps.Halo(0, 0, 0, 0, 0)
    kept = maps.ByteMap(torch.zeros(64 + 128, dtype=torch.uint8), (1, 2, 2, 16), 2, halo)
    with pytest.raises(ValueError, match="byte maps exist on GPUs only: pass tensors, and no halo"):
        ops.conv([(x, group)], torch.zeros(16), K=10, halo=halo)
    with pytest.raises(ValueError, match="byte maps exist on GPUs only: pass tensors, and no halo"):
        ops.encode(torch.zeros(1, 3, 2, 2), 1.0, halo=halo)
    for groups, residual in ([(kept, group)], None), ([(x, group)], (kept, torch.ones(1))):
        with pytest.raises(ValueError, match="byte maps exist on GPUs only"):
            ops.conv(groups, torch.zeros(16), K=10, residual=residual)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_between_layers_hold_the_same_words(name):
    net, x = NETWORKS[name]()
    kept, seen = {}, {}

    def observe(step, inputs, y, counts):
        if isinstance(y, maps.ByteMap):
            kept[step.name] = y.halo
            y = dense(y)
        seen[step.name] = y, counts

    net._executor(x, emulator("random"), observe=observe, keep=True)
    assert_same_words(seen, words_of(net, x))
    assert kept == maps.kept_maps(list(net.steps))
    assert torch.equal(net.execute(x, emulator("reverse")), net(x))
    if "offset" in name:
        assert {halo.pad_code for halo in kept.values() if any(halo[:4])} >= {2 ** (net.K - 1)}


def test_a_map_has_the_halo_of_all_its_readers():
    """Of different paddings, one with a stride, a residual, and a reader that is not a map's."""

    class Readers(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 10, 3)
            self.a, self.b = nn.Conv2d(10, 10, 3, padding=1), nn.Conv2d(10, 12, (1, 5), 2, (0, 2))
            self.c, self.d = nn.Conv2d(12, 12, 2), nn.Conv2d(12, 12, 2, groups=12)
            self.head = nn.Linear(10 + 12 + 12, 4)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            a = torch.relu(self.a(x) + x)
            b = torch.relu(self.b(x))
            c, d = torch.relu(self.c(b)), torch.relu(self.d(b))
            y = torch.cat([nn.functional.max_pool2d(a, 2), c, d], 1)
            return self.head(y.mean((2, 3)))

    torch.manual_seed(7)
    x = images(2, 11)
    net = fs.convert(Readers().eval(), x, K=9)
    image = net.steps[0].name
    assert maps.kept_maps(list(net.steps)) == {image: (0,) * 6, "stem": (1, 1, 2, 2, 0, 0)}
    assert torch.equal(net.execute(x, emulator("greedy")), net(x))


def test_whoever_looks_gets_tensors():
    net, x = first_blocks()
    kept = maps.kept_maps(list(net.steps))
    reader = next(s for s in net.steps if s.sources and s.sources[0] in kept)
    assert all(isinstance(y, torch.Tensor) for y, _ in words_of(net, x, emulator()).values())
    seen = []
    handle = reader.register_forward_hook(lambda step, inputs, out: seen.extend(inputs))
    logits = net.execute(x, emulator())
    handle.remove()
    assert isinstance(seen[0], torch.Tensor)
    assert torch.equal(net.execute(x, emulator()), logits)
    direct = emulator(kernel="direct")
    assert torch.equal(net.execute(x, direct), logits), "no maps where no tensor core reads them"


def test_a_changed_step_is_noticed():
    net, x = resnet8()
    net.execute(x, emulator())
    before = dict(net._executor.halos())
    name, halo = next((n, h) for n, h in before.items() if any(h))
    (reader,) = [s for s in net.steps if name in s.sources[:1]][:1]
    group = reader.groups[0]
    wider = group.geometry._replace(padding=(2, 1, 1, 2), kernel=group.geometry.kernel)
    group.geometry = wider
    assert net._executor.halos()[name] != halo and net._executor.halos()[name].right == 2


@needs_gpu_marks
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_on_a_gpu_hold_the_same_words(name):
    net, x = NETWORKS[name]()
    wanted, seen = words_of(net, x), {}

    def observe(step, inputs, y, counts):
        y = dense(y) if isinstance(y, maps.ByteMap) else y.cpu()
        seen[step.name] = y, None if counts is None else counts.cpu()

    net.cuda()._executor(x.cuda(), ops, observe=observe, keep=True)
    assert_same_words(seen, wanted)
