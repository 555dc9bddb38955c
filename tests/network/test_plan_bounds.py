"""Risk: what a plan or an operator is handed makes a kernel touch memory that is not its own."""

import copy
import math
import threading

import numpy as np
import pytest
import torch
from hostile import CAT, DW, AllKinds, Template, images, insert
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses
from fskernel.network.watched import Watched

LIMIT = 32767


class Native:
    """A native plan under construction: 3 channels of an image, then a layer of 4, K = 6."""

    def __init__(self):
        self.plan = ops.compiled().Plan()
        self.plan.encode("image", 3, 2.0, 8191)
        self.add()

    def add(self, channels=4, source=0, x_min=-8191, x_max=8191, K=6, **changed):
        """A 1x1 layer; `changed` are arguments of the adder that are not what they should be."""
        read = {0: 3}.get(source, channels)
        weight = torch.ones(channels, read, 1, 1, dtype=torch.int8)
        ints = changed.pop("ints", Geometry((1, 1)).as_ints())
        packed = ops.pack(weight, Geometry((1, 1)).as_ints(), x_min, x_max).numpy()
        m = np.ones(changed.pop("m", channels), dtype=np.float32)
        arguments = {
            "name": "layer",
            "inputs": [source],
            "groups": [(changed.pop("packed", packed), m, ints)],
            "bias": np.zeros(channels, dtype=np.float32),
            "r": None,
            "K": K,
            "limit": LIMIT,
        }
        return self.plan.conv(**(arguments | changed))

    def readout(self, features=4, **changed):
        arguments = {
            "name": "head",
            "input": 1,
            "weight": np.zeros(2 * features, dtype=np.uint8),
            "weight_bytes": 1,
            "scale": np.ones(2),
            "bias": np.zeros(2, dtype=np.float32),
            "pool": True,
        }
        return self.plan.readout(**(arguments | changed))


def words(**changed):
    return {"source": 1, "x_min": 0, "x_max": 63} | changed


