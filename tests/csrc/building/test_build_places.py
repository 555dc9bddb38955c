"""Risk: a folder, compiler command or disk that no build can use ends it in a traceback."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from toolchains import run_python, run_setup


@pytest.mark.slow
def test_a_build_with_a_compiler_of_several_words_in_an_odd_folder(
    build: ModuleType, compiler: list[str], tmp_path: Path
) -> None:
    root, log = tmp_path / 'it\'s a "folder"; `x`', tmp_path / "log"
    hostile = {"CFLAGS": "-O3 -ffast-math", "CPPFLAGS": "-Ofast", "LDFLAGS": "-ffast-math"}
    done = run_setup(root, shlex.join(compiler), log, **hostile)
    assert done.returncode == 0, done.stderr
    assert list((root / "fskernel").glob("_C*.so"))
    names: dict[str, dict[str, str]] = {}
    exec((root / "fskernel" / "_build.py").read_text(), names)
    foreign = names["FACTS"]["foreign_flags"]
    assert foreign.startswith("CXX=env A=b ")
    assert foreign.endswith("; CFLAGS=-O3 -ffast-math; CPPFLAGS=-Ofast; LDFLAGS=-ffast-math")
    lines = log.read_text().splitlines()
    builds = [words for words in map(str.split, lines) if {"-MMD", "-shared"} & set(words)]
    assert len(builds) == len(build.sources()[0]) + 1
    for words in builds:  # every compilation, and the link
        last_hostile = max(i for i, w in enumerate(words) if w in ("-ffast-math", "-Ofast"))
        assert set(build.LINK_FLAGS) <= set(words[last_hostile:]), words


@pytest.mark.parametrize("character", ["$", ":", "|", "\n", "\r"])
def test_paths_that_ninja_cannot_read_are_refused(build: ModuleType, character: str) -> None:
    words = build.path_refusal("the repository", f"/home/a{character}b")
    assert "ninja" in words and "the repository" in words and "move it to another" in words
    assert "\n" not in words and "\r" not in words
    assert build.path_refusal("the repository", "/home/a b'\"`;&#%~?*()[]") is None


def test_paths_that_the_locale_cannot_write_are_refused(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build.path_refusal("the repository", "/home/ä") is None
    monkeypatch.setattr(build.locale, "getpreferredencoding", lambda _: "ascii")
    words = build.path_refusal("the repository", "/home/ä")
    assert "ascii" in words and "LC_ALL=C.UTF-8" in words


def test_a_refused_folder_ends_the_build_in_a_sentence(tmp_path: Path) -> None:
    done = run_setup(tmp_path / "d$HOME", "false", tmp_path / "log")
    assert done.returncode == 1
    assert "d$HOME" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("fskernel cannot be built, because ninja")


def test_an_unclosed_quote_ends_the_build_in_a_sentence(tmp_path: Path) -> None:
    done = run_setup(tmp_path / "x", "false", tmp_path / "log", CXX='g++ "x')
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("CXX is 'g++ \"x'")


def test_a_tree_that_cannot_be_written_is_said_in_a_sentence(build: ModuleType) -> None:
    def failing(error: OSError) -> SystemExit:
        """As setuptools hides it."""
        try:
            try:
                try:
                    raise error
                except OSError as inner:
                    raise RuntimeError(f"could not create: {inner}") from inner
            except RuntimeError as outer:
                raise SystemExit(f"error: {outer}")  # noqa: B904
        except SystemExit as stop:
            return stop

    for number in (errno.EROFS, errno.EACCES, errno.ENOSPC):
        words = build.write_refusal(failing(OSError(number, os.strerror(number), "build/x.o")))
        assert "'build/x.o' cannot be written" in words and os.strerror(number) in words
        assert "copy it to a folder" in words
    assert build.write_refusal(failing(OSError(errno.ENOENT, "no", "x"))) is None
    assert build.write_refusal(SystemExit("nvcc failed")) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_build_in_a_tree_that_may_not_be_written(compiler: list[str], tmp_path: Path) -> None:
    root = tmp_path / "x"
    run_setup(root, "false", tmp_path / "log", "--version")
    root.chmod(0o555)
    done = run_python(
        f"import os, runpy, sys; os.chdir({str(root)!r}); sys.argv = ['setup.py', 'egg_info']\n"
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    root.chmod(0o755)
    assert "fskernel cannot be built here" in done.stderr
