"""Changes after which a file still is a network: another one, as another conversion might give.

Each takes a draft that is valid, and returns the name of the field that it changed, or None where
there is nothing of that kind to change. What they make is not always a network that fits every
image, or itself: strides may part maps that are added. Then everybody has to refuse it.
"""

from __future__ import annotations

import random
import string

import torch

from .draft import Draft, output_size


def _float(dice: random.Random) -> float:
    """A positive factor, mostly mild."""
    return 2.0 ** dice.choice((dice.uniform(-2, 2), dice.uniform(-2, 2), dice.uniform(-40, 40)))


def _floats(draft: Draft, name: str) -> None:
    """Other multipliers: all by one factor, each by its own, or numbers at the edge; some signs."""
    dice, old = draft.dice, draft.tensors[name]
    new, one = old.clone().flatten(), _float(dice)
    kind = dice.choice(("all", "each", "each", "edge"))
    for i in range(len(new)):
        if kind == "edge":
            new[i] = dice.choice((0.0, -0.0, 1e-40, 3e38, 0.5, 1.0, 2.0**31, 1e-30))
        else:
            new[i] *= one if kind == "all" else _float(dice)
        if dice.random() < 0.2:
            new[i] *= -1
    draft.tensors[name] = new.reshape(old.shape)


def weight(draft: Draft) -> str | None:
    i, g = draft.dice.choice(draft.groups())
    old = draft.weight(i, g)
    draft.set_weight(i, g, draft.noise(tuple(old.shape), old.dtype))
    return "tensor weight"


def readout_weight(draft: Draft) -> str | None:
    name = f"steps.{len(draft.steps) - 1}.weight"
    old = draft.tensors[name]
    draft.tensors[name] = draft.noise(tuple(old.shape), old.dtype)
    return "tensor readout weight"


def wide_weight(draft: Draft) -> str | None:
    """The same weights as int16."""
    i = draft.dice.choice([i for i, step in enumerate(draft.steps) if "info" in step])
    for name in draft.tensors:
        if name.startswith(f"steps.{i}.") and name.endswith(".weight"):
            draft.tensors[name] = draft.tensors[name].to(torch.int16)
    draft.steps[i]["info"]["weight_bits"] = 16
    return "info.weight_bits"


def m(draft: Draft) -> str | None:
    i, g = draft.dice.choice(draft.groups())
    _floats(draft, f"steps.{i}.groups.{g}.m")
    return "tensor m"


def bias(draft: Draft) -> str | None:
    i = draft.dice.choice(draft.convs())
    _floats(draft, f"steps.{i}.bias")
    return "tensor bias"


def readout_floats(draft: Draft) -> str | None:
    what = draft.dice.choice(("scale", "bias"))
    _floats(draft, f"steps.{len(draft.steps) - 1}.{what}")
    return f"tensor readout {what}"


def r(draft: Draft) -> str | None:
    names = [name for name in draft.tensors if name.endswith(".r")]
    if not names:
        return None
    _floats(draft, draft.dice.choice(names))
    return "tensor r"


def K(draft: Draft) -> str | None:
    """Other time steps of a layer, and of those that it is concatenated with."""
    dice = draft.dice
    spiking = [i for i in draft.convs() if draft.steps[i]["code"]["K"]]
    first = dice.choice(spiking)
    together = {draft.steps[first]["name"]}
    while True:
        more = set(together)
        for step in draft.steps:
            if step["op"] in ("concat", "max_pool", "move"):
                passed = step["sources"][:1] if step["op"] == "move" else step["sources"]
                linked = {step["name"], *passed}
                if linked & more:
                    more |= linked
        if more == together:
            break
        together = more
    number = dice.randint(1, 15)
    for i in spiking:
        step = draft.steps[i]
        if step["name"] in together:
            code = step["code"]
            signed = bool(code["zero"])
            alpha = step["info"]["alpha"] = draft.steps[first]["info"]["alpha"]
            code |= {
                "K": number,
                "x_max": 2**number - 1,
                "step": alpha * 2.0 ** ((1 if signed else 0) - number),
                "zero": 2 ** (number - 1) if signed else 0,
            }
    draft.settle()
    return "code.K"


def limit(draft: Draft) -> str | None:
    """Other largest codes of the image or of a layer without a ReLU."""
    graded = [
        step["code"]
        for step in draft.steps
        if step["op"] in ("encode", "conv", "mean_pool", "gate") and step["code"]["K"] == 0
    ]
    code = draft.dice.choice(graded)
    code["x_max"] = draft.dice.choice((1, 7, 127, 128, 255, 256, 4000, 32767))
    code["x_min"] = -code["x_max"]
    draft.settle()
    return "code.x_max"


