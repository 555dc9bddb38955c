"""Whole networks on the CUDA kernels equal the CPU's, word for word: emulated, and on a GPU."""

import copy

import pytest
import torch
from cuda_backends import emulator, needs_gpu_marks
from cuda_networks import (
    NETWORKS,
    assert_same_words,
    branches,
    first_blocks,
    images,
    resnet8,
    words_of,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import fskernel as fs
from fskernel.codes.geometry import Geometry
from fskernel.kernels import byte_maps as maps
from fskernel.kernels import device, ops
from fskernel.network import stats
from fskernel.network.synapses import Synapses

# Torch warns that it copies inputs where "same" padding is asymmetric.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@pytest.mark.parametrize("name", NETWORKS)
def test_emulated_networks_equal_the_cpu(name):
    net, x = NETWORKS[name]()
    kernels = set()
    on = emulator("random")

    class Noting(type(on)):
        def conv(self, *args, **options):
            out = super().conv(*args, **options)
            kernels.add(self.last)
            return out

    noting = Noting("random", seed=7)
    assert_same_words(words_of(net, x, noting), words_of(net, x))
    direct = {kernel for kernel in kernels if "direct" in kernel}
    assert kernels - direct, "tensor cores"
    grouped = any(g.geometry.groups > 1 for m in net.steps if m.op == "conv" for g in m.groups)
    assert bool(direct) == grouped


def test_an_empty_batch_is_emulated():
    net, x = resnet8()
    y = net.execute(x[:0], emulator())
    assert y.shape == (0, 10)


def test_layer_by_layer_as_on_a_gpu_is_one_graph_too():
    # The CPU runs a plan; a GPU runs `execute`, which has to be as traceable.
    net, x = branches()
    net.pack()
    with torch.no_grad():
        compiled = torch.compile(net.execute, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), net(x))


@pytest.fixture
def fake_gpu(monkeypatch):
    """Tensors that know shape and device only, on a GPU that is not there: fake(module)."""
    monkeypatch.setattr(device, "_usable", {torch.device("cuda"), torch.device("cuda", 0)})
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    # What looks at values, which a fake has not.
    monkeypatch.setattr(fs.FSNetwork, "saturated", lambda self, x: 0.0)
    monkeypatch.setattr(stats, "graded_macs", lambda *_: 0)
    with FakeTensorMode() as mode:

        def fake(module):
            for m in module.modules():
                for name, tensor in m._buffers.items():
                    if tensor is not None:
                        m._buffers[name] = mode.from_tensor(tensor)
                if isinstance(m, Synapses):
                    m._packed = None
            return module.cuda()

        yield fake


@pytest.mark.parametrize("name", NETWORKS)
def test_devices_are_not_mixed_up(name, request):
    # A fake tensor refuses to meet one on another device, so this walks the way of a GPU.
    net, x = NETWORKS[name]()
    wanted = {name: y.shape for name, (y, _) in words_of(net, x).items()}
    fake = request.getfixturevalue("fake_gpu")
    fake(net)
    assert net.device.type == "cuda" and all(
        s.r is None or s.r.is_cpu for s in net.steps.children() if s.op == "conv"
    )
    x = torch.empty(x.shape, device="cuda")
    seen = {}
    net.execute(x, observe=lambda step, _, y, counts: seen.update({step.name: y}))
    assert {name: y.shape for name, y in seen.items()} == wanted
    assert all(y.device.type == "cuda" for y in seen.values())
    assert net(x).shape == seen[net.steps[-1].name].shape, "by byte maps"
    logits, stats = net.run(x, record="all")
    assert logits.is_cuda and len(stats.total_sops()) == len(stats.total_spikes()) == len(x)
    assert list(stats.recorded) == list(stats.spikes)
    assert all(spikes.device.type == "cuda" for spikes in stats.recorded.values())


def test_byte_maps_are_part_of_one_compiled_graph(request):
    net, x = first_blocks()
    kept = maps.kept_maps(list(net.steps))
    request.getfixturevalue("fake_gpu")(net)
    x = torch.empty(x.shape, device="cuda")
    net.pack()
    graphs = []

    def backend(graph, example):
        graphs.append([node.target for node in graph.graph.nodes])
        return graph.forward

    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend=backend)
        assert compiled(x).shape == (len(x), 10)
    (called,) = graphs
    assert called.count(torch.ops.fskernel.conv_maps) >= len(kept) > 3


@needs_gpu_marks
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_on_a_gpu_equal_the_cpu(name):
    net, x = NETWORKS[name]()
    wanted, logits = words_of(net, x), net(x)
    there = copy.deepcopy(net).cuda()
    assert_same_words(words_of(there, x.cuda()), wanted)
    assert torch.equal(there(x.cuda()).cpu(), logits)
    assert fs.last_kernel() == "cuda/readout"
    got, counts = there.count_spikes(x.cuda())
    assert torch.equal(got.cpu(), logits)
    for name, spikes in net.count_spikes(x)[1].items():
        assert torch.equal(counts[name].cpu(), spikes), name
    stats, again = net.run(x, record="all")[1], there.run(x.cuda(), record="all")[1]
    for name, spikes in stats.recorded.items():
        assert torch.equal(again.recorded[name].words.cpu(), spikes.words), name
    assert torch.equal(again.total_sops().cpu(), stats.total_sops())
    assert torch.equal(again.total_spikes().cpu(), stats.total_spikes())
    assert torch.equal(there.cpu()(x), logits), "and back"


