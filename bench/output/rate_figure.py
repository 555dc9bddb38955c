"""The answers of rate coding over its time steps and spikes, with Few Spikes as a point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fskernel.analysis import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.styled
def answers_over_time(v: dict[str, Any]) -> Figure:
    """Draws the curve of a record, once over time steps and once over spikes.

    Args:
        v: the values of a record that has rate.curve.
    """
    figure = style.new(8.0, 4.4)
    curve, fs = v["rate.curve"], v["rate.curve_fs"]
    ends = list(zip(*(row["share_interval"] for row in curve)))
    shares = [row["share"] for row in curve]
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
        values = [row[key] for row in curve]
        axes.fill_between(values, *ends, color=style.BLUE, alpha=0.2, linewidth=0)
        axes.plot(values, shares, color=style.BLUE, label="rate coding")
        axes.plot(at, fs, "o", color=style.ORANGE, ms=8, label=f"Few Spikes, K={v['K']}: {at:,.0f}")
        if equal:
            as_good = f"rate coding is as good from {equal:,.0f} on"
            axes.axvline(equal, color=style.GREY, linestyle=":", label=as_good)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.03)
        if values[-1] < 100 * values[0]:  # else their labels would touch
            style.sparse_decades(axes.xaxis)
        style.counts(axes.xaxis)
        style.percents(axes.yaxis)
        axes.set_xlabel(title)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), borderaxespad=0)
    known = v["accuracy.ann"] is not None
    figure.axes[0].set_ylabel("top-1 accuracy" if known else "same answer as the ANN")
    said = f"{v['rate.images']:,} images, 95 % interval"
    style.head(figure, f"{v['model']}: rate coding and Few Spikes", said)
    return figure
