"""From a trained module to the float graph: goes through its operations and fuses them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from fskernel.activations import is_registered
from fskernel.errors import ConversionError
from fskernel.graph import Graph, Layer
from fskernel.image_sizes import holds
from fskernel.torch_rules.neutral import neutral
from fskernel.tracing.advice import advice, class_names
from fskernel.tracing.compare import compare, for_all_sizes
from fskernel.tracing.formulas import write_formulas
from fskernel.tracing.joins import Joins
from fskernel.tracing.module.exported import export_module
from fskernel.tracing.module.given_module import copied
from fskernel.tracing.module.nodes import Listed, Node, listed
from fskernel.tracing.module.parts import parts_of
from fskernel.tracing.module.silent import Calls
from fskernel.tracing.module.whole import kept_whole
from fskernel.tracing.moved import is_move
from fskernel.tracing.pools import map_size
from fskernel.tracing.tails import TailWriter, Unknown, behind_the_layers, readers_of_layers
from fskernel.tracing.values import Pending, Ready

SUPPORTED = (
    "Supported are convolutions (1d, 2d, transposed), batch norm, linear layers, ReLU and other "
    "activations (also those that are registered: fskernel.register_activation), max- and "
    "average-pools, additions, products and concatenations of branches, constant factors and "
    "terms, and whatever only moves numbers (views, slices, permutations, zero padding, nearest "
    "upsampling, pixel shuffles)"
)


@neutral()
def trace(
    module: nn.Module,
    input_size: tuple[int, ...] | None = None,
    average: bool = False,
    images: Tensor | None = None,
    compared: bool = True,
    outputs: Iterable[str] | None = None,
) -> Graph:
    """Folds and fuses a trained module into a Graph of float64 layers, and compares the two.

    Args:
        module: any module torch.export can trace; it is left untouched and read in eval mode (batch
            norm with running statistics, dropout off), from a copy.
        input_size: shape [N, C, H, W] of its input, or [N, C, L] or [N, F]. Default: that of
            `images`; else the channels that its first layer reads, and the first size that it
            takes of 224x224, 32x32, 28x28 and others. `Graph.example` is what was taken.
        average: put average-pools in place of max-pools.
        images: float [N, C, H, W] of that size; up to four of them are what the graph and the
            module are compared on, besides random ones. See `fskernel.compare`.
        outputs: names of submodules: of the module these parts alone (`parts.py`), whose results
            are the network's, as a dictionary by their names. Images are then what the first of
            them reads.
        compared: False leaves the comparison out, where another has been made.

    Raises:
        ConversionError: naming the operation that cannot be converted, why, and what would help; or
            the first layer that gives what the module does not.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}: expected a torch.nn.Module")
    if input_size is None and images is not None:
        input_size = tuple(images.shape)
    name = type(module).__name__
    if outputs is not None:
        module = parts_of(module, outputs, input_size)
    module = copied(module)
    calls = Calls(module)
    with kept_whole(module):
        found = export_module(module, None if input_size is None else tuple(input_size[1:]))
    calls.end()
    graph = _Walker(module, listed(found, module), average, calls).run()
    graph.module = name
    graph.rank, graph.example = found.example.dim(), tuple(found.example.shape[1:])
    if not found.any_size:
        graph.size = map_size(found.example.shape)[1:]
    if graph.size is None:  # it takes what it was traced with, which is compared below
        given = map_size(found.example.shape)[1:]
        graph.conditions = tuple(c for c in found.conditions if holds(c, *given))
    if compared:
        compare(graph, module, images, input_size)
        graph.conditions = for_all_sizes(graph, module)
    return graph


