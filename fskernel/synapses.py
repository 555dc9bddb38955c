"""One synapse group: integer weights, their scales, and the geometry that connects two layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

INT32_LIMIT = 2**31


class Geometry(NamedTuple):
    """How a convolution or pool walks over its input (padding as top, bottom, left, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output for an input of `height` x `width`."""
        top, bottom, left, right = self.padding
        rows = height + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1
        cols = width + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1
        if rows < 0 or cols < 0:
            raise ValueError(
                f"a kernel of {self.kernel} with dilation {self.dilation} does not fit into an "
                f"input of {height}x{width} with padding {self.padding}: use a larger picture"
            )
        return rows // self.stride[0] + 1, cols // self.stride[1] + 1

    def as_ints(self, pad_code: int = 0) -> list[int]:
        """The form the operators take: kernel, stride, padding, dilation, groups, pad code."""
        return [
            *self.kernel,
            *self.stride,
            *self.padding,
            *self.dilation,
            self.groups,
            pad_code,
        ]

    def taps(self, height: int, width: int) -> tuple[list[list[int]], list[list[int]]]:
        """For every input row (then column): the output rows (columns) it is connected to.

        The connections are a product of the two, so a synapse from (y, x) to (oy, ox) exists
        exactly if oy is in taps[0][y] and ox in taps[1][x]; positions in the padding have none.
        """
        sizes = self.output_size(height, width)

        def axis(size: int, out: int, i: int) -> list[list[int]]:
            reached: list[set[int]] = [set() for _ in range(size)]
            for o in range(out):
                for k in range(self.kernel[i]):
                    at = o * self.stride[i] + k * self.dilation[i] - self.padding[2 * i]
                    if 0 <= at < size:
                        reached[at].add(o)
            return [sorted(r) for r in reached]

        return axis(height, sizes[0], 0), axis(width, sizes[1], 1)


MOST_WINDOW = 2**24  # of each number of a geometry


def check_geometry(geometry: Geometry, place: str) -> None:
    """Refuses numbers that are no geometry.

    Raises:
        ValueError: beginning with `place`, and naming the number.
    """
    for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        values = getattr(geometry, name)
        if not all(least <= value <= MOST_WINDOW for value in values):
            raise ValueError(f"{place}.{name} is {values}: expected {least} to {MOST_WINDOW}")
    if not 1 <= geometry.groups <= MOST_WINDOW:
        raise ValueError(f"{place}.groups is {geometry.groups}: expected 1 to {MOST_WINDOW}")


def changes(tensor: Tensor) -> int:
    """How often torch saw this tensor change in place (inference tensors are not counted)."""
    return 0 if tensor.is_inference() else tensor._version


class Watched(nn.Module):
    """A module that counts its exchanges: of attributes, tensors and hooks, of all such modules.

    Whoever keeps something that was made of them looks closer only when the count has moved. What
    is written into a tensor in place is counted by torch (`changes`), not here.
    """

    exchanges = 0

    def __setattr__(self, name, value):
        Watched.exchanges += 1
        super().__setattr__(name, value)

    def _apply(self, fn, recurse=True):
        """As torch's, for the device alone: `.half()` and `.double()` leave all tensors alone.

        The contract fixes their types. At no time does one of another type stand in their place:
        other threads may be calling.
        """
        Watched.exchanges += 1

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)

    def register_forward_hook(self, *args, **kwargs):
        """As torch's, and counted."""
        Watched.exchanges += 1
        return super().register_forward_hook(*args, **kwargs)

    def register_forward_pre_hook(self, *args, **kwargs):
        """As torch's, and counted."""
        Watched.exchanges += 1
        return super().register_forward_pre_hook(*args, **kwargs)


class QuantisedWeights(NamedTuple):
    """Integer weights of one synapse group: value = weight * scale[output channel]."""

    weight: Tensor  # int8 or int16, [O, I/groups, kh, kw]
    scale: Tensor  # float64, [O], positive
    effective_bits: Tensor  # float64, [O]: 1 + log2 of the largest magnitude a weight may have


def quantise_weights(weight: Tensor, bits: int, x_min: int, x_max: int) -> QuantisedWeights:
    """Round float weights to symmetric integers whose sums provably fit 32 bits.

    Args:
        weight: float [O, I/groups, kh, kw], finite.
        bits: 8 (at most 127 in magnitude) or 16 (32767).
        x_min, x_max: declared range of the input codes. The contract's bound, per output channel:
            x_max*sum(w+) + |x_min|*sum(|w-|) < 2^31 and its mirror. Where full-scale weights would
            break it the channel's scale is raised, which costs it bits.

    Returns:
        The integers, their scales and the effective bits. An all-zero channel has scale 1.

    Raises:
        ValueError: bits other than 8 or 16, or weights with NaN or infinity.
    """
    if bits not in (8, 16):
        raise ValueError(f"weight_bits={bits!r} is not supported: use 8 or 16")
    w = weight.detach().to(torch.float64)
    if not torch.isfinite(w).all():
        bad = int((~torch.isfinite(w)).sum())
        raise ValueError(
            f"weight has {bad} value(s) that are NaN or infinite: repair the checkpoint before "
            "converting it"
        )
    top = 2 ** (bits - 1) - 1
    flat = w.reshape(len(w), -1)
    largest = flat.abs().amax(1) if flat.shape[1] else flat.new_zeros(len(w))
    limit = torch.full_like(largest, float(top))
    silent = largest == 0
    safe = torch.where(silent, torch.ones_like(largest), largest)
    while True:
        scale = torch.where(silent, torch.ones_like(largest), safe / limit)
        # A denormal maximum would divide by a scale of zero.
        scale = torch.clamp(scale, min=torch.finfo(torch.float64).tiny)
        ints = torch.clamp(torch.round(flat / scale[:, None]), -top, top)
        worst = largest_sum(ints, x_min, x_max)
        over = worst >= INT32_LIMIT
        if not over.any():
            break
        # Shrink by the excess, and a little more, because rounding may add half a unit a weight.
        shrunk = torch.floor(limit * (INT32_LIMIT - 1) / worst) - 1
        limit = torch.where(over, torch.minimum(shrunk, limit - 1), limit)
        if (limit < 1).any():
            raise ValueError(
                f"no weight scale keeps the sum of {flat.shape[1]} synapses with inputs in "
                f"[{x_min}, {x_max}] below 2^31: use a smaller K"
            )
    dtype = torch.int8 if bits == 8 else torch.int16
    effective = 1 + torch.log2(limit + 1)
    return QuantisedWeights(ints.to(dtype).reshape(w.shape), scale, effective)


def largest_sum(weight: Tensor, x_min: int, x_max: int) -> Tensor:
    """Largest magnitude, per output channel, that sum(weight*x) can take for x in the range."""
    flat = weight.reshape(len(weight), -1)
    plus = flat.clamp(min=0).sum(1, dtype=torch.float64)
    minus = -flat.clamp(max=0).sum(1, dtype=torch.float64)
    low, high = max(0, -x_min), max(0, x_max)
    return torch.maximum(high * plus + low * minus, high * minus + low * plus)


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
        from fskernel import ops

        on_gpu, changed = self.weight.is_cuda, changes(self.weight)
        place = str(self.weight.device) if on_gpu else ops.current_isa()
        packed = self._packed
        if packed is None or self._packed_for != (place, changed):
            if not on_gpu:  # there the sums would have to be waited for
                self._check_bound()
            ints = self.geometry.as_ints(self.pad_code)
            packed = ops.pack(self.weight.contiguous(), ints, self.x_min, self.x_max)
            # Another thread may have chosen another instruction set meanwhile: the header knows.
            self._packed_for = (place if on_gpu else ops.packed_isa(packed), changed)
            self._packed = packed
        return packed

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
