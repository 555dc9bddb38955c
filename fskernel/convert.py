"""From a trained module to a Few-Spikes network: ranges, integer weights, steps."""

from __future__ import annotations

import copy
import difflib
import itertools
import math
import warnings
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor, nn

from fskernel.calibrate import Ranges, check_policy, choose_alpha, measure
from fskernel.errors import ConversionError
from fskernel.graph import Graph, Group, Layer
from fskernel.network import FSNetwork
from fskernel.neuron import FSNeuron
from fskernel.steps import (
    Code,
    ConcatStep,
    ConvStep,
    EncodeStep,
    PoolStep,
    ReadoutStep,
    Step,
    multiplier,
    ratio,
    threshold_bias,
)
from fskernel.synapses import Synapses, quantise_weights
from fskernel.trace import trace

# Graded values of 14 bits leave int16 weights 12 or more effective bits in the first layers of the
# networks we know, and resolve an 8-bit picture more than 10 times finer than its grey levels.
GRADED_BITS = 14
# Pictures seen later may be brighter than those of the calibration, and signed sums larger.
# Clipping the sums costs EfficientNet-Lite0 more than rounding them to 14 bits does.
HEADROOM = 1.25
# Pictures normalised with ImageNet's or CIFAR's mean and deviation stay below 2.7.
INPUT_RANGE = 4.0
FEW_BITS = 6  # fewer are worth a note in the report

BOTTLENECKS = ("graded", "spiking")

DEFAULTS = {"K": 8, "alpha": "max", "rounding": "nearest", "weight_bits": 8}
PAPER = {"K": 10, "alpha": 25.0, "rounding": "floor", "weight_bits": 16}


def convert(
    module: nn.Module,
    calibration: Tensor | Iterable | None = None,
    K: int | dict[str, int] | None = None,
    alpha: str | float | dict | None = None,
    rounding: str | None = None,
    weight_bits: int | None = None,
    *,
    neuron: str | None = None,
    bottleneck: str = "graded",
    input_range: float | None = None,
    input_size: tuple[int, ...] | None = None,
    progress: bool = False,
) -> FSNetwork:
    """Converts a trained CNN, without retraining, into a network of FS neurons.

    Batch norm is folded in float64, each ReLU becomes an FS neuron, residual branches become
    synapses of the neuron they reach, max-pools act on spike words.

    Args:
        module: a trained network of convolutions, batch norms, ReLU or ReLU6, pools, additions
            and linear layers; it is not changed.
        calibration: pictures [N, C, H, W], float and normalised as for the network, or an iterable
            of such batches (a DataLoader). Needed to measure alpha.
        K: time steps, 1..15, of all neurons, or a dict of layer names, with "default" for those it
            does not name; layers that are concatenated take the largest of theirs. Default 8.
            `fskernel.search` finds the smallest.
        alpha: "max" (default; the largest activation of the layer on the calibration pictures),
            "percentile:99.9" (of its positive activations), a number for all layers, or a dict of
            layer names, with "default" for those it does not name.
        rounding: "nearest" (default) or "floor", the paper's.
        weight_bits: 8 (default) or 16.
        neuron: "paper" is the paper's setting: K=10, alpha=25, floor, 16-bit weights, and average
            pools in place of max-pools (see `paper_pools` for the ANN). Other arguments override.
        bottleneck: what layers without a ReLU emit (linear bottlenecks): "graded" (default), signed
            values of 14 bits up to 1.25 times the calibration's largest, which are not spikes; or
            "spiking", words of K steps for values in [-alpha, alpha): the membrane starts alpha
            higher, and zero is the word 2^(K-1). The alpha policy is theirs, too, with magnitudes
            in place of values.
        input_range: largest magnitude of a pixel. Default: 1.25 times what the calibration holds,
            or 4.0 without calibration; pixels beyond it saturate.
        input_size: (N, C, H, W), where the network's structure depends on it and there is no
            calibration.
        progress: show a progress bar while calibrating.

    Returns:
        The network; `.report()` lists what became of every module.

    Raises:
        ConversionError: a module without a Few-Spikes form: its name, why, and what would help.
        ValueError, TypeError: a bad argument, before any work.
    """
    if neuron not in (None, "paper"):
        raise ValueError(f"neuron={neuron!r} is unknown: use 'paper', or set K, alpha and rounding")
    preset = PAPER if neuron == "paper" else DEFAULTS
    K = preset["K"] if K is None else K
    alpha = preset["alpha"] if alpha is None else alpha
    rounding = preset["rounding"] if rounding is None else rounding
    weight_bits = preset["weight_bits"] if weight_bits is None else weight_bits
    for steps in K.values() if isinstance(K, dict) else (K,):
        FSNeuron(steps, 1.0, rounding)  # refuses a bad K or rounding
    if weight_bits not in (8, 16):
        raise ValueError(f"weight_bits={weight_bits!r} is not supported: use 8 or 16")
    if bottleneck not in BOTTLENECKS:
        raise ValueError(f"bottleneck={bottleneck!r} is unknown: use 'graded' or 'spiking'")
    if input_range is not None and not (
        isinstance(input_range, Real) and input_range > 0 and math.isfinite(input_range)
    ):
        raise ValueError(f"input_range={input_range!r} must be positive and finite")
    check_policy(alpha, calibration is not None)

    calibration, size = _peek(calibration, input_size)
    graph = trace(module, size, average=neuron == "paper")
    _warn_of_averages(graph.averaged)
    names = spiking_layers(graph, bottleneck)
    for what, value in (("K", K), ("alpha", alpha)):
        _check_names(what, value, names)
    ranges = measure(graph, calibration, progress) if calibration is not None else None
    builder = _Builder(graph, ranges, K, alpha, rounding, weight_bits, bottleneck, input_range)
    steps = builder.build()
    net = FSNetwork(
        steps,
        graph=graph,
        input_size=ranges.input_size if ranges else size,
        fixed_size=graph.size,
    )
    net.pack()
    return net


