"""From a trained module to a Few-Spikes network: ranges, integer weights, steps."""

from __future__ import annotations

import copy
import difflib
import itertools
import logging
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fskernel.calibration.by_logits import by_logits, channelwise, shaped
from fskernel.calibration.correct import CORRECTIONS, corrected
from fskernel.calibration.fitted_trains import fitted_layers, trains_of
from fskernel.calibration.ranges import Range, batches, check_policy, measure
from fskernel.calibration.rounded_graph import Unit
from fskernel.calibration.spool import Spool
from fskernel.calibration.weight_bits import int8_layers
from fskernel.codes.fitted import MOST_STEPS
from fskernel.codes.neuron import FSNeuron
from fskernel.conversion.builder import Builder
from fskernel.conversion.choices import Choices
from fskernel.graph import SIGNED, Graph
from fskernel.image_sizes import as_maps
from fskernel.network.network import FSNetwork
from fskernel.onnx_files.network import from_onnx
from fskernel.onnx_files.reading import is_onnx
from fskernel.progress import progress_bar
from fskernel.torch_rules.neutral import neutral
from fskernel.tracing.trace import trace

if TYPE_CHECKING:
    from onnx import ModelProto

_log = logging.getLogger(__name__)

BOTTLENECKS = ("graded", "spiking")

DEFAULTS = {"K": 8, "alpha": "max", "rounding": "nearest", "weight_bits": 8}
FITTED = DEFAULTS | {"K": 16}
PAPER = {"K": 10, "alpha": 25.0, "rounding": "floor", "weight_bits": 16}
PRESETS = {None: DEFAULTS, "paper": PAPER, "fitted": FITTED}


