"""Whether a float graph is the function of the module it was made of, and where it is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fskernel.errors import ConversionError
from fskernel.fx_trace import first_line
from fskernel.graph import Graph, Layer

# By how much logits may differ, relative to their spread between pictures. The second number is
# what rounding alone may do, relative to the largest logit: it decides where there is no spread.
TOLERANCE = {torch.float64: (1e-6, 1e-12), torch.float32: (1e-4, 1e-6)}
# Rows and columns tried, in this order, where any size may be given: odd and oblong first, because
# most goes wrong there.
SIZES = ((65, 52), (64, 64), (32, 32), (224, 224), (96, 96), (28, 28), (128, 128), (299, 299))


def compare(
    graph: Graph,
    module: nn.Module,
    pictures: Tensor | None = None,
    input_size: tuple[int, ...] | None = None,
) -> None:
    """Runs a float graph and its module on the same pictures; refuses any difference of the logits.

    On up to four of the pictures that are given and on random ones of their spread and of ten
    times it, so that ceilings are reached.

    Args:
        graph: float64. Its max-pools that became average-pools are replaced in the module, too.
        module: in eval mode, on the CPU, float64; becomes float32 if it does not run so.
        pictures: float [N, C, H, W].
        input_size: (N, C, H, W), if there are none; None: a size that the module accepts.

    Raises:
        ConversionError: naming the first layer that gives what the module does not, or that the
            module gives no numbers, or not twice the same ones.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module, x, expected = _run(module, graph, pictures, input_size)
        finite = torch.isfinite(expected).flatten(1).all(1)
        if not finite[: len(x) - _far(pictures)].all():
            _refuse_not_finite(graph, module, x)
        x, expected = x[finite], expected[finite]
        try:
            got = graph.forward(x.double())
            error = _error(got, expected)
        except RuntimeError as fault:  # of shapes that do not fit each other
            error = first_line(fault)
        if error is not None:
            _refuse(graph, module, x, expected, error)


def _far(pictures: Tensor | None) -> int:
    """How many pictures of each spread are random: one beside several given ones, else two."""
    return 1 if pictures is not None and len(pictures) > 1 else 2


def probes(pictures: Tensor | None, size: tuple[int, ...]) -> Tensor:
    """Pictures to compare on, float64 [n, C, H, W]: given ones, then random ones, the wide last.

    Args:
        pictures: float [N, C, H, W], of which the first four are taken.
        size: (C, H, W) of the random ones.
    """
    given = torch.empty(0, *size) if pictures is None else pictures[:4]
    given = given.to(torch.float64)
    mean, spread = (float(given.mean()), float(given.std())) if given.numel() > 1 else (0.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    n = _far(pictures)
    noise = torch.randn(2 * n, *size, generator=generator, dtype=torch.float64)
    noise[n:] *= 10
    return torch.cat([given, mean + (spread or 1.0) * noise])


def _run(
    module: nn.Module, graph: Graph, pictures: Tensor | None, input_size: tuple[int, ...] | None
) -> tuple[nn.Module, Tensor, Tensor]:
    """The module as it can run, what it ran on, and its logits."""
    if pictures is not None:
        sizes = [tuple(pictures.shape[1:])]
    elif input_size is not None:
        sizes = [tuple(input_size[1:])]
    else:
        sizes = [(_channels(graph), *size) for size in SIZES]
    faults = {}
    for dtype in TOLERANCE:
        module = module.to(dtype)
        for size in sizes:
            x = probes(pictures, size).to(dtype)
            try:
                logits = _call(module, x, graph)
            except Exception as fault:  # whatever the module's own code raises
                faults.setdefault(dtype, fault)
                continue
            if not isinstance(logits, Tensor) or logits.dim() < 1 or len(logits) != len(x):
                given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ConversionError(
                    type(module).__name__,
                    f"for {len(x)} pictures it returns {given}, not logits [{len(x)}, classes]",
                    "Return the logits alone",
                )
            if dtype == torch.float32:
                warnings.warn(
                    f"{type(module).__name__} does not run in float64 "
                    f"({first_line(faults[torch.float64])}), so its conversion was compared with "
                    f"it in float32, to {TOLERANCE[dtype][0]:g} of the spread of the logits",
                    stacklevel=2,
                )
            return module, x, logits
    fault = faults[torch.float32]
    if len(sizes) == 1:
        tried = f"pictures of shape {tuple(x.shape)}"
        cure = "Pass calibration images of the shape the network was trained for, in any number"
    else:
        tried = f"any of {', '.join(f'{h}x{w}' for h, w in SIZES)} pixels"
        cure = "Pass calibration images or input_size=(N, C, H, W)"
    raise ConversionError(
        type(module).__name__, f"it does not run on {tried} ({first_line(fault)})", cure
    ) from fault


def _channels(graph: Graph) -> int:
    """Channels of the pictures that a graph reads."""
    same = {graph.layers[0].name}
    for layer in graph.layers:
        if layer.source in same:
            same.add(layer.name)
        for group in layer.groups:
            if group.source in same:
                return group.weight.shape[1] * group.geometry.groups
    raise AssertionError("a graph has a layer that reads the picture")


def _call(
    module: nn.Module, x: Tensor, graph: Graph, seen: Callable[[str, Tensor], None] | None = None
) -> Tensor:
    with _Operations(bool(graph.averaged), seen):
        return module(x.clone())  # it may write to its input


class _Operations(TorchDispatchMode):
    """Sees what a module really does; may put average-pools in place of its max-pools.

    Args:
        average: whether it does that.
        seen: is told the name of every operation and what it gave.
    """

    def __init__(self, average: bool, seen: Callable[[str, Tensor], None] | None):
        super().__init__()
        self.average, self.seen = average, seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if self.average and name in ("max_pool2d", "max_pool2d_with_indices"):
            y = _averaged(*args, **(kwargs or {}))
            result = y if name == "max_pool2d" else (y, torch.empty(0, dtype=torch.int64))
        else:
            result = func(*args, **(kwargs or {}))
        if self.seen is not None:
            for y in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(y, Tensor) and y.is_floating_point():
                    self.seen(name, y)
        return result


def _averaged(x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False) -> Tensor:
    return torch.ops.aten.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, True)


