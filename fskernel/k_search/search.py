"""The fewest time steps that keep the ANN's answers: one K for all layers, then K per layer."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path

from torch import Tensor, nn

from fskernel import text
from fskernel.analysis.plots import pareto
from fskernel.codes.neuron import check_K
from fskernel.conversion.convert import convert, spiking_layers
from fskernel.errors import BudgetError
from fskernel.graph import Graph
from fskernel.k_search.evaluate import Evaluator, Images, fingerprint, is_row
from fskernel.k_search.ledger import Ledger, key
from fskernel.network.network import FSNetwork
from fskernel.progress import progress_bar
from fskernel.torch_rules.neutral import neutral
from fskernel.tracing.trace import trace

_log = logging.getLogger(__name__)

CRITERIA = ("agreement", "top1", "logit_error")
COLUMNS = (
    "K",
    "label",
    "agreement",
    "agreement_interval",
    "top1",
    "top1_interval",
    "logit_error",
    "spikes_per_image",
    "latency_steps",
    "interval_steps",
    "images_per_s",
)

Steps = int | dict[str, int]  # K of all layers, or by layer


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        net: the network, ready to run; `net.search` is `summary()`, and is saved with it.
        K: its time steps: one number, or a dict of all its layers of neurons.
        rows: one dict a setting: each uniform K of the range, and the K per layer, if that is less.
            Keys: "K", "label", "agreement" (with the ANN, a proportion of the images), "top1"
            (None without labels), their 95 % Wilson intervals "agreement_interval" and
            "top1_interval", "logit_error" (norm of the logits' difference to the ANN's over the
            norm of the ANN's), "spikes_per_image", "latency_steps", "interval_steps" and
            "images_per_s" (None if not timed).
        criterion, budget: what was searched for.
        images: number of calibration images.
        ann_top1: accuracy of the ANN on them (None without labels).
        evaluations: networks that were measured, those read from `folder` not counted.
    """

    net: FSNetwork
    K: Steps
    rows: list[dict]
    criterion: str
    budget: float
    images: int
    ann_top1: float | None
    evaluations: int

    @property
    def pictures(self) -> int:
        """The former name of `images`; it warns."""
        warnings.warn("SearchResult.pictures is now images", DeprecationWarning, stacklevel=2)
        return self.images

    def __repr__(self) -> str:
        found = next(row["label"] for row in self.rows if row["K"] == self.K)
        return f"SearchResult({found}, {len(self.rows)} rows)"

    def __str__(self) -> str:
        head = ("K", "agreement", "top-1", "logit error", "spikes", "latency", "images/s")
        table = [("", *head)]
        for row in self.rows:
            top1, speed = row["top1"], row["images_per_s"]
            table.append(
                (
                    "->" if row["K"] == self.K else "",
                    row["label"].removeprefix("K="),
                    f"{row['agreement']:.1%}",
                    "-" if top1 is None else f"{top1:.1%}",
                    f"{row['logit_error']:.4f}",
                    text.count(row["spikes_per_image"]),
                    f"{row['latency_steps']:,}",
                    "-" if speed is None else text.count(speed),
                )
            )
        ann = "" if self.ann_top1 is None else f"; the ANN's top-1 is {self.ann_top1:.1%}"
        title = (
            f"SearchResult: {self.criterion} within {self.budget:g} of the ANN on "
            f"{self.images:,} images{ann}"
        )
        more = [("->", "result.K and result.net; result.table() has the intervals, too")]
        return "\n".join([text.facts(title, more), *text.columns(table, right=range(2, 8))])

    def summary(self) -> dict:
        """All but the network, in types that JSON has."""
        names = ("K", "rows", "criterion", "budget", "images", "ann_top1")
        return {name: getattr(self, name) for name in names}

    def table(self) -> str:
        """The rows as a Markdown table; the row that was chosen is bold."""
        head = ("K", "same answer as the ANN", "top-1", "logit error", "spikes/image")
        head = (*head, "latency, steps", "interval, steps", "images/s")
        lines = [_line(head), _line(["---"] * len(head))]
        for row in self.rows:
            speed = row["images_per_s"]
            cells = [
                row["label"],
                _share(row, "agreement"),
                _share(row, "top1"),
                f"{row['logit_error']:.4f}",
                f"{row['spikes_per_image']:,.0f}",
                f"{row['latency_steps']:,}",
                str(row["interval_steps"]),
                "-" if speed is None else f"{speed:,.1f}",
            ]
            if row["K"] == self.K:
                cells = [f"**{cell}**" for cell in cells]
            lines.append(_line(cells))
        ann = "" if self.ann_top1 is None else f"; the ANN's top-1 is {self.ann_top1:.1%}"
        lines += [
            "",
            f"{self.criterion} within {self.budget:g} on {self.images} calibration images{ann}."
            " Intervals are 95 %, Wilson's.",
        ]
        return "\n".join(lines)

    def plot(self, x: str = "spikes_per_image", y: str | None = None, *, title: str | None = None):
        """The rows as a Pareto plot, a matplotlib figure; see `fskernel.plots.pareto`.

        Args:
            x, y: figures of the rows; y None: the criterion, with the budget as a line.
            title: what stands over it in bold print.
        """
        short = [row | {"K": row["label"].split()[0].removeprefix("K=")} for row in self.rows]
        y = y or self.criterion
        limits = {"logit_error": self.budget, "agreement": 1 - self.budget}
        if self.ann_top1 is not None:
            limits["top1"] = self.ann_top1 - self.budget
        facts = f"{self.images:,} calibration images; the line joins what no other row beats"
        limit = limits[y] if y == self.criterion else None
        return pareto(short, x, y, least=limit, title=title, facts=facts)


