"""What steps have in common in a file: their fields and tensors, checked one by one."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry, check_geometry
from fskernel.codes.moves import Move, Run
from fskernel.codes.windows import Windows
from fskernel.network.stored.fields import Fields, shown
from fskernel.network.synapses import Synapses


class StepFields(Fields):
    """The fields of one step: the first are its operation and its name."""

    def __init__(self, spec: object, place: str, ops: Collection[str]):
        super().__init__(spec, place)
        self.op = self.take("op", str)
        if self.op not in ops:
            raise ValueError(f"{place}.op is {shown(self.op)}: expected one of {', '.join(ops)}")
        self.name = self.take("name", str)
        self.place = f"{place} ({shown(self.name)})"


def common_of(fields: StepFields, code: bool = True) -> tuple:
    """Name, sources, code and fused modules, as every step's constructor takes them."""
    sources, fused = fields.take_list("sources", str), fields.take_list("fused", str)
    given = fields.take("code", dict if code else None)
    made = Code.from_fields(Fields(given, f"{fields.place}.code")) if code else None
    return fields.name, sources, made, tuple(fused)


def tensor_of(tensors: dict[str, Tensor], name: str, place: str) -> Tensor:
    """The tensor of this name, which has to be there."""
    if name not in tensors:
        raise ValueError(f"{place}: its tensor '{name}' is missing")
    return tensors[name]


def geometry_of(fields: Fields) -> Geometry:
    """The field "geometry"."""
    given = Fields(fields.take("geometry", dict), f"{fields.place}.geometry")
    pairs = {name: given.take_list(name, int, 2) for name in ("kernel", "stride", "dilation")}
    padding = given.take_list("padding", int, 4)
    groups = given.take("groups", int)
    given.end()
    pairs = {name: tuple(pair) for name, pair in pairs.items()}
    geometry = Geometry(padding=tuple(padding), groups=groups, **pairs)
    check_geometry(geometry, given.place)
    return geometry


def windows_of(fields: Fields) -> Windows:
    """The field "windows"."""
    given = Fields(fields.take("windows", dict), f"{fields.place}.windows")
    output = given.take("output", list)
    modes = {name: given.take(name, bool) for name in ("ceil_mode", "include_pad")}
    windows = Windows(given.take("kind", str), tuple(output), geometry_of(given), **modes)
    given.end()
    windows.check(given.place)
    return windows


def move_of(fields: Fields) -> Move:
    """The field "move"."""
    given = Fields(fields.take("move", dict), f"{fields.place}.move")
    move = Move(given.take("kind", str), tuple(given.take_list("numbers", int)))
    given.end()
    move.check(given.place)
    return move


def runs_of(fields: Fields) -> tuple[Run, ...]:
    """The field "runs", if there is one."""
    given = fields.optional("runs", list)
    if given is None:
        return ()
    for run in given:
        if type(run) is not list or len(run) != 3 or any(type(n) is not int for n in run):
            raise ValueError(
                f"{fields.place}.runs holds {shown(run)}: expected a source's number, its first "
                "channel and how many"
            )
    if not given:
        raise ValueError(f"{fields.place}.runs is empty: leave it out for all channels")
    return tuple(map(tuple, given))


def group_of(fields: Fields, tensors: dict[str, Tensor], prefix: str) -> Synapses:
    """One synapse group, whose tensors' names begin with `prefix`."""
    geometry = geometry_of(fields)
    ints = {name: fields.take(name, int) for name in ("x_min", "x_max", "pad_code")}
    one_to_one = fields.take("one_to_one", bool)
    fields.end()
    weight, m = (tensor_of(tensors, f"{prefix}.{t}", fields.place) for t in ("weight", "m"))
    try:
        return Synapses(weight, m, geometry, one_to_one=one_to_one, **ints)
    except ValueError as error:
        raise ValueError(f"{fields.place}: {error}") from error


def info_of(fields: Fields) -> dict:
    """What the report tells of a step."""
    info = Fields(fields.take("info", dict), f"{fields.place}.info")
    kinds = {"alpha": float, "rounding": str, "weight_bits": int, "effective_bits": float}
    kinds |= {"activation": str, "table_error": float, "fit_rms": float}  # of other functions
    read = {name: info.optional(name, kind) for name, kind in kinds.items()}
    read["notes"] = info.take_list("notes", str)
    info.end()
    return {name: value for name, value in read.items() if value is not None}
