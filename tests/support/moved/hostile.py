"""A network file with moves, runs and rounded means, and what may be wrong with them."""

from __future__ import annotations

from pathlib import Path

import torch
from hostile import Template, set_in
from moved.networks import Drawn

import fskernel as fs
from fskernel.codes.geometry import Geometry

IMAGES = (2, 3, 6, 8)
# Steps by number.
PART, STEM, HALF, OTHER, BOTH, LARGE, APART, GRID, CUT, READ, ONE, SPREAD, LAST = range(1, 14)


def template(folder: Path) -> Template:
    """A good file; the image is read by what picks channels of it alone."""
    g = Drawn()
    part = g.concat("part", ["input"], [(0, 1, 2)])
    x = g.conv("stem", part, 8, (3, 3), padding=(1, 1, 1, 1))
    half = g.concat("half", [x], [(0, 2, 4)])
    other = g.conv("other", half, 4)
    both = g.concat("both", [other, half], [(1, 3, 1), (0, 0, 3)])
    y = g.move("large", both, "upsample", 2, 1)
    y = g.move("apart", y, "shuffle", 2)
    y = g.mean_pool("grid", y, "adaptive", (5, None))
    y = g.mean_pool("cut", y, "clipped", geometry=Geometry((2, 3), (1, 2), (0, 0, 1, 1)))
    y = g.conv("read", y, 5)
    one = g.mean_pool("one", y, "adaptive", (1, 1))
    graph = g.read_out(g.conv("last", g.expand("spread", one, half), 3))
    net = fs.convert(graph, torch.randn(IMAGES, generator=g.dice), 6)
    return Template(net, folder)


def without(step, key):
    """A change that takes one field of a step away."""
    return lambda tensors, d: d["steps"][step].pop(key)


def both_of(*changes):
    """Several changes, one after the other."""

    def change(tensors, d):
        for one in changes:
            one(tensors, d)

    return change


def no_size(tensors, d):
    """Images of any size."""
    d["input_size"] = d["fixed_size"] = None


def unshuffled_image(tensors, d):
    """The first reader of all channels reads 3, which are 4 times those of the image."""
    d["steps"][PART].update(op="move", move={"kind": "unshuffle", "numbers": [2]})
    del d["steps"][PART]["runs"]
    no_size(tensors, d)