@neutral()
def search(
    module: nn.Module,
    calibration: Tensor | tuple[Tensor, Tensor] | Iterable,
    budget: float = 0.01,
    *,
    criterion: str = "agreement",
    K_range: tuple[int, int] = (3, 10),
    per_layer: bool = True,
    max_evaluations: int = 100,
    folder: str | Path | None = None,
    timing: bool = True,
    progress: bool = False,
    **options,
) -> SearchResult:
    """Finds the smallest K whose network still answers like the ANN on the calibration images.

    Every K of the range is tried for all layers alike; the smallest within the budget is where the
    search per layer starts. That lowers K of layers (of all that are concatenated, together) by
    one, then by one more, as long as the budget holds and spikes are saved: those first that save
    most spikes for the logit error they cause, measured for each alone. Blocks of layers are
    lowered at once and halved where the budget is left, so a network of n layers takes n
    evaluations to order them and a few times log n to lower them, if most can be lowered.

    The same arguments give the same result. The images chose K, so what they say of it is
    optimistic: judge the result on others.

    Args:
        module: as for `convert`.
        calibration: float images [N, C, H, W], a pair (images, integer labels [N]), or an
            iterable of batches of either, such as a DataLoader without shuffling. It is read about
            twice for every evaluation, one batch at a time; a one-shot iterator is refused.
        budget: what may be lost: of "agreement", the proportion of the images whose largest logit
            may be another than the ANN's; of "top1", by how much the proportion of right answers
            may fall; of "logit_error", the error itself.
        criterion: "agreement" (default), "top1" (needs labels) or "logit_error": the norm of the
            logits' difference to the ANN's over the norm of the ANN's.
        K_range: smallest and largest K, 1..15, also of single layers.
        per_layer: search K of single layers, too.
        max_evaluations: settings that the search per layer may look at. At most half of them order
            the layers: in networks with more layers only those with the most spikes are lowered.
        folder: where evaluations are kept, as JSON, after each of them: the same search, or one
            with another budget, criterion or range, goes on from there, also while others use it.
            Another module, other images or options get a file of their own.
        timing: measure images/s of the rows (not of what the search per layer only tries).
        progress: show a progress bar.
        **options: of `convert`: alpha, rounding, weight_bits, bottleneck, neuron, ...

    Returns:
        The network and the table of what was tried; the network is saved with the table.

    Raises:
        BudgetError: no K of the range is within the budget; says which comes closest.
        ConversionError: as `convert`.
        TypeError, ValueError: a bad argument, before any work; images that differ from one
            reading to the next; a damaged file in `folder`.
        OSError: `folder` cannot be made or written into.
    """
    low, high = _check(budget, criterion, K_range, max_evaluations, options)
    images = Images(calibration)
    if criterion == "top1" and images.labels is None:
        raise ValueError(
            "criterion='top1' needs labels: give calibration as pairs (images, labels), or use "
            "criterion='agreement'"
        )
    first = next(batch for batch, _ in images.batches())
    graph = trace(module, images.size, options.get("neuron") == "paper", first)
    graph.check_logits("the search for the smallest K")
    names = spiking_layers(graph, options.get("bottleneck", "graded"))
    is_ours = partial(is_row, labelled=images.labels is not None, layers=names)
    ledger = Ledger(folder, fingerprint(graph, images, options), is_ours)
    tied = graph.tied()
    groups = list(dict.fromkeys(tied[name] for name in names))
    lab = _Lab(graph, images, options, ledger, names)

    def holds(row: dict) -> bool:
        return _loss(row, criterion) <= budget + 1e-9  # 1 of 100 images is within 0.01

    most = high - low + 1 + per_layer * max_evaluations
    with progress_bar("searching", most, progress) as step:
        rows = {}
        for K in range(high, low - 1, -1):
            step(f"K={K}")
            rows[K] = lab.evaluate(K, timing)
        kept = [K for K in rows if holds(rows[K])]
        if not kept:
            raise _over_budget(rows, criterion, budget, options)
        found: Steps = min(kept)
        if per_layer and groups and found > low:
            found = _PerLayer(lab, groups, low, found, max_evaluations, holds, step).search()
            lab.evaluate(found, timing)
    table = [_public(K, rows[K]) for K in sorted(rows)]
    if isinstance(found, dict):
        table.append(_public(found, lab.evaluate(found)))
    net = lab.convert(found)
    first = rows[high]["ann_top1"]
    result = SearchResult(
        net, found, table, criterion, float(budget), images.count, first, lab.evaluations
    )
    net.search = result.summary()
    return result


