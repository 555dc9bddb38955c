"""What a converted network tells of itself: every module in a row of a table, or one screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fskernel import text
from fskernel.network.stats import map_sizes

if TYPE_CHECKING:
    from fskernel.network.network import FSNetwork
    from fskernel.network.plan import Plan

_FEW = 4  # numbers of time steps that are listed one by one
_KINDS = 8  # kinds of folded modules that are listed


@dataclass(frozen=True)
class ReportRow:
    """One step of the network.

    Attributes:
        name, kind: the module it came from and what it is now.
        alpha, K, rounding: of its neurons (None where it has none).
        weight_bits, effective_bits: bits of its integer weights, and those left in its worst
            output channel after the 32-bit bound raised the scale (None without weights).
        neurons: neurons per image (None if the image size is not known).
        gate_ops: of a gate, products per image (None for others, or if the size is not known).
        fused: names of the modules that were folded or fused into it.
        notes: what the user should know.
    """

    name: str
    kind: str
    alpha: float | None = None
    K: int | None = None
    rounding: str | None = None
    weight_bits: int | None = None
    effective_bits: float | None = None
    neurons: int | None = None
    fused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    gate_ops: int | None = None


@dataclass(frozen=True)
class Report:
    """All rows, in execution order; str() is a table.

    input: what the network reads, and of which size. behind: what torch computes behind the layers.
    """

    rows: list[ReportRow] = field(default_factory=list)
    input: str = ""
    behind: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Report({len(self.rows)} rows)"

    def __str__(self) -> str:
        head = (
            "layer",
            "kind",
            "alpha",
            "K",
            "rounding",
            "weights",
            "effective",
            "neurons",
            "fused",
        )
        table = [head]
        for row in self.rows:
            table.append(
                (
                    row.name,
                    row.kind,
                    "" if row.alpha is None else f"{row.alpha:.4g}",
                    "" if row.K is None else str(row.K),
                    row.rounding or "",
                    "" if row.weight_bits is None else f"int{row.weight_bits}",
                    "" if row.effective_bits is None else f"{row.effective_bits:.1f}",
                    "" if row.neurons is None else f"{row.neurons:,}",
                    ", ".join(row.fused),
                )
            )
        lines = text.columns(table)
        total = sum(row.neurons or 0 for row in self.rows)
        if total:
            lines.append(f"{total:,} neurons")
        products = sum(row.gate_ops or 0 for row in self.rows)
        if products:
            lines.append(f"{products:,} products of two maps in gates")
        if self.input:
            lines.append(self.input)
        if self.behind:
            lines.append(f"behind the layers torch computes {', '.join(self.behind)}")
        lines += [f"note: {row.name}: {note}" for row in self.rows for note in row.notes]
        return "\n".join(map(text.plain, lines))


def report_rows(steps: Iterable, input_size: tuple[int, ...] | None) -> list[ReportRow]:
    """One row a step; neurons are filled in where the image size is known."""
    steps = list(steps)
    sizes = map_sizes(steps, *input_size[2:]) if input_size else {}
    rows = []
    for step in steps:
        info = getattr(step, "info", {})
        neurons = None
        if step.spiking and sizes:
            neurons = step.out_channels * sizes[step.name][0] * sizes[step.name][1]
        gate_ops = step.gate_ops(sizes[step.name]) if step.op == "gate" and sizes else None
        rows.append(
            ReportRow(
                step.name,
                step.kind(),
                info.get("alpha"),
                step.code.K if step.spiking else None,
                info.get("rounding"),
                info.get("weight_bits"),
                info.get("effective_bits"),
                neurons,
                step.fused,
                tuple(info.get("notes", ())),
                gate_ops,
            )
        )
    return rows


def report(net: FSNetwork) -> Report:
    """What became of every module of a network."""
    rows = report_rows(net.steps, net.input_size)
    return Report(rows, ": ".join(_input(net)), tuple(net.tail.names) if net.tail else ())


def headline(net: FSNetwork) -> str:
    """A network on one line, for modules that contain it."""
    parts = [f"K={_time_steps(net.steps)}", f"{len(net.steps)} steps"]
    if net.input_size is not None:
        parts.append(f"{net.neurons:,} neurons for {_size(net, net.input_size[2:])}")
    return f"{type(net).__name__}({', '.join(parts)})"


def summary(net: FSNetwork, plan: Plan | None) -> str:
    """A network on one screen: what it is, what it needs, what was folded into it.

    Nothing is run or laid out for it.

    Args:
        plan: the native plan of its steps as they are, if there is one.
    """
    steps = list(net.steps)
    on = _size(net, net.input_size[2:]) if net.input_size else None
    rows = [
        ("layers", _layers(steps)),
        _input(net),
        ("neurons", f"{net.neurons:,} for {on}" if on else "see net.count_neurons"),
        ("alpha", _alphas(steps)),
        *_shaped(steps),
        ("weights", _weights(steps)),
        (
            "time steps",
            f"depth {net.depth}: latency {net.latency_steps:,}, interval {net.interval_steps}",
        ),
        ("memory", _memory(net, plan)),
        ("folded", _folded(net)),
        *_behind(net),
        *_found(net),
        *_noted(steps),
        ("more", "net.report() has every layer, net.run(images) counts spikes"),
    ]
    return text.facts(f"{type(net).__name__}: K={_time_steps(steps)}, on {net.device}", rows)


def _time_steps(steps: Iterable) -> str:
    """K of the layers of neurons; how many have which, where there are few."""
    layers = Counter(step.code.K for step in steps if step.spiking)
    if len(layers) <= 1:
        return str(next(iter(layers), 0))
    if len(layers) > _FEW:
        return f"{min(layers)} to {max(layers)}"
    return " and ".join(f"{K} ({layers[K]}x)" for K in sorted(layers))


def _layers(steps: Sequence) -> str:
    names = {
        "encode": "input",
        "max_pool": "max-pool",
        "sum_pool": "average-pool",
        "mean_pool": "average-pool",
        "concat": "concatenation",
        "map_readout": "readout of every pixel",
        "output": "shown as floats",
    }

    def name(step) -> str:
        if step.op == "conv":
            return "of neurons" if step.spiking else "without a ReLU"
        if step.op == "move":
            return step.kind()
        return names.get(step.op, step.op)

    kinds = Counter(map(name, steps))
    joins = sum(len(step.sources) > 1 for step in steps if step.op == "conv")
    counted = [f"{kind}" if n == 1 else f"{n} {kind}" for kind, n in kinds.most_common()]
    return ", ".join(counted) + (f"; {joins} residual joins" if joins else "")


def _size(net: FSNetwork, size: Sequence[int]) -> str:
    """One input of a size (H, W), as people call it."""
    if net.sizes.rank == 2:
        return "a vector"
    if net.sizes.rank == 3:
        return f"a sequence of {size[1]}"
    return f"an image of {text.size(*size)}"


def _input(net: FSNetwork) -> tuple[str, str]:
    """What the network reads."""
    code, sizes = net.steps[0].code, net.sizes
    reach = f"+-{code.x_max * code.step:.4g}"
    if sizes.rank == 2:
        return "input", f"vectors of {net.in_channels} numbers in {reach}"
    channels = "1 channel" if net.in_channels == 1 else f"{net.in_channels} channels"
    if sizes.rank == 3:
        of = f"of {sizes.fixed[1]} alone" if sizes.fixed else "of any length"
        of += _least(net, lambda rows, columns: f"{columns}")
        return "sequences", f"{channels}, {of}; values in {reach}"
    if sizes.fixed is not None:
        of = f"of {text.size(*sizes.fixed)} alone"
        if net.input_size is None:
            of += ", a default, as no images and no input_size were given"
    else:
        of = "of any size" + _least(net, text.size)
        if net.input_size is not None:
            of += f", calibrated on {text.size(*net.input_size[2:])}"
    return "images", f"{channels}, {of}; pixels in {reach}"


def _least(net: FSNetwork, written: Callable[[int, int], str]) -> str:
    """From which size on, and what else is asked of it."""
    if not net.sizes.conditions:
        return ""
    rows, columns = net.sizes.least(net.input_size[2:] if net.input_size else (512, 512))
    bounds = {f"h >= {rows}", f"w >= {columns}"}
    more = [c for c in net.sizes.conditions if c not in bounds]
    found = f" from {written(rows, columns)} on" if max(rows, columns) > 1 else ""
    return found + (f" (h rows, w columns) with {' and '.join(more)}" if more else "")


def _behind(net: FSNetwork) -> list[tuple[str, str]]:
    """What torch computes behind the layers."""
    if net.tail is None or not net.tail.names:
        return []
    return [("behind them", f"torch computes {', '.join(net.tail.names)}")]


def _alphas(steps: Iterable) -> str:
    infos = [step.info for step in steps if step.spiking]
    alphas = [info["alpha"] for info in infos if "alpha" in info]
    roundings = sorted({info["rounding"] for info in infos if "rounding" in info})
    found = text.span(f"{min(alphas):.4g}", f"{max(alphas):.4g}") if alphas else "not known"
    return f"{found}; rounding {' and '.join(roundings)}" if roundings else found


def _shaped(steps: Iterable) -> list[tuple[str, str]]:
    """Which functions neurons compute in place of a ReLU, and how exact their tables are."""
    infos = [step.info for step in steps if getattr(step, "table", None) is not None]
    rows = []
    if infos:
        found = _named(infos)
        errors = [info["table_error"] for info in infos if "table_error" in info]
        if errors:
            found += f"; at most {max(errors):.2g} last thresholds off"
        rows.append(("functions", found))
    infos = [step.info for step in steps if getattr(step, "fitted", None) is not None]
    if infos:
        found = _named(infos)
        errors = [info["fit_rms"] for info in infos if "fit_rms" in info]
        if errors:
            found += f"; rms of the fits at most {max(errors):.2g}"
        rows.append(("fitted to", found))
    return rows


def _named(infos: Sequence[dict]) -> str:
    """The functions of some layers."""
    names = Counter(info.get("activation", "not known") for info in infos)
    return ", ".join(f"{name} in {_layers_of(n)}" for name, n in names.most_common(_KINDS))


def _layers_of(n: int) -> str:
    return "1 layer" if n == 1 else f"{n} layers"


def _weights(steps: Sequence) -> str:
    """How many there are of which type, and how many of their bits are effective."""
    numbers: Counter[str] = Counter()
    for step in steps:
        for weight in step.weights if step.affine else ():
            numbers[str(weight.dtype).removeprefix("torch.")] += weight.numel()
    found = " and ".join(f"{text.count(n)} {kind}" for kind, n in sorted(numbers.items()))
    bits = [
        (step.info["effective_bits"], step.name)
        for step in steps
        if step.affine and "effective_bits" in step.info
    ]
    if bits:
        least, where = min(bits)
        found += f"; at least {least:.1f} effective bits ({text.shortened(where)})"
    return found


def _memory(net: FSNetwork, plan: Plan | None) -> str:
    found = f"{text.memory(net.weight_bytes)} of weights"
    if not net.gives_logits:
        return found
    if plan is None or net.input_size is None:
        return f"{found}; net.activation_bytes(height, width) of an image"
    try:
        activations = plan.arena_bytes(*net.input_size[2:])
    except (RuntimeError, ValueError, MemoryError):  # a file may name any size of images
        return f"{found}; images of {text.size(*net.input_size[2:])} are too large"
    return f"{found}; {text.memory(activations)} of activations an image in flight"


def _folded(net: FSNetwork) -> str:
    """How many modules became part of others, by kind where the graph is there to tell."""
    number = sum(len(step.fused) for step in net.steps)
    if net.graph is None or not number:
        return f"{number} modules into {len(net.steps)}"
    kinds = net.graph.folded().most_common()
    listed = [f"{n} {kind}" for kind, n in kinds[:_KINDS]]
    left = sum(n for _, n in kinds[_KINDS:])
    return ", ".join([*listed, *([f"{left} of other kinds"] if left else [])])


def _found(net: FSNetwork) -> list[tuple[str, str]]:
    """How `fskernel.search` found its K."""
    search = net.search or {}
    if not {"criterion", "budget", "images"} <= search.keys():
        return []
    within = f"{search['criterion']} within {search['budget']} on {search['images']} images"
    return [("K found by", f"{within} (net.search)")]


def _noted(steps: Iterable) -> list[tuple[str, str]]:
    """The first note of the report, and how many layers have some."""
    notes = [(s.name, s.info["notes"]) for s in steps if s.affine and s.info.get("notes")]
    if not notes:
        return []
    name, (first, *_) = notes[0]
    layers = "1 layer has" if len(notes) == 1 else f"{len(notes)} layers have"
    return [("notes", f"{layers} some in the report; {text.shortened(name)}: {first}")]