FAULTS = {
    "a node before the encoder": (lambda n: ops.compiled().Plan().concat("x", []), "one encoder"),
    "a second encoder": (lambda n: n.plan.encode("x", 3, 1.0, 5), "one encoder"),
    "an encoder without a step": (lambda n: ops.compiled().Plan().encode("x", 3, math.inf, 5), "1/step"),
    "an encoder of no step": (lambda n: ops.compiled().Plan().encode("x", 3, math.nan, 5), "1/step"),
    "an encoder's limit": (lambda n: ops.compiled().Plan().encode("x", 3, 1.0, 32768), "limit"),
    "no channels": (lambda n: ops.compiled().Plan().encode("x", 0, 1.0, 5), "has 0 channels"),
    "channels beyond": (lambda n: ops.compiled().Plan().encode("x", 2**40, 1.0, 5), "channels"),
    "an input of the future": (lambda n: n.add(**words(inputs=[2])), "reads node 2"),
    "an input below 0": (lambda n: n.add(**words(inputs=[-1])), "reads node -1"),
    "no input": (lambda n: n.add(inputs=[]), "reads nothing"),
    "no group": (lambda n: n.add(groups=[]), "0 synapse groups"),
    "three inputs": (lambda n: n.add(**words(inputs=[1, 1, 1])), "reads 3 nodes"),
    "a residual that is not there": (lambda n: n.add(**words(r=1.0)), "and a residual"),
    "a residual of 3 channels": (lambda n: n.add(**words(inputs=[1, 0], r=1.0)), "residual 'image' has 3"),
    "m too short": (lambda n: n.add(**words(m=3)), "m has 3 numbers, but the bias 4"),
    "m too long": (lambda n: n.add(**words(m=5)), "m has 5 numbers"),
    "a bias too short": (lambda n: n.add(bias=np.zeros(3, dtype=np.float32)), "m has 4 numbers, but the bias 3"),
    "packed weights cut": (lambda n: n.add(packed=np.zeros(64, dtype=np.uint8)), "no packed weights"),
    "no packed weights": (lambda n: n.add(packed=np.zeros(0, dtype=np.uint8)), "no packed weights"),
    "another geometry": (lambda n: n.add(ints=Geometry((1, 1), (2, 2)).as_ints()), "another geometry"),
    "a geometry of 11": (lambda n: n.add(ints=[1] * 11), "geometry has 11 numbers"),
    "another source": (lambda n: n.add(inputs=[1]), "packed for 3 input"),
    "a range beyond what was packed": (lambda n: n.add(**words(x_max=62)), r"codes in \[0, 62\]"),
    "a range below what was packed": (lambda n: n.add(x_min=-8190), r"codes in \[-8190, 8191\]"),
    "K of 16": (lambda n: n.add(K=16), "K is 16"),
    "K below 0": (lambda n: n.add(K=-1), "K is -1"),
    "a limit of 0": (lambda n: n.add(K=0, limit=0), "limit"),
    "an input of a pool": (lambda n: n.plan.pool("x", 2, Geometry((2, 2)).as_ints(), True), "reads node 2"),
    "padding as large as a window": (lambda n: n.plan.pool("x", 1, Geometry((2, 1), padding=(0, 2, 0, 0)).as_ints(), True), "its padding"),
    "padding beside a window": (lambda n: n.plan.pool("x", 1, Geometry((1, 3), padding=(0, 0, 3, 0)).as_ints(), False), "its padding"),
    "padding of dilated windows": (lambda n: n.plan.pool("x", 1, Geometry((2, 2), padding=(0, 0, 1, 0), dilation=(3, 3)).as_ints(), True), "with dilation"),
    "a sum beyond 16 bits": (lambda n: n.plan.pool("x", 1, Geometry((23, 23)).as_ints(), False), "sum of 529 codes"),
    "a concatenation of none": (lambda n: n.plan.concat("x", []), "reads nothing"),
    "a concatenation of the future": (lambda n: n.plan.concat("x", [1, 7]), "reads node 7"),
    "scales too short": (lambda n: n.readout(scale=np.ones(1)), "1 scales and 2 biases"),
    "no logits": (lambda n: n.readout(scale=np.ones(0), bias=np.zeros(0, dtype=np.float32)), "0 scales"),
    "no features": (lambda n: n.readout(features=0), "weights have 0 bytes"),
    "ragged weights": (lambda n: n.readout(weight=np.zeros(7, dtype=np.uint8)), "weights have 7 bytes"),
    "weights of 4 bytes": (lambda n: n.readout(weight_bytes=4), "of 4 for one"),
    "other features": (lambda n: n.readout(features=5), "reads 5 features, but 'layer' has 4"),
    "features of no map": (lambda n: n.readout(features=6, pool=False), "reads 6 features"),
    "a readout of the future": (lambda n: n.readout(input=2), "reads node 2"),
    "a node behind the readout": (lambda n: n.readout() and n.add(), "after the readout"),
    "a plan without a readout": (lambda n: n.plan.register(1), "has no readout"),
    "an arena without a readout": (lambda n: n.plan.arena_bytes(5, 5), "has no readout"),
    "a node of a registered plan": (lambda n: (n.readout(), n.plan.register(77), n.add()), "registered"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_plan_refuses_what_does_not_fit(name):
    fault, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        fault(Native())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_a_plan_does_not_convert_arrays(dtype):
    for what in ({"bias": np.zeros(4, dtype=dtype)}, {"packed": np.zeros(256, dtype=dtype)}):
        with pytest.raises(TypeError, match="incompatible"):
            Native().add(**what)
    if dtype != np.float64:
        with pytest.raises(TypeError, match="incompatible"):
            Native().readout(scale=np.ones(2, dtype=dtype))


def test_10_000_nodes_are_enough():
    native = Native()
    for i in range(2, 10_000):
        native.plan.concat(str(i), [i - 1])
    with pytest.raises(ValueError, match="at most 10000 nodes"):
        native.plan.concat("more", [5])


def test_concatenations_in_concatenations_need_no_stack(tmp_path):
    """2,000 of them, each in the memory of the next; then it runs like the oracle."""
    torch.manual_seed(0)
    template = Template(fs.convert(AllKinds().eval(), images(), K=6), tmp_path)

    def chain(tensors, d):
        names = ["cat", *(f"more{i}" for i in range(2000))]
        one = d["steps"][CAT]
        pairs = zip(names, names[1:], strict=False)
        insert(CAT + 1, *(one | {"name": b, "sources": [a]} for a, b in pairs))(tensors, d)
        d["steps"][DW + 2000]["sources"] = [names[-1]]

    net = fs.load(template.changed(chain))
    assert torch.equal(net(images()), net.execute(images(), reference.collapsed))


@pytest.mark.parametrize(
    "channels,geometry",
    [
        (8192, Geometry((1, 1), (2**24, 2**24), (2**24, 2**24 - 1, 2**24, 2**24 - 1))),
        (4096, Geometry((1, 1), (2**24, 2**24), (2**24, 2**24 - 1, 2**24, 2**24 - 1))),
        (1, Geometry((1, 1), (2**24, 1), (2**24, 0, 2**24, 0))),
        (3, Geometry((2, 2), (1, 1), (2**15, 2**15, 2**15, 2**15))),
    ],
)
def test_padding_that_makes_sizes_wrap_is_refused(channels, geometry):
    weight = torch.ones(1, channels, *geometry.kernel, dtype=torch.int16)
    s = Synapses(weight, torch.ones(1), geometry, x_min=0, x_max=255)
    x = torch.ones(1, 1, 1, channels, dtype=torch.int16)
    with pytest.raises(ValueError, match="2.31 - 1 elements"):
        ops.conv([(x, s)], torch.zeros(1), K=8)


def test_a_network_refuses_maps_beyond_2_31_elements():
    module = nn.Sequential(
        nn.Conv2d(3, 64, 1, padding=2), nn.ReLU(), nn.Conv2d(64, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    net = fs.convert(module.eval(), images(), K=4)
    for size in ((2**24, 5), (2**20, 2**20), (2**31, 2**31), (2**62, 2**62)):
        with pytest.raises(ValueError, match="2.31 - 1 elements"):
            net.activation_bytes(*size)
    assert net.activation_bytes(18, 14) > 0


def test_images_without_a_pixel_are_refused(mixed):
    """Their padded windows hold nothing: a max-pool would give what no code is."""
    for height, width in ((0, 14), (18, 0), (0, 0)):
        x = torch.zeros(2, 3, height, width)
        for run in (mixed, mixed.execute, mixed.count_spikes):
            with pytest.raises(ValueError, match="too small: .*no pixel"):
                run(x)
        with pytest.raises(ValueError, match="no pixel"):
            mixed.activation_bytes(height, width)


def test_every_byte_of_a_packed_header_is_guarded():
    torch.manual_seed(2)
    dense = Geometry((3, 3), padding=(1, 1, 1, 1))
    depth = Geometry((3, 3), padding=(1, 1, 1, 1), groups=4)
    for isa in ops.supported_isas():
        ops.set_isa(isa)
        try:
            for geometry, per in ((dense, 4), (depth, 1)):
                weight = torch.randint(-9, 9, (4, per, 3, 3), dtype=torch.int8)
                s = Synapses(weight, torch.ones(4), geometry, x_min=0, x_max=63)
                x = torch.randint(0, 64, (1, 5, 6, 4), dtype=torch.uint8)
                expected = ops.conv([(x, s)], torch.zeros(4), K=8)[0]
                good = s.packed().clone()
                for at in range(128):
                    for bit in (0, 3, 7):
                        s.packed()[at] ^= 1 << bit
                        with pytest.raises(ValueError, match="packed"):
                            ops.conv([(x, s)], torch.zeros(4), K=8)
                        s.packed().copy_(good)
                assert torch.equal(ops.conv([(x, s)], torch.zeros(4), K=8)[0], expected)
        finally:
            ops.set_isa(None)


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    return fs.convert(AllKinds().eval(), images(), K=6)


def test_weights_written_in_place_are_proven_anew(mixed):
    net = copy.deepcopy(mixed)
    group = net.steps[1].groups[0]
    group.weight = torch.full((8, 3, 3, 3), 32767, dtype=torch.int16)
    group.weight[0, 0, 0, 0] = 5
    with pytest.raises(ValueError, match="beyond 2.31"):
        net(images())


def test_another_instruction_set_during_packing_is_no_trap(mixed, monkeypatch):
    names = ops.supported_isas()
    if len(names) < 2:
        pytest.skip("one instruction set")
    net, x = copy.deepcopy(mixed), images()
    expected = net(x)
    pack, turn = ops.pack, []

    def slow_pack(*args):
        packed = pack(*args)
        turn.append(1)
        if len(turn) % 3 == 1:
            ops.set_isa(names[len(turn) % len(names)])
        return packed

    monkeypatch.setattr(ops, "pack", slow_pack)
    try:
        for _ in range(6):
            with torch.no_grad():
                for step in net.steps[1:-1]:
                    for group in getattr(step, "groups", []):
                        group.weight.add_(0)
            try:
                assert torch.equal(net(x), expected)
            except ValueError as error:
                assert "pack the weights again" in str(error)
        monkeypatch.setattr(ops, "pack", pack)
        for name in names:
            ops.set_isa(name)
            assert torch.equal(net(x), expected), "a refusal must not last"
    finally:
        ops.set_isa(None)


@pytest.mark.parametrize("change", ["half", "double", "bfloat16", "float", "to"])
def test_types_that_change_during_calls_change_no_answer(mixed, change):
    net, x = copy.deepcopy(mixed), images()
    expected, stop, wrong = net(x), threading.Event(), []

    def call():
        while not stop.is_set():
            for run in (net, net.execute):
                if not torch.equal(run(x), expected):
                    wrong.append(run)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for _ in range(40):
        getattr(net, change)(*((torch.float16,) if change == "to" else ()))
        with torch.no_grad():
            net.steps[1].bias.add_(0)  # a new plan is made of what stands there now
    stop.set()
    for caller in callers:
        caller.join()
    assert not wrong
    assert net.steps[1].bias.dtype == torch.float32 and net.steps[-1].scale.dtype == torch.float64


def test_no_tensor_of_another_type_is_ever_seen(mixed, monkeypatch):
    net, seen = copy.deepcopy(mixed), []
    types = [t.dtype for t in net.buffers()]
    before = Watched._apply

    def look(self, fn, recurse=True):
        return before(
            self, lambda t: seen.append([b.dtype for b in net.buffers()]) or fn(t), recurse
        )

    monkeypatch.setattr(Watched, "_apply", look)
    net.half()
    assert len(seen) > 10 and all(s == types for s in seen)


def test_layouts_of_image_sizes_are_bounded(mixed):
    net = copy.deepcopy(mixed)
    expected = net(images())
    for i in range(80):
        net(torch.zeros(1, 3, 12 + i, 13))
    assert torch.equal(net(images()), expected)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1])
    for i in range(3000):
        net.activation_bytes(12 + i % 1500, 12 + i % 7)
    with open("/proc/self/statm") as file:
        assert (int(file.read().split()[1]) - before) * 4096 < 8e6, "some 100 bytes a step and size"


def test_a_default_device_or_type_moves_no_network(mixed, tmp_path):
    mixed.save(tmp_path / "net")
    expected = mixed(images())
    x = images()
    with torch.device("meta"):
        loaded = fs.load(tmp_path / "net")
        logits = loaded(x)
    assert torch.equal(logits, expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(fs.load(tmp_path / "net")(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)
