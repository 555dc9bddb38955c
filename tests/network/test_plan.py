"""The native plan: whatever changes behind its back, it gives no stale and no wrong number."""

import copy
import gc
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.image_sizes import ImageSizes
from fskernel.kernels import ops


def images(n, seed=0):
    return torch.randn(n, 3, 21, 21, generator=torch.Generator().manual_seed(seed))


class Mixed(nn.Module):
    """Ragged channels, halos of several sizes, a concatenation, a residual and a downsampling."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 19, 3, padding=1)
        self.b = nn.Conv2d(19, 13, 1)
        self.c = nn.Conv2d(19, 22, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.d = nn.Conv2d(35, 35, 3, padding=1, groups=5)
        self.dw = nn.Conv2d(35, 35, 3, padding=1, groups=35)
        self.e = nn.Conv2d(35, 18, 3, 2, 1)
        self.f = nn.Conv2d(35, 18, 1, 2)
        self.head = nn.Linear(18, 7)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.cat([torch.relu(self.b(x)), torch.relu(self.c(x))], 1)
        x = self.pool(x)
        x = torch.relu(self.d(x) + x)
        x = torch.relu(self.dw(x))
        x = torch.relu(self.e(x) + self.f(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(3)
    return fs.convert(Mixed().eval(), images(4, seed=5), K=7)


@pytest.fixture
def net(mixed):
    return copy.deepcopy(mixed)


@pytest.mark.parametrize("isa", ops.supported_isas())
@pytest.mark.parametrize("size", [(21, 21), (9, 34), (32, 7)])
def test_equals_the_layers_one_by_one_on_every_isa(net, isa, size):
    x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = net.execute(x, reference.collapsed)
    ops.set_isa(isa)
    try:
        for planes in (0, 1, 4):
            net.plane_bits = planes
            assert torch.equal(net(x), expected)
            assert torch.equal(net.execute(x), expected)
    finally:
        ops.set_isa(None)


def test_counts_are_those_of_the_layers(net):
    x = images(3, seed=2)
    logits, spikes = net.count_spikes(x)
    expected, stats = net.run(x)
    assert torch.equal(logits, expected) and list(spikes) == list(stats.spikes)
    for name, counts in stats.spikes.items():
        assert torch.equal(spikes[name], counts), name


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.steps[1].groups[0].weight.zero_(),
        lambda net: net.steps[1].bias.add_(3.0),
        lambda net: net.steps[1].groups[0].m.mul_(1.5),
        lambda net: net.steps[-1].bias.neg_(),
        lambda net: net.steps[-1].weight.neg_(),
        lambda net: setattr(net.steps[1], "bias", net.steps[1].bias * 2 + 1),
        lambda net: net.steps[1]._buffers.update(bias=net.steps[1].bias * 2 + 1) or net.pack(),
        lambda net: net.load_state_dict(
            {k: v * 2 if k == "steps.1.bias" else v for k, v in net.state_dict().items()}
        ),
    ],
)
def test_a_changed_tensor_changes_the_answer(net, change):
    x = images(2, seed=4)
    before = net(x)
    with torch.no_grad():
        change(net)
    assert not torch.equal(net(x), before)
    assert torch.equal(net(x), net.execute(x, reference.collapsed))


def test_an_exchanged_step_is_noticed(net, mixed):
    other = copy.deepcopy(mixed)
    with torch.no_grad():
        other.steps[1].bias.add_(5.0)
    x = images(2, seed=4)
    before, wanted = net(x), other(x)
    net.steps[1] = other.steps[1]
    assert torch.equal(net(x), wanted) and not torch.equal(wanted, before)


def test_hooks_on_steps_are_called_and_forgotten(net):
    x, seen = images(1), []
    expected = net(x)
    handle = net.steps[1].register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(net(x), expected) and seen == [1]
    handle.remove()
    assert torch.equal(net(x), expected) and seen == [1]


def test_threads_of_python_share_a_network(net):
    sizes = [(21, 21), (17, 30), (40, 12)]
    inputs = [torch.randn(2, 3, *size) for size in sizes]
    expected = [net.execute(x) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(20):
            if not torch.equal(net(inputs[i]), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i % 3,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_plan_that_is_gone_is_refused_by_number(net):
    x = images(1)
    net.steps[1].bias.add_(1.0)
    net(x)
    number = net.plan().id
    net.steps[1].bias.add_(1.0)
    net(x)
    with pytest.raises(ValueError, match=rf"plan is {number}: there is no such plan in this"):
        ops.run_plan(x, number)


def test_equal_networks_share_a_number_and_each_may_go(net):
    x = images(1)
    expected = net(x)
    number = net.plan().id
    other = copy.deepcopy(net)
    assert torch.equal(other(x), expected) and other.plan().id == number
    del other
    gc.collect()
    assert torch.equal(ops.run_plan(x, number, count=False)[0], expected)
    net.pack()
    assert net.plan().id == number, "a graph that was compiled before would lose its network"
    changed = copy.deepcopy(net)
    changed.steps[-1].bias[0] += 1e-3
    changed(x)
    assert changed.plan().id != number


ELSEWHERE = """
import sys, torch, fskernel as fs
path = sys.argv[1]
x = torch.load(f"{path}/x.pt")
other = fs.load(f"{path}/b.safetensors")
other(x)
program = torch.export.load(f"{path}/a.pt2").module()
try:
    program(x)
    print("ran")
except ValueError as error:
    print(error)
net = fs.load(f"{path}/a.safetensors")
assert torch.equal(program(x), net(x)) and not torch.equal(net(x), other(x))
print("ran its own")
"""


def test_an_exported_program_runs_its_own_network_or_says_that_it_cannot(net, tmp_path):
    x = images(2, seed=4)
    net(x)
    net.save(tmp_path / "a.safetensors")
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "a.pt2")
    net.steps[-1].bias.add_(1.0)
    net.save(tmp_path / "b.safetensors")
    torch.save(x, tmp_path / "x.pt")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "load the network that it was exported from" in said[0] and said[1] == "ran its own"


def test_images_that_are_too_small_name_the_layer():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 7), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    net = fs.convert(model.eval(), images(2), K=4)
    with pytest.raises(ValueError, match="5x9 pixels.*for images with h >= 7"):
        net(torch.randn(1, 3, 5, 9))
    net.sizes = ImageSizes()  # as of a file that says nothing of sizes
    with pytest.raises(ValueError, match=r"x is too small: '0' reads a map of 5x9"):
        net(torch.randn(1, 3, 5, 9))


def test_an_empty_batch_and_a_pickle(net):
    assert net(torch.empty(0, 3, 21, 21)).shape == (0, 7)
    x = images(1)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))


def test_memory_is_less_than_the_float_maps(net):
    float_bytes = 4 * 21 * 21 * (19 + 13 + 22)  # what the concatenation alone keeps alive
    assert net.activation_bytes(21, 21) < float_bytes


def test_layer_seconds_and_kernels_name_every_step(net):
    x = images(2)
    seconds, kernels = net.layer_seconds(x, rounds=3), net.plan_kernels()
    assert list(seconds) == list(kernels) == [step.name for step in net.steps]
    assert all(len(s) == 3 and min(s) > 0 for s in seconds.values())
    assert kernels["dw"].startswith("depth_") and "/" in kernels["a"]
    with pytest.raises(ValueError, match="rounds=0"):
        net.layer_seconds(x, rounds=0)


def test_the_peak_is_a_rate_and_its_argument_checked():
    assert ops.peak_macs("s16s16") > 1e6
    with pytest.raises(ValueError, match="operands='u4s4'"):
        ops.peak_macs("u4s4")