class _Lab:
    """Converts and measures, each setting once."""

    def __init__(
        self,
        graph: Graph,
        images: Images,
        options: dict,
        ledger: Ledger,
        names: Sequence[str],
    ):
        self.graph, self.images, self.options, self.ledger = graph, images, options, ledger
        self.names = names
        self.evaluator = Evaluator(images)
        self.evaluations = 0
        self.last: tuple[Steps, FSNetwork] | None = None

    def convert(self, K: Steps) -> FSNetwork:
        if self.last is None or self.last[0] != K:
            self.last = K, convert(self.graph, self.images.source, K=K, **self.options)
        return self.last[1]

    def evaluate(self, K: Steps, timed: bool = False) -> dict:
        row = self.ledger.get(K)
        _log.debug("K=%s: %s", K, "to be measured" if row is None else "known")
        if row is None or (timed and row["images_per_s"] is None):
            net = self.convert(K)
            row = self.evaluator.measure(net)
            if timed:
                row["images_per_s"] = self.evaluator.images_per_s(net)
            self.evaluations += 1
            self.ledger.add(K, row)
            _log.info(
                "%s: agreement %.4f, logit error %.4f, %.0f spikes an image",
                _label(K),
                row["agreement"],
                row["logit_error"],
                row["spikes_per_image"],
            )
        return row


