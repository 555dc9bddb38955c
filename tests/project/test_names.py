"""Risk: a file is named by what it is not, or by the words of another in another order."""

from bench import ROOT

SUFFIXES = {".py", ".h", ".cuh", ".cpp", ".cu", ".inc", ".yaml", ".md"}
FOLDERS = ("bench", "conf", "csrc", "docs", "fskernel", "tests")


def files():
    return [p for name in FOLDERS for p in (ROOT / name).rglob("*") if p.suffix in SUFFIXES]


def words(path):
    return path.stem.removeprefix("test_").split("_")


def faults(paths):
    """Names by negation, and groups of names that are permutations of each other."""
    same = {}
    for path in paths:
        same.setdefault(tuple(sorted(words(path))), set()).add("_".join(words(path)))
    return [p.name for p in paths if {"other", "others", "misc", "non", "not"} & {*words(p)}], [
        sorted(names) for names in same.values() if len(names) > 1
    ]


def test_names_say_what_a_file_holds():
    assert faults(files()) == ([], [])


def test_negations_and_permutations_are_found():
    planted = [
        ROOT / name for name in ("other_ops.h", "another.py", "conv_run.h", "test_run_conv.py")
    ]
    assert faults(planted) == (["other_ops.h"], [["conv_run", "run_conv"]])
