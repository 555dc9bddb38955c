"""The CUDA kernels without a GPU: their source, run and checked on the host by the emulator.

`Emulated()` has the functions of `fskernel.ops`, so `net.execute(x, Emulated())` runs a whole
network through the emulator. Slow, and of no use for timing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from bench.emulated.build import module
from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry
from fskernel.codes.neuron import GRADED_LIMIT
from fskernel.codes.windows import Windows
from fskernel.kernels import ops
from fskernel.kernels.byte_maps import ByteMap, Halo, numbers_of
from fskernel.network.synapses import Synapses

SOURCES = ("csrc/simt/module.cpp", "csrc/cuda/pack.cpp", "csrc/cuda/tensor_layout.cpp")
READS = ("csrc/*.h", "csrc/cuda/*", "csrc/cuda/kernel/**/*", "csrc/simt/*")

ORDERS = ("forward", "reverse", "random", "greedy")


@functools.cache
def build() -> ModuleType:
    """The kernels and the emulator as a module; compiled in half a minute where they have changed.

    Raises:
        RuntimeError: the compiler refuses it, in the compiler's words.
    """
    return module("emulated_kernels", SOURCES, reads=READS)


class Emulated:
    """The functions of `fskernel.ops` on the emulator; see there for arguments and results.

    Args:
        order: in which the threads run, one of ORDERS.
        late_copies: asynchronous copies arrive when they are waited for, not at once.
        seed: of the random order.
        kernel: forces one of `ops.cuda_kernels()`.

    Attributes:
        last: the kernel that ran last.
    """

    def __init__(
        self, order: str = "forward", late_copies: bool = True, seed: int = 1, kernel: str = ""
    ):
        self.native, self.kernel = build(), kernel
        self.options = (ORDERS.index(order), late_copies, seed)
        self.last = ""
        self._packed: dict[Synapses, tuple[Tensor, Tensor]] = {}

    def _run(self, name: str, *args):
        self.native.set_options(*self.options)
        self.last = name
        return getattr(self.native, name)(*args)

    def packed(self, group: Synapses) -> Tensor:
        """The group's weights as the CUDA kernels read them."""
        kept = self._packed.get(group)
        if kept is None or kept[0] is not group.weight:
            ints = group.geometry.as_ints(group.pad_code)
            packed = self.native.pack(group.weight.numpy(), ints, group.x_min, group.x_max)
            kept = self._packed[group] = group.weight, torch.from_numpy(packed)
        return kept[1]

    def conv(
        self,
        groups: Sequence[tuple[Tensor | ByteMap, Synapses]],
        bias: Tensor,
        *,
        K: int,
        limit: int = GRADED_LIMIT,
        residual: tuple[Tensor | ByteMap, Tensor] | None = None,
        plane_bits: int = 0,
        halo: Halo | None = None,
        top: Tensor | None = None,
        step: float | None = None,
        count: bool = True,
        table: Tensor | None = None,
        fitted: Tensor | None = None,
        zero: int = 0,
    ) -> tuple[Tensor | ByteMap, Tensor]:
        """As `ops.conv`."""
        top, table, fitted = (None if t is None else t.numpy() for t in (top, table, fitted))
        options = top, step or 0.0, table, fitted, zero
        y, counts = self._conv(
            "conv", groups, bias, residual, K, limit, plane_bits, halo, None, options
        )
        return y, counts if count else counts[:0]

    def integrate_and_fire(
        self,
        groups: Sequence[tuple[Tensor, Synapses]],
        bias: Tensor,
        membrane: Tensor,
        *,
        residual: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `ops.integrate_and_fire`."""
        kept = membrane.numpy()
        options = None, 0.0, None, None, 0
        return self._conv(
            "integrate_and_fire", groups, bias, residual, 1, 1, 0, None, kept, options
        )

    def _conv(
        self, what, groups, bias, residual, K, limit, plane_bits, halo, membrane, options
    ) -> tuple[Tensor | ByteMap, Tensor]:
        given = []
        for x, g in groups:
            data, numbers = numbers_of(x)
            ints = g.geometry.as_ints(g.pad_code)
            given.append(
                (data.contiguous().numpy(), self.packed(g).numpy(), g.m.numpy(), ints, numbers)
            )
        res, res_numbers, r = None, [], 0.0
        if residual is not None:
            data, res_numbers = numbers_of(residual[0])
            res, r = data.numpy(), float(residual[1])
        codes = (K, limit, plane_bits, [] if halo is None else list(halo))
        y, counts, name = self._run(
            "conv",
            given,
            bias.numpy(),
            res,
            res_numbers,
            r,
            *codes,
            membrane,
            self.kernel,
            *options,
        )
        self.last = f"{what}/{name}"
        y = torch.from_numpy(y)
        if halo is not None:
            y = ByteMap.of_output(y, *groups[0], K, halo)
        return y, torch.from_numpy(counts)

    def keeps_maps(self, x: Tensor) -> bool:
        """As `ops.keeps_maps`."""
        return self.kernel != "direct"

    def max_pool(self, x: Tensor, geometry: Geometry) -> Tensor:
        """As `ops.max_pool`."""
        return torch.from_numpy(self._run("pool", x.numpy(), geometry.as_ints(), True))

    def sum_pool(self, x: Tensor, geometry: Geometry) -> Tensor:
        """As `ops.sum_pool`."""
        return torch.from_numpy(self._run("pool", x.numpy(), geometry.as_ints(), False))

    def mean_pool(self, x: Tensor, windows: Windows, reads: Code, gives: Code) -> Tensor:
        """As `ops.mean_pool`, which is torch's own operators on every device."""
        self.last = "torch"
        return ops.mean_pool(x, windows, reads, gives)

    def gate(
        self,
        a: Tensor,
        b: Tensor,
        zeros: tuple[int, int],
        m: Tensor,
        bias: Tensor,
        *,
        K: int,
        limit: int = GRADED_LIMIT,
        count: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """As `ops.gate`."""
        given = (a.numpy(), b.numpy(), *zeros, m.numpy(), bias.numpy(), K, limit)
        y, counts = map(torch.from_numpy, self._run("product", *given))
        return y, counts if count else counts[:0]

    def readout(self, x: Tensor, weight: Tensor, m: Tensor, bias: Tensor, *, pool: bool) -> Tensor:
        """As `ops.readout`."""
        given = (x.numpy(), weight.numpy(), m.numpy(), bias.numpy(), pool)
        return torch.from_numpy(self._run("readout", *given))

    def _encode(
        self,
        x: Tensor,
        inv_step: float,
        offset: float,
        K: int,
        limit: int,
        halo: Sequence[int] = (),
    ) -> Tensor:
        x = x.detach()
        whole = torch.as_strided(x, (x.untyped_storage().nbytes() // 4,), (1,), 0)
        return torch.from_numpy(
            self._run("encode", x.numpy(), whole.numpy(), inv_step, offset, K, limit, list(halo))
        )

    def encode(
        self,
        x: Tensor,
        inv_step: float,
        *,
        limit: int = GRADED_LIMIT,
        halo: Halo | None = None,
    ) -> Tensor | ByteMap:
        """As `ops.encode`."""
        y = self._encode(x, inv_step, 0.0, 0, limit, halo or ())
        return y if halo is None else ByteMap.of_image(y, x, halo)

    def encode_words(self, x: Tensor, inv_step: float, offset: float, K: int) -> Tensor:
        """As `ops.encode_words`."""
        return self._encode(x, inv_step, offset, K, 0)

    def synaptic_events(self, words: Tensor, fan_y: Tensor, fan_x: Tensor) -> Tensor:
        """As `ops.synaptic_events`."""
        given = (words.numpy(), fan_y.numpy(), fan_x.numpy())
        return torch.from_numpy(self._run("synaptic_events", *given))
