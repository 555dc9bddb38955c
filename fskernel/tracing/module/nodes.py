"""An exported graph as a list of nodes: constants computed, copies left out, everything named."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind

from fskernel.errors import ConversionError
from fskernel.tracing.module.exported import COPIES, Exported
from fskernel.tracing.module.names import Names

# Tagged as random, but not at inference.
_NOT_RANDOM = {"scaled_dot_product_attention", "rrelu", "rrelu_with_noise", *COPIES}
# One operation under the names that torch.export has for it.
_ONE_NAME = {
    "_native_batch_norm_legit_no_training": "batch_norm",
    "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit": "batch_norm",
    "_unsafe_view": "view",
    "reshape": "view",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool1d_with_indices": "max_pool1d",
    "native_dropout": "dropout",
}
# Of several results the first is what they are for.
_FIRST_ALONE = {
    "batch_norm", "max_pool1d", "max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "dropout",
}  # fmt: skip


@dataclass(eq=False)
class Node:
    """One operation on activations.

    Attributes:
        op: what it is called in torch.ops.aten, without the overload ("conv2d"); "input".
        name: of the layer it would make, by the rule of `names.py`.
        arguments: by the schema's names, defaults included. Activations are Nodes, weights and
            other constants Tensors; numbers that were computed from shapes are those for `shape`.
        shape: of its result, two images; of several results, the first one's.
        target: the operator. owners: paths and classes of the modules whose forward it is part of,
            innermost first. leaf: whether the innermost is a module of torch.nn.
    """

    op: str
    name: str
    arguments: dict[str, object]
    shape: tuple[int, ...]
    target: object = None
    owners: tuple[tuple[str, type], ...] = ()
    leaf: bool = False

    def inputs(self) -> list[Node]:
        """Activations that it reads, each once, in order."""
        found: dict[Node, None] = {}

        def look(value: object) -> None:
            if isinstance(value, Node):
                found[value] = None
            elif isinstance(value, (tuple, list)):
                for v in value:
                    look(v)

        look(tuple(self.arguments.values()))
        return list(found)

    def __repr__(self) -> str:
        return f"{self.name} = {self.op}{list(self.shape)}"


@dataclass
class Listed:
    """The nodes on which the outputs depend, in the order in which they run.

    Attributes:
        outputs: for each leaf of what forward returns, a Node, a constant Tensor, or something
            that is no tensor. spec: how they are put together (torch.utils._pytree).
        kinds: classes of modules and functions by the nodes' names.
    """

    nodes: list[Node]
    outputs: list[object]
    spec: object
    kinds: dict[str, str] = field(default_factory=dict)


def listed(found: Exported, module: nn.Module) -> Listed:
    """Reads an exported graph.

    Args:
        module: the copy that was exported.

    Raises:
        ConversionError: it draws random numbers, or computes on another input.
    """
    return _Reader(found, module).read()


class _Reader:
    def __init__(self, found: Exported, module: nn.Module):
        self.program = found.program
        self.names = Names(module)
        self.constants: dict[fx.Node, object] = {}
        self.nodes: dict[fx.Node, Node] = {}  # copies have the node of what they copy
        self.kinds: dict[str, str] = {}

    def read(self) -> Listed:
        signature = self.program.graph_signature
        *_, last = self.program.graph.nodes
        wanted = [
            value
            for value, spec in zip(last.args[0], signature.output_specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT  # not what is written to buffers
        ]
        live = self._live([n for n in wanted if isinstance(n, fx.Node)])
        nodes: list[Node] = []
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                made = self._placeholder(node)
            elif node.op == "call_function" and node in live:
                made = self._call(node)
            else:
                continue
            if made is not None:
                self.nodes[node] = made
                nodes.append(made)
        outputs = [self._value(value) for value in wanted]
        return Listed(nodes, outputs, self.program.call_spec.out_spec, self.kinds)

    def _live(self, waiting: list[fx.Node]) -> set[fx.Node]:
        """Nodes on whose values the outputs depend; shapes are known."""
        live: set[fx.Node] = set()
        while waiting:
            node = waiting.pop()
            if node not in live and not _is_number(node):
                live.add(node)
                waiting += node.all_input_nodes
        return live

    def _placeholder(self, node: fx.Node) -> Node | None:
        program, signature = self.program, self.program.graph_signature
        held = (
            signature.inputs_to_parameters
            | signature.inputs_to_buffers
            | signature.inputs_to_lifted_tensor_constants
        )
        if node.name in held:
            where = held[node.name]
            state = program.constants if where in program.constants else program.state_dict
            self.constants[node] = state[where].detach()
        elif isinstance(node.meta.get("val"), Tensor):
            return Node("input", "input", {}, _shape(node))
        else:  # an argument that is left out
            self.constants[node] = None
        return None

    def _call(self, node: fx.Node) -> Node | None:
        """A node, or None where its value is a constant, a number or another node's."""
        if node.target is operator.getitem:
            return self._item(node)
        if not hasattr(node.target, "_schema"):
            raise ConversionError(
                self.names.owner(node) or node.name,
                f"it holds a graph of its own ({node.target})",
                "Write forward without control flow that torch.cond or the like express",
            )
        op = node.target._schema.name.split("::")[-1]
        if node.target._schema.is_mutable:  # in place of what nobody else reads
            op = op.removesuffix("_")
        op = _ONE_NAME.get(op, op)
        arguments = self._bound(node)
        if op in COPIES and not arguments.get("train", False) and self._copies(node):
            source = node.args[0]
            if source in self.constants:
                self.constants[node] = self.constants[source]
            else:
                self.nodes[node] = self.nodes[source]
            return None
        name = self.names.of(node, op)
        if torch.Tag.nondeterministic_seeded in node.target.tags and (
            op not in _NOT_RANDOM or arguments.get("train", False)
        ):
            raise ConversionError(
                name,
                f"{op} draws random numbers, at inference too",
                "Pass training=self.training to it; take what is random out of forward",
            )
        if not any(isinstance(n, Node) for n in map(self.nodes.get, node.all_input_nodes)):
            self.constants[node] = self._computed(node)
            return None
        owners, leaf = self.names.owners(node)
        made = Node(op, name, arguments, _shape(node), node.target, owners, leaf)
        self.kinds[name] = self.names.kind(node, op)
        return made

    def _item(self, node: fx.Node) -> Node | None:
        source, index = node.args
        if source in self.constants:
            self.constants[node] = self.constants[source][index]
            return None
        of = self.nodes[source]
        if of.op in _FIRST_ALONE and index == 0:
            self.nodes[node] = of
            return None
        arguments = {"input": of, "index": index}
        return Node("getitem", of.name, arguments, _shape(node), node.target, of.owners, of.leaf)

    def _copies(self, node: fx.Node) -> bool:
        old, new = node.args[0].meta["val"], node.meta["val"]
        return (
            isinstance(new, Tensor)
            and old.shape == new.shape
            and old.is_floating_point() == new.is_floating_point()
        )

    def _bound(self, node: fx.Node) -> dict[str, object]:
        """Arguments by name, with what the call leaves out."""
        bound: dict[str, object] = {}
        for i, argument in enumerate(node.target._schema.arguments):
            if i < len(node.args) and not argument.kwarg_only:
                value = node.args[i]
            elif argument.name in node.kwargs:
                value = node.kwargs[argument.name]
            else:
                value = argument.default_value if argument.has_default_value() else None
            bound["input" if argument.name == "self" else argument.name] = self._value(value)
        return bound

    def _value(self, value: object) -> object:
        if isinstance(value, fx.Node):
            if _is_number(value):
                number = _number(value.meta["val"])
                if number is None:
                    raise ConversionError(
                        self.names.owner(value) or value.name,
                        "it takes a number out of the image at hand, which is not known before "
                        "there is one",
                        "Compute with tensors, without .item(), float() and the like",
                    )
                return number
            return self.constants[value] if value in self.constants else self.nodes[value]
        if isinstance(value, (tuple, list)):
            return [self._value(v) for v in value]
        return _number(value)

    def _computed(self, node: fx.Node) -> object:
        """What an operation on weights alone gives."""
        args = [self._value(a) for a in node.args]
        kwargs = {k: self._value(v) for k, v in node.kwargs.items()}
        try:
            return _exact(node.target(*args, **kwargs))
        except Exception as error:
            raise ConversionError(
                self.names.owner(node) or node.name,
                f"its constant operation {node.target} fails ({error})",
                "Store the weights as they are used",
            ) from error


def _exact(value: object) -> object:
    """Floats in float64, as all weights are: forward may have made them with torch's own dtype."""
    if isinstance(value, (tuple, list)):
        return [_exact(v) for v in value]
    floats = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floats else value


def _is_number(node: fx.Node) -> bool:
    return isinstance(
        node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)
    )


def _number(value: object) -> object:
    """A symbol as the number that it was traced with; None: it was taken out of a tensor."""
    for symbol, kind in ((torch.SymInt, int), (torch.SymFloat, float), (torch.SymBool, bool)):
        if isinstance(value, symbol):
            return None if value.node.hint is None else kind(value.node.hint)
    return value


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta["val"]
    if isinstance(value, (tuple, list)):
        value = next(v for v in value if isinstance(v, Tensor))
    return tuple(_number(n) for n in value.shape)
