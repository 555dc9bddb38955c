"""Risk: what a file says of runs, moves and windows makes a kernel touch memory not its own."""

import math

import numpy as np
import pytest
import torch
from moved.hostile import CASES, IMAGES, template

import fskernel as fs
from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return template(tmp_path_factory.mktemp("moves"))


def test_the_good_file_runs(moves):
    net = fs.load(moves.changed(lambda tensors, d: None))
    x = torch.randn(IMAGES)
    assert torch.equal(net(x), net.execute(x, reference.literal))


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_wrong_is_refused_by_file_step_and_field(moves, name):
    change, message = CASES[name]
    path = moves.changed(change)
    with pytest.raises(ValueError, match=message) as caught:
        fs.load(path)
    assert type(caught.value) is ValueError and str(path) in str(caught.value)


class Native:
    """A native plan under construction: the image's 3 channels, as values up to 8191."""

    def __init__(self):
        self.plan = ops.compiled().Plan()
        self.plan.encode("image", 3, 2.0, 8191)

    def mean_pool(self, **changed):
        arguments = {
            "name": "mean",
            "input": 0,
            "output": [1, 1],
            "geometry": Geometry((1, 1)).as_ints(),
            "ceil_mode": False,
            "include_pad": True,
            "zero": 0,
            "step": 1.0,
            "step_out": 1.0,
            "limit": 127,
        }
        return self.plan.mean_pool(**(arguments | changed))

    def move(self, kind, *numbers, zero=0, inputs=(0,)):
        return self.plan.move("move", list(inputs), kind, list(numbers), zero)

    def lay_out(self, height, width, features=3):
        """Decides for images of this size where maps lie, the last node read out."""
        weight, bias = np.zeros(2 * features, dtype=np.uint8), np.zeros(2, dtype=np.float32)
        self.plan.readout("head", 1, weight, 1, np.ones(2), bias, True)
        self.plan.arena_bytes(height, width)


def clipped(**changed):
    return {"output": [], "geometry": Geometry((2, 3), **changed).as_ints()}


FAULTS = {
    "a run of no input": (lambda n: n.plan.concat("x", [0], [(1, 0, 1)]), "run is of input 1, but it has 1"),
    "a run of an input below 0": (lambda n: n.plan.concat("x", [0], [(-1, 0, 1)]), "run is of input -1"),
    "a run beyond its input": (lambda n: n.plan.concat("x", [0], [(0, 2, 2)]), "2 channels from 2 on, but 'image' has 3"),
    "a run far beyond": (lambda n: n.plan.concat("x", [0], [(0, 2**62, 2**62)]), "but 'image' has 3"),
    "a run of nothing": (lambda n: n.plan.concat("x", [0], [(0, 0, 0)]), "0 channels"),
    "a run from below 0": (lambda n: n.plan.concat("x", [0], [(0, -1, 2)]), "from -1 on"),
    "runs of too many": (lambda n: n.plan.concat("x", [0], [(0, 0, 3)] * 6_000_000), "has 18000000 channels"),
    "a move of no kind": (lambda n: n.move("roll", 1), "no such move"),
    "a move without numbers": (lambda n: n.move("upsample", 1), "has 2 numbers, not 1"),
    "a move by nothing": (lambda n: n.move("upsample", 0, 1), "is 0: expected 1 to"),
    "a move by too much": (lambda n: n.move("pad", 0, 0, 0, 2**40), "expected 0 to"),
    "a move of the future": (lambda n: n.move("pad", 0, 0, 0, 0, inputs=[1]), "reads node 1"),
    "a move of two": (lambda n: n.move("pad", 0, 0, 0, 0, inputs=[0, 0]), "reads 2 nodes, expected 1"),
    "one pixel for nothing": (lambda n: n.move("expand"), "reads 1 nodes, expected 2"),
    "a shuffle that does not divide": (lambda n: n.move("shuffle", 2), "3 channels, which 2 squared"),
    "an unshuffle to too many": (lambda n: n.move("unshuffle", 2**24), "channels: expected 1 to|beyond 63 bits"),
    "padding that is no code": (lambda n: n.move("pad", 0, 0, 0, 1, zero=8192), "code of zero is 8192"),
    "a mean of another zero": (lambda n: n.mean_pool(zero=-8192), "code of zero is -8192"),
    "a mean without a step": (lambda n: n.mean_pool(step=0.0), "the steps are"),
    "a mean of no number": (lambda n: n.mean_pool(step=math.nan), "the steps are"),
    "a mean beyond float32": (lambda n: n.mean_pool(step=1e300), "finite ratio"),
    "a mean without a limit": (lambda n: n.mean_pool(limit=0), "limit"),
    "a mean to one number": (lambda n: n.mean_pool(output=[1]), "output has 1 numbers"),
    "a mean to fewer than no rows": (lambda n: n.mean_pool(output=[-1, 1]), "output has -1x1"),
    "windows beside the map": (lambda n: n.mean_pool(**clipped(padding=(0, 0, 3, 0))), "its padding"),
    "windows with dilation": (lambda n: n.mean_pool(**clipped(dilation=(1, 2))), "dilation"),
    "a map that squares do not cut": (lambda n: (n.move("unshuffle", 2), n.lay_out(4, 5, 12)), "does not fit a 'unshuffle'"),
    "a map without a window": (lambda n: (n.mean_pool(**clipped()), n.lay_out(4, 2)), "x is too small: 'mean'"),
    "a map without a pixel": (lambda n: (n.mean_pool(), n.lay_out(0, 2)), "have no pixel"),
    "sums beyond 32 bits": (lambda n: (n.mean_pool(), n.lay_out(1 << 14, 1 << 15)), "sum 536870912 pixels: at most 262176"),
    "a map of too many pixels": (lambda n: (n.move("upsample", 2**24, 2**24), n.lay_out(2**10, 2**10)), "elements"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_plan_refuses_what_does_not_fit(name):
    fault, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        fault(Native())
