"""Risk: what a file says of a gate makes a kernel touch memory not its own, or give nonsense."""

import pytest
import torch
from gated.networks import gated, images
from hostile import Template, set_in

import fskernel as fs
from fskernel import reference
from fskernel.kernels import ops


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return Template(gated(5), tmp_path_factory.mktemp("gates"))


AT = {step.name: i for i, step in enumerate(gated(5).steps)}
CHANNELS, PLACES, DIMMED = AT["channels"], AT["places"], AT["dimmed"]


def tensor(step, name, to):
    """A change of one tensor of a step."""
    return lambda tensors, d: tensors.update({f"steps.{step}.{name}": to})


def without(step, key):
    return lambda tensors, d: d["steps"][step].pop(key)


HOSTILE = {
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
    "no code": (set_in(DIMMED, "code", to=None), "code"),
    "another rounding": (set_in(PLACES, "info", "rounding", to="up"), "info.rounding is 'up'"),
    "a field of the future": (set_in(PLACES, "scale", to=1), "'scale' is unknown"),
}  # fmt: skip


def test_the_good_file_runs(template):
    net = fs.load(template.changed(lambda tensors, d: None))
    assert torch.equal(net(images()), net.execute(images(), reference.literal))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_wrong_is_refused_by_file_step_and_field(template, name):
    change, message = HOSTILE[name]
    path = template.changed(change)
    with pytest.raises(ValueError, match=message) as caught:
        fs.load(path)
    assert type(caught.value) is ValueError and str(path) in str(caught.value)


class Native:
    """A native plan under construction: 3 channels of values up to 32767."""

    def __init__(self):
        self.plan = ops.compiled().Plan()
        self.plan.encode("image", 3, 2.0, 32767)

    def gate(self, **changed):
        three = torch.ones(3).numpy()
        arguments = {"name": "gate", "a": 0, "b": 0, "zero_a": 0, "zero_b": 0}
        arguments |= {"m": three, "bias": three, "K": 4, "limit": 127}
        return self.plan.gate(**(arguments | changed))


FAULTS = {
    "of the future": (lambda n: n.gate(b=1), "reads node 1"),
    "of other channels": (lambda n: n.gate(b=n.plan.concat("two", [0], [(0, 0, 2)])), "'two' of 2: expected as many"),
    "a zero of nobody's": (lambda n: n.gate(zero_b=-32768), "code of zero is -32768"),
    "products beyond 32 bits": (lambda n: n.gate(zero_a=32767, zero_b=32767), "may not fit 32 bits"),
    "m for fewer": (lambda n: n.gate(m=torch.ones(2).numpy()), "m has 2 numbers"),
    "a bias for more": (lambda n: n.gate(bias=torch.ones(4).numpy()), "the bias 4"),
    "m of no number": (lambda n: n.gate(m=torch.tensor([1, torch.nan, 1]).numpy()), "of channel 1 are nan"),
    "16 steps": (lambda n: n.gate(K=16), "K is 16"),
    "no limit": (lambda n: n.gate(K=0, limit=0), "limit"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_plan_refuses_what_does_not_fit(name):
    fault, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        fault(Native())