@needs_gpu_marks
def test_the_current_stream_is_used_and_captured():
    net, x = resnet8()
    logits = net(x)
    net.cuda()
    x = x.cuda()
    net(x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late = x * 1.0  # there when the sleep is over: work on another stream would miss it
        y = net(late)
    side.synchronize()
    assert torch.equal(y.cpu(), logits)

    graph = torch.cuda.CUDAGraph()
    static = torch.zeros_like(x)
    with torch.cuda.graph(graph):
        y = net(static)
    static.copy_(x)
    graph.replay()
    assert torch.equal(y.cpu(), logits)


@needs_gpu_marks
def test_streams_are_told_by_every_way_torch_has():
    side = torch.cuda.Stream()
    ways = ops.compiled().cuda_streams
    assert ways
    with torch.cuda.stream(side):
        for name, way in ways.items():
            assert way(0) == side.cuda_stream, name


@needs_gpu_marks
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_to_one_graph_on_a_gpu(backend):
    net, x = resnet8()
    logits = net(x)
    net.cuda().pack()
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend=backend)
        assert torch.equal(compiled(x.cuda()).cpu(), logits)


@needs_gpu_marks
def test_another_gpu_is_respected():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    net, x = resnet8()
    logits = net(x)
    net.to("cuda:1")
    assert torch.cuda.current_device() == 0
    y = net(x.to("cuda:1"))
    assert y.device == torch.device("cuda", 1) and torch.cuda.current_device() == 0
    assert torch.equal(y.cpu(), logits)
    with pytest.raises(ValueError, match="x is on cuda:0, but the network is on cuda:1"):
        net(x.cuda())


@needs_gpu_marks
def test_opcheck_on_a_gpu():
    o = torch.ops.fskernel
    weight = torch.randint(-100, 100, (8, 16, 3, 3), dtype=torch.int8).cuda()
    geometry = Geometry((3, 3), padding=(1, 1, 1, 1))
    group = Synapses(weight, torch.rand(8).cuda(), geometry, x_min=0, x_max=255)
    x = torch.randint(0, 256, (2, 5, 6, 16), dtype=torch.uint8).cuda()
    bias = torch.zeros(8).cuda()
    ints = geometry.as_ints()
    conv = (x, group.packed(), group.m, ints, bias, None, None, None, [], None, None)
    opcheck(o.pack.default, (weight, ints, 0, 255))
    opcheck(o.conv.default, (*conv, 8, 127, 0))
    halo = maps.Halo(1, 0, 2, 1, 0)
    kept, _ = ops.conv([(x, group)], bias, K=8, halo=halo)
    weight = torch.randint(-100, 100, (8, 8, 1, 1), dtype=torch.int8).cuda()
    reader = Synapses(weight, torch.rand(8).cuda(), Geometry((1, 1)), x_min=0, x_max=255)
    given = (*maps.numbers_of(kept), reader.packed(), reader.m, Geometry((1, 1)).as_ints(), bias)
    none = (None, [], None, None, [], None, [], None)
    opcheck(o.conv_maps.default, (*given, *none, 8, 127, 0, []))
    opcheck(o.integrate_and_fire.default, (*conv, torch.zeros(2, 5, 6, 8).cuda()))
    opcheck(o.max_pool.default, (x, Geometry((2, 2)).as_ints()))
    opcheck(o.sum_pool.default, (x, Geometry((2, 2)).as_ints()))
    opcheck(o.encode.default, (torch.randn(2, 3, 5, 4).cuda(), 10.0, 127))
    image = torch.randn(2, 3, 5, 4).cuda()
    opcheck(o.encode_map.default, (image, 10.0, 127, [1, 0, 2, 1, 3, 8]))
    opcheck(o.encode_words.default, (torch.randn(2, 3, 5, 4).cuda(), 10.0, 0.5, 8))
    w = torch.randint(-9, 9, (7, 16), dtype=torch.int8).cuda()
    opcheck(o.readout.default, (x, w, torch.rand(7).cuda(), torch.rand(7).cuda(), True))
    fan = torch.ones(6, dtype=torch.int64).cuda()
    opcheck(o.synaptic_events.default, (x, fan[:5], fan))


