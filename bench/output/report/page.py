"""Makes report.html of a run: one file that needs no network, with results.json in it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.output import terminal
from bench.output.report import charts, network_chart, tables
from bench.output.report.leave import NAME
from bench.output.report.themes import themes
from bench.output.report.verdict import against_previous, dates, verdict, when
from bench.output.tables import numbers
from fskernel.files import write_text

if TYPE_CHECKING:
    import jinja2
    import plotly.graph_objects as go

Values = dict[str, Any]
FOLDER = Path(__file__).parent / "templates"


def write(v: Values, directory: Path) -> Path:
    """Writes the report of a run beside its results.

    Args:
        v: the values of a complete record. directory: where its results.json is.
    """
    timed = "ratio.fs_to_ann" in v
    figures: dict[str, go.Figure] = {}
    given: dict[str, Any] = {}
    if timed:
        near, slow = charts.off_the_scale(charts.times(v))
        figures["times"] = charts.bars(near)
        figures["network"] = network_chart.network(v)
        given = {"verdict": verdict(v), "slow": slow, "layers": tables.layers(v)}
        given["sweep"] = tables.sweep(v)
        given |= {"speed": terminal.speed(v), "sizes": terminal.sizes(v)}
        given["measured"] = list(terminal.measured_energy(v)) if v["energy.meter"] else []
        if v["race"]:
            near, slow = charts.off_the_scale(charts.raced(v["race"]))
            figures["race"] = charts.bars(near)
            given["slow_in_race"] = slow
        if v["previous"]:
            given["change"] = against_previous(v)
            given["changes"] = tables.against_previous(v)
            given["then"] = when(**dates(v["previous"]))
    if timed and not v["random_weights"]:
        figures["raster"] = charts.raster(v)
        figures["energy"] = charts.energy(v)
        given["answers"] = [terminal.answers(v), *terminal.fidelity(v)]
        given["energy"] = terminal.energy(v)
        given["leaves_out"] = [(o["title"], o["leaves_out"]) for o in v["energy.estimates"]]
        given["assumptions"] = tables.assumptions(v)
        if v["rate.curve"]:
            figures["answers_over_time"] = charts.answers_over_time(v)
    if "fs.emulated" in v:
        given["emulated"] = tables.emulated(v)
    given |= {"settings": tables.settings(v), "environment": tables.environment(v)}
    given |= {"v": v, "timed": timed}
    return render("run.html.jinja", v, figures, given, directory)


def render(
    template: str, data: Any, figures: dict[str, go.Figure], given: dict[str, Any], directory: Path
) -> Path:
    """Fills a template and writes report.html.

    Args:
        template: its name.
        data: what is embedded as JSON, for other tools.
        figures: by the names that the template gives them.
        given: what else it uses.
        directory: where the file goes.
    """
    from plotly.offline import get_plotlyjs

    drawn = {name: figure.to_plotly_json() for name, figure in figures.items()}
    for figure in drawn.values():
        figure["layout"].pop("template", None)  # the page's themes take its place
    text = (
        templates()
        .get_template(template)
        .render(given, data=data, figures=drawn, themes=themes(), plotly=get_plotlyjs())
    )
    path = directory / NAME
    write_text(path, text)
    return path


@functools.cache
def templates() -> jinja2.Environment:
    """Where they are found. What is put into them is escaped, whatever it is."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {
        "percent": numbers.percent,
        "number": numbers.number,
        "rounded": numbers.rounded,
        "basename": lambda path: Path(path).name,
    }
    return found
