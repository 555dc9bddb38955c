"""Layers to put in place of nn.Conv2d + ReLU, nn.Linear + ReLU and pools in inference code."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor, nn

from fskernel import clipping
from fskernel.codes.code import Code
from fskernel.codes.geometry import Geometry, conv_geometry
from fskernel.codes.neuron import FSNeuron
from fskernel.codes.weights import fold_batch_norm, threshold_bias
from fskernel.drop_in.memory_format import channels_last, nchw, nhwc
from fskernel.drop_in.settled import Settled
from fskernel.drop_in.trained import weights_of
from fskernel.graded import GradedTensor
from fskernel.kernels import ops
from fskernel.kernels.device import Movable, check_device
from fskernel.network.steps import ConvStep
from fskernel.network.synapses import Synapses
from fskernel.network.watched import changes
from fskernel.spikes import SpikeTensor
from fskernel.torch_rules import compiling
from fskernel.torch_rules.exporting import NOT_PACKED, Untraceable, refuse_onnx, refuse_tracer
from fskernel.torch_rules.float_environment import in_float_environment
from fskernel.torch_rules.gradient import refuse_gradient

_log = logging.getLogger(__name__)

Activation = Tensor | SpikeTensor | GradedTensor


class _FSLayer(Movable, Untraceable):
    """What FSConv2d and FSLinear share: neuron settings, encoding of float input, the cache."""

    if TYPE_CHECKING:  # at run time nn.Module's, which runs hooks; its type is Any. With
        # relu=False spikes give a Tensor, too: typing.cast says so.

        @overload
        def __call__(self, x: Tensor) -> Tensor: ...

        @overload
        def __call__(self, x: SpikeTensor | GradedTensor) -> SpikeTensor: ...

        def __call__(self, x: object) -> object: ...

    def _set_neuron(
        self, K, alpha, rounding, weight_bits, input_alpha, input_K, signed_input, relu
    ) -> None:
        if relu and alpha is None:
            raise TypeError(
                "alpha is missing: give the range of the layer's neurons, or relu=False"
            )
        self.relu = bool(relu)
        self.neuron = FSNeuron(K, alpha, rounding) if relu else None
        input_alpha = alpha if input_alpha is None else input_alpha
        self.input_neuron = None
        if input_alpha is not None:
            self.input_neuron = FSNeuron(K if input_K is None else input_K, input_alpha, rounding)
        if weight_bits not in (8, 16):
            raise ValueError(f"weight_bits={weight_bits!r} is not supported: use 8 or 16")
        self.weight_bits, self.signed_input = weight_bits, bool(signed_input)
        self.plane_bits = 0
        self._warned = self._looked = False  # that values are clipped; on a GPU, whether they are
        self._encoding: tuple[FSNeuron, bool, tuple[Code, ops.Encoder]] | None = None
        self._steps: dict[Code, tuple[object, ConvStep]] = {}

    def __setattr__(self, name, value):
        self.__dict__["_settled"] = None  # which holds for the attributes as they were
        super().__setattr__(name, value)

    def _quick(self, x: object, rank: int, channels: int) -> Settled | None:
        """What an earlier call settled, if this one differs in its values alone."""
        if torch.compiler.is_compiling():
            return None
        settled: Settled | None = self.__dict__["_settled"]
        return settled if settled and settled.holds(self, x, rank, channels) else None

    def _geometry(self) -> Geometry:
        raise NotImplementedError

    def _weight4(self) -> Tensor:
        return self.weight.detach().reshape(len(self.weight), -1, *self._geometry().kernel)

    def _step(self, code: Code) -> ConvStep:
        """The packed layer for inputs of this code; made anew when the weights have changed."""
        if torch.compiler.is_dynamo_compiling():
            # Numbers, because a Code that is made while dynamo looks on exists for dynamo alone.
            numbers = (code.step, code.x_min, code.x_max, code.K, code.zero)
            fields = (code.kind, *map(compiling.constant, numbers))
            _pack_for_graph(self, *fields)
            code = Code(*fields)
        elif torch.compiler.is_exporting():
            if code not in self._steps:
                raise RuntimeError(f"{self}: {NOT_PACKED}")
        else:
            self._pack(code)
        return self._steps[code][1]

    def _pack(self, code: Code) -> None:
        owned = [p for p in (self.weight, self.bias) if p is not None]
        version = (
            tuple((p.data_ptr(), changes(p), p.dtype) for p in owned),
            (self.neuron, self.relu, self.weight_bits, self._geometry()),
        )
        if code not in self._steps or self._steps[code][0] != version:
            if torch.jit.is_tracing():
                raise RuntimeError(f"{self}: {NOT_PACKED}")
            step = self._make_step(code)
            for group in step.groups:
                group.pack()
            if _log.isEnabledFor(logging.INFO):
                self._tell(code, step, again=code in self._steps)
            self._steps[code] = (version, step)

    def _tell(self, code: Code, step: ConvStep, again: bool) -> None:
        """Logs that it was packed, and what keeps it from kernels that are faster."""
        _log.debug("%s: packed%s for %s", self, " again, as it has changed" * again, code)
        wide = []
        if code.x_max > 255:
            wide.append("its input has more than 8 time steps")
        if code.x_min < 0:
            wide.append("its input is signed")
        if self.weight_bits == 16:
            wide.append("its weights have 16 bits")
        if wide and not again:
            _log.info("%s does not fit the kernels of 8-bit integers: %s", self, ", ".join(wide))

    def repack(self) -> None:
        """Forgets the packed weights: needed after changes torch does not count (.data, numpy)."""
        self._settled = None
        self._steps.clear()

    def _make_step(self, code: Code) -> ConvStep:
        # Without neurons the membranes are the output, in the units of real numbers.
        out = Code.words(self.neuron.K, self.neuron.alpha) if self.relu else Code.real()
        weight = self._weight4().cpu()
        group, _ = Synapses.quantised(weight, self.weight_bits, self._geometry(), code, out.step)
        bias = torch.zeros(len(weight)) if self.bias is None else self.bias.detach().cpu()
        b = threshold_bias(bias, out.step, self.neuron.offset if self.relu else 0.0)
        for what, tensor in (("bias", b), ("weight", group.m)):
            if not torch.isfinite(tensor).all():
                raise ValueError(
                    f"{what} over the last threshold {out.step:g} is not finite: repair the "
                    "checkpoint or use a larger alpha"
                )
        info = {"alpha": self.neuron.alpha, "rounding": self.neuron.rounding} if self.relu else {}
        return ConvStep("fs", ["input"], out, (), [group], b, None, info).to(self.weight.device)

    def _input(self) -> tuple[Code, ops.Encoder]:
        """What float input is encoded to, and how."""
        neuron, signed = self.input_neuron, self.signed_input
        if neuron is None:
            raise ValueError(
                "x is a float tensor, but the layer has no range for it: build it with input_alpha="
            )
        if torch.compiler.is_compiling():
            return encoding(neuron, signed)
        if self._encoding is None or self._encoding[0] is not neuron or self._encoding[1] != signed:
            self._encoding = neuron, signed, encoding(neuron, signed)
        return self._encoding[2]

    def _of_floats(
        self, x: Tensor, channels_last: bool, count: bool, settled: Settled | None
    ) -> tuple[Tensor, Tensor]:
        """Float output [N, O, OH, OW] of x's dtype, and the spikes if they are asked for."""
        if settled:
            y, counts, seen = settled(x, count, channels_last)
            self._judge(*seen, x.numel())
            return y, counts
        code, encoder = self._input()
        step, x = self._step(code), x.detach()
        given = x if x.dtype in ops.FLOATS else x.to(torch.float32)
        y, counts, seen = ops.conv_floats(
            given,
            encoder,
            step.groups[0],
            step.bias,
            K=step.code.K,
            step=step.code.step,
            plane_bits=self.plane_bits,
            count=count,
            channels_last=channels_last,
        )
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            # A graph looks when it runs; jit.trace drops that, and only the example is looked at.
            if not self.signed_input:
                torch._assert_async(seen[0] >= 0, NEGATIVE)
        elif x.is_cpu:
            self._judge(*seen.tolist(), x.numel())
            self.__dict__["_settled"] = Settled(self, encoder, step)
        elif not torch.cuda.is_current_stream_capturing():  # which forbids to wait for the GPU
            self._judge(*self._look(x), x.numel())
        return y.to(x.dtype), counts

    def _look(self, x: Tensor) -> tuple[float, float]:
        """On a GPU: the least value of x and, at the first call, how many are beyond the range."""
        if not x.numel():
            return 0.0, 0.0
        least = 0.0 if self.signed_input else float(x.amin().nan_to_num(nan=0.0))
        beyond = 0 if self._looked else int((x.abs() > self.input_neuron.alpha).sum())
        self._looked = True
        return least, beyond

    def _judge(self, least: float, beyond: float, values: int) -> None:
        """Refuses negative values, and says once that many lie beyond the range."""
        if least < 0 and not self.signed_input:
            raise ValueError(f"x has values down to {least:g}: {NEGATIVE}")
        if beyond > clipping.MOST * values and not self._warned:
            self._warned = True
            clipping.warn(
                str(self),
                int(beyond),
                values,
                f"input_alpha={self.input_neuron.alpha:g}",
                "build the layer with the largest value that it shall read as input_alpha",
            )

    def _of_codes(
        self, x: SpikeTensor | GradedTensor, count: bool
    ) -> tuple[SpikeTensor | Tensor, Tensor]:
        """Spikes [N, O, OH, OW], or floats without neurons; and their number, if asked for."""
        if isinstance(x, SpikeTensor):
            codes, code = nhwc(x.words), Code.words(x.neuron.K, x.neuron.alpha)
        else:
            codes, code = nhwc(x.integers), x.code
        y, counts = self._step(code)(
            codes, backend=ops, plane_bits=self.plane_bits, floats=not self.relu, count=count
        )
        return SpikeTensor(nchw(y), self.neuron, check=False) if self.relu else nchw(y), counts

    def _check(self, x: Activation, channels: int, ranks: tuple[int, ...], shape: str) -> None:
        refuse_tracer(x, self)
        if not isinstance(x, (Tensor, SpikeTensor, GradedTensor)):
            raise TypeError(
                f"x is a {type(x).__name__}: expected a float tensor, SpikeTensor or GradedTensor"
            )
        if isinstance(x, Tensor):
            if not x.is_floating_point():
                raise TypeError(
                    f"x is {x.dtype}: expected a float tensor; wrap words in a SpikeTensor"
                )
            if x.layout != torch.strided:
                raise TypeError(f"x has layout {x.layout}: expected a dense tensor (x.to_dense())")
            refuse_gradient(x=x)
        device = x.integers.device if isinstance(x, GradedTensor) else x.device
        check_device(device, "x is on")
        if device != self.weight.device:
            raise ValueError(
                f"x is on {device}, but the layer is on {self.weight.device}: move one to the other"
            )
        if len(x.shape) not in ranks:
            raise ValueError(f"x has shape {tuple(x.shape)}: expected {shape}")
        axis = 1 if len(x.shape) == 4 else -1
        if x.shape[axis] != channels:
            raise ValueError(
                f"x has {x.shape[axis]} channels (shape {tuple(x.shape)}): the layer reads "
                f"{channels}"
            )


