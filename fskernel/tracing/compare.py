"""Whether a float graph is the function of the module it was made of, and where it is not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fskernel.errors import ConversionError
from fskernel.graph import Graph, Layer
from fskernel.image_sizes import holds, simplified
from fskernel.tail import numbers
from fskernel.tracing.module.given_module import first_line

# By how much logits may differ, relative to their spread between images. The second number is
# what rounding alone may do, relative to the largest logit: it decides where there is no spread.
TOLERANCE = {torch.float64: (1e-6, 1e-12), torch.float32: (1e-4, 1e-6)}
# Modules that amplify rounding (a sigmoid of numbers in the thousands, over and over) give other
# logits where anything is rounded otherwise. By how many times what a rounding of an image does to
# them: that is some 1e-16 of other modules' logits, and 1e-12 is still far less than what is wrong.
AMPLIFIED = 1e4
# Rows and columns of random images, tried in this order, where any size may be given and theirs
# is not known or costs more: odd and oblong first, because most goes wrong there.
SIZES = ((65, 52), (64, 64), (32, 32), (224, 224), (96, 96), (28, 28), (128, 128), (299, 299))
SMALL = 96  # rows and columns from which on conditions are tried on smaller images
LARGE = 128 * 128  # pixels of an image beyond which the comparison is kept to fewer


def compare(
    graph: Graph,
    module: nn.Module,
    images: Tensor | None = None,
    input_size: tuple[int, ...] | None = None,
) -> None:
    """Runs a float graph and its module on the same images; refuses any difference of the logits.

    On the first four of the images that are given (two, if they are large) and on random ones of
    their spread and of ten times it, so that ceilings are reached. Those are of their size, or of a
    small one that the module accepts where the graph is for all sizes and theirs is large.

    Args:
        graph: float64. Its max-pools that became average-pools are replaced in the module, too.
        module: in eval mode, on the CPU, float64; becomes float32 if it does not run so.
        images: float [N, C, H, W].
        input_size: (N, C, H, W), if there are none; None: a size that the module accepts.

    Raises:
        ConversionError: naming the first layer that gives what the module does not, or that the
            module gives no numbers, or not twice the same ones.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        runs = _runs(module, graph, images, input_size)
        finite = [torch.isfinite(run.logits).flatten(1).all(1) for run in runs]
        for run, fine in zip(runs, finite, strict=True):
            if not fine[: run.expected].all():
                _refuse_not_finite(graph, module, run.x)
        runs = [_Run(r.x[ok], r.logits[ok], 0) for r, ok in zip(runs, finite, strict=True)]
        try:
            got = [_answer(graph, run) for run in runs]
            error = _error(got, runs)
            if isinstance(error, float):
                error = _error(got, runs, [_moved(graph, module, run) for run in runs])
        except (RuntimeError, ValueError) as fault:  # of shapes that do not fit each other
            error = first_line(fault)
        if error is not None:
            _refuse(graph, module, runs, error)


def for_all_sizes(graph: Graph, module: nn.Module) -> tuple[str, ...]:
    """Of a graph's conditions on the size of images, those that make a difference.

    torch.export sees the same module under these conditions. Most of them are its own rules about
    maps of one row or pixel ("h // 32 != 1"), without which the graph is right all the same. What
    the largest sizes show that do not meet them decides.

    Args:
        module: as of `compare`.
    """
    size = (1, *graph.example)[-2:]
    small = (min(size[0], SMALL), min(size[1], SMALL))
    start = small if all(holds(c, *small) for c in graph.conditions) else size
    same: dict[tuple[int, int], bool] = {}
    kept = []
    for condition in graph.conditions:
        found = _violations(condition, start)
        for at in found:
            if at not in same:
                same[at] = _same(replace(graph, conditions=()), module, at)
        if not found or not all(same[at] for at in found):
            kept.append(condition)
    return simplified(tuple(kept), size)


