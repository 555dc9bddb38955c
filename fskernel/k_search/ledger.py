"""The evaluations of a search, kept on disk so that an interrupted search goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from fskernel.files import Lock, write_text

FORMAT = 1


def key(K: int | dict[str, int]) -> str:
    """A setting as text, the same for equal settings."""
    return json.dumps(K, sort_keys=True)


class Ledger:
    """Measurements by K; with a folder, in a JSON file that is written anew after each of them.

    Searches that run at the same time share the file: each adds to what is there then.

    Args:
        folder: made if it does not exist; None: nothing is kept.
        fingerprint: of what was measured. Each has a file of its own in the folder.
        is_row: whether a value out of the file can be a measurement.

    Raises:
        NotADirectoryError: folder is a file.
        OSError: it cannot be made or written into.
        ValueError: the file is damaged, or of another version.
    """

    def __init__(
        self, folder: str | Path | None, fingerprint: str, is_row: Callable[[object], bool]
    ):
        self.path = Path(folder) / f"search-{fingerprint[:16]}.json" if folder else None
        self.fingerprint, self.is_row = fingerprint, is_row
        self.rows: dict[str, dict] = {}
        if self.path is None:
            return
        if self.path.parent.exists() and not self.path.parent.is_dir():
            raise NotADirectoryError(f"folder={str(folder)!r} is a file: give a folder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock():  # a folder that cannot be written into is told before any work
            self.rows = self._read()

    def get(self, K: int | dict[str, int]) -> dict | None:
        """What was measured with this K."""
        return self.rows.get(key(K))

    def add(self, K: int | dict[str, int], row: dict) -> None:
        """Notes a measurement; what it left open, another search may have measured.

        Raises:
            OSError: the file cannot be written.
            ValueError: it was damaged since it was read; it is left as it is.
        """
        self.rows[key(K)] = row
        if self.path is None:
            return
        with self._lock():
            there = self._read()
            known = there.get(key(K), {})
            row = {name: known.get(name) if v is None else v for name, v in row.items()}
            self.rows |= there | {key(K): row}
            whole = {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "sha256": checksum(self.rows),
                "evaluations": self.rows,
            }
            write_text(self.path, json.dumps(whole))

    def _lock(self) -> Lock:
        return Lock(self.path.with_suffix(".lock"), wait=True)

    def _read(self) -> dict[str, dict]:
        """The measurements in the file."""
        cure = "delete it to measure anew"
        try:
            if not os.path.lexists(self.path):
                return {}
            whole = json.loads(self.path.read_text())
            version, rows = whole["format"], whole["evaluations"]
            intact = whole["sha256"] == checksum(rows)
            same = whole["fingerprint"] == self.fingerprint
        except PermissionError:
            raise
        except Exception as error:  # a damaged file raises many types
            raise ValueError(f"{self.path} is damaged ({error!r}): {cure}") from error
        if version != FORMAT:
            raise ValueError(
                f"{self.path} has format {version}, this fskernel reads {FORMAT}: {cure}"
            )
        if not (intact and same):
            raise ValueError(f"{self.path} is damaged: its checksum is wrong; {cure}")
        if not isinstance(rows, dict) or not all(map(self.is_row, rows.values())):
            raise ValueError(f"{self.path} is damaged: it holds what no search measures; {cure}")
        return rows


def checksum(rows: dict) -> str:
    """SHA-256 of measurements."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
