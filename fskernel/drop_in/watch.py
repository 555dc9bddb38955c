"""What a module's layers read, and what reads their outputs, while it runs on images.

Nothing is traced: the module runs as it is, and every operation that torch carries out is seen.
An output is known by its storage, so views of it, in-place operations and tensors that share its
memory count as readings of it, whoever does them.
"""

from __future__ import annotations

import functools
import gc
import math
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fskernel.calibration.ranges import Ranges

# They read sizes and types, no values.
_SIZES_ONLY = {
    f"aten::{name}"
    for name in (
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
        *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
    )
}
# They hand out values or memory and are no operations of torch's dispatcher.
_OUTSIDE = {
    *("numpy", "__array__", "tolist", "data_ptr", "untyped_storage", "storage", "_typed_storage"),
    *("__dlpack__", "__deepcopy__", "__reduce_ex__", "share_memory_"),
}


@dataclass(eq=False)
class Output:
    """One output of a layer, or of the batch norm behind it.

    Attributes:
        ref, geometry: its storage, and where in it the output lies.
        raw: whether it is the layer's own, not the batch norm's.
        readers: what read it, in order: a BatchNorm's module, a Rectifier, or an operation's name.
        normed: what the batch norm made of it that read it.
        kept: whether it outlived the run, because it was returned or is held by something.
        busy: while a batch norm reads it, whose own operations are not listed.
    """

    seen: Seen
    ref: StorageWeakRef
    geometry: tuple
    raw: bool
    readers: list[nn.Module | Rectifier | str] = field(default_factory=list)
    normed: Output | None = None
    kept: bool = False
    busy: bool = False


@dataclass(frozen=True)
class Rectifier:
    """A ReLU that read an output: up to what value, and the module that did it, if one did."""

    ceiling: float
    module: nn.Module | None


@dataclass(eq=False)
class Seen:
    """What was seen of one layer.

    Attributes:
        outputs: of every call.
        low, high: of its inputs.
        largest: of its outputs: as they are, and behind the batch norm, by `name`.
        faults: why it must stay as it is.
    """

    name: str
    layer: nn.Module
    outputs: list[Output] = field(default_factory=list)
    low: float = math.inf
    high: float = -math.inf
    raw: Ranges = field(default_factory=Ranges)
    normed: Ranges = field(default_factory=Ranges)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Notes a reason, once."""
        if text not in self.faults:
            self.faults.append(text)


def plain(module: nn.Module) -> bool:
    """Whether calling it is running its class's forward, and no more."""
    return not ("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks)


def ceiling_of(func: object, args: tuple, kwargs: dict) -> float | None:
    """Where a ReLU's output ends (inf for most); None if the operation is no ReLU."""
    name = func._schema.name.removeprefix("aten::").rstrip("_")
    if name not in ("relu", "relu6", "clamp", "clamp_min", "hardtanh", "threshold"):
        return None
    if "out" in kwargs:
        return None
    names = [argument.name for argument in func._schema.arguments]
    given = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
    given |= dict(zip(names, args, strict=False)) | kwargs
    if name == "relu":
        return math.inf
    if name == "relu6":
        return 6.0
    if name == "threshold":
        return math.inf if given["threshold"] == given["value"] == 0 else None
    least = given.get("min_val" if name == "hardtanh" else "min")
    most = given.get("max_val" if name == "hardtanh" else "max")
    most = math.inf if most is None else most
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in (least, most)):
        return None
    return float(most) if least == 0 and most > 0 else None


