"""Risk: compiled, exported, copied or forked, a layer or network differs, fails darkly or hangs."""

import copy
import io
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import warnings

import pytest
import torch
from networks import images, settle
from torch import nn

import fskernel as fs
from bench import ROOT
from fskernel.models import cifar_resnet8


class Drops(nn.Module):
    """Float in, float out, with layers of ours between those of torch."""

    def __init__(self):
        super().__init__()
        self.conv = fs.FSConv2d(3, 8, 3, alpha=2.0, input_alpha=1.0)
        self.open = fs.FSConv2d(8, 8, 1, input_alpha=2.0, relu=False)
        self.pool = nn.MaxPool2d(2)
        self.linear = fs.FSLinear(72, 5, alpha=3.0, input_alpha=2.0)

    def forward(self, x):
        x = self.pool(self.open(self.conv(x)).relu())
        return self.linear(x.flatten(1))


def drops() -> Drops:
    torch.manual_seed(1)
    return Drops().eval().requires_grad_(False)


def maps(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 8, 9, generator=torch.Generator().manual_seed(n))


@pytest.fixture(scope="module")
def net() -> fs.FSNetwork:
    x = images(2, 32)
    return fs.convert(settle(cifar_resnet8(), x), x, K=6)


@pytest.fixture
def cold(net):
    """The network as it comes out of a pickle: without a plan."""
    cold = pickle.loads(pickle.dumps(net))
    assert cold._plan is None
    return cold


@pytest.fixture(autouse=True)
def forget_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# ---- torch.compile -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packed,mode",
    [(True, torch.no_grad), (False, torch.inference_mode), (False, torch.enable_grad)],
)
def test_layers_compile_to_one_graph(packed, mode):
    module, x = drops(), maps()
    if packed:
        module(x)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with mode():
        y = compiled(x)
        assert torch.equal(y, module(x))
        assert torch.equal(compiled(maps(5)), module(maps(5)))


def test_one_graph_for_layers_of_all_settings():
    """dynamic=True would make variables of alpha and K, which kernels are not compiled for."""
    read = torch.compile(lambda m, x: m(x), fullgraph=True, dynamic=True, backend="aot_eager")
    for alpha, K in ((1.0, 8), (1.5, 6), (2.3, 11)):
        layer = fs.FSConv2d(3, 4, 3, alpha=alpha, K=K, input_alpha=4.0).requires_grad_(False)
        spikes = fs.encode(maps().abs(), layer.input_neuron)
        assert torch.equal(read(layer, maps().abs()), layer(maps().abs()))
        assert torch.equal(read(layer, spikes).words, layer(spikes).words)


def test_no_layer_breaks_the_graph():
    explained = torch._dynamo.explain(drops())(maps())
    assert explained.graph_count == 1 and not explained.break_reasons


def test_spikes_between_layers_compile():
    a = fs.FSConv2d(3, 8, 3, alpha=2.0).requires_grad_(False)
    b = fs.FSConv2d(8, 4, 3, alpha=2.0).requires_grad_(False)

    def forward(x):
        return b(a(fs.encode(x, K=8, alpha=1.0))).values()

    y = torch.compile(forward, fullgraph=True, backend="aot_eager")(maps())
    assert torch.equal(y, forward(maps()))


def test_a_network_without_a_plan_compiles(cold, net):
    x = images(2, 32)
    assert torch.equal(torch.compile(cold, fullgraph=True, backend="aot_eager")(x), net(x))


def test_weights_changed_before_compiling_are_packed():
    module, x = drops(), maps()
    before = module(x)
    module.conv.weight.mul_(0.5)
    y = torch.compile(module, fullgraph=True, backend="eager")(x)
    assert torch.equal(y, module(x)) and not torch.equal(y, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes_compile(dtype):
    module, x = drops(), maps().to(dtype)
    y = torch.compile(module, fullgraph=True, backend="eager")(x)
    assert y.dtype == dtype and torch.equal(y, module(x))


# ---- torch.export --------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_layers_export(strict, tmp_path):
    module, x = drops(), maps()
    expected = module(x)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},), strict=strict)
    torch.export.save(program, tmp_path / "layers.pt2")
    loaded = torch.export.load(tmp_path / "layers.pt2").module()
    assert torch.equal(loaded(x), expected)
    for n in (5, 1):
        assert torch.equal(loaded(maps(n)), module(maps(n)))
    with pytest.raises(RuntimeError, match="signed_input"):
        loaded(-x)


