"""Risk: running, counting, saving or compiling a network changes its result or its figures."""

import copy
import json

import pytest
import torch
from networks import Ragged, brute_force_sops, settle
from torch import nn

import fskernel as fs
from fskernel import reference
from fskernel.codes.geometry import Geometry, fan_out
from fskernel.models import cifar_resnet8
from fskernel.network.stored.files import fingerprint
from fskernel.tracing.trace import trace


def images(n: int, size: int = 32, seed: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, size, size + 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net() -> fs.FSNetwork:
    x = images(3)
    return fs.convert(settle(cifar_resnet8(), x), x, K=6)


def test_run_counts_what_the_words_hold(net):
    x = images(3, seed=4)
    words = {}
    net.execute(x, reference.collapsed, lambda step, i, y, c: words.update({step.name: (step, y)}))
    logits, stats = net.run(x)
    assert torch.equal(logits, net(x))
    for name, (step, y) in words.items():
        if step.op == "conv":
            expected = fs.to_spikes(y, 6).sum((0, 2, 3, 4))
            assert torch.equal(stats.spikes[name], expected)
            assert stats.neurons[name] == y[0].numel()
    assert stats.spikes["conv1"].dtype == torch.int64
    assert torch.equal(stats.total_spikes(), sum(stats.spikes.values()))
    assert stats.neuron_count == net.count_neurons(32, 35)
    assert set(stats.seconds) == {step.name for step in net.steps}


@pytest.mark.parametrize("build", [cifar_resnet8, Ragged])
def test_sops_equal_brute_force(build):
    x = images(2, 37)
    net = fs.convert(settle(build(), x), x, K=7)
    expected = {}

    def observe(step, inputs, y, counts):
        if step.op != "conv":
            return
        total = torch.zeros(2, dtype=torch.float64)
        for source, x_in, group in zip(step.sources, inputs, step.groups, strict=False):
            if by_name[source].code.kind == "words":
                total += brute_force_sops(x_in, 7, group)
        if step.r is not None:
            total += fs.to_spikes(inputs[-1], 7).sum((0, 2, 3, 4))
        expected[step.name] = total

    by_name = {step.name: step for step in net.steps}
    net.execute(x, observe=observe)
    _, stats = net.run(x)
    for name, total in expected.items():
        assert torch.equal(stats.sops[name].double(), total), name
    first = net.steps[1]
    assert int(stats.sops[first.name].sum()) == 0  # its input is graded, no spikes
    assert set(stats.graded_macs) == {first.name}


def test_graded_macs_count_only_existing_synapses():
    x = torch.rand(1, 3, 5, 4)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip
    _, stats = fs.convert(module, x).run(x)
    inside = sum(
        1
        for y in range(5)
        for z in range(4)
        for dy in (-1, 0, 1)
        for dz in (-1, 0, 1)
        if 0 <= y + dy < 5 and 0 <= z + dz < 4
    )
    assert stats.graded_macs == {"0": inside * 3 * 8}
    readout = int(stats.sops["4"])
    assert readout == 2 * int(stats.total_spikes())


def test_average_pool_belongs_to_its_consumer():
    x = torch.rand(2, 3, 12, 11)
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(5, 7, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 2),
    )  # fmt: skip
    net = fs.convert(module, x, K=5)
    words = {}
    net.execute(x, observe=lambda step, i, y, c: words.update({step.name: y}))
    _, stats = net.run(x)
    # The composed linear map, probed with a single spike at each position.
    height, width = words["0"].shape[1:3]
    pool, conv = torch.nn.AvgPool2d(3, 2, 1), nn.functional.conv2d
    total = torch.zeros(2, dtype=torch.int64)
    for y in range(height):
        for z in range(width):
            probe = torch.zeros(1, 1, height, width)
            probe[0, 0, y, z] = 1
            reached = int((conv(pool(probe), torch.ones(1, 1, 3, 3), padding=1) > 0).sum())
            spikes = fs.to_spikes(words["0"][:, y, z], 5).sum((0, 2))
            total += spikes * reached * 7
    assert torch.equal(stats.sops["3"], total)


def test_fan_out_of_a_chain_counts_targets_once():
    rows, cols = fan_out([Geometry((3, 3), (1, 1)), Geometry((2, 2), (1, 1))], 6, 5)
    assert rows.tolist() == [1, 2, 3, 3, 2, 1]
    assert cols.tolist() == [1, 2, 2, 2, 1]


