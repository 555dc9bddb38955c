"""What is demanded of every network file, however it came to be.

`fskernel.load` refuses it with a ValueError that names the file, and with nothing else, or the
network that it gives describes itself, and for every batch of images

* plan and oracle give the same bits, logits and spikes (one NaN is as good as another), or
* both refuse: the plan with a ValueError; the oracle with one, or as torch refuses to concatenate
  maps of different sizes.

Only these may happen. Networks that would need more than `LARGEST` for an image are not run.
"""

from __future__ import annotations

import math
import random
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import fskernel as fs
from fskernel import reference
from fskernel.kernels import ops
from fskernel.network.stats import map_sizes

from .seeds import HEIGHT, WIDTH

LARGEST = 20_000_000  # bytes that the plan reserves, and multiplications of the oracle

FINE = ("refused", "ran", "refused to run", "too large")
FAULTS = ("different", "other error", "crashed", "hung")


class Verdict(NamedTuple):
    """What a file came to: one of FINE or FAULTS, and for a fault what it was, in one line."""

    kind: str
    detail: str = ""


class Fault(Exception):
    """A demand that was not met."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.verdict = Verdict(kind, detail)


def judge(path: Path, number: int) -> Verdict:
    """Loads a file and, if it is a network, runs it; what is tried depends on its number."""
    dice = random.Random(f"run {number}")
    ops.set_isa(dice.choice(ops.supported_isas()))
    try:
        return _judged(path, dice)
    except Fault as fault:
        return fault.verdict


def _judged(path: Path, dice: random.Random) -> Verdict:
    try:
        net = fs.load(path)
    except ValueError as error:
        if str(path) not in str(error):
            raise Fault("other error", f"load does not name the file: {_line(error)}") from error
        return Verdict("refused")
    except Exception as error:
        raise Fault("other error", f"load: {_line(error)}") from error
    _describe(net)
    net.plane_bits = dice.choice((0, 0, 0, 1, 2, 4, 8))
    came = Counter(_run(net, x, dice) for x in _images(net, dice))
    if dice.random() < 0.1:
        _keep(net, path.with_suffix(".again"), dice)
    return Verdict(next(kind for kind in ("ran", "refused to run", "too large") if came[kind]))


def _line(error: BaseException) -> str:
    """An error and the line of fskernel it came from, without what is different in each file."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "fuzzing" not in f.filename]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{place}: {str(error)[:200]!r}"


def _describe(net: fs.FSNetwork) -> None:
    """What a network says of itself; only unknown image sizes may leave a question open."""
    try:
        str(net), str(net.report()), net.plan_kernels()
        for fact in ("K", "depth", "latency_steps", "interval_steps", "weight_bytes"):
            getattr(net, fact)
        if net.input_size is not None:
            getattr(net, "neurons")  # noqa: B009
    except Exception as error:
        raise Fault("other error", f"report: {_line(error)}") from error


def _images(net: fs.FSNetwork, dice: random.Random) -> list[Tensor]:
    """One or two small batches, some with numbers that are none; one that most networks take."""
    make = torch.Generator().manual_seed(dice.getrandbits(62))
    sizes = [(HEIGHT, WIDTH)]
    if dice.random() < 0.3:
        sizes.append((dice.randint(0, 12), dice.randint(0, 12)))
    batches = []
    for size in sizes:
        x = torch.randn(dice.randint(1, 3), net.in_channels, *size, generator=make)
        x *= dice.choice((1.0, 1.0, 1.0, 0.01, 100.0))
        if x.numel() and dice.random() < 0.2:
            for odd in (float("nan"), float("inf"), -3e38, 1e-40):
                x.view(-1)[dice.randrange(x.numel())] = odd
        batches.append(x)
    return batches


def _work(net: fs.FSNetwork, height: int, width: int) -> int:
    """What the oracle does for an image, roughly: multiplications and elements of its tensors."""
    sizes, channels = map_sizes(net.steps, height, width), {}
    total = 0
    for step in net.steps:
        rows, cols = sizes[step.name]
        read = [channels[name] for name in step.sources] or [net.in_channels]
        windows = 1
        if step.op == "conv":
            windows += sum(group.weight.numel() for group in step.groups)
        elif step.op in ("max_pool", "sum_pool"):
            windows += math.prod(step.geometry.kernel)
        elif step.op == "mean_pool":
            windows += 5000  # the oracle takes them one by one
        if step.op == "conv":
            channels[step.name] = step.out_channels
        elif step.op == "gate":
            channels[step.name] = read[0]
        elif step.op == "move":
            channels[step.name] = int(read[0] * step.move.channel_factor())
        else:
            picked = sum(count for *_, count in getattr(step, "runs", ()))
            channels[step.name] = picked or sum(read)
        total += rows * cols * (channels[step.name] + windows)
    return total


def _run(net: fs.FSNetwork, x: Tensor, dice: random.Random) -> str:
    planned = refusal = expected = None
    try:
        if net.activation_bytes(*x.shape[2:]) > LARGEST:
            return "too large"
        planned = net(x), *net.count_spikes(x)
    except ValueError as error:
        refusal = error
    except Exception as error:
        raise Fault("other error", f"plan: {_line(error)}") from error
    counts: dict[str, Tensor] = {}

    def observe(step, inputs, y, count):
        if step.spiking:
            counts[step.name] = count

    try:
        if _work(net, *x.shape[2:]) > LARGEST:
            return "too large" if refusal is None else "refused to run"
        expected = net.execute(x, reference.collapsed, observe)
    except Exception as error:
        joins = isinstance(error, RuntimeError) and "Sizes of tensors must match" in str(error)
        if not (isinstance(error, ValueError) or joins):
            raise Fault("other error", f"oracle: {_line(error)}") from error
        if refusal is None:
            raise Fault("different", f"only the oracle refuses: {_line(error)}") from error
        return "refused to run"
    if refusal is not None:
        raise Fault("different", f"only the plan refuses: {_line(refusal)}")
    logits, again, spikes = planned
    if not same(logits, expected) or not same(again, expected):
        raise Fault("different", "logits")
    if list(spikes) != list(counts) or not all(same(spikes[k], counts[k]) for k in counts):
        raise Fault("different", "spikes")
    if dice.random() < 0.1:  # layer by layer
        try:
            logits, stats = net.run(x)
        except Exception as error:
            raise Fault("other error", f"run: {_line(error)}") from error
        if not same(logits, expected) or any(not same(stats.spikes[k], counts[k]) for k in counts):
            raise Fault("different", "run")
    return "ran"


def _keep(net: fs.FSNetwork, path: Path, dice: random.Random) -> None:
    """A network that was loaded can be saved, and is loaded again the same."""
    try:
        path.unlink(missing_ok=True)
        net.save(path)
        again = fs.load(path)
    except Exception as error:
        raise Fault("other error", f"saved again: {_line(error)}") from error
    ours, theirs = dict(net.named_buffers()), dict(again.named_buffers())
    kept = list(ours) == list(theirs) and all(same(ours[k], theirs[k]) for k in ours)
    if not kept or net.get_extra_state() != again.get_extra_state():
        raise Fault("different", "saved again")


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same bits, or NaN at the same places."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    as_bits = torch.int32 if a.element_size() == 4 else torch.int64
    equal = a.view(as_bits) == b.view(as_bits)
    return bool((equal | (a.isnan() & b.isnan())).all())
