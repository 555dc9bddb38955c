"""The evaluations of a search, kept on disk so that an interrupted search goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fskernel.files import replacing

FORMAT = 1


def key(K: int | dict[str, int]) -> str:
    """A setting as text, the same for equal settings."""
    return json.dumps(K, sort_keys=True)


class Ledger:
    """Measurements by K; with a folder, in a JSON file that is written anew after each of them.

    Args:
        folder: made if it does not exist; None: nothing is kept.
        fingerprint: of what was measured. Each has a file of its own in the folder.

    Raises:
        NotADirectoryError: folder is a file.
        ValueError: the file is damaged, or of another version.
    """

    def __init__(self, folder: str | Path | None, fingerprint: str):
        self.path = Path(folder) / f"search-{fingerprint[:16]}.json" if folder else None
        self.fingerprint = fingerprint
        self.rows: dict[str, dict] = {}
        if self.path is None:
            return
        if self.path.parent.exists() and not self.path.parent.is_dir():
            raise NotADirectoryError(f"folder={str(folder)!r} is a file: give a folder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()

    def get(self, K: int | dict[str, int]) -> dict | None:
        """What was measured with this K."""
        return self.rows.get(key(K))

    def add(self, K: int | dict[str, int], row: dict) -> None:
        """Notes a measurement."""
        self.rows[key(K)] = row
        if self.path is not None:
            text = json.dumps(self.rows)
            whole = {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "evaluations": self.rows,
            }
            with replacing(self.path) as part:
                Path(part).write_text(json.dumps(whole))

    def _load(self) -> None:
        cure = "delete it to measure anew"
        try:
            whole = json.loads(self.path.read_text())
            version, rows = whole["format"], whole["evaluations"]
            text = json.dumps(rows)
            intact = whole["sha256"] == hashlib.sha256(text.encode()).hexdigest()
            same = whole["fingerprint"] == self.fingerprint
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error!r}): {cure}") from error
        if version != FORMAT:
            raise ValueError(
                f"{self.path} has format {version}, this fskernel reads {FORMAT}: {cure}"
            )
        if not (intact and same):
            raise ValueError(f"{self.path} is damaged: its checksum is wrong; {cure}")
        self.rows = rows
