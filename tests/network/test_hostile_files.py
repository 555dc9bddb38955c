"""Risk: a file from a stranger makes a kernel read or write what it should not, or run wrongly."""

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fitted import hostile as hostile_fitted
from gated import hostile as hostile_gates
from hostile import (
    AVG,
    B1,
    B2,
    CAT,
    DW,
    HEAD,
    LIN,
    POOL,
    STEM,
    AllKinds,
    E,
    G,
    H,
    Template,
    images,
    insert,
    remove,
    set_in,
)
from moved import hostile as hostile_moves
from torch import nn

import fskernel as fs
from fskernel.codes import moves as moving
from fskernel.codes import windows
from fskernel.network import neuron_checks, step_checks, synapses
from fskernel.network.stored import fields, step_fields
from fskernel.network.stored import files as storage


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    torch.manual_seed(0)
    net = fs.convert(AllKinds().eval(), images(), K=6)
    return Template(net, tmp_path_factory.mktemp("files"))


def shown(at, source, **code):
    """A head in this place that shows what a step gives, or something that reads a head."""

    def change(tensors, d):
        read = d["steps"][source]
        reads = (read["code"] or d["steps"][0]["code"]) | code
        head = {"op": "output", "name": "x", "sources": [read["name"]], "code": None, "fused": []}
        d["steps"].insert(at, head | {"reads": reads})
        for name in sorted(tensors, key=lambda n: -int(n.split(".")[1])):
            _, i, own = name.split(".", 2)
            if int(i) >= at:
                tensors[f"steps.{int(i) + 1}.{own}"] = tensors.pop(name)

    return change


def drop_in(step, *keys):
    """Without one field of a step."""

    def change(tensors, d):
        place = d["steps"][step]
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def tensor(name, change):
    """A change of one tensor."""
    return lambda tensors, d: tensors.update({name: change(tensors[name])})


def tops(step, change):
    """Largest words, which the template has none of, those of the layer changed."""

    def changed(tensors, d):
        d["steps"][step]["ceilings"] = True
        largest = torch.full_like(tensors[f"steps.{step}.bias"], d["steps"][step]["code"]["x_max"])
        tensors[f"steps.{step}.top"] = change(largest)

    return changed


def shaped(step, change):
    """A table of shaped neurons, which the template has none of, changed."""

    def changed(tensors, d):
        d["steps"][step]["shaped"] = True
        tensors[f"steps.{step}.table"] = change(torch.zeros(1, 2, 32))

    return changed


def cut_after(n):
    """Only the first steps."""

    def change(tensors, d):
        d["steps"] = d["steps"][:n]
        for name in [t for t in tensors if int(t.split(".")[1]) >= n]:
            del tensors[name]

    return change


def several_groups(n):
    def change(tensors, d):
        step = d["steps"][G]
        for i in range(1, n):
            step["groups"].append(step["groups"][0])
            step["sources"].insert(0, "e")
            for what in ("weight", "m"):
                tensors[f"steps.{G}.groups.{i}.{what}"] = tensors[f"steps.{G}.groups.0.{what}"]

    return change


def doubling(tensors, d):
    """Concatenations of concatenations: 12 channels, doubled 40 times."""
    steps, name = [], "cat"
    for i in range(40):
        steps.append(concat(d, f"more{i}", [name, name], CAT))
        name = f"more{i}"
    insert(CAT + 1, *steps)(tensors, d)


def concat(d, name, sources, like):
    step = {"op": "concat", "name": name, "sources": sources, "fused": []}
    return step | {"code": d["steps"][like]["code"]}


def chain(tensors, d):
    """2,000 concatenations of one, each in the memory of the next."""
    names = ["cat", *(f"more{i}" for i in range(2000))]
    steps = [concat(d, new, [old], CAT) for old, new in zip(names, names[1:], strict=False)]
    insert(CAT + 1, *steps)(tensors, d)
    d["steps"][DW + 2000]["sources"] = [names[-1]]