def step(draft: Draft) -> str | None:
    """Another step of the image's codes."""
    draft.steps[0]["code"]["step"] *= _float(draft.dice)
    draft.settle()
    return "code.step"


def walk(draft: Draft) -> str | None:
    """Another stride, padding or dilation of a convolution or pool."""
    dice = draft.dice
    found = [g["geometry"] for s in draft.steps for g in s.get("groups", [])]
    pools = [s["geometry"] for s in draft.steps if s["op"] in ("max_pool", "sum_pool")]
    averages = [s["geometry"] for s in draft.steps if s["op"] == "sum_pool"]
    geometry = dice.choice(found + pools)
    what = dice.choice(("stride", "padding", "dilation"))
    if any(geometry is average for average in averages):
        what = "stride"
    if what == "stride":
        geometry["stride"] = [dice.randint(1, 3), dice.randint(1, 3)]
    elif what == "dilation":
        geometry["dilation"] = [dice.randint(1, 2), dice.randint(1, 2)]
    if what != "stride":  # no more padding than the kernel reaches, or half a pool's window
        kernel, dilation = geometry["kernel"], geometry["dilation"]
        is_pool = any(geometry is pool for pool in pools)
        most = [k // 2 if is_pool else d * (k - 1) for k, d in zip(kernel, dilation)]
        sides = zip(geometry["padding"], (most[0], most[0], most[1], most[1]))
        new = what == "padding"
        geometry["padding"] = [dice.randint(0, n) if new else min(old, n) for old, n in sides]
    draft.resize()
    return f"geometry.{what}"


def kernel(draft: Draft) -> str | None:
    """Another window, of a convolution with the weights for it."""
    dice = draft.dice
    pools = [i for i, s in enumerate(draft.steps) if s["op"] in ("max_pool", "sum_pool")]
    size = [dice.randint(1, 3), dice.randint(1, 4)]
    if pools and dice.random() < 0.3:
        geometry = draft.steps[dice.choice(pools)]["geometry"]
        most = [size[0] // 2] * 2 + [size[1] // 2] * 2
    else:
        i, g = dice.choice(draft.groups())
        old = draft.weight(i, g)
        draft.set_weight(i, g, draft.noise((*old.shape[:2], *size), old.dtype))
        geometry = draft.steps[i]["groups"][g]["geometry"]
        most = [d * (k - 1) for k, d in zip(size, geometry["dilation"]) for _ in (0, 1)]
    geometry["kernel"] = size
    geometry["padding"] = [min(old, n) for old, n in zip(geometry["padding"], most)]
    draft.resize()
    return "geometry.kernel"


def channel_groups(draft: Draft) -> str | None:
    """A dense convolution becomes a grouped one, or the other way."""
    dice = draft.dice
    i, g = dice.choice(draft.groups())
    geometry, old = draft.steps[i]["groups"][g]["geometry"], draft.weight(i, g)
    inputs = old.shape[1] * geometry["groups"]
    number = dice.choice([n for n in range(1, 13) if inputs % n == 0 and len(old) % n == 0])
    shape = (len(old), inputs // number, *old.shape[2:])
    draft.set_weight(i, g, draft.noise(shape, old.dtype))
    geometry["groups"] = number
    return "geometry.groups"


def width(draft: Draft) -> str | None:
    """Another number of neurons of a layer; its readers hear some of them twice, or not."""
    dice = draft.dice
    chosen = []
    for i in draft.convs():
        step = draft.steps[i]
        readers = [(j, draft.steps[j], k) for j, k in draft.readers(step["name"])]
        plain = all(
            (s["op"] == "readout" and s["pool"])
            or (
                s["op"] == "conv"
                and k < len(s["groups"])
                and s["groups"][k]["geometry"]["groups"] == 1
            )
            for _, s, k in readers
        )
        alone = all(g["geometry"]["groups"] == 1 for g in step["groups"])
        if plain and alone and not step["residual"]:
            chosen.append((i, readers))
    if not chosen:
        return None
    i, readers = dice.choice(chosen)
    old = len(draft.weight(i, 0))
    most = dice.choice((4, 20, 70))
    at = torch.tensor([dice.randrange(old) for _ in range(dice.randint(1, most))])
    for name in [n for n in draft.tensors if n.startswith(f"steps.{i}.") and not n.endswith(".r")]:
        draft.tensors[name] = draft.tensors[name][at].contiguous()
    for j, reader, k in readers:
        name = f"steps.{j}.weight" if reader["op"] == "readout" else f"steps.{j}.groups.{k}.weight"
        draft.tensors[name] = draft.tensors[name][:, at].contiguous()
    draft.settle()
    return "shape of a layer"


def classes(draft: Draft) -> str | None:
    """More or fewer logits."""
    prefix = f"steps.{len(draft.steps) - 1}."
    old = len(draft.tensors[prefix + "weight"])
    count = draft.dice.choice((1, 2, 17, 40))
    at = torch.tensor([draft.dice.randrange(old) for _ in range(count)])
    for name in ("weight", "scale", "bias"):
        draft.tensors[prefix + name] = draft.tensors[prefix + name][at].contiguous()
    return "shape of the readout"


def name(draft: Draft) -> str | None:
    """Another name of a step, everywhere."""
    dice = draft.dice
    i = dice.randrange(len(draft.steps))
    old = draft.steps[i]["name"]
    letters = string.ascii_letters + "._ -/%{}äß漢\n\u2028"
    new = "".join(dice.choice(letters) for _ in range(dice.choice((1, 5, 30, 1000))))
    if any(step["name"] == new for step in draft.steps):
        return None
    for step in draft.steps:
        step["sources"] = [new if source == old else source for source in step["sources"]]
    draft.steps[i]["name"] = new
    return "name"


def remarks(draft: Draft) -> str | None:
    """What is only reported."""
    dice = draft.dice
    step = dice.choice([s for s in draft.steps if "info" in s])
    what = dice.choice(("fused", "notes", "effective_bits", "rounding", "search"))
    if what == "fused":
        step["fused"] = ["x.y"] * dice.randint(0, 3)
    elif what == "notes":
        step["info"]["notes"] = ["a note"] * dice.randint(0, 3)
    elif what == "effective_bits":
        step["info"]["effective_bits"] = dice.uniform(1, 16)
    elif what == "rounding" and "rounding" in step["info"]:
        step["info"]["rounding"] = dice.choice(("floor", "nearest"))
    else:
        draft.description["search"] = {"K": {"a": 3}, "accuracy": 0.5}
        return "search"
    return what if what == "fused" else f"info.{what}"


def one_to_one(draft: Draft) -> str | None:
    i, g = draft.dice.choice(draft.groups())
    group = draft.steps[i]["groups"][g]
    group["one_to_one"] = not group["one_to_one"]
    return "one_to_one"


def sizes(draft: Draft) -> str | None:
    """The images that the network was made for are not known, or others."""
    draft.description["fixed_size"] = None
    size = draft.description["input_size"]
    if draft.dice.random() < 0.5 or size is None:
        draft.description["input_size"] = None
    else:
        size[0] = draft.dice.randint(1, 9)
    return "input_size"


def order(draft: Draft) -> str | None:
    """Two steps that do not need each other change places."""
    steps = draft.steps
    free = [i for i in range(1, len(steps) - 1) if steps[i]["name"] not in steps[i + 1]["sources"]]
    free = [i for i in free if i + 1 < len(steps) - 1]
    if not free:
        return None
    i = draft.dice.choice(free)
    draft.reorder([*range(i), i + 1, i, *range(i + 2, len(steps))])
    return "order of steps"


def pool(draft: Draft) -> str | None:
    """A pool between a step and all its readers."""
    dice = draft.dice
    i = dice.randrange(0, len(draft.steps) - 1)
    before = draft.steps[i]
    if any(step["name"] == "new pool" for step in draft.steps):
        return None
    size = [dice.randint(1, 3), dice.randint(1, 3)]
    small = before["code"]["x_max"] <= 32767 // (size[0] * size[1])
    joined = any(step["op"] == "concat" for step in draft.steps)
    op = "sum_pool" if small and not joined and dice.random() < 0.5 else "max_pool"
    padded = op == "max_pool" or not before["code"]["zero"]
    edges = [dice.randint(0, k // 2) if padded else 0 for k in (size[0], size[0], size[1], size[1])]
    new = {
        "op": op,
        "name": "new pool",
        "sources": [before["name"]],
        "code": None,
        "fused": [],
        "geometry": {
            "kernel": size,
            "stride": [dice.choice((1, 1, 2)), 1],
            "padding": edges,
            "dilation": [1, 1],
            "groups": 1,
        },
    }
    for j, k in draft.readers(before["name"]):
        draft.steps[j]["sources"][k] = "new pool"
    draft.insert(i + 1, new)
    draft.resize()
    return "steps: one more"


def runs(draft: Draft) -> str | None:
    """Other channels of the same maps, as many."""
    dice, channels = draft.dice, draft.channels()
    found = [step for step in draft.steps if step.get("runs")]
    if not found:
        return None
    step = dice.choice(found)
    for run in step["runs"]:
        run[1] = dice.randint(0, channels[step["sources"][run[0]]] - run[2])
    dice.shuffle(step["runs"])
    return "runs"


def move(draft: Draft) -> str | None:
    """A map is made larger by other factors, or padded otherwise."""
    dice = draft.dice
    kinds = ("upsample", "pad")
    found = [s["move"] for s in draft.steps if s["op"] == "move" and s["move"]["kind"] in kinds]
    if not found:
        return None
    chosen = dice.choice(found)
    least = kinds.index("pad") - kinds.index(chosen["kind"])
    chosen["numbers"] = [dice.randint(least, 4) for _ in chosen["numbers"]]
    draft.resize()
    return "move.numbers"


def windows(draft: Draft) -> str | None:
    """Other windows of rounded means."""
    dice = draft.dice
    found = [step["windows"] for step in draft.steps if step["op"] == "mean_pool"]
    if not found:
        return None
    chosen = dice.choice(found)
    if dice.random() < 0.3:
        chosen["kind"] = dice.choice(("adaptive", "clipped"))
    chosen["output"] = [dice.choice((None, 1, 2, 5)) for _ in (0, 1)]
    for mode in ("ceil_mode", "include_pad"):
        chosen[mode] = dice.random() < 0.5
    size = [dice.randint(1, 4) for _ in (0, 1)]
    chosen["geometry"] |= {
        "kernel": size,
        "stride": [dice.randint(1, 3) for _ in size],
        "padding": [dice.randint(0, k - 1) for k in size for _ in (0, 1)],
    }
    draft.resize()
    return "windows"


def fewer_branches(draft: Draft) -> str | None:
    """A layer loses its residual or its second synapse group."""
    dice = draft.dice
    found = [
        i for i in draft.convs() if draft.steps[i]["residual"] or len(draft.steps[i]["groups"]) > 1
    ]
    if not found:
        return None
    i = dice.choice(found)
    step = draft.steps[i]
    step["sources"].pop()
    if step["residual"]:
        step["residual"] = False
        del draft.tensors[f"steps.{i}.r"]
        return "residual"
    step["groups"].pop()
    del draft.tensors[f"steps.{i}.groups.1.weight"], draft.tensors[f"steps.{i}.groups.1.m"]
    return "groups"


def more_branches(draft: Draft) -> str | None:
    """A layer gains a residual or a second synapse group from a step in front of it."""
    dice = draft.dice
    i = dice.choice(draft.convs())
    step, channels, sizes = draft.steps[i], draft.channels(), draft.sizes()
    if sizes is None:
        return None
    outputs, first = channels[step["name"]], step["groups"][0]["geometry"]
    places = sizes[step["name"]]
    fitting = [
        s for s in draft.steps[:i] if channels[s["name"]] == outputs and sizes[s["name"]] == places
    ]
    if fitting and not step["residual"]:
        step["sources"].append(dice.choice(fitting)["name"])
        step["residual"] = True
        draft.tensors[f"steps.{i}.r"] = torch.tensor([dice.uniform(-1, 2)])
        return "residual"
    if len(step["groups"]) > 1:
        return None
    size = sizes[step["sources"][0]]
    source = dice.choice([s for s in draft.steps[:i] if sizes[s["name"]] == size])
    # As the first group walks, or a kernel of one that skips as many pixels where nothing is lost.
    kernel, padding = first["kernel"], first["padding"]
    if dice.random() < 0.5:
        alone = {"kernel": [1, 1], "padding": [0] * 4}
        if output_size(first | alone, size) == places:
            kernel, padding = alone["kernel"], alone["padding"]
    inputs = channels[source["name"]]
    number = dice.choice([n for n in range(1, 13) if inputs % n == 0 and outputs % n == 0])
    step["groups"].append(
        {
            "geometry": {
                "kernel": list(kernel),
                "stride": list(first["stride"]),
                "padding": list(padding),
                "dilation": list(first["dilation"]),
                "groups": number,
            },
            "x_min": source["code"]["x_min"],
            "x_max": source["code"]["x_max"],
            "pad_code": source["code"]["zero"],
            "one_to_one": False,
        }
    )
    step["sources"].insert(1, source["name"])
    dtype = draft.weight(i, 0).dtype
    draft.tensors[f"steps.{i}.groups.1.m"] = torch.full((outputs,), _float(dice) * 1e-3)
    draft.set_weight(i, 1, draft.noise((outputs, inputs // number, *kernel), dtype))
    return "groups"


CHANGES = [
    weight, weight, readout_weight, wide_weight, m, m, bias, bias, readout_floats, r, K, K, K,
    limit, step, walk, walk, walk, kernel, channel_groups, width, width, classes, name, remarks,
    one_to_one, sizes, order, pool, fewer_branches, more_branches, more_branches, runs, move,
    windows, windows,
]  # fmt: skip
