"""Where results go: a folder of its own for every run, with one writer at a time.

Hydra is told of both parts of it by bench/output/by_hydra.py.
"""

from __future__ import annotations

import functools
import itertools
import os
from pathlib import Path

from bench.errors import UserError

FORMATS = ("png", "svg", "pdf")  # of figures


@functools.cache  # Hydra asks several times for the folder of a process
def own(path: str) -> str:
    """A new folder: the path, or where that exists the first of path-2, path-3, ..."""
    for n in itertools.count(1):
        folder = Path(path if n == 1 else f"{path}-{n}")
        try:
            folder.mkdir(parents=True)
            return str(folder)
        except FileExistsError:
            continue
        except OSError:
            return path  # whoever claims it says why it cannot be made


def ready(folder: Path, option: str) -> None:
    """Makes a folder where it is missing, and looks whether files can be made in it.

    Args:
        folder: the folder.
        option: which setting names it, for the message.

    Raises:
        UserError: it cannot be made or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{option}: {folder} cannot be made ({error.strerror}): name another folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{option}: {folder} cannot be written into: name another folder")