class _Walker(Joins):
    """Goes through the nodes in the order in which they run, and fuses them into layers."""

    def __init__(self, module: nn.Module, found: Listed, average: bool, calls: Calls):
        image = next(node for node in found.nodes if node.op == "input")
        size = map_size(image.shape)
        super().__init__(module, size[1:], average)
        self.found, self.calls, self.channels = found, calls, size[0]
        write_formulas(found, behind_the_layers(found))
        self.torchs = behind_the_layers(found)
        self.tail = TailWriter(found, self.torchs, image.shape[0])
        self.readers = readers_of_layers(found, self.torchs)

    def run(self) -> Graph:
        self.refuse_attention()
        for node in self.found.nodes:
            if node.op == "input":
                name = self.unique("input")
                self.emit(Layer(name, "input"))
                value: object = Ready((name,), map_size(node.shape))
                if map_size(node.shape)[1:] == (1, 1):
                    self.pixels.add(name)
            elif node in self.torchs:
                continue
            else:
                value = self.convert(node)
            if isinstance(value, Pending) and self.readers[node] > 1:
                value = self.graded(value)
            self.values[node] = value
        return self.finish()

    def refuse_attention(self) -> None:
        """Attention is the reason, not the reshaping or normalising in front of it."""
        for node in self.found.nodes:
            if node in self.torchs:
                continue
            for name in (node.op, *(kind.__name__ for _, kind in node.owners[:1] if node.leaf)):
                if "attention" in name.lower():
                    self.unsupported(node, [name])
            if node.op == "softmax" and any("Attention" in k.__name__ for _, k in node.owners):
                self.unsupported(node, [node.op])

    def convert(self, node: Node) -> object:
        if node.op == "getitem":
            found = self.values[node.arguments["input"]]
            if isinstance(found, list):
                return found[node.arguments["index"]]
        elif is_move(node.op, _pixels(node)):
            if node.leaf:
                self.absorbed.append(node.name)
            return self.move(node, node.arguments["input"])
        elif node.op in _OPERATIONS:
            return _OPERATIONS[node.op](self, node, **node.arguments)
        elif is_registered(node.op) and len(node.arguments) == 1:
            return self.activated(node, *node.inputs(), node.op)
        return self.unsupported(node, class_names(node.owners[0][1]) if node.leaf else [node.op])

    def unsupported(self, node: Node, names: list[str]):
        """Refuses a module or function by the names of its classes or its own.

        A module around it that is known to have no Few-Spikes form is a better reason than what
        its forward happens to begin with.
        """
        for path, kind in node.owners:
            known = advice(class_names(kind))
            if known:
                raise ConversionError(path, f"{kind.__name__}: {known.reason}", known.cure)
        for name in (*names, node.op):
            known = advice([name])
            if known:
                self.refuse(node, f"{name}: {known.reason}", known.cure)
        self.refuse(node, f"{names[0]}: it has no Few-Spikes form", SUPPORTED)

    def finish(self) -> Graph:
        try:
            tail = self.tail.write()
        except Unknown as unknown:
            node = unknown.node
            self.unsupported(node, class_names(node.owners[0][1]) if node.leaf else [node.op])
        if not any(layer.kind in ("neuron", "graded") for layer in self.layers):
            self.refuse(
                self.found.nodes[-1], "there is no layer of neurons", "Few-Spikes networks have one"
            )
        for node in self.tail.heads:
            self.head(node)
        if tail is not None and self.tail.of_one_size:
            self.depends_on_size()
        self.calls.attach(self.layers)
        kinds = self.found.kinds | self.calls.kinds
        pairs = {n: kinds[n] for layer in self.layers for n in layer.fused if n in kinds}
        averaged = tuple(self.averaged)
        graph = Graph(self.layers, self.size, averaged, tuple(pairs.items()), tail=tail)
        return graph.pruned()

    def head(self, node: Node) -> str:
        """The layer that gives the floats of a node, which torch reads or the network returns."""
        value = self.values[node]
        if isinstance(value, Ready) and (len(node.shape) == 2 or value.averaged):
            value = self.shown(value, node)
        if isinstance(value, Ready):
            read = self.read(node, node)
            layer = Layer(self.unique(f"{read.layer}.output"), "output", source=read.layer)
            self.emit(layer)
            return layer.name
        if value.index is not None and _straight(value, node):
            value = replace(value, index=None)
        if value.index is not None:
            self.values[node] = self.graded(value)
            return self.head(node)
        flat = value.size[1:] == (1, 1) and value.residual is None and len(value.groups) == 1
        flat = flat and len(node.shape) == 2 or value.averaged
        if not flat:
            value = self.unaveraged(value)
        layer = Layer(
            self.unique(value.name),
            "readout" if flat else "map_readout",
            value.groups,
            value.bias,
            value.residual,
            pool=value.averaged,
            fused=value.fused,
        )
        self.emit(layer)
        return layer.name

    # ---- operations ----------------------------------------------------------------------------

    def sum_of(self, node: Node, input, other, alpha=1):
        """Input + alpha other, where one may be a constant."""
        if not isinstance(other, Node):
            if _is_zero(other):
                return self.value(input, node)
            return self.affine(node, input, 1.0, _times(other, alpha))
        if not isinstance(input, Node):
            return self.affine(node, other, alpha, input)
        if alpha == 1:
            return self.add(node, input, other)
        return self.add_values(node, input, other, self.affine(node, other, alpha, 0.0))

    def difference(self, node: Node, input, other, alpha=1):
        return self.sum_of(node, input, other, -alpha)

    def reversed_difference(self, node: Node, input, other, alpha=1):
        return self.affine(node, input, -alpha, other)

    def product(self, node: Node, input, other):
        """A value times a constant, or times another value."""
        for value, factor in ((input, other), (other, input)):
            if not isinstance(factor, Node):
                return self.affine(node, value, factor, 0.0)
        return self.gate(node, input, other)

    def quotient(self, node: Node, input, other, rounding_mode=None):
        if isinstance(other, Node):
            self.refuse(
                node,
                f"it divides by '{other.name}', which is no constant",
                "Multiply by a function of it that is finite for every number, or, where it is a "
                "norm or a deviation of the image at hand, use batch norm",
            )
        if rounding_mode is not None or not isinstance(input, Node):
            return self.unsupported(node, [node.op])
        return self.affine(node, input, 1.0 / self.exact(other, "divisor", node), 0.0)

    def matrix_product(self, node: Node, input, other):
        if isinstance(other, Node) or not isinstance(input, Node) or other.dim() != 2:
            return self.unsupported(node, [node.op])
        return self.linear(node, input, other.t(), None)

    def largest(self, node: Node, input, other):
        for value, least in ((input, other), (other, input)):
            if not isinstance(least, Node):
                return self.clamp(node, value, least, None)
        return self.unsupported(node, [node.op])

    def smallest(self, node: Node, input, other):
        for value, most in ((input, other), (other, input)):
            if not isinstance(most, Node):
                return self.clamp(node, value, None, most)
        return self.unsupported(node, [node.op])


