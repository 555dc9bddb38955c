"""The answers of rate coding over its time steps and spikes, with Few Spikes as a point."""

from __future__ import annotations

from typing import Any


def answers_over_time(v: dict[str, Any]):
    """Draws the curve of a record, once over time steps and once over spikes.

    Args:
        v: the values of a record that has rate.curve.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    curve, fs = v["rate.curve"], 100 * v["rate.curve_fs"]
    ends = [[100 * end for end in side] for side in zip(*(row["share_interval"] for row in curve))]
    shares = [100 * row["share"] for row in curve]
    panels = (
        ("time steps until the answer", "T", v["fs.latency_steps"], v["rate.equal_T"]),
        (
            "spikes of an image",
            "spikes_per_image",
            v["fs.spikes_per_image"],
            v["rate.equal_spikes_per_image"],
        ),
    )
    for axes, (title, key, at, equal) in zip(figure.subplots(1, 2, sharey=True), panels):
        values = [row[key] for row in curve]
        axes.fill_between(values, *ends, alpha=0.2, lw=0)
        axes.plot(values, shares, label="rate-coded, 95 % interval")
        axes.plot(at, fs, "o", ms=9, label=f"Few Spikes, K={v['K']}: {at:,.0f}")
        if equal:
            as_good = f"rate-coded, as good from here on: {equal:,.0f}"
            axes.axvline(equal, color="grey", ls=":", label=as_good)
        axes.set_xscale("log")
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
        if axes.get_subplotspec().is_first_col():
            known = v["accuracy.ann"] is not None
            axes.set_ylabel("top-1, %" if known else "same answer as the ANN, %")
    figure.suptitle(f"{v['model']}, {v['rate.images']:,} images")
    return figure
