"""Risk: nobody finds the test of a room, or tests lean on each other and cannot run alone."""

import ast
import re
from collections import Counter

from bench import ROOT

TESTS = ROOT / "tests"
MOST_FILES, MOST_LINES = 15, 500
FILES = sorted(TESTS.rglob("test_*.py"))
FOLDERS = sorted({path.parent for path in FILES})
# For setup.py, for what concerns the whole repository, and what tests share.
OTHERS = {"csrc/building", "project", "support"}


def room(folder):
    """The folder of sources that a folder of tests is for."""
    name = folder.relative_to(TESTS)
    return next((p for p in (ROOT / name, ROOT / "fskernel" / name) if p.is_dir()), None)


def test_folders_are_named_as_what_they_test_and_can_be_read():
    for folder in [*FOLDERS, TESTS / "support"]:
        name = str(folder.relative_to(TESTS))
        assert room(folder) or name in OTHERS, f"tests/{name}: which files does it test?"
        files = list(folder.glob("*.py"))
        assert len(files) <= MOST_FILES, f"tests/{name}: {len(files)} files"


def test_every_room_has_its_tests():
    rooms = {p.parent for name in ("fskernel", "bench") for p in (ROOT / name).glob("*/*.py")}
    missing = rooms - {room(folder) for folder in FOLDERS}
    # tests/csrc has the one, with what it emulates, and tests/cli the other, with what it starts
    assert missing == {ROOT / "bench" / "emulated", ROOT / "fskernel" / "command"}


def test_names_are_unique():
    """Pytest imports them by their last names; what they share stands in tests/support alone."""
    names = Counter(path.name for path in [*FILES, *(TESTS / "support").glob("*.py")])
    assert [name for name, n in names.items() if n > 1] == []


def test_files_say_their_risk_and_stand_alone():
    for path in FILES:
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), f"{path.name}: what does it cover?"
        assert text.count("\n") <= MOST_LINES, f"{path.name}: more than one risk"
        others = re.findall(r"^\s*(?:from|import) (test_\w+)", text, re.M)
        assert not others, f"{path.name}: what it shares with {others} belongs in tests/support"
