"""What a module does with what its last layers give: softmax, reshapes, upsampling of logits, ...

It has no weights that synapses could be, so torch computes it on floats. It is a list of calls that
is kept with the network, also in its file: data, not code, of operations that compute on tensors
and do nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from fskernel.network.stored.fields import Fields

MOST_CALLS = 10_000
# Operations of torch.ops.aten that a tail may consist of.
ALLOWED = frozenset(
    """_softmax _log_softmax abs add addmm amax amin arange argmax argmin bmm cat ceil celu chunk
    clamp clamp_max clamp_min clip clone contiguous cos cumsum detach div einsum elu eq exp expand
    flatten flip floor floor_divide full full_like ge gelu glu gt hardsigmoid hardswish hardtanh
    index index_select le leaky_relu linalg_vector_norm log log1p log_sigmoid log_softmax logsumexp
    lt masked_fill matmul max maximum mean min minimum mish mm mul narrow ne neg new_full new_ones
    new_zeros ones ones_like permute pixel_shuffle pixel_unshuffle pow prelu prod reciprocal relu
    relu6 remainder repeat repeat_interleave reshape roll round rsqrt rsub scalar_tensor select
    sigmoid sign silu sin softmax softplus split split_with_sizes sqrt square squeeze stack std sub
    sum swapaxes t tanh threshold tile to topk transpose tril triu unbind unflatten unsqueeze
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    _upsample_nearest_exact2d _to_copy _unsafe_view var view view_as where zeros zeros_like pad
    constant_pad_nd linalg_norm norm adaptive_avg_pool2d avg_pool2d max_pool2d sort
    expand_as type_as movedim""".split()
)


def operation(name: str) -> Callable[..., Any]:
    """The operation "softmax.int" of torch.ops.aten.

    Raises:
        ValueError: it is none that a tail may consist of.
    """
    base, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, base, None) if base in ALLOWED else None
    found = getattr(packet, overload or "default", None) if packet is not None else None
    if found is None or not hasattr(found, "_schema") or found._schema.is_mutable:
        raise ValueError(f"{name[:60]!r} is no operation that is done with what a network gives")
    return found


class Tail(nn.Module):
    """Calls of torch on what the heads of a network give, and how the results are put together.

    Arguments are numbers, texts, None, lists of such, or one of {"head": i}, {"call": i} (the
    result of an earlier one), {"constant": i}, {"item": [reference, i]} (of several results),
    {"images": 0} (the number of images), {"dtype": "float32"} and {"inf": 1}.

    Args:
        shapes: of what it takes for each head's output, without the batch; None: as it is.
        calls: (operation, arguments by position, arguments by name).
        constants: tensors; those of floats have the dtype of the heads.
        result: lists, {"tuple": [...]}, {"dict": [[key, ...], ...]} and references.
        names: of what became calls, for the report.

    Raises:
        ValueError: naming the call that is none.
    """

    def __init__(
        self,
        shapes: list[list[int] | None],
        calls: list[tuple[str, list, dict]],
        constants: list[Tensor],
        result: object,
        names: list[str],
    ):
        super().__init__()
        if len(calls) > MOST_CALLS:
            raise ValueError(f"the tail has {len(calls)} calls: at most {MOST_CALLS}")
        self.shapes = [None if s is None else [int(n) for n in s] for s in shapes]
        self.calls = [(str(op), list(args), dict(kwargs)) for op, args, kwargs in calls]
        self._functions = [operation(op) for op, _, _ in self.calls]
        self.result, self.names = result, list(names)
        for i, tensor in enumerate(constants):
            self.register_buffer(f"constant{i}", tensor)
        self._count = len(constants)
        self._check()

    def _check(self) -> None:
        """Refuses references to what there is not."""
        for i, (op, args, kwargs) in enumerate(self.calls):
            self._check_value([args, kwargs], i, f"call {i} ({op})")
        self._check_value(self.result, len(self.calls), "the result")

    def _check_value(self, value: object, before: int, place: str, depth: int = 0) -> None:
        if depth > 50:
            raise ValueError(f"{place} of the tail is nested too deep")
        if isinstance(value, (list, tuple)):
            for v in value:
                self._check_value(v, before, place, depth + 1)
        elif isinstance(value, dict):
            limits = {"call": before, "constant": self._count, "head": len(self.shapes)}
            for key, inner in value.items():
                if key in limits and not (type(inner) is int and 0 <= inner < limits[key]):
                    raise ValueError(f"{place} of the tail refers to {key} {inner!r}")
                self._check_value(inner, before, place, depth + 1)
        elif not isinstance(value, (str, int, float, bool, type(None))):
            raise ValueError(f"{place} of the tail holds a {type(value).__name__}")

    @staticmethod
    def from_fields(fields: Fields, tensors: dict[str, Tensor]) -> Tail:
        """What a file says, by whomever."""
        shapes, calls = fields.take("shapes", list), fields.take("calls", list)
        for shape in shapes:
            right = shape is None or type(shape) is list and all(type(n) is int for n in shape)
            if not right:
                raise ValueError(f"{fields.place}.shapes holds {str(shape)[:60]}: expected shapes")
        for call in calls:
            kinds = [type(part) for part in call] if type(call) is list else []
            if kinds != [str, list, dict]:
                raise ValueError(
                    f"{fields.place}.calls holds {str(call)[:60]}: expected an operation, its "
                    "arguments by position and those by name"
                )
        count, result = fields.take("constants", int), fields.take_any("result")
        names = fields.take_list("names", str)
        fields.end()
        missing = [f"constant{i}" for i in range(count) if f"constant{i}" not in tensors]
        if missing:
            raise ValueError(f"{fields.place}: its tensor '{missing[0]}' is missing")
        constants = [tensors[f"constant{i}"] for i in range(count)]
        return Tail(shapes, calls, constants, result, names)

    @torch.no_grad()
    def forward(self, heads: list[Tensor]) -> object:
        """The module's own result.

        Args:
            heads: what the network's heads give, floats of one dtype, each [N, ...].
        """
        heads = [
            head if shape is None else head.reshape(len(head), *shape)
            for head, shape in zip(heads, self.shapes, strict=True)
        ]
        results: list[Any] = []
        for function, (op, args, kwargs) in zip(self._functions, self.calls, strict=True):
            try:
                given = [self._value(a, heads, results) for a in args]
                named = {k: self._value(v, heads, results) for k, v in kwargs.items()}
                results.append(function(*given, **named))
            except (RuntimeError, TypeError, IndexError) as error:
                raise ValueError(
                    f"what is done with the network's output fails at {op}: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        return self._value(self.result, heads, results)

    def _value(self, value: Any, heads: list[Tensor], results: list) -> Any:
        if isinstance(value, list):
            return [self._value(v, heads, results) for v in value]
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items() if len(value) == 1 else ((None, None),)
        if kind == "head":
            return heads[inner]
        if kind == "call":
            return results[inner]
        if kind == "constant":
            tensor = getattr(self, f"constant{inner}")
            like = heads[0]
            floats = tensor.is_floating_point()
            return tensor.to(like.device, like.dtype if floats else tensor.dtype)
        if kind == "item":
            return self._value(inner[0], heads, results)[inner[1]]
        if kind == "images":
            return len(heads[0])
        if kind == "dtype":
            return heads[0].dtype if inner == "float" else getattr(torch, inner)
        if kind == "inf":
            return math.inf * inner
        if kind == "tuple":
            return tuple(self._value(v, heads, results) for v in inner)
        if kind == "dict":
            return {k: self._value(v, heads, results) for k, v in inner}
        raise ValueError(f"the tail holds {str(value)[:60]}, which means nothing")

    def spec(self) -> dict:
        """What, beside the constants, makes it (JSON)."""
        calls = [[op, args, kwargs] for op, args, kwargs in self.calls]
        return {
            "shapes": self.shapes,
            "calls": calls,
            "constants": self._count,
            "result": self.result,
            "names": self.names,
        }


def numbers(result: object, images: int) -> Tensor:
    """All numbers of what a module gives for so many images, side by side, float64 [N, F]."""
    rows = []
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, Tensor):
            own = leaf.dim() > 0 and len(leaf) == images
            flat = leaf.reshape(images, -1) if own else leaf.reshape(1, -1).expand(images, -1)
            rows.append(flat.double())
    return torch.cat(rows, 1) if rows else torch.zeros(images, 0, dtype=torch.float64)