def _violations(condition: str, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The largest sizes up to this one, with fewer rows, columns or both, that do not meet it."""
    height, width = size
    paths = {
        "h": [(h, width) for h in range(height - 1, 0, -1)],
        "w": [(height, w) for w in range(width - 1, 0, -1)],
    }
    chosen = [path for name, path in paths.items() if name in condition]
    if len(chosen) == 2:
        less = range(1, max(height, width))
        chosen.append([(max(height - n, 1), max(width - n, 1)) for n in less])
    found = [next((at for at in path if not holds(condition, *at)), None) for path in chosen]
    return [at for at in found if at is not None]


def _same(graph: Graph, module: nn.Module, size: tuple[int, int]) -> bool:
    """Whether graph and module agree on images of a size, which the module need not accept."""
    dtype = next((t.dtype for t in module.parameters()), torch.float64)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        x, _ = _random(None, (graph.example[0], *size[4 - graph.rank :]))
        try:
            run = _Run(x.to(dtype), _logits(module, x.to(dtype), graph), 0)
            return _error([_answer(graph, run)], [run]) is None
        except (RuntimeError, ValueError, IndexError):
            return False


class _Run(NamedTuple):
    """Images of one size, what the module gives for them, and how many of them it is made for."""

    x: Tensor
    logits: Tensor
    expected: int


def _random(like: Tensor | None, size: tuple[int, ...]) -> tuple[Tensor, int]:
    """Random images, float64 [2n, C, H, W], and n, how many are of the spread of `like`."""
    mean, spread = 0.0, 1.0
    if like is not None and like.numel() > 1:
        mean, spread = float(like.double().mean()), float(like.double().std()) or 1.0
    n = 1 if like is not None and len(like) > 1 else 2  # there is a spread between two at least
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2 * n, *size, generator=generator, dtype=torch.float64)
    noise[n:] *= 10
    return mean + spread * noise, n


def _runs(
    module: nn.Module, graph: Graph, images: Tensor | None, input_size: tuple[int, ...] | None
) -> list[_Run]:
    """The module on all images, in the first dtype in which it runs."""
    shape = input_size[1:] if images is None and input_size else graph.example
    channels, *pixels = shape if images is None else images.shape[1:]
    large = math.prod(pixels) > LARGE
    sizes = [*(_sizes(graph) if large else ()), tuple(pixels)]
    given = None if images is None else images[: 2 if large else 4]
    faults: dict[torch.dtype, Exception] = {}
    for dtype in TOLERANCE:
        module.to(dtype)
        try:
            runs = []
            if given is not None and len(given):
                x = given.to(dtype)
                runs = [_Run(x, _logits(module, x, graph), len(x))]
            runs.append(_first_run(module, graph, given, channels, sizes, dtype))
        except ConversionError:
            raise
        except Exception as fault:  # whatever the module's own code raises
            faults[dtype] = fault
            continue
        if dtype == torch.float32:
            warnings.warn(
                f"{type(module).__name__} does not run in float64 "
                f"({first_line(faults[torch.float64])}), so its conversion was compared with "
                f"it in float32, to {TOLERANCE[dtype][0]:g} of the spread of the logits",
                stacklevel=7,  # where convert was called
            )
        return runs
    fault = faults[torch.float32]
    raise ConversionError(
        type(module).__name__,
        f"it does not run on several images of shape {(channels, *pixels)} ({first_line(fault)})",
        "Pass calibration images of the shape the network was trained for, in any number",
    ) from fault


def _sizes(graph: Graph) -> list[tuple[int, ...]]:
    """Sizes of random images that cost little, where a graph takes any."""
    if graph.size is not None:
        return []
    found = [size for size in SIZES if all(holds(c, *size) for c in graph.conditions)]
    return found if graph.rank == 4 else [(w,) for _, w in found]


def _first_run(
    module: nn.Module,
    graph: Graph,
    like: Tensor | None,
    channels: int,
    sizes: list[tuple[int, int]],
    dtype: torch.dtype,
) -> _Run:
    """The module on random images of the first size that it accepts."""
    for size in sizes:
        x, n = _random(like, (channels, *size))
        x = x.to(dtype)
        try:
            return _Run(x, _logits(module, x, graph), n)
        except ConversionError:
            raise
        except Exception:  # whatever the module's own code raises
            if size == sizes[-1]:
                raise
    raise AssertionError("there is a size to try")


def _logits(module: nn.Module, x: Tensor, graph: Graph) -> Tensor:
    """All that a module gives for images x, in its dtype, [N, F]."""
    result = _call(module, x, graph)
    return numbers(result, len(x)).to(x.dtype)


def _answer(graph: Graph, run: _Run) -> Tensor:
    """The same of a graph, float64."""
    return numbers(graph.answer(run.x.double()), len(run.x))


def _call(
    module: nn.Module, x: Tensor, graph: Graph, seen: Callable[[Tensor], None] | None = None
) -> Tensor:
    with _Operations(bool(graph.averaged), seen):
        return module(x.clone())  # it may write to its input


class _Operations(TorchDispatchMode):
    """Sees what a module really does; may put average-pools in place of its max-pools.

    Args:
        average: whether it does that.
        seen: is shown what every operation gave.
    """

    def __init__(self, average: bool, seen: Callable[[Tensor], None] | None):
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
                    self.seen(y)
        return result


def _averaged(x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False) -> Tensor:
    return torch.ops.aten.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, True)


def _moved(graph: Graph, module: nn.Module, run: _Run) -> Tensor:
    """How far a rounding of each image moves the module's logits, float64 [N, 1]."""
    generator = torch.Generator().manual_seed(1)
    moved = torch.zeros(len(run.x), 1, dtype=torch.float64)
    if not torch.equal(_logits(module, run.x, graph), run.logits):
        return moved  # it does not repeat itself
    for _ in range(4):
        signs = torch.randint(-1, 2, run.x.shape, generator=generator).to(run.x.dtype)
        x = run.x * (1 + signs * torch.finfo(run.x.dtype).eps)
        change = (_logits(module, x, graph) - run.logits).double().abs()
        moved = torch.maximum(moved, change.flatten(1).amax(1, keepdim=True).nan_to_num(nan=0.0))
    return moved


def _error(
    got: list[Tensor], runs: list[_Run], moved: list[Tensor] | None = None
) -> float | str | None:
    """How far logits are from what is expected, relative to their spread; None: close enough.

    moved: what a rounding of the images does to the module's, where that is known.
    """
    for one, run in zip(got, runs, strict=True):
        if one.shape != run.logits.shape:
            return f"{list(one.shape)} in place of {list(run.logits.shape)}"
    expected = torch.cat([run.logits for run in runs])
    if not expected.numel():
        return None
    relative, rounding = TOLERANCE[expected.dtype]
    expected = expected.double()
    spread = float((expected - expected.mean(0)).square().mean().sqrt())
    errors = (torch.cat(got) - expected).abs()
    allowed = relative * spread + rounding * float(expected.abs().max())
    error = float(errors.max())
    amplified = 0.0 if moved is None else AMPLIFIED * torch.cat(moved)
    if bool((errors <= allowed + amplified).all()):
        return None
    return error / spread if spread else math.inf


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
        "it gives NaN or infinite values on images like those it is for",
        "Repair the weights (a variance of a batch norm?) or the preprocessing",
    )


