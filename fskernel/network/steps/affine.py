"""The steps with synapses, and the encoder in front of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fskernel.codes.fitted import train_lines
from fskernel.codes.geometry import Walk, fan_out
from fskernel.codes.neuron import GRADED_LIMIT
from fskernel.codes.weights import group_macs
from fskernel.kernels import ops
from fskernel.kernels.byte_maps import ByteMap, Halo
from fskernel.network.steps.step import Step, array_of
from fskernel.network.stored.fields import Fields
from fskernel.network.stored.step_fields import common_of, group_of, info_of, tensor_of
from fskernel.network.synapses import Synapses
from fskernel.torch_rules.float_environment import in_float_environment


class EncodeStep(Step):
    """The image as graded values: float [N, C, H, W] -> int16 [N, H, W, C]."""

    op = "encode"

    @in_float_environment
    def forward(self, x: Tensor, backend, halo: Halo | None = None) -> Tensor | ByteMap:
        return backend.encode(x, 1.0 / self.code.step, limit=self.code.x_max, halo=halo)

    def run(self, inputs, backend, *, plane_bits=0, halo=None):
        return self(inputs[0], backend, halo=halo), None

    def kind(self) -> str:
        return "input"

    def why_no_spikes(self) -> str:
        return "is the image, which enters as graded values and has no spikes"

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        return plan.encode(self.name, in_channels, 1.0 / self.code.step, self.code.x_max)

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> EncodeStep:
        return cls(*common_of(fields))


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
        table: float32 [1, 2, S], or [O, 2, S], of shaped neurons (`codes/shape.py`): their bias, m
            and r are in segments of it. None: the neurons are ReLUs.
        fitted: float32 [3, K], thresholds, resets and what spikes are worth, of fitted neurons
            (`codes/fitted.py`), whose code is of the kind "fitted": their bias, m and r are in the
            units of the thresholds. None: the neurons are of another kind.
    """

    op = "conv"
    affine = True
    # What conversion multiplied the membranes of each channel by, float64 [O], or None; needed to
    # compare words with the float network, not to run.
    channel_scale: Tensor | None = None

    def __init__(
        self,
        name,
        sources,
        code,
        fused,
        groups: list[Synapses],
        bias,
        r,
        info: dict,
        top=None,
        table=None,
        fitted=None,
    ):
        super().__init__(name, sources, code, fused)
        self.groups = nn.ModuleList(groups)
        self.register_buffer("bias", bias)
        self.register_buffer("r", r)
        self.register_buffer("top", top)
        self.register_buffer("table", table)
        self.register_buffer("fitted", fitted)
        self.info = dict(info)

    @property
    def out_channels(self) -> int:
        """Number of neurons at one position."""
        return self.groups[0].out_channels

    @property
    def spiking(self) -> bool:
        """Whether it has neurons; else it gives graded values."""
        return self.code.K > 0

    @property
    def limit(self) -> int:
        """Of graded output."""
        return GRADED_LIMIT if self.spiking else self.code.x_max

    @property
    def weights(self) -> list[Tensor]:
        """The integer weights of its synapse groups."""
        return [group.weight for group in self.groups]

    def run(self, inputs, backend, *, plane_bits=0, halo=None):
        return self(*inputs, backend=backend, plane_bits=plane_bits, halo=halo)

    def output_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        return self.groups[0].geometry.output_size(*sizes[0])

    def meeting(self, sizes: list[tuple[int, int]]) -> set[tuple[int, int]]:
        met = {g.geometry.output_size(*s) for g, s in zip(self.groups, sizes, strict=False)}
        return met if self.r is None else met | {sizes[-1]}

    def why_no_spikes(self) -> str:
        return (
            "gives graded values, having no ReLU, and no spikes; "
            'converted with bottleneck="spiking" it has neurons'
        )

    @property
    def on_tensor_cores(self) -> bool:
        """Whether a GPU computes it on tensor cores."""
        on_tensor_cores = ops.compiled().cuda_on_tensor_cores
        return all(on_tensor_cores(group.geometry.as_ints()) for group in self.groups)

    def kind(self) -> str:
        parts = ["FS neurons" if self.spiking else "graded values"]
        if self.table is not None:
            parts[0] = f"FS neurons, {self.info.get('activation', 'shaped')}"
        elif self.fitted is not None:
            parts[0] = f"fitted FS neurons, {self.info.get('activation', 'not known')}"
        elif self.spiking and self.code.zero:
            parts[0] += " with an offset"
        if len(self.groups) > 1:
            parts.append(f"{len(self.groups)} synapse groups")
        if self.r is not None:
            parts.append("residual")
        return ", ".join(parts)

    def dense_macs(self, size: tuple[int, int]) -> int:
        """Multiply-accumulates of the dense layer, for an output of this size (`group_macs`)."""
        return sum(group_macs(group, math.prod(size)) for group in self.groups)

    def synapses_of(self, i: int, chain: list[Walk], height: int, width: int):
        """How many synapses leave each position of what it reads: a product of rows and columns.

        Args:
            i: of what it reads; behind the synapse groups, the residual.
            chain: average-pools between the spikes and the layer.

        Returns:
            int64 [height] and int64 [width].
        """
        if i == len(self.groups):
            return fan_out(chain, height, width)
        group = self.groups[i]
        rows, cols = fan_out([*chain, group.geometry], height, width)
        return rows * group.fan_out, cols

    def macs_of(self, i: int, size: tuple[int, int]) -> int:
        """Multiply-accumulates spent on what it reads, of this size, without those in padding."""
        if i == len(self.groups):
            return math.prod(size) * self.out_channels
        group = self.groups[i]
        rows, cols = fan_out([group.geometry], *size)
        return int(rows.sum()) * int(cols.sum()) * group.in_channels * group.fan_out

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        groups = []
        for i, group in enumerate(self.groups):
            kept.append(group.pack().numpy())
            m = array_of(group.m, torch.float32, f"m of synapse group {i} of '{self.name}'")
            groups.append((kept[-1], m, group.geometry.as_ints(group.pad_code)))
        return plan.conv(
            self.name,
            inputs,
            groups,
            array_of(self.bias, torch.float32, f"bias of '{self.name}'"),
            None if self.r is None else float(self.r),
            self.code.bits,
            self.limit,
            *(
                None
                if given is None
                else array_of(given, torch.float32, f"{what} of '{self.name}'")
                for what, given in self._of_neurons().items()
            ),
            *(() if self.fitted is None else (self.code.zero,)),
        )

    def _of_neurons(self) -> dict[str, Tensor | None]:
        """Tensors of the neurons by their names; of fitted ones where there are some."""
        fitted = {} if self.fitted is None else {"fitted": self.fitted}
        return {"top": self.top, "table": self.table} | fitted

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
        residual = (inputs[n], self.r) if self.r is not None else None
        return backend.conv(
            list(zip(inputs[:n], self.groups, strict=True)),
            self.bias,
            K=self.code.bits,
            limit=self.limit,
            residual=residual,
            plane_bits=plane_bits,
            halo=halo,
            top=self.top,
            step=self.code.step if floats else None,
            count=count,
            **({} if self.table is None else {"table": self.table}),
            **({} if self.fitted is None else {"fitted": self.fitted, "zero": self.code.zero}),
        )

    def trains(self, inputs: list[Tensor], backend) -> Tensor:
        """The trains of fitted neurons, which their codes do not tell: the layer fires once more.

        Args:
            inputs: what it reads. backend: as of `run`.

        Returns:
            Words [N, H, W, O] of the K steps, uint8 for K <= 8, else int16: z(t) is bit K-t, also
            of 16 steps, whose first one then is the sign.
        """
        n = len(self.groups)
        return backend.conv(
            list(zip(inputs[:n], self.groups, strict=False)),
            self.bias,
            K=self.code.K,
            residual=None if self.r is None else (inputs[n], self.r),
            count=False,
            fitted=train_lines(self.fitted),
            zero=0,
        )[0]

    def __setstate__(self, state):
        super().__setstate__(state)
        for name in ("table", "fitted"):  # of which older pickles hold none
            self._buffers.setdefault(name, None)

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
            # Only where there are any: a version that does not know them refuses the file.
            **({} if self.top is None else {"ceilings": True}),
            **({} if self.table is None else {"shaped": True}),
            **({} if self.fitted is None else {"fitted": True}),
        }

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> ConvStep:
        return cls(*common_of(fields), *cls.parts_of(fields, tensors))

    @staticmethod
    def parts_of(fields: Fields, tensors: dict[str, Tensor]) -> tuple:
        """Groups, bias, r, info, top, table and fitted lines, as a file has them."""
        groups = [
            group_of(Fields(group, f"{fields.place}.groups.{i}"), tensors, f"groups.{i}")
            for i, group in enumerate(fields.take("groups", list))
        ]
        bias = tensor_of(tensors, "bias", fields.place)
        r = tensor_of(tensors, "r", fields.place) if fields.take("residual", bool) else None
        capped = fields.optional("ceilings", bool)
        top = tensor_of(tensors, "top", fields.place) if capped else None
        shaped = fields.optional("shaped", bool)
        table = tensor_of(tensors, "table", fields.place) if shaped else None
        own = fields.optional("fitted", bool)
        fitted = tensor_of(tensors, "fitted", fields.place) if own else None
        return groups, bias, r, info_of(fields), top, table, fitted


