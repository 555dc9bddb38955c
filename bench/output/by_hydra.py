"""What Hydra is told beside the schema, folders of our own; its faults as sentences.

conf/ names the resolver `own`, which gives a folder that was not there, and the callbacks, which
claim a folder before Hydra writes into it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from bench.errors import UserError
from bench.output import interrupt
from bench.output.faults import fail
from bench.output.folders import own

OmegaConf.register_new_resolver("own", own, replace=True)


class OwnSweep(Callback):
    """The folder of a sweep is claimed until the process ends."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Before Hydra has written anything."""
        self._claim(config.hydra.sweep, "hydra.sweep.dir")

    def _claim(self, place: DictConfig, option: str) -> None:
        with interrupt.importing():  # this is what comes first, before the command's own imports
            from bench.output.claims import claim
        # Hydra turns exceptions of callbacks into warnings, but lets the process end.
        try:
            self.lock = claim(Path(place.dir), option, finished=False)
        except (UserError, OSError) as error:
            sys.exit(fail(error, option))


class OwnFolder(OwnSweep):
    """The folder of a run, too."""

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Before Hydra has written anything."""
        self._claim(config.hydra.run, "hydra.run.dir")


def run_by_hydra(main: Callable[[], None]) -> None:
    """Calls what `hydra.main` made, and hands on its exceptions, such as that a disk is full.

    Left alone, Hydra shows them as tracebacks. Its own, of the command line, end the process here.
    """
    asked = "HYDRA_FULL_ERROR" in os.environ
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except CompactHydraException as error:
        if asked:
            raise
        sys.exit(fail(UserError(hydras_words(error)), "hydra.run.dir"))


def hydras_words(error: Exception) -> str:
    """What Hydra says of a command line, in one sentence with the cure where we know one."""
    text = f"{error}\n{error.__cause__}" if error.__cause__ else str(error)
    if found := re.search(r"Could not find '([^/']+)/([^']+)'", text):
        group, option = found.groups()
        options = re.findall(r"^\t(\S+)", text.partition("Config search path")[0], re.MULTILINE)
        inside = sorted((name for name in options if option in name), key=len)
        return f"{group}={option}: no such option{_meant(option, options, inside)}" + (
            f" (there are {', '.join(options)})" if options else ""
        )
    if found := re.search(r"Ambiguous value for argument '(([^=]+)=(.*))'", text):
        given, key, values = found.groups()
        return f'{given}: write "{key}=[{values}]" for all at once, or -m for a run of each'
    if found := re.search(r"Could not override '([^']+)'", text):
        parent, dot, last = found[1].rpartition(".")
        fields = _fields(re.search(r"object_type=(\w+)", text))
        return f"{found[1]}: no such key{_meant(last, fields, prefix=parent + dot)}"
    if found := re.search(r"Error merging override (.*)\n(.*)", text):
        return f"{found[1]}: {found[2][:1].lower()}{found[2][1:]}"
    if found := re.search(r"Error parsing override '(.*)'", text):
        return f"""{found[1]}: cannot be read; quote a value with signs, as in 'key="a=b"'"""
    return text


def _meant(given: str, known: list[str], first: Sequence[str] = (), prefix: str = "") -> str:
    close = [*first, *difflib.get_close_matches(given, known, 1)][:1]
    return f"; did you mean {prefix}{close[0]}?" if close and close[0] != given else ""


def _fields(schema: re.Match | None) -> list[str]:
    """The keys of the schema that Hydra names, wherever it stands in those that it was told."""
    left = [
        stored.node
        for stored in ConfigStore.instance().repo.values()
        if not isinstance(stored, dict)
    ]
    while schema and left:
        node = left.pop()
        if OmegaConf.is_dict(node):
            if getattr(OmegaConf.get_type(node), "__name__", "") == schema[1]:
                return list(node)
            left += [node._get_node(key) for key in node]
    return []