def test_batch_and_threads_and_planes_do_not_matter(net):
    x = images(5, seed=8)
    whole, stats = net.run(x)
    for i in range(5):
        logits, one = net.run(x[i : i + 1])
        assert torch.equal(logits, whole[i : i + 1])
        assert int(one.total_spikes()) == int(stats.total_spikes()[i])
        assert int(one.total_sops()) == int(stats.total_sops()[i])
    torch.set_num_threads(2)
    assert torch.equal(net(x), whole)
    for bits in (1, 2, 4, 8):
        net.plane_bits = bits
        assert torch.equal(net(x), whole)
    net.plane_bits = 0


def test_empty_batch_and_smallest_image(net):
    logits, stats = net.run(torch.zeros(0, 3, 32, 32))
    assert logits.shape == (0, 10) and stats.total_spikes().shape == (0,)
    tiny = torch.randn(2, 3, 1, 1)
    assert torch.equal(net(tiny), net.execute(tiny, reference.literal))


def test_strides_of_the_input_do_not_matter(net):
    x = images(4, seed=2)
    expected = net(x)
    assert torch.equal(net(x.contiguous(memory_format=torch.channels_last)), expected)
    wide = torch.randn(8, 6, 64, 70)
    wide[::2, ::2, ::2, ::2] = x
    assert torch.equal(net(wide[::2, ::2, ::2, ::2]), expected)
    assert torch.equal(net(x.double()), expected)


@pytest.mark.parametrize(
    "x,error,message",
    [
        ([1.0], TypeError, "list"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), TypeError, "uint8"),
        (torch.zeros(3, 32, 32), ValueError, r"\[N, C, H, W\]"),
        (torch.zeros(1, 4, 32, 32), ValueError, "4 channels"),
        (torch.zeros(1, 3, 32, 32, device="meta"), ValueError, "meta"),
        (torch.zeros(1, 3, 32, 32, requires_grad=True), RuntimeError, "no_grad"),
    ],
)
def test_bad_input_is_refused(net, x, error, message):
    with pytest.raises(error, match=message):
        net(x)


def test_requires_grad_is_fine_without_grad_mode(net):
    with torch.no_grad():
        net(torch.zeros(1, 3, 32, 32, requires_grad=True))


def test_input_saturation_is_reported(net):
    x = images(2)
    assert net.run(x)[1].input_saturated < 0.01
    assert net.run(x * 100)[1].input_saturated > 0.5


def test_save_load_copy_and_state_dict(net, tmp_path):
    x = images(2, seed=6)
    expected = net(x)
    net.save(tmp_path / "net.safetensors")
    loaded = fs.load(tmp_path / "net.safetensors")
    assert torch.equal(loaded(x), expected)
    assert str(loaded.report()) == str(net.report())
    assert loaded.latency_steps == net.latency_steps and loaded.neurons == net.neurons
    copied = copy.deepcopy(net)
    assert torch.equal(copied(x), expected)
    with torch.no_grad():
        for tensor in copied.buffers():
            tensor.zero_()
    assert not torch.equal(copied(x), expected), "changed weights were not packed again"
    assert torch.equal(net(x), expected), "a deep copy shares its tensors"
    copied.load_state_dict(net.state_dict())
    assert torch.equal(copied(x), expected)
    assert torch.equal(loaded.half()(x), expected), ".half() must leave the multipliers alone"
    assert torch.equal(loaded.double()(x), expected)
    with pytest.raises(RuntimeError, match="float weights"):
        fs.fidelity(loaded, x)


def test_files_that_are_no_networks(net, tmp_path):
    from safetensors.torch import load_file, save_file

    good = tmp_path / "good.safetensors"
    net.save(good)
    with pytest.raises(FileNotFoundError, match="nothing"):
        fs.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="folder"):
        net.save(tmp_path / "no" / "such" / "folder")
    cut = tmp_path / "cut"
    cut.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        fs.load(cut)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="damaged"):
        fs.load(tmp_path / "text")
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not one of fskernel's"):
        fs.load(tmp_path / "foreign")
    tensors = load_file(good)
    description = {"format": 99, "input_size": None, "steps": []}
    save_file(tensors, tmp_path / "newer", metadata={"fskernel": json.dumps(description)})
    with pytest.raises(ValueError, match="format 99.*update"):
        fs.load(tmp_path / "newer")
    save_file(tensors, tmp_path / "garbled", metadata={"fskernel": "{"})
    with pytest.raises(ValueError, match="damaged"):
        fs.load(tmp_path / "garbled")
    steps = [step.spec() for step in net.steps]
    sizes = {"input_size": None, "fixed_size": None}
    text = json.dumps({"format": 1, **sizes, "steps": steps})

    def save(name, tensors):
        metadata = {"fskernel": text, "sha256": fingerprint(text, tensors)}
        save_file(tensors, tmp_path / name, metadata=metadata)

    save("whole", tensors)
    assert fs.load(tmp_path / "whole").fixed_size is None
    missing = {k: v for k, v in tensors.items() if k != "steps.2.bias"}
    save("missing", missing)
    with pytest.raises(ValueError, match="damaged"):
        fs.load(tmp_path / "missing")
    wrong = tensors | {"steps.2.groups.0.m": torch.zeros(3)}
    save("wrong", wrong)
    with pytest.raises(ValueError, match="damaged"):
        fs.load(tmp_path / "wrong")


