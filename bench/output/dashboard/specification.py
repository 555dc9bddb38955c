"""The sections as a workspace and a report of the package wandb-workspaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.output.dashboard.sections import COLUMNS, SECTIONS, Panel, Section
from bench.output.loggers.wandb_run import logged_in
from fskernel.files import write_text

NAME = "Few Spikes"
OFFLINE = "me"  # the entity in specifications that are not published
WIDTH, HEIGHT = 24, 8  # of a report's row of panels, and of a panel


def packages() -> tuple[Any, Any]:
    """wandb_workspaces.workspaces and wandb_workspaces.reports.v2.

    Raises:
        UserError: they are not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError(
            f"this command needs {error.name or 'wandb-workspaces'}: pip install wandb-workspaces"
        ) from error
    return workspaces, reports


def check_login() -> None:
    """Refuses to publish where nobody is logged in.

    Raises:
        UserError: no key of W&B is there.
    """
    import wandb

    if not logged_in(wandb):
        raise UserError(
            "--publish: you are not logged in to wandb: run `wandb login`, or leave --publish out; "
            "the specifications are files then"
        )


def panel(reports: Any, one: Panel, layout: Any) -> Any:
    """A panel as the package has it."""
    x = one.axis or "Step"
    made = {
        "bars": lambda: reports.BarPlot(title=one.title, metrics=[*one.keys], layout=layout),
        "line": lambda: reports.LinePlot(
            title=one.title, x=x, y=[*one.keys], log_x=one.log, title_x=x, layout=layout
        ),
        "table": lambda: reports.WeavePanelSummaryTable(table_name=one.keys[0], layout=layout),
        "images": lambda: reports.MediaBrowser(
            title=one.title, media_keys=[*one.keys], layout=layout
        ),
        "configurations": lambda: reports.RunComparer(diff_only="split", layout=layout),
    }
    return made[one.kind]()


def panels(reports: Any, section: Section) -> list[Any]:
    """The panels of a section, two in a row."""
    half = WIDTH // 2
    places = [
        reports.Layout(x=i % 2 * half, y=i // 2 * HEIGHT, w=half, h=HEIGHT)
        for i in range(len(section.panels))
    ]
    return [panel(reports, one, place) for one, place in zip(section.panels, places)]


def workspace(project: str, entity: str = OFFLINE) -> Any:
    """The workspace, in which the panels show all runs of the project."""
    workspaces, reports = packages()
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name=one.title, panels=panels(reports, one), is_open=True)
            for one in SECTIONS
        ],
        runset_settings=workspaces.RunsetSettings(pinned_columns=[*COLUMNS]),
    )


def report(project: str, entity: str = OFFLINE) -> Any:
    """The report: the same sections with how to read them."""
    _, reports = packages()
    blocks: list[Any] = [reports.TableOfContents()]
    for one in SECTIONS:
        runs = reports.Runset(name="all runs")  # of the report's own project
        grid = reports.PanelGrid(runsets=[runs], panels=panels(reports, one))
        blocks += [reports.H2(text=one.title), reports.MarkdownBlock(text=one.text), grid]
    return reports.Report(
        project=project,
        entity=entity,
        title=f"{NAME}: {project}",
        description="What `python bench/run.py logger=wandb` measured",
        blocks=blocks,
        width="fluid",
    )


def save(project: str, folder: Path) -> list[Path]:
    """Writes the two specifications as JSON, as they are sent to W&B; the files."""
    found = {
        "workspace.json": workspace(project)._to_model().spec,
        "report.json": report(project)._to_model().spec,
    }
    for name, spec in found.items():
        sent = json.loads(spec.model_dump_json(by_alias=True, exclude_none=True))
        write_text(folder / name, json.dumps(sent, indent=2) + "\n")
    return [folder / name for name in found]


def publish(project: str, entity: str | None) -> list[str]:
    """Saves both at W&B; their addresses.

    Args:
        entity: a user or team; None: that of the login.
    """
    import wandb

    owner = entity or wandb.Api().default_entity
    made = [workspace(project, owner).save(), report(project, owner)]
    made[1].save()
    return [one.url for one in made]
