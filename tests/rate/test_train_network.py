"""The rate-coded network in chunks of eight steps: the spikes of the step-by-step network."""

import pytest
import torch
from rate_networks import NETWORKS, fused, names, network
from torch import nn

from fskernel import reference
from fskernel.kernels import ops
from fskernel.rate.fused import FusedRateNetwork
from fskernel.rate.trains import KernelRateNetwork
from fskernel.tracing.trace import trace


@pytest.fixture(autouse=True)
def _default_isa():
    yield
    ops.set_isa("")


def chunked(name, **options):
    graph, x = network(name)
    return KernelRateNetwork(graph, x, 99, **options)


@pytest.mark.parametrize("isa", ops.supported_isas())
@pytest.mark.parametrize("bits", [8, 16])
@names
def test_chunks_have_the_spikes_of_single_steps(name, bits, isa):
    x = network(name)[1][:2]
    wanted = fused(name, weight_bits=bits, backend=reference.collapsed).run(
        x, 11, report_every=1, burn_in=2
    )
    ops.set_isa(isa)
    for path in ("auto", "dense", "events"):
        net = chunked(name, weight_bits=bits, path=path)
        run = net.run(x, 11, report_every=1, burn_in=2)
        assert torch.equal(run.spikes_per_step, wanted.spikes_per_step)
        assert torch.equal(run.logits, wanted.logits)
        assert len(run.seconds_per_step) == 11 and min(run.seconds_per_step) > 0
        for layer, kernel in net.kernels.items():
            if layer in net.fused and not kernel.endswith("current") and path != "auto":
                assert ("events" in kernel) == (net.path_of(layer) == "events"), (layer, kernel)
    assert run.spikes_per_step[-1].min() > 0


def test_balanced_thresholds_and_reports_inside_a_chunk():
    graph, x = network("max-pool")
    options = {"normalise": "balanced", "balanced_for": 8}
    wanted = fused("max-pool", backend=reference.collapsed, **options)
    net = KernelRateNetwork(graph, x, 99, **options)
    for every, burn_in, T in ((3, 1, 10), (5, 8, 21), (None, 16, 17)):
        runs = [n.run(x, T, report_every=every, burn_in=burn_in) for n in (wanted, net)]
        assert runs[0].reported_at == runs[1].reported_at
        assert torch.equal(runs[0].logits, runs[1].logits)


class Pooled(nn.Module):
    """A readout of sums over more pixels than a byte counts."""

    def __init__(self, channels):
        super().__init__()
        self.a, self.head = nn.Conv2d(3, channels, 3, padding=1), nn.Linear(channels, 5)

    def forward(self, x):
        return self.head(self.a(x).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "size, channels, by_conv", [(20, 20, True), (181, 4, True), (182, 4, False)]
)
def test_readouts_of_all_steps_are_those_of_single_steps(size, channels, by_conv):
    """Where the sums no longer fit 16 bits, at 182x182 pixels, the steps are read one by one."""
    torch.manual_seed(0)
    x = torch.rand(1, 3, size, size)
    graph = trace(Pooled(channels).eval(), input_size=x.shape)
    wanted = FusedRateNetwork(graph, x, device="cpu", backend=reference.collapsed)
    net = KernelRateNetwork(graph, x)
    runs = [n.run(x, 9, report_every=1) for n in (wanted, net)]
    assert torch.equal(runs[0].logits, runs[1].logits)
    assert ("conv" in net.kernels["head"]) == by_conv, net.kernels


class WidePool(nn.Module):
    """A max-pool over more inputs than the kernel compares, and a layer that reads it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
        self.pool, self.head = nn.MaxPool2d(23), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.b(self.pool(self.a(x).relu())).relu().mean((2, 3)))


def test_a_max_pool_beyond_the_kernel_goes_step_by_step():
    torch.manual_seed(1)
    x = torch.rand(2, 3, 23, 23)
    graph = trace(WidePool().eval(), input_size=x.shape)
    wanted = FusedRateNetwork(graph, x, device="cpu", backend=reference.collapsed).run(x, 11)
    net = KernelRateNetwork(graph, x)
    run = net.run(x, 11)
    assert torch.equal(run.spikes_per_step, wanted.spikes_per_step)
    assert torch.equal(run.logits, wanted.logits) and "/rate/" in net.kernels["b"]


def test_more_steps_than_a_max_pool_compares_are_refused_before_any_work():
    told = []
    with pytest.raises(ValueError, match="T=1048577: max-pools compare at most 1048576 spikes"):
        chunked("max-pool").run(network("max-pool")[1], 2**20 + 1, on_step=told.append)
    assert told == []


def test_it_stays_on_the_cpu():
    with pytest.raises(ValueError, match="device=cuda: these kernels are the CPU's"):
        chunked("residuals").to("cuda")
    assert chunked("residuals").to("cpu").device.type == "cpu"


def test_every_step_is_told_once_and_in_order():
    net, told = chunked("residuals"), []
    net.run(network("residuals")[1], 19, on_step=told.append)
    assert told == list(range(1, 20))


def test_a_layer_can_have_a_path_of_its_own():
    net = chunked("residuals", path={"a": "dense", "c": "events"})
    net.run(network("residuals")[1], 8)
    assert "events" not in net.kernels["a"] and "events" in net.kernels["c"]
    assert f"{sum('events' in k for k in net.kernels.values())}x" in str(net)


@pytest.mark.parametrize(
    "path, message",
    [
        ("both", "path is 'both': expected one of auto, dense, events"),
        ({"a": "x"}, r"path\['a'\] is 'x': expected one of"),
        ({"stem": "dense"}, "path names 'stem': expected layers of neurons that get spikes"),
    ],
)
def test_a_path_that_does_not_exist_is_named(path, message):
    with pytest.raises(ValueError, match=message):
        chunked("residuals", path=path)


def test_convolutions_in_groups_have_no_events():
    with pytest.raises(ValueError, match="a convolution in groups has the path 'dense' alone"):
        chunked("ragged", path={"d": "events"})


def test_what_only_plain_torch_has_is_refused():
    for option in ({"reset": "zero"}, {"input": "poisson"}):
        with pytest.raises(ValueError, match="have .* alone; use that, or"):
            chunked("residuals", **option)
    assert set(NETWORKS) >= {"residuals", "ragged"}