def test_every_flipped_bit_is_noticed(net, tmp_path):
    path = tmp_path / "net"
    net.save(path)
    good = path.read_bytes()
    generator = torch.Generator().manual_seed(1)
    for at in torch.randint(len(good), (60,), generator=generator).tolist():
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        with pytest.raises(ValueError, match="damaged|not one of|format"):
            fs.load(path)


def test_state_dict_of_another_conversion_is_refused(net):
    x = images(2)
    module = trace(settle(cifar_resnet8(), x), images=x)
    other = fs.convert(module, x, K=6, weight_bits=16)
    for wrong in (other, fs.convert(module, x, K=5), fs.convert(module, alpha=30.0, K=6)):
        with pytest.raises(ValueError, match="converted with"):
            copy.deepcopy(net).load_state_dict(wrong.state_dict())


def test_a_network_elsewhere_is_refused(net):
    elsewhere = copy.deepcopy(net).to("meta")
    x = images(1)
    for use in (elsewhere.__call__, elsewhere.execute, elsewhere.count_spikes, elsewhere.run):
        with pytest.raises(ValueError, match="network is on meta"):
            use(x)
    with pytest.raises(ValueError, match="network is on meta"):
        elsewhere.activation_bytes(32, 32)
    with pytest.raises(ValueError, match="network is on meta"):
        elsewhere.pack()
    with pytest.raises(TypeError, match="sparse"):
        net(images(1).to_sparse())


def test_interrupted_save_keeps_the_old_file(net, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    net.save(path)
    before = path.read_bytes()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        net.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_by_name(net, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    path = tmp_path / "net.safetensors"
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="net.safetensors' cannot be written: .*No space"):
        net.save(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["converted", "copied", "loaded", "moved"])
def test_compiles_to_one_graph(net, how, tmp_path):
    x = images(2, seed=1)
    expected = net(x)
    if how == "copied":
        net = copy.deepcopy(net)
    elif how == "loaded":
        net.save(tmp_path / "net.safetensors")
        net = fs.load(tmp_path / "net.safetensors")
    elif how == "moved":
        net = copy.deepcopy(net).half().to(memory_format=torch.channels_last)
        assert torch.equal(net(x), expected)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), expected)


@pytest.mark.slow
def test_compiles_with_inductor(net):
    x = images(2, seed=1)
    with torch.no_grad():
        assert torch.equal(torch.compile(net, fullgraph=True)(x), net(x))


def test_changing_the_isa_repacks(net):
    from fskernel.kernels import ops

    x = images(1)
    expected = net(x)
    try:
        for isa in ops.supported_isas():
            fs.set_isa(isa)
            assert torch.equal(net(x), expected), isa
            assert isa in fs.last_kernel()
    finally:
        fs.set_isa(None)


def test_fidelity_is_near_one_and_notices_bits():
    x = images(2, 32)
    module = trace(settle(cifar_resnet8(), x), images=x)
    fine = fs.fidelity(fs.convert(module, x, K=8, weight_bits=16), x)
    coarse = fs.fidelity(fs.convert(module, x, K=8, weight_bits=8), x)
    assert set(fine) == {
        "words_changed", "spikes_ratio", "agreement", "logit_error", "effective_bits",
    }  # fmt: skip
    assert fine["words_changed"] < 0.1 < 0.2 < coarse["words_changed"]
    assert 0.98 < fine["spikes_ratio"] < 1.02
    assert fine["logit_error"] < coarse["logit_error"] < 0.3
    assert fine["effective_bits"] >= 12 > coarse["effective_bits"]
