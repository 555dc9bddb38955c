"""Files of networks with fitted neurons that are wrong in meaning, and why they are refused."""

import copy
import math

import torch
from hostile import Template, set_in
from networks import crossed_net

C = 5  # a step of fitted neurons behind others, by number


def template(folder) -> Template:
    """A good file, to be changed."""
    return Template(crossed_net(16), folder)


def lines(step, change):
    """What a step of fitted neurons has in a file, changed in place."""

    def changed(tensors, description):
        name = f"steps.{step}.fitted"
        tensors[name] = change(tensors[name].clone())

    return changed


def put(at, to):
    def change(t):
        t[at] = to
        return t

    return change


def of_words(tensors, description):
    """Codes that claim to be words."""
    for step in description["steps"]:
        if step["code"] and step["code"]["kind"] == "fitted":
            step["code"].update(kind="words", K=step["code"]["x_max"].bit_length(), zero=0)


def all_codes(**fields):
    """A change of the code of c, and of what only passes it on."""

    def change(tensors, description):
        old = copy.deepcopy(description["steps"][C]["code"])
        for step in description["steps"]:
            if step["code"] == old:
                step["code"].update(fields)

    return change


def neither(tensors, description):
    """Neither lines nor that there are some."""
    description["steps"][C].pop("fitted")
    tensors.pop(f"steps.{C}.fitted")


def also(flag, name, tensor):
    """A change that gives c what other neurons have."""

    def change(tensors, description):
        description["steps"][C][flag] = True
        tensors[f"steps.{C}.{name}"] = tensor

    return change


CASES = {
    "no lines": (lambda t, d: t.pop(f"steps.{C}.fitted"), "its tensor 'fitted' is missing"),
    "lines that nobody announced": (lambda t, d: d["steps"][C].pop("fitted"), "fitted"),
    "neither": (neither, "thresholds are missing"),
    "fewer steps": (lines(C, lambda t: t[:, :-1]), r"fitted is .*of shape \(3, 15\): expected"),
    "no dimension": (lines(C, lambda t: t[0, 0]), r"fitted is .*of shape \(\)"),
    "no d": (lines(C, lambda t: t[:2]), r"fitted is .*of shape \(2, 16\)"),
    "another type": (lines(C, lambda t: t.double()), "fitted is torch.float64"),
    "NaN": (lines(C, put((0, 3), math.nan)), "fitted holds NaN or infinite"),
    "an infinite reset": (lines(C, put((1, 3), math.inf)), "fitted holds NaN or infinite"),
    "d that is not whole": (lines(C, put((2, 0), 0.5)), "fitted: spikes are worth"),
    "d that is too large": (lines(C, put((2, 0), 2.0**15 + 1)), "fitted: spikes are worth"),
    "seventeen steps": (all_codes(K=17), "code.K is 17: fitted neurons have 1 to 16"),
    "no steps": (all_codes(K=0), "code.K is 0: fitted"),
    "codes of 16 bits": (all_codes(x_max=2**16 - 1), "code.x_min, x_max are 0, 65535"),
    "codes that end anywhere": (all_codes(x_max=300), "code.x_min, x_max are 0, 300"),
    "codes below zero": (all_codes(x_min=-1), "code.x_min, x_max are -1"),
    "zero that is no code": (all_codes(zero=2**15), "code.zero is 32768: expected a code"),
    "words": (of_words, "fitted: fitted neurons do not give"),
    "another kind": (set_in(C, "code", "kind", to="fit"), "'words', 'fitted' or 'graded'"),
    "fitted neurons of words": (set_in(10, "code", "kind", to="fitted"), "code"),
    "a top": (also("ceilings", "top", torch.ones(6)), "no top and no table"),
    "a table": (also("shaped", "table", torch.ones(1, 2, 32)), "table|no top"),
    "an image of fitted codes": (set_in(0, "code", "kind", to="fitted"), "code"),
    "an rms of a text": (set_in(C, "info", "fit_rms", to="0"), "info.fit_rms is '0'"),
}  # fmt: skip
