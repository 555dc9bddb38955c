"""The two themes of charts, light and dark; the page takes the reader's."""

from __future__ import annotations

from fskernel.analysis import style

# Of text, of lines behind the data, of boxes; then Okabe and Ito's colours, which the colour-blind
# tell apart too, on a dark ground in their lighter tones. The first is that of the dense network,
# and the second that of Few Spikes.
LIGHT = (style.INK, "#E3E3E3", "#FFFFFF", [style.BLUE, style.ORANGE, style.GREEN, style.PINK])
DARK = ("#E6E6E6", "#3A3F47", "#22262C", [style.SKY, "#E69F00", "#2FC99A", style.PINK])
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def themes() -> dict[str, dict]:
    """Templates of plotly by their names."""
    return {"light": template(*LIGHT), "dark": template(*DARK)}


def template(ink: str, grid: str, box: str, colours: list[str]) -> dict:
    """One theme, as plotly's JSON; behind charts is the page."""
    import plotly.graph_objects as go

    axis = {"gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "tickcolor": grid}
    axis |= {"title": {"standoff": 8}}
    layout = {
        "font": {"family": FONT, "size": 13, "color": ink},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "colorway": colours,
        "hoverlabel": {"bgcolor": box, "font": {"color": ink}},
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": ink, "activecolor": colours[0]},
        "xaxis": axis,
        "yaxis": axis,
    }
    whiskers = {"color": ink, "thickness": 1.5}
    data = {"bar": [{"error_x": whiskers}], "scatter": [{"error_y": whiskers}]}
    return go.layout.Template(layout=layout, data=data).to_plotly_json()
