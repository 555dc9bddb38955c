"""Risk: what a file says of a gate makes a kernel touch memory not its own, or give nonsense."""

import pytest
import torch
from gated import hostile as hostile_gates
from gated.networks import images

import fskernel as fs
from fskernel import reference
from fskernel.kernels import ops


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return hostile_gates.template(tmp_path_factory.mktemp("gates"))


def test_the_good_file_runs(template):
    net = fs.load(template.changed(lambda tensors, d: None))
    assert torch.equal(net(images()), net.execute(images(), reference.literal))


@pytest.mark.parametrize("name", hostile_gates.CASES)
def test_a_file_that_is_wrong_is_refused_by_file_step_and_field(template, name):
    change, message = hostile_gates.CASES[name]
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
