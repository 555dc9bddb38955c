"""The tensor-core kernels in the emulator equal oracle (b) in every bit, and in every count."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_cases import Kind
from simt import bugs, emulated_conv
from simt.emulated_conv import FS_KERNELS, ORDERS, RATE_KERNELS, fitting
from simt.layers import (
    make_layer,
    rate_layers,
    resnet50_layer,
    resnet50_layers,
    tensor_layers,
)

from fskernel.codes.geometry import Geometry
from fskernel.reference import collapsed

modes = st.tuples(st.sampled_from(ORDERS), st.booleans(), st.integers(0, 99))


def check(layer, kernel="", *, order=0, late=True, seed=1, **options):
    """Runs the layer and compares; returns what the emulator counted."""
    wanted, wanted_counts = layer.run(collapsed.conv)
    y, counts, name, report = emulated_conv.run(
        layer, kernel, order=order, late_copies=late, seed=seed, **options
    )
    assert not kernel or name == kernel
    assert y.dtype == wanted.dtype and y.shape == wanted.shape
    if not torch.equal(y, wanted):
        at = tuple((y != wanted).nonzero()[0].tolist())
        raise AssertionError(f"{name}: at {at} got {y[at]}, expected {wanted[at]}")
    assert torch.equal(counts, wanted_counts), f"{name}: {counts} spikes, not {wanted_counts}"
    assert report["bank_conflicts"] == 0
    return report


@settings(max_examples=100)
@given(tensor_layers(), st.data(), modes)
def test_ragged_layers(layer, data, mode):
    kernel = data.draw(st.sampled_from(fitting(layer)))
    order, late, seed = mode
    check(layer, kernel, order=order, late=late, seed=seed)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", FS_KERNELS, ids=lambda k: k["name"])
def test_every_kernel_in_every_order(kernel, order, late):
    """Full and partial tiles of pixels, several images in one, more k-steps than stages."""
    wide, bits = kernel["wide"], kernel["plane_bits"]
    kind = Kind(0, 32767) if wide else Kind(8, 0)
    inputs = [(24, kind, 16 if wide else 8, Geometry((3, 3), (1, 1), (1, 1, 1, 1)), (3, 7))]
    if kernel["groups"] == 2:
        inputs.append((20, Kind(10, 0), 8, Geometry((1, 1), (2, 2)), (6, 13)))
    images = -(-(kernel["pixels"] + 30) // 21)
    layer = make_layer(
        5, inputs, kernel["channels"], 10 if wide else 7, images=images,
        residual=Kind(9, 0), plane_bits=bits,
    )  # fmt: skip
    if bits < 4:  # as many passes as make sense here
        layer = layer._replace(groups=layer.groups[1:])
    check(layer, kernel["name"], order=order, late=late)


def check_step(layer, membrane, kernel="", *, order=0, late=True, seed=1, **options):
    """Runs one step of rate-coded neurons and compares; returns the kernel's name."""
    kept, wanted_kept = membrane.clone(), membrane.clone()
    wanted, wanted_counts = collapsed.integrate_and_fire(
        layer.groups, layer.bias, wanted_kept, residual=layer.residual
    )
    y, counts, name, report = emulated_conv.run(
        layer, kernel, membrane=kept, order=order, late_copies=late, seed=seed, **options
    )
    assert not kernel or name == kernel
    assert torch.equal(kept.view(torch.int32), wanted_kept.view(torch.int32)), f"{name}: membranes"
    assert torch.equal(y, wanted) and torch.equal(counts, wanted_counts), name
    assert report["bank_conflicts"] == 0
    return name


@settings(max_examples=60)
@given(rate_layers(), st.data(), modes)
def test_ragged_layers_of_rate_coded_neurons(case, data, mode):
    layer, membrane = case
    kernel = data.draw(st.sampled_from(fitting(layer, RATE_KERNELS)))
    order, late, seed = mode
    check_step(layer, membrane, kernel, order=order, late=late, seed=seed)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", RATE_KERNELS, ids=lambda k: k["name"])
