"""Figures of what a network does with an image."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

import fskernel as fs
from fskernel.analysis import plots
from fskernel.files import write_figure

NEURONS = 3_000  # shown in the raster of all layers
DPI = 100


@torch.inference_mode()
def save(net: fs.FSNetwork, x: Tensor, directory: Path) -> list[Path]:
    """Draws what a network does with the first of the images x [N, C, H, W], as PNG files.

    Spikes per layer; a raster of all layers over latency steps, of as many neurons of each as one
    can see; and of the layer with a ReLU that spikes most a raster of all channels in the middle of
    its map, the histogram of its words, and what its neurons make of their membrane.
    """
    stats = net.run(x[:1], record="all")[1]
    plain = [step.name for step in net.steps if step.name in stats.spikes and not step.code.zero]
    name = max(plain, key=lambda layer: int(stats.spikes[layer].sum()))
    spikes, neuron = stats.recorded[name], stats.recorded[name].neuron
    height, width = spikes.shape[2:]
    column = fs.SpikeTensor(spikes.words[:, :, height // 2, width // 2], neuron)
    figures = {
        "spikes_per_layer": plots.spikes_per_layer(stats),
        "raster_layers": plots.latency_raster(
            net, stats, every=max(1, math.ceil(stats.neuron_count / NEURONS))
        ),
        "raster_layer": plots.raster(column),
        "words": plots.word_histogram(spikes),
        "transfer_curve": plots.transfer_curve(neuron.K, neuron.alpha, neuron.rounding),
    }
    figures["raster_layer"].suptitle(f"{name}, all channels in the middle of the map")
    figures["words"].suptitle(name)
    return [write(figure, directory / f"{file}.png") for file, figure in figures.items()]


def write(figure, path: Path) -> Path:
    """Saves a figure; the same data give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(figure, path, dpi=DPI, metadata={"Software": None})
    return path
