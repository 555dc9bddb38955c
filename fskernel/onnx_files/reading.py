"""From a file to a checked ONNX model; what cannot be read is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fskernel.errors import ConversionError
from fskernel.onnx_files import names

if TYPE_CHECKING:
    from onnx import ModelProto

OLDEST_OPSET = 7
_QUANTISED = re.compile(r"Q[A-Z]|\w*(Quantize|Integer|NBits)")
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")
_SMALL = 1024  # elements of constants that shapes may depend on
UNKNOWN_CURE = "Export the network with the operators that docs/onnx.md lists"
AGAIN = "Export the network again, or download the file anew"
_FLOAT = "Export the float network, before it is quantised"
_WEIGHTS = "Put the file of weights beside it, or export the network into one file"


def onnx_package() -> Any:
    """The package onnx, with those of its modules that are used here."""
    try:
        import onnx
        import onnx.checker
        import onnx.external_data_helper
        import onnx.inliner
        import onnx.reference
        import onnx.shape_inference
    except ImportError as error:
        raise ImportError("ONNX files need the package onnx: pip install onnx") from error
    return onnx


@dataclass
class Held:
    """What is known of a value before the network runs.

    Attributes:
        shape: its dimensions, None where one is not known; None: nor is how many there are.
        dtype: numpy's, or None.
    """

    shape: tuple[int | None, ...] | None = None
    dtype: np.dtype | None = None


@dataclass
class File:
    """A checked model.

    Attributes:
        name: for messages. opset: of the operators. nodes: those that matter (NodeProto), in order.
        spelt: the name of each, as a path. constants: the initialisers.
        inputs, outputs: names, in order. model: all of it.
    """

    name: str
    opset: int
    nodes: list[Any]
    spelt: list[names.Path]
    constants: dict[str, np.ndarray]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    model: ModelProto


def is_onnx(thing: object) -> bool:
    """Whether something is an ONNX model, or the path of a file that is called like one."""
    if isinstance(thing, (str, os.PathLike)):
        return Path(thing).suffix.lower() == ".onnx"
    return type(thing).__name__ == "ModelProto"


def read(source: str | os.PathLike[str] | ModelProto) -> File:
    """Reads and checks a file.

    Raises:
        ConversionError: naming the file or node, the reason and the cure.
        FileNotFoundError, ImportError, TypeError: no such file, no onnx, or no file at all.
    """
    onnx = onnx_package()
    model, name = _opened(onnx, source)
    opset = _opset(onnx, model, name)
    if model.functions:
        model = told(name, lambda: onnx.inliner.inline_local_functions(model))
    graph = model.graph
    if not all(isinstance(text, str) for text in _texts(graph)):
        raise ConversionError(name, "it is damaged: there are names that are no text", AGAIN)
    if graph.sparse_initializer:
        raise ConversionError(
            name, "its weights are sparse tensors", "Store them as dense initialisers"
        )
    wanted = sorted(_live(graph))
    every = names.spelt(graph.node)
    nodes, spelt = [graph.node[i] for i in wanted], [every[i] for i in wanted]
    there = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    for path, node in zip(spelt, nodes):
        _check(onnx, ".".join(path), node, opset, there)
        there.update(node.output)
    constants = {
        tensor.name: told(tensor.name, lambda t=tensor: onnx.numpy_helper.to_array(t))
        for tensor in graph.initializer
    }
    inputs = tuple(i.name for i in graph.input if i.name not in constants)
    if not inputs:
        raise ConversionError(name, "it has no input", "Export the network with its image as input")
    outputs = tuple(output.name for output in graph.output)
    return File(name, opset, nodes, spelt, constants, inputs, outputs, model)


def _opened(onnx, source) -> tuple[ModelProto, str]:
    """The model with all its weights, and its name for messages."""
    folder = None
    if isinstance(source, onnx.ModelProto):
        model, name = source, source.graph.name or "ModelProto"
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file")
        name, folder = path.name, path.parent
        try:
            model = onnx.load_model(path, format="protobuf", load_external_data=False)
        except Exception as error:  # protobuf has its own types
            raise ConversionError(
                name, f"it is no ONNX file ({first_line(error)})", AGAIN
            ) from error
        if not model.opset_import or not model.graph.node:
            raise ConversionError(name, "it is no ONNX file, or an empty one", AGAIN)
    else:
        raise TypeError(
            f"source is a {type(source).__name__}: expected the path of an ONNX file, or an "
            "onnx.ModelProto"
        )
    helper = onnx.external_data_helper
    far = [t for t in model.graph.initializer if helper.uses_external_data(t)]
    if far and folder is None:
        raise ConversionError(
            name, f"the weight '{far[0].name}' lies in another file", "Read it by onnx.load(path)"
        )
    for tensor in far:
        where = helper.ExternalDataInfo(tensor).location
        try:
            helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # a missing file, one that is too short, one that lies outside
            reason = f"the weight '{tensor.name}' cannot be read from {where} ({first_line(error)})"
            raise ConversionError(name, reason, _WEIGHTS) from error
    return model, name


def _opset(onnx, model: ModelProto, name: str) -> int:
    found = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not found:
        raise ConversionError(
            name, "it uses no operators of ONNX itself", "Export the network as plain ONNX"
        )
    newest = onnx.defs.onnx_opset_version()
    if found[0] < OLDEST_OPSET:
        raise ConversionError(
            name,
            f"its operators are those of opset {found[0]}; from {OLDEST_OPSET} on they are read",
            "Export it again, or convert it: onnx.version_converter.convert_version(model, 13)",
        )
    if found[0] > newest:
        raise ConversionError(
            name,
            f"its operators are those of opset {found[0]}, and onnx {onnx.__version__} knows "
            f"{newest}",
            f"Update the package onnx, or export with opset {newest}",
        )
    return found[0]


def _check(onnx, path: str, node, opset: int, there: set[str]) -> None:
    """Refuses a node that can have no form here; `there` are the values made before it."""
    operator = node.op_type
    if _QUANTISED.match(operator):
        raise ConversionError(
            path,
            f"{operator}: its weights or activations are rounded to another grid already",
            _FLOAT,
        )
    if operator in _CONTROL:
        raise ConversionError(
            path,
            f"{operator}: which operations are done depends on the image",
            "Export the network for inference, with plain operations in forward",
        )
    if node.domain not in ("", "ai.onnx"):
        raise ConversionError(
            path,
            f"{operator} is an operator of the domain '{node.domain}', which is not ONNX's own",
            "Export the network without the optimisations of a runtime",
        )
    if not onnx.defs.has(operator, opset):
        raise ConversionError(
            path, f"there is no operator {operator} in ONNX's opset {opset}", UNKNOWN_CURE
        )
    twice = set(node.output) & (there - {""})
    if twice:
        raise ConversionError(path, f"{operator}: it makes '{min(twice)}' a second time", AGAIN)
    missing = set(node.input) - there
    if missing:
        raise ConversionError(
            path, f"{operator}: nothing before it makes '{min(missing)}', which it reads", AGAIN
        )
    context = type(onnx.checker.DEFAULT_CONTEXT)()
    context.ir_version, context.opset_imports = onnx.IR_VERSION, {"": opset}
    told(path, lambda: onnx.checker.check_node(node, context))


def _texts(graph) -> Iterator[str]:
    """All names; protobuf gives those that are no UTF-8 as bytes."""
    for thing in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        yield thing.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _live(graph) -> set[int]:
    """The nodes on which an output depends."""
    made = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waiting = [output.name for output in graph.output]
    live: set[int] = set()
    while waiting:
        i = made.get(waiting.pop())
        if i is not None and i not in live:
            live.add(i)
            waiting += graph.node[i].input
    return live


def inferred(file: File, nodes: list[Any], constants: dict[str, np.ndarray]) -> dict[str, Held]:
    """Shapes and types of values, as far as the file states them or onnx infers them.

    Args:
        nodes: those whose values are asked for, in order. constants: all that they read.
    """
    onnx = onnx_package()
    try:
        light = _light(onnx, file.model, nodes, constants)
        graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # whatever the C++ code raises: ranks that are not known are asked for later
        graph = file.model.graph
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        shape = None
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        except (KeyError, TypeError, ValueError):
            dtype = None
        found[value.name] = Held(shape, dtype)
    return found


def _light(
    onnx, model: ModelProto, nodes: list[Any], constants: dict[str, np.ndarray]
) -> ModelProto:
    """A model of these nodes with large constants as inputs: protobuf bounds what C++ may read."""
    graph, helper = model.graph, onnx.helper
    read = {name for node in nodes for name in node.input}
    inputs = [value for value in graph.input if value.name not in constants]
    small = []
    for name in sorted(read & set(constants)):
        value = constants[name]
        if value.size > _SMALL:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
        else:
            small.append(onnx.numpy_helper.from_array(value, name))
    light = helper.make_graph(
        nodes, "light", inputs, graph.output, initializer=small, value_info=graph.value_info
    )
    version = min(max(model.ir_version, 4), onnx.IR_VERSION)  # from 4 on, weights are no inputs
    return helper.make_model(light, opset_imports=model.opset_import, ir_version=version)


def told(name: str, work: Callable[[], Any]) -> Any:
    """What work returns; what onnx objects to is the reason for which `name` is refused."""
    try:
        return work()
    except ConversionError:
        raise
    except Exception as error:  # of onnx's C++ code: many types
        raise ConversionError(name, f"onnx finds it wrong ({first_line(error)})", AGAIN) from error


def first_line(error: Exception) -> str:
    """What an exception says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
