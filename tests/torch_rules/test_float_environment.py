"""The caller's rounding mode and flush-to-zero do not reach the results, and survive a call."""

import copy
import ctypes
import itertools
import platform
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import Ragged, images, settle

import fskernel as fs
from fskernel import reference
from fskernel.codes.geometry import Geometry
from fskernel.drop_in.layers import FSConv2d, FSLinear
from fskernel.kernels import ops, trains
from fskernel.network.synapses import Synapses

libm = ctypes.CDLL("libm.so.6")
UNIT = 0x400 if platform.machine() == "x86_64" else 0x400000  # of fenv.h's rounding modes
MODES = [0, UNIT, 2 * UNIT, 3 * UNIT]
FLUSHING = [True, False, True, False]
ENVIRONMENTS = list(zip(MODES, FLUSHING, strict=True))


@pytest.fixture(autouse=True)
def default_isa_afterwards():
    yield
    ops.set_isa(None)


def seen_by_torch():
    """Bits that depend on the environment of this thread and of its team's other threads."""
    one, tiny = torch.ones(1 << 16), torch.full((1 << 16,), 1e-30)
    sums = torch.cat([one + tiny, one - tiny, -one - tiny, tiny * 1e-9])
    return sums.view(torch.int32)


def under(mode, flush, threads, work):
    """What work() gives in a new thread in this environment, which must be there afterwards.

    A new thread has a new team of OpenMP threads: they start in the environment of their master.
    """

    def run():
        torch.set_num_threads(threads)
        assert libm.fesetround(mode) == 0
        torch.set_flush_denormal(flush)
        before = seen_by_torch()
        result = work()
        assert libm.fegetround() == mode
        assert torch.equal(seen_by_torch(), before)
        return result

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def bits(tensors):
    """Comparable, also of NaN, and of denormals where a comparison flushes them."""
    return [t.view(torch.int32) if t.dtype == torch.float32 else t for t in tensors]


def assert_unmoved(work, wanted, isas=None, threads=(1, 2)):
    """work() gives `wanted` in every environment, on these instruction sets, else all."""
    wanted = bits(wanted)
    for isa in ops.supported_isas() if isas is None else isas:
        ops.set_isa(isa)
        for (mode, flush), n in itertools.product(ENVIRONMENTS, threads):
            got = bits(under(mode, flush, n, work))
            where = f"{isa}, rounding {mode:#x}, flush {flush}, {n} threads"
            for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
                assert g.dtype == w.dtype and torch.equal(g, w), f"result {i} on {where}"


def test_the_environments_differ():
    """Else the other tests would test nothing."""
    everything = [(0, False), *ENVIRONMENTS]
    seen = [under(mode, flush, 2, seen_by_torch) for mode, flush in everything]
    for a, b in itertools.combinations(seen, 2):
        assert not torch.equal(a, b)
    for s in seen:  # the same in both threads
        for part in s.view(4, -1):
            assert (part == part[0]).all()