def many(tensors, d):
    d["steps"] = d["steps"][:1] + [d["steps"][POOL]] * 10_000


def nested(tensors, d):
    return '{"format": 1, "steps": ' + "[" * 100_000 + "]" * 100_000 + "}"


def bigger_window(step, n):
    def change(tensors, d):
        d["steps"][step]["geometry"].update(kernel=[n, n], padding=[0, 0, 0, 0])
        code = d["steps"][step]["code"]
        code["x_max"] = 63 * n * n
        code["step"] = d["steps"][G]["code"]["step"] / (n * n)

    return change


W, M = "groups.0.weight", "groups.0.m"
CODE = ("code",)
GEOMETRY = ("groups", 0, "geometry")

# What is changed, and what the message has to say.
CASES = {
    # the description as a whole
    "no object": (lambda t, d: "[1]", "the description is .1.: expected an object"),
    "no format": (lambda t, d: d.pop("format"), r"the description.format is missing"),
    "a format that equals 1": (lambda t, d: d.update(format=True), "format is True: expected an"),
    "a text that cannot be printed": (set_in(STEM, "name", to="\ud800"), "unreadable.*surrogate"),
    "nested beyond the stack": (nested, "description is unreadable .*recursion"),
    "nested nearly beyond the stack": (lambda t, d: d.update(input_size=json.loads("[" * 700 + "]" * 700)), "input_size is|unreadable"),
    "an integer of 5000 digits": (lambda t, d: '{"format": ' + "9" * 5000 + "}", "unreadable"),
    "no steps": (lambda t, d: d.pop("steps"), "description.steps is missing"),
    "steps of another type": (lambda t, d: d.update(steps={"0": 1}), "steps is .*a list"),
    "a step that is none": (lambda t, d: d["steps"].insert(1, 7), "step 1 is 7: expected an object"),
    "an unknown field": (lambda t, d: d.update(code="x"), "description.'code' is unknown"),
    "search of another type": (lambda t, d: d.update(search=[]), "search is .*an object"),
    "no step at all": (lambda t, d: (t.clear(), d.update(steps=[])), "there are 0 steps"),
    "10,001 steps": (many, "there are 10001 steps"),
    "a tensor of no step": (lambda t, d: t.update({"steps.99.m": t[f"steps.{STEM}.bias"]}), "of no layer"),
    "a tensor that no step knows": (lambda t, d: t.update({f"steps.{STEM}.q": t[f"steps.{STEM}.bias"]}), "of no layer"),
    # sizes
    "input_size of a text": (lambda t, d: d.update(input_size="1234"), "input_size is '1234'"),
    "input_size of three": (lambda t, d: d.update(input_size=[1, 3, 18]), "input_size is .*4 int"),
    "input_size of booleans": (lambda t, d: d.update(input_size=[True, 3, 18, 14]), "4 integers"),
    "input_size below 0": (lambda t, d: d.update(input_size=[1, 3, -18, 14]), "input_size: it is"),
    "input_size of other channels": (lambda t, d: d.update(input_size=[1, 4, 18, 14]), "reads 3 ch"),
    "input_size without a pixel": (lambda t, d: d.update(input_size=[1, 3, 18, 0]), "does not fit"),
    "input_size of 2^31 - 1": (lambda t, d: d.update(input_size=[1, 3, 2**31 - 1, 14]), "would sum"),
    "fixed_size of three": (lambda t, d: d.update(fixed_size=[18, 14, 1]), "fixed_size is .*2 int"),
    "fixed_size below 0": (lambda t, d: d.update(fixed_size=[18, -14]), "fixed_size: it is"),
    "two sizes": (lambda t, d: d.update(fixed_size=[18, 15]), "fixed_size: .*but input_size"),
    # order, names, sources
    "no encoder": (remove(0), "step 0 .'stem'.: .*begins with it"),
    "two encoders": (lambda t, d: insert(1, d["steps"][0] | {"name": "x"})(t, d), "step 1 .'x'.: op"),
    "last is a convolution": (cut_after(HEAD), "step 11 .'h'.: op is 'conv': .*ends with a 'readout'"),
    "a head that is read": (shown(HEAD + 1, HEAD), "step 13 .'x'.: sources: 'head' gives floats"),
    "a head of another code": (shown(HEAD, B1, step=0.5), "step 12 .'x'.: reads: 'b1' gives"),
    "the image shown first": (shown(STEM, 0), "step 1 .'x'.: sources: no layer reads the image"),
    "two readouts": (lambda t, d: d["steps"].insert(HEAD, d["steps"][HEAD] | {"name": "x"}), "tensor 'weight' is missing"),
    "a readout in the middle": (set_in(AVG, "op", to="readout"), "step 10 .'avg'..code is .*null"),
    "a name twice": (set_in(B2, "name", to="b1"), "step 4 .'b1'.: name: an earlier"),
    "no name": (set_in(B2, "name", to=""), "step 4: name is ''"),
    "a name of another type": (set_in(B2, "name", to=4), "step 4.name is 4: expected a text"),
    "a source of the future": (set_in(B1, "sources", to=["h"]), "sources: there is no step 'h' before"),
    "its own source": (set_in(B1, "sources", to=["b1"]), "sources: there is no step 'b1' before"),
    "a source that does not exist": (set_in(POOL, "sources", to=["x"]), "no step 'x'"),
    "a source of another type": (set_in(POOL, "sources", to=[0]), "sources is .*each a text"),
    "an unknown operation": (set_in(POOL, "op", to="sqrt"), "step 2.op is 'sqrt': expected one of"),
    "an operation of another type": (set_in(POOL, "op", to=["conv"]), "step 2.op is"),
    "an encoder that reads": (set_in(0, "sources", to=["input"]), "there is no step 'input'"),
    "a pool of two": (set_in(POOL, "sources", to=["stem", "stem"]), "reads 2 steps, expected 1"),
    "a pool of none": (set_in(POOL, "sources", to=[]), "reads 0 steps, expected 1"),
    "a concatenation of none": (set_in(CAT, "sources", to=[]), "reads 0 steps, expected 1 or more"),
    "a readout of two": (set_in(HEAD, "sources", to=["h", "h"]), "reads 2 steps, expected 1"),
    "a second source without a group": (set_in(DW, "sources", to=["cat", "cat"]), "reads 2 steps"),
    "a residual without a source": (set_in(G, "sources", to=["e"]), "reads 1 steps, expected 2"),
    "fused of another type": (set_in(G, "fused", to=[1]), "fused is .*each a text"),
    "a field missing": (drop_in(G, "fused"), "step 9 .'g'..fused is missing"),
    "a field unknown": (set_in(G, "stride", to=2), "step 9 .'g'..'stride' is unknown"),
    # codes
    "code of null": (set_in(G, "code", to=None), "code is None: expected an object"),
    "code of the readout": (set_in(HEAD, "code", to={}), "code is {}: expected null"),
    "a field of the code missing": (drop_in(G, "code", "zero"), "code.zero is missing"),
    "a field of the code unknown": (set_in(G, "code", "bits", to=6), "code.'bits' is unknown"),
    "K of 16": (lambda t, d: d["steps"][H]["code"].update(K=16, x_max=65535), "code.K is 16: words"),
    "K of 0 for words": (set_in(H, *CODE, "K", to=0), "code.K is 0: words"),
    "K of a boolean": (set_in(H, *CODE, "K", to=True), "code.K is True: expected an integer"),
    "K of a float": (set_in(H, *CODE, "K", to=6.0), "code.K is 6.0: expected an integer"),
    "K without its range": (set_in(H, *CODE, "K", to=12), "words of K=12 reach from 0 to 4095"),
    "x_min of words": (set_in(H, *CODE, "x_min", to=-1), "code.x_min, x_max are -1, 63"),
    "zero of words": (set_in(H, *CODE, "zero", to=31), "code.zero is 31, which only shaped"),
    "zero that is no word": (set_in(H, *CODE, "zero", to=64), "code.zero is 64: expected a word"),
    "an unknown kind": (set_in(H, *CODE, "kind", to="spikes"), "code.kind is 'spikes'"),
    "K of graded values": (set_in(LIN, *CODE, "K", to=6), "code.K is 6: graded values"),
    "a step of 0": (set_in(H, *CODE, "step", to=0.0), "code.step is 0.0: expected a positive"),
    "a step below 0": (set_in(0, *CODE, "step", to=-1.0), "step 0 .'input'.: code.step"),
    "a step without end": (set_in(H, *CODE, "step", to=math.inf), "code.step is inf"),
    "a step that is no number": (set_in(H, *CODE, "step", to=math.nan), "code.step is nan"),
    "a step of the encoder beyond float32": (set_in(0, *CODE, "step", to=1e-300), "float32 does not"),
    "an encoder of words": (set_in(0, *CODE, "kind", to="words"), "code.K is 0: words"),
    "an encoder that spikes": (lambda t, d: d["steps"][0]["code"].update(kind="words", K=6, x_min=0, x_max=63), "expected 'graded'"),
    "a limit of 0": (lambda t, d: d["steps"][LIN]["code"].update(x_min=0, x_max=0), "expected -limit and limit"),
    "a limit of 32768": (lambda t, d: d["steps"][0]["code"].update(x_min=-32768, x_max=32768), "-limit and limit"),
    "a range that is lopsided": (set_in(LIN, *CODE, "x_min", to=-5), "-limit and limit"),
    "zero of graded values": (set_in(LIN, *CODE, "zero", to=1), "code.zero is 1: expected 0"),
    # synapse groups
    "a residual of 8 channels for 17": (set_in(G, "sources", to=["e", "lin"]), "residual 'lin' has 8 channels"),
    "3 synapse groups": (several_groups(3), "groups: there are 3"),
    "8 synapse groups": (several_groups(8), "groups: there are 8"),
    "no synapse group": (set_in(H, "groups", to=[]), "groups: there are 0"),
    "groups of another type": (set_in(H, "groups", to="ab"), "groups is 'ab': expected a list"),
    "a group of another type": (set_in(H, "groups", to=[5]), "groups.0 is 5: expected an object"),
    "a group with an unknown field": (set_in(H, "groups", 0, "K", to=1), "groups.0.'K' is unknown"),
    "a second group of other channels": (lambda t, d: t.update({f"steps.{E}.groups.1.{w}": t[f"steps.{E}.groups.1.{w}"][:9] for w in ("weight", "m")}), "groups.1.weight is for 9 channels, the first group's for 17"),
    "another source with other channels": (set_in(H, "sources", to=["lin"]), "reads 17 channels, 'lin' has 8"),
    "m too short": (tensor(f"steps.{H}.{M}", lambda m: m[:0]), "m is torch.float32 of shape .0,."),
    "m of float64": (tensor(f"steps.{H}.{M}", lambda m: m.double()), "groups.0: m is torch.float64"),
    "m of two dimensions": (tensor(f"steps.{H}.{M}", lambda m: m[None]), "m is torch.float32 of sh"),
    "weights of float": (tensor(f"steps.{H}.{W}", lambda w: w.float()), "weight is torch.float32"),
    "weights of three dimensions": (tensor(f"steps.{H}.{W}", lambda w: w[..., 0]), "weight is torch"),
    "no weights": (tensor(f"steps.{H}.{W}", lambda w: w[:, :0]), "1 to 2.31 - 1 weights"),
    "a weight missing": (lambda t, d: t.pop(f"steps.{H}.{W}"), "its tensor 'groups.0.weight' is mi"),
    "weights of another window": (tensor(f"steps.{G}.{W}", lambda w: w[..., :2]), "does not fit"),
    "sums beyond 32 bits": (lambda t, d: (t.update({f"steps.{E}.{W}": torch.full((17, 8, 3, 3), 32767, dtype=torch.int16)}), d["steps"][E]["info"].update(weight_bits=16)), "beyond 2.31"),
    "bias too short": (tensor(f"steps.{H}.bias", lambda b: b[:0]), "bias is torch.float32 of shape .0,."),
    "bias too long": (tensor(f"steps.{H}.bias", lambda b: b.repeat(2)), "bias is .*of shape .12,."),
    "bias of float16": (tensor(f"steps.{H}.bias", lambda b: b.half()), "tensor .* is F16"),
    "bias of int16": (tensor(f"steps.{H}.bias", lambda b: b.short()), "step 11 .'h'.: bias is torch.int16"),
    "bias of float8": (tensor(f"steps.{H}.bias", lambda b: b.to(torch.float8_e4m3fn)), "is F8_E4M3"),
    "bias of a complex type": (tensor(f"steps.{H}.bias", lambda b: b.to(torch.complex64)), "is C64"),
    "tops that are missing": (set_in(H, "ceilings", to=True), "its tensor 'top' is missing"),
    "tops too short": (tops(H, lambda top: top[:3]), "top is .*of shape .3,."),
    "tops above the largest word": (tops(H, lambda top: top + 1), "top: expected whole numbers"),
    "tops between words": (tops(H, lambda top: top - 0.5), "top: expected whole numbers"),
    "tops below no spike": (tops(H, lambda top: -top), "top: expected whole numbers"),
    "tops that are no number": (tops(H, lambda top: top * float("nan")), "top: expected whole"),
    "tops of a type": (tops(H, lambda top: top.double()), "top is torch.float64"),
    "tables that are missing": (set_in(H, "shaped", to=True), "its tensor 'table' is missing"),
    "tables of other segments": (shaped(H, lambda t: t[..., :31]), "table has shape .1, 2, 31."),
    "tables of no dimension": (shaped(H, lambda t: t[0, 0, 0]), "table has shape ..:"),
    "tables of some channels": (shaped(H, lambda t: t.repeat(3, 1, 1)), "table has shape .3, 2, 32."),
    "tables without offsets": (shaped(H, lambda t: t[:, :1]), "table is .*of shape .1, 1, 32."),
    "tables of a type": (shaped(H, lambda t: t.double()), "table is torch.float64"),
    "tables that are no number": (shaped(H, lambda t: t / 0), "table holds NaN or infinite"),
    "tables of graded values": (shaped(LIN, lambda t: t), "table: it is of neurons"),
    "r of two": (tensor(f"steps.{G}.r", lambda r: r.repeat(2)), "r is torch.float32 of shape .2,."),
    "r of no dimension": (tensor(f"steps.{G}.r", lambda r: r[0]), "r is torch.float32 of shape"),
    "r missing": (lambda t, d: t.pop(f"steps.{G}.r"), "its tensor 'r' is missing"),
    "residual of another type": (set_in(G, "residual", to=1), "residual is 1: expected true or"),
    "one_to_one of another type": (set_in(G, "groups", 0, "one_to_one", to=0), "one_to_one is 0"),
    "x_max below the source's": (set_in(H, "groups", 0, "x_max", to=251), "groups.0.x_min, x_max are 0, 251"),
    "x_min above the source's": (set_in(E, "groups", 1, "x_min", to=-8190), "groups.1.x_min, x_max are -8190"),
    "x_max beyond 16 bits": (set_in(H, "groups", 0, "x_max", to=2**40), "are not a range"),
    "x_max of a text": (set_in(H, "groups", 0, "x_max", to="252"), "x_max is '252': expected an int"),
    "pad_code": (set_in(DW, "groups", 0, "pad_code", to=5), "groups.0.pad_code is 5"),
    "a source of more steps": (lambda t, d: d["steps"][POOL].update(code=d["steps"][POOL]["code"] | {"K": 12, "x_max": 4095}), "step 2 .'pool'.: code: a max-pool"),
    # geometry
    "a kernel of three": (set_in(H, *GEOMETRY, "kernel", to=[1, 1, 1]), "kernel is .*a list of 2"),
    "a kernel of 0": (set_in(H, *GEOMETRY, "kernel", to=[0, 1]), "geometry.kernel is .0, 1.: expected 1"),
    "a stride of 0": (set_in(POOL, "geometry", "stride", to=[0, 1]), "geometry.stride is .0, 1."),
    "a stride beyond": (set_in(POOL, "geometry", "stride", to=[2**70, 1]), "geometry.stride is"),
    "padding below 0": (set_in(H, *GEOMETRY, "padding", to=[0, 0, -1, 0]), "geometry.padding is"),
    "padding that wraps sizes": (set_in(H, *GEOMETRY, "padding", to=[0, 0, 2**63, 0]), "padding is"),
    "padding of floats": (set_in(H, *GEOMETRY, "padding", to=[0, 0, 0.0, 0]), "padding is .*each an"),
    "dilation of 0": (set_in(H, *GEOMETRY, "dilation", to=[1, 0]), "geometry.dilation is .1, 0."),
    "groups of 0": (set_in(H, *GEOMETRY, "groups", to=0), "geometry.groups is 0"),
    "groups that do not divide": (set_in(H, *GEOMETRY, "groups", to=4), "does not fit"),
    "a geometry without padding": (drop_in(H, *GEOMETRY, "padding"), "geometry.padding is missing"),
    "a geometry with more": (set_in(H, *GEOMETRY, "output", to=1), "geometry.'output' is unknown"),
    "a geometry of another type": (set_in(POOL, "geometry", to=[2, 2]), "geometry is .*an object"),
    # pools and concatenations
    "groups of a pool": (set_in(POOL, "geometry", "groups", to=2), "geometry.groups is 2: a pool"),
    "padding as large as the window": (set_in(POOL, "geometry", "padding", to=[2, 0, 0, 0]), "beside the map"),
    "padding beside the window": (set_in(AVG, "geometry", "padding", to=[0, 0, 0, 2]), "beside the"),
    "padding of dilated windows": (lambda t, d: d["steps"][POOL]["geometry"].update(padding=[1, 1, 0, 0], dilation=[3, 1]), "beside small maps"),
    "another code behind a max-pool": (set_in(POOL, *CODE, "step", to=0.5), "a max-pool gives what it"),
    "another code behind an average": (set_in(AVG, *CODE, "x_max", to=251), "it sums 4 codes of 'g'"),
    "an average of another step": (set_in(AVG, *CODE, "step", to=0.5), "it sums 4 codes of 'g'"),
    "an average with dilation": (set_in(AVG, "geometry", "dilation", to=[2, 1]), "average-pool has .1, 1."),
    "sums beyond 16 bits": (bigger_window(AVG, 23), "sums fit 16 bits"),
    "a concatenation of two codes": (set_in(CAT, "sources", to=["b1", "pool"]), "'pool' has Code"),
    "a concatenation of another code": (set_in(CAT, *CODE, "step", to=0.5), "'b1' has Code"),
    "channels that double": (doubling, "channels: at most 16777216"),
    "a concatenation of images": (lambda t, d: insert(1, concat(d, "x", ["input"], 0))(t, d), "'input' is the image"),
    "maps of two sizes concatenated": (lambda t, d: d["steps"][B2]["groups"][0]["geometry"].update(stride=[2, 2]), "maps of .* meet in it"),
    "maps of two sizes added": (set_in(E, "groups", 1, "geometry", "stride", to=[1, 1]), "step 8 .'e'., for images of 18x14: sources: maps"),
    "a residual of another size": (set_in(G, *GEOMETRY, "stride", to=[2, 1]), "step 9 .'g'., for images of .*: maps of"),
    # readout
    "readout without weights": (tensor(f"steps.{HEAD}.weight", lambda w: w[:, :0]), "weight has shape .5, 0."),
    "readout of one dimension": (tensor(f"steps.{HEAD}.weight", lambda w: w[0]), "weight has shape"),
    "readout of float": (tensor(f"steps.{HEAD}.weight", lambda w: w.float()), "weight is torch.float"),
    "readout's bias too short": (tensor(f"steps.{HEAD}.bias", lambda b: b[:1]), "bias is .*of shape .1,."),
    "readout's bias of int8": (tensor(f"steps.{HEAD}.bias", lambda b: b.char()), "bias is torch.int8"),
    "readout's scale too short": (tensor(f"steps.{HEAD}.scale", lambda b: b[:4]), "scale is .*of shape .4,."),
    "readout's scale of float32": (tensor(f"steps.{HEAD}.scale", lambda b: b.float()), "scale is torch.float32"),
    "readout of other features": (tensor(f"steps.{HEAD}.weight", lambda w: w[:, :5]), "reads 5 features, 'h' has 6"),
    "readout of a map of other features": (set_in(HEAD, "pool", to=False), "weight reads 6 features of"),
    "readout's pool of another type": (set_in(HEAD, "pool", to=None), "pool is None: expected true"),
    # the report
    "alpha of a text": (set_in(H, "info", "alpha", to="2"), "info.alpha is '2': expected a number"),
    "another alpha": (set_in(H, "info", "alpha", to=7.0), "info.alpha is 7.0, but code is"),
    "rounding of another name": (set_in(H, "info", "rounding", to="up"), "info.rounding is 'up'"),
    "weight_bits of another type": (set_in(H, "info", "weight_bits", to=16), "info.weight_bits is 16"),
    "notes of another type": (set_in(H, "info", "notes", to=[[]]), "info.notes is .*each a text"),
    "an unknown remark": (set_in(H, "info", "author", to="me"), "info.'author' is unknown"),
    "no remarks": (set_in(H, "info", to=None), "info is None: expected an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_wrong_is_refused_by_file_step_and_field(template, name):
    change, message = CASES[name]
    path = template.changed(change)
    with pytest.raises(ValueError, match=message) as caught:
        fs.load(path)
    assert type(caught.value) is ValueError and str(path) in str(caught.value)


# Rules of networks that AllKinds cannot break: words with an offset, wide readouts, bare images.
class Offset(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(6, 2)

    def forward(self, x):
        x = self.pool(self.a(x))
        return self.head(torch.relu(self.b(x) + self.c(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def offset(tmp_path_factory):
    torch.manual_seed(1)
    net = fs.convert(Offset().eval(), images(), K=5, bottleneck="spiking")
    return Template(net, tmp_path_factory.mktemp("offset"))


def padded_offset(tensors, d):
    d["steps"][2]["geometry"]["padding"] = [0, 1, 0, 0]


def bare(tensors, d):
    """The image, read out."""
    cut_after(1)(tensors, d)
    weight = torch.ones(2, 3, dtype=torch.int8)
    more = {"weight": weight, "scale": torch.ones(2).double(), "bias": torch.ones(2)}
    tensors.update({f"steps.1.{name}": t for name, t in more.items()})
    step = {"op": "readout", "name": "x", "sources": ["input"], "code": None, "fused": []}
    d["steps"].append(step | {"pool": True, "info": {"notes": []}})


def wide(tensors, d):
    """So many 15-step neurons with 16-bit weights that their sum may not fit 64 bits."""
    n = 2**18
    step = d["steps"][3]
    weight = torch.zeros(n, 4, 1, 1, dtype=torch.int8)
    for i in (0, 1):
        tensors[f"steps.3.groups.{i}.weight"], tensors[f"steps.3.groups.{i}.m"] = (
            weight,
            weight[:, 0, 0, 0].float(),
        )
    tensors["steps.3.bias"] = weight[:, 0, 0, 0].float()
    step["code"].update(K=15, x_max=2**15 - 1)
    step["info"] = {"notes": []}
    tensors["steps.4.weight"] = torch.zeros(2, n, dtype=torch.int16)
    d["steps"][4]["info"] = {"notes": []}


OFFSET_CASES = {
    "padding beside words with an offset": (padded_offset, "the code of zero of 'a' is 16"),
    "pad_code of words with an offset": (set_in(3, "groups", 1, "pad_code", to=0), "groups.1.pad_code is 0"),
    "a readout of the image": (bare, "no layer reads the image before"),
    "a sum beyond 64 bits": (wide, "262144 features, whose sum may not fit 64 bits"),
}  # fmt: skip


@pytest.mark.parametrize("name", OFFSET_CASES)
def test_rules_of_other_networks(offset, name):
    change, message = OFFSET_CASES[name]
    with pytest.raises(ValueError, match=message):
        fs.load(offset.changed(change))


# Rules that a file cannot break, because reading it does not get that far.
HAND_MADE = [
    (H, lambda step: setattr(step, "code", replace(step.code, K=6.0)), "code is .*expected integers"),
]  # fmt: skip


def hand_made(template, i, change):
    """A network of steps in Python, one of which is changed."""
    made = list(fs.load(template.path.with_name("good.safetensors")).steps)
    change(made[i])
    return fs.FSNetwork(made)


@pytest.mark.parametrize("i,change,message", HAND_MADE)
def test_steps_that_were_made_by_hand_are_checked_too(template, i, change, message):
    with pytest.raises(ValueError, match=message):
        hand_made(template, i, change)
    hand_made(template, i, lambda step: None)(images())


def refusals(module, *functions: str) -> set[tuple[str, int]]:
    """Where a module, or some of its functions, refuses: raise statements, calls of refuse()."""
    path = Path(module.__file__)
    tree, found = ast.parse(path.read_text()), set()
    nodes = [
        inner
        for outer in ast.walk(tree)
        if not functions or getattr(outer, "name", "") in functions
        for inner in ast.walk(outer)
    ]
    for node in nodes:
        called = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "refuse"
        if called or isinstance(node, ast.Raise):
            found.add((path.name, node.lineno))
    return found


def places(error: BaseException) -> set[tuple[str, int]]:
    """The lines that an error and those behind it came through."""
    found = set()
    while error is not None:
        at = error.__traceback__
        while at is not None:
            found.add((Path(at.tb_frame.f_code.co_filename).name, at.tb_lineno))
            at = at.tb_next
        error = error.__cause__
    return found


def test_every_rule_is_broken_by_some_file(template, offset, tmp_path):
    """So that a rule which is removed makes a test fail: nothing else refuses that file so."""
    tripped, own = set(), [(template, CASES), (offset, OFFSET_CASES)]
    kinds = (hostile_moves, hostile_gates, hostile_fitted)
    for one, cases in own + [(kind.template(tmp_path), kind.CASES) for kind in kinds]:
        for change, _ in cases.values():
            with pytest.raises(ValueError) as caught:
                fs.load(one.changed(change))
            tripped |= places(caught.value)
    for i, change, _ in HAND_MADE:
        with pytest.raises(ValueError) as caught:
            hand_made(template, i, change)
        tripped |= places(caught.value)
    rules = refusals(step_checks) | refusals(neuron_checks) | refusals(fields)
    rules |= refusals(synapses, "check_geometry", "__init__", "_check_bound")
    rules |= refusals(step_fields) | refusals(windows, "check") | refusals(moving, "check")
    rules |= refusals(storage, "_network")
    assert len(rules) > 50 and rules <= tripped, sorted(rules - tripped)