@needs_gpu_marks
def test_wrong_arguments_are_refused_on_a_gpu():
    group = Synapses(
        torch.ones(4, 8, 1, 1, dtype=torch.int8),
        torch.ones(4),
        Geometry((1, 1)),
        x_min=0,
        x_max=255,
    )
    packed_for_cpu = group.packed()
    x = torch.ones(1, 4, 4, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="packed is not on cuda:0"):
        ops.conv([(x.cuda(), group)], torch.zeros(4).cuda(), K=8)
    there = copy.deepcopy(group).cuda()
    wrong = packed_for_cpu.cuda()
    there._packed, there._packed_for = wrong, ("cuda:0", 0)
    with pytest.raises(ValueError, match="packed for .*, but the input is on a GPU"):
        ops.conv([(x.cuda(), there)], torch.zeros(4).cuda(), K=8)
    with pytest.raises(ValueError, match="bias is not on cuda:0"):
        ops.conv([(x.cuda(), copy.deepcopy(group).cuda())], torch.zeros(4), K=8)
    net, x = resnet8()
    with pytest.raises(ValueError, match="x is on cuda:0, but the network is on cpu"):
        net(x.cuda())
    with pytest.raises(ValueError, match="plans are for the CPU"):
        net.cuda().plan()


def two_ranges():
    """Weights packed for 8-bit words and for 10 steps: the same size, other passes; and x."""
    weight = torch.randint(-99, 100, (16, 16, 3, 3), dtype=torch.int8)
    groups = [
        Synapses(weight, torch.ones(16) / 99, Geometry((3, 3)), x_min=0, x_max=top)
        for top in (255, 1023)
    ]
    return groups, torch.randint(0, 256, (1, 5, 6, 16), dtype=torch.int16)


def test_weights_packed_for_another_range_are_refused():
    (narrow, wide), x = two_ranges()
    packed = narrow.packed()
    ints, none = wide.as_ints(), (None, None, None, [], None, None)
    with pytest.raises(
        ValueError, match=r"packed was packed for codes in \[0, 255\], but the call "
    ):
        torch.ops.fskernel.conv(x, packed, wide.m, ints, torch.zeros(16), *none, 8, 127, 0)
    with pytest.raises(ValueError, match="geometry has 13 numbers: expected the 12 of .* or these"):
        torch.ops.fskernel.conv(x, packed, wide.m, ints[:13], torch.zeros(16), *none, 8, 127, 0)
    with pytest.raises(ValueError, match="geometry: the declared range ends at 40000"):
        torch.ops.fskernel.conv(
            x, packed, wide.m, [*ints[:13], 40000], torch.zeros(16), *none, 8, 127, 0
        )


def test_a_kernel_ends_where_its_weights_are_not_those_it_was_told():
    """The emulated launch reads the first header; the kernel, the one in front of its weights."""
    (narrow, _), x = two_ranges()
    x, on = x.to(torch.uint8), emulator()
    on.conv([(x, narrow)], torch.zeros(16), K=8)
    packed = on.packed(narrow)
    at = [i for i in range(128, len(packed), 8) if packed[i : i + 8].equal(packed[120:128])]
    assert len(at) == 1, "a header's last eight bytes are its seal, and there is a second header"
    packed[at[0]] += 1
    try:
        with pytest.raises(RuntimeError, match="trap"):
            on.conv([(x, narrow)], torch.zeros(16), K=8)
    finally:
        on._packed.pop(narrow)


@needs_gpu_marks
def test_packed_weights_on_an_address_that_had_others_are_told_apart():
    (narrow, wide), x = two_ranges()
    wanted = {group: ops.conv([(x, group)], torch.zeros(16), K=8) for group in (narrow, wide)}
    on_gpu = [copy.deepcopy(group).cuda() for group in (narrow, wide)]
    first, second = (group.packed() for group in on_gpu)
    assert first.shape == second.shape
    first.copy_(second)  # as if it had been freed, and a copy of the other had taken its place
    on_gpu[1]._packed = first
    got = ops.conv([(x.cuda(), on_gpu[1])], torch.zeros(16).cuda(), K=8)
    assert torch.equal(got[0].cpu(), wanted[wide][0])
    with pytest.raises(ValueError, match="was packed for codes in"):
        ops.conv([(x.cuda(), on_gpu[0])], torch.zeros(16).cuda(), K=8)


@needs_gpu_marks
@pytest.mark.parametrize("N", [0, 1, 3])
def test_batches_do_not_matter_on_a_gpu(N):
    net, _ = resnet8()
    x = images(N, 32, 5)
    logits = net(x)
    assert torch.equal(net.cuda()(x.cuda()).cpu(), logits)


@needs_gpu_marks
def test_layers_on_a_gpu():
    layer = fs.FSConv2d(3, 8, 3, alpha=2.0, signed_input=True)
    x = images(2, 9)
    with torch.no_grad():
        y = layer(x)
        assert torch.equal(layer.cuda()(x.cuda()).cpu(), y)
        words = fs.encode(x.abs().cuda(), fs.FSNeuron(8, 2.0))
        pooled = fs.FSAvgPool2d(2)(words)
        assert torch.equal(
            layer(pooled).words.cpu(), layer.cpu()(fs.FSAvgPool2d(2)(words.to("cpu"))).words
        )
        with pytest.raises(ValueError, match="x is on cuda:0, but the layer is on cpu"):
            layer(x.cuda())