def _refuse(graph: Graph, module: nn.Module, runs: list[_Run], error: float | str) -> None:
    """Says why the logits differ, as far as it can be known, and in which layer that begins."""
    values = _Fingerprints(runs[0].x.dtype)
    for run in runs:
        again = _call(module, run.x, graph, values.add)
        if again.shape != run.logits.shape or not torch.equal(again, run.logits):
            raise ConversionError(
                type(module).__name__,
                "it gives other logits when it is given the same images again, in eval mode",
                "Take what is random, and what it remembers of earlier calls, out of forward",
            )
    by = error if isinstance(error, str) else f"{error:.2g} times their spread between images"
    layer = graph[_first_difference(graph, runs, values)]
    sources = ", ".join(f"'{name}'" for name in dict.fromkeys(layer.inputs()))
    raise ConversionError(
        layer.name,
        f"as traced it reads {sources} and is the first layer that gives what the module gives "
        f"nowhere, on the same images; the logits differ by {by}",
        "Write that part of forward as torch operations on tensors that it is given or makes: what "
        "Python keeps elsewhere, between calls or behind torch's back, is not seen",
    )


def _first_difference(graph: Graph, runs: list[_Run], values: _Fingerprints) -> str:
    """Name of the first layer whose output is none of a module's values, else of the readout."""
    layers = [layer.name for layer in graph.layers]
    strange: set[str] = set()
    reached = ""

    def look(layer: Layer, y: Tensor) -> None:
        nonlocal reached
        reached = layer.name
        if layer.kind not in ("input", "readout") and y not in values:
            strange.add(layer.name)

    for run in runs:
        try:
            graph.forward(run.x.double(), observe=look)
        except RuntimeError:  # in the layer behind the last one that was reached
            strange.add(layers[min(layers.index(reached) + 1, len(layers) - 1)])
    return next((name for name in layers if name in strange), layers[-1])


class _Fingerprints:
    """Tensors [n, ...] that were seen, by a random projection of each image's values.

    Shapes do not count, only how many values an image has; tensors that agree but for rounding
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