def paper_pools(module: nn.Module) -> nn.Module:
    """A copy of the ANN with average pools in place of its max-pools, as in the paper.

    Weights that were trained with max-pools were not trained for this; the paper's were retrained.

    Raises:
        ConversionError: a max-pool that averages cannot replace (dilation, ceil_mode, functional).
    """
    module = copy.deepcopy(module)
    for name, child in list(module.named_modules()):
        if not isinstance(child, nn.MaxPool2d):
            continue
        if child.dilation not in (1, (1, 1)) or child.ceil_mode:
            raise ConversionError(name, f"{child} has no average form", "Use a plain max-pool")
        parent = module.get_submodule(name.rpartition(".")[0])
        average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
        setattr(parent, name.rpartition(".")[2], average)
    try:
        layers = trace(module).layers
    except ConversionError:  # conversion itself will say what is wrong
        return module
    for layer in layers:
        if layer.kind == "max_pool":
            raise ConversionError(
                layer.name, "a functional max_pool2d cannot be swapped", "Use nn.MaxPool2d"
            )
    return module


def _warn_of_averages(names: tuple[str, ...]) -> None:
    if names:
        warnings.warn(
            f"the paper's setting replaces the max-pool {', '.join(names)} by an average-pool, in "
            "the ANN too (fskernel.paper_pools); weights trained with max-pools were not trained "
            "for that, so expect lower accuracy from both until they are retrained",
            stacklevel=3,
        )


def _peek(calibration, input_size):
    """The shape of the pictures, without losing the first batch of an iterator."""
    if calibration is None:
        return None, input_size
    if isinstance(calibration, Tensor):
        return calibration, tuple(calibration.shape) if calibration.dim() == 4 else input_size
    if not isinstance(calibration, Iterable):
        return calibration, input_size  # measure() refuses it by name
    iterator = iter(calibration)
    first = next(iterator, None)
    if first is None:
        return [], input_size
    batch = first[0] if isinstance(first, (tuple, list)) and len(first) else first
    size = tuple(batch.shape) if isinstance(batch, Tensor) and batch.dim() == 4 else input_size
    return itertools.chain([first], iterator), size


def spiking_layers(graph: Graph, bottleneck: str) -> list[str]:
    """Names of the layers that become neurons, those of linear bottlenecks where they spike."""
    spiking = ("neuron", "graded") if bottleneck == "spiking" else ("neuron",)
    return [layer.name for layer in graph.layers if layer.kind in spiking]


def _check_names(what: str, value: object, names: list[str]) -> None:
    if not isinstance(value, dict):
        return
    for name in value:
        if name != "default" and name not in names:
            close = difflib.get_close_matches(str(name), names, 3) or names[:3]
            raise ValueError(
                f"{what} names a layer {name!r} that the network does not have: did you mean "
                f"{', '.join(close)}?"
            )
    missing = [n for n in names if n not in value]
    if missing and "default" not in value:
        raise ValueError(
            f"{what} names no value for {len(missing)} layer(s) ({missing[0]}, ...): add a "
            "'default' entry"
        )