class Watch(TorchDispatchMode):
    """Hooks on the layers, batch norms and ReLUs of one module, and torch's operations.

    Args:
        seen: the layers, by module. norms: batch norms that may be folded. relus: ReLU modules.
        histograms: also count how the outputs' magnitudes spread.
    """

    def __init__(
        self,
        seen: dict[nn.Module, Seen],
        norms: list[nn.Module],
        relus: list[nn.Module],
        histograms: bool,
    ):
        super().__init__()
        self.seen, self.norms, self.relus, self.histograms = seen, norms, relus, histograms
        # Who called it, per batch norm: a layer, or None where what it read is no layer's output.
        self.producers: dict[nn.Module, list[Seen | None]] = defaultdict(list)
        self.relu_reads: dict[nn.Module, list[Seen | None]] = defaultdict(list)
        self.touched: set[nn.Module] = set()  # whose tensors were read by something else
        self._open: dict[int, Output] = {}
        self._owners: dict[int, list[nn.Module]] = defaultdict(list)
        self._stack: list[tuple[nn.Module, Output | None]] = []
        self._paused = False
        self._thread = threading.get_ident()

    # What torch does

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self._paused and func._schema.name not in _SIZES_ONLY:
            with self._pause():
                self._read(func, args, kwargs)
        return func(*args, **kwargs)

    def _read(self, func: object, args: tuple, kwargs: dict) -> None:
        for t in tree_leaves((args, kwargs)):
            key = _storage(t)
            output = self._open.get(key)
            if output is not None and not output.busy:
                self._note(output, t, func, args, kwargs)
            self._note_weights(key)

    def _note_weights(self, key: int | None) -> None:
        owners = self._owners.get(key)
        if owners and not any(module in owners for module, _ in self._stack):
            self.touched.update(owners)

    def _note(self, output: Output, t: Tensor, func: object, args: tuple, kwargs: dict) -> None:
        ceiling = ceiling_of(func, args, kwargs)
        if ceiling is None or t is not args[0] or _geometry(t) != output.geometry:
            output.readers.append(func._schema.name.partition("::")[2])
            return
        module = self._stack[-1][0] if self._stack else None
        if module not in self.relu_reads:
            module = None
        output.readers.append(Rectifier(ceiling, module))
        if module is not None:
            self.relu_reads[module][-1] = output.seen
        if func._schema.is_mutable:  # what is read from here on is behind the ReLU
            del self._open[_storage(t)]

    def outside(self, name: str, t: object) -> None:
        """What is read without an operation of torch."""
        if self._paused:
            return
        with self._pause():
            key = _storage(t)
        if key in self._open and not self._open[key].busy:
            self._open[key].readers.append(name)
        self._note_weights(key)

    @contextmanager
    def _pause(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    # What the modules do

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """With hooks on all modules, which are taken off again."""
        handles = []
        try:
            for module in (*self.seen, *self.norms):
                for t in (*module.parameters(), *module.buffers()):
                    if (key := _storage(t)) is not None:
                        self._owners[key].append(module)
            for module, before, after in (
                *((m, self._before_layer, self._after_layer) for m in self.seen),
                *((m, self._before_norm, self._after_norm) for m in self.norms),
                *((m, self._before_relu, self._pop) for m in self.relus),
            ):
                # First and last, so that what other hooks do lies in between.
                handles.append(
                    module.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
                )
                handles.append(module.register_forward_hook(after, always_call=True))
            for module in self.relus:
                module.forward = functools.partial(self._relu_forward, weakref.ref(module))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module in self.relus:
                vars(module).pop("forward", None)

    def _pop(self, module: nn.Module, *_: object) -> Output | None:
        while self._stack:
            found, output = self._stack.pop()
            if output is not None:
                output.busy = False
            if found is module:
                return output
        return None

    def _before_layer(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._stack.append((module, None))
        seen = self.seen[module]
        if threading.get_ident() != self._thread:
            seen.fault("it runs in a thread of its own")
        if len(args) != 1 or kwargs:
            seen.fault("it is called with a named argument")
            return
        with self._pause():
            self._input(seen, args[0])

    def _input(self, seen: Seen, x: object) -> None:
        rank = 4 if isinstance(seen.layer, nn.Conv2d) else 2
        if not _ordinary(x):
            seen.fault(f"it reads {_kind(x)}")
        elif x.dim() != rank:
            seen.fault(f"it reads tensors of {x.dim()} dimensions, {rank} are supported")
        elif x.numel():
            low, high = (float(v) for v in torch.aminmax(x.detach()))
            if not (math.isfinite(low) and math.isfinite(high)):
                seen.fault("its input holds NaN or infinite values")
            seen.low, seen.high = min(seen.low, low), max(seen.high, high)

    def _after_layer(self, module: nn.Module, args: tuple, y: object) -> None:
        self._pop(module)
        seen = self.seen[module]
        x = args[0] if args else None
        if not _ordinary(y):
            seen.fault(f"it gives {_kind(y)}")
        elif isinstance(x, Tensor) and x.dtype != y.dtype:
            seen.fault(f"it gives {y.dtype} for {x.dtype}")
        else:
            seen.outputs.append(self._watch(seen, y, seen.raw))

    def _watch(self, seen: Seen, y: Tensor, ranges: Ranges) -> Output:
        with self._pause():
            storage = y.untyped_storage()
            output = Output(seen, StorageWeakRef(storage), _geometry(y), ranges is seen.raw)
            self._open[storage._cdata] = output
            if y.numel():
                self._measure(seen, y.detach(), ranges)
        return output

    def _measure(self, seen: Seen, y: Tensor, ranges: Ranges) -> None:
        top = float(y.amax())
        if not math.isfinite(top) or not math.isfinite(float(y.amin())):
            seen.fault("its output holds NaN or infinite values")
        ranges.largest[seen.name] = max(ranges.largest.get(seen.name, 0.0), top)
        if self.histograms:
            ranges.count(seen.name, y.to("cpu", torch.float32))

    def _before_norm(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        output = None
        if not module.training and len(args) == 1 and not kwargs:
            with self._pause():
                output = self._open.get(_storage(args[0]))
                if output and not (output.raw and output.geometry == _geometry(args[0])):
                    output = None
        self._stack.append((module, output))
        self.producers[module].append(output and output.seen)
        if output is not None:
            output.readers.append(module)
            output.busy = True

    def _after_norm(self, module: nn.Module, args: tuple, y: object) -> None:
        output = self._pop(module)
        if output is not None and _ordinary(y):  # not if it failed
            output.normed = self._watch(output.seen, y, output.seen.normed)

    def _before_relu(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._stack.append((module, None))
        self.relu_reads[module].append(None)

    def _relu_forward(self, module: Callable[[], nn.Module], *args, **kwargs) -> Tensor:
        module = module()
        if not self._stack or self._stack[-1][0] is not module:  # called without hooks
            self.relu_reads[module].append(None)
        return type(module).forward(module, *args, **kwargs)

    # Runs

    def run(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Runs the module once; what outlives the run is kept."""
        with ExitStack() as stack:
            stack.callback(self._open.clear)
            stack.callback(self._stack.clear)
            stack.enter_context(_Outside(self))
            stack.enter_context(self)
            result = module(*args, **kwargs)
            if not all(output.ref.expired() for output in self._open.values()):
                gc.collect()  # what only a cycle holds is not kept
            for output in self._open.values():
                output.kept = not output.ref.expired()
        del result


class _Outside(TorchFunctionMode):
    """Tells of calls that hand out a tensor's memory."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in _OUTSIDE and args:
            self.watch.outside(name, args[0])
        return func(*args, **(kwargs or {}))


def _ordinary(t: object) -> bool:
    """Whether it is a dense float tensor, and no subclass, none of torch.func's."""
    return (
        type(t) in (Tensor, nn.Parameter)
        and t.layout == torch.strided
        and t.is_floating_point()
        and not torch._C._functorch.is_functorch_wrapped_tensor(t)
    )


def _kind(t: object) -> str:
    if type(t) is Tensor and t.layout == torch.strided:
        return "a tensor of torch.func" if t.is_floating_point() else f"{t.dtype}"
    return f"a {type(t).__name__} that is no dense tensor"


def _storage(t: object) -> int | None:
    """What tells the memory of a tensor from all other's; None where there is none."""
    if not isinstance(t, Tensor):
        return None
    try:
        return t.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError, ValueError):
        return None


def _geometry(t: Tensor) -> tuple:
    return t.storage_offset(), tuple(t.shape), t.stride(), t.dtype