@neutral()
def convert(
    module: nn.Module | Graph | str | os.PathLike[str] | ModelProto,
    calibration: Tensor | Iterable | None = None,
    K: int | dict[str, int] | None = None,
    alpha: str | float | dict | None = None,
    rounding: str | None = None,
    weight_bits: int | str | None = None,
    *,
    neuron: str | None = None,
    bottleneck: str = "graded",
    correct: str | None = None,
    input_range: float | None = None,
    input_size: tuple[int, ...] | None = None,
    outputs: Iterable[str] | None = None,
    progress: bool = False,
) -> FSNetwork:
    """Converts a trained CNN, without retraining, into a network of FS neurons.

    Batch norm is folded in float64, each activation becomes an FS neuron, residual branches become
    synapses of the neuron they reach, max-pools act on spike words, products of activations are
    gates.

    Args:
        module: a trained network of convolutions, batch norms, activations (ReLU, SiLU, GELU, ...),
            pools, additions, products and linear layers; it is not changed. Or the graph that
            `fskernel.trace.trace` made of it, where the same module is converted several times. Or
            an ONNX file: its path, which ends in .onnx, or an `onnx.ModelProto`;
            `fskernel.from_onnx` reads it.
        calibration: images [N, C, H, W], float and normalised as for the network, or an iterable
            of such batches (a DataLoader). Needed to measure alpha.
        K: time steps, 1..15 (of fitted neurons 1..16), of all neurons, or a dict of layer names,
            with "default" for those it does not name; layers that are concatenated take the largest
            of theirs. Default 8. `fskernel.search` finds the smallest.
        alpha: "max" (default; the largest activation of the layer on the calibration images),
            "percentile:99.9" (of its positive activations), "mse" (which rounds the layer's own
            activations with the least squared error), a number for all layers, or a dict of layer
            names, with "default" for those it does not name. "logits" tries, layer by layer, these
            and alphas of every channel's own, and takes what moves the logits least on images
            that had no part in making them; it takes minutes.
        rounding: "nearest" (default) or "floor", the paper's.
        weight_bits: 8 (default), 16, or "auto": 8 for as many layers as together cause at most
            twice the spikes' squared error of the logits, in the order of error per
            multiply-accumulate.
        neuron: "paper" is the paper's setting: K=10, alpha=25, floor, 16-bit weights, and average
            pools in place of max-pools (see `paper_pools` for the ANN). Other arguments override.
            "fitted": each activation that is no ReLU becomes a fitted FS neuron, K=16 unless given,
            whose T(t), h(t) and d(t) are for its function and the membranes that were seen; alpha
            and rounding are then of the other layers. Layers of ReLUs, and activations with a
            function for each channel, stay what they are, with 8 steps where K is 16.
        bottleneck: what layers without an activation (linear bottlenecks) and gates emit: "graded"
            (default), signed values of 14 bits up to 1.25 times the calibration's largest, which
            are not spikes; or "spiking", words of K steps. Those of bottlenecks are for values in
            [-alpha, alpha): the membrane starts alpha higher, and zero is the word 2^(K-1). The
            alpha policy is theirs, too, with magnitudes in place of values. Those of gates are for
            the values that were seen.
        correct: what is done, layer by layer on the calibration images, about the error that has
            come in so far: None (default), "bias" (the means of the membranes are put right) or
            "least_squares" (besides, weights of linear bottlenecks and depthwise layers move to the
            ridge regression of the float sums on the rounded inputs). No labels, no gradients; see
            docs/calibration.md. `net.graph` is then the corrected float network.
        input_range: largest magnitude of a pixel. Default: 1.25 times what the calibration holds,
            or 4.0 without calibration; pixels beyond it saturate.
        input_size: (N, C, H, W), where the network's structure depends on it and there is no
            calibration.
        outputs: names of submodules whose results are wanted, where the module as a whole cannot be
            converted (detectors): these parts alone become the network, which gives a dictionary
            by their names. The first reads the images, the others what those before them give.
        progress: show a progress bar while calibrating.

    Returns:
        The network; `.report()` lists what became of every module.

    Raises:
        ConversionError: a module without a Few-Spikes form: its name, why, and what would help. Or
            the first layer that gives what the module does not, on four of the images and random
            ones. All that can be known before the images are gone through is refused before.
        ValueError, TypeError: a bad argument, before any work.
    """
    if neuron not in PRESETS:
        raise ValueError(
            f"neuron={neuron!r} is unknown: use 'paper' or 'fitted', or set K, alpha and rounding"
        )
    preset = PRESETS[neuron]
    K = preset["K"] if K is None else K
    alpha = preset["alpha"] if alpha is None else alpha
    rounding = preset["rounding"] if rounding is None else rounding
    weight_bits = preset["weight_bits"] if weight_bits is None else weight_bits
    for steps in K.values() if isinstance(K, dict) else (K,):
        sixteen = neuron == "fitted" and type(steps) is int and steps == MOST_STEPS
        FSNeuron(1 if sixteen else steps, 1.0, rounding)  # refuses a bad K or rounding
    if weight_bits not in (8, 16, "auto"):
        raise ValueError(f"weight_bits={weight_bits!r} is not supported: use 8, 16 or 'auto'")
    if correct not in CORRECTIONS:
        raise ValueError(f"correct={correct!r} is unknown: use None, 'bias' or 'least_squares'")
    for what, value in (("weight_bits", weight_bits), ("correct", correct)):
        if value in ("auto", "bias", "least_squares") and calibration is None:
            raise ValueError(f"{what}={value!r} is measured on images: pass calibration=...")
    if bottleneck not in BOTTLENECKS:
        raise ValueError(f"bottleneck={bottleneck!r} is unknown: use 'graded' or 'spiking'")
    if input_range is not None and not (
        isinstance(input_range, Real) and input_range > 0 and math.isfinite(input_range)
    ):
        raise ValueError(f"input_range={input_range!r} must be positive and finite")
    if neuron == "fitted":
        _check_fitted(alpha, calibration is not None)
    check_policy(alpha, calibration is not None)
    if input_size is not None and not (
        isinstance(input_size, (tuple, list))
        and 2 <= len(input_size) <= 4
        and all(isinstance(n, Integral) and n > 0 for n in input_size)
    ):
        raise ValueError(
            f"input_size={input_size!r} is no shape of images: give (N, C, H, W), or (N, C, L) for "
            "sequences, or (N, F) for vectors"
        )

    if is_onnx(module):
        module = from_onnx(module)
    stream, first = _begun(calibration)
    if isinstance(module, Graph):
        if outputs is not None:
            raise ValueError("outputs names submodules: a Graph has none, pass it to trace")
        graph = module
    else:
        size = input_size if first is None else tuple(first.shape)
        paper = neuron == "paper"
        graph = trace(module, size, average=paper, images=first, outputs=outputs)
    _warn_of_averages(graph.averaged)
    names = spiking_layers(graph, bottleneck)
    for what, value in (("K", K), ("alpha", alpha)):
        _check_names(what, value, names)
    fitted = fitted_layers(graph) if neuron == "fitted" else frozenset()
    for name in fitted & alpha.keys() if isinstance(alpha, dict) else ():
        raise ValueError(
            f"alpha names {name!r}, whose neurons are fitted to the membranes that were seen and "
            "have no alpha: leave it out"
        )
    by_layer = K if isinstance(K, dict) else {"default": K}
    choices = Choices(
        by_layer, alpha, rounding, weight_bits, bottleneck, input_range, fitted=fitted
    )
    Builder(graph, choices).check(measured=calibration is not None)
    if calibration is not None:
        images = Spool(_filled(stream))
        ranges = measure(graph, images, progress)
        steps = {name: choices.time_steps(tied) for name, tied in graph.tied().items()}
        trains = trains_of(graph, fitted, steps, ranges, rounding, progress)
        choices = replace(choices, ranges=ranges, trains=trains)
        graph, choices = judged(graph, choices, images, correct, progress)
    steps = Builder(graph, choices).build()
    net = FSNetwork(
        steps,
        graph=graph,
        input_size=choices.ranges.input_size if choices.ranges else _of_maps(input_size),
        sizes=graph.sizes,
        tail=copy.deepcopy(graph.tail),
    )
    net.pack()
    if _log.isEnabledFor(logging.INFO):
        asked = f"alpha={_short(alpha)}, rounding={rounding!r}, weight_bits={weight_bits!r}"
        asked += f", bottleneck={bottleneck!r}, correct={correct!r}"
        _tell(graph.module, net, asked)
    return net


