"""One synapse group: integer weights, their scales, and the geometry that connects two layers."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry, check_geometry
from fskernel.codes.weights import (
    INT32_LIMIT,
    QuantisedWeights,
    largest_sum,
    multiplier,
    quantise_weights,
)
from fskernel.kernels import native, ops
from fskernel.network.watched import Watched, changes

_log = logging.getLogger(__name__)


class Synapses(Watched):
    """A synapse group in its canonical form; kernels see a packed copy made for the current ISA.

    Args:
        weight: int8 or int16 [O, I/groups, kh, kw].
        m: float32 [O], weight_scale*step_in/step_out: turns the integer sum into membrane
            potential in units of the neuron's last threshold. Computed in float64, rounded once.
        geometry: how the group connects the two layers.
        x_min, x_max: declared range of the input codes, the padding's code included.
        pad_code: the code of zero.
        one_to_one: it passes channels on: what `weight` has beside the largest weight of an input
            channel are no synapses.

    Raises:
        ValueError: if a sum could leave 32 bits, or shapes do not agree.
    """

    def __init__(
        self,
        weight: Tensor,
        m: Tensor,
        geometry: Geometry,
        *,
        x_min: int,
        x_max: int,
        pad_code: int = 0,
        one_to_one: bool = False,
    ):
        super().__init__()
        check_geometry(geometry, "geometry")
        if (
            weight.dtype not in (torch.int8, torch.int16)
            or weight.dim() != 4
            or not 0 < weight.numel() < 2**31
        ):
            raise ValueError(
                f"weight is {weight.dtype} of shape {tuple(weight.shape)}: expected int8 or int16 "
                "[O, I/groups, kh, kw], 1 to 2^31 - 1 weights"
            )
        if m.dtype != torch.float32 or m.shape != weight.shape[:1]:
            raise ValueError(
                f"m is {m.dtype} of shape {tuple(m.shape)}: expected float32 [{len(weight)}]"
            )
        if tuple(weight.shape[2:]) != tuple(geometry.kernel) or len(weight) % geometry.groups:
            raise ValueError(f"weight of shape {tuple(weight.shape)} does not fit {geometry}")
        if not (-32768 <= x_min <= 0 <= x_max <= 32767 and x_min <= pad_code <= x_max):
            raise ValueError(f"x_min={x_min}, x_max={x_max}, pad_code={pad_code} are not a range")
        self.geometry, self.one_to_one = geometry, one_to_one
        self.x_min, self.x_max, self.pad_code = int(x_min), int(x_max), int(pad_code)
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("m", m.contiguous())
        self._check_bound()
        self._packed: Tensor | None = None
        self._packed_for: tuple[str, int] | None = None

    @classmethod
    def quantised(
        cls,
        weight: Tensor,
        bits: int,
        geometry: Geometry,
        source: Code,
        step_out: float,
        one_to_one: bool = False,
    ) -> tuple[Synapses, QuantisedWeights]:
        """The group of float weights [O, I/groups, kh, kw], and what `quantise_weights` made.

        Args:
            bits: 8 or 16. source: what the input codes mean; its zero is the padding.
            step_out: the last threshold of the neurons that it leads to.

        Raises:
            ValueError: as `quantise_weights`.
        """
        q = quantise_weights(weight, bits, source.x_min, source.x_max)
        group = cls(
            q.weight,
            multiplier(q.scale, source.step, step_out),
            geometry,
            x_min=source.x_min,
            x_max=source.x_max,
            pad_code=source.zero,
            one_to_one=one_to_one,
        )
        return group, q

    @property
    def out_channels(self) -> int:
        """Number of output channels."""
        return self.weight.shape[0]

    @property
    def fan_out(self) -> int:
        """Neurons at one position that an input channel has synapses to."""
        return 1 if self.one_to_one else self.out_channels // self.geometry.groups

    @property
    def in_channels(self) -> int:
        """Number of input channels, all groups together."""
        return self.weight.shape[1] * self.geometry.groups

    def as_ints(self) -> list[int]:
        """The form the operators take: the geometry's 12 numbers and the declared range's two."""
        return [*self.geometry.as_ints(self.pad_code), self.x_min, self.x_max]

    def _check_bound(self) -> None:
        worst = largest_sum(self.weight, self.x_min, self.x_max)
        if len(worst) and float(worst.max()) >= INT32_LIMIT:
            raise ValueError(
                f"output channel {int(worst.argmax())} can sum to {float(worst.max()):.0f}, "
                "beyond 2^31: raise the weight scale (quantise_weights does it)"
            )

    def packed(self) -> Tensor:
        """The weights as the kernels of their device, and on a CPU of its ISA, read them.

        Uint8, one dimension, on the device of the weights.
        """
        if torch.compiler.is_compiling():
            # A traced graph keeps what was packed before; the operator itself refuses weights
            # that were packed for another ISA.
            if self._packed is None:
                raise RuntimeError("call net.pack(), or the layer once, before torch.compile")
            return self._packed
        return self.pack()

    def pack(self) -> Tensor:
        """`packed`, also while something is being compiled."""
        on_gpu, changed = self.weight.is_cuda, changes(self.weight)
        place = str(self.weight.device) if on_gpu else ops.current_isa()
        packed = self._packed
        if packed is None or self._packed_for != (place, changed):
            if not on_gpu:  # there the sums would have to be waited for
                self._check_bound()
            ints = self.geometry.as_ints(self.pad_code)
            packed = ops.pack(self.weight.contiguous(), ints, self.x_min, self.x_max)
            # Another thread may have chosen another instruction set meanwhile: the header knows.
            target = place if on_gpu else ops.packed_isa(packed)
            if _log.isEnabledFor(logging.DEBUG):
                self._tell(packed, target, changed)
            self._packed_for = (target, changed)
            self._packed = packed
            if not on_gpu:
                native.tell_isa(target)
        return packed

    def _tell(self, packed: Tensor, target: str, changed: int) -> None:
        """Logs what was packed, and why once more."""
        why = ""
        if self._packed is not None:
            moved = self._packed_for[0] != target
            why = f", again: {'the target' if moved else 'they'} changed"
        _log.debug(
            "packed %s weights %s, that read codes %d..%d, for %s: %d bytes%s",
            str(self.weight.dtype).removeprefix("torch."),
            list(self.weight.shape),
            self.x_min,
            self.x_max,
            target,
            packed.numel(),
            why,
        )

    def _apply(self, fn, recurse=True):
        device = self.weight.device
        super()._apply(fn, recurse)
        if self.weight.device != device:
            self._packed = None
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        new = state_dict.get(prefix + "weight")
        if new is not None and new.dtype != self.weight.dtype:
            raise ValueError(
                f"{prefix}weight is {new.dtype}, this network has {self.weight.dtype} weights: "
                "load it into a network that was converted with the same weight_bits"
            )
        args = (state_dict, prefix, *args)
        super()._load_from_state_dict(*args, **kwargs)
        self._check_bound()
        if self._packed is not None:
            self._packed = None
            self.packed()

    def __deepcopy__(self, memo):
        copy = Synapses(
            self.weight.clone(),
            self.m.clone(),
            self.geometry,
            x_min=self.x_min,
            x_max=self.x_max,
            pad_code=self.pad_code,
            one_to_one=self.one_to_one,
        )
        if self._packed is not None:  # never written to, so it may be shared
            copy._packed = self._packed
            copy._packed_for = (self._packed_for[0], changes(copy.weight))
        memo[id(self)] = copy
        return copy.train(self.training)
