"""The steps of a converted network: what one layer does to integer activations.

A step reads and gives NHWC-contiguous integer tensors and calls one function of a backend:
`fskernel.ops` (the kernels) or an oracle of `fskernel.reference`, which share their signatures.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fskernel.fields import Fields, shown
from fskernel.float_environment import in_float_environment
from fskernel.maps import ByteMap, Halo
from fskernel.synapses import Geometry, Synapses, Watched, check_geometry


@dataclass(frozen=True)
class Code:
    """What the integers of a tensor mean: real value = (integer - zero) * step.

    kind is "words" (spike words of K steps) or "graded" (signed values); [x_min, x_max] is the
    declared range that packing relies on; zero is not 0 for words with an offset and sums of them.
    """

    kind: str
    step: float
    x_min: int
    x_max: int
    K: int = 0
    zero: int = 0

    @staticmethod
    def words(K: int, alpha: float) -> Code:
        """Spike words of K steps and range alpha."""
        return Code("words", alpha * 2.0**-K, 0, 2**K - 1, K)

    @staticmethod
    def signed_words(K: int, alpha: float) -> Code:
        """Spike words of K steps for values in [-alpha, alpha): the offset is half the range."""
        return Code("words", alpha * 2.0 ** (1 - K), 0, 2**K - 1, K, zero=2 ** (K - 1))

    @staticmethod
    def graded(largest: float, limit: int) -> Code:
        """Signed values whose largest magnitude is `largest`, as integers up to `limit`."""
        return Code("graded", (largest if largest > 0 else 1.0) / limit, -limit, limit)

    @staticmethod
    def real() -> Code:
        """Of a layer without neurons whose membranes, in units of 1, are float output."""
        return Code.graded(32767.0, 32767)

    def of_alpha(self, alpha: float) -> Code:
        """Such a code of words, of this range."""
        return (Code.signed_words if self.zero else Code.words)(self.K, alpha)

    def pooled(self, n: int) -> Code:
        """The sum of n such integers, standing for their mean."""
        return Code("graded", self.step / n, n * self.x_min, n * self.x_max, zero=n * self.zero)

    @staticmethod
    def from_fields(fields: Fields) -> Code:
        """What a file says."""
        ints = {name: fields.take(name, int) for name in ("x_min", "x_max", "K", "zero")}
        code = Code(kind=fields.take("kind", str), step=fields.take("step", float), **ints)
        fields.end()
        return code


class Step(Watched):
    """Common to all steps: a name, the names of the steps it reads, the code it gives."""

    op: str

    def __init__(self, name: str, sources: list[str], code: Code | None, fused: tuple[str, ...]):
        super().__init__()
        self.name, self.sources, self.code, self.fused = name, list(sources), code, tuple(fused)

    def spec(self) -> dict:
        """What, beside the tensors, makes this step (JSON)."""
        return {
            "op": self.op,
            "name": self.name,
            "sources": self.sources,
            "code": asdict(self.code) if self.code else None,
            "fused": list(self.fused),
        }

    def extra_repr(self) -> str:
        return f"{self.name!r}, sources={self.sources}"


class EncodeStep(Step):
    """The picture as graded values: float [N, C, H, W] -> int16 [N, H, W, C]."""

    op = "encode"

    @in_float_environment
    def forward(self, x: Tensor, backend, halo: Halo | None = None) -> Tensor | ByteMap:
        kept = {} if halo is None else {"halo": halo}  # no option of oracles
        return backend.encode(x, 1.0 / self.code.step, limit=self.code.x_max, **kept)

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> EncodeStep:
        return cls(*_common(fields))


class ConvStep(Step):
    """One FS layer, or (code.K == 0) an affine layer with graded output.

    Args:
        groups: one or two synapse groups, in the order of `sources`.
        bias: float32 [O], in units of the last threshold, with the 0.5 of rounding "nearest".
        r: float32 [1], step of the residual / step of the output; then the last of `sources` is
            the residual branch.
        top: float32 [O], the largest word of each neuron, where some stand for a ReLU with a
            ceiling (ReLU6) below the layer's range; None: 2^K - 1 for all.
        info: alpha, rounding and effective weight bits, for the report.
    """

    op = "conv"
    # What conversion multiplied the membranes of each channel by, float64 [O], or None; needed to
    # compare words with the float network, not to run.
    channel_scale: Tensor | None = None

    def __init__(
        self, name, sources, code, fused, groups: list[Synapses], bias, r, info: dict, top=None
    ):
        super().__init__(name, sources, code, fused)
        self.groups = nn.ModuleList(groups)
        self.register_buffer("bias", bias)
        self.register_buffer("r", r)
        self.register_buffer("top", top)
        self.info = dict(info)

    @property
    def out_channels(self) -> int:
        """Number of neurons at one position."""
        return self.groups[0].out_channels

    def forward(
        self,
        *inputs: Tensor | ByteMap,
        backend,
        plane_bits: int = 0,
        halo: Halo | None = None,
        floats: bool = False,
        count: bool = True,
    ) -> tuple[Tensor | ByteMap, Tensor]:
        n = len(self.groups)
        kept = {} if halo is None else {"halo": halo}  # no option of oracles
        if self.top is not None:
            kept["top"] = self.top
        if floats:
            kept["step"] = self.code.step
        if not count:
            kept["count"] = False
        residual = (inputs[n], self.r) if self.r is not None else None
        return backend.conv(
            list(zip(inputs[:n], self.groups, strict=True)),
            self.bias,
            K=self.code.K,
            limit=self.code.x_max if self.code.K == 0 else 32767,
            residual=residual,
            plane_bits=plane_bits,
            **kept,
        )

    def _apply(self, fn, recurse=True):
        r = self.r
        super()._apply(fn, recurse)
        if self.r is not None and self.r.is_cuda:  # the host reads it before every launch
            self.r = r.cpu()
        return self

    def spec(self) -> dict:
        groups = [
            {
                "geometry": g.geometry._asdict(),
                "x_min": g.x_min,
                "x_max": g.x_max,
                "pad_code": g.pad_code,
                "one_to_one": g.one_to_one,
            }
            for g in self.groups
        ]
        return super().spec() | {
            "groups": groups,
            "residual": self.r is not None,
            "info": self.info,
            # Only where there are any: a version that knows no ceilings refuses the file.
            **({} if self.top is None else {"ceilings": True}),
        }

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> ConvStep:
        common = _common(fields)
        groups = [
            _group(Fields(group, f"{fields.place}.groups.{i}"), tensors, f"groups.{i}")
            for i, group in enumerate(fields.take("groups", list))
        ]
        bias = _tensor(tensors, "bias", fields.place)
        r = _tensor(tensors, "r", fields.place) if fields.take("residual", bool) else None
        capped = fields.optional("ceilings", bool)
        top = _tensor(tensors, "top", fields.place) if capped else None
        return cls(*common, groups, bias, r, _info(fields), top)


class PoolStep(Step):
    """Max-pool on codes, or the sum that stands for an average pool."""

    def __init__(self, name, sources, code, fused, geometry: Geometry, kind: str):
        super().__init__(name, sources, code, fused)
        self.geometry, self.op = geometry, kind

    def forward(self, x: Tensor, backend) -> Tensor:
        pool = backend.max_pool if self.op == "max_pool" else backend.sum_pool
        return pool(x, self.geometry)

    def spec(self) -> dict:
        return super().spec() | {"geometry": self.geometry._asdict()}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> PoolStep:
        return cls(*_common(fields), _geometry(fields), fields.op)


class ConcatStep(Step):
    """Words of one step size, side by side along the channels."""

    op = "concat"

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 3)

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> ConcatStep:
        return cls(*_common(fields))


class ReadoutStep(Step):
    """Linear readout to float logits, with the global average pool in front if `pool`.

    Args:
        weight: int8 or int16 [O, F], F in NHWC order.
        scale: float64 [O], weight scale * input step. The multiplier of the contract is
            scale / (number of positions), divided in float64 and rounded to float32 once; it is
            kept in this form because the number of positions depends on the picture.
        bias: float32 [O].
    """

    op = "readout"

    def __init__(self, name, sources, fused, weight, scale, bias, pool: bool, info: dict):
        super().__init__(name, sources, None, fused)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.pool, self.info = pool, dict(info)

    @in_float_environment
    def forward(self, x: Tensor, backend) -> Tensor:
        positions = x.shape[1] * x.shape[2] if self.pool else 1
        # By a tensor, because torch multiplies by the reciprocal of a number on a GPU.
        m = (self.scale / torch.full_like(self.scale, max(positions, 1))).to(torch.float32)
        return backend.readout(x, self.weight, m, self.bias, pool=self.pool)

    def spec(self) -> dict:
        return super().spec() | {"pool": self.pool, "info": self.info}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> ReadoutStep:
        name, sources, _, fused = _common(fields, code=False)
        stored = (_tensor(tensors, t, fields.place) for t in ("weight", "scale", "bias"))
        return cls(name, sources, fused, *stored, fields.take("pool", bool), _info(fields))


STEPS = {
    "encode": EncodeStep,
    "conv": ConvStep,
    "max_pool": PoolStep,
    "sum_pool": PoolStep,
    "concat": ConcatStep,
    "readout": ReadoutStep,
}


def read_step(spec: object, tensors: dict[str, Tensor], place: str) -> Step:
    """The step that `Step.spec` and its tensors describe.

    Args:
        spec: what stands in a file, by whomever.
        tensors: the step's own, by the names of its buffers.
        place: where it stands in the file, for messages.

    Raises:
        ValueError: naming the place and the field that is missing, unknown or of another type, or
            the tensor. What the step is worth among others is for `step_checks` to say.
    """
    fields = StepFields(spec, place)
    step = STEPS[fields.op].from_fields(fields, tensors)
    fields.end()
    return step


class StepFields(Fields):
    """The fields of one step: the first are its operation and its name."""

    def __init__(self, spec: object, place: str):
        super().__init__(spec, place)
        self.op = self.take("op", str)
        if self.op not in STEPS:
            raise ValueError(f"{place}.op is {shown(self.op)}: expected one of {', '.join(STEPS)}")
        self.name = self.take("name", str)
        self.place = f"{place} ({shown(self.name)})"


def _common(fields: StepFields, code: bool = True) -> tuple:
    """Name, sources, code and fused modules, as every step's constructor takes them."""
    sources, fused = fields.take_list("sources", str), fields.take_list("fused", str)
    given = fields.take("code", dict if code else None)
    made = Code.from_fields(Fields(given, f"{fields.place}.code")) if code else None
    return fields.name, sources, made, tuple(fused)