def test_sizes_of_images_can_be_left_open():
    layer = drops().conv
    x = layer(maps()).new_zeros(2, 3, 8, 9)
    height, width = torch.export.Dim("height", min=4), torch.export.Dim("width", min=4)
    program = torch.export.export(layer, (x,), dynamic_shapes=({2: height, 3: width},))
    x = torch.rand(2, 3, 20, 31)
    assert torch.equal(program.module()(x), layer(x))


def test_exporting_layers_before_their_first_call_is_refused():
    with pytest.raises(RuntimeError, match=r"FSConv2d\(3, 8.*not packed.*call it once"):
        torch.export.export(drops(), (maps(),), strict=False)


def test_exporting_a_network_without_a_plan_is_refused(cold):
    with pytest.raises(RuntimeError, match="network: .*not packed.*call it once"):
        torch.export.export(cold, (images(1, 32),), strict=False)
    cold.pack()
    torch.export.export(cold, (images(1, 32),), strict=False)


ELSEWHERE = """
import sys, torch
import fskernel as fs
folder = sys.argv[1]
x, of_layers, of_net, y = torch.load(f"{folder}/expected.pt")
layers = torch.export.load(f"{folder}/layers.pt2").module()
assert torch.equal(layers(y), of_layers)
program = torch.export.load(f"{folder}/net.pt2").module()
try:
    program(x)
except ValueError as error:
    assert "load the network that it was exported from" in str(error), error
else:
    raise AssertionError("it ran without its network")
net = fs.load(f"{folder}/net.safetensors")
assert torch.equal(program(x), of_net)
fs.set_isa("portable")
try:
    layers(y)
except ValueError as error:
    assert "portable" in str(error), error
else:
    assert fs.last_kernel().startswith("portable")
"""


def test_exported_programs_in_another_process(net, tmp_path):
    x, y, module = images(2, 32), maps(), drops()
    torch.save((x, module(y), net(x), y), tmp_path / "expected.pt")
    torch.export.save(torch.export.export(module, (y,)), tmp_path / "layers.pt2")
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "net.pt2")
    net.save(tmp_path / "net.safetensors")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


# ---- what is refused -----------------------------------------------------------------------------


def modules(net) -> list[nn.Module]:
    return [net, drops(), drops().conv, drops().linear, fs.FSMaxPool2d(2), fs.FSAvgPool2d(2)]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_script_is_refused(net):
    for module in modules(net):
        with pytest.raises(RuntimeError, match="torch.jit.script cannot compile FS.*torch.compile"):
            torch.jit.script(module)


@pytest.mark.filterwarnings("ignore")
def test_onnx_is_refused(net, tmp_path):
    module = drops()
    module(maps())
    for given, x in ((net, images(1, 32)), (module, maps())):
        with pytest.raises(RuntimeError, match="ONNX has no operator.*float module"):
            torch.onnx.export(given, (x,), tmp_path / "no.onnx", dynamo=False)
    assert isinstance(net.get_extra_state(), str)


@pytest.mark.filterwarnings("ignore")
def test_new_onnx_exporter_is_refused(net, tmp_path):
    pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")
    for given, x in ((net, images(1, 32)), (drops(), maps())):
        with pytest.raises(Exception, match="ONNX has no operator|torch.export") as caught:
            torch.onnx.export(given, (x,), tmp_path / "no.onnx", dynamo=True, verbose=False)
        assert "ONNX has no operator" in f"{caught.value} {caught.value.__cause__}"


def test_symbolic_tracing_is_refused(net):
    for module in (net, drops()):
        with pytest.raises(TypeError, match="torch.fx.*is_leaf_module"):
            torch.fx.symbolic_trace(module)


def test_layers_can_be_leaves_of_a_trace():
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, (fs.FSConv2d, fs.FSLinear)) or super().is_leaf_module(m, name)

    module = drops()
    traced = torch.fx.GraphModule(module, Tracer().trace(module))
    assert torch.equal(traced(maps()), module(maps()))


def test_vmap_is_refused(net):
    for module, x in ((net, images(1, 32)), (drops(), maps())):
        with pytest.raises(RuntimeError, match="torch.vmap.*first dimension"):
            torch.vmap(module)(x[None])


