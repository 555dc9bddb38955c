"""Changes that somebody may make who wants to break what reads the file, or who made a mistake.

As those of `legal`, but they take any draft, also one that is damaged already: what does not find
what it wants to change returns None.
"""

from __future__ import annotations

import copy
import json

import torch

from .draft import Draft

INTEGERS = (
    -(2**63) - 1, -(2**63), -(2**31), -32769, -32768, -8192, -129, -128, -2, -1, 0, 1, 2, 3, 4, 7,
    8, 9, 14, 15, 16, 17, 31, 127, 128, 255, 256, 4095, 32767, 32768, 65535, 65536, 2**24,
    2**24 + 1, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**61, 2**63 - 1, 2**63, 2**64, 10**30,
)  # fmt: skip
FLOATS = (
    float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, 0.5, 8.0, -1.0, 1e-323, 1e-46, 1e-38,
    1e30, 1e38, 1e300, 2.0**31, 1.7976931348623157e308,
)  # fmt: skip
ODD = (None, True, False, "", "8", "a", "steps", "\x00", "\ud800", [], {}, [[]], [1], [1, 1],
       [0] * 4, [2**40] * 2, {"K": 8}, "x" * 100_000)  # fmt: skip
DTYPES = (
    torch.int8, torch.int16, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.bool, torch.float8_e4m3fn, torch.uint16, torch.complex64,
)  # fmt: skip
UNKNOWN = ("unknown", "k", "Geometry", "__class__", "self", "steps", "")


