"""From an ONNX file to a torch module that computes the same: `from_onnx`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fskernel.errors import ConversionError
from fskernel.onnx_files import names, sizes, weighted
from fskernel.onnx_files.nodes import Node, Operand, Operation
from fskernel.onnx_files.operators import SEVERAL_OUTPUTS, build, folded
from fskernel.onnx_files.reading import File, Held, inferred, onnx_package, read, told
from fskernel.torch_rules.neutral import neutral

if TYPE_CHECKING:
    from onnx import ModelProto


@neutral()
def from_onnx(source: str | os.PathLike[str] | ModelProto) -> OnnxNetwork:
    """Reads an ONNX file as a torch module, which computes what ONNX Runtime does.

    Sizes stay open: whatever the file does not fix by its weights or by constant shapes may change
    from call to call, the number of images too. Weights are parameters of torch's own layers,
    whose names come from those of the file's nodes: see docs/onnx.md.

    Args:
        source: the path of a file, or an `onnx.ModelProto`; opset 7 or newer. The package onnx is
            needed (pip install onnx).

    Returns:
        The module, in eval mode. It takes the file's inputs and returns its output, a tuple if
        there are several, in the order of the file.

    Raises:
        ConversionError: what the file is, or has, that cannot be read: quantised weights, control
            flow, an unknown operator, ...; named by its node, with the reason and the cure.
        FileNotFoundError: there is no such file. ImportError: onnx is not installed.
    """
    return _Building(read(source)).network()


@dataclass
class Step:
    """One node when the network runs.

    Attributes:
        call: a function of sizes, or the path of a submodule.
        reads, writes: names of values. frees: those that nothing reads any more.
    """

    call: sizes.Bound | str
    reads: list[str]
    writes: list[str]
    frees: list[str] = field(default_factory=list)


class OnnxNetwork(nn.Module):
    """The network of an ONNX file; see `from_onnx`.

    Attributes:
        inputs, outputs: their names in the file, in order.
    """

    def __init__(self, inputs: tuple[str, ...], outputs: tuple[str, ...], steps: list[Step]):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self._steps = steps

    def forward(self, x: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The output, or a tuple of them, for the inputs in the file's order."""
        given = (x, *more)
        if len(given) != len(self.inputs):
            raise ValueError(
                f"{len(given)} input(s) were given: the file has {len(self.inputs)}, "
                f"{', '.join(self.inputs)}"
            )
        values: dict[str, Any] = dict(zip(self.inputs, given))
        for step in self._steps:
            call = self.get_submodule(step.call) if isinstance(step.call, str) else step.call
            made = call(*(values[name] for name in step.reads))
            if len(step.writes) == 1:
                values[step.writes[0]] = made
            else:
                values.update({name: made[i] for i, name in enumerate(step.writes)})
            for name in step.frees:
                del values[name]
        found = [values[name] for name in self.outputs]
        found = [torch.tensor(v) if isinstance(v, (list, int, float)) else v for v in found]
        return found[0] if len(found) == 1 else tuple(found)

    def extra_repr(self) -> str:
        return f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}"


class _Building:
    """Walks the nodes of a file in order, and keeps what is known of every value."""

    def __init__(self, file: File):
        self.file = file
        self.constants = dict(file.constants)
        self.held: dict[str, Held] = {}
        self.sizes: set[str] = set()
        self.steps: list[Step] = []
        read = [name for node in file.nodes for name in node.input]
        self.read = Counter([*read, *file.outputs])
        self.modules: dict[str, nn.Module] = {}

    def network(self) -> OnnxNetwork:
        file = self.file
        left = []
        for spelt, proto in zip(file.spelt, file.nodes):
            path = ".".join(spelt)
            if all(name in self.constants for name in proto.input if name):
                self.constants.update(folded(self.described(path, proto), proto))
            else:
                left.append((path, proto))
        self.held = inferred(file, [proto for _, proto in left], self.constants)
        todo: list[tuple[Node, sizes.Bound | None]] = []
        for path, proto in left:
            node = self.described(path, proto)
            call = told(path, lambda node=node: sizes.computed(node))
            if call is not None:
                self.sizes.add(node.outputs[0])
            todo.append((node, call))
        for name in file.outputs:
            if name in self.constants:
                raise ConversionError(
                    file.name,
                    f"its output '{name}' does not depend on an input",
                    "Export the network with the outputs that it computes",
                )
        todo = self.with_biases(todo)
        self.name([node for node, call in todo if call is None])
        for node, call in todo:
            if call is None:
                self.add(node)
            else:
                self.steps.append(Step(call, _names(node, call.read), node.outputs[:1]))
        self.free()
        network = OnnxNetwork(file.inputs, file.outputs, self.steps)
        for path, module in self.modules.items():
            _place(network, path, module)
        return network.eval()

    def with_biases(self, todo: list[tuple[Node, sizes.Bound | None]]) -> list:
        """The same, but an Add that is the only reader of a layer without a bias is its bias."""
        made = {node.outputs[0]: i for i, (node, _) in enumerate(todo)}
        found = list(todo)
        gone = set()
        for i, (add, _) in enumerate(todo):
            varying = [o.name for o in add.operands if o is not None and o.value is None]
            if add.operator == "Add" and len(varying) == 1 and self.read[varying[0]] == 1:
                at = made.get(varying[0])
                layer = None if at is None else weighted.with_bias(found[at][0], add)
                if layer is not None:
                    found[at] = (layer, None)
                    gone.add(i)
        return [entry for i, entry in enumerate(found) if i not in gone]

    def name(self, nodes: list[Node]) -> None:
        """Gives the nodes that become modules their paths."""
        full = [tuple(node.path.split(".")) for node in nodes]
        for node, path in zip(nodes, names.paths(full, [node.operator for node in nodes])):
            node.path = path

    def described(self, path: str, proto) -> Node:
        return Node(
            path,
            proto.op_type,
            self.file.opset,
            {a.name: told(path, lambda a=a: _attribute(a)) for a in proto.attribute},
            [self.operand(name) for name in proto.input],
            list(proto.output),
            [name in self.read for name in proto.output],
        )

    def operand(self, name: str) -> Operand | None:
        if not name:
            return None
        if name in self.constants:
            value = self.constants[name]
            return Operand(name, "constant", value, value.shape, value.dtype)
        held = self.held.get(name, Held())
        kind = "sizes" if name in self.sizes else "tensor"
        return Operand(name, kind, None, held.shape, held.dtype)

    def add(self, node: Node) -> None:
        """Adds a node that computes with data."""
        module = build(node)
        reads = module.reads if isinstance(module, Operation) else (0,)
        writes = node.outputs if node.operator in SEVERAL_OUTPUTS else node.outputs[:1]
        self.modules[node.path] = module
        self.steps.append(Step(node.path, _names(node, reads), writes))

    def free(self) -> None:
        """Notes after which step a value may go."""
        kept = set(self.file.outputs)
        for step in reversed(self.steps):
            last = {*step.reads, *step.writes} - kept
            step.frees = sorted(last)
            kept |= last


def _names(node: Node, read: Iterable[int]) -> list[str]:
    return [operand.name for i in read if (operand := node.operand(i)) is not None]


def _attribute(proto) -> Any:
    """An attribute as Python's or numpy's."""
    onnx = onnx_package()
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return value


def _place(network: nn.Module, path: str, module: nn.Module) -> None:
    """Makes a module reachable by a path; what lies between are modules, too."""
    *around, name = path.split(".")
    parent = network
    for part in around:
        if part not in dict(parent.named_children()):
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(name, module)
