"""The rate-coded baseline on the kernels of a GPU: the oracle's spikes, and the record."""

import pytest
import torch
from cuda_backends import GPU_FAULT, emulator, needs_gpu
from harness import QUICK, composed
from rate_networks import NETWORKS, fused, names, network
from torch._subclasses.fake_tensor import FakeTensorMode

import fskernel as fs
from fskernel import reference
from fskernel.kernels import device
from fskernel.rate.fused import FusedRateNetwork
from fskernel.rate.network import RateNetwork, depth


@pytest.mark.parametrize("bits", [8, 16])
@names
def test_every_step_has_the_spikes_of_the_oracle(name, bits):
    x = network(name)[1][:2]
    wanted = fused(name, weight_bits=bits, backend=reference.collapsed)
    on = fused(name, weight_bits=bits, backend=emulator("random"))
    runs = [net.run(x, 6, report_every=1) for net in (wanted, on)]
    assert torch.equal(runs[0].spikes_per_step, runs[1].spikes_per_step)
    assert torch.equal(runs[0].logits, runs[1].logits)
    assert runs[1].spikes_per_step[-1].min() > 0
    graph = network(name)[0]
    neurons = [lay.name for lay in graph.layers if lay.kind in ("neuron", "readout")]
    assert list(on.kernels) == neurons, "the record names what ran for every layer"
    behind = graph.behind()  # whatever only passes values on
    reads_floats = {
        lay.name
        for lay in graph.layers
        for n in lay.inputs()
        if {"input", "graded", "mean_pool"} & {graph[source].kind for source in behind[n]}
    }
    if name == "ceilings":
        reads_floats |= {lay.name for lay in graph.layers if lay.residual}  # of two scales
    assert {n for n, kernel in on.kernels.items() if kernel == "torch"} == reads_floats & set(
        neurons
    )


@names
def test_it_is_the_float_network_but_for_the_weights_rounding(name):
    graph, x = network(name)
    plain = RateNetwork(graph, x, 99).run(x, 200)
    ints = fused(name, weight_bits=16, backend=reference.collapsed).run(x, 200)
    assert ints.depth == plain.depth == depth(graph)
    wanted = plain.spikes()
    assert float(((ints.spikes() - wanted) / wanted).abs().max()) < 0.002
    error = (ints.logits - plain.logits).norm() / plain.logits.norm()
    assert float(error) < 0.01


def test_a_batch_is_its_images_and_runs_start_anew():
    x = network("max-pool")[1]
    net = fused("max-pool", backend=reference.collapsed)
    whole, again = net.run(x, 8), net.run(x, 8)
    assert torch.equal(whole.logits, again.logits)
    assert torch.equal(net.run(x[1:2], 8).spikes_per_step, whole.spikes_per_step[:, 1:2])


def test_what_cannot_be_is_refused():
    graph, x = network("residuals")
    with pytest.raises(ValueError, match="weight_bits=4 is not supported"):
        fused("residuals", weight_bits=4)
    if GPU_FAULT is not None:
        with pytest.raises(ValueError, match="the network shall go to cuda: "):
            FusedRateNetwork(graph, x)


@names
def test_devices_are_not_mixed_up(name, monkeypatch):
    # A fake tensor refuses to meet one on another device, so this walks the way of a GPU.
    monkeypatch.setattr(device, "cuda_fault", lambda *_: None)
    monkeypatch.setattr(device, "_usable", set())
    net = fused(name)
    x = network(name)[1]
    wanted = RateNetwork(network(name)[0], x).run(x, 1).logits[0].shape
    with FakeTensorMode(allow_non_fake_inputs=True):
        net.to("cuda")
        assert all(s.weight.is_cuda for f in net.fused.values() for s in f.groups)
        step = net.step_of(torch.empty(x.shape))
        for _ in range(2):  # the first makes what is kept
            logits = step(x)
            assert logits.is_cuda and logits.shape == wanted


def test_the_harness_compares_both_codes_on_the_same_device(monkeypatch, tmp_path, capsys):
    """The run on a GPU, with the emulator in its place."""
    pytest.importorskip("hydra", reason="needs hydra-core, which is not installed")
    from bench.measures import harness, rate, subject

    made = []

    class InEmulator(FusedRateNetwork):
        def __init__(self, *args, device, **options):
            made.append((device, options))
            super().__init__(*args, **options, device="cpu", backend=emulator())

    monkeypatch.setattr(rate, "FusedRateNetwork", InEmulator)
    monkeypatch.setattr(harness, "choose_device", lambda cfg: "cuda:0")
    monkeypatch.setattr(harness.Subject, "on", lambda self, device: (self.ann, self.net))
    monkeypatch.setattr(subject.machine, "machine", lambda device: {"cpu": "none", "gpu": device})
    cfg = composed(
        *QUICK,
        "backend=cuda",
        "baseline.T=4",
        "baseline.images=1",
        "check=false",
        "energy_rounds=0",
    )
    values = harness.run(cfg, tmp_path)
    bits = cfg.neuron.weight_bits
    assert [(device, options["weight_bits"]) for device, options in made] == [("cuda:0", bits)]
    kernels = values["rate.kernels"]
    assert sum(kernels.values()) == len(values["fs.layers"]) - 1  # less the input
    assert any(k.startswith("integrate_and_fire/") and "/rate" in k for k in kernels), kernels
    assert all(f"rate.{key}" in values for key in rate.RATE_KEYS)
    assert values["ratio.fs_to_rate"] == pytest.approx(
        values["fs.images_per_s"] / values["rate.images_per_s"]
    )
    (note,) = [n for n in values["notes"] if "rate-coded" in n and "kernels" in n]
    assert all(name in note for name in kernels)
    printed = " ".join(capsys.readouterr().out.split())
    assert "baseline ran on the same GPU" in printed and "not optimised" not in printed


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs_gpu) for n in NETWORKS])
def test_a_gpu_has_the_spikes_of_the_oracle(name):
    """Torch's own float layers may round otherwise there, which moves single spikes."""
    graph, x = network(name)
    net = FusedRateNetwork(graph, x, 99)
    found = net.run(x, 20)
    wanted = fused(name, backend=reference.collapsed).run(x, 20)
    assert any("integrate_and_fire" in kernel for kernel in net.kernels.values())
    difference = (found.spikes() - wanted.spikes()) / wanted.spikes()
    assert float(difference.abs().max()) < 0.01
    assert fs.last_kernel() == "cuda/readout"
