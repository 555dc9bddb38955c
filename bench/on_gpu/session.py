"""Where a session keeps its results, and how much time a part has left."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from bench.errors import UserError
from bench.on_gpu.plan import Part
from bench.on_gpu.summary import page
from bench.output.claims import claim
from bench.output.record import plain
from fskernel.files import write_text


class Session:
    """A folder of results that are on the disk as soon as they are there.

    Args:
        folder: made where it is missing, and claimed.
        parts: what will be done, in this order, with limits.
        device: "cuda:0", or "cpu" for a rehearsal.
        model: whose speed is measured.

    Attributes:
        values: everything known, as in results.json: by part, of rows and tests by name.
        cache: a folder for what rows share; gone when the session is closed.

    Raises:
        UserError: the folder is of another session, or cannot be made.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], device: str, model: str):
        self.folder, self.parts, self.device, self.model = folder, list(parts), device, model
        self._lock = claim(folder, "--out")
        if (folder / "results.json").exists():
            self._lock.release()
            raise UserError(
                f"--out: {folder} holds the results of another session: name another folder, or "
                "move that one away"
            )
        self.cache = Path(tempfile.mkdtemp(prefix="fskernel-gpu-"))
        self._begin = monotonic()
        self._end = self._begin + sum(part.seconds for part in self.parts)
        self.values: dict[str, dict | bool | str] = {
            "complete": False,
            "plan": {part.name: part.seconds for part in self.parts},
        }
        self.write()

    @property
    def rehearsal(self) -> bool:
        """Whether there is no GPU in it."""
        return self.device == "cpu"

    def begin(self, name: str | None) -> None:
        """From here on `left` is that of a part, or with None that of the whole session.

        The limits of the parts behind it remain theirs; what the parts before it left over is its.
        """
        behind = 0.0
        if name is not None:
            names = [part.name for part in self.parts]
            behind = sum(part.seconds for part in self.parts[: names.index(name) + 1])
        total = sum(part.seconds for part in self.parts)
        self._end = self._begin + (behind if name is not None else total)

    @property
    def left(self) -> float:
        """Seconds that this part may still take."""
        return self._end - monotonic()

    def keep(self, part: str, value: dict, name: str | None = None) -> None:
        """Adds a result of a part, or of one row or file of it; then it is on the disk."""
        if name is None:
            self.values[part] = value
        else:
            self.values.setdefault(part, {})[name] = value
        self.write()

    def write(self) -> None:
        """Both files anew, each of them whole at any moment."""
        values = plain(self.values)
        text = json.dumps(values, indent=1, allow_nan=False) + "\n"
        write_text(self.folder / "results.json", text)
        write_text(self.folder / "summary.md", page(values))

    def close(self) -> None:
        """Lets go of the folder."""
        shutil.rmtree(self.cache, ignore_errors=True)
        self._lock.release()