def _tensor(tensors: dict[str, Tensor], name: str, place: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{place}: its tensor '{name}' is missing")
    return tensors[name]


def _geometry(fields: Fields) -> Geometry:
    given = Fields(fields.take("geometry", dict), f"{fields.place}.geometry")
    pairs = {name: given.take_list(name, int, 2) for name in ("kernel", "stride", "dilation")}
    padding = given.take_list("padding", int, 4)
    groups = given.take("groups", int)
    given.end()
    pairs = {name: tuple(pair) for name, pair in pairs.items()}
    geometry = Geometry(padding=tuple(padding), groups=groups, **pairs)
    check_geometry(geometry, given.place)
    return geometry


def _group(fields: Fields, tensors: dict[str, Tensor], prefix: str) -> Synapses:
    geometry = _geometry(fields)
    ints = {name: fields.take(name, int) for name in ("x_min", "x_max", "pad_code")}
    one_to_one = fields.take("one_to_one", bool)
    fields.end()
    weight, m = (_tensor(tensors, f"{prefix}.{t}", fields.place) for t in ("weight", "m"))
    try:
        return Synapses(weight, m, geometry, one_to_one=one_to_one, **ints)
    except ValueError as error:
        raise ValueError(f"{fields.place}: {error}") from error


def _info(fields: Fields) -> dict:
    """What the report tells of a step."""
    info = Fields(fields.take("info", dict), f"{fields.place}.info")
    kinds = {"alpha": float, "rounding": str, "weight_bits": int, "effective_bits": float}
    read = {name: info.optional(name, kind) for name, kind in kinds.items()}
    read["notes"] = info.take_list("notes", str)
    info.end()
    return {name: value for name, value in read.items() if value is not None}


def multiplier(scale: Tensor, step_in: float, step_out: float) -> Tensor:
    """M of the contract: weight_scale*step_in/step_out in float64, rounded to float32 once."""
    return (scale.to(torch.float64) * step_in / step_out).to(torch.float32)


def threshold_bias(bias: Tensor, step_out: float, offset: float | Tensor) -> Tensor:
    """B of the contract: bias/step_out + offset in float64, rounded to float32 once."""
    return (bias.to(torch.float64) / step_out + offset).to(torch.float32)


def tops(ceiling: float, scale: Tensor | None, code: Code, offset: float, channels: int):
    """The largest words of neurons that stop at `ceiling`, float32 [channels]; None: all 2^K - 1.

    top[c] = min(2^K - 1, floor(ceiling * scale[c] / step + offset)), in float64: the word that the
    ceiling itself is rounded to.

    Args:
        ceiling: the largest value of the dense network's activation, in its units.
        scale: float64 [channels], by which membranes of channels are multiplied; None: 1.
        code: of the words. offset: of the rounding, 0 or 0.5.
    """
    scale = torch.ones(channels, dtype=torch.float64) if scale is None else scale.double()
    # An alpha that is made for the ceiling divides it to a whole number but for float64's rounding.
    words = ceiling * scale / code.step * (1 + 2.0**-50)
    top = torch.floor(words + offset).clamp(0, code.x_max)
    return None if bool((top == code.x_max).all()) else top.to(torch.float32)


def ratio(step_residual: float, step_out: float) -> Tensor:
    """R of the contract, float32 [1]."""
    value = step_residual / step_out
    if not math.isfinite(value):
        raise ValueError(f"the residual's step {step_residual} over {step_out} is not finite")
    return torch.tensor([value], dtype=torch.float64).to(torch.float32)
