"""Risk: padding goes to the wrong end, or is right for one size or parity of the map alone."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from onnx_cases import answers, array, assert_any_size, assert_close, assert_same, one, run
from torch import nn

import fskernel as fs
from fskernel import ConversionError

onnxruntime = pytest.importorskip  # asked where onnx's own evaluator is wrong

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
    proto = one("Conv", {"x": ("n", 3, "l")}, (array(5, 3, *attributes["kernel_shape"]),), **attributes)
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
