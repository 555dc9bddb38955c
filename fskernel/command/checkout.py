"""Where this fskernel comes from: its version, and the harness of its repository, if it is here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import typer

PACKAGE = Path(__file__).resolve().parent.parent


def version() -> str:
    """Of fskernel, from its own file: the package is not imported."""
    found: dict[str, str] = {}
    exec((PACKAGE / "_version.py").read_text(encoding="utf-8"), found)
    return found["__version__"]


def become_the_harness(arguments: Sequence[str]) -> NoReturn:
    """Makes this process `python bench/run.py`: its output, signals and exit code are the same.

    Raises:
        typer.Exit: this is no checkout, with the commands that fetch one.
    """
    script = PACKAGE.parent / "bench" / "run.py"
    if not script.is_file():
        print(f"error: {fetching()}", file=sys.stderr)
        raise typer.Exit(2)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(script), *arguments])


def fetching() -> str:
    """That the harness is not installed, and how one gets it."""
    source = repository()
    told = "" if source else "\nADDRESS is that of the repository which this fskernel came from."
    return (
        "fskernel bench needs fskernel's repository, which an installed package does not contain:\n"
        f"  git clone {source or 'ADDRESS'} fskernel && cd fskernel && make setup\n"
        f"  .venv/bin/fskernel bench model=resnet50 K=10{told}"
    )


def repository() -> str | None:
    """The address of the repository, as the installed package's metadata has it."""
    try:
        installed = metadata.distribution("fskernel")
    except metadata.PackageNotFoundError:
        return None
    for line in installed.metadata.get_all("Project-URL") or []:
        name, _, address = line.partition(",")
        if name.strip().lower() in ("repository", "source"):
            return address.strip()
    # What pip notes of an installation from git.
    direct = json.loads(installed.read_text("direct_url.json") or "{}")
    return direct.get("url") if "vcs_info" in direct else None
