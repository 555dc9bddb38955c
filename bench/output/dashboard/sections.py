"""What stands on the dashboard: its sections, their panels, and the keys that each panel shows."""

from __future__ import annotations

from typing import NamedTuple


class Panel(NamedTuple):
    """One panel.

    Attributes:
        kind: "bars" (one for each run), "line", "table", "images" or "configurations".
        title: above it.
        keys: of what is logged; "configurations" has none.
        axis: the key that a line is drawn over. log: whether that axis is logarithmic.
    """

    kind: str
    title: str
    keys: tuple[str, ...] = ()
    axis: str = ""
    log: bool = False


class Section(NamedTuple):
    """Panels with a title, and how to read them."""

    title: str
    text: str
    panels: tuple[Panel, ...]


SECTIONS = (
    Section(
        "The gate",
        "The speed of a network counts if it keeps at least 99 % of the dense network's top-1 "
        "accuracy (gate/ratio). Without labels, and with random weights, these panels stay empty.",
        (
            Panel("bars", "share of the ANN's accuracy that is kept", ("gate/ratio",)),
            Panel("bars", "top-1 accuracy", ("accuracy/ann", "accuracy/fs")),
            Panel("bars", "same answer as the ANN", ("accuracy/agreement",)),
            Panel(
                "line",
                "accuracy over K (a sweep)",
                ("over_K/accuracy/fs", "over_K/accuracy/ann", "over_K/accuracy/agreement"),
                "over_K/K",
            ),
        ),
    ),
    Section(
        "Speed against rivals",
        "Medians of one process, networks in turn on the same images. The table has the other "
        "runtimes, too, where `make rivals` raced them on the same processor.",
        (
            Panel(
                "bars",
                "milliseconds an image",
                ("milliseconds/dense network (ANN)", "milliseconds/Few Spikes"),
            ),
            Panel("bars", "times as fast as the ANN", ("ratio/fs_to_ann",)),
            Panel("table", "runtimes", ("tables/rivals",)),
            Panel("line", "images/s over K (a sweep)", ("over_K/fs/images_per_s",), "over_K/K"),
        ),
    ),
    Section(
        "Spikes",
        "Spikes an image, over K and beside those of rate coding, whose answers are read after "
        "some of its time steps (baseline.every=8).",
        (
            Panel("bars", "spikes a neuron", ("fs/spikes_per_neuron",)),
            Panel("bars", "spikes an image", ("fs/spikes_per_image", "rate/spikes_per_image")),
            Panel("line", "spikes over K (a sweep)", ("over_K/fs/spikes_per_image",), "over_K/K"),
            Panel(
                "line",
                "rate coding: right answers over T",
                ("rate_coding_percentile/share",),
                "rate_coding_percentile/T",
                log=True,
            ),
            Panel(
                "images",
                "figures",
                ("figures/raster_layers", "figures/spikes_per_layer", "figures/words"),
            ),
        ),
    ),
    Section(
        "Layers",
        "Layers in execution order, from the image to the logits. The error is that of a layer's "
        "values for the first image, relative to the dense network's.",
        (
            Panel("line", "spikes an image", ("layers/spikes_per_image",), "layers/number"),
            Panel("line", "milliseconds of a batch", ("layers/milliseconds",), "layers/number"),
            Panel("line", "error", ("layers/error",), "layers/number"),
            Panel("table", "layers", ("tables/layers",)),
        ),
    ),
    Section(
        "Machine",
        "What the runs differ in: processor, versions, options. Times of different machines say "
        "nothing about each other.",
        (
            Panel("configurations", "what differs"),
            Panel("bars", "usable cores", ("machine/cores_usable",)),
        ),
    ),
)
# Of the table of runs: what stands beside their names.
COLUMNS = (
    *("config:network", "summary:K", "config:kernels", "config:data.kind"),
    *("summary:gate/ratio", "summary:ratio/fs_to_ann", "summary:fs/spikes_per_image"),
    "config:machine.cpu",
)


def keys() -> set[str]:
    """All that the panels show, axes included."""
    panels = [panel for section in SECTIONS for panel in section.panels]
    return {key for p in panels for key in (*p.keys, p.axis) if key}
