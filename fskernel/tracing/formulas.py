"""Activations that are written as formulas: x * sigmoid(x), x * relu6(x + 3) / 6, and the like.

Where operations, element by element, lead from one value to another and read nothing else but
numbers, they are one scalar function together, however it is spelled. It is looked for where
operations one by one would need what no layer has (an exponential, a product of two values).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from fskernel.activations import FURTHEST, Activation
from fskernel.tracing.module.nodes import Listed, Node

_AFFINE = {"add", "sub", "rsub", "mul", "div", "neg"}
# What has a layer of its own.
_NEURONS = {
    "relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold", "silu", "sigmoid",
    "hardswish", "hardsigmoid", "gelu", "mish", "tanh", "log_sigmoid", "softplus", "softshrink",
    "hardshrink", "elu", "celu", "selu", "leaky_relu",
}  # fmt: skip
_RELUS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"}
# What has none.
_STRANGE = {
    "abs", "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "square", "pow", "sin",
    "cos", "sinh", "cosh", "asinh", "atan", "erf", "erfc", "reciprocal", "sign", "sgn", "where",
    "gt", "ge", "lt", "le", "maximum", "minimum", "logical_and", "logical_or", "logical_not",
    "eq", "ne", "masked_fill", "softsign", "heaviside", "logaddexp", "zeros_like", "ones_like",
    "full_like",
}  # fmt: skip
_ELEMENTWISE = _AFFINE | _NEURONS | _STRANGE
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "gt": ">", "ge": ">=", "lt": "<",
    "le": "<=",
}  # fmt: skip
# Functions that have a name, whatever their spelling.
_NAMED = (
    "relu", "silu", "hardswish", "gelu", "gelu_tanh", "mish", "sigmoid", "hardsigmoid", "tanh",
    "softsign", "softplus", "log_sigmoid", "selu", "elu", "tanhshrink",
)  # fmt: skip
_SAME = 1e-9  # constants are written with so many digits: sqrt(2 / pi) = 0.7978845608
_NEAR = 1e-6  # or are float32: what they make is that function by name alone


@dataclass(frozen=True)
class _Value:
    """What a call gives, by its number; 0 is what the formula is of."""

    number: int


@dataclass(frozen=True)
class Formula:
    """A scalar function as calls of torch.ops.aten.

    calls: of each the operator's name ("mul.Tensor") and its arguments by position and by name:
        numbers, texts, None and values.
    """

    calls: tuple[tuple[str, tuple, tuple[tuple[str, object], ...]], ...]

    def __call__(self, x: Tensor) -> Tensor:
        values = [x]
        for name, args, kwargs in self.calls:
            base, _, overload = name.partition(".")
            operator = getattr(getattr(torch.ops.aten, base), overload or "default")
            given = [values[a.number] if isinstance(a, _Value) else a for a in args]
            named = {k: values[a.number] if isinstance(a, _Value) else a for k, a in kwargs}
            values.append(operator(*given, **named))
        return values[-1]

    def __str__(self) -> str:
        texts = ["x"]
        for name, args, _ in self.calls:
            shown = [texts[a.number] if isinstance(a, _Value) else _short(a) for a in args]
            op = name.partition(".")[0]
            if op in _INFIX and len(shown) >= 2:
                texts.append(f"({shown[0]} {_INFIX[op]} {shown[1]})")
            else:
                texts.append(f"{op}({', '.join(shown)})")
        text = texts[-1]
        return text[1:-1] if text.startswith("(") else text


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_formulas(found: Listed, torchs: set[Node]) -> None:
    """Puts one node "formula" in the place of the operations that make up a scalar function.

    Args:
        found: is changed; nodes that nothing depends on any more are taken out.
        torchs: nodes that torch computes, behind the layers; they stay what they are.
    """
    readers: dict[Node, set[Node]] = {}
    for node in found.nodes:
        for source in node.inputs():
            readers.setdefault(source, set()).add(node)
    order = {node: i for i, node in enumerate(found.nodes)}
    results = {node for node in found.outputs if isinstance(node, Node)}
    inside: set[Node] = set()
    for node in reversed(found.nodes):
        if node in inside or node in torchs or not _is_elementwise(node):
            continue
        region = _region(node, order, readers, results)
        if region is None:
            continue
        source, calls = region
        activation = _activation(source, calls)
        if activation is not None:
            inside.update(calls)
            node.op, node.arguments = "formula", {"input": source, "activation": activation}
    live = _live(found)
    found.nodes = [node for node in found.nodes if node in live]


def _live(found: Listed) -> set[Node]:
    waiting = [node for node in found.outputs if isinstance(node, Node)]
    live = {node for node in found.nodes if node.op == "input"}
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting += node.inputs()
    return live


def _is_elementwise(node: Node) -> bool:
    """Whether it computes, element by element, with values of one shape and numbers."""
    if node.op not in _ELEMENTWISE or not node.inputs():
        return False
    for value in node.arguments.values():
        if isinstance(value, Node) and value.shape != node.shape:
            return False
        if isinstance(value, Tensor) and value.numel() != 1:
            return False
        if isinstance(value, (list, tuple)):
            return False
    return node.arguments.get("rounding_mode") is None


def _region(
    last: Node, order: dict[Node, int], readers: dict[Node, set[Node]], results: set[Node]
) -> tuple[Node, list[Node]] | None:
    """The value that a node is a function of, and the operations between, in their order.

    None: there is none, or no need to have them as one.
    """
    found, inner = None, [last]
    for source, between in _funnels(last, order):
        inner += between
        if _is_hard(inner) or _is_hardsigmoid(source, inner, order):
            found = source, list(inner)
        # Beyond what others read, too, layers are needed anyhow.
        if not _is_elementwise(source) or source in results or readers[source] - set(inner):
            break
        inner.append(source)
    if found is None:
        return None
    source, nodes = found
    return source, sorted(set(nodes), key=order.__getitem__)


def _funnels(last: Node, order: dict[Node, int]) -> Iterator[tuple[Node, list[Node]]]:
    """The values, one after the other, through which all that leads to a node goes.

    With each the operations between it and the one before, the two aside.
    """
    at = last
    while _is_elementwise(at):
        frontier, between = set(at.inputs()), []
        while len(frontier) > 1:
            latest = max(frontier, key=order.__getitem__)
            if not _is_elementwise(latest):
                return
            frontier.remove(latest)
            frontier.update(latest.inputs())
            between.append(latest)
        (at,) = frontier
        yield at, between


def _is_hard(nodes: list[Node]) -> bool:
    """Whether operations, each as a layer, would need what no layer has or more layers than one.

    Sums and differences of ReLUs are left to synapses, as they may be residual connections.
    """
    joins = [node for node in nodes if _joins(node)]
    shaped = any(node.op in _NEURONS - _RELUS for node in nodes)
    return (
        any(node.op in _STRANGE for node in nodes)
        or any(node.op in ("mul", "div") for node in joins)
        or bool(joins and shaped)
    )


def _is_hardsigmoid(source: Node, nodes: list[Node], order: dict[Node, int]) -> bool:
    """Whether it is relu6(x + 3) / 6, which is a ReLU with a ceiling, but for what is behind it."""
    if len(nodes) > 4 or nodes[0].op not in _AFFINE or not any(n.op in _RELUS for n in nodes):
        return False
    made = _activation(source, sorted(nodes, key=order.__getitem__))
    return made == Activation("hardsigmoid")


def _joins(node: Node) -> bool:
    return sum(isinstance(value, Node) for value in node.arguments.values()) > 1


def _activation(source: Node, nodes: list[Node]) -> Activation | None:
    """The function of nodes that follow each other; None if it is not finite everywhere."""
    numbers = {source: 0}
    calls = []
    for node in nodes:
        args, kwargs = [], []
        for argument, value in zip(
            node.target._schema.arguments, node.arguments.values(), strict=True
        ):
            if isinstance(value, Node):
                value = _Value(numbers[value])
            elif isinstance(value, Tensor):
                value = value.item()
            if argument.kwarg_only:
                kwargs.append((argument.name, value))
            else:
                args.append(value)
        base = node.target._schema.name.split("::")[-1]
        base = base.removesuffix("_") if node.target._schema.is_mutable else base
        calls.append((f"{base}.{node.target._overloadname}", tuple(args), tuple(kwargs)))
        numbers[node] = len(calls)
    formula = Formula(tuple(calls))
    x = _samples()
    try:
        y = formula(x)
    except (RuntimeError, AttributeError, TypeError):  # of tensors that are no floats
        return None
    if y.dtype != x.dtype or y.shape != x.shape or not torch.isfinite(y).all():
        return None
    if bool((y == y[0]).all()):  # one number
        return None
    one, minus_one = (float(formula(x.new_tensor([n]))) for n in (1.0, -1.0))
    guesses: list[tuple[str, tuple[float, ...]]] = [(name, ()) for name in _NAMED]
    if minus_one < 0:
        guesses.append(("leaky_relu", (-minus_one,)))
    if 0 < one < 1:
        guesses.append(("swish", (math.log(one / (1 - one)),)))
    shown = str(formula)
    for name, numbers in guesses:
        named = Activation(name, numbers)
        if _agree(y, named(x), x, _SAME):
            return named
        if _agree(y, named(x), x, _NEAR):
            shown = named.text()
    made = Activation(shown, function=formula)
    return None if _has_pole(made, y) else made


def _has_pole(activation: Activation, seen: Tensor) -> bool:
    """Whether a function goes beyond all numbers between two at which it was looked at."""
    most = 1e3 * float(seen.abs().amax().clamp(min=1.0))
    bounds = (activation.low, activation.high)
    return any(math.isfinite(bound) and abs(bound) > most for bound in bounds)


def _agree(a: Tensor, b: Tensor, x: Tensor, most: float) -> bool:
    """Whether functions agree that give a and b for x."""
    return bool(((a - b).abs() <= most * x.abs().clamp(min=1.0)).all())


@cache
def _samples() -> Tensor:
    near = torch.arange(-4000, 4001, dtype=torch.float64) / 100
    return torch.cat([near, near.new_tensor([-FURTHEST, -1e3, -100, 100, 1e3, FURTHEST])])