def _error(got: Tensor, expected: Tensor) -> float | str | None:
    """How far logits are from what is expected, relative to their spread; None: close enough."""
    if got.shape != expected.shape:
        return f"{list(got.shape)} in place of {list(expected.shape)}"
    if not got.numel():
        return None
    relative, rounding = TOLERANCE[expected.dtype]
    expected = expected.double()
    spread = float((expected - expected.mean(0)).square().mean().sqrt())
    error = float((got - expected).abs().max())
    if error <= relative * spread + rounding * float(expected.abs().max()):
        return None
    return error / spread if spread else float("inf")


def _refuse_not_finite(graph: Graph, module: nn.Module, x: Tensor) -> None:
    """Names the first layer that gives what is no number."""
    found: list[str] = []

    def look(layer: Layer, y: Tensor) -> None:
        if not torch.isfinite(y).all():
            found.append(layer.name)

    try:
        graph.forward(x.double(), observe=look)
    except RuntimeError:
        pass
    raise ConversionError(
        found[0] if found else type(module).__name__,
        "it gives NaN or infinite values on pictures like those it is for",
        "Repair the weights (a variance of a batch norm?) or the preprocessing",
    )


def _refuse(
    graph: Graph, module: nn.Module, x: Tensor, expected: Tensor, error: float | str
) -> None:
    """Says why the logits differ, as far as it can be known, and in which layer that begins."""
    values = _Fingerprints(x.dtype)
    in_place: dict[str, None] = {}

    def seen(name: str, y: Tensor) -> None:
        values.add(y)
        if name.endswith("_"):
            in_place[name] = None

    again = _call(module, x, graph, seen)
    if again.shape != expected.shape or not torch.equal(again, expected):
        raise ConversionError(
            type(module).__name__,
            "it gives other logits when it is given the same pictures again, in eval mode",
            "Take what is random, and what it remembers of earlier calls, out of forward",
        )
    by = error if isinstance(error, str) else f"{error:.2g} times their spread between pictures"
    cure = "Write that part of forward with operations that give new tensors of their arguments"
    if in_place:
        cure = (
            f"Write that part of forward without in-place operations ({', '.join(in_place)}): "
            "y = relu(x), not relu_(x), and x = x + y, not x += y, where a tensor, a view of it or "
            "another name for it is read again"
        )
    layer = graph[_first_difference(graph, x, values)]
    sources = ", ".join(f"'{name}'" for name in dict.fromkeys(layer.inputs()))
    raise ConversionError(
        layer.name,
        f"as traced it reads {sources} and is the first layer that gives what the module gives "
        f"nowhere, on the same pictures; the logits differ by {by}",
        cure,
    )


def _first_difference(graph: Graph, x: Tensor, values: _Fingerprints) -> str:
    """Name of the first layer whose output is none of a module's values, else of the readout."""
    strange: list[str] = []
    reached = ""

    def look(layer: Layer, y: Tensor) -> None:
        nonlocal reached
        reached = layer.name
        if layer.kind not in ("input", "readout") and y not in values:
            strange.append(layer.name)

    layers = [layer.name for layer in graph.layers]
    try:
        graph.forward(x.double(), observe=look)
    except RuntimeError:  # in the layer behind the last one that was reached
        strange.append(layers[min(layers.index(reached) + 1, len(layers) - 1)])
    return strange[0] if strange else layers[-1]


class _Fingerprints:
    """Tensors [n, ...] that were seen, by a random projection of each picture's values.

    Shapes do not count, only how many values a picture has; tensors that agree but for rounding
    have the same fingerprint.
    """

    def __init__(self, dtype: torch.dtype):
        self.tolerance = TOLERANCE[dtype][0] * 1e-2
        self.directions: dict[int, Tensor] = {}
        self.known: dict[tuple[int, int], list[Tensor]] = {}

    def add(self, y: Tensor) -> None:
        if y.dim() and y.numel():
            self.known.setdefault((len(y), y[0].numel()), []).append(self._of(y))

    def __contains__(self, y: Tensor) -> bool:
        mark = self._of(y)
        near = self.tolerance * y.double().flatten(1).norm(dim=1)
        others = self.known.get((len(y), y[0].numel()), ())
        return any(bool(((mark - other).abs() <= near).all()) for other in others)

    def _of(self, y: Tensor) -> Tensor:
        flat = y.double().reshape(len(y), -1)
        n = flat.shape[1]
        if n not in self.directions:
            generator = torch.Generator().manual_seed(n)
            self.directions[n] = torch.randn(n, generator=generator, dtype=torch.float64)
        return flat @ self.directions[n]