class _PerLayer:
    """Lowers K of single layers from a uniform K that holds, while the budget lasts.

    Args:
        lab: measures.
        groups: names of the layers that share a K, in the order of the network.
        low, start: the smallest K, and the uniform one.
        most: settings that may be looked at.
        holds: whether a row is within the budget.
        step: is told what is done next.
    """

    def __init__(
        self,
        lab: _Lab,
        groups: list[tuple[str, ...]],
        low: int,
        start: int,
        most: int,
        holds: Callable[[dict], bool],
        step: Callable[[str], None],
    ):
        self.lab, self.groups, self.low, self.start = lab, groups, low, start
        self.most, self.holds, self.step = most, holds, step
        self.seen: set[str] = set()
        self.K = [start] * len(groups)  # by group
        self.best = lab.evaluate(start)
        self.frozen: set[int] = set()

    def search(self) -> Steps:
        order = self.order()
        while True:
            before = self.K
            self.lower([g for g in order if g not in self.frozen and self.K[g] > self.low])
            if self.K == before:
                return self.setting(self.K)

    def setting(self, K: list[int]) -> Steps:
        if len(set(K)) == 1:
            return K[0]
        of = {name: steps for group, steps in zip(self.groups, K) for name in group}
        return {name: of[name] for name in self.lab.names}

    def lowered(self, block: list[int]) -> list[int]:
        return [K - (g in block) for g, K in enumerate(self.K)]

    def evaluate(self, K: list[int]) -> dict | None:
        """The row of a setting; None if no more may be looked at."""
        setting = self.setting(K)
        if key(setting) not in self.seen:
            if len(self.seen) == self.most:
                return None
            self.seen.add(key(setting))
        self.step("K per layer")
        return self.lab.evaluate(setting)

    def order(self) -> list[int]:
        """The groups worth lowering: most spikes saved for the logit error caused come first."""
        spikes = [sum(self.best["layer_spikes"][name] for name in group) for group in self.groups]
        busiest = sorted(range(len(spikes)), key=lambda g: (-spikes[g], g))
        found = []
        for g in sorted(busiest[: max(1, self.most // 2)]):
            row = self.evaluate(self.lowered([g]))
            if row is None:
                break
            saved = self.best["spikes_per_image"] - row["spikes_per_image"]
            error = row["logit_error"] - self.best["logit_error"]
            if saved > 0:
                found.append((-saved / max(error, 1e-12), g))
        return [g for _, g in sorted(found)]

    def lower(self, block: list[int]) -> None:
        """Lowers the block by one step, or its halves where the budget does not allow that."""
        row = self.evaluate(self.lowered(block)) if block else None
        if row is None:
            return
        if self.holds(row) and row["spikes_per_image"] < self.best["spikes_per_image"]:
            self.K, self.best = self.lowered(block), row
        elif len(block) == 1:
            self.frozen.update(block)
        else:
            half = len(block) // 2
            self.lower(block[:half])
            self.lower(block[half:])


def _check(budget, criterion, K_range, max_evaluations, options) -> tuple[int, int]:
    """The range of K; refuses arguments that make no sense."""
    if isinstance(budget, bool) or not isinstance(budget, Real):
        raise TypeError(f"budget={budget!r} is not a number: give a proportion, such as 0.01")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion={criterion!r} is unknown: use one of {', '.join(CRITERIA)}")
    if not (
        math.isfinite(budget) and 0 <= budget < (math.inf if criterion == "logit_error" else 1)
    ):
        raise ValueError(
            f"budget={budget!r} is not a proportion: 0.01 allows a loss of 1 % in {criterion}"
        )
    try:
        low, high = K_range
    except (TypeError, ValueError):
        raise TypeError(
            f"K_range={K_range!r} is not a pair: give smallest and largest K, (3, 10)"
        ) from None
    low, high = check_K(low), check_K(high)
    if low > high:
        raise ValueError(f"K_range={K_range!r} is empty: give the smallest K first")
    if isinstance(max_evaluations, bool) or not isinstance(max_evaluations, Integral):
        raise TypeError(f"max_evaluations={max_evaluations!r} is not an integer")
    if max_evaluations < 1:
        raise ValueError(f"max_evaluations={max_evaluations}: give at least 1, or per_layer=False")
    if options.get("neuron") == "fitted":
        raise ValueError(
            "neuron='fitted' is not searched: for every K its neurons would be fitted anew; leave "
            "it out, or convert with some K of yours"
        )
    if "K" in options:
        raise TypeError(f"K={options['K']!r} is what a search finds: K_range bounds it")
    inspect.signature(convert).bind(None, None, **options)  # refuses what convert does not know
    return low, high


def _loss(row: dict, criterion: str) -> float:
    """What a row loses of the criterion, in the units of the budget."""
    if criterion == "agreement":
        return 1 - row["agreement"]
    if criterion == "top1":
        return row["ann_top1"] - row["top1"]
    return row["logit_error"]


def _over_budget(rows: dict[int, dict], criterion: str, budget: float, options: dict):
    """The error that says which K comes closest, and what would help."""
    best = min(rows, key=lambda K: (_loss(rows[K], criterion), rows[K]["logit_error"]))
    loss = _loss(rows[best], criterion)
    cures = [f"allow budget={math.ceil(loss * 1e4) / 1e4:g}"]
    if best == max(rows) < 15:
        cures.append("raise K_range")
    if options.get("weight_bits") == 8 or not {"weight_bits", "neuron"} & set(options):
        cures.append("use weight_bits=16")
    cures.append("choose another alpha (an outlier may have stretched the ranges)")
    return BudgetError(
        f"no K of {min(rows)}..{max(rows)} keeps {criterion} within budget={budget:g}: the best is "
        f"K={best}, which loses {loss:.4g}; {', or '.join(cures)}",
        [_public(K, rows[K]) for K in sorted(rows)],
    )


def _public(K: Steps, row: dict) -> dict:
    """A row of the table."""
    return {name: ({"K": K, "label": _label(K)} | row)[name] for name in COLUMNS}


def _label(K: Steps) -> str:
    if isinstance(K, dict):
        return f"K={min(K.values())}-{max(K.values())} per layer"
    return f"K={K}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(row: dict, name: str) -> str:
    if row[name] is None:
        return "-"
    low, high = row[f"{name}_interval"]
    return f"{100 * row[name]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