def test_gradients_are_refused_by_functions_of_functions(net):
    for module, x in ((net, images(1, 32)), (drops(), maps())):
        with pytest.raises(RuntimeError, match="no gradient"):
            torch.func.grad(lambda x, module=module: module(x).sum())(x)
        with pytest.raises(RuntimeError, match="no gradient"):
            torch.func.jvp(module, (x,), (x,))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_trace_works_after_a_call_and_is_refused_before(net):
    module, x = drops(), maps()
    with pytest.raises(RuntimeError, match=r"FSConv2d\(3, 8.*not packed.*torch.jit.trace"):
        torch.jit.trace(module, x)
    expected = module(x)
    traced = torch.jit.trace(module, x)
    assert torch.equal(traced(x), expected)
    with pytest.raises(RuntimeError, match="signed_input"):
        torch.jit.trace(module, -x)
    traced_on = images(2, 32)
    assert torch.equal(torch.jit.trace(net, traced_on)(traced_on), net(traced_on))


# ---- copies --------------------------------------------------------------------------------------


def through_torch_save(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def through_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("how", [copy.deepcopy, through_pickle, through_torch_save])
@pytest.mark.parametrize("packed", [True, False])
def test_copies_compute_the_same(how, packed):
    module, x = drops(), maps()
    expected = drops()(x)
    if packed:
        module(x)
    copied = how(module)
    assert torch.equal(copied(x), expected)
    copied.conv.weight.zero_()
    assert not torch.equal(copied(x), expected) and torch.equal(module(x), expected)


@pytest.mark.parametrize("assign", [True, False])
def test_state_dict_round_trip(assign):
    module, x = drops(), maps()
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    torch.manual_seed(2)
    other = Drops().requires_grad_(False)
    assert not torch.equal(other(x), module(x))
    other.load_state_dict(torch.load(buffer, weights_only=True), assign=assign)
    assert torch.equal(other(x), module(x))


def test_data_parallel_without_a_gpu(net):
    x = images(2, 32)
    assert torch.equal(nn.DataParallel(net)(x), net(x))
    assert torch.equal(nn.DataParallel(drops())(maps()), drops()(maps()))


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_input_dtype_is_kept(dtype):
    x = maps().to(dtype)
    assert drops()(x).dtype == dtype
    moved = drops().to(dtype)
    assert moved(x).dtype == dtype and moved.conv.weight.dtype == dtype


def test_autocast_reaches_layers_through_what_they_read():
    first, module = nn.Conv2d(3, 3, 1).requires_grad_(False), drops()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(first(maps()).sigmoid()).dtype == torch.bfloat16
        assert torch.equal(module(maps()), drops()(maps()))  # float32 stays so


def test_memory_format_is_kept():
    module = drops().conv
    x = maps().to(memory_format=torch.channels_last)
    assert module(x).is_contiguous(memory_format=torch.channels_last)
    assert module(maps()).is_contiguous()
    assert torch.equal(module(x), module(maps()))


# ---- processes -----------------------------------------------------------------------------------


def work(queue, net, layers, threads) -> None:
    if threads:
        torch.set_num_threads(threads)
    try:
        queue.put((net(images(2, 32)).tolist(), layers(maps()).tolist()))
    except RuntimeError as error:
        queue.put(str(error))


def answer(method: str, net, layers, threads: int):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(queue, net, layers, threads))
    process.start()
    process.join(120)
    hangs = process.is_alive()
    process.kill()
    assert not hangs and not queue.empty()
    return queue.get()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_compute_the_same(net, method):
    layers = drops()
    torch.set_num_threads(2)
    expected = (net(images(2, 32)).tolist(), layers(maps()).tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork of a process with threads
        assert answer(method, net, layers, 1) == expected


def test_threads_that_a_fork_has_not_got_are_refused(net):
    torch.set_num_threads(2)
    net(images(2, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert "set_num_threads(1)" in answer("fork", net, drops(), 0)


# ---- the documentation ---------------------------------------------------------------------------


def programs() -> list[str]:
    """The programs of docs/deploying.md: most blocks together, and those that stand alone."""
    text = (ROOT / "docs" / "deploying.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    alone = [block for block in blocks if "__main__" in block]
    return ["".join(block for block in blocks if block not in alone), *alone]


@pytest.mark.parametrize("program", programs(), ids=["all", "processes"])
def test_the_documented_code_runs(program, tmp_path):
    assert program.count("\n") > 15
    (tmp_path / "documented.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "documented.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