class ReadoutStep(Step):
    """Linear readout to float logits, with the global average pool in front if `pool`.

    Args:
        weight: int8 or int16 [O, F], F in NHWC order.
        scale: float64 [O], weight scale * input step. The multiplier of the contract is
            scale / (number of positions), divided in float64 and rounded to float32 once; it is
            kept in this form because the number of positions depends on the image.
        bias: float32 [O].
    """

    op = "readout"
    affine = True

    def __init__(self, name, sources, fused, weight, scale, bias, pool: bool, info: dict):
        super().__init__(name, sources, None, fused)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.pool, self.info = pool, dict(info)

    @in_float_environment
    def forward(self, x: Tensor, backend) -> Tensor:
        m = self.multiplier(x.shape[1] * x.shape[2])
        return backend.readout(x, self.weight, m, self.bias, pool=self.pool)

    def multiplier(self, positions: int) -> Tensor:
        """What one unit of the dot product is worth, float32 [O], for maps of so many positions."""
        positions = max(positions, 1) if self.pool else 1
        # By a tensor, because torch multiplies by the reciprocal of a number on a GPU.
        return (self.scale / torch.full_like(self.scale, positions)).to(torch.float32)

    @property
    def weights(self) -> list[Tensor]:
        """Its integer weights."""
        return [self.weight]

    def output_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        return 1, 1

    def kind(self) -> str:
        return "readout"

    def why_no_spikes(self) -> str:
        return "is the readout, which gives logits and no spikes"

    def dense_macs(self, size: tuple[int, int]) -> int:
        """As of a ConvStep."""
        return self.weight.numel()

    def synapses_of(self, i: int, chain: list[Walk], height: int, width: int):
        """As of a ConvStep.

        Every position is summed: a spike reaches each logit once, however pooled before.
        """
        ones = [torch.ones(n, dtype=torch.int64) for n in (height, width)]
        reach = fan_out(chain, height, width) if chain else ones
        rows, cols = ((r > 0).to(torch.int64) for r in reach)
        return rows * self.weight.shape[0], cols

    def macs_of(self, i: int, size: tuple[int, int]) -> int:
        """As of a ConvStep."""
        return self.weight.numel()

    def add_to(self, plan, inputs: list[int], in_channels: int, kept: list) -> int:
        weight = self.weight.contiguous()
        if weight.dtype not in (torch.int8, torch.int16):
            raise ValueError(f"weight of '{self.name}' is {weight.dtype}: expected int8 or int16")
        kept.append(weight.view(-1).view(torch.uint8).numpy())
        return plan.readout(
            self.name,
            inputs[0],
            kept[-1],
            weight.element_size(),
            array_of(self.scale, torch.float64, f"scale of '{self.name}'"),
            array_of(self.bias, torch.float32, f"bias of '{self.name}'"),
            self.pool,
        )

    def spec(self) -> dict:
        return super().spec() | {"pool": self.pool, "info": self.info}

    @classmethod
    def from_fields(cls, fields: Fields, tensors: dict[str, Tensor]) -> ReadoutStep:
        name, sources, _, fused = common_of(fields, code=False)
        stored = (tensor_of(tensors, t, fields.place) for t in ("weight", "scale", "bias"))
        return cls(name, sources, fused, *stored, fields.take("pool", bool), info_of(fields))
