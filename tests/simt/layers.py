"""Layers for the tensor-core kernel: drawn at random, and those of a ResNet50."""

import torch
from hypothesis import strategies as st
from oracle_cases import Kind, Layer, input_size, random_tops, random_weights

from fskernel.codes.geometry import Geometry
from fskernel.codes.weights import largest_sum
from fskernel.network.synapses import Synapses


def make_layer(
    seed, inputs, out, K, *, images=1, residual=None, plane_bits=0, limit=32767, capped=False,
    step=None,
):  # fmt: skip
    """A layer whose potentials spread over all its codes.

    inputs: for each synapse group (channels, Kind of the codes, weight bits, Geometry, (h, w)).
    """
    generator = torch.Generator().manual_seed(seed)
    spread = float(2**K if K else 2 * limit)
    groups = []
    for channels, kind, bits, geometry, size in inputs:
        low, high = kind.range
        weight = random_weights((out, channels, *geometry.kernel), bits, kind, generator)
        typical = largest_sum(weight, low, high).clamp(min=1) / 8
        m = ((torch.rand(out, generator=generator) * 2 - 0.6) * spread / typical).float()
        code = [0, high, (low + high) // 2 + 1][int(torch.randint(3, (1,), generator=generator))]
        synapses = Synapses(weight, m, geometry, x_min=low, x_max=high, pad_code=code)
        groups.append((kind.codes((images, *size, channels), generator), synapses))
    bias = torch.randn(out, generator=generator) * spread / 4 + spread / 8
    if residual is not None:
        r = torch.rand(1, generator=generator) * spread / residual.range[1]
        rows, cols = groups[0][1].geometry.output_size(*inputs[0][4])
        residual = residual.codes((images, rows, cols, out), generator), r
    top = random_tops(K, out, generator) if capped and K else None
    return Layer(groups, bias, K, limit, residual, plane_bits, top, step)


codes = st.one_of(
    st.builds(Kind, st.integers(1, 15), st.just(0)),
    st.builds(Kind, st.just(0), st.sampled_from([127, 5, 2047, 32767])),
)


@st.composite
def tensor_layers(draw, codes=codes):
    """Ragged in every direction: channels, pixels in a tile, images in a tile, padding, taps."""
    out_size = draw(st.sampled_from([(1, 1), (2, 3), (3, 3), (1, 7), (5, 4), (9, 8)]))
    small = out_size[0] * out_size[1] <= 9
    images = draw(st.sampled_from([1, 2, 5, 9] if small else [1, 2]))
    out = draw(st.sampled_from([64, 128, 16, 24, 40, 72, 10, 1, 130]))
    inputs = []
    for i in range(draw(st.sampled_from([1, 1, 2]))):
        pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
        kernel = (
            draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (2, 1), (7, 7)])) if i == 0 else (1, 1)
        )
        geometry = Geometry(
            kernel,
            draw(pair),
            tuple(draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))),
            draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (2, 3)])),
        )
        spare = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
        size, geometry = input_size(geometry, out_size, spare)
        large = kernel[0] * kernel[1] > 9
        channels = draw(st.sampled_from([3, 8, 16] if large else [16, 64, 128, 3, 8, 20, 72, 100]))
        inputs.append((channels, draw(codes), draw(st.sampled_from([8, 16])), geometry, size))
    K = draw(st.integers(0, 15))
    return make_layer(
        draw(st.integers(0, 2**31)),
        inputs,
        out,
        K,
        images=images,
        residual=draw(st.one_of(st.none(), codes)),
        plane_bits=draw(st.sampled_from([0, 0, 0, 8, 4, 2, 1])),
        limit=draw(st.sampled_from([32767, 127])),
        capped=draw(st.booleans()),
        step=draw(st.sampled_from([None, None, 0.1 if K else 1.0])),
    )


@st.composite
def rate_layers(draw):
    """The same for a step of rate-coded neurons, and membranes: spikes, or sums of them, in."""
    layer = draw(tensor_layers(st.sampled_from([Kind(1, 0), Kind(1, 0), Kind(4, 0)])))
    layer = layer._replace(K=1, plane_bits=0, top=None, step=None)
    if layer.residual is not None:
        layer = layer._replace(residual=(layer.residual[0], layer.residual[1] % 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x, synapses = layer.groups[0]
    shape = (len(x), *synapses.geometry.output_size(*x.shape[1:3]), len(layer.bias))
    return layer, torch.randn(shape, generator=generator)


def _block(width, mid, out, stride, first):
    yield width, mid, 1, 1, False, 0
    yield mid, mid, 3, stride, False, 0
    yield mid, out, 1, 1, not first, width if first else 0


def resnet50_layers():
    """Its distinct layers: in, out, kernel, stride, has a residual, channels of the downsample."""
    shapes = [(3, 64, 7, 2, False, 0)]
    width = 64
    for mid, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and mid > 64 else 1
            shapes += _block(width, mid, 4 * mid, stride, block == 0)
            width = 4 * mid
    return sorted(set(shapes))


def resnet50_layer(shape, K, weight_bits, size=(4, 3), images=1):
    """A layer of that shape over a small output of `size`."""
    channels, out, kernel, stride, residual, downsample = shape
    kind = (
        Kind(0, 127)
        if channels == 3 and K <= 8
        else Kind(0, 32767)
        if channels == 3
        else Kind(K, 0)
    )
    geometry = Geometry((kernel, kernel), (stride, stride), (kernel // 2,) * 4)
    inputs = [(channels, kind, weight_bits, geometry, tuple(stride * s for s in size))]
    if downsample:
        second = 1 if downsample == 64 else 2
        inputs.append((downsample, kind, weight_bits, Geometry((1, 1), (second, second)),
                       tuple(second * s for s in size)))  # fmt: skip
    return make_layer(channels * 7 + out, inputs, out, K, images=images,
                      residual=Kind(K, 0) if residual else None)  # fmt: skip
