"""Figures of shaped and fitted neurons: over K in networks, and what they make of a membrane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from fskernel.activations import Activation
from fskernel.analysis import style
from fskernel.codes.code import Code
from fskernel.codes.fitted import FittedNeuron
from fskernel.codes.shape import table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOK = {"shaped": (style.BLUE, "o"), "fitted": (style.ORANGE, "s")}
# What is drawn of a record: its axis, and the record's value.
PANELS = (
    ("top-1 to the ANN, points", lambda v: 100 * (v["accuracy.fs"] - v["accuracy.ann"])),
    ("logit error", lambda v: v["accuracy.logit_error"]),
    ("spikes a neuron", lambda v: v["fs.spikes_per_neuron"]),
)


@style.styled
def over_K(
    records: Mapping[tuple[str, str, int], dict],
    networks: Mapping[str, str],
    neurons: Mapping[str, str],
) -> Figure:
    """Accuracy, error and spikes over K, a column for each network that was measured.

    Args:
        records: by network, setting and K.
        networks: their titles. neurons: what the neurons of a setting are called.
    """
    shown = [name for name in networks if any(key[0] == name for key in records)]
    figure = style.new(3.4 * len(shown), 6.0)
    axes = figure.subplots(len(PANELS), len(shown), sharex=True, sharey="row", squeeze=False)
    for column, name in enumerate(shown):
        for row, (label, value) in enumerate(PANELS):
            panel = axes[row, column]
            for setting, called in neurons.items():
                steps = [key[2] for key in records if key[:2] == (name, setting)]
                values = [value(records[name, setting, K]) for K in steps]
                color, marker = LOOK[called]
                panel.plot(steps, values, color=color, marker=marker, label=called)
            if column == 0:
                panel.set_ylabel(label)
            if label == "logit error":
                panel.set_yscale("log")
        axes[0, column].set_title(networks[name], loc="left", color=style.INK)
        axes[0, column].axhline(0, color=style.GREY, linestyle=":", linewidth=0.8)
        axes[-1, column].set_xlabel("time steps K")
    axes[0, 0].legend(loc="lower right")
    return figure


@style.styled
def transfer(activation: Activation, shaped: Sequence[int], fitted: Sequence[FittedNeuron]):
    """What neurons make of their membrane, how far they miss the function, and their spikes.

    Args:
        activation: the function.
        shaped: K of shaped neurons, whose words reach over the range of the first fitted one.
        fitted: neurons that were fitted to it.
    """
    low, high = fitted[0].low, fitted[0].high
    x = torch.linspace(low - 0.1 * (high - low), high, 4001, dtype=torch.float64)
    y = activation(x)
    figure = style.new(6.4, 6.4)
    upper, middle, lower = figure.subplots(3, sharex=True, height_ratios=(3, 2, 2))
    upper.plot(x, y, "--", color=style.GREY, label="the function")
    colors = iter((style.BLUE, style.SKY, style.ORANGE, style.PINK, style.GREEN))
    for K in shaped:
        color = next(colors)
        code = Code.shaped(K, min(0.0, float(y.min())), float(y.max()))
        table = table_of(lambda v: activation(v)[None], code, 0.5, max(-low, high))
        u = ((x - table.low) / table.width).clamp(0, table.lines.shape[2] - 1e-6)
        line = table.lines[0].double()[:, u.long()]
        words = (line[0] * u + line[1]).clamp(0, code.x_max).floor()
        given = (words - code.zero) * code.step
        spikes = sum((words.long() >> bit) & 1 for bit in range(K))
        _draw((upper, middle, lower), x, y, given, spikes, color, f"shaped, K={K}")
    for neuron in fitted:
        given, spikes = neuron(x), neuron.spikes(x).sum(0)
        label = f"fitted, K={neuron.K}"
        _draw((upper, middle, lower), x, y, given, spikes, next(colors), label)
    upper.set_ylabel("output")
    middle.set_ylabel("error")
    lower.set(ylabel="spikes", xlabel="membrane potential")
    upper.legend(loc="upper left")
    return figure


def _draw(panels, x, y, given, spikes, color, label) -> None:
    upper, middle, lower = panels
    upper.plot(x, given, color=color, label=label, linewidth=1.0)
    middle.plot(x, given - y, color=color, linewidth=0.6)
    lower.plot(x, spikes, color=color, linewidth=0.6)
