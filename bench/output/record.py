"""The record of a run: results.json, complete after every stage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bench.output.claims import claim
from fskernel.files import write_text

WHOLE = ("versions", "machine", "previous", "race")  # kept as dicts


class Record:
    """Flat keys with dots, written to results.json whenever something was added.

    An interrupted run leaves what was finished, with "complete": false; another run may replace it.

    Args:
        directory: made where it is missing; until `close` nobody else writes a record into it.
        option: the setting that names it, for messages.
        replace: a finished record, too.

    Raises:
        UserError: another record is written there, a finished one is there, or none can be made.
    """

    def __init__(self, directory: Path, option: str = "hydra.run.dir", replace: bool = False):
        self.path = directory / "results.json"
        self.values: dict[str, Any] = {"complete": False, "notes": []}
        self._lock = claim(directory, option, "results.lock", finished=replace)
        self._write()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more will be added."""
        self._lock.release()

    def add(self, **groups: Any) -> None:
        """Adds values; a dict becomes keys with dots, so fs={"isa": "avx2"} is stored as fs.isa."""
        for name, value in groups.items():
            if isinstance(value, dict) and name not in WHOLE:
                self.values.update({f"{name}.{key}": plain(v) for key, v in value.items()})
            else:
                self.values[name] = plain(value)
        self._write()

    def note(self, sentence: str) -> None:
        """A sentence the reader of the table must know."""
        self.values["notes"].append(sentence)
        self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps(self.values, indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Numbers, texts, lists and dicts as JSON has them; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