class _Builder:
    """Turns the float graph into steps, layer by layer; keeps every layer's code."""

    def __init__(
        self,
        graph: Graph,
        ranges: Ranges | None,
        K: int | dict[str, int],
        alpha: object,
        rounding: str,
        weight_bits: int,
        bottleneck: str,
        input_range: float | None,
    ):
        self.graph, self.ranges, self.alpha = graph, ranges, alpha
        self.rounding, self.bits, self.input_range = rounding, weight_bits, input_range
        self.bottleneck = bottleneck
        self.codes: dict[str, Code] = {}
        self.tied = graph.tied()
        self.K = K if isinstance(K, dict) else {"default": K}
        self.windows = self.largest_windows()

    def build(self) -> list[Step]:
        make = {
            "input": self.encode,
            "neuron": self.neuron,
            "graded": self.graded,
            "max_pool": self.pool,
            "avg_pool": self.pool,
            "concat": self.concat,
            "readout": self.readout,
        }
        steps = []
        for layer in self.graph.layers:
            step = make[layer.kind](layer)
            self.codes[layer.name] = step.code
            steps.append(step)
        return steps

    def encode(self, layer: Layer) -> Step:
        if self.input_range is not None:
            largest = self.input_range
        elif self.ranges is not None:
            largest = self.ranges.largest[layer.name] * HEADROOM
        else:
            largest = INPUT_RANGE
        code = Code.graded(largest, self.limit(layer.name, (layer.name,)))
        if not 2.0**-126 <= code.step <= 2.0**126:
            raise ValueError(
                f"the pictures' largest magnitude is {largest:g}, which float32 cannot resolve: "
                "normalise them, or give input_range"
            )
        return EncodeStep(layer.name, [], code, layer.fused)

    def largest_windows(self) -> dict[str, int]:
        """For every layer whose codes an average-pool sums: how many of them, at most."""
        behind, windows = self.graph.behind(), {}
        for layer in self.graph.layers:
            if layer.kind == "avg_pool":
                for name in behind[layer.source]:
                    windows[name] = max(windows.get(name, 1), math.prod(layer.geometry.kernel))
        return windows

    def limit(self, name: str, tied: Iterable[str]) -> int:
        """Largest graded value: fewer bits where sums of them would not fit 16."""
        n = max(self.windows.get(other, 1) for other in tied)
        limit = min(2 ** (GRADED_BITS - 1) - 1, 32767 // n)
        if limit < 127:
            raise ConversionError(
                name,
                f"an average-pool sums {n} of its signed values, which leaves them fewer than 8 of "
                "16 bits",
                "Use a smaller pooling window",
            )
        return limit

    def neuron(self, layer: Layer) -> Step:
        neuron = self.unit(layer, signed=False)
        code = Code.words(neuron.K, neuron.alpha)
        info = {"alpha": neuron.alpha, "rounding": self.rounding}
        notes = self.sharing(layer, "K and alpha")
        if layer.ceiling is not None and code.x_max * code.step > layer.ceiling * 1.001:
            notes.append(
                f"alpha {neuron.alpha:g} saturates above the ANN's ReLU{layer.ceiling:g}: its "
                "largest word stands for more than the ANN's ceiling"
            )
        return self.affine(layer, code, neuron.offset, info, notes)

    def unit(self, layer: Layer, signed: bool) -> FSNeuron:
        """The neuron of a layer, its K and alpha the largest of those that are concatenated."""
        tied = self.tied[layer.name]
        K = max(self.K[name] if name in self.K else self.K["default"] for name in tied)
        alphas = [
            choose_alpha(self.alpha, self.graph[name], self.ranges, K, signed) for name in tied
        ]
        try:
            return FSNeuron(K, max(alphas), self.rounding)
        except ValueError as error:
            raise ConversionError(
                layer.name, str(error), "Check the range of its inputs"
            ) from error

    def sharing(self, layer: Layer, what: str) -> list[str]:
        n = len(self.tied[layer.name])
        return [f"shares the largest {what} of {n} layers that are concatenated"] if n > 1 else []

    def graded(self, layer: Layer) -> Step:
        """A layer without a ReLU: graded values, or words with an offset."""
        if self.bottleneck == "spiking":
            neuron = self.unit(layer, signed=True)
            code = Code.signed_words(neuron.K, neuron.alpha)
            info = {"alpha": neuron.alpha, "rounding": self.rounding}
            offset = code.zero + neuron.offset
            return self.affine(layer, code, offset, info, self.sharing(layer, "K and alpha"))
        if self.ranges is None:
            raise ConversionError(
                layer.name,
                "its values are signed (no ReLU follows), so their range has to be measured",
                "Pass calibration pictures, or bottleneck='spiking' and alpha as a number",
            )
        largest = max(self.ranges.largest[name] for name in self.tied[layer.name])
        code = Code.graded(largest * HEADROOM, self.limit(layer.name, self.tied[layer.name]))
        return self.affine(layer, code, 0.0, {}, self.sharing(layer, "range"))

    def affine(self, layer: Layer, code: Code, offset: float, info: dict, notes: list) -> Step:
        groups, bits, scales = [], [], []
        for group in layer.groups:
            synapses, effective, scale = self.synapses(layer, group, code)
            groups.append(synapses)
            bits.append(effective)
            scales.append(scale)
        sources = [g.source for g in layer.groups]
        r = None
        if layer.residual is not None:
            sources.append(layer.residual)
            r = ratio(self.codes[layer.residual].step, code.step)
        least = float(torch.cat(bits).min())
        if least < FEW_BITS:
            notes.append(
                f"only {least:.1f} weight bits are left by the 32-bit bound: use a smaller K"
            )
        bias = threshold_bias(layer.bias, code.step, offset - self.silence(sources, groups, r))
        for what, tensor in [("bias", bias), *(("m", g.m) for g in groups)]:
            if not torch.isfinite(tensor).all():
                raise ConversionError(
                    layer.name,
                    f"its {what} in units of the last threshold ({code.step:g}) is not finite",
                    "Use a larger alpha for this layer",
                )
        info |= {
            "weight_bits": self.bits,
            "effective_bits": round(least, 3),
            "notes": notes,
        }
        return ConvStep(layer.name, sources, code, layer.fused, groups, bias, r, info)

    def silence(self, sources: list[str], groups: list[Synapses], r: Tensor | None) -> Tensor:
        """What inputs that all stand for zero add to the membranes, float64 [O].

        Not 0 where words have an offset. Padding has the code of zero too, so it is the same at
        every position.
        """
        total = torch.zeros(groups[0].out_channels, dtype=torch.float64)
        for name, group in zip(sources, groups, strict=False):
            sums = group.weight.flatten(1).sum(1, dtype=torch.int64)
            total += group.m.double() * (self.codes[name].zero * sums).double()
        if r is not None:
            total += self.codes[sources[-1]].zero * r.double()
        return total

    def synapses(self, layer: Layer, group: Group, code: Code):
        source = self.codes[group.source]
        try:
            q = quantise_weights(group.weight, self.bits, source.x_min, source.x_max)
        except ValueError as error:
            raise ConversionError(layer.name, str(error), "") from error
        m = multiplier(q.scale, source.step, code.step)
        synapses = Synapses(
            q.weight,
            m,
            group.geometry,
            x_min=source.x_min,
            x_max=source.x_max,
            pad_code=source.zero,
            one_to_one=group.one_to_one,
        )
        return synapses, q.effective_bits, q.scale

    def pool(self, layer: Layer) -> Step:
        source = self.codes[layer.source]
        if layer.kind == "max_pool":
            return PoolStep(
                layer.name, [layer.source], source, layer.fused, layer.geometry, "max_pool"
            )
        n = layer.geometry.kernel[0] * layer.geometry.kernel[1]
        code = source.pooled(n)
        if source.zero and any(layer.geometry.padding):
            raise ConversionError(
                layer.name,
                "its padding has the code 0, but in the words it averages zero has the code "
                f"{source.zero}",
                "Use bottleneck='graded'",
            )
        if max(code.x_max, -code.x_min) > 32767:
            raise ConversionError(
                layer.name,
                f"the sum of {n} codes up to {source.x_max} is {code.x_max}, beyond 32767",
                "Use a smaller K or a smaller pooling window",
            )
        return PoolStep(layer.name, [layer.source], code, layer.fused, layer.geometry, "sum_pool")

    def concat(self, layer: Layer) -> Step:
        return ConcatStep(
            layer.name, list(layer.sources), self.codes[layer.sources[0]], layer.fused
        )

    def readout(self, layer: Layer) -> Step:
        group = layer.groups[0]
        source = self.codes[group.source]
        weight = group.weight.permute(0, 2, 3, 1).flatten(1)  # features in NHWC order
        # The readout sums in 64 bits, so no weight scale has to be raised for the bound.
        q = quantise_weights(weight[:, :, None, None], self.bits, 0, 0)
        bits = float(q.effective_bits.min())
        info = {"weight_bits": self.bits, "effective_bits": bits, "notes": []}
        scale = q.scale * source.step
        silence = scale * (source.zero * q.weight.flatten(1).sum(1, dtype=torch.int64)).double()
        return ReadoutStep(
            layer.name,
            [group.source],
            layer.fused,
            q.weight.flatten(1),
            scale,
            (layer.bias - silence).to(torch.float32),
            layer.pool,
            info,
        )
