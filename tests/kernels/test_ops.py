"""The operators as torch sees them: schemas, fakes, refusals; and the choice of instruction set."""

import os
import subprocess
import sys

import pytest
import torch
from torch.library import opcheck

from fskernel.codes.geometry import Geometry
from fskernel.kernels import ops
from fskernel.network.synapses import Synapses

o = torch.ops.fskernel


@pytest.fixture(autouse=True)
def default_isa_afterwards():
    yield
    ops.set_isa(None)


def layer(dtype=torch.uint8, channels=6, out=9, geometry=None, size=(2, 5, 7), bits=8, seed=0):
    geometry = geometry or Geometry((3, 2), (2, 1), (1, 0, 1, 1))
    torch.manual_seed(seed)
    top = 255 if dtype == torch.uint8 else 1023
    per_group = channels // geometry.groups
    w = torch.randint(-100, 100, (out, per_group, *geometry.kernel))
    weight = w.to(torch.int8 if bits == 8 else torch.int16)
    x = torch.randint(0, top + 1, (*size, channels)).to(dtype)
    return x, Synapses(weight, torch.rand(out) * 1e-2, geometry, x_min=0, x_max=top)


def conv_args(dtype=torch.uint8, K=8, **changes):
    """Arguments of the raw operator, all optional ones given."""
    x, a = layer(dtype)
    x2, b = layer(torch.int16, channels=4, geometry=Geometry((1, 1)), size=(2, 2, 8), seed=1)
    args = {
        "x": x,
        "packed": a.packed(),
        "m": a.m,
        "geometry": a.geometry.as_ints(),
        "bias": torch.zeros(9),
        "x2": x2,
        "packed2": b.packed(),
        "m2": b.m,
        "geometry2": b.geometry.as_ints(),
        "residual": torch.randint(0, 256, (2, 2, 8, 9)).to(torch.uint8),
        "r": torch.tensor([0.5]),
        "K": K,
        "limit": 127,
        "plane_bits": 0,
    }
    unknown = set(changes) - set(args)
    assert not unknown
    return args | changes


def without_second(args):
    return args | {"x2": None, "packed2": None, "m2": None, "geometry2": []}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@pytest.mark.parametrize("K", [0, 8, 10])
