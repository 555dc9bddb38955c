"""The files of csrc: no circle of includes, no library in instruction sets' files, their names."""

import re
from collections import Counter

import pytest

from bench import ROOT

CSRC = ROOT / "csrc"
MOST_FILES = 15
SUFFIXES = (".h", ".cuh", ".cpp", ".cu", ".inc")
# What an instruction set's files may include: macros, types and intrinsics. An inline function of a
# library would be compiled for that instruction set, and the linker might take this copy for the
# whole program.
HARMLESS = {"cstdint", "immintrin.h", "cpuid.h"}
# The only files that may include these libraries. The emulator (simt) is a Python module, too.
KNOWN_TO = {
    "torch": r"ops/.*",
    "pybind11": r"module\.cpp|python/.*|simt/module\.cpp",
    "cuda": r"cuda/(runtime|kernel|probe)/.*",
}


def sources():
    return sorted(p for p in CSRC.rglob("*") if p.suffix in SUFFIXES)


def included(path):
    """The files of csrc that this one includes, and the headers of others."""
    text = path.read_text()
    own = re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M)
    found = [next((p for p in (path.parent / n, CSRC / n) if p.is_file()), None) for n in own]
    missing = [n for n, p in zip(own, found, strict=True) if p is None]
    assert not missing, f"{path.relative_to(ROOT)} includes {missing}, which is not there"
    return [p.resolve() for p in found], re.findall(r"^\s*#\s*include\s+<([^>]+)>", text, re.M)


GRAPH = {path: included(path)[0] for path in sources()}


def circle(graph):
    """The files of a circle, the first one again at its end, or an empty list."""
    done, way = set(), []

    def visit(node):
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        way.append(node)
        found = next((c for c in map(visit, graph.get(node, [])) if c), [])
        way.pop()
        done.add(node)
        return found

    return next((c for c in map(visit, graph) if c), [])


def reached(path):
    """The file, what it includes, what that includes, and so on."""
    seen, waiting = set(), [path]
    while waiting:
        at = waiting.pop()
        if at not in seen:
            seen.add(at)
            waiting += GRAPH[at]
    return seen


def test_a_circle_is_found():
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []
    assert circle({"a": ["b"], "b": ["c"], "c": ["d", "b"], "d": []}) == ["b", "c", "b"]


def test_no_file_includes_itself():
    assert len(GRAPH) > 80
    assert [p.name for p in circle(GRAPH)] == []


@pytest.mark.parametrize("path", sorted((CSRC / "cpu" / "isa").glob("*.cpp")), ids=lambda p: p.name)
def test_an_instruction_set_includes_no_library(path):
    """Nor does anything that its file includes."""
    for file in reached(path):
        others = set(included(file)[1]) - HARMLESS
        assert not others, f"{path.name} includes {file.relative_to(ROOT)}, and that {others}"


def test_only_instruction_sets_include_tiles():
    special = [CSRC / "cpu" / "isa", CSRC / "cpu" / "tile"]
    for path, files in GRAPH.items():
        headers = [p for p in files if p.parent in special and p.suffix == ".h"]
        assert path.parent in special or not headers, f"{path.relative_to(ROOT)}: {headers}"


def test_the_host_knows_no_library_of_another_place():
    for path in sources():
        where = path.relative_to(CSRC).as_posix()
        for name in included(path)[1]:
            known = [places for library, places in KNOWN_TO.items() if name.startswith(library)]
            assert all(re.fullmatch(p, where) for p in known), f"{where} includes {name}"


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("python/new.h", "torch/csrc/stable/tensor.h"),
        ("ops/module.cpp", "pybind11/stl.h"),
        ("cpu/plan/new.cpp", "pybind11/pybind11.h"),
        ("simt/new.h", "pybind11/numpy.h"),
        ("cuda/new.h", "cuda_runtime.h"),
    ],
)
def test_a_library_in_a_wrong_place_is_seen(where, name, tmp_path, monkeypatch):
    (tmp_path / where).parent.mkdir(parents=True)
    (tmp_path / where).write_text(f"#include <{name}>\n")
    monkeypatch.setitem(globals(), "CSRC", tmp_path)
    with pytest.raises(AssertionError, match=f"{where} includes {name}"):
        test_the_host_knows_no_library_of_another_place()


def test_objects_have_names_of_their_own():
    cpu = Counter(p.name for p in (CSRC / "cpu").rglob("*.cpp"))
    assert max(cpu.values()) == 1, "tests/cpp/Makefile puts these objects into one folder"


def test_folders_can_be_read():
    for folder in [CSRC, *(p for p in CSRC.rglob("*") if p.is_dir())]:
        assert sum(p.is_file() for p in folder.iterdir()) <= MOST_FILES, folder