def encoding(neuron: FSNeuron, signed: bool) -> tuple[Code, ops.Encoder]:
    """What float values become that a neuron emits, and how; signed: as fine, and with a sign."""
    if signed:
        code = Code("graded", neuron.step, -neuron.max_word, neuron.max_word)
        return code, ops.Encoder(1.0 / neuron.step, 0.0, 0, code.x_max)
    code = Code.words(neuron.K, neuron.alpha)
    return code, ops.Encoder(neuron.inv_step, neuron.offset, neuron.K)


NEGATIVE = "spikes carry no sign; build the layer with signed_input=True for signed input"


@compiling.constant_in_graphs
def _pack_for_graph(layer: _FSLayer, *code: str | float) -> None:
    """Packs a layer for inputs of a code, given by its fields: numbers are what can be passed."""
    refuse_onnx(layer)
    layer._pack(Code(*code))


class FSConv2d(_FSLayer, nn.Conv2d):
    """A convolution and the FS neurons behind it; stands for nn.Conv2d followed by ReLU.

    It takes nn.Conv2d's arguments and state_dict: the float weights are kept and packed into
    integers at the first call, and again when they change. (Call `repack()` after changes that
    torch does not count, through .data or numpy; torch.compile keeps the weights it was given.)

    A float input [N, C, H, W] of any float dtype is encoded and gives float values of that dtype
    and, as with nn.Conv2d, of its memory format; a SpikeTensor (or GradedTensor) gives a
    SpikeTensor. Both include the ReLU.

    Args:
        K, alpha, rounding: of the layer's neurons, see `FSNeuron`.
        weight_bits: 8 or 16.
        input_alpha, input_K: how float input is encoded; default alpha (the paper's one alpha for
            all layers) and K. Where more than 0.1 % of an input lies beyond input_alpha, a
            ClippingWarning says so, once for each layer (on a GPU the first call is looked at).
        signed_input: float input may be negative; it is encoded as graded values of the same step.
        relu: False for a convolution that no ReLU follows. It has no neurons then, whatever it
            reads: its output is float, fma(sum, weight scale * input step, bias), neither rounded
            nor clipped; alpha is only the default of input_alpha.

    Raises:
        ValueError, TypeError, RuntimeError: an argument out of range; at the call, an input of
            the wrong type, shape or device, negative input without signed_input, or one that
            requires grad in grad mode.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | str | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        alpha: float | None = None,
        K: int = 8,
        rounding: str = "nearest",
        weight_bits: int = 8,
        input_alpha: float | None = None,
        input_K: int | None = None,
        signed_input: bool = False,
        relu: bool = True,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._set_neuron(K, alpha, rounding, weight_bits, input_alpha, input_K, signed_input, relu)
        conv_geometry(self)  # refuses what has no integer form

    @classmethod
    def from_float(
        cls, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, **neuron: object
    ) -> FSConv2d:
        """The layer for a trained convolution, with its batch norm folded in (in float64).

        Args:
            conv: the convolution, an nn.Conv2d and no subclass with another forward; where it is
                parametrised (weight norm, pruning) the weights are those it computes in eval mode.
            bn: the batch norm behind it, an nn.BatchNorm2d, read with running statistics.
            neuron: alpha, K and the other keyword arguments of FSConv2d.

        Raises:
            ConversionError: a layer of another type, or one that computes something else (its own
                forward, hooks) or has no weights yet.
            ValueError: a padding_mode other than zeros, or a bad argument.
        """
        weight, bias = weights_of("conv", conv, (nn.Conv2d,))
        if bn is not None:
            gamma, beta = weights_of("bn", bn, (nn.BatchNorm2d, nn.SyncBatchNorm))
            if bn.num_features != conv.out_channels:
                raise ValueError(
                    f"bn has {bn.num_features} channels, conv gives {conv.out_channels}"
                )
            if bn.running_mean is None:
                raise ValueError("bn has no running statistics: train with track_running_stats")
            scale, shift = fold_batch_norm(bn.running_mean, bn.running_var, gamma, beta, bn.eps)
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else bias * scale + shift
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            bias is not None,
            conv.padding_mode,
            **{"device": weight.device, "dtype": torch.float32} | neuron,
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        return layer.requires_grad_(False).eval()

    def _geometry(self) -> Geometry:
        return conv_geometry(self)

    def forward(self, x: Activation) -> Tensor | SpikeTensor:
        """Float [N, C, H, W] -> float [N, O, OH, OW]; SpikeTensor -> SpikeTensor."""
        return self._forward(x, count=False)[0]

    def run(self, x: Activation) -> tuple[Tensor | SpikeTensor, Tensor]:
        """As calling the layer, and the spikes of each image, int64 [N] (0 without neurons)."""
        return self._forward(x, count=True)

    def _forward(self, x: Activation, count: bool) -> tuple[Tensor | SpikeTensor, Tensor]:
        settled = self._quick(x, 4, self.in_channels)
        return self._floats(x, count, settled) if settled else self._checked(x, count)

    @in_float_environment
    def _checked(self, x: Activation, count: bool) -> tuple[Tensor | SpikeTensor, Tensor]:
        self._check(x, self.in_channels, (4,), "[N, C, H, W]")
        return self._floats(x, count) if isinstance(x, Tensor) else self._of_codes(x, count)

    def _floats(
        self, x: Tensor, count: bool, settled: Settled | None = None
    ) -> tuple[Tensor, Tensor]:
        last = channels_last(x) or channels_last(self.weight)
        return self._of_floats(x, last, count, settled)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.neuron or 'relu=False'}"


class FSLinear(_FSLayer, nn.Linear):
    """A fully connected layer and its FS neurons; stands for nn.Linear followed by ReLU.

    Reads [N, F]; otherwise as `FSConv2d`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        alpha: float | None = None,
        K: int = 8,
        rounding: str = "nearest",
        weight_bits: int = 8,
        input_alpha: float | None = None,
        input_K: int | None = None,
        signed_input: bool = False,
        relu: bool = True,
    ):
        super().__init__(in_features, out_features, bias, device, dtype)
        self._set_neuron(K, alpha, rounding, weight_bits, input_alpha, input_K, signed_input, relu)

    @classmethod
    def from_float(cls, linear: nn.Linear, **neuron: object) -> FSLinear:
        """The layer for a trained nn.Linear; `neuron`: alpha, K and the other keywords.

        Raises:
            ConversionError, ValueError: as `FSConv2d.from_float`.
        """
        weight, bias = weights_of("linear", linear, (nn.Linear,))
        layer = cls(
            linear.in_features,
            linear.out_features,
            bias is not None,
            **{"device": weight.device, "dtype": torch.float32} | neuron,
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        return layer.requires_grad_(False).eval()

    def _geometry(self) -> Geometry:
        return Geometry((1, 1))

    def forward(self, x: Activation) -> Tensor | SpikeTensor:
        """Float [N, F] -> float [N, O]; SpikeTensor -> SpikeTensor."""
        return self._forward(x, count=False)[0]

    def run(self, x: Activation) -> tuple[Tensor | SpikeTensor, Tensor]:
        """As calling the layer, and the spikes of each image, int64 [N] (0 without neurons)."""
        return self._forward(x, count=True)

    def _forward(self, x: Activation, count: bool) -> tuple[Tensor | SpikeTensor, Tensor]:
        settled = self._quick(x, 2, self.in_features)
        return self._floats(x, count, settled) if settled else self._checked(x, count)

    def _floats(
        self, x: Tensor, count: bool, settled: Settled | None = None
    ) -> tuple[Tensor, Tensor]:
        if x.is_cpu and x.shape[0] > 1 and not count:
            # As the rows of one image: kernels read the weights once for each image. (len would
            # fix the batch of an exported graph.)
            y, counts = self._of_floats(x.t()[None, :, :, None], True, count, settled)
            return y[0, :, :, 0].t(), counts
        y, counts = self._of_floats(x[:, :, None, None], True, count, settled)
        return y.flatten(1), counts

    @in_float_environment
    def _checked(self, x: Activation, count: bool) -> tuple[Tensor | SpikeTensor, Tensor]:
        self._check(x, self.in_features, (2,), "[N, F]")
        if isinstance(x, Tensor):
            return self._floats(x, count)
        if isinstance(x, SpikeTensor):
            inputs: Activation = SpikeTensor(x.words[:, :, None, None], x.neuron, check=False)
        else:
            inputs = GradedTensor(x.integers[:, :, None, None], x.code, check=False)
        y, counts = self._of_codes(inputs, count)
        if self.relu:
            return SpikeTensor(y.words.flatten(1), self.neuron, check=False), counts
        return y.flatten(1), counts

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.neuron or 'relu=False'}"
