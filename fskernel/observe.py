"""Who reads the output of every convolution and linear layer while a module runs on pictures.

Nothing is traced. Global hooks say which module is running, a torch dispatch mode sees every
operation with the tensors that it reads, and a torch function mode sees the calls that take a
tensor's values out of torch. Tensors are told apart by their storage, so that a view, an in-place
operation and the tensor itself count as one.
"""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fskernel.calibrate import Ranges
from fskernel.device import check_device

LAYERS = (nn.Conv2d, nn.Linear)
RELUS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
KEPT = "whoever keeps it or gets it returned"

_aten = torch.ops.aten
_RELUS = {
    kind.default
    for name in ("relu", "clamp", "clamp_min", "hardtanh", "threshold")
    for kind in (getattr(_aten, name), getattr(_aten, name + "_"))
}
# What Python asks a tensor without reading its values; besides all that begins with "is_".
_ABOUT = {
    *("shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "stride", "__len__"),
    *("dtype", "type", "device", "get_device", "layout", "storage_offset", "element_size"),
    *("itemsize", "nbytes", "names", "has_names", "requires_grad", "requires_grad_", "grad"),
    *("grad_fn", "_version", "output_nr", "__hash__", "register_hook"),
}


@dataclass(frozen=True)
class Reader:
    """What reads a value: a batch norm, a ReLU with its ceiling, or something else, by its name."""

    name: str
    norm: nn.Module | None = None
    call: int = 0  # of that batch norm
    ceiling: float | None = None  # of a ReLU: inf, 6 for ReLU6


class Value:
    """The output of one call of a layer, and that of the batch norm behind it, before any ReLU."""

    def __init__(self, layer: nn.Module):
        self.layer = layer
        # Who reads the output itself, and who reads that of the batch norm which reads it.
        self.readers: tuple[list[Reader], list[Reader]] = ([], [])


@dataclass
class Seen:
    """What one layer did in all its calls.

    Attributes:
        least, largest: of the values it reads; largest is a magnitude.
        fault: why it cannot be replaced, or None.
        values: one for each call.
    """

    name: str
    calls: int = 0
    least: float = math.inf
    largest: float = 0.0
    fault: str | None = None
    values: list[Value] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """The first reason is kept."""
        self.fault = self.fault or reason


def is_norm(module: nn.Module) -> bool:
    """Whether it is a batch norm that may be folded: torch's, or torchvision's frozen one."""
    kind = parametrize.type_before_parametrizations(module)
    return kind in (nn.BatchNorm2d, nn.SyncBatchNorm) or is_frozen_norm(module)


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether it is torchvision's FrozenBatchNorm2d, known without importing torchvision."""
    kind = type(module)
    return kind.__name__ == "FrozenBatchNorm2d" and kind.__module__ == "torchvision.ops.misc"


def with_statistics(norm: nn.Module) -> bool:
    """Whether a batch norm divides by running statistics, not by those of the batch."""
    return is_frozen_norm(norm) or (not norm.training and norm.running_mean is not None)


class Watch:
    """Watches one module; `running()` is entered around its calls, `finished` called after each.

    Attributes:
        seen: by layer, in the order of `named_modules`.
        ranges: of the layers' outputs behind the ReLU ("out" and the name) and inputs ("in").
        norm_calls: how often each batch norm ran.
        relu_calls, relu_reads: how often each ReLU module ran, and the ceiling and the value of
            each call that read the output of a layer.
        exposed: layers and batch norms whose tensors are read by others than themselves.
    """

    def __init__(self, module: nn.Module, spread: bool):
        self.spread = spread  # whether histograms are wanted, too
        self.ranges = Ranges()
        modules = dict(module.named_modules())
        self.seen = {m: Seen(name) for name, m in modules.items() if isinstance(m, LAYERS)}
        self.norm_calls = {m: 0 for m in modules.values() if is_norm(m)}
        self.relu_calls = {m: 0 for m in modules.values() if type(m) in RELUS}
        self.relu_reads: dict[nn.Module, list[tuple[float, Value]]] = {
            m: [] for m in self.relu_calls
        }
        self.exposed: set[nn.Module] = set()
        self._owners = self._owners_of(modules.values())
        self._stack: list[tuple[nn.Module, int]] = []
        self._call = 0
        self._busy = False
        self._thread = threading.get_ident()
        self._tracked: dict[int, tuple[StorageWeakRef, Value, int, int]] = {}

    def _owners_of(self, modules) -> dict[tuple[int, int], set[nn.Module]]:
        """By the place of a parameter or buffer: the modules that read it in their own calls."""
        part_of = {
            part: whole for whole in (*self.seen, *self.norm_calls) for part in whole.modules()
        }
        owners: dict[tuple[int, int], set[nn.Module]] = {}
        for module in modules:
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                place = None if tensor is None or is_lazy(tensor) else _place(tensor)
                if place is not None:
                    owners.setdefault(place, set()).add(part_of.get(module, module))
        return owners

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watches what is called inside; the hooks are gone afterwards, whatever happens."""
        self._stack.clear()
        with ExitStack() as stack:
            before = register_module_forward_pre_hook(self._enter)
            stack.callback(before.remove)
            after = register_module_forward_hook(self._leave, with_kwargs=True, always_call=True)
            stack.callback(after.remove)
            stack.enter_context(_Functions(self))
            stack.enter_context(_Operations(self))
            yield

    def finished(self) -> None:
        """To be called after every call of the module while what it returned still exists."""
        if any(not ref.expired() for ref, *_ in self._tracked.values()):
            gc.collect()  # what only waits to be collected is not kept
        for ref, value, stage, _ in self._tracked.values():
            if not ref.expired():
                value.readers[stage].append(Reader(KEPT))
        self._tracked.clear()

    # ---- modules -------------------------------------------------------------------------------

    @contextmanager
    def _ourselves(self) -> Iterator[None]:
        """What is computed inside is not the module's doing."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _enter(self, module: nn.Module, args: tuple) -> None:
        if threading.get_ident() != self._thread:
            if module in self.seen:
                self.seen[module].refuse("it runs in a thread of its own")
            return
        self._call += 1
        self._stack.append((module, self._call))
        if isinstance(module, torch.jit.ScriptModule):  # may run fused, where no operation is seen
            with self._ourselves():
                for _, value, stage, _ in self._hits(args).values():
                    value.readers[stage].append(Reader("a compiled module"))

    def _leave(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        if threading.get_ident() != self._thread:
            return
        if any(module is running for running, _ in self._stack):
            # Modules that raised may lie above it.
            while True:
                running, call = self._stack.pop()
                if running is module:
                    break
        if module in self.norm_calls:
            self.norm_calls[module] += 1
        elif module in self.relu_calls:
            self.relu_calls[module] += 1
        if module in self.seen or module in self.norm_calls:
            x = args[0] if args else kwargs.get("input", kwargs.get("x"))
            if output is not None:  # else it raised
                with self._ourselves():
                    if module in self.seen:
                        self._layer_ran(self.seen[module], module, x, output)
                    else:
                        self._norm_ran(x, output, call)

    def _layer_ran(self, seen: Seen, layer: nn.Module, x: object, y: object) -> None:
        seen.calls += 1
        value = Value(layer)
        seen.values.append(value)
        fault = _fault(layer, x, y)
        if fault:
            seen.refuse(fault)
            return
        self._track(y, value, 0)
        if x.numel():
            least, most = (float(bound) for bound in torch.aminmax(x))
            if not (math.isfinite(least) and math.isfinite(most)):
                seen.refuse("it reads NaN or infinite values on the calibration pictures")
                return
            seen.least = min(seen.least, least)
            seen.largest = max(seen.largest, abs(least), abs(most))
            self.ranges.note(f"in {seen.name}", x, self.spread)

    def _norm_ran(self, x: object, y: object, call: int) -> None:
        """If it has read a layer's output, its own is that layer's, too."""
        hit = next(iter(self._hits([x]).values()), None)
        if hit is None:
            return
        _, value, stage, _ = hit
        if stage == 0 and value.readers[0] and value.readers[0][-1].call == call:
            if isinstance(y, Tensor) and _key(y) not in (None, _key(x)):
                self._track(y, value, 1)
            else:
                value.readers[1].append(Reader("what cannot be seen"))

    def _track(self, tensor: Tensor, value: Value, stage: int) -> None:
        storage = tensor.untyped_storage()
        entry = (StorageWeakRef(storage), value, stage, tensor.numel())
        self._tracked[storage._cdata] = entry

    def _hits(self, arguments: object) -> dict[int, tuple]:
        """Entries of the tracked tensors among the arguments, by their storage."""
        found = {}
        if self._tracked:
            for tensor in _tensors(arguments):
                key = _key(tensor)
                if key in self._tracked:
                    found[key] = self._tracked[key]
        return found

    # ---- operations ----------------------------------------------------------------------------

    def operation(self, func, args: tuple, kwargs: dict) -> object:
        """Runs one operation of torch and notes what it has read."""
        if self._busy or threading.get_ident() != self._thread:
            return func(*args, **kwargs)
        with self._ourselves():
            hits = self._hits((args, kwargs))
            self._look_for_weights((args, kwargs))
        result = func(*args, **kwargs)
        with self._ourselves():
            for key, (_, value, stage, numel) in hits.items():
                self._read(func, args, kwargs, key, value, stage, numel, result)
        return result

    def _read(self, func, args, kwargs, key, value, stage, numel, result) -> None:
        top, call = self._stack[-1] if self._stack else (None, 0)
        readers = value.readers[stage]
        if top in self.norm_calls:
            if not readers or readers[-1].call != call:  # it may read it in several operations
                readers.append(Reader("a batch norm", norm=top, call=call))
            return
        ceiling = None if kwargs else relu_ceiling(func, args)
        if ceiling is None or _key(args[0]) != key or args[0].numel() != numel:
            readers.append(Reader(func.overloadpacket.__name__))
            return
        readers.append(Reader("a ReLU", ceiling=ceiling))
        if top in self.relu_reads:
            self.relu_reads[top].append((ceiling, value))
        if func.overloadpacket.__name__.endswith("_"):
            del self._tracked[key]  # from here on it is what the ReLU gave
        seen = self.seen[value.layer]
        if not result.numel():
            return
        if not math.isfinite(float(result.amax())):
            seen.refuse("it gives NaN or infinite values on the calibration pictures")
            return
        self.ranges.note(f"out {seen.name}", result, self.spread)

    def _look_for_weights(self, arguments: object) -> None:
        for tensor in _tensors(arguments):
            owners = self._owners.get(_place(tensor))
            if owners and not any(module in owners for module, _ in self._stack):
                self.exposed |= owners

    def function(self, func, args: tuple, kwargs: dict) -> object:
        """Runs a function of torch's Python side; notes values that leave torch by it."""
        if self._busy or threading.get_ident() != self._thread:
            return func(*args, **kwargs)
        with self._ourselves():
            hits = list(self._hits((args, kwargs)).values())
        before = [len(value.readers[stage]) for _, value, stage, _ in hits]
        result = func(*args, **kwargs)
        if hits and not isinstance(result, Tensor):  # a tensor was seen, or is the same storage
            name = getattr(func, "__name__", "")
            if name in ("__get__", "__set__"):
                name = getattr(func.__self__, "__name__", "")
            if name not in _ABOUT and not name.startswith("is_"):
                for (_, value, stage, _), count in zip(hits, before, strict=True):
                    if len(value.readers[stage]) == count:
                        value.readers[stage].append(Reader(name or "a function"))
        return result


class _Operations(TorchDispatchMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self._watch.operation(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self._watch.function(func, args, kwargs or {})


def relu_ceiling(func, args: tuple) -> float | None:
    """The largest value that a ReLU in any of its spellings gives; None for what is no ReLU."""
    if func not in _RELUS:
        return None
    name, bounds = func.overloadpacket.__name__.rstrip("_"), list(args[1:])
    if name == "relu":
        return math.inf
    if name == "threshold":  # threshold(x, 0, 0)
        return math.inf if bounds == [0, 0] else None
    if name == "hardtanh":
        bounds += [-1, 1][len(bounds) :]
    low, high = (*bounds, None, None)[:2]
    if low != 0 or (high is not None and not high > 0):
        return None
    return math.inf if high is None else float(high)


def _fault(layer: nn.Module, x: object, y: object) -> str | None:
    """Why one call of a layer is none that its drop-in could serve, or None."""
    for what, value in (("reads", x), ("gives", y)):
        if type(value) not in (Tensor, nn.Parameter):
            return f"it {what} a {type(value).__name__}, not a plain tensor"
    if not x.is_floating_point() or x.layout != torch.strided:
        return f"it reads {x.dtype} values of layout {x.layout}"
    ranks = (4, "[N, C, H, W]") if isinstance(layer, nn.Conv2d) else (2, "[N, F]")
    if x.dim() != ranks[0]:
        return f"it reads a tensor of shape {tuple(x.shape)}; the drop-in reads {ranks[1]}"
    if y.dtype != x.dtype:
        return f"it reads {x.dtype} and gives {y.dtype}"
    try:
        check_device(x.device, "it reads a tensor on")
    except ValueError as error:
        return str(error)
    return None if _key(y) is not None else "its output has no storage that can be watched"


def _tensors(arguments: object) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, (list, tuple)):
        for item in arguments:
            yield from _tensors(item)
    elif isinstance(arguments, dict):
        yield from _tensors(list(arguments.values()))


def _key(tensor: object) -> int | None:
    """What tells its storage from all others; None for tensors without one (sparse, wrapped)."""
    try:
        return tensor.untyped_storage()._cdata
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


def _place(tensor: Tensor) -> tuple[int, int] | None:
    key = _key(tensor)
    return None if key is None else (key, tensor.storage_offset())
