"""The steps of a network out of its float graph, layer by layer: codes, integer weights, biases."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from fskernel.calibration.ranges import HEADROOM, Range, choose_alpha, shared_range
from fskernel.codes.code import Code, tops
from fskernel.codes.fitted import BITS
from fskernel.codes.neuron import GRADED_LIMIT, FSNeuron
from fskernel.codes.shape import Table, table_of
from fskernel.codes.weights import (
    quantise_weights,
    ratio,
    threshold_bias,
)
from fskernel.codes.windows import Windows
from fskernel.conversion.choices import FEWER, MOST, Choices
from fskernel.conversion.functions import functions_of, low_of
from fskernel.conversion.refusals import naming, unmeasured
from fskernel.errors import ConversionError
from fskernel.graph import HEADS, SIGNED, Graph, Group, Layer
from fskernel.network.steps import (
    ConcatStep,
    ConvStep,
    EncodeStep,
    GateStep,
    MapReadoutStep,
    MeanPoolStep,
    MoveStep,
    OutputStep,
    PoolStep,
    ReadoutStep,
    Step,
)
from fskernel.network.synapses import Synapses

# Graded values of 14 bits leave int16 weights 12 or more effective bits in the first layers of the
# networks we know, and resolve an 8-bit image more than 10 times finer than its grey levels.
GRADED_BITS = 14
# Images normalised with ImageNet's or CIFAR's mean and deviation stay below 2.7.
INPUT_RANGE = 4.0
# Signed values of which an average-pool summed more would have fewer than 8 of 16 bits.
MOST_SUMMED = GRADED_LIMIT // 127 + 1
FEW_BITS = 6  # fewer are worth a note in the report


class Builder:
    """Turns a float graph into steps, layer by layer, as was chosen; it changes neither."""

    def __init__(self, graph: Graph, choices: Choices):
        self.graph, self.choices = graph, choices
        self.codes: dict[str, Code] = {}
        self.tied = graph.tied()
        self.windows = self.largest_windows()
        # By what the channels of a layer are scaled, [C]; None: not.
        self.scales: dict[str, Tensor | None] = dict.fromkeys(layer.name for layer in graph.layers)
        if choices.channels:
            scales = graph.along_channels(self.own_scale)
            self.scales |= {n: None if bool((s == 1).all()) else s for n, s in scales.items()}

    def check(self, measured: bool) -> None:
        """Refuses what no range of any layer can help.

        Args:
            measured: whether ranges will be measured.

        Raises:
            ConversionError: as `build`.
        """
        codes: dict[str, Code] = {}
        for layer in self.graph.layers:
            for group in layer.groups if layer.kind != "readout" else ():
                self.check_sums(layer, group, codes[group.source])
            spiking = self.choices.bottleneck == "spiking" and layer.kind == "graded"
            if layer.kind in SIGNED and not spiking and not measured:
                raise unmeasured(layer)
            codes[layer.name] = self.bounds(layer, codes)

    def bounds(self, layer: Layer, codes: dict[str, Code]) -> Code | None:
        """A layer's code but for its step, given those of the layers before it."""
        if layer.name in self.choices.fitted:
            return Code.fitted(self.time_steps(layer.name), -1.0, 1.0, min(BITS))
        if layer.kind == "neuron":
            K = self.time_steps(layer.name)
            negative = any(low_of(self.graph[name]) < 0 for name in self.tied[layer.name])
            return Code.shaped(K, -1.0, 1.0) if negative else Code.words(K, 1.0)
        if layer.kind in SIGNED and self.choices.bottleneck == "spiking":
            return Code.signed_words(self.time_steps(layer.name), 1.0)
        if layer.kind in ("input", *SIGNED, "mean_pool"):
            return Code.graded(
                1.0, self.limit(layer.name, self.tied.get(layer.name, (layer.name,)))
            )
        if layer.kind == "avg_pool":
            summed = self.sums(layer, codes[layer.source])
            return summed or Code.graded(1.0, self.limit(layer.name, (layer.name,)))
        return None if layer.kind in HEADS else codes[layer.inputs()[0]]

    def check_sums(self, layer: Layer, group: Group, code: Code) -> None:
        """Refuses more synapses than weights of a single bit can have within the 32-bit bound."""
        largest = max(code.x_max, -code.x_min)
        if group.weight[0].numel() * largest >= 2**31:  # else no weights can exceed it
            with naming(layer):
                quantise_weights(group.weight, 8, code.x_min, code.x_max)

    def build(self) -> list[Step]:
        make = {
            "input": self.encode,
            "neuron": self.neuron,
            "graded": self.graded,
            "gate": self.gate,
            "max_pool": self.pool,
            "avg_pool": self.pool,
            "mean_pool": self.mean_pool,
            "concat": self.concat,
            "move": self.move,
            "readout": self.readout,
            "map_readout": self.map_readout,
            "output": self.output,
        }
        self.codes, steps = {}, []
        for layer in self.graph.layers:
            step = make[layer.kind](layer)
            self.codes[layer.name] = step.code
            steps.append(step)
        return steps

    def encode(self, layer: Layer) -> Step:
        if self.choices.input_range is not None:
            largest = self.choices.input_range
        elif self.choices.ranges is not None:
            largest = self.choices.ranges.largest[layer.name] * HEADROOM
        else:
            largest = INPUT_RANGE
        code = Code.graded(largest, self.limit(layer.name, (layer.name,)))
        if not 2.0**-126 <= code.step <= 2.0**126:
            raise ValueError(
                f"the images' largest magnitude is {largest:g}, which float32 cannot resolve: "
                "normalise them, or give input_range"
            )
        return EncodeStep(layer.name, [], code, layer.fused)

    def largest_windows(self) -> dict[str, int]:
        """For every layer whose codes an average-pool sums: how many of them, at most."""
        behind, windows = self.graph.behind(), {}
        for layer in self.graph.layers:
            n = math.prod(layer.geometry.kernel) if layer.kind == "avg_pool" else MOST_SUMMED
            if n < MOST_SUMMED:  # else their mean is rounded
                for name in behind[layer.source]:
                    windows[name] = max(windows.get(name, 1), n)
        return windows

    def limit(self, name: str, tied: Iterable[str]) -> int:
        """Largest graded value: fewer bits where sums of them would not fit 16."""
        n = max(self.windows.get(other, 1) for other in tied)
        return min(2 ** (GRADED_BITS - 1) - 1, GRADED_LIMIT // n)

    def time_steps(self, name: str) -> int:
        """K of a layer, the largest of those that are concatenated."""
        return self.choices.time_steps(self.tied[name])

    def one_alpha(self, layer: Layer, policy: object, signed: bool = False) -> float:
        """Alpha of a layer by itself."""
        K = self.time_steps(layer.name)
        return choose_alpha(policy, layer, self.choices.ranges, K, signed, self.choices.rounding)

    def alpha_of(self, layer: Layer, signed: bool = False) -> float:
        """Alpha of a layer, the largest of those that are concatenated."""
        tied = self.tied[layer.name]
        return max(
            float(self.choices.channels[name].max())
            if name in self.choices.channels
            else self.one_alpha(self.graph[name], self.choices.alpha, signed)
            for name in tied
        )

    def range_of(self, layer: Layer, policy: object = None) -> Range:
        """The range of a layer that is no ReLU's, or shares a step with one that is none.

        Args:
            policy: in place of the one that was chosen.
        """
        policy = self.choices.alpha if policy is None else policy
        tied = (self.graph[name] for name in self.tied[layer.name])
        K = self.time_steps(layer.name)
        return shared_range(policy, tied, self.choices.ranges, K, self.choices.rounding)

    def own_scale(self, layer: Layer, width: int) -> Tensor:
        """What the membranes of a layer's channels are multiplied by, float64 [C].

        A channel whose alpha is its own is scaled to the layer's; the weights behind it are divided
        by the same number.
        """
        if layer.name in self.choices.channels:
            return self.alpha_of(layer) / self.choices.channels[layer.name].double()
        return torch.ones(width, dtype=torch.float64)

    def scaled(self, group: Group, out: Tensor | None) -> Tensor:
        """The group's weights between scaled channels, float64 [O, I/groups, kh, kw]."""
        weight = group.weight.double()
        if out is not None:
            weight = weight * out[:, None, None, None]
        into = self.scales[group.source]
        if into is not None:
            groups = group.geometry.groups
            per = into.view(groups, 1, -1).expand(-1, len(weight) // groups, -1)
            weight = weight / per.reshape(len(weight), -1)[:, :, None, None]
        return weight

    def bits_of(self, name: str) -> int:
        """Weight bits of a layer."""
        if self.choices.bits != "auto":
            return self.choices.bits
        return 8 if self.choices.int8 is None or name in self.choices.int8 else 16

    def with_int8(self, layer: Layer) -> Layer:
        """The float layer as it would be with 8-bit weights."""
        out = self.scales[layer.name]
        groups = []
        for group in layer.groups:
            scaled = self.scaled(group, out)
            q = quantise_weights(scaled, 8, 0, 0)
            near = q.weight.double() * q.scale[:, None, None, None]
            # Back between channels that are not scaled: what rounding changed, relatively.
            change = torch.where(scaled == 0, torch.ones_like(scaled), near / scaled)
            weight = (group.weight.double() * change).to(group.weight.dtype)
            groups.append(replace(group, weight=weight))
        return replace(layer, groups=groups)

    def is_shaped(self, layer: Layer) -> bool:
        """Whether it, or a layer that it is concatenated with, is no ReLU: words have a zero."""
        return any(self.graph[name].activation is not None for name in self.tied[layer.name])

    def shaped(self, layer: Layer) -> Step:
        """A layer whose neurons fire the expansion of a function that is no ReLU."""
        K, rounding = self.time_steps(layer.name), self.choices.rounding
        code = Code.shaped(K, *self.range_of(layer))
        neuron = self.checked(layer, math.ldexp(code.step, K))
        seen = {} if self.choices.ranges is None else self.choices.ranges.membranes
        ends = seen.get(layer.name, (0.0, 0.0))
        reach = max(2.0 * neuron.alpha, HEADROOM * max(map(abs, ends)))
        with naming(layer):
            table = table_of(functions_of(layer), code, neuron.offset, reach)
        activation = layer.activation.text() if layer.activation is not None else "ReLU"
        info = {
            "alpha": neuron.alpha,
            "rounding": rounding,
            "activation": activation,
            "table_error": round(table.error, 4),
        }
        notes = self.sharing(layer, "K and range")
        return self.affine(layer, code, -table.low / table.width, info, notes, table=table)

    def fitted(self, layer: Layer) -> Step:
        """A layer whose neurons are fitted to its function; membranes are in its units."""
        trains = self.choices.trains[layer.name]
        info = {"activation": "ReLU" if layer.activation is None else layer.activation.text()}
        if math.isfinite(trains.rms):
            info["fit_rms"] = trains.rms
        notes = self.sharing(layer, "K and code")
        return self.affine(layer, trains.code, 0.0, info, notes, fitted=trains.lines)

    def neuron(self, layer: Layer) -> Step:
        if layer.name in self.choices.fitted:
            return self.fitted(layer)
        if self.is_shaped(layer):
            return self.shaped(layer)
        neuron = self.unit(layer, signed=False)
        code = Code.words(neuron.K, neuron.alpha)
        info = {"alpha": neuron.alpha, "rounding": self.choices.rounding}
        notes = self.sharing(layer, "K and alpha")
        if self.scales[layer.name] is not None:
            own = self.choices.channels[layer.name]
            notes.append(f"channels have alphas of their own, {own.min():.3g} to {own.max():.3g}")
        top = None
        if layer.ceiling is not None:
            scale = self.scales[layer.name]
            top = tops(layer.ceiling, scale, code, neuron.offset, len(layer.bias))
        if top is not None:
            low, high = int(top.min()), int(top.max())
            words = f"{low}" if low == high else f"{low} to {high}, channel by channel,"
            notes.append(
                f"stops at word {words} of {code.x_max}, the ceiling {layer.ceiling:g} of the ANN"
            )
        return self.affine(layer, code, neuron.offset, info, notes, top)

    def unit(self, layer: Layer, signed: bool) -> FSNeuron:
        """The neuron of a layer, its K and alpha the largest of those that are concatenated."""
        return self.checked(layer, self.alpha_of(layer, signed))

    def checked(self, layer: Layer, alpha: float) -> FSNeuron:
        try:
            return FSNeuron(self.time_steps(layer.name), alpha, self.choices.rounding)
        except ValueError as error:
            raise ConversionError(
                layer.name, str(error), "Check the range of its inputs"
            ) from error

    def sharing(self, layer: Layer, what: str) -> list[str]:
        n = len(self.tied[layer.name])
        return [f"shares the largest {what} of {n} layers that are concatenated"] if n > 1 else []

    def fewer(self, layer: Layer, code: Code) -> list[str]:
        """The note that a layer of plain neurons has fewer steps than were asked for."""
        if code.kind != "words":
            return []
        asked = self.choices.asked(self.tied[layer.name])
        few = f"K={asked} is of fitted neurons: these have {FEWER} steps"
        return [few] if asked > MOST else []

    def graded(self, layer: Layer) -> Step:
        """A layer without a ReLU: graded values, or words with an offset."""
        if self.choices.bottleneck == "spiking":
            neuron = self.unit(layer, signed=True)
            code = Code.signed_words(neuron.K, neuron.alpha)
            info = {"alpha": neuron.alpha, "rounding": self.choices.rounding}
            offset = code.zero + neuron.offset
            return self.affine(layer, code, offset, info, self.sharing(layer, "K and alpha"))
        return self.affine(layer, self.graded_code(layer), 0.0, {}, self.sharing(layer, "range"))

    def graded_code(self, layer: Layer) -> Code:
        if self.choices.ranges is None:
            raise unmeasured(layer)
        largest = max(self.choices.ranges.largest[name] for name in self.tied[layer.name])
        return Code.graded(largest * HEADROOM, self.limit(layer.name, self.tied[layer.name]))

    def gate(self, layer: Layer) -> Step:
        """The product of two maps: graded values, or words."""
        neuron, info, notes = None, {}, self.sharing(layer, "range")
        if self.choices.bottleneck == "graded":
            code = self.graded_code(layer)
        elif any(self.graph[name].kind == "graded" for name in self.tied[layer.name]):
            neuron = self.unit(layer, signed=True)
            code = Code.signed_words(neuron.K, neuron.alpha)
        else:  # zero is where the range says
            code = Code.shaped(self.time_steps(layer.name), *self.range_of(layer))
            neuron = self.checked(layer, math.ldexp(code.step, code.K))
        if neuron is not None:
            info = {"alpha": math.ldexp(code.step, code.K), "rounding": self.choices.rounding}
        a, b = layer.sources
        scales = [self.scales[name] for name in (a, b) if self.scales[name] is not None]
        return GateStep.of_codes(
            layer.name,
            [a, b],
            code,
            layer.fused,
            (self.codes[a], self.codes[b]),
            self.graph.widths()[layer.name],
            offset=0.0 if neuron is None else neuron.offset,
            scale=math.prod(scales[1:], start=scales[0]) if scales else None,
            info=info | {"notes": notes + self.fewer(layer, code)},
        )

    def affine(
        self,
        layer: Layer,
        code: Code,
        offset: float,
        info: dict,
        notes: list,
        top: Tensor | None = None,
        table: Table | None = None,
        fitted: Tensor | None = None,
    ) -> Step:
        # What membranes are counted in: last thresholds, segments of a shaped neuron's table, or
        # the function's own units.
        unit = code.step if table is None else table.width
        unit = unit if fitted is None else 1.0
        groups, bits, scales = [], [], []
        for group in layer.groups:
            synapses, effective, scale = self.synapses(layer, group, unit)
            groups.append(synapses)
            bits.append(effective)
            scales.append(scale)
        sources = [g.source for g in layer.groups]
        r = None
        if layer.residual is not None:
            sources.append(layer.residual)
            r = ratio(self.codes[layer.residual].step, unit)
        least = float(torch.cat(bits).min())
        if least < FEW_BITS:
            notes.append(
                f"only {least:.1f} weight bits are left by the 32-bit bound: use a smaller K"
            )
        out = self.scales[layer.name]
        sums = layer.bias if out is None else layer.bias.double() * out
        bias = threshold_bias(sums, unit, offset - self.silence(sources, groups, r))
        for what, tensor in [("bias", bias), *(("m", g.m) for g in groups)]:
            if not torch.isfinite(tensor).all():
                raise ConversionError(
                    layer.name,
                    f"its {what} in units of the last threshold ({unit:g}) is not finite",
                    "Use a larger alpha for this layer",
                )
        notes += self.fewer(layer, code)
        info |= {
            "weight_bits": self.bits_of(layer.name),
            "effective_bits": round(least, 3),
            "notes": notes,
        }
        neurons = (top, None if table is None else table.lines, fitted)
        step = ConvStep(layer.name, sources, code, layer.fused, groups, bias, r, info, *neurons)
        step.channel_scale = out
        return step

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

    def synapses(self, layer: Layer, group: Group, unit: float):
        source = self.codes[group.source]
        weight = self.scaled(group, self.scales[layer.name])
        options = (group.geometry, source, unit, group.one_to_one)
        with naming(layer):
            synapses, q = Synapses.quantised(weight, self.bits_of(layer.name), *options)
        return synapses, q.effective_bits, q.scale

    def pool(self, layer: Layer) -> Step:
        source = self.codes[layer.source]
        if layer.kind == "max_pool":
            return PoolStep(
                layer.name, [layer.source], source, layer.fused, layer.geometry, "max_pool"
            )
        code = self.sums(layer, source)
        if code is None:
            windows = Windows("clipped", geometry=layer.geometry)
            return self.mean_pool(replace(layer, windows=windows))
        return PoolStep(layer.name, [layer.source], code, layer.fused, layer.geometry, "sum_pool")

    def sums(self, layer: Layer, source: Code) -> Code | None:
        """The code of an average-pool's exact sums; None where they are not for 16 bits.

        Nor are they where the padding's code, 0, does not stand for zero.
        """
        n = math.prod(layer.geometry.kernel)
        code = source.pooled(n)
        fits = n < MOST_SUMMED and max(code.x_max, -code.x_min) <= GRADED_LIMIT
        return code if fits and not (source.zero and any(layer.geometry.padding)) else None

    def mean_pool(self, layer: Layer) -> Step:
        """Its largest possible mean is its largest code, so no range has to be measured."""
        reads = self.codes[layer.source]
        largest = max(reads.x_max - reads.zero, reads.zero - reads.x_min) * reads.step
        code = Code.graded(largest, self.limit(layer.name, (layer.name,)))
        return MeanPoolStep(layer.name, [layer.source], code, layer.fused, layer.windows, reads)

    def concat(self, layer: Layer) -> Step:
        code = self.codes[layer.sources[0]]
        return ConcatStep(layer.name, list(layer.sources), code, layer.fused, layer.runs)

    def move(self, layer: Layer) -> Step:
        code = self.codes[layer.heard()[0]]
        return MoveStep(layer.name, layer.inputs(), code, layer.fused, layer.move)

    def map_readout(self, layer: Layer) -> Step:
        """An affine layer whose sums, in the dense network's units, are the output."""
        made = self.affine(layer, Code.real(), 0.0, {}, [])
        return MapReadoutStep(
            layer.name, made.sources, layer.fused, [*made.groups], made.bias, made.r, made.info
        )

    def output(self, layer: Layer) -> Step:
        source = layer.source
        return OutputStep(
            layer.name, [source], layer.fused, self.codes[source], self.scales[source]
        )

    def readout(self, layer: Layer) -> Step:
        group = layer.groups[0]
        source = self.codes[group.source]
        weight = self.scaled(group, None).permute(0, 2, 3, 1).flatten(1)  # features in NHWC order
        # The readout sums in 64 bits, so no weight scale has to be raised for the bound.
        q = quantise_weights(weight[:, :, None, None], self.bits_of(layer.name), 0, 0)
        bits = float(q.effective_bits.min())
        info = {"weight_bits": self.bits_of(layer.name), "effective_bits": bits, "notes": []}
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