def _check_fitted(alpha: object, measured: bool) -> None:
    """Refuses what fitted neurons cannot be chosen with, by its name."""
    if not measured:
        raise ValueError(
            "neuron='fitted' is for the membranes that images bring about: pass calibration=..."
        )
    if alpha == "logits":
        raise ValueError(
            "alpha='logits' tries ranges, and fitted neurons have none: use 'max', 'mse', "
            "'percentile:99.9' or a number, which are then of the other layers"
        )


def _of_maps(size: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """A shape of images, sequences or vectors as that of maps."""
    if size is None or len(size) == 4:
        return size
    return (*size, 1, 1) if len(size) == 2 else (*size[:2], 1, size[2])


def _short(value: object) -> str:
    return f"<of {len(value)} names>" if isinstance(value, dict) else repr(value)


def _tell(kind: str, net: FSNetwork, asked: str) -> None:
    """Logs what was converted, and every layer of it."""
    rows = net.report().rows
    modules, notes = (sum(map(len, (getattr(r, n) for r in rows))) for n in ("fused", "notes"))
    _log.info("converted %s with %s: %r", kind, asked, net)
    _log.info("%d modules are folded into %d steps; notes: %d", modules, len(rows), notes)
    bits = Counter(row.weight_bits for row in rows if row.weight_bits)
    if len(bits) > 1:
        _log.info("weights: %s", ", ".join(f"{n} layers int{b}" for b, n in sorted(bits.items())))
    for row in rows:
        detail = "" if row.K is None else f", K={row.K}, alpha={row.alpha:.4g}"
        folded = ", ".join(row.fused) or "nothing"
        _log.debug("%s: %s%s; folded into it: %s", row.name, row.kind, detail, folded)
        for note in row.notes:
            _log.debug("%s: %s", row.name, note)


def _begun(calibration: Tensor | Iterable | None) -> tuple[Iterator[Tensor], Tensor | None]:
    """The batches, and the first of them, which is all that has been read."""
    if calibration is None:
        return iter(()), None
    stream = batches(calibration)
    first = next(stream, None)
    return (stream, None) if first is None else (itertools.chain([first], stream), first)


def _filled(stream: Iterable[Tensor]) -> Iterator[Tensor]:
    maps = (as_maps(b) for b in stream if len(b))
    return (b.contiguous(memory_format=torch.channels_last) for b in maps)


def judged(
    graph: Graph, choices: Choices, images: Spool, correct: str | None, progress: bool
) -> tuple[Graph, Choices]:
    """The graph with corrected weights, and the choices with what the logits say, as far as wanted.

    Alphas come first, then corrections, which need them, then bits, which need both.
    """
    wants = [choices.alpha == "logits", correct is not None, choices.bits == "auto"]
    if not any(wants):
        return graph, choices
    exact, graph = graph, graph.to(torch.float32)
    builder = Builder(exact, choices)
    unit = Unit(builder.time_steps, choices.rounding)
    if choices.alpha == "logits":
        neurons = sum(layer.kind == "neuron" for layer in graph.layers)
        with progress_bar("choosing alpha", neurons, progress) as advance:
            chosen = by_logits(
                graph,
                images,
                unit,
                lambda layer: builder.one_alpha(layer, "mse"),
                advance,
                builder.range_of,
            )
        own = channelwise(graph)
        one = {
            name: alpha if isinstance(alpha, Range) else float(alpha.max())
            for name, alpha in chosen.items()
            if name not in own
        }
        channels = {name: chosen[name] for name in own}
        choices = replace(choices, alpha=one | {"default": "max"}, channels=channels)
        builder = Builder(exact, choices)
    alphas, ranged = {}, shaped(graph)
    for layer in graph.layers:
        if layer.name in choices.fitted:
            alphas[layer.name] = choices.trains[layer.name]
        elif layer.name in ranged:
            alphas[layer.name] = builder.range_of(layer)
        elif layer.kind == "neuron":
            alphas[layer.name] = choices.channels.get(layer.name, builder.alpha_of(layer))
    if correct is not None:
        with progress_bar("correcting", len(graph.layers) - 1, progress) as advance:
            graph = corrected(graph, images, unit, alphas, correct, advance)
        exact = graph.to(torch.float64)
        builder = Builder(exact, choices)
    if choices.bits == "auto":
        weighted = sum(bool(layer.groups) for layer in graph.layers)
        with progress_bar("choosing weight bits", weighted, progress) as advance:
            found = int8_layers(graph, images, unit, alphas, builder.with_int8, advance)
        choices = replace(choices, int8=found)
    return exact, choices


def _warn_of_averages(names: tuple[str, ...]) -> None:
    if names:
        warnings.warn(
            f"the paper's setting replaces the max-pool {', '.join(names)} by an average-pool, in "
            "the ANN too (fskernel.paper_pools); weights trained with max-pools were not trained "
            "for that, so expect lower accuracy from both until they are retrained",
            stacklevel=4,
        )


def spiking_layers(graph: Graph, bottleneck: str) -> list[str]:
    """Names of the layers that become neurons, those of bottlenecks and gates where they spike."""
    spiking = ("neuron", *SIGNED) if bottleneck == "spiking" else ("neuron",)
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
