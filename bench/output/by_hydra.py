"""What Hydra is told beside the schema: folders of our own, and faults as sentences.

conf/ names the resolver `own`, which gives a folder that was not there, and the callbacks, which
claim a folder before Hydra writes into it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

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

    Left alone, Hydra shows all but its own, which are sentences already, as tracebacks.
    """
    asked = "HYDRA_FULL_ERROR" in os.environ
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except CompactHydraException as error:
        if asked:
            raise
        print(error, *([error.__cause__] if error.__cause__ else []), sep="\n", file=sys.stderr)
        sys.exit(1)
