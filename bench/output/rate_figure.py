"""The answers of rate coding over its time steps and spikes, with Few Spikes as a point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fskernel.analysis import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def answers_over_time(v: dict[str, Any]) -> Figure:
    """Draws the curve of a record, once over time steps and once over spikes.

    Args:
        v: the values of a record that has rate.curve.
    """
    figure = style.new(8.0, 4.4)
    main, fs, known = v["rate.curve"], v["rate.curve_fs"], v["accuracy.ann"] is not None
    further = {name: found["curve"] for name, found in (v["rate.further"] or {}).items()}
    curves = {"rate coding" + f", {v['rate.normalise']} thresholds" * bool(further): main}
    curves |= {f"rate coding, {name} thresholds": curve for name, curve in further.items()}
    panels = (
        ("time steps until the answer", "T", v["fs.latency_steps"], v["rate.equal_T"]),
        (
            "spikes per image",
            "spikes_per_image",
            v["fs.spikes_per_image"],
            v["rate.equal_spikes_per_image"],
        ),
    )
    for axes, (title, key, at, equal) in zip(figure.subplots(1, 2, sharey=True), panels):
        values = [row[key] for curve in curves.values() for row in curve if row[key]]
        for colour, (label, curve) in zip((style.BLUE, style.PINK, style.GREEN), curves.items()):
            draw(axes, label, curve, key, colour)
        ann = v["accuracy.rate_ann"] if known else 1.0
        axes.axhline(ann, color=style.GREY, linewidth=1, label="the ANN")
        axes.plot(at, fs, "o", color=style.ORANGE, ms=8, label=f"Few Spikes, K={v['K']}: {at:,.0f}")
        if equal:
            which = f"{v['rate.normalise']} thresholds are" if further else "rate coding is"
            as_good = f"{which} as good from {equal:,.0f} on"
            axes.axvline(equal, color=style.GREY, linestyle=":", label=as_good)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.03)
        if max(values) < 100 * min(values):  # else their labels would touch
            style.sparse_decades(axes.xaxis)
        style.counts(axes.xaxis)
        style.percents(axes.yaxis)
        axes.set_xlabel(title)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), borderaxespad=0)
    figure.axes[0].set_ylabel("top-1 accuracy" if known else "same answer as the ANN")
    said = f"{v['rate.images']:,} images"
    if main[0]["share_interval"] is not None:
        said += ", 95 % interval"
    style.head(figure, f"{v['model']}: rate coding and Few Spikes", said)
    return figure


def draw(axes: Axes, label: str, curve: list[dict], key: str, colour: str) -> None:
    """One curve, over `key`, with its interval where it has one."""
    curve = [row for row in curve if row[key]]  # no spikes yet: not on a logarithmic axis
    values = [row[key] for row in curve]
    if curve and curve[0]["share_interval"] is not None:
        ends = zip(*(row["share_interval"] for row in curve))
        axes.fill_between(values, *ends, color=colour, alpha=0.2, linewidth=0)
    axes.plot(values, [row["share"] for row in curve], color=colour, label=label)
