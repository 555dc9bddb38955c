"""Few-Spikes layers in place of a whole module's convolutions and linear layers."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_map_only

from fskernel import text
from fskernel.calibration.ranges import Ranges, check_policy, choose_alpha
from fskernel.codes.neuron import FSNeuron, check_K
from fskernel.drop_in.layers import FSConv2d, FSLinear, channels_last
from fskernel.drop_in.watch import Output, Rectifier, Seen, Watch, plain
from fskernel.progress import progress_bar
from fskernel.tracing.module.given_module import deep_copy, first_line

_log = logging.getLogger(__name__)

SIGNED_K = 12  # of signed input where none is asked for: graded values are int16 in any case


@dataclass(frozen=True)
class Replacement:
    """What became of one layer.

    Attributes:
        name: of the module, the first it is registered under.
        kind: "FSConv2d", "FSLinear", or None where the layer stays.
        relu: whether it has neurons, that is, includes the ReLU behind it.
        reason: why it stays, or why it has no neurons.
        K, alpha: of its neurons. input_K, input_alpha, signed_input: how its input is encoded.
        norm: name of the batch norm that is folded into it.
    """

    name: str
    kind: str | None = None
    relu: bool = False
    reason: str = ""
    K: int | None = None
    alpha: float | None = None
    input_K: int | None = None
    input_alpha: float | None = None
    signed_input: bool = False
    norm: str | None = None


@dataclass(frozen=True)
class ReplaceReport:
    """One row for each convolution and linear layer, in the module's order; str() is a table."""

    rows: list[Replacement] = field(default_factory=list)

    @property
    def replaced(self) -> list[Replacement]:
        """The layers that became Few-Spikes layers."""
        return [row for row in self.rows if row.kind]

    @property
    def kept(self) -> list[Replacement]:
        """The layers that stay as they were."""
        return [row for row in self.rows if not row.kind]

    def __repr__(self) -> str:
        return f"ReplaceReport({len(self.replaced)} of {len(self.rows)} layers)"

    def __str__(self) -> str:
        head = ("layer", "now", "K", "alpha", "input K", "input alpha", "batch norm", "why")
        table = [head]
        for row in self.rows:
            sign = "+-" if row.signed_input else ""
            table.append(
                (
                    row.name or "(itself)",
                    row.kind + (" + ReLU" if row.relu else "") if row.kind else "stays",
                    "" if row.K is None else str(row.K),
                    "" if row.alpha is None else f"{row.alpha:.4g}",
                    "" if row.input_K is None else str(row.input_K),
                    "" if row.input_alpha is None else f"{sign}{row.input_alpha:.4g}",
                    row.norm or "",
                    row.reason,
                )
            )
        lines = text.columns(table)
        neurons = sum(row.relu for row in self.replaced)
        norms = sum(row.norm is not None for row in self.replaced)
        count = (
            f"{len(self.replaced)} of {len(self.rows)} layers replaced, {neurons} of them with "
            f"their ReLU; {norms} batch norms folded"
        )
        return "\n".join([*lines, count] if self.replaced else [*lines, "nothing is replaced"])


def replace(
    module: nn.Module,
    calibration: Tensor | Iterable,
    *,
    K: int = 8,
    alpha: str | float | dict = "max",
    weight_bits: int = 8,
    rounding: str = "nearest",
    input_K: int | None = None,
    inplace: bool = False,
    progress: bool = False,
) -> tuple[nn.Module, ReplaceReport]:
    """Puts FSConv2d and FSLinear in place of a module's convolutions and linear layers.

    Any module that runs will do: nothing is traced. What follows a layer is seen while a copy of
    the module runs on the calibration images, in eval mode. Where the output of every call is
    read by one batch norm alone, it is folded; where what is then there is read by one ReLU alone,
    in whatever form, the layer becomes neurons. Every other layer emits float values, without
    neurons (`relu=False`). Layers that cannot be replaced stay, and the report says why.

    What the calibration does not show is not known: it should take every path that matters, and
    inputs that it never shows to be negative are refused later where they are. Nor is it seen when
    another thread reads an output, or when forward asks for the class of a batch norm or the shape
    of its weight, which nn.Identity does not have.

    Args:
        module: what is replaced in; parameters, hooks and modes of it are left alone.
        calibration: a tensor [N, C, H, W], or an iterable of batches: a tuple holds the positional
            arguments of a call, a dict its named ones, anything else (a list of images, too) is
            the one argument. They lie on the device of the module.
        K: time steps of neurons and of unsigned input, 1..15.
        alpha: "max" (the largest activation on the calibration images), "percentile:99.9",
            "mse", a number, or a dict of layer names with "default" for the others.
        weight_bits: 8 or 16. rounding: "nearest" or "floor".
        input_K: of all inputs. Default: K, and for signed inputs 12 or K, the larger.
        inplace: the module itself becomes the result.
        progress: shows a bar (needs rich).

    Returns:
        The module, a copy unless `inplace`, in eval mode and without gradients; and the report.

    Raises:
        TypeError, ValueError: a bad argument, before any work; an empty calibration.
        ConversionError: the module cannot be copied.
        Exception: whatever the module raises on the calibration images.
    """
    _check(module, calibration, alpha, weight_bits, input_K)
    neuron = {"K": FSNeuron(K, 1.0, rounding).K, "rounding": rounding, "weight_bits": weight_bits}
    with torch.inference_mode(False), torch.no_grad():
        with _buffers_kept(module):
            watch, names = _observed(_copied(module), calibration, alpha, progress)
        target = module if inplace else _copied(module)
        target.eval()
        for p in target.parameters():
            if not is_lazy(p):
                p.requires_grad_(False)
        parts = dict(target.named_modules())
        rows = _replaced(target, _Replacer(watch, names, parts, alpha, input_K, neuron))
    report = ReplaceReport(rows)
    if _log.isEnabledFor(logging.INFO):
        _tell(report)
    return target, report


