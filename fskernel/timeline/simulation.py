"""`fskernel.schedule`: a converted network run one time step after the other, images in a row."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import Tensor

from fskernel.errors import ScheduleError
from fskernel.network.network import FSNetwork
from fskernel.network.schedule import ends
from fskernel.network.stats import map_sizes
from fskernel.network.steps import Step
from fskernel.progress import progress_bar
from fskernel.timeline.delay_lines import Held, Line, Tap
from fskernel.timeline.schedule_run import Edge, ScheduleRun
from fskernel.timeline.units import Entry, Firing, Logits, Unit, listens, unit_of
from fskernel.torch_rules.float_environment import in_float_environment


@torch.no_grad()
@in_float_environment
def schedule(
    net: FSNetwork,
    images: Tensor,
    *,
    interval: int | None = None,
    offsets: Mapping[str, int] | None = None,
    delays: Mapping[tuple[str, str], int] | None = None,
    progress: bool = False,
) -> ScheduleRun:
    """Runs a network as the paper's pipeline: every layer in its own K steps, image after image.

    A global clock counts time steps. In each of them a layer that listens receives the spikes which
    the layers in front of it emit, and one that fires compares its membranes with one threshold.
    Delay lines hold back what ends earlier than the rest of what its reader reads, such as the
    identity branch of a residual block. Each layer has one state, so two images cannot be in it.

    It is slow, as every time step is computed by itself: for small networks and few images. The
    result is compared with the network as it runs otherwise, word for word.

    Args:
        net: on the CPU.
        images: float [N, C, H, W], at least one, as for `net`.
        interval: time steps between two images, at least 1. Default: `net.interval_steps`.
        offsets: by names of steps of the network (`net.steps`), how many time steps later (below
            0: earlier) each is placed than the schedule has it; the others stay where they are.
        delays: by pairs of names (source, reader), for how many time steps what the one sends to
            the other is held, in place of what the schedule needs.
        progress: show a bar of the time steps; needs rich.

    Raises:
        ScheduleError: naming the layer, the image and the time step: spikes arrive while their
            reader does not listen to their image, or do not arrive when it does; two images need
            one state; what a layer sent differs from the network's own result.
        TypeError, ValueError: no such images, names or numbers of time steps; fitted neurons, whose
            sums are clipped when all their steps are over.
        NotImplementedError: a step of the network of which it is not known what it does in time.
    """
    x = _checked_images(net, images)
    interval = _steps("interval", net.interval_steps if interval is None else interval, least=1)
    steps = list(net.steps)
    placed = _Placement(steps, x, interval, offsets or {}, delays or {})
    units, lines = placed.units, placed.lines
    held = {tap: Held(interval) for unit in units for tap in unit.taps}
    all_held = Held(interval)
    clock = range(min(u.first for u in units), max(u.last_step for u in units) + 1)
    with progress_bar("running time steps", len(clock), progress) as advance:
        for t in clock:
            for unit in units:
                plane, line = unit.advance(t), lines.get(unit.step.name)
                if line is not None:  # the readout sends nothing
                    line.send(t, plane)
            for tap, bits in held.items():
                bits.add(t, tap.held(t))
            all_held.add(t, sum(line.held(t) for line in lines.values()))
            advance(str(t))
    peaks = {tap: bits.peak for tap, bits in held.items()}
    run = _found(units, interval, peaks, all_held.peak)
    _compare(net, x, run)
    return run


class _Placement:
    """The units of a network in their places in time, with delay lines between them.

    Args:
        steps: of the network. x: its images.
        interval, offsets, delays: as of `schedule`.
    """

    def __init__(
        self,
        steps: list[Step],
        x: Tensor,
        interval: int,
        offsets: Mapping[str, int],
        delays: Mapping[tuple[str, str], int],
    ):
        edges = [(source, step.name) for step in steps for source in step.heard]
        offsets = _checked("offsets", offsets, [step.name for step in steps], None)
        delays = _checked("delays", delays, edges, 0)
        end, sizes = ends(steps), map_sizes(steps, *x.shape[2:])
        self.units: list[Unit] = []
        self.lines: dict[str, Line] = {}
        for step in steps:
            heard = max((end[source] for source in step.heard), default=0)
            taps = []
            for source in step.heard:
                delay = delays.get((source, step.name), heard - end[source])
                taps.append(Tap(source, self.lines[source], delay))
            first = heard - listens(tap.train for tap in taps) + 1 + offsets.get(step.name, 0)
            place = (step, taps, first, len(x), interval, sizes[step.name])
            if not step.sources:
                unit = Entry(*place, x)
            elif step.code is None:
                unit = Logits(*place, slot=end[step.name] - heard)
            else:
                unit = unit_of(*place)
            self.units.append(unit)
            if unit.train is not None:
                self.lines[step.name] = Line(unit.train)


def _found(units: list[Unit], interval: int, peaks: dict[Tap, int], peak_bits: int) -> ScheduleRun:
    neurons = [unit for unit in units if isinstance(unit, Firing)]
    entry, readout = units[0], units[-1]
    entered = entry.windows[0].first
    return ScheduleRun(
        logits=torch.cat(readout.logits),
        words={u.step.name: torch.cat(u.sent) for u in units if u.sent},
        windows={u.step.name: u.windows for u in units},
        spikes={u.step.name: torch.cat(u.spikes) for u in neurons},
        neurons={u.step.name: u.count for u in neurons},
        edges=[
            Edge(tap.source, u.step.name, tap.delay, peaks[tap]) for u in units for tap in u.taps
        ],
        interval_steps=interval,
        latency_steps=readout.windows[0].last - entered,
        complete_steps=readout.complete[0] - entered,
        least_interval=max(w.last - w.first + 1 for u in units for w in u.windows),
        peak_bits=peak_bits,
    )


def _compare(net: FSNetwork, x: Tensor, run: ScheduleRun) -> None:
    """Refuses what differs from the network as it runs layer by layer."""

    def compare(step: Step, inputs: list, y: Tensor, counts: Tensor | None) -> None:
        found = run.logits if step.code is None else run.words[step.name]
        if torch.equal(found, y):
            return
        image = next(i for i in range(len(y)) if not torch.equal(found[i], y[i]))
        wrong = int((found[image] != y[image]).sum())
        raise ScheduleError(
            step.name,
            image,
            run.windows[step.name][image].last,
            f"{wrong} of {y[image].numel()} values differ from those of the network",
        )

    net.execute(x, observe=compare)


def _checked_images(net: FSNetwork, images: Tensor) -> Tensor:
    if not isinstance(net, FSNetwork):
        raise TypeError(f"net is a {type(net).__name__}: give what fskernel.convert returns")
    if net.device.type != "cpu":
        raise ValueError(f"net is on {net.device}: time steps are simulated on the CPU, net.cpu()")
    net.check_words("fskernel.schedule")
    x = net.check_input(images)
    if not len(x):
        raise ValueError("images has no image: give at least one, and two to see them follow")
    return x


def _steps(name: str, value: object, least: int | None) -> int:
    """A number of time steps."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is not an integer: give a number of time steps")
    if least is not None and number < least:
        raise ValueError(f"{name}={number}: give a number of time steps, at least {least}")
    return number


def _checked(name: str, given: Mapping, known: list, least: int | None) -> dict:
    """Numbers of time steps by names that there are."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is a {type(given).__name__}: give a dict of numbers of time steps")
    for key in given:
        if key not in known:
            raise ValueError(
                f"{name} names {key!r}, which is not in the network: it has "
                + ", ".join(repr(k) for k in known)
            )
    return {key: _steps(f"{name}[{key!r}]", steps, least) for key, steps in given.items()}
