"""What a module does behind its last layers: which operations torch keeps, as a `Tail`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fskernel.errors import ConversionError
from fskernel.tail import Tail, operation
from fskernel.tracing.module.exported import SHAPED
from fskernel.tracing.module.nodes import Listed, Node
from fskernel.tracing.moved import MOVES

WEIGHTED = {
    "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "linear", "matmul", "addmm", "mm",
    "batch_norm",
}  # fmt: skip
# Behind the last weights these are still neurons and pools; the rest is torch's.
_LAYERS = {
    "relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "threshold", "max_pool1d",
    "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean",
    "add", "cat", "sub", "silu", "hardswish", "gelu", "mish", "elu", "celu", "selu", "leaky_relu",
    "prelu", "formula", "registered_activation",
}  # fmt: skip


def behind_the_layers(found: Listed) -> set[Node]:
    """The nodes of which no layer is made: torch computes them on what the layers give.

    No weights follow them. Sums and concatenations are layers only if a neuron follows.
    """
    before: set[Node] = set()  # of some weights
    leads: set[Node] = set()  # to a neuron or a pool, or to weights
    for node in reversed(found.nodes):
        weighted = node.op in WEIGHTED and any(
            isinstance(a, Tensor) and a.dim() > 1 or node.op == "batch_norm"
            for a in node.arguments.values()
        )
        if weighted or node in before:
            before.update(node.inputs())
    torchs: set[Node] = set()
    readers: dict[Node, list[Node]] = {}
    for node in found.nodes:
        for source in node.inputs():
            readers.setdefault(source, []).append(node)
    for node in reversed(found.nodes):
        if node in before or node.op in WEIGHTED or node.op == "input":
            leads.add(node)
        elif node.op in ("add", "sub", "cat"):
            if any(r in leads and r.op not in ("add", "sub", "cat") for r in readers.get(node, ())):
                leads.add(node)
        elif node.op in _LAYERS:
            leads.add(node)
        elif node.op in MOVES and len(node.shape) == 2 and node not in readers:
            leads.add(node)  # flattened, and returned
    for node in found.nodes:
        if node.op == "input":
            continue
        if node not in leads or any(source in torchs for source in node.inputs()):
            torchs.add(node)
    return torchs


def readers_of_layers(found: Listed, torchs: set[Node]) -> dict[Node, int]:
    """How many layers read what a node gives; torch and the outputs together count as one."""
    readers = dict.fromkeys(found.nodes, 0)
    floats = {node for node in found.outputs if isinstance(node, Node)}
    for node in found.nodes:
        for source in node.inputs():
            if node in torchs:
                floats.add(source)
            else:
                readers[source] += 1
    for node in floats:
        readers[node] += 1
    return readers


class TailWriter:
    """Writes down what torch computes behind the layers.

    Args:
        torchs: those nodes. batch: images that were traced.
    """

    def __init__(self, found: Listed, torchs: set[Node], batch: int):
        self.found, self.torchs, self.batch = found, torchs, batch
        self.calls: list[tuple[str, list, dict]] = []
        self.constants: list[Tensor] = []
        self.at: dict[Node, object] = {}  # references
        self.heads: list[Node] = []  # what the layers have to give
        self.names: list[str] = []
        self.of_one_size = False  # numbers of it depend on the size of the images

    def write(self) -> Tail | None:
        """The tail; None if the one output is what the one head gives."""
        for node in self.found.nodes:
            if node in self.torchs:
                self.at[node] = self._call(node)
        leaves = [self._reference(output) for output in self.found.outputs]
        result = _told(pytree.tree_unflatten(leaves, self.found.spec))
        if not self.calls and result == {"head": 0} and len(self.heads[0].shape) in (2, 4):
            return None
        shapes = [list(n.shape[1:]) if len(n.shape) != 4 else None for n in self.heads]
        self.of_one_size |= any(len(node.shape) == 3 for node in self.heads)
        return Tail(shapes, self.calls, self.constants, result, list(dict.fromkeys(self.names)))

    def _call(self, node: Node) -> object:
        if node.op == "getitem":
            source = self._reference(node.arguments["input"])
            return {"item": [source, node.arguments["index"]]}
        name = f"{node.target._schema.name.split('::')[-1]}.{node.target._overloadname}"
        name = name.removesuffix("_") if node.target._schema.is_mutable else name
        try:
            operation(name)
        except ValueError:
            raise Unknown(node) from None
        self.names.append(node.name)
        self.of_one_size |= node.op in SHAPED and len(node.shape) > 2
        args, kwargs = [], {}
        for argument, value in zip(
            node.target._schema.arguments, node.arguments.values(), strict=True
        ):
            told = self._images(node, argument.name, self._reference(value))
            if argument.kwarg_only:
                kwargs[argument.name] = told
            else:
                args.append(told)
        self.calls.append((name, args, kwargs))
        return {"call": len(self.calls) - 1}

    def _images(self, node: Node, argument: str, told: object) -> object:
        """Where a shape begins with the number of images, their number at hand."""
        shape = argument in ("size", "shape", "repeats") and isinstance(told, list) and told
        if shape and argument != "repeats" and told[0] == self.batch == node.shape[0]:
            return [{"images": 0}, *told[1:]]
        return told

    def _reference(self, value: object) -> object:
        """An argument as `Tail` has it."""
        if isinstance(value, Node):
            if value in self.torchs:
                return self.at[value]
            if value not in self.heads:
                self.heads.append(value)
            return {"head": self.heads.index(value)}
        if isinstance(value, Tensor):
            self.constants.append(value)
            return {"constant": len(self.constants) - 1}
        if isinstance(value, torch.dtype):
            floats = value.is_floating_point
            return {"dtype": "float" if floats else str(value).removeprefix("torch.")}
        if isinstance(value, (list, tuple)):
            return [self._reference(v) for v in value]
        if isinstance(value, float) and math.isinf(value):
            return {"inf": 1 if value > 0 else -1}
        if isinstance(value, (torch.device, torch.layout, torch.memory_format)):
            return None
        return value


class Unknown(Exception):
    """An operation behind the layers that torch cannot be left with."""

    def __init__(self, node: Node):
        self.node = node
        super().__init__(node.name)


def _told(result: object) -> object:
    """What a module returns, as `Tail` has it."""
    if isinstance(result, tuple):
        return {"tuple": [_told(r) for r in result]}
    if isinstance(result, list):
        return [_told(r) for r in result]
    if isinstance(result, dict) and not _is_reference(result):
        return {"dict": [[key, _told(r)] for key, r in result.items()]}
    if _is_reference(result) or result is None or isinstance(result, (str, int, float, bool)):
        return result
    kind = type(result).__name__
    raise ConversionError(
        kind,
        f"the network returns a {kind}",
        "Return a tensor, or tuples, lists or dictionaries of tensors",
    )


def _is_reference(value: object) -> bool:
    known = ("head", "call", "constant", "item")
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in known
