"""Risk: what a file says is done behind the layers runs something else, or fails unexplained."""

import pytest
import torch
import torch.nn.functional as F
from hostile import Template
from torch import nn

import fskernel as fs
from fskernel.tail import ALLOWED, Tail, operation


class Masks(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1)
        self.register_buffer("shift", torch.tensor([[[0.5]], [[-2.0]]]))

    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        return {"masks": [torch.sigmoid(y).flatten(2)], "shifted": (y * y + self.shift, 3)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    x = torch.randn(3, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    net = fs.convert(Masks().eval(), x)
    path = tmp_path_factory.mktemp("tails") / "net.safetensors"
    net.save(path)
    return net, x, path


def test_a_tail_is_saved_and_loaded(saved):
    net, x, path = saved
    expected, got = net(x), fs.load(path)(x)
    assert got.keys() == {"masks", "shifted"} and got["shifted"][1] == 3
    assert torch.equal(got["masks"][0], expected["masks"][0])
    assert torch.equal(got["shifted"][0], expected["shifted"][0])
    assert net(x[:1])["masks"][0].shape == (1, 2, 35)


CHANGES = {
    "another operation": (lambda t: t["calls"][0].__setitem__(0, "from_file.default"), "from_file"),
    "an overload that is none": (lambda t: t["calls"][0].__setitem__(0, "mul.__name__"), "mul.__"),
    "an operation in place": (lambda t: t["calls"][0].__setitem__(0, "relu_.default"), "relu_"),
    "a call of the future": (lambda t: t["calls"][0][1].append({"call": 0}), "refers to call 0"),
    "a head too many": (lambda t: t.update(result={"head": 7}), "refers to head 7"),
    "a constant too many": (lambda t: t.update(constants=9), "its tensor 'constant1' is missing"),
    "no list of calls": (lambda t: t.update(calls={}), "calls is"),
    "a call without arguments": (lambda t: t["calls"].append(["add.Tensor"]), "calls holds"),
    "shapes that are none": (lambda t: t.update(shapes=[["a"]]), "shapes holds"),
    "another number of heads": (lambda t: t["shapes"].append(None), "the steps give 1"),
    "nested": (lambda t: t.update(result=nested(60)), "nested too deep"),
    "an unknown field": (lambda t: t.update(code="print()"), "code. is unknown"),
}


def nested(depth):
    value = {"head": 0}
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", CHANGES)
def test_a_tail_that_is_wrong_is_refused(saved, tmp_path, name):
    change, message = CHANGES[name]
    path = Template(saved[0], tmp_path).changed(lambda tensors, d: change(d["tail"]))
    with pytest.raises(ValueError, match=message) as caught:
        fs.load(path)
    assert str(path) in str(caught.value)


def test_what_is_allowed_computes_and_writes_nowhere():
    for name in ALLOWED:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            try:
                found = operation(f"{name}.{overload}")
            except ValueError:
                continue
            assert not found._schema.is_mutable
            assert torch.Tag.nondeterministic_seeded not in found.tags


def test_a_call_that_fails_is_named():
    tail = Tail([None], [("reshape.default", [{"head": 0}, [7, 7]], {})], [], {"call": 0}, [])
    with pytest.raises(ValueError, match="fails at reshape"):
        tail([torch.zeros(2, 3)])
