"""Which layers of a network can be recorded, and the spikes of one as a tensor."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from torch import Tensor

from fskernel.codes.neuron import FSNeuron
from fskernel.spikes import FittedSpikes, SpikeTensor


def layers_to_record(steps: Sequence, record: str | Iterable[str] | None) -> set[str]:
    """The names of the layers of neurons that `record` asks for, checked.

    Args:
        steps: of the network.
        record: None (no layer), "all" (every layer of neurons), the name of one, or their names.

    Raises:
        TypeError: record holds what is no name.
        ValueError: a layer does not exist, or has no neurons.
    """
    if record is None:
        return set()
    by_name = {step.name: step for step in steps}
    if record == "all":
        return {name for name, step in by_name.items() if step.spiking}
    names = [record] if isinstance(record, str) else record
    if not isinstance(names, Iterable):
        raise TypeError(f'record={record!r}: give names of layers, or "all"')
    chosen = set()
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f'record holds {name!r}: give names of layers, or "all"')
        if name not in by_name:
            raise ValueError(f"record: there is no layer '{name}'; {_others(name, by_name)}")
        if not by_name[name].spiking:
            raise ValueError(f"record: '{name}' {_why_none(by_name[name], by_name)}")
        chosen.add(name)
    return chosen


def recorded(step, words: Tensor) -> SpikeTensor | FittedSpikes:
    """What a layer of neurons emitted.

    Args:
        step: the layer. words: [N, H, W, C], as steps give them; of fitted neurons their trains.

    Returns:
        The words as [N, C, H, W] in the same memory. Words with an offset, of a layer without a
        ReLU, belong to a neuron that starts with alpha more: their values are alpha too large.
    """
    if step.code.kind == "fitted":
        function = step.info.get("activation", "")
        return FittedSpikes(words.permute(0, 3, 1, 2), step.fitted, step.code, function)
    alpha = step.code.step * 2.0**step.code.K
    neuron = FSNeuron(step.code.K, alpha, step.info["rounding"])
    return SpikeTensor(words.permute(0, 3, 1, 2), neuron, check=False)


def _others(name: str, by_name: dict) -> str:
    spiking = [n for n, step in by_name.items() if step.spiking]
    close = difflib.get_close_matches(name, spiking, 3)
    if close:
        return "did you mean " + " or ".join(f"'{n}'" for n in close) + "?"
    return "layers of neurons are " + ", ".join(f"'{n}'" for n in spiking)


def _why_none(step, by_name: dict) -> str:
    """Why a step has no spikes of its own, and what to record instead."""
    if step.code is not None and step.code.of_neurons:
        sources = " or ".join(f"'{n}'" for n in _neurons_behind(step, by_name))
        return f"has no neurons, it only passes spikes on: record {sources}"
    return step.why_no_spikes()


def _neurons_behind(step, by_name: dict) -> list[str]:
    found: list[str] = []
    for name in step.heard:
        source = by_name[name]
        found += [name] if source.spiking else _neurons_behind(source, by_name)
    return list(dict.fromkeys(found))
