"""What torch.export sees of a module, and for which sizes of images it would see the same."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from fskernel.errors import ConversionError
from fskernel.image_sizes import is_condition
from fskernel.tracing.module.given_module import first_line, place

_lock = threading.Lock()
PLAIN = "Write forward as one sequence of torch operations on the image"
# What takes the shape that is wanted among its arguments: these are read by what they do.
SHAPED = {"view", "reshape", "_unsafe_view", "expand", "unflatten", "repeat", "new_zeros"}
# Torch's log for machines, which writes only where TORCH_TRACE names a folder. It finds out at its
# first message; kept from that, it makes up every message with a traceback, a sixth of all time.
_TRACE_LOG = "torch.__trace"
# What torch.export says of tensors that come from nowhere.
_UNSEEN = "fake tensor in the exported program constant"
# Behind the last layers they are torch's; then the network is for one size of images.
_NO_LAYERS = {
    "scaled_dot_product_attention", "multi_head_attention_forward", "layer_norm", "group_norm",
    "instance_norm",
}  # fmt: skip
# Rows and columns that are tried in this order where none are given.
DEFAULT_SIZES = (224, 32, 28, 64, 96, 128, 299)
LARGE = 128  # rows and columns from which on no map of a usual network is a single pixel
# Nothing is left of them in eval mode, with one dtype and in float: their result is their input.
COPIES = {
    "alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "to", "_to_copy",
    "type_as", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout",
}  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A module as torch.export's graph of operations, none of which writes to memory.

    Attributes:
        program: traced on `example`; numbers that were computed from its shape may stand in the
            graph as nodes, whose values are those for `example`.
        example: two images [2, C, H, W] (or sequences [2, C, L], or vectors [2, F]), float64, or
            float32 where the module does not take the other.
        any_size: the graph is the same for all images that meet `conditions`.
        conditions: comparisons of h and w, rows and columns of an image.
    """

    program: ExportedProgram
    example: Tensor
    any_size: bool
    conditions: tuple[str, ...]


def export_module(module: nn.Module, shape: tuple[int, ...] | None) -> Exported:
    """Has torch.export trace a module on two images.

    Args:
        shape: of an image, [C, H, W], [C, L] or [F]; None: the first of some that it takes.

    Raises:
        ValueError: its first layer reads another number of channels.
        ConversionError: it cannot be followed; names the line.
    """
    if shape is not None:
        try:
            return _export(module, shape)
        except ConversionError:
            _check_first(module, shape)
            raise
    first: ConversionError | None = None
    for shape in _shapes(module):
        try:
            return _export(module, shape)
        except _Unknown as error:  # perhaps it only is not for this shape
            first = first or error
    raise first


class _Unknown(ConversionError):
    """Torch.export fails for a reason that may lie in the shape."""


def _shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    """Shapes of images that a module may be for, the likely ones first."""
    readers = [*_readers(module)]
    for kind, channels in dict.fromkeys([*readers[:1], (2, 3), (2, 1), *readers[1:4]]):
        if kind == 0:
            yield (channels,)
        for size in DEFAULT_SIZES if kind else ():
            yield (channels, *[size] * kind)


def _readers(module: nn.Module) -> Iterator[tuple[int, int]]:
    """Dimensions of a pixel's place and channels that layers read, in the order of modules."""
    for child in module.modules():
        if isinstance(child, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)):
            yield len(child.kernel_size), child.in_channels
        elif isinstance(child, nn.BatchNorm2d):
            yield 2, child.num_features
        elif isinstance(child, nn.Linear):
            yield 0, child.in_features