def test_every_rate_coded_kernel_in_every_order(kernel, order, late):
    """Full and partial tiles, several images in one, more k-steps than stages; three time steps."""
    spikes, bits = Kind(1, 0), 16 if kernel["wide"] else 8
    inputs = [(24, spikes, bits, Geometry((3, 3), (1, 1), (1, 1, 1, 1)), (3, 7))]
    if kernel["groups"] == 2:
        inputs.append((20, spikes, 8, Geometry((1, 1), (2, 2)), (6, 13)))
    images = -(-(kernel["pixels"] + 30) // 21)
    channels = kernel["channels"] - 3 * (order % 2)
    layer = make_layer(5, inputs, channels, 1, images=images, residual=spikes)
    kept = torch.randn(images, 3, 7, channels, generator=torch.Generator().manual_seed(2))
    wanted_kept, total = kept.clone(), 0
    for _ in range(3):
        wanted, wanted_counts = collapsed.integrate_and_fire(
            layer.groups, layer.bias, wanted_kept, residual=layer.residual
        )
        y, counts, name, _ = emulated_conv.run(
            layer, kernel["name"], membrane=kept, order=order, late_copies=late
        )
        assert name == kernel["name"] and torch.equal(y, wanted) and torch.equal(kept, wanted_kept)
        assert torch.equal(counts, wanted_counts)
        total += int(counts.sum())
    assert 0 < total < 3 * y.numel()


def test_the_rate_coded_choice_goes_by_data():
    """Tiles as for FS neurons; int16 weights take the one kernel that has them."""

    def chosen(shape, bits, size):
        layer = resnet50_layer(shape, 1, bits, size=size)
        membrane = torch.zeros(1, *size, shape[1])
        return check_step(layer, membrane, multiprocessors=2, shadow=False)

    assert chosen((64, 64, 3, 1, False, 0), 8, (4, 4)) == "64x64/rate"
    assert chosen((64, 64, 1, 1, False, 0), 8, (32, 16)) == "128x64/rate"
    assert chosen((64, 256, 1, 1, True, 0), 8, (16, 8)) == "128x128/rate"
    assert chosen((64, 256, 1, 1, True, 0), 8, (32, 32)) == "256x128/rate"
    assert chosen((64, 256, 1, 1, False, 64), 8, (32, 32)) == "128x128/rate-pair"
    assert chosen((64, 256, 1, 1, False, 64), 16, (16, 8)) == "64x64/rate-pair"


def test_a_kernel_for_the_other_neuron_is_refused():
    layer = make_layer(4, [(64, Kind(1, 0), 8, Geometry((1, 1)), (3, 3))], 64, 1)
    with pytest.raises(ValueError, match="64x64/rate does not exist or does not fit"):
        emulated_conv.run(layer, "64x64/rate")
    with pytest.raises(ValueError, match="64x64 does not exist or does not fit"):
        emulated_conv.run(layer, "64x64", membrane=torch.zeros(1, 3, 3, 64))


@pytest.mark.parametrize("K, bits", [(8, 8), (10, 8), (12, 16)])
@pytest.mark.parametrize("shape", resnet50_layers(), ids=str)
def test_layers_of_resnet50(shape, K, bits):
    """In the kernel that would be chosen, on a small GPU, so that it is not always the smallest."""
    check(resnet50_layer(shape, K, bits), order=2, multiprocessors=1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", resnet50_layers(), ids=str)
def test_layers_of_resnet50_in_every_kernel(shape):
    turn = 0
    for K, bits in ((8, 8), (10, 8), (12, 16)):
        layer = resnet50_layer(shape, K, bits, size=(7, 5), images=3)
        for kernel in fitting(layer):
            check(layer, kernel, order=turn % 4, late=turn // 4 % 2 == 0)
            turn += 1


@settings(max_examples=25)
@given(tensor_layers(), *[st.integers(0, 2)] * 3, modes)
def test_maps_with_halos(layer, y_halo, residual_halo, x_halo, mode):
    """Input, output and residual as the byte planes that layers of a plan hand to each other."""
    order, late, seed = mode
    layer = layer._replace(step=None)  # maps hold codes
    wanted, wanted_counts = layer.run(collapsed.conv)
    halos = {"y_halo": y_halo, "residual_halo": residual_halo, "x_halo": x_halo}
    y, counts, *_ = emulated_conv.run(layer, order=order, late_copies=late, seed=seed, **halos)
    channels, h = wanted.shape[3], y_halo
    inside = y[:, :, h : y.shape[2] - h, h : y.shape[3] - h, :channels]
    got = inside[0].to(wanted.dtype)
    if len(inside) == 2:
        got = inside[0].view(torch.int8).to(torch.int16) * 256 + inside[1].to(torch.int16)
    assert torch.equal(got, wanted) and torch.equal(counts, wanted_counts)
    inside.fill_(0xCD)
    assert bool((y == 0xCD).all()), "wrote into the halo or behind the last channel"


@pytest.mark.parametrize("K, y_halo, waste", [(8, -1, 1), (10, 0, 1), (10, -1, 2)])
def test_stores_fill_whole_sectors(K, y_halo, waste):
    """Bytes and byte planes do; a thread's 16 int16 words take two stores of half sectors."""
    layer = make_layer(3, [(64, Kind(8, 0), 8, Geometry((1, 1)), (16, 8))], 128, K)
    report = emulated_conv.run(layer, "128x128", y_halo=y_halo)[3]
    assert report["store_bytes"] == 16 * 8 * 128 * (2 if K > 8 else 1)
    assert report["store_sectors"] * 32 == waste * report["store_bytes"]


def test_a_1x1_layer_of_bytes_is_read_in_place():
    layer = make_layer(3, [(64, Kind(8, 0), 8, Geometry((1, 1)), (16, 8))], 64, 8)
    assert check(layer)["blocks"] == 128 // 32  # the report is of the last launch


def test_counts_may_be_left_out():
    layer = make_layer(4, [(64, Kind(8, 0), 8, Geometry((1, 1)), (3, 3))], 64, 8)
    y, counts, *_ = emulated_conv.run(layer, count=False)
    assert torch.equal(y, layer.run(collapsed.conv)[0]) and not counts.any()


def test_an_empty_batch_launches_nothing():
    layer = make_layer(4, [(64, Kind(8, 0), 8, Geometry((1, 1)), (3, 3))], 64, 8, images=0)
    y, counts, *_ = emulated_conv.run(layer)
    assert y.shape == (0, 3, 3, 64) and len(counts) == 0


def test_extreme_codes_and_weights():
    """Everything at its limit: sums of both signs next to 2^31."""
    for kind, bits, channels in (
        (Kind(8, 0), 8, 512),
        (Kind(15, 0), 16, 16),
        (Kind(0, 32767), 16, 16),
    ):
        layer = make_layer(6, [(channels, kind, bits, Geometry((1, 1)), (3, 3))], 64, 12)
        x, synapses = layer.groups[0]
        x[:, :2] = kind.range[1]
        x[:, 2:] = kind.range[0]
        top = min(2 ** (bits - 1) - 1, (2**31 - 1) // kind.range[1] // channels)
        synapses.weight.fill_(top)
        synapses.weight[::2] = -top
        synapses.m[:] = synapses.m / 8
        for kernel in fitting(layer):
            check(layer, kernel)


def test_a_sum_that_does_not_fit_is_reported():
    """Weights that packing would refuse; where they wrap and come back, nothing is said."""
    layer = make_layer(6, [(16, Kind(0, 32767), 16, Geometry((1, 1)), (3, 3))], 64, 12)
    x, synapses = layer.groups[0]
    x.fill_(32767)
    synapses.weight.fill_(32767)
    synapses.weight[:, ::2] = -32767
    check(layer)
    synapses.weight[5, :4] = 32767
    wrong = 4 * 32767**2
    for kernel in fitting(layer):
        with pytest.raises(emulated_conv.native().Fault) as fault:
            emulated_conv.run(layer, kernel)
        place = bugs.lines_of("return gpu::final_sum(")
        assert str(fault.value).split(": ")[0] in place
        assert f"overflow: the sum is {wrong}, and 32 bits say" in str(fault.value)


def test_a_damaged_channel_stays_one_damaged_channel():
    layer = make_layer(
        8, [(64, Kind(8, 0), 8, Geometry((1, 1)), (5, 3))], 72, 8, residual=Kind(8, 0)
    )
    for i, bad in enumerate([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45]):
        layer.bias[3 * i] = bad
        layer.groups[0][1].m[3 * i + 40] = bad
    for K in (8, 10, 0):
        check(layer._replace(K=K))


def test_the_choice_goes_by_data():
    """Few pixels take small tiles, many take large ones, wide operands a kernel that has them."""

    def chosen(shape, K, bits, size):
        layer = resnet50_layer(shape, K, bits, size=size, images=1)
        return emulated_conv.run(layer, multiprocessors=2, shadow=False)[2]

    assert chosen((64, 64, 3, 1, False, 0), 8, 8, (4, 4)) == "32x64"
    assert chosen((64, 64, 1, 1, False, 0), 8, 8, (32, 32)) == "256x64"
    assert chosen((64, 256, 1, 1, True, 0), 8, 8, (32, 32)) == "256x128"
    assert chosen((64, 256, 1, 1, True, 0), 10, 8, (32, 32)) == "256x128"
    assert chosen((64, 256, 1, 1, True, 0), 10, 16, (32, 32)) == "256x128/wide"
    assert chosen((64, 256, 1, 1, False, 64), 8, 8, (4, 4)) == "32x64/pair"
    assert chosen((64, 256, 1, 1, False, 64), 8, 8, (32, 32)) == "128x128/pair"


def test_what_does_not_fit_is_refused():
    layer = make_layer(4, [(64, Kind(0, 2047), 8, Geometry((1, 1)), (3, 3))], 64, 8)
    for kernel in ("256x64", "128x128/wide", "64x64/planes4", "none"):
        with pytest.raises(ValueError, match="does not exist or does not fit"):
            emulated_conv.run(layer, kernel)


@pytest.mark.parametrize(
    "sizes, fault",
    [
        ((2**21, 32, 8, 8, 1), "the output's number of pixels takes 2147483648: split the batch"),
        ((2**20, 8, 128, 8, 1), "a byte plane of the input .* takes 8589934592: split the batch"),
        ((2**17, 8, 448, 8, 3), "a byte plane of the input with its padding takes 5872025600"),
        ((2**15, 32, 16, 128, 1), "the output's number of bytes takes 8589934592: split"),
        ((1, 2**15, 2**14, 1, 5), "a byte plane of the input|a kernel spans takes"),
    ],
)
def test_sizes_beyond_32_bits_are_refused(sizes, fault):
    with pytest.raises(ValueError, match=fault):
        emulated_conv.native().check_sizes(*sizes)


def test_the_largest_sizes_are_taken():
    emulated_conv.native().check_sizes(2**14, 32, 128, 64, 1)