CASES = {
    "a run of no source": (set_in(BOTH, "runs", to=[[2, 0, 4]]), "runs: there is no source 2, it reads 2"),
    "a run of a source below 0": (set_in(BOTH, "runs", to=[[-1, 0, 4]]), "runs: there is no source -1"),
    "a run beyond its source": (set_in(HALF, "runs", to=[[0, 5, 4]]), "4 channels from 5 on are none of 'stem', which has 8"),
    "a run from below 0": (set_in(HALF, "runs", to=[[0, -1, 4]]), "4 channels from -1 on"),
    "a run of no channel": (set_in(HALF, "runs", to=[[0, 4, 0], [0, 0, 4]]), "0 channels from 4 on"),
    "a run of too many channels": (set_in(HALF, "runs", to=[[0, 4, 2**62]]), "channels from 4 on"),
    "a run beyond all images": (set_in(PART, "runs", to=[[0, 2**24, 2]]), "which has at most 16777216"),
    "a run beyond the calibration's images": (set_in(PART, "runs", to=[[0, 3, 2]]), "'input' would have 3 channels, .* from 5 on"),
    "a source without a run": (set_in(BOTH, "runs", to=[[0, 0, 4]]), "runs: none is of source 1, 'half'"),
    "runs of too many channels": (set_in(BOTH, "runs", to=[[1, 0, 4], [0, 0, 4]]), "groups.0.weight reads 1 channels, 'cut' has 2"),
    "an empty list of runs": (set_in(HALF, "runs", to=[]), "runs is empty"),
    "runs that are numbers": (set_in(HALF, "runs", to=[0, 2, 4]), "runs holds 0: expected"),
    "a run of two numbers": (set_in(HALF, "runs", to=[[0, 2]]), "runs holds .0, 2.: expected"),
    "a run of floats": (set_in(HALF, "runs", to=[[0, 2, 4.0]]), "runs holds"),
    "runs that are none": (set_in(HALF, "runs", to=7), "runs is 7: expected a list"),
    "a part of another code": (set_in(HALF, "code", "K", to=7), "code: 'stem' has Code"),
    "channels of the image without runs": (without(PART, "runs"), "'input' is the image"),
    "a move of no kind": (set_in(LARGE, "move", "kind", to="roll"), "move.kind is 'roll'"),
    "a move without its numbers": (set_in(LARGE, "move", "numbers", to=[2]), "move.numbers is .2,.: expected 2"),
    "a move by 0": (set_in(LARGE, "move", "numbers", to=[0, 1]), "from 1 to"),
    "a move by text": (set_in(LARGE, "move", "numbers", to=["2", 1]), "numbers is"),
    "a move with more fields": (set_in(LARGE, "move", "zero", to=3), "zero.* is unknown"),
    "no move": (set_in(LARGE, "move", to=None), "move is None: expected an object"),
    "a move that is missing": (without(LARGE, "move"), "move is missing"),
    "another code behind a move": (set_in(LARGE, "code", "step", to=0.5), "code: a move gives what it reads"),
    "a shuffle of channels that do not divide": (set_in(APART, "move", "numbers", to=[3]), "'large' has 4 channels, which 9 does not divide"),
    "one pixel for nothing": (set_in(SPREAD, "sources", to=["one"]), "reads 1 steps, expected 2"),
    "a move of two": (set_in(LARGE, "sources", to=["both", "half"]), "reads 2 steps, expected 1"),
    "a move to the size of what comes later": (set_in(SPREAD, "sources", to=["one", "head"]), "there is no step 'head' before"),
    "more than a pixel for all": (set_in(SPREAD, "sources", to=["half", "half"]), "code: a move gives|spread over another"),
    "a map that squares do not cut": (both_of(set_in(LARGE, "move", to={"kind": "unshuffle", "numbers": [4]}), set_in(APART, "move", "numbers", to=[8])), "cannot be cut into squares of 4x4"),
    "an image of a quarter of a channel": (unshuffled_image, "'part' would have 2 channels, and so 'input' 1/2"),
    "windows of no kind": (set_in(GRID, "windows", "kind", to="all"), "windows.kind is 'all'"),
    "windows of no pixel": (set_in(GRID, "windows", "output", to=[0, None]), "windows.output is"),
    "windows of three sizes": (set_in(GRID, "windows", "output", to=[1, 1, 1]), "windows.output is"),
    "windows of half a row": (set_in(GRID, "windows", "output", to=[0.5, 1]), "windows.output is"),
    "windows with dilation": (set_in(CUT, "windows", "geometry", "dilation", to=[2, 1]), "no dilation"),
    "windows beside the map": (set_in(CUT, "windows", "geometry", "padding", to=[0, 0, 3, 3]), "beside the map"),
    "windows with a kernel of 0": (set_in(CUT, "windows", "geometry", "kernel", to=[0, 3]), "geometry.kernel is"),
    "windows with a mode that is none": (set_in(CUT, "windows", "ceil_mode", to=1), "ceil_mode is 1: expected true"),
    "windows that are none": (set_in(CUT, "windows", to=[]), "windows is .*: expected an object"),
    "more of windows": (set_in(CUT, "windows", "divisor", to=9), "divisor.* is unknown"),
    "a mean of no map": (set_in(GRID, "sources", to=[]), "reads 0 steps, expected 1"),
    "a mean of another code": (set_in(CUT, "reads", "step", to=0.5), "reads is .*: 'grid' gives"),
    "a mean of another zero": (set_in(CUT, "reads", "zero", to=1), "reads is .*: 'grid' gives"),
    "a mean of something": (without(CUT, "reads"), "reads is missing"),
    "words that are means": (set_in(GRID, "code", to={"kind": "words", "step": 1.0, "x_min": 0, "x_max": 63, "K": 6, "zero": 0}), "expected 'graded'"),
    "means without a step": (set_in(ONE, "code", "step", to=0.0), "code.step is 0.0: expected a positive"),
    "means beyond all numbers": (set_in(ONE, "code", "step", to=1e-300), "float32 does not hold their ratio"),
    "means of a map of no size": (set_in(CUT, "windows", "geometry", "kernel", to=[9, 3]), "use a larger image"),
    "sums beyond 32 bits": (lambda t, d: d.update(input_size=[1, 3, 6, 2**24]), "fit 32 bits"),
}  # fmt: skip