def _tell(report: ReplaceReport) -> None:
    """Logs what was replaced, and what stays."""
    _log.info("replaced %d of %d layers", len(report.replaced), len(report.rows))
    for row in report.kept:
        _log.info("%s stays: %s", row.name or "the module itself", row.reason)
    for row in report.replaced:
        neurons = f"K={row.K}, alpha={row.alpha:.4g}" if row.relu else f"no neurons: {row.reason}"
        _log.debug("%s is now %s, %s", row.name or "the module itself", row.kind, neurons)


def _check(module, calibration, alpha, weight_bits, input_K) -> None:
    """Refuses bad arguments before any work."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}: expected an nn.Module")
    if not isinstance(calibration, Iterable) or isinstance(calibration, (str, bytes, Mapping)):
        raise TypeError(
            f"calibration is a {type(calibration).__name__}: expected a tensor [N, C, H, W] or an "
            "iterable of batches"
        )
    if isinstance(calibration, Tensor) and (calibration.dim() == 0 or len(calibration) == 0):
        raise ValueError(
            f"calibration is empty (shape {tuple(calibration.shape)}): pass at least one image"
        )
    check_policy(alpha, True)
    policies = alpha.values() if isinstance(alpha, dict) else [alpha]
    if "logits" in policies:
        raise ValueError(
            "alpha='logits' is for fskernel.convert: use 'max', 'percentile:99.9', 'mse' or a "
            "number"
        )
    if isinstance(alpha, dict) and "default" not in alpha:
        raise ValueError(f"alpha={alpha!r} has no 'default' for the layers it does not name")
    if input_K is not None:
        try:
            check_K(input_K)
        except (TypeError, ValueError) as error:
            raise type(error)(f"input_{error}") from None
    if weight_bits not in (8, 16):
        raise ValueError(f"weight_bits={weight_bits!r} is not supported: use 8 or 16")


def _copied(module: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ConversionError: it cannot be copied.
    """
    memo: dict[int, object] = {}
    for part in module.modules():
        # Weight norm and pruning keep computed weights as attributes, which torch does not copy.
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return deep_copy(module, "replace in that", memo)


def _calls(calibration: Tensor | Iterable) -> Iterator[tuple[tuple, dict]]:
    """The arguments of each call; tensors are copies, which the module may change."""
    if isinstance(calibration, Tensor):
        calibration = calibration.split(16) if calibration.dim() == 4 else [calibration]
    for batch in calibration:
        batch = tree_map_only(Tensor, lambda t: t.detach().clone(), batch)
        if isinstance(batch, Mapping):
            yield (), dict(batch)
        else:
            yield (batch if isinstance(batch, tuple) else (batch,)), {}


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Buffers of the original are as they were: a function in the copy may hold it and call it."""
    before = [(t, t.clone()) for t in module.buffers() if not is_lazy(t)]
    try:
        yield
    finally:
        for tensor, content in before:
            if not torch.equal(tensor, content):
                tensor.copy_(content)


def _observed(
    probe: nn.Module, calibration: Tensor | Iterable, alpha: object, progress: bool
) -> tuple[Watch, dict[nn.Module, str]]:
    """Runs the probe on all batches: what was seen, and its modules' names."""
    probe.eval()
    names = {part: name for name, part in probe.named_modules()}
    layers, norms, relus = {}, [], []
    for part, name in names.items():
        kind = parametrize.type_before_parametrizations(part)
        if kind in (nn.Conv2d, nn.Linear):
            layers[part] = Seen(name, part)
        elif isinstance(part, torch.jit.ScriptModule) or not plain(part):
            continue
        elif _norm_like(part):
            norms.append(part)
        elif type(part) in (nn.ReLU, nn.ReLU6, nn.Hardtanh):
            relus.append(part)
    policies = alpha.values() if isinstance(alpha, dict) else [alpha]
    histograms = any(isinstance(p, str) and p != "max" for p in policies)
    watch, batches = Watch(layers, norms, relus, histograms), 0
    devices = sorted({t.device.index for t in probe.parameters() if t.is_cuda})
    with (
        torch.random.fork_rng(devices=devices),
        watch.hooked(),
        progress_bar("calibrating", None, progress) as advance,
    ):
        for args, kwargs in _calls(calibration):
            watch.run(probe, args, kwargs)
            batches += 1
            advance("")
    if not batches:
        raise ValueError("calibration is empty: pass at least one batch")
    return watch, names