def _check_first(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuses images of a shape that the first convolution does not read."""
    channels = shape[0]
    for name, child in module.named_modules():
        if isinstance(child, (nn.Conv1d, nn.Conv2d)):
            if len(child.kernel_size) != len(shape) - 1:
                wanted = "[N, C, H, W]" if isinstance(child, nn.Conv2d) else "[N, C, L]"
                raise ValueError(
                    f"the images have shape {('N', *shape)}: '{name}', the network's first layer, "
                    f"reads {wanted}; a single image needs .unsqueeze(0)"
                ) from None
            if child.in_channels != channels:
                raise ValueError(
                    f"the images have {channels} channels: '{name}', the network's first layer, "
                    f"reads {child.in_channels}"
                ) from None
            return


def _export(module: nn.Module, shape: tuple[int, ...]) -> Exported:
    """Traces a module on images of one shape.

    Once with batch, rows and columns as symbols, which finds out what depends on the size; what
    writes to memory, or does not go like that, again with the numbers themselves.
    """
    fault: Exception | None = None
    for dtype in (torch.float64, torch.float32):
        module.to(dtype)
        example = torch.zeros(2, *shape, dtype=dtype)
        symbolic = _attempt(module, example)
        try:
            program = symbolic if symbolic is not None else _fixed(module, example)
            if _writes(program):
                # Two traces more: of numbers they take a third of the time that symbols take.
                program = _fixed(module, example) if symbolic is not None else program
                with _quiet():
                    program = program.run_decompositions({})
        except Exception as error:  # whatever the module's own code raises
            fault = fault or error
            continue
        any_size, conditions = _sizes(symbolic)
        if not any_size and len(shape) > 1 and min(shape[1:]) < LARGE:
            # Where a map has become a single pixel, symbols have become the number 1.
            large = torch.zeros(2, shape[0], *(8 * n for n in shape[1:]), dtype=dtype)
            any_size, conditions = _sizes(_attempt(module, large))
        return Exported(program, example, any_size, conditions)
    raise _refusal(module, shape, fault) from fault


def _attempt(module: nn.Module, example: Tensor) -> ExportedProgram | None:
    """With batch, rows and columns as symbols; None where that fails, for whatever reason."""
    try:
        with _Hopeless():
            return _exported(module, example, {i: Dim.AUTO for i in (0, *range(2, example.dim()))})
    except Exception:
        return None


class _Hopeless(TorchFunctionMode):
    """Ends an attempt at what leaves no hope that it is good for something.

    That is a padding whose width is computed from the size of images, which makes one size of them
    anyhow: of what such paddings add to sizes, layer by layer, torch.export would make formulas
    that take four times as long with every layer. And it is what no layer has a form for; of how
    attention cuts maps into windows torch makes formulas that take minutes.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in _NO_LAYERS:
            raise NotImplementedError(name)
        if name == "pad":
            widths = (kwargs or {}).get("pad", args[1] if len(args) > 1 else ())
            if any(_is_symbol(n) for n in widths):
                raise NotImplementedError("a padding that depends on the size of images")
        return function(*args, **(kwargs or {}))


def _fixed(module: nn.Module, example: Tensor) -> ExportedProgram:
    """With the numbers of this example."""
    try:
        return _exported(module, example)
    except RuntimeError as error:
        if _UNSEEN not in str(error):
            raise
    with _seen_data():
        return _exported(module, example)


@contextlib.contextmanager
def _seen_data() -> Iterator[None]:
    """Has torch.export take `tensor.data`, which it does not see, for `tensor.detach()`."""

    def write(tensor: Tensor, value: Tensor) -> None:
        Tensor.data.__set__(tensor, value)

    with _lock:  # it is every thread's
        FakeTensor.data = property(lambda tensor: tensor.detach(), write)
        try:
            yield
        finally:
            del FakeTensor.data


def _exported(
    module: nn.Module, example: Tensor, dims: dict[int, object] | None = None
) -> ExportedProgram:
    with _quiet():
        shapes = None if dims is None else (dims,)
        # A copy, because attempts that fail leave their marks on the tensor.
        args = (example.clone(),)
        return torch.export.export(module, args, dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and no logs: what goes wrong is said by a ConversionError."""
    known = logging.root.manager.loggerDict
    names = [name for name in [*known] if name.startswith("torch") and name != _TRACE_LOG]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.disabled = was


def _writes(program: ExportedProgram) -> bool:
    """Whether an operation writes to memory that anybody else reads, or holds a graph of its own.

    Most do not: nn.ReLU(inplace=True) behind a layer is the only one to read what that gives.
    """
    return any(
        node.op == "get_attr" or (_is_mutable(node) and not _is_alone(node))
        for node in program.graph.nodes
    )


def _is_mutable(node: fx.Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _is_alone(node: fx.Node) -> bool:
    """Whether an operation in place is the only reader of what another has just made."""
    source = node.args[0] if node.args else None
    schema = getattr(getattr(source, "target", None), "_schema", None)
    if "out" in node.kwargs or not isinstance(source, fx.Node) or schema is None:
        return False
    if len(source.users) > 1:
        return False
    if _is_mutable(source):
        return _is_alone(source)
    fresh = all(result.alias_info is None for result in schema.returns)
    return fresh and schema.name.removeprefix("aten::") not in COPIES


def _sizes(program: ExportedProgram | None) -> tuple[bool, tuple[str, ...]]:
    """Whether the graph is that of all sizes of images, and under which conditions."""
    if program is None:
        return False, ()
    inputs = [n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
    image = next(n.meta["val"] for n in inputs if isinstance(n.meta.get("val"), Tensor))
    symbols = {}
    for name, s in zip({4: "hw", 3: "w"}.get(image.dim(), ""), image.shape[2:], strict=True):
        if not _is_symbol(s):
            return False, ()
        symbols[s.node.expr] = name
    if not symbols or any(map(_depends_on_size, program.graph.nodes)):
        return False, ()
    return _conditions(image, symbols)


def _depends_on_size(node: fx.Node) -> bool:
    """Whether an operation takes a number that is computed from a shape."""
    if not hasattr(node.target, "_schema") or _is_number(node):
        return False
    name = node.target._schema.name.removeprefix("aten::")
    return name not in SHAPED and any(_is_number(n) for n in node.all_input_nodes)


def _is_number(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool))


def _is_symbol(n: object) -> bool:
    """Whether a number is one that is not known yet."""
    return isinstance(n, torch.SymInt) and n.node.maybe_as_int() is None


def _conditions(image: Tensor, symbols: dict) -> tuple[bool, tuple[str, ...]]:
    """The guards on rows and columns, as conditions.

    An equality leaves no other size, and what is no condition on whole numbers is not checked.
    """
    python = torch.utils._sympy.printers.PythonPrinter()  # torch.export has imported it by now
    env, batch = image.shape[-1].node.shape_env, image.shape[0]
    two = {batch.node.expr: 2} if _is_symbol(batch) else {}
    names = {symbol: type(symbol)(name, integer=True) for symbol, name in symbols.items()}
    written: dict[str, None] = {}
    for guard in env.guards:
        expr = guard.expr.xreplace(two)
        if not expr.free_symbols & set(names):
            continue
        equal = any(getattr(e, "rel_op", "") == "==" for e in (expr, *expr.args))
        if not expr.free_symbols <= set(names) or equal:
            return False, ()
        condition = python.doprint(expr.xreplace(names))
        if not is_condition(condition):
            return False, ()
        written[condition] = None
    for symbol, bounds in env.var_to_range.items():
        if symbol in names:
            if bounds.lower > 2:
                written[f"{symbols[symbol]} >= {int(bounds.lower)}"] = None
            if bounds.upper < 2**31:
                written[f"{symbols[symbol]} <= {int(bounds.upper)}"] = None
    return True, tuple(written)


def _refusal(module: nn.Module, shape: tuple[int, ...], error: Exception) -> ConversionError:
    """Why torch.export cannot follow a module, in a sentence."""
    said, where, name = first_line(error), place(error), type(module).__name__
    kind = type(error).__name__
    if "DataDependent" in kind or "data-dependent" in str(error).lower() or "unbacked" in said:
        return ConversionError(
            name,
            f"forward{where} branches on, loops over or takes out numbers of the image at hand, "
            f"which are not known before there is one ({said})",
            f"{PLAIN}, without what that line does",
        )
    if _UNSEEN in str(error) or "fake" in said.lower() and not isinstance(error, TypeError):
        return ConversionError(
            name,
            f"forward{where} keeps or changes tensors where torch.export cannot see it: a write "
            f"through .data, or a tensor that is neither a parameter nor a buffer ({said})",
            f"{PLAIN}; keep tensors as buffers, and write x = torch.relu(x) in place of x.data",
        )
    return _Unknown(
        name,
        f"torch.export cannot follow forward{where} on images of shape {shape} "
        f"({said.replace('FakeTensor', 'Tensor')})",
        "Pass calibration images, or input_size=(N, C, H, W), of the shape the network was trained "
        f"for; else: {PLAIN.lower()}, without what that line does",
    )