def _pixels(node: Node) -> tuple[int, ...]:
    """Rows and columns of what an operation reads first."""
    input = node.arguments.get("input")
    return tuple(input.shape[2:]) if isinstance(input, Node) else ()


def _straight(value: Pending, node: Node) -> bool:
    """Whether the numbers of an affine sum still stand in their order."""
    numbers = torch.arange(value.index.numel())
    return value.index.numel() == 2 * math.prod(value.size) and torch.equal(
        value.index.flatten(), numbers
    )


def _is_zero(value: object) -> bool:
    return not bool(torch.as_tensor(value).any())


def _times(value, factor):
    return value if factor == 1 else torch.as_tensor(value, dtype=torch.float64) * factor


def _batch_norm(walker: _Walker, node: Node, momentum=None, cudnn_enabled=None, **arguments):
    return walker.batch_norm(node, **arguments)


def _function(name: str) -> _Operation:
    """A scalar function that is called as its operation is, with parameters in the same order."""
    return lambda walker, node, input, **numbers: walker.activated(
        node, input, name, *numbers.values()
    )


def _rrelu(walker: _Walker, node: Node, input, lower, upper, **arguments):
    return walker.rrelu(node, input, lower, upper)


_Operation = Callable[..., object]
_OPERATIONS: dict[str, _Operation] = {
    **dict.fromkeys(("conv1d", "conv2d"), _Walker.conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _Walker.conv_transpose),
    "linear": _Walker.linear,
    "matmul": _Walker.matrix_product,
    "batch_norm": _batch_norm,
    "relu": _Walker.relu,
    "relu6": lambda w, n, input: w.relu(n, input, 6.0),
    "hardtanh": lambda w, n, input, min_val, max_val: w.clamp(n, input, min_val, max_val),
    **dict.fromkeys(("clamp", "clip"), lambda w, n, input, min, max: w.clamp(n, input, min, max)),
    "clamp_min": lambda w, n, input, min: w.clamp(n, input, min, None),
    "clamp_max": lambda w, n, input, max: w.clamp(n, input, None, max),
    "threshold": _Walker.thresholded,
    "maximum": _Walker.largest,
    "minimum": _Walker.smallest,
    **{
        op: _function(op)
        for op in (
            "silu",
            "hardswish",
            "mish",
            "sigmoid",
            "tanh",
            "log_sigmoid",
            "selu",
            "celu",
            "leaky_relu",
            "softplus",
            "softshrink",
            "hardshrink",
        )
    },
    "hardsigmoid": _Walker.hardsigmoid,
    "gelu": _Walker.gelu,
    "elu": _Walker.elu,
    "prelu": _Walker.prelu,
    **dict.fromkeys(("rrelu", "rrelu_with_noise"), _rrelu),
    "formula": _Walker.formula,
    "glu": _Walker.glu,
    "expand_as": _Walker.expanded,
    "registered_activation": lambda w, n, input, name: w.activated(n, input, name),
    "add": _Walker.sum_of,
    "sub": _Walker.difference,
    "rsub": _Walker.reversed_difference,
    "neg": lambda w, n, input: w.affine(n, input, -1.0, 0.0),
    "mul": _Walker.product,
    "div": _Walker.quotient,
    "cat": lambda w, n, tensors, dim: w.concat(n, tensors, dim),
    "stack": lambda w, n, tensors, dim: w.stack(n, tensors, dim),
    **dict.fromkeys(("slice_scatter", "select_scatter"), _Walker.written),
    "copy": _Walker.copied_over,
    "fill": _Walker.filled,
    "zero": lambda w, n, input: w.filled(n, input, 0),
    **dict.fromkeys(("max_pool1d", "max_pool2d"), _Walker.max_pool),
    "avg_pool1d": lambda w, n, **a: w.avg_pool(n, **a, divisor_override=None),
    "avg_pool2d": _Walker.avg_pool,
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), _Walker.adaptive_average),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d"), _Walker.adaptive_max),
    "amax": _Walker.largest_over,
    "mean": lambda w, n, input, dim=None, keepdim=False, dtype=None: w.mean_over(
        n, input, dim, keepdim
    ),
}