def layer(channels, out, geometry, top, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (out, channels // geometry.groups, *geometry.kernel)
    weight = torch.randint(-127, 128, shape, generator=generator)
    m = torch.rand(out, generator=generator) * 3 / top
    return Synapses(weight.to(torch.int8 if bits == 8 else torch.int16), m, geometry,
                    x_min=0, x_max=top)  # fmt: skip


def every_operator():
    """By operator, a call of it; results that rounding, or a flush, would change among them."""
    generator = torch.Generator().manual_seed(5)
    x8 = torch.randint(0, 256, (3, 7, 9, 24), generator=generator).to(torch.uint8)
    x16 = torch.randint(0, 1024, (3, 7, 9, 5), generator=generator).to(torch.int16)
    dense = layer(24, 21, Geometry((3, 2), (1, 1), (1, 1, 0, 1)), 255, 8, 1)
    second = layer(5, 21, Geometry((1, 1)), 1023, 16, 2)
    depthwise = layer(24, 24, Geometry((3, 3), (1, 1), (1, 1, 1, 1), groups=24), 255, 8, 3)
    residual = torch.randint(0, 256, (3, 7, 9, 21), generator=generator).to(torch.uint8)
    r = torch.tensor([0.37])
    halves = torch.arange(24) / 3 + 0.5
    tiny = torch.rand(24, generator=generator) * 1e-38
    small, below = tiny[:21] * 1e-3, tiny[:21] * 1e-3 - 1e-40
    faint = Synapses(dense.weight, tiny[:21], dense.geometry, x_min=0, x_max=255)
    image = torch.randn(3, 5, 7, 37, generator=generator)
    image[0, :, 0] = torch.tensor([1e-38, -1e-38, 1e-42, 0.5, float("nan")]).view(5, 1)
    pale, bright, lowest = image * 1e-38, image.abs(), torch.full((3, 1, 2, 40), 1e-38)
    weight = torch.randint(-127, 128, (21, 24), generator=generator).to(torch.int8)
    flat = torch.randint(-9, 10, (21, 7 * 9 * 24), generator=generator).to(torch.int16)
    m, bias = torch.full((21,), 1e-3), halves[:21]
    fan_y, fan_x = torch.arange(7), torch.arange(9)
    window = Geometry((3, 2), (2, 1), (1, 0, 1, 1))

    def both(K, **options):
        groups = [(x8, dense), (x16, second)]
        return ops.conv(groups, bias, K=K, residual=(residual, r), **options)

    halved = (bright * 1e-5).to(torch.float16)  # subnormal numbers among them
    doubled = bright.double() * (1 + 1e-9)
    five = layer(5, 21, Geometry((3, 3), (1, 1), (1, 1, 1, 1)), 255, 8, 4)

    def floats(x, K, step, **options):
        encoder = ops.Encoder(81.3, 0.5, 8)
        return ops.conv_floats(x, encoder, five, bias, K=K, step=step, count=True, **options)

    totals = torch.zeros(x8.shape, dtype=torch.int32)
    one_bit = layer(24, 21, dense.geometry, 1, 8, 6)
    one_bit.m.mul_(1 / 3000)

    low, lower = bias * 0.013, bias * 1e-40

    def rate_step(path, bias):
        """Membranes after eight steps of spike trains, which sums of tiny numbers move."""
        v = torch.zeros(3, 7, 9, 21)
        trains.integrate_and_fire(
            [(x8, one_bit)], bias, v, steps=8, rows=trains.pack_rows([one_bit]), path=path
        )
        return v

    def constant(values):
        v = torch.zeros(1, 1, 1, len(values))
        return [*trains.integrate_current(values.view(v.shape).contiguous(), v, steps=8), v]

    # Everything but the call is computed here, in the usual environment.
    return {
        "conv": lambda: [
            *both(8),
            *both(10, plane_bits=4),
            *both(0),
            *ops.conv([(x8, depthwise)], halves, K=0),
            *ops.conv([(x8, faint)], below, K=1),
            *ops.conv([(x8, dense)], below, K=0),
        ],
        "conv_floats": lambda: [
            *floats(bright, 8, 6 / 255),
            *floats(bright, 8, 1e-42),
            *floats(halved, 0, 1.0),
            *floats(doubled, 9, 1e-4, channels_last=True),
        ],
        "decode": lambda: [ops.decode(x8, 0.1), ops.decode(x16, 1e-41)],
        "max_pool": lambda: [ops.max_pool(x8, window)],
        "sum_pool": lambda: [ops.sum_pool(x16, window)],
        "gate": lambda: [
            *ops.gate(x8, x8, (0, 7), halves / 997, halves, K=8),
            *ops.gate(x8, x8[:, :1, :1], (3, 0), tiny, halves, K=0),
            *ops.gate(x8, x16[..., :1], (0, 0), -tiny, halves + 1, K=12),
        ],
        "readout": lambda: [
            ops.readout(x8, weight, tiny[:21], small, pool=True),
            ops.readout(x8, weight, m, bias, pool=True),
            ops.readout(x8, flat, small, below, pool=False),
        ],
        "encode": lambda: [
            ops.encode(lowest, 3e38),
            ops.encode(pale, 3e37, limit=127),
            ops.encode(image, 81.3),
        ],
        "encode_words": lambda: [
            ops.encode_words(lowest, 3e38, 0.1, 8),
            ops.encode_words(bright, 81.3, 0.5, 10),
        ],
        "synaptic_events": lambda: [ops.synaptic_events(x8, fan_y, fan_x)],
        "pack_rows": lambda: [rate_step("events", low), rate_step("events", lower)],
        "integrate_and_fire_trains": lambda: [rate_step("dense", low), rate_step("dense", lower)],
        "integrate_and_fire_current": lambda: [*constant(halves), *constant(tiny)],
        "gate_pool": lambda: [trains.gate_pool(x8, totals.clone(), window, steps=8)],
    }


OPERATORS = every_operator()


def test_every_cpu_operator_is_tried_here():
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("fskernel::")]
    on_cpu = {
        n.removeprefix("fskernel::")
        for n in names
        if torch._C._dispatch_has_kernel_for_dispatch_key(n, "CPU")
    }
    # Networks run plans; packing moves integers.
    assert on_cpu == {*OPERATORS, "run_plan", "time_plan", "pack"}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_give_the_same_bits(name):
    assert_unmoved(OPERATORS[name], OPERATORS[name](), threads=(1, 2) if name == "conv" else (2,))


def test_a_image_of_denormals_is_encoded():
    assert (ops.encode(torch.full((2, 1, 3, 33), 1e-38), 3e38) == 3).all()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(2)
    float_net = settle(Ragged(), images(8, 24))
    return fs.convert(float_net, images(4, 24, seed=5), K=9)


@pytest.fixture(scope="module")
def tiny(net):
    """The same, whose logits are denormal numbers."""
    tiny = copy.deepcopy(net)
    with torch.no_grad():
        tiny.steps[-1].scale.mul_(1e-40)
        tiny.steps[-1].bias.mul_(1e-40)
    return tiny


@pytest.mark.parametrize(
    ("which", "size"),
    [("net", (2, 3, 21, 19)), ("tiny", (5, 3, 13, 24))],  # images: one a thread, and more
)
def test_networks_give_the_same_bits(which, size, request):
    x = torch.randn(size, generator=torch.Generator().manual_seed(6))
    net = request.getfixturevalue(which)
    logits = net.execute(x, reference.collapsed)
    if which == "tiny":
        assert ((logits != 0) & (logits.abs() < 1.17e-38)).any()

    wide = x.double() * (1 + 1e-9)  # no float32 numbers
    wide_logits = net(wide)

    def work():
        here = copy.copy(net)  # planned and laid out in this environment
        here._plan = None
        here.plan().arena_bytes(*x.shape[2:])
        return [here(x), here.execute(x), here.count_spikes(x)[0], here(wide)]

    assert_unmoved(work, [logits] * 3 + [wide_logits])


def test_layers_give_the_same_bits():
    torch.manual_seed(4)
    x = torch.rand(3, 5, 9, 11)
    conv = FSConv2d(5, 7, 3, alpha=1.37, K=10, input_alpha=1.1)
    linear = FSLinear(495, 7, alpha=1.37, K=7, signed_input=True)

    def work():
        conv.repack(), linear.repack()
        spikes = fs.encode(x, K=9, alpha=1.9)
        return [conv(x), linear(x.flatten(1) - 0.5), spikes.words, spikes.values()]

    assert_unmoved(work, work(), [ops.current_isa()])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="not every Arm processor has traps")
def test_a_caller_that_traps_exceptions_gets_none_and_no_flags():
    """A NaN in an image, or a membrane that overflows, is no error."""
    trapped = 1 | 8  # invalid, overflow
    image = torch.tensor([float("nan"), 3e38, -3e38, 0.3]).repeat(1, 1, 1, 9)

    def work():
        libm.feclearexcept(trapped)
        libm.feenableexcept(trapped)
        y = ops.encode(image, 3e38)
        z = ops.encode_words(image, 3e38, 0.5, 9)
        assert libm.fedisableexcept(trapped) & trapped == trapped
        assert not libm.fetestexcept(trapped)
        return [y, z]

    for isa in ops.supported_isas():
        ops.set_isa(isa)
        y, z = under(0, False, 2, work)
        assert y[0, 0, :4, 0].tolist() == [0, 32767, -32767, 32767]
        assert z[0, 0, :4, 0].tolist() == [0, 511, 0, 511]
