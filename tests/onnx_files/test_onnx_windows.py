"""Risk: padding goes to the wrong end, or is right for one size or parity of the map alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx_models.cases import answers, array, assert_close, one, run
from torch import nn

import fskernel as fs

SIDES = st.integers(1, 4)
AUTO_PADS = st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])


@st.composite
def windows(draw, axes, pool=False, dilated=True):
    """Attributes of a window, and two sizes of maps that have at least one output."""
    kernel = draw(st.lists(SIDES, min_size=axes, max_size=axes))
    strides = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    attributes = {"kernel_shape": kernel, "strides": strides, "auto_pad": draw(AUTO_PADS)}
    pads, dilations = [0] * 2 * axes, [1] * axes
    if attributes["auto_pad"].startswith("SAME"):
        # ONNX Runtime cuts the map where a window is smaller than its stride, and TensorFlow does
        # not: see test_windows_smaller_than_their_stride.
        attributes["strides"] = [min(s, k) for s, k in zip(strides, kernel)]
    elif attributes["auto_pad"] == "NOTSET":
        pads = [draw(st.integers(0, k - 1 if pool else 3)) for k in 2 * kernel]
        attributes["pads"] = pads
        if dilated:
            dilations = draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
            attributes["dilations"] = dilations
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    least = [max(r - a - b, 1) for r, a, b in zip(reach, pads[:axes], pads[axes:])]
    return attributes, [[n + draw(st.integers(0, 6)) for n in least] for _ in range(2)]


@given(windows(2), st.sampled_from([1, 2]), st.booleans())
def test_convolutions(drawn, groups, biased):
    attributes, sizes = drawn
    weight = array(6, 4 // groups, *attributes["kernel_shape"])
    constants = (weight, array(6, seed=1)) if biased else (weight,)
    proto = one("Conv", {"x": ("n", 4, "h", "w")}, constants, group=groups, **attributes)
    network = fs.from_onnx(proto)
    for size in sizes:
        x = array(2, 4, *size)
        assert_close(run(network, x), answers(proto, x))


@given(windows(1))
def test_convolutions_over_one_axis(drawn):
    attributes, sizes = drawn
    proto = one(
        "Conv", {"x": ("n", 3, "l")}, (array(5, 3, *attributes["kernel_shape"]),), **attributes
    )
    network = fs.from_onnx(proto)
    for size in sizes:
        x = array(2, 3, *size)
        assert_close(run(network, x), answers(proto, x))


@given(windows(2, pool=True), st.booleans())
def test_max_pools(drawn, ceil):
    attributes, sizes = drawn
    proto = one("MaxPool", {"x": ("n", 3, "h", "w")}, ceil_mode=int(ceil), **attributes)
    network = fs.from_onnx(proto)
    for size in sizes:
        x = array(2, 3, *size)
        assert_close(run(network, x), answers(proto, x))


@given(windows(2, pool=True, dilated=False), st.booleans(), st.booleans())
def test_average_pools(drawn, ceil, counts):
    attributes, sizes = drawn
    options = {"ceil_mode": int(ceil), "count_include_pad": int(counts)}
    proto = one("AveragePool", {"x": ("n", 3, "h", "w")}, **options, **attributes)
    network = fs.from_onnx(proto)
    for size in sizes:
        x = array(2, 3, *size)
        assert_close(run(network, x), answers(proto, x))


SMALL = [("MaxPool", 1, 2), ("MaxPool", 2, 4), ("AveragePool", 1, 3), ("Conv", 2, 4)]


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("operator, kernel, stride", SMALL)
def test_windows_smaller_than_their_stride(operator, kernel, stride, auto):
    """There is no padding where the size is a multiple, and nothing is cut off, as in TensorFlow.

    ONNX Runtime stops with an error, or begins behind the first pixel: an x of its own is cut.
    """
    constants = (np.ones((1, 1, kernel, kernel), np.float32),) if operator == "Conv" else ()
    strides, shape = [stride, stride], [kernel, kernel]
    proto = one(
        operator, {"x": ("n", 1, "h", "w")}, constants, kernel_shape=shape, strides=strides,
        auto_pad=auto,
    )  # fmt: skip
    plain = one(operator, {"x": ("n", 1, "h", "w")}, constants, kernel_shape=shape, strides=strides)
    x = array(2, 1, 3 * stride, 2 * stride)
    assert_close(run(fs.from_onnx(proto), x), answers(plain, x))


@given(windows(1, dilated=True), st.integers(0, 2))
def test_transposed_convolutions(drawn, extra):
    """Pads are cut off the output, at either end, and what is added stands at the end alone."""
    attributes, sizes = drawn
    attributes.pop("auto_pad")
    if "pads" in attributes:
        attributes["pads"] = [min(p, 1) for p in attributes["pads"]]
    attributes["output_padding"] = [min(extra, attributes["strides"][0] - 1)]
    weight = array(3, 4, *attributes["kernel_shape"])
    proto = one("ConvTranspose", {"x": ("n", 3, "l")}, (weight, array(4)), **attributes)
    network = fs.from_onnx(proto)
    for (size,) in sizes:
        x = array(2, 3, size + 2)
        assert_close(run(network, x), answers(proto, x))


def test_layers_of_torch_stand_for_what_they_can():
    """And only for that: the padding of these differs from end to end, or follows the size."""
    x, weight = {"x": ("n", 3, "h", "w")}, (array(5, 3, 3, 3),)
    plain = fs.from_onnx(one("Conv", x, weight, pads=[1, 2, 1, 2], name="c")).c
    assert type(plain) is nn.Conv2d and plain.padding == (1, 2)
    same = fs.from_onnx(one("Conv", x, weight, auto_pad="SAME_LOWER", name="c")).c
    assert type(same) is nn.Conv2d and same.padding == (1, 1)
    for attributes in ({"pads": [1, 2, 2, 1]}, {"auto_pad": "SAME_UPPER", "strides": [2, 1]}):
        found = fs.from_onnx(one("Conv", x, weight, name="c", **attributes)).c
        assert type(found) is not nn.Conv2d and isinstance(found, nn.Conv2d)
        assert torch.equal(found.weight, plain.weight)
    pool = fs.from_onnx(one("MaxPool", x, kernel_shape=[3, 2], pads=[1, 1, 1, 1], name="p")).p
    assert type(pool) is nn.MaxPool2d and pool.padding == (1, 1)