def _norm_like(part: nn.Module) -> bool:
    """Whether it is a batch norm of maps that has running statistics."""
    frozen = type(part).__name__ == "FrozenBatchNorm2d" and type(part).__module__.startswith(
        "torchvision.ops"
    )
    known = type(part) in (nn.BatchNorm2d, nn.SyncBatchNorm)
    return frozen or (known and part.running_mean is not None)


def _batch_norm(part: nn.Module) -> nn.Module:
    """The batch norm as torch's class."""
    if isinstance(part, _BatchNorm):
        return part
    norm = nn.BatchNorm2d(len(part.weight), part.eps, dtype=part.weight.dtype, device="meta")
    norm.weight, norm.bias = nn.Parameter(part.weight), nn.Parameter(part.bias)
    norm.running_mean, norm.running_var = part.running_mean, part.running_var
    return norm.eval()


def _foldable(seen: Seen, watch: Watch) -> nn.Module | None:
    """The batch norm that alone reads every output of the layer, and reads nothing else."""
    norm = seen.outputs[0].readers[0] if seen.outputs[0].readers else None
    if not isinstance(norm, nn.Module) or norm in watch.touched:
        return None
    for output in seen.outputs:
        if output.kept or output.readers != [norm] or output.normed is None:
            return None
    return norm if all(producer is seen for producer in watch.producers[norm]) else None


def _ceiling(outputs: list[Output]) -> tuple[float | None, str]:
    """Where the ReLU ends that alone reads all of these; None, and why there is none."""
    ceiling = 0.0
    for output in outputs:
        if len(output.readers) == 1 and isinstance(output.readers[0], Rectifier):
            if output.kept:
                return None, "its output is kept or returned"
            ceiling = max(ceiling, output.readers[0].ceiling)
            continue
        names = {
            "a ReLU" if isinstance(r, Rectifier) else type(r).__name__ if callable(r) else r
            for r in output.readers
        }
        by = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        parts = [f"read by {by}"] if by else []
        parts += ["kept or returned"] if output.kept else []
        return None, f"its output is {' and '.join(parts) or 'not read'}"
    return ceiling, ""