def other(value: object, draft: Draft) -> object:
    """Another value for a field: mostly of the same type, often near the old one."""
    dice = draft.dice
    kind = dice.random()
    if kind < 0.12:
        return copy.deepcopy(dice.choice(ODD))
    if kind < 0.2 and isinstance(value, (int, float)):
        return dice.choice((str(value), [value], float(value), value > 0, {"value": value}))
    if isinstance(value, bool):
        return dice.choice((not value, not value, int(value), 2))
    if isinstance(value, int):
        near = (value - 1, value + 1, value + 2, 2 * value, value // 2, -value)
        return dice.choice((*near, *near, *INTEGERS))
    if isinstance(value, float):
        return dice.choice((value * 2, value / 2, -value, value * 1e30, int(value), *FLOATS))
    if isinstance(value, str):
        return dice.choice((value + "x", value[:-1], value.upper(), "words", "graded", "conv"))
    if isinstance(value, list):
        new = copy.deepcopy(value)
        how = dice.choice(("shorter", "longer", "reversed", "empty", "element"))
        if how == "shorter" and new:
            new.pop(dice.randrange(len(new)))
        elif how == "longer":
            new.append(copy.deepcopy(dice.choice(new)) if new else 1)
        elif how == "reversed":
            new.reverse()
        elif how == "element" and new:
            at = dice.randrange(len(new))
            new[at] = other(new[at], draft)
        else:
            new.clear()
        return new
    if isinstance(value, dict):
        new = copy.deepcopy(value)
        if new:
            key = dice.choice(list(new))
            new[key] = other(new[key], draft)
        return new
    return dice.choice((0, 1, 2**31, [5, 7], {}, "a"))


def field(draft: Draft) -> str | None:
    """One value of the description; every field has the same share."""
    dice = draft.dice
    by_name: dict[str, list] = {}
    for name, held, key in draft.places():
        by_name.setdefault(name, []).append((held, key))
    if not by_name:
        return None
    name = dice.choice(list(by_name))
    held, key = dice.choice(by_name[name])
    how = dice.random()
    if how < 0.15:  # what stands there in another step
        other_held, other_key = dice.choice(by_name[name])
        held[key] = copy.deepcopy(other_held[other_key])
    elif how < 0.2:
        del held[key]
        return f"{name} (missing)" if isinstance(held, dict) else name
    else:
        held[key] = other(held[key], draft)
    return name


def nested(draft: Draft) -> str | None:
    """A value that is nested deeper than Python or a parser likes."""
    places = list(draft.places())
    if not places:
        return None
    _, held, key = draft.dice.choice(places)
    held[key] = mark = f"nested {draft.dice.random()}"
    depth = draft.dice.choice((3, 900, 100_000))
    left, right = draft.dice.choice((("[", "]"), ('{"a":', "}")))
    deep = left * depth + "1" + right * depth
    draft.text.append(lambda text: text.replace(json.dumps(mark), deep))
    return "nested values"


def unknown_key(draft: Draft) -> str | None:
    dicts = [draft.description] + [held[key] for _, held, key in draft.places()]
    dicts = [d for d in dicts if isinstance(d, dict)]
    if not dicts:
        return None
    draft.dice.choice(dicts)[draft.dice.choice(UNKNOWN)] = draft.dice.choice((1, None, "a", [1]))
    return "unknown key"


def _steps(draft: Draft) -> list | None:
    steps = draft.description.get("steps") if isinstance(draft.description, dict) else None
    whole = isinstance(steps, list) and steps and all(isinstance(s, dict) for s in steps)
    return steps if whole else None


def order(draft: Draft) -> str | None:
    """Steps moved, twice, left out, with their tensors or without."""
    steps, dice = _steps(draft), draft.dice
    if not steps:
        return None
    at = list(range(len(steps)))
    how = dice.choice(("swap", "twice", "drop", "drop last", "append", "shuffle", "many"))
    i, j = dice.choice(at), dice.choice(at)
    if how == "swap":
        at[i], at[j] = at[j], at[i]
    elif how == "twice":
        at.insert(i, i)
    elif how == "drop":
        at.pop(i)
    elif how == "drop last":
        at.pop()
    elif how == "append":
        at.append(i)
    elif how == "shuffle":
        dice.shuffle(at)
    else:
        at[i:i] = [i] * 40
    if dice.random() < 0.8:
        draft.reorder(at)
    else:
        draft.description["steps"] = [copy.deepcopy(steps[k]) for k in at]
    if dice.random() < 0.5:  # each with a name of its own
        for k, step in enumerate(draft.description["steps"]):
            if at.count(at[k]) > 1:
                step["name"] = f"{step.get('name')} {k}"
    return f"order of steps ({how})"


def sources(draft: Draft) -> str | None:
    """A step reads another one, one more, or one less."""
    steps, dice = _steps(draft), draft.dice
    if not steps:
        return None
    i = dice.randrange(len(steps))
    read, names = steps[i].get("sources"), [step.get("name") for step in steps]
    if not isinstance(read, list):
        return None
    how = dice.choice(("other", "other", "other", "earlier", "earlier", "more", "less", "itself"))
    if how == "more":
        read.insert(dice.randint(0, len(read)), dice.choice(names))
    elif read and how == "less":
        read.pop(dice.randrange(len(read)))
    elif read:
        name = names[dice.randrange(i)] if how == "earlier" and i else dice.choice(names)
        read[dice.randrange(len(read))] = names[i] if how == "itself" else name
    return "sources"


def groups(draft: Draft) -> str | None:
    """More or fewer synapse groups, with tensors for them."""
    steps, dice = _steps(draft), draft.dice
    convs = [i for i, s in enumerate(steps or ()) if isinstance(s.get("groups"), list)]
    convs = [i for i in convs if steps[i]["groups"] and isinstance(steps[i].get("sources"), list)]
    if not convs:
        return None
    i = dice.choice(convs)
    held, read = steps[i]["groups"], steps[i]["sources"]
    if dice.random() < 0.2:
        held.pop()
        return "groups"
    for g in range(len(held), len(held) + dice.choice((1, 2, 7, 200))):
        held.append(copy.deepcopy(held[0]))
        read[:0] = read[:1]
        for what in ("weight", "m"):
            one = draft.tensors.get(f"steps.{i}.groups.0.{what}")
            if one is not None:
                draft.tensors[f"steps.{i}.groups.{g}.{what}"] = one
    return "groups"


def branches(draft: Draft) -> str | None:
    """A residual from anywhere, or none where there was one."""
    steps, dice = _steps(draft), draft.dice
    convs = [i for i, s in enumerate(steps or ()) if isinstance(s.get("sources"), list)]
    convs = [i for i in convs if "residual" in steps[i]]
    if not convs:
        return None
    i = dice.choice(convs)
    step = steps[i]
    step["residual"] = not step["residual"]
    if step["residual"]:
        step["sources"].append(dice.choice(steps).get("name"))
        draft.tensors[f"steps.{i}.r"] = torch.rand(dice.choice((1, 1, 1, 0, 2)))
    elif step["sources"] and dice.random() < 0.5:
        step["sources"].pop()
    return "residual"


def doubled(draft: Draft) -> str | None:
    """Concatenations of concatenations, until the channels overflow."""
    steps, dice = _steps(draft), draft.dice
    if not steps:
        return None
    i = dice.randrange(len(steps))
    if not isinstance(steps[i].get("name"), str):
        return None
    last = steps[i]["name"]
    for n in range(dice.choice((1, 5, 40, 64))):
        step = {"op": "concat", "name": f"twice {n}", "sources": [last, last]}
        steps.insert(i + 1 + n, step | {"code": steps[i].get("code"), "fused": []})
        last = step["name"]
    kept = draft.tensors
    draft.tensors = {}
    for name, tensor in kept.items():
        number = name.split(".")[1] if name.startswith("steps.") else ""
        at = int(number) if number.isdecimal() else -1  # an earlier change may have renamed it
        moved = f"steps.{at + n + 1}." + name.split(".", 2)[2] if at > i else name
        draft.tensors[moved] = tensor
    for step in steps[i + n + 2 :]:
        if isinstance(step.get("sources"), list) and dice.random() < 0.5:
            step["sources"] = [last if s == steps[i]["name"] else s for s in step["sources"]]
    return "concatenations"


def values(draft: Draft) -> str | None:
    """A tensor's elements: extremes, infinities, NaN."""
    dice = draft.dice
    names = [name for name, tensor in draft.tensors.items() if tensor.numel()]
    if not names:
        return None
    name = dice.choice(names)
    old = draft.tensors[name]
    try:
        if old.is_floating_point():
            choice = [*FLOATS, torch.finfo(old.dtype).max, torch.finfo(old.dtype).tiny]
        else:
            info = torch.iinfo(old.dtype)
            choice = [info.min, info.max, info.min + 1, 0, 1]
        new = old.clone().flatten()
        if dice.random() < 0.5:
            new[dice.randrange(len(new))] = dice.choice(choice)
        else:
            new.fill_(dice.choice(choice))
    except (TypeError, RuntimeError):  # a type for which torch has no limits, or no way to fill
        return None
    draft.tensors[name] = new.reshape(old.shape)
    return f"tensor {_kind(name)}: values"


def dtype(draft: Draft) -> str | None:
    if not draft.tensors:
        return None
    name = draft.dice.choice(list(draft.tensors))
    new = draft.dice.choice(DTYPES)
    old = draft.tensors[name]
    draft.tensors[name] = old.view(new) if _viewable(old, new, draft) else old.to(new)
    return f"tensor {_kind(name)}: dtype"


def _viewable(old: torch.Tensor, new: torch.dtype, draft: Draft) -> bool:
    return new.itemsize == old.element_size() and draft.dice.random() < 0.5


def shape(draft: Draft) -> str | None:
    """More, fewer, other dimensions and elements."""
    dice = draft.dice
    if not draft.tensors:
        return None
    name = dice.choice(list(draft.tensors))
    old = draft.tensors[name]
    axis = dice.randrange(old.dim()) if old.dim() else 0
    how = dice.choice(("shorter", "longer", "one", "none", "flat", "turned", "more", "scalar"))
    if old.dim() == 0 or how == "more":
        new = old[None]
    elif how == "shorter":
        new = old.narrow(axis, 0, max(old.shape[axis] - 1, 0))
    elif how == "longer" and old.shape[axis]:
        new = torch.cat((old, old.narrow(axis, 0, 1)), axis)
    elif how == "one":
        new = old.narrow(axis, 0, min(old.shape[axis], 1))
    elif how == "none":
        new = old.narrow(axis, 0, 0)
    elif how == "flat":
        new = old.flatten()
    elif how == "scalar" and old.numel():
        new = old.flatten()[0]
    else:
        new = old.transpose(0, -1)
    draft.tensors[name] = new.contiguous()
    return f"tensor {_kind(name)}: shape"


def tensors(draft: Draft) -> str | None:
    """Tensors missing, too many, under other names, exchanged."""
    dice = draft.dice
    if not draft.tensors:
        return None
    name, second = dice.choice(list(draft.tensors)), dice.choice(list(draft.tensors))
    how = dice.choice(("missing", "extra", "renamed", "exchanged", "copied"))
    if how == "missing":
        del draft.tensors[name]
    elif how == "extra":
        new = (
            "x",
            "steps.0.bias",
            "steps.1.r",
            "steps.99.m",
            "steps.1.groups.9.m",
            "steps.01.bias",
        )
        draft.tensors[dice.choice(new)] = torch.ones(1)
    elif how == "renamed":
        draft.tensors[dice.choice((name + "x", name.upper(), "steps." + name))] = draft.tensors.pop(
            name
        )
    elif how == "exchanged":
        both = draft.tensors[name], draft.tensors[second]
        draft.tensors[second], draft.tensors[name] = both
    else:
        draft.tensors[second] = draft.tensors[name]
    return f"tensors: {how}"


def text(draft: Draft) -> str | None:
    """The description's text, or the metadata beside it."""
    dice = draft.dice
    how = dice.choice(("cut", "twice", "spaces", "other", "no checksum", "other checksum", "more"))
    if how == "cut":
        draft.text.append(lambda text: text[: len(text) // 2])
    elif how == "twice":  # JSON takes the last of two equal keys
        key, value = dice.choice(
            (("format", 2), ("K", 9), ("x_max", 3), ("op", "conv"), ("steps", []), ("groups", 1))
        )
        twice = f'{json.dumps(key)}: {json.dumps(value)}, "{key}"'
        draft.text.append(lambda text: text.replace(json.dumps(key), twice, 1))
    elif how == "spaces":
        draft.text.append(lambda text: text.replace(" ", "\n\t ") + "\n")
    elif how == "other":
        new = dice.choice(("", "1", "null", "[]", "{}", '"format"', '{"format": 1}', "\x00", "NaN"))
        draft.text.append(lambda text: new)
    elif how == "no checksum":
        draft.metadata.append(lambda metadata: metadata.pop("sha256", None))
    elif how == "other checksum":
        draft.metadata.append(lambda metadata: metadata.update(sha256="0" * 64))
    else:
        draft.metadata.append(lambda metadata: metadata.update(more="1"))
    return f"text: {how}"


def _kind(name: str) -> str:
    """What a tensor is: weight, m, bias, r, scale."""
    return name.rsplit(".", 1)[-1][:20]


CHANGES = [
    field, field, field, field, field, field, field, field, nested, unknown_key, order, order,
    sources, sources, groups, branches, doubled, values, values, dtype, shape, shape, tensors, text,
]  # fmt: skip
