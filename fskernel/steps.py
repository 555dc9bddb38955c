"""The steps of a converted network: what one layer does to integer activations.

A step reads and gives NHWC-contiguous integer tensors and calls one function of a backend:
`fskernel.ops` (the kernels) or an oracle of `fskernel.reference`, which share their signatures.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fskernel.float_environment import in_float_environment
from fskernel.maps import ByteMap, Halo
from fskernel.synapses import Geometry, Synapses, Watched


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

    def pooled(self, n: int) -> Code:
        """The sum of n such integers, standing for their mean."""
        return Code("graded", self.step / n, n * self.x_min, n * self.x_max, zero=n * self.zero)


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
    def forward(self, x: Tensor, backend) -> Tensor:
        return backend.encode(x, 1.0 / self.code.step, limit=self.code.x_max)

    @classmethod
    def from_spec(cls, spec: dict, tensors: dict[str, Tensor]) -> EncodeStep:
        return cls(spec["name"], spec["sources"], Code(**spec["code"]), spec["fused"])


class ConvStep(Step):
    """One FS layer, or (code.K == 0) an affine layer with graded output.

    Args:
        groups: one or two synapse groups, in the order of `sources`.
        bias: float32 [O], in units of the last threshold, with the 0.5 of rounding "nearest".
        r: float32 [1], step of the residual / step of the output; then the last of `sources` is
            the residual branch.
        info: alpha, rounding and effective weight bits, for the report.
    """

    op = "conv"
    # What conversion multiplied the membranes of each channel by, float64 [O], or None; needed to
    # compare words with the float network, not to run.
    channel_scale: Tensor | None = None

    def __init__(self, name, sources, code, fused, groups: list[Synapses], bias, r, info: dict):
        super().__init__(name, sources, code, fused)
        self.groups = nn.ModuleList(groups)
        self.register_buffer("bias", bias)
        self.register_buffer("r", r)
        self.info = dict(info)
        for what, tensor in [
            ("bias", bias),
            ("r", r),
            *((f"m{i}", g.m) for i, g in enumerate(groups)),
        ]:
            if tensor is not None and tensor.dtype != torch.float32:
                raise ValueError(f"{what} of '{name}' is {tensor.dtype}: expected float32")

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
    ) -> tuple[Tensor | ByteMap, Tensor]:
        n = len(self.groups)
        kept = {} if halo is None else {"halo": halo}  # no option of oracles
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
        kept = {"bias": self.bias, "r": self.r}
        super()._apply(fn, recurse)
        for name, old in kept.items():  # .half() and .double() leave the contract's floats alone
            new = getattr(self, name)
            if old is not None and new.dtype != old.dtype:
                setattr(self, name, old.to(new.device))
        if self.r is not None and self.r.is_cuda:  # the host reads it before every launch
            self.r = kept["r"].cpu()
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
        }

    @classmethod
    def from_spec(cls, spec: dict, tensors: dict[str, Tensor]) -> ConvStep:
        groups = []
        for i, g in enumerate(spec["groups"]):
            geometry = Geometry(**{k: _tuple(v) for k, v in g["geometry"].items()})
            groups.append(
                Synapses(
                    tensors[f"groups.{i}.weight"],
                    tensors[f"groups.{i}.m"],
                    geometry,
                    x_min=g["x_min"],
                    x_max=g["x_max"],
                    pad_code=g["pad_code"],
                    one_to_one=g["one_to_one"],
                )
            )
        return cls(
            spec["name"],
            spec["sources"],
            Code(**spec["code"]),
            spec["fused"],
            groups,
            tensors["bias"],
            tensors["r"] if spec["residual"] else None,
            spec["info"],
        )


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
    def from_spec(cls, spec: dict, tensors: dict[str, Tensor]) -> PoolStep:
        geometry = Geometry(**{k: _tuple(v) for k, v in spec["geometry"].items()})
        return cls(
            spec["name"], spec["sources"], Code(**spec["code"]), spec["fused"], geometry, spec["op"]
        )


class ConcatStep(Step):
    """Words of one step size, side by side along the channels."""

    op = "concat"

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 3)

    @classmethod
    def from_spec(cls, spec: dict, tensors: dict[str, Tensor]) -> ConcatStep:
        return cls(spec["name"], spec["sources"], Code(**spec["code"]), spec["fused"])


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

    def _apply(self, fn, recurse=True):
        kept = {"scale": self.scale, "bias": self.bias}
        super()._apply(fn, recurse)
        for name, old in kept.items():
            new = getattr(self, name)
            if new.dtype != old.dtype:
                setattr(self, name, old.to(new.device))
        return self

    def spec(self) -> dict:
        return super().spec() | {"pool": self.pool, "info": self.info}

    @classmethod
    def from_spec(cls, spec: dict, tensors: dict[str, Tensor]) -> ReadoutStep:
        return cls(
            spec["name"],
            spec["sources"],
            spec["fused"],
            tensors["weight"],
            tensors["scale"],
            tensors["bias"],
            spec["pool"],
            spec["info"],
        )


STEPS = {
    "encode": EncodeStep,
    "conv": ConvStep,
    "max_pool": PoolStep,
    "sum_pool": PoolStep,
    "concat": ConcatStep,
    "readout": ReadoutStep,
}


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def multiplier(scale: Tensor, step_in: float, step_out: float) -> Tensor:
    """M of the contract: weight_scale*step_in/step_out in float64, rounded to float32 once."""
    return (scale.to(torch.float64) * step_in / step_out).to(torch.float32)


def threshold_bias(bias: Tensor, step_out: float, offset: float | Tensor) -> Tensor:
    """B of the contract: bias/step_out + offset in float64, rounded to float32 once."""
    return (bias.to(torch.float64) / step_out + offset).to(torch.float32)


def ratio(step_residual: float, step_out: float) -> Tensor:
    """R of the contract, float32 [1]."""
    value = step_residual / step_out
    if not math.isfinite(value):
        raise ValueError(f"the residual's step {step_residual} over {step_out} is not finite")
    return torch.tensor([value], dtype=torch.float64).to(torch.float32)
