"""Files of networks with gates that are wrong in meaning, and what they are refused for."""

import torch
from gated.networks import gated
from hostile import Template, set_in


def template(folder) -> Template:
    """A good file, to be changed."""
    return Template(gated(5), folder)


AT = {step.name: i for i, step in enumerate(gated(5).steps)}
CHANNELS, PLACES, DIMMED = AT["channels"], AT["places"], AT["dimmed"]


def tensor(step, name, to):
    """A change of one tensor of a step."""
    return lambda tensors, d: tensors.update({f"steps.{step}.{name}": to})


def without(step, key):
    return lambda tensors, d: d["steps"][step].pop(key)


CASES = {
    "one source": (set_in(CHANNELS, "sources", to=["signed"]), "sources: it reads 1 steps, expected 2"),
    "three sources": (set_in(CHANNELS, "sources", to=["signed"] * 3), "expected 2"),
    "a source of other channels": (set_in(PLACES, "sources", to=["channels", "squeezed"]), "they have 21 and 5 channels"),
    "a source of other pixels": (set_in(DIMMED, "sources", to=["colours", "image"]), "maps of .* meet in it"),
    "a map for one pixel": (set_in(DIMMED, "sources", to=["light", "colours"]), "meet in it"),
    "a source that is not there": (set_in(CHANNELS, "sources", to=["signed", "nobody"]), "no step 'nobody'"),
    "a zero of nobody's": (set_in(CHANNELS, "zeros", to=[16, 15]), "that of 'excited' is 16"),
    "a zero beyond all": (set_in(CHANNELS, "zeros", to=[2**40, 16]), "that of 'signed' is 16"),
    "one zero": (set_in(CHANNELS, "zeros", to=[16]), "expected a list of 2"),
    "zeros of a half": (set_in(CHANNELS, "zeros", to=[16, 0.5]), "each an integer"),
    "no zeros": (without(CHANNELS, "zeros"), "zeros is missing"),
    "no m": (lambda t, d: t.pop(f"steps.{CHANNELS}.m"), "its tensor 'm' is missing"),
    "m for fewer": (tensor(CHANNELS, "m", torch.ones(20)), "m is torch.float32 of shape .20,."),
    "m for all": (tensor(CHANNELS, "m", torch.tensor(1.0)), "m is torch.float32 of shape"),
    "m in float64": (tensor(CHANNELS, "m", torch.ones(21).double()), "m is torch.float64"),
    "m of no number": (tensor(CHANNELS, "m", torch.full((21,), torch.nan)), "m holds what is no finite"),
    "m beyond all": (tensor(PLACES, "m", torch.full((21,), torch.inf)), "m holds what is no finite"),
    "a bias for fewer": (tensor(CHANNELS, "bias", torch.ones(1)), "bias is torch.float32 of shape"),
    "a bias of no number": (tensor(DIMMED, "bias", torch.full((3,), -torch.inf)), "bias holds what is no"),
    "words of 16 steps": (set_in(PLACES, "code", "K", to=16), "code.K is 16"),
    "a code of zero that is no word": (set_in(CHANNELS, "code", "zero", to=32), "code.zero is 32"),
    "values of another range": (set_in(DIMMED, "code", "x_min", to=0), "expected -limit and limit"),
    "values with an offset": (set_in(DIMMED, "code", "zero", to=3), "code.zero is 3"),
    "codes of fitted neurons": (set_in(PLACES, "code", "kind", to="fitted"), "neurons of a gate are not"),
    "no code": (set_in(DIMMED, "code", to=None), "code"),
    "another rounding": (set_in(PLACES, "info", "rounding", to="up"), "info.rounding is 'up'"),
    "a field of the future": (set_in(PLACES, "scale", to=1), "'scale' is unknown"),
}  # fmt: skip