@dataclass
class _Replacer:
    """What turns layers of the target into what was seen of the probe's.

    Attributes:
        parts: the target's modules by name. names: of the probe's modules.
        ceilings: where the ReLU of each layer with neurons ends.
    """

    watch: Watch
    names: dict[nn.Module, str]
    parts: dict[str, nn.Module]
    alpha: object
    input_K: int | None
    neuron: dict
    ceilings: dict[Seen, float] = field(default_factory=dict)

    def layer(self, seen: Seen) -> Replacement:
        """Replaces one layer, with its batch norm; or says why it stays.

        Every module keeps its identity, so whoever holds it holds the new one.
        """
        why = self._why_not(seen)
        if why:
            return Replacement(seen.name, reason=why)
        norm, outputs = _foldable(seen, self.watch), seen.outputs
        ranges = seen.raw
        if norm is not None:
            ranges, outputs = seen.normed, [output.normed for output in outputs]
        ceiling, reason = _ceiling(outputs)
        part = self.parts[seen.name]
        try:
            settings = self._settings(seen, ranges, ceiling)
            new = self._made(part, None if norm is None else self._part(norm), settings)
        except (ValueError, TypeError, RuntimeError) as error:
            return Replacement(seen.name, reason=getattr(error, "reason", first_line(error)))
        _become(part, new)
        if norm is not None:
            _become(self._part(norm), nn.Identity().eval())
        if ceiling is not None:
            self.ceilings[seen] = ceiling
        return Replacement(
            seen.name,
            type(new).__name__,
            new.relu,
            reason,
            new.neuron.K if new.relu else None,
            new.neuron.alpha if new.relu else None,
            new.input_neuron.K,
            new.input_neuron.alpha,
            new.signed_input,
            None if norm is None else self.names[norm],
        )

    def _part(self, probe: nn.Module) -> nn.Module:
        return self.parts[self.names[probe]]

    def _why_not(self, seen: Seen) -> str:
        if seen.layer in self.watch.touched:
            return "its weights are also read by something else than itself"
        if seen.faults:
            return seen.faults[0]
        if not seen.outputs:
            return "it is not called on the calibration images"
        return "" if math.isfinite(seen.low) else "it sees no values on the calibration images"

    def _settings(self, seen: Seen, ranges: Ranges, ceiling: float | None) -> dict:
        """The keyword arguments of the new layer."""
        K, signed = self.neuron["K"], seen.low < 0
        input_K = self.input_K or (max(K, SIGNED_K) if signed else K)
        settings = {
            "input_alpha": _alpha_for(max(-seen.low, seen.high), input_K),
            "input_K": input_K,
            "signed_input": signed,
            "relu": ceiling is not None,
        }
        if ceiling is not None:
            alpha = choose_alpha(self.alpha, seen, ranges, K, rounding=self.neuron["rounding"])
            settings["alpha"] = min(alpha, _alpha_for(ceiling, K))
        return self.neuron | settings

    def _made(self, part: nn.Module, norm: nn.Module | None, settings: dict) -> nn.Module:
        """The new layer, packed."""
        settings["dtype"] = part.weight.dtype
        if isinstance(part, nn.Linear):
            new = FSLinear.from_float(part, **settings)
        else:
            new = FSConv2d.from_float(part, norm and _batch_norm(norm), **settings)
            if channels_last(part.weight):  # which decides how the output lies in memory
                new = new.to(memory_format=torch.channels_last)
        new._step(new._input()[0])  # so that what cannot be packed is known now
        return new

    def rectifiers(self) -> None:
        """ReLU modules that only read neurons, and end where these do or later, do nothing."""
        for probe, reads in self.watch.relu_reads.items():
            end = {nn.ReLU: math.inf, nn.ReLU6: 6.0}.get(type(probe))
            end = probe.max_val if end is None else end
            if reads and all(self.ceilings.get(seen, math.inf) <= end for seen in reads):
                if all(seen in self.ceilings for seen in reads):
                    _become(self._part(probe), nn.Identity().eval())


def _alpha_for(top: float, K: int) -> float:
    """Alpha whose largest word stands for `top`; 1 where nothing is to be told apart."""
    return top * 2.0**K / (2.0**K - 1) if top > 0 else 1.0


def _become(old: nn.Module, new: nn.Module) -> None:
    """Makes the one object the other, so that whatever holds it (lists, closures) has the new."""
    taken = {*vars(new), "forward"}.union(new._parameters, new._buffers, new._modules)
    extra = {name: value for name, value in vars(old).items() if name not in taken}
    extra = {n: v for n, v in extra.items() if not isinstance(v, Tensor)}  # computed weights
    old.__class__ = type(new)
    old.__dict__ = extra | vars(new)


def _strangers(target: nn.Module) -> dict[str, Replacement]:
    """Layers of kinds that are never replaced, with the reason."""
    rows = {}
    for name, part in target.named_modules():
        kind = type(part).__name__
        if isinstance(part, torch.jit.ScriptModule):
            if part.original_name in ("Conv2d", "Linear"):
                rows[name] = Replacement(name, reason="it is part of a torch.jit.ScriptModule")
        elif _is_lazy_layer(part):
            rows[name] = Replacement(name, reason="it is lazy: run the module on an image once")
        elif isinstance(part, (nn.Conv2d, nn.Linear)):
            reason = f"it is a {kind}, which may compute something else than its base class"
            rows[name] = Replacement(name, reason=reason)
        elif isinstance(part, _ConvNd):
            rows[name] = Replacement(name, reason=f"there is no Few-Spikes layer for {kind}")
    return rows


def _is_lazy_layer(part: nn.Module) -> bool:
    """Whether it is a convolution or linear layer that has no weights yet."""
    tensors = (*part.parameters(recurse=False), *part.buffers(recurse=False))
    return isinstance(part, (nn.Linear, _ConvNd)) and any(map(is_lazy, tensors))


def _replaced(target: nn.Module, replacer: _Replacer) -> list[Replacement]:
    """Replaces all that can be; rows in the order of the module."""
    rows = _strangers(target)
    rows |= {seen.name: replacer.layer(seen) for seen in replacer.watch.seen.values()}
    replacer.rectifiers()
    return [rows[name] for name in replacer.parts if name in rows]
