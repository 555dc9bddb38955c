"""Risk: the map in docs/how-it-works.md leads a reader astray, or leaves files out."""

import re
import subprocess
from pathlib import Path

import pytest

from bench import ROOT

SOURCES = {".py", ".cpp", ".cu", ".cuh", ".h", ".inc", ".flags"}
MOST_ROWS = 20


def rows():
    """The patterns of every row."""
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    table = text.split("## Where things are")[1].split("\n\n|")[1].splitlines()[2:]
    return [
        re.findall(r"`([^`]+)`", line.strip("|").split("|")[1])
        for line in table
        if line.startswith("|")
    ]


def sources():
    if not (ROOT / ".git").exists():
        pytest.skip("which files are sources is asked of git, and this is no checkout")
    command = ["git", "ls-files", "fskernel", "csrc", "bench"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(n) for n in names.stdout.splitlines() if Path(n).suffix in SOURCES]


def matches(path, pattern):
    """As a shell would: * stays inside a folder, ** does not."""
    parts = re.split(r"(\*\*|\*)", pattern)
    written = {"*": "[^/]*", "**": ".*"}
    return re.fullmatch("".join(written.get(p) or re.escape(p) for p in parts), str(path))


def test_every_source_file_is_in_exactly_one_row():
    wrong = {}
    for path in sources():
        found = [i for i, row in enumerate(rows()) if any(matches(path, p) for p in row)]
        if len(found) != 1:
            wrong[str(path)] = found
    assert not wrong


def test_every_row_has_files_and_there_are_few():
    names = sources()
    for row in rows():
        for pattern in row:
            assert any(matches(path, pattern) for path in names), f"{pattern} matches no file"
    assert len(rows()) <= MOST_ROWS


def test_files_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = [n for n in re.findall(r"`([a-z_]+/[^`<]+)`", text) if " " not in n]
    missing = [name for name in named if not (ROOT / name).exists()]
    assert len(named) > 20 and not missing