def test_opcheck_conv(dtype, K):
    args = conv_args(dtype, K)
    opcheck(o.conv.default, (), args)
    opcheck(o.conv.default, (), without_second(args))
    opcheck(o.conv.default, (), without_second(args) | {"residual": None, "r": None})
    opcheck(
        o.conv.default,
        (),
        args
        | {
            "plane_bits": 2,
            "x": args["x"][:0],
            "x2": args["x2"][:0],
            "residual": args["residual"][:0],
        },
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
@pytest.mark.parametrize("groups", [1, 6])
def test_opcheck_pack(dtype, groups):
    weight = torch.randint(-100, 100, (12, 6 // groups, 3, 3)).to(dtype)
    geometry = Geometry((3, 3), groups=groups).as_ints(1)
    opcheck(o.pack.default, (weight, geometry, 0, 255))
    opcheck(o.pack.default, (weight, geometry, -5, 1000))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_opcheck_others(dtype):
    x = torch.randint(0, 100, (2, 5, 6, 7)).to(dtype)
    geometry = Geometry((3, 2), (2, 2), (1, 1, 0, 1)).as_ints()
    for images in (x, x[:0], x.permute(0, 2, 1, 3)):
        opcheck(o.max_pool.default, (images, geometry))
        opcheck(o.sum_pool.default, (images, geometry))
    for weight_dtype in (torch.int8, torch.int16):
        one = torch.ones(4)
        pooled = torch.ones(4, 7, dtype=weight_dtype)
        opcheck(o.readout.default, (x, pooled, one, one, True))
        flat = torch.ones(4, 5 * 6 * 7, dtype=weight_dtype)
        opcheck(o.readout.default, (x, flat, one, one, False))
    fan_y, fan_x = torch.arange(5), torch.arange(6)
    opcheck(o.synaptic_events.default, (x, fan_y, fan_x))


def test_opcheck_encoders():
    x = torch.randn(2, 3, 5, 6)
    for image in (x, x[:0], x[..., ::2], x.contiguous(memory_format=torch.channels_last)):
        opcheck(o.encode.default, (image, 100.0, 127))
        for K in (4, 8, 10):
            opcheck(o.encode_words.default, (image, 100.0, 0.5, K))


def test_opcheck_from_floats_to_floats():
    weight = torch.ones(4, 3, 2, 2, dtype=torch.int8)
    ints = Geometry((2, 2), (1, 2), (1, 0, 0, 1)).as_ints()
    packed = o.pack(weight, ints, 0, 255)
    m, top = torch.full((4,), 0.01), torch.tensor([3.0, 255.0, 9.0, 0.0])
    x = torch.rand(2, 3, 5, 6)
    for dtype in (torch.float32, torch.float16):
        for image in (x, x[:0], x[..., ::2], x.contiguous(memory_format=torch.channels_last)):
            for count, first in ((True, False), (False, True)):
                given = (image.to(dtype), 100.0, 0.5, 8, 32767, packed, m, ints, m)
                opcheck(o.conv_floats.default, (*given, top, 8, 0.1, 0, count, first))
    for words in (
        torch.randint(0, 99, (2, 3, 4, 5)).to(torch.uint8),
        torch.ones(0, 1, 2, 3).short(),
    ):
        opcheck(o.decode.default, (words, 0.1))


def test_compiles_without_graph_breaks():
    args = conv_args()
    compiled = torch.compile(
        lambda x: o.conv(**(args | {"x": x}))[0] + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(args["x"]), o.conv(**args)[0] + 1)


BAD_CONV = [
    ({"x": torch.zeros(2, 5, 7, 6)}, "x is float32: expected uint8 or int16"),
    ({"x": torch.zeros(5, 7, 6, dtype=torch.uint8)}, r"x has shape \[5, 7, 6\]: expected 4 dim"),
    ({"x": torch.zeros(2, 5, 7, 5, dtype=torch.uint8)}, "packed for 6 input and 9 output channels"),
    ({"x": torch.zeros(2, 1, 0, 6, dtype=torch.uint8)}, "too small for a kernel of 3x2"),
    ({"x": torch.zeros(2, 9, 7, 6, dtype=torch.uint8)}, "both synapse groups feed the same"),
    ({"x2": torch.zeros(1, 2, 8, 4, dtype=torch.int16)}, "both synapse groups feed the same"),
    ({"packed": torch.zeros(500, dtype=torch.uint8)}, "packed holds no packed weights"),
    ({"packed": torch.zeros(5, dtype=torch.uint8)}, "packed holds no packed weights"),
    ({"packed2": torch.zeros(9, dtype=torch.int8)}, "packed2 is int8: expected uint8"),
    ({"geometry": Geometry((3, 2)).as_ints()}, "packed was packed for another geometry"),
    ({"geometry2": Geometry((1, 1)).as_ints(3)}, "packed2 was packed for another geometry"),
    ({"geometry": [1, 2, 3]}, "geometry has 3 numbers: expected the 12"),
    ({"geometry": [3, 2, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0]}, "stride height is 0"),
    ({"geometry": [3, 2, 2, 1, -1, 0, 1, 1, 1, 1, 1, 0]}, "padding top is -1"),
    ({"m": torch.zeros(8)}, "m has 8 elements: expected one for each of the 9"),
    ({"m2": torch.zeros(9, dtype=torch.float64)}, "m2 is float64: expected float32"),
    ({"bias": torch.zeros(9, 1)}, "bias has shape"),
    ({"bias": torch.zeros(9).half()}, "bias is float16: expected float32"),
    ({"bias": torch.zeros(8)}, "m has 9 elements: expected one for each of the 8"),
    ({"residual": torch.zeros(2, 2, 8, 8, dtype=torch.uint8)}, r"that of the output, \[2, 2, 8, 9"),
    ({"residual": torch.zeros(2, 2, 8, 9)}, "residual is float32"),
    ({"r": torch.zeros(2)}, "expected one float32"),
    ({"r": torch.zeros(1, dtype=torch.float64)}, "expected one float32"),
    ({"r": None}, "residual and r belong together"),
    ({"m2": None}, "x2, packed2 and m2 belong together"),
    ({"K": 16}, "K is 16: expected 0 to 15"),
    ({"K": -1}, "K is -1: expected 0 to 15"),
    ({"limit": 0}, "limit is 0: expected 1 to 32767"),
    ({"limit": 32768}, "limit is 32768"),
    ({"plane_bits": 3}, "plane_bits is 3: expected 0"),
]


@pytest.mark.parametrize("change, message", BAD_CONV, ids=lambda v: v if isinstance(v, str) else "")
def test_conv_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        o.conv(**conv_args(**change))


def test_damaged_and_foreign_packs_are_refused():
    args = conv_args()
    with pytest.raises(ValueError, match="packed is damaged"):
        o.conv(**(args | {"packed": args["packed"][:-1]}))
    bad_family = args["packed"].clone()
    bad_family[112:116] = 77
    with pytest.raises(ValueError, match="packed is damaged"):
        o.conv(**(args | {"packed": bad_family}))
    ops.set_isa("portable" if ops.current_isa() != "portable" else "avx512vnni_emulated")
    with pytest.raises(ValueError, match="was packed for .* runs now: pack the weights again"):
        o.conv(**args)


def test_a_layer_follows_a_change_of_instruction_set():
    x, synapses = layer()
    results = []
    for isa in ops.supported_isas():
        ops.set_isa(isa)
        results.append(ops.conv([(x, synapses)], torch.zeros(9), K=8)[0])
    assert all(torch.equal(r, results[0]) for r in results) and results[0].any()


def test_number_of_groups_is_checked():
    with pytest.raises(ValueError, match="groups has 0 entries"):
        ops.conv([], torch.zeros(9), K=8)
    with pytest.raises(ValueError, match="groups has 3 entries"):
        ops.conv([layer()] * 3, torch.zeros(9), K=8)


def bad_calls():
    x, geometry = torch.zeros(1, 4, 4, 3, dtype=torch.uint8), Geometry((2, 2)).as_ints()
    w, one = torch.ones(2, 3, dtype=torch.int8), torch.ones(2)
    image = torch.zeros(1, 3, 4, 4)
    fan = torch.ones(4, dtype=torch.int64)
    big = Geometry((5, 5)).as_ints()
    w4 = torch.ones(4, 3, 2, 2, dtype=torch.int8)
    return [
        (o.max_pool, (x.float(), geometry), "x is float32"),
        (o.max_pool, (x[0], geometry), "x has shape"),
        (o.max_pool, (x, big), "too small for a kernel of 5x5"),
        (o.sum_pool, (x.int(), geometry), "x is int32"),
        (o.sum_pool, (x, geometry[:4]), "geometry has 4 numbers"),
        (o.readout, (x, w.float(), one, one, True), "weight is float32"),
        (o.readout, (x, w, one, one, False), "has 48 features"),
        (o.readout, (x, w, one[:1], one, True), "m has 1 elements"),
        (o.readout, (x, w, one, one.double(), True), "bias is float64"),
        (
            o.readout,
            (torch.zeros(1, 257, 256, 3, dtype=torch.uint8), w, one, one, True),
            "65792 pixels",
        ),
        (o.encode, (image.int(), 1.0, 127), "x is int32: expected float32, float64"),
        (o.encode, (image[0], 1.0, 127), "expected .N, C, H, W."),
        (o.encode, (image, -1.0, 127), "inv_step is -1: expected a positive number"),
        (o.encode, (image, float("nan"), 127), "inv_step is nan"),
        (o.encode, (image, float("inf"), 127), "inv_step is inf"),
        (o.encode, (image, 1.0, 0), "limit is 0"),
        (o.encode_words, (image, 1.0, 0.5, 0), "K is 0: expected 1 to 15"),
        (o.encode_words, (image, 1.0, float("inf"), 8), "offset is inf"),
        (o.synaptic_events, (x, fan[:3], fan), "fan_y has 3 and fan_x 4 elements"),
        (o.synaptic_events, (x, fan.int(), fan), "fan_y is int32: expected int64"),
        (o.pack, (w4.float(), geometry, 0, 255), "weight is float32: expected int8 or int16"),
        (o.pack, (w4[0], geometry, 0, 255), "weight has shape"),
        (o.pack, (w4, big, 0, 255), "the geometry's kernel is 5x5"),
        (o.pack, (w4, geometry, 1, 255), "x_min is 1: expected -32768 to 0"),
        (o.pack, (w4, geometry, 0, 32768), "x_max is 32768"),
        (o.pack, (w4, Geometry((2, 2)).as_ints(9), 0, 8), "pad_code is 9: expected 0 to 8"),
        (o.pack, (w4, Geometry((2, 2), groups=3).as_ints(), 0, 8), "3 groups divide"),
        (o.pack, (w4[:, :0], geometry, 0, 8), "at least one channel"),
    ]


@pytest.mark.parametrize("index", range(len(bad_calls())))
def test_others_refuse(index):
    operator, args, message = bad_calls()[index]
    with pytest.raises(ValueError, match=message):
        operator(*args)


def test_unknown_and_unsupported_instruction_sets():
    with pytest.raises(ValueError, match="set_isa=avx9000: no such instruction set; built are"):
        ops.set_isa("avx9000")
    for isa in set(ops.built_isas()) - set(ops.supported_isas()):
        with pytest.raises(ValueError, match=f"set_isa={isa}: this processor does not support it"):
            ops.set_isa(isa)
    assert ops.built_isas()[-1] == "avx512vnni_emulated"


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_forces_an_instruction_set():
    code = "from fskernel import ops; print(ops.current_isa())"
    assert python(code, FSKERNEL_ISA="portable").stdout.strip() == "portable"


def test_a_missing_library_says_what_to_type():
    code = (
        "import sys; sys.modules['fskernel._C'] = None\n"
        "from fskernel import ops\n"  # importing is fine, using explains
        "ops.current_isa()"
    )
    done = python(code)
    assert done.returncode and "RuntimeError" in done.stderr and "make" in done.stderr
