"""Figures of what a network does with an image."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import fskernel as fs
from fskernel.analysis import plots, style

NEURONS = 600  # rows in the raster of all layers: more cannot be told apart
CHANNELS = 48  # rows in the raster of one layer


@dataclass
class Shown:
    """What the figures are of.

    Attributes:
        network: its name.
        image: the name of the image that the network is shown.
        pixels: as a person sees it, float32 [rows, columns, colours], from 0 to 1.
        x: as the network sees it, float32 [1, C, H, W].
    """

    network: str
    image: str
    pixels: Tensor
    x: Tensor


@torch.inference_mode()
def save(
    net: fs.FSNetwork,
    shown: Shown,
    images: int,
    spikes: Mapping[str, int],
    directory: Path,
    ending: str = "png",
) -> list[Path]:
    """Draws what a network does with an image, and how much it spikes for all of them.

    Spikes per layer; a raster of all layers over latency steps, of as many neurons of each as one
    can see; and of the layer with a ReLU that spikes most a raster of channels in the middle of its
    map, the histogram of its words, and what its neurons make of their membrane. Where no layer has
    a ReLU, the last two are left out, and the raster is of any layer.

    Args:
        net: the network, where it runs.
        shown: the image.
        images: how many were evaluated.
        spikes: of each layer, on all of these.
        directory: where the files go; made where it is missing.
        ending: the format, "png", "svg" or "pdf".
    """
    stats = net.run(shown.x.to(net.device), record="all")[1]
    means = fs.RunStats(
        images,
        spikes={name: torch.tensor([spikes[name] / images]) for name in stats.spikes},
        neurons=stats.neurons,
    )
    plain = [
        step.name
        for step in net.steps
        if step.name in stats.spikes and step.code.kind == "words" and not step.code.zero
    ]
    name = max(plain or stats.spikes, key=lambda layer: int(stats.spikes[layer].sum()))
    words, neuron = stats.recorded[name], stats.recorded[name].neuron
    height, width = words.shape[2:]
    column = copy.copy(words)
    column.words = words.words[:, :, height // 2, width // 2]
    title = f"{shown.network}, image {shown.image}"
    layers = plots.latency_raster(
        net, stats, every=max(1, math.ceil(stats.neuron_count / NEURONS)), title=title
    )
    show_image(layers, shown.pixels)
    figures = {
        "spikes_per_layer": plots.spikes_per_layer(means, K=net.K, title=shown.network),
        "raster_layers": layers,
        "raster_layer": plots.raster(
            column,
            every=max(1, math.ceil(column.shape[1] / CHANNELS)),
            title=f"{title}\n{name}, channels in the middle of its map",
        ),
    }
    if plain:
        figures["words"] = plots.word_histogram(words, title=f"{title}\n{name}")
        figures["transfer_curve"] = plots.transfer_curve(
            neuron.K, neuron.alpha, neuron.rounding, title=f"{shown.network}: {name}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    return [style.save(figure, directory / f"{file}.{ending}") for file, figure in figures.items()]


def show_image(figure, pixels: Tensor) -> None:
    """Puts the image into the empty corner below the staircase of layers."""
    inset = figure.axes[0].inset_axes([0.6, 0.05, 0.32, 0.44])
    inset.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1)
    inset.set_axis_off()
    inset.set_anchor("SE")
